"""Boxes in text: reading one, in units that are declared, and how much two overlap."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Self

_NUMBER = r"[+-]?\d{1,9}(?:\.\d{1,18})?"
_BOX = re.compile(rf"[\[(]\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*[\])]")


class BoxUnits(StrEnum):
    """What the numbers of a box [x1, y1, x2, y2] are. It is declared, never guessed from their size."""

    NORMALISED = "normalised"
    """Fractions of the image's width and height."""
    PIXEL = "pixel"
    """Pixels of the image as it is stored, not as a processor resized it."""
    THOUSAND = "0-1000"
    """Thousandths of the image's width and height."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxFormat:
    """How the boxes of one item are written."""

    gold: BoxUnits
    answer: BoxUnits
    image_size: tuple[int, int] | None = None
    """(width, height) in pixels; known wherever only one of gold and answer is in pixels."""

    def as_tags(self) -> dict[str, tuple[str, ...]]:
        """Return it as tags of an item."""
        size = {"image_size": tuple(map(str, self.image_size))} if self.image_size else {}
        return {"box_units": (self.gold.value, self.answer.value), **size}

    @classmethod
    def of_tags(cls, tags: Mapping[str, tuple[str, ...]]) -> Self:
        """Return what `as_tags` wrote."""
        gold, answer = tags["box_units"]
        size = [int(side) for side in tags.get("image_size", ())]
        return cls(gold=BoxUnits(gold), answer=BoxUnits(answer), image_size=(size[0], size[1]) if size else None)


class Box(NamedTuple):
    """Two corners in one unit, the upper left first."""

    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def area(self) -> float:
        """Width times height."""
        return (self.x2 - self.x1) * (self.y2 - self.y1)


def read_box(text: str, units: BoxUnits, image_size: tuple[int, int] | None = None) -> Box | None:
    """Return the only box [x1, y1, x2, y2] in a text, in the units in which it is written.

    Args:
        text: an answer or a gold.
        units: what the numbers are.
        image_size: (width, height) in pixels, the bounds of a box in pixels where they are known.

    Returns:
        `None` where there is no box or several that differ, where it has no area, or where it leaves the image in these
        units: a box in pixels under a declaration of fractions is no box.

    >>> read_box("[0.1, 0.2, 0.7, 0.5]", BoxUnits.NORMALISED)
    Box(x1=0.1, y1=0.2, x2=0.7, y2=0.5)
    """
    found = {tuple(float(number) for number in match.groups()) for match in _BOX.finditer(text)}
    if len(found) != 1:
        return None
    box = Box(*found.pop())
    width, height = _bounds(units, image_size)
    inside = box.x1 >= 0 <= box.y1 and box.x2 <= width and box.y2 <= height
    return box if inside and box.x1 < box.x2 and box.y1 < box.y2 else None


def convert(box: Box, units: BoxUnits, to: BoxUnits, image_size: tuple[int, int] | None) -> Box:
    """Return a box in other units.

    Raises:
        ValueError: only one of the units is pixels, and the image's size is not known.
    """
    if units is to:
        return box
    if image_size is None and BoxUnits.PIXEL in {units, to}:
        raise ValueError(f"a box in {units} units becomes one in {to} units only with the image's size")
    (width, height), (new_width, new_height) = _bounds(units, image_size), _bounds(to, image_size)
    across, down = new_width / width, new_height / height
    return Box(box.x1 * across, box.y1 * down, box.x2 * across, box.y2 * down)


def iou(first: Box, second: Box) -> float:
    """Return the intersection over the union of two boxes in the same units, in [0, 1].

    >>> iou(Box(0, 0, 2, 2), Box(1, 0, 3, 2))  # 2 of 6 unit squares
    0.3333333333333333
    """
    width = min(first.x2, second.x2) - max(first.x1, second.x1)
    height = min(first.y2, second.y2) - max(first.y1, second.y1)
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (first.area + second.area - shared)


def _bounds(units: BoxUnits, image_size: tuple[int, int] | None) -> tuple[float, float]:
    match units:
        case BoxUnits.NORMALISED:
            return 1.0, 1.0
        case BoxUnits.THOUSAND:
            return 1000.0, 1000.0
        case BoxUnits.PIXEL:
            return image_size or (float("inf"), float("inf"))
