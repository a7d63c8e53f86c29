"""What is tried before hours are spent: the hardest requests, and the room on the disk."""

import io
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ahabench.harness.errors import DatasetError, UsageError
from ahabench.harness.images import FORMATS, ImageFile
from ahabench.harness.runlog import Key
from ahabench.harness.seen import SeenImage
from ahabench.harness.types import ImageSource, Request

TOKEN_BYTES = 6
"""Of a response's token on the disk: four of English, up to twelve where text is not ASCII and is written escaped."""
ROW_BYTES = 1_000
"""Of a response's and its verdict's other keys."""
DEFAULT_TOKENS = 2_048
"""Taken for the longest response where an engine does not say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A request that is asked before all others, because it is the likeliest to fail."""

    task: str
    key: Key
    what: str
    """Why it was chosen, such as "the largest image (4,096x3,072 pixels)"."""


def probes(requests: Mapping[str, Mapping[Key, Request]]) -> list[Probe]:
    """Return the request with the largest image and the one with the longest prompt, or one that is both.

    An image's size is read from its header: no picture is decoded, and of a file no more is read than that, which takes
    a third of a millisecond from a local disk. One that cannot be read is left for the engine to complain about.

    Args:
        requests: of each task, by (item, sample); the first sample stands for all.
    """
    largest: Probe | None = None
    longest: Probe | None = None
    most_pixels, most_text = 0, -1
    for task, owed in requests.items():
        for key, request in owed.items():
            if key[1] != 0:
                continue
            for size in map(_size, request.images):
                if size[0] * size[1] > most_pixels:
                    most_pixels = size[0] * size[1]
                    largest = Probe(task=task, key=key, what=f"the largest image ({size[0]:,}x{size[1]:,} pixels)")
            length = len(request.prompt.text) + len(request.prompt.system or "")
            if length > most_text:
                most_text = length
                longest = Probe(task=task, key=key, what=f"the longest prompt ({length:,} characters)")
    if largest is not None and longest is not None and (largest.task, largest.key) == (longest.task, longest.key):
        return [Probe(task=largest.task, key=largest.key, what=f"{largest.what} and {longest.what}")]
    return [probe for probe in (largest, longest) if probe is not None]


def check_disk(out: Path, n_responses: int, max_new_tokens: int | None) -> None:
    """Refuse to begin what the disk cannot hold if every response is as long as it may be.

    Args:
        out: the run directory, which need not be there yet.
        n_responses: what is still to be written.
        max_new_tokens: the longest response; `DEFAULT_TOKENS` if `None`.

    Raises:
        UsageError: there is less room than that.
    """
    needed = n_responses * (ROW_BYTES + TOKEN_BYTES * (max_new_tokens or DEFAULT_TOKENS))
    folder = out.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UsageError(
            f"preflight: {out} has room for {_size_of(free)}, and {n_responses:,} responses may take "
            f"{_size_of(needed)}; make room, use another --out, or add --no-preflight"
        )


def _size(image: ImageSource) -> tuple[int, int]:
    """Return an image's (width, height) in pixels from its header; (0, 0) where that cannot be read."""
    from PIL import Image

    if isinstance(image, SeenImage):
        image = image.source
    try:
        source = image.path if isinstance(image, ImageFile) else io.BytesIO(image.read())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(source, formats=FORMATS) as picture:
                return picture.width, picture.height
    except (DatasetError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0, 0


def _size_of(n_bytes: int) -> str:
    """Return a number of bytes as people read it."""
    units = ("bytes", "kB", "MB", "GB", "TB")
    power = min(len(units) - 1, max(0, (len(str(n_bytes)) - 1) // 3))
    return f"{n_bytes / 1000**power:,.{1 if power else 0}f} {units[power]}"
