"""Digests of the image bytes that an engine read, and their check before rows are reused."""

import hashlib
from pathlib import Path

import pytest

from ahabench.harness.errors import UsageError
from ahabench.harness.images import ImageFile
from ahabench.harness.seen import SeenImage, check_seen, images_digest, seen


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


class Counted:
    """A source that counts how often it is read."""

    def __init__(self, data: bytes) -> None:
        self.data, self.reads = data, 0

    def read(self) -> bytes:
        self.reads += 1
        return self.data


def test_an_image_is_not_read_before_somebody_wants_it() -> None:
    source = Counted(b"picture")
    (image,) = seen([source])
    assert (source.reads, image.digest) == (0, None)
    assert image.read() == b"picture"
    assert (source.reads, image.digest) == (1, sha(b"picture"))


def test_the_digest_of_several_images_is_that_of_their_digests_in_order() -> None:
    expected = hashlib.sha256(sha(b"one") + sha(b"two")).hexdigest()
    assert images_digest([sha(b"one"), sha(b"two")]) == expected
    assert images_digest([sha(b"two"), sha(b"one")]) != expected


def test_what_nobody_has_read_in_full_has_no_digest() -> None:
    assert images_digest([]) is None
    assert images_digest([sha(b"one"), None]) is None


def test_images_that_stayed_as_they_were_pass(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    file = ImageFile(tmp_path / "a.png")
    digest = images_digest([sha(b"a")])
    assert digest is not None
    check_seen("run/task", {("1", 0): digest, ("1", 1): digest}, {"1": (SeenImage(file),)})


def test_a_replaced_image_is_refused_by_its_item(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"b")
    digest = images_digest([sha(b"a")])
    assert digest is not None
    with pytest.raises(UsageError, match=r"item '1', sample 1, of run/task was asked with another image"):
        check_seen("run/task", {("1", 1): digest}, {"1": (ImageFile(tmp_path / "a.png"),)})


def test_an_image_is_read_once_for_all_its_samples() -> None:
    source = Counted(b"a")
    digest = images_digest([sha(b"a")])
    assert digest is not None
    check_seen("run/task", {("1", sample): digest for sample in range(5)}, {"1": (source,), "2": (Counted(b"x"),)})
    assert source.reads == 1


def test_a_check_leaves_no_trace_of_reading(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    image = SeenImage(ImageFile(tmp_path / "a.png"))
    digest = images_digest([sha(b"a")])
    assert digest is not None
    check_seen("run/task", {("1", 0): digest}, {"1": (image,)})
    # Only an engine's reading says what the engine saw.
    assert image.digest is None
