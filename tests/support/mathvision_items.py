"""Made-up records and items of MathVision."""

from typing import Any

from ahabench.harness.types import Item
from ahabench.tasks.mathvision import to_item


def row(**changes: Any) -> dict[str, Any]:
    """A made-up record as the official files have them."""
    base: dict[str, Any] = {
        "id": "9001",
        "question": "How many corners has it?\n<image1>",
        "options": [],
        "answer": "6",
        "solution": None,
        "level": 2,
        "subject": "counting",
        "image": "images/9001.jpg",
    }
    return base | changes


def free(gold: str) -> Item:
    return to_item(row(answer=gold))


def choice(gold: str, options: tuple[str, ...] = ("$3$", "$4$", "$5$", "$6$", "none of them")) -> Item:
    return to_item(row(options=list(options), answer=gold))
