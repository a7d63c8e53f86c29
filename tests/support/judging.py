"""What the tests of the judge share: items and responses for it to read, and a judge that reads well."""

import json
from collections.abc import Callable
from typing import Any

from ahabench.harness.judge import Extraction, Judge
from ahabench.harness.types import AnswerType, Item, Response

MODEL = "reader"
SERVED = "reader-2026-01-31"

Serve = Callable[..., Any]


def item(number: int, **fields: Any) -> Item:
    settings = {"question": f"Question {number}?", "gold": None, "answer_type": AnswerType.INTEGER} | fields
    return Item(id=str(number), **settings)


def response(number: int, text: str | None, sample: int = 0) -> Response:
    return Response(item_id=str(number), sample_index=sample, text=text)


def pairs(count: int) -> list[tuple[Item, Response]]:
    return [(item(n), response(n, f"Let me think about {n}. So it is {n * n}.")) for n in range(count)]


def read_one(judge: Judge, text: str, **fields: Any) -> Extraction:
    (extraction,) = judge.extract_all([(item(0, **fields), response(0, text))])
    return extraction


def last_word(call: Any) -> str:
    """A judge that takes a response's last word for its answer."""
    return json.dumps({"answer": call.quoted.split()[-1].rstrip(".")})
