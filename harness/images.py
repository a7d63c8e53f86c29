"""Image files and their decoding: RGB on white, upright, bounded."""

import io
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ahabench.harness.errors import DatasetError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 80_000_000
"""A larger image is refused as a decompression bomb; the largest of the six benchmarks has 9 million."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""Others are refused: Pillow would hand some of them to other programs."""
PATCH_PX = 28
"""The edge, in pixels, of the square that is one token in Qwen2-VL and Qwen2.5-VL."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image in a folder."""

    path: Path

    def read(self) -> bytes:
        """Return the file's bytes."""
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise DatasetError(f"image {self.path} cannot be read: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class TableImage:
    """An image in a column of a table from the hub, undecoded."""

    table: Any
    """A `datasets.Dataset` whose image column holds {"bytes", "path"}."""
    index: int
    column: str

    def read(self) -> bytes:
        """Return the cell's bytes."""
        cell = self.table[self.index][self.column]
        if cell and cell.get("bytes"):
            return bytes(cell["bytes"])
        if cell and cell.get("path"):
            return ImageFile(Path(cell["path"])).read()
        raise DatasetError(f"row {self.index} has no image in column {self.column!r}")


def decode(data: bytes, *, name: str) -> "Image":
    """Return the picture as RGB on white, turned upright by its EXIF orientation.

    The container is found from the bytes, not from a file name: We-Math has JPEG data in .png files.

    Args:
        data: an encoded image.
        name: what to call it in an error.

    Raises:
        DatasetError: it is no image, is cut off, or has more than `MAX_PIXELS` pixels.
    """
    from PIL import Image, ImageOps

    damaged = (OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error, Image.DecompressionBombError)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise DatasetError(f"image {name} is {width}x{height}, more than {MAX_PIXELS:,} pixels: refused")
            return _on_white(ImageOps.exif_transpose(image))
    except damaged as error:
        raise DatasetError(f"image {name} cannot be decoded: {error}") from error


def smart_resize(width: int, height: int, *, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Return the width and height, in pixels, to which Qwen2-VL and Qwen2.5-VL bring an image.

    Both are multiples of `PATCH_PX`, the area lies between the limits, and the shape is kept as nearly as that allows;
    a thin image may exceed the largest area, since no edge falls below one patch. The rule is that of
    image_processing_qwen2_vl.py in transformers, but for its refusal of images 200 times as long as wide.

    Args:
        width: at least 1.
        height: at least 1.
        min_pixels: the smallest area.
        max_pixels: the largest area.

    >>> smart_resize(640, 480, min_pixels=0, max_pixels=100 * 28 * 28)
    (308, 224)
    """
    wide, high = (round(edge / PATCH_PX) * PATCH_PX for edge in (width, height))
    if wide * high > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        wide, high = (math.floor(edge / shrink / PATCH_PX) * PATCH_PX for edge in (width, height))
    elif wide * high < min_pixels:
        grow = math.sqrt(min_pixels / (width * height))
        wide, high = (math.ceil(edge * grow / PATCH_PX) * PATCH_PX for edge in (width, height))
    return max(PATCH_PX, wide), max(PATCH_PX, high)


def _on_white(image: "Image") -> "Image":
    from PIL import Image

    if image.mode.startswith("I;16"):
        # convert("L") would clip 16-bit grey to white instead of scaling it.
        image = image.point(lambda level: level / 256).convert("L")
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    layered = image.convert("RGBA")
    white = Image.new("RGBA", layered.size, "white")
    return Image.alpha_composite(white, layered).convert("RGB")
