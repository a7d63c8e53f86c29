"""What tests ask of engines: pictures in memory, requests, and a benchmark of additions."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from plans import plan_of

from ahabench.harness.runner import Plan
from ahabench.harness.types import AnswerType, ImageSource, Item, Prompt, Request, Response


@dataclass(frozen=True)
class Picture:
    """An image in memory."""

    data: bytes

    def read(self) -> bytes:
        return self.data


def picture(colour: str, width: int = 56, height: int = 56) -> Picture:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return Picture(buffer.getvalue())


def ask(text: str, *images: ImageSource, item: str = "", sample: int = 0, **fields: Any) -> Request:
    return Request(item_id=item or text, sample_index=sample, prompt=Prompt(text=text, **fields), images=images)


def questions(count: int, *images: ImageSource) -> list[Request]:
    """Prompts of many lengths, every other one under a system prompt."""
    return [
        ask(f"{n} x" + "y" * 5 * n, *images, item=str(n), system="Be brief." if n % 2 else None) for n in range(count)
    ]


def texts(responses: Sequence[Response]) -> dict[tuple[str, int], str | None]:
    return {(response.item_id, response.sample_index): response.text for response in responses}


def additions(n_items: int, samples: int) -> Plan:
    """Return a benchmark of additions."""
    items = [
        Item(id=str(n), question=f"{n} + {10**n}?", gold=None, answer_type=AnswerType.INTEGER) for n in range(n_items)
    ]
    return plan_of(items, samples=samples)
