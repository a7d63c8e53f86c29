"""Draw a scene: integer arithmetic on hand-made masks, so that a picture has the same bytes everywhere.

No font and no drawing library take part, and the PNG is stored, not compressed: fonts, antialiasing and compressors
change from release to release, and a committed digest must not.
"""

import struct
import zlib
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import TYPE_CHECKING

from ahabench.tasks.mini.scene import Cell, Scene

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CELL = 28
"""Pixels: a cell is exactly one merged token of Qwen2.5-VL's vision tower (2 x 2 patches of 14)."""
SIZE = 2 * CELL
"""Width and height of a picture in pixels."""

_MEAN = (123, 117, 104)
_JITTER = 2
_DARK, _LIGHT = 24, 232
_GLYPHS = {
    "0": "01110 10001 10011 10101 11001 10001 01110",
    "1": "00100 01100 00100 00100 00100 00100 01110",
    "2": "01110 10001 00001 00110 01000 10000 11111",
    "3": "11111 00010 00100 00010 00001 10001 01110",
    "4": "00010 00110 01010 10010 11111 00010 00010",
    "5": "11111 10000 11110 00001 00001 10001 01110",
    "6": "00110 01000 10000 11110 10001 10001 01110",
    "7": "11111 00001 00010 00100 01000 01000 01000",
    "8": "01110 10001 10001 01110 10001 10001 01110",
    "9": "01110 10001 10001 01111 00001 00010 01100",
    "?": "01110 10001 00001 00110 00100 00000 00100",
    "+": "00000 00100 00100 11111 00100 00100 00000",
    "-": "00000 00000 00000 11111 00000 00000 00000",
}
"""Five by seven dots each, three pixels to a dot."""
_PIPS = {"1": "4", "2": "08", "3": "048", "4": "0268", "5": "02468", "6": "023568"}
"""Which fields of three by three have a dot."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A scene in one of its many drawings; an image source that draws when it is read."""

    scene: Scene
    style: int
    """Seeds where each symbol stands within its cell (2 pixels either way) and how bright and sloped the ground is."""

    def read(self) -> bytes:
        """Return a PNG file, RGB, 56 x 56 pixels."""
        return _png(self.pixels())

    def pixels(self) -> "NDArray[np.uint8]":
        """Return the picture: uint8 ``[56, 56, 3]``.

        The ground lies near the mean that CLIP's normalisation subtracts, and slopes: a cue for absolute position,
        which Qwen2.5-VL's relative position code does not give.
        """
        import numpy as np

        rng = Random(self.style)
        right, down, level = rng.randint(10, 14), rng.randint(4, 8), rng.randint(-6, 6)
        ramp = np.arange(SIZE) - SIZE // 2
        slope = (ramp[None, :] * right + ramp[:, None] * down) // 10
        canvas = np.array(_MEAN)[None, None, :] + slope[:, :, None] + level
        for place, cell in enumerate(self.scene):
            row, column = divmod(place, 2)
            shift = (rng.randint(-_JITTER, _JITTER), rng.randint(-_JITTER, _JITTER))
            tone = (_LIGHT if cell.kind == "light" else _DARK) + rng.randint(-12, 12)
            mask = np.roll(_mask(cell), shift if cell.kind != "bar" else (0, shift[1]), axis=(0, 1))
            canvas[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL][mask] = tone
        return np.asarray(canvas, dtype=np.uint8)


@cache
def _mask(cell: Cell) -> "NDArray[np.bool_]":
    """Return which pixels a symbol covers, 28 x 28, two pixels free at each side; only a bar stands on the floor."""
    import numpy as np

    y, x = np.mgrid[0:CELL, 0:CELL] * 2 - (CELL - 1)  # twice the distance from the centre
    if cell.kind == "blank":
        return np.zeros((CELL, CELL), dtype=bool)
    if cell.kind == "bar":
        return np.asarray((abs(x) < 12) & (y > CELL - 1 - 8 * int(cell.value)))
    if cell.kind == "dots":
        fields = [divmod(int(field), 3) for field in _PIPS[cell.value]]
        near = [(y - 14 * (row - 1)) ** 2 + (x - 14 * (column - 1)) ** 2 < 36 for row, column in fields]
        return np.asarray(np.logical_or.reduce(near))
    if cell.kind in ("digit", "sign"):
        dots = np.array([[int(dot) for dot in line] for line in _GLYPHS[cell.value].split()], dtype=bool)
        glyph = dots.repeat(3, axis=0).repeat(3, axis=1)
        return np.pad(glyph, ((3, 4), (6, 7)))
    shapes = {
        "circle": x**2 + y**2 < 380,
        "square": (abs(x) < 18) & (abs(y) < 18),
        "triangle": (abs(y) < 19) & (2 * abs(x) < y + 19),
        "cross": ((abs(x - y) < 9) | (abs(x + y) < 9)) & (abs(x) < 20) & (abs(y) < 20),
    }
    return np.asarray(shapes[cell.value])


def _png(pixels: "NDArray[np.uint8]") -> bytes:
    height, width, _ = pixels.shape
    raw = b"".join(b"\x00" + row.tobytes() for row in pixels)
    length = struct.pack("<HH", len(raw), len(raw) ^ 0xFFFF)
    stored = b"\x78\x01\x01" + length + raw + struct.pack(">I", zlib.adler32(raw))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", stored), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
