"""What a picture of the built-in suite shows: four cells, and the side of the split that they belong to."""

import hashlib
from collections.abc import Sequence
from enum import StrEnum
from random import Random
from typing import NamedTuple

PLACES = ("first", "second", "third", "fourth")
"""The cells' names: top left, top right, bottom left, bottom right."""
SHAPES = ("circle", "square", "triangle", "cross")
NUMERALS = {"digit": range(10), "dots": range(1, 7), "bar": range(1, 7)}
"""The numbers that each way to show one has: a printed digit, the dots of a die, the height of a bar."""

_TEST_SHARE = 4
_FRESH_SHARE = 8


class Side(StrEnum):
    """Which split a scene belongs to."""

    TRAIN = "train"
    TEST = "test"


class Cell(NamedTuple):
    """One quarter of a picture."""

    kind: str
    """"digit", "dots", "bar", "dark" or "light" (a shape in that tone), "sign" or "blank"."""
    value: str

    @property
    def words(self) -> str:
        """How a reader names it: a number is its digit, however it is shown."""
        if self.kind == "light":
            return f"light {self.value}"
        return self.value or "blank"

    @property
    def number(self) -> int:
        """The number that it shows.

        Raises:
            ValueError: it shows none.
        """
        if self.kind not in NUMERALS:
            raise ValueError(f"{self} shows no number")
        return int(self.value)


Scene = tuple[Cell, Cell, Cell, Cell]
BLANK = Cell("blank", "")


class Fact(NamedTuple):
    """One sum or difference, in the order in which it is asked."""

    left: int
    sign: str
    """"+" or "-"."""
    right: int

    @property
    def result(self) -> int:
        """What it comes to."""
        return self.left + self.right if self.sign == "+" else self.left - self.right

    @property
    def fresh(self) -> bool:
        """Whether training never has it, in any question: about one in eight of those with two different digits.

        A sum's mirror image is not fresh as well. The numbers of a longer sum may go beyond 9: none of those is fresh.
        """
        if self.left == self.right or max(self.left, self.right) > 9 or self.result < 0:
            return False
        mirror = Fact(self.right, self.sign, self.left)
        return _bucket(self, _FRESH_SHARE) == 0 and not (self.sign == "+" and _bucket(mirror, _FRESH_SHARE) == 0)


def side(scene: Sequence[Cell]) -> Side:
    """Return the split of a scene: one in four is for testing, by a hash of what the cells show.

    Signs count as blank, so that one problem drawn with and without its "+" stays on one side. The hash knows nothing
    of the question, of where a symbol stands within its cell, or of how bright it is: what is drawn for testing is
    never drawn for training, with any question. Of a scene with two symbols a question may say all there is to see, so
    there it does not count either how a number is shown; and a scene that offers a fresh fact is for testing.
    """
    shown = [BLANK if cell.kind == "sign" else cell for cell in scene]
    if shown.count(BLANK) < 2:
        return Side.TEST if _bucket(tuple(shown), _TEST_SHARE) == 0 else Side.TRAIN
    numbers = [cell.number for cell in shown if cell.kind in NUMERALS]
    offers_fresh = len(numbers) == 2 and any(Fact(numbers[0], sign, numbers[1]).fresh for sign in "+-")
    words = tuple(cell.words for cell in shown)
    return Side.TEST if offers_fresh or _bucket(words, _TEST_SHARE) == 0 else Side.TRAIN


def _bucket(content: tuple[object, ...], n: int) -> int:
    text = "|".join(":".join(map(str, part)) if isinstance(part, tuple) else str(part) for part in content)
    return int.from_bytes(hashlib.sha256(text.encode("ascii")).digest()[:8], "big") % n


def numeral(rng: Random, number: int, kind: str | None = None) -> Cell:
    """Return a cell that shows a number from 0 to 9, as a digit where dots and bars do not reach."""
    kinds = [name for name, numbers in NUMERALS.items() if number in numbers and kind in (None, name)]
    return Cell(rng.choice(kinds or ["digit"]), str(number))


def sign(text: str) -> Cell:
    """Return a cell that shows "+", "-" or "?"."""
    return Cell("sign", text)
