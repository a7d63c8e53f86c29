"""Which image bytes a response answers: digests taken while an engine reads, and checked before rows are reused.

An item's digest of the data set covers its words and not its pictures, since reading them all would hold up a run. So
each row carries a digest of the bytes that the engine itself read. Nothing is read for it that would not be read
anyway; going on with a run reads the images of the rows that it keeps once, and holds one at a time: a fifth of a
second for We-Math's 1,740 images (42 MB) from a local disk.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from ahabench.harness.errors import UsageError
from ahabench.harness.images import ImageFile
from ahabench.harness.types import ImageSource


class SeenImage:
    """An image source that remembers the digest of what was last read from it.

    Args:
        source: where the bytes are.
    """

    __slots__ = ("digest", "source")

    def __init__(self, source: ImageSource) -> None:
        """Read nothing yet."""
        self.source = source
        self.digest: bytes | None = None
        """SHA-256 of the bytes; `None` until somebody has read them."""

    def read(self) -> bytes:
        """Return the source's bytes."""
        data = self.source.read()
        self.digest = hashlib.sha256(data).digest()
        return data


def seen(images: Iterable[ImageSource]) -> tuple[SeenImage, ...]:
    """Return image sources that remember what is read from them."""
    return tuple(map(SeenImage, images))


def images_digest(digests: Sequence[bytes | None]) -> str | None:
    """Return the SHA-256, hexadecimal, of an item's images by their own SHA-256, in the item's order.

    `None` where there are none or one has not been read: then nobody knows what was seen.
    """
    known = [digest for digest in digests if digest is not None]
    if not known or len(known) < len(digests):
        return None
    return hashlib.sha256(b"".join(known)).hexdigest()


def read_digest(images: Iterable[ImageSource]) -> str | None:
    """Return `images_digest` of images as they are now, by reading them.

    Raises:
        DatasetError: one cannot be read.
    """
    return images_digest([hashlib.sha256(image.read()).digest() for image in images])


def check_seen(
    where: str, recorded: Mapping[tuple[str, int], str], images: Mapping[str, Sequence[ImageSource]]
) -> None:
    """Refuse to go on with rows that answer other images than those that stand there now.

    Each image is read once, also where several samples or items share it.

    Args:
        where: the rows' file, for the error.
        recorded: `images_digest` of each row that has one, by its key.
        images: the images of each item, by its id.

    Raises:
        UsageError: an image was replaced.
        DatasetError: an image cannot be read.
    """
    files: dict[ImageFile, bytes] = {}
    now: dict[str, str | None] = {}
    for (item_id, sample), digest in recorded.items():
        sources = images.get(item_id, ())
        if not sources:
            continue
        if item_id not in now:
            now[item_id] = images_digest([_digest(source, files) for source in sources])
        if now[item_id] != digest:
            raise UsageError(
                f"item {item_id!r}, sample {sample}, of {where} was asked with another image than the data have now; "
                "restore the image, or use another --out"
            )


def _digest(source: ImageSource, files: dict[ImageFile, bytes]) -> bytes:
    if isinstance(source, SeenImage):
        source = source.source
    if not isinstance(source, ImageFile):
        return hashlib.sha256(source.read()).digest()
    if source not in files:
        files[source] = hashlib.sha256(source.read()).digest()
    return files[source]
