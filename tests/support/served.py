"""What the tests of the engine for servers share: requests, pictures, and a plan of one small benchmark."""

import base64
import io
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from plans import plan_of
from unruly_server import MODEL

from ahabench.harness.engines.openai import OpenAIEngine, OpenAIOptions
from ahabench.harness.runner import Plan
from ahabench.harness.sampling import Sampling
from ahabench.harness.types import AnswerType, ImageSource, Item, Prompt, Request, Response

KEY = "sk-very-secret-0123456789"
QUICK: dict[str, Any] = {"timeout_s": 5, "attempts": 3}

Serve = Callable[..., Any]


@dataclass(frozen=True)
class Bytes:
    """An image in memory."""

    content: bytes

    def read(self) -> bytes:
        return self.content


def request(n: int = 0, *, sample: int = 0, images: tuple[ImageSource, ...] = (), **prompt: Any) -> Request:
    return Request(
        item_id=f"i{n}", sample_index=sample, prompt=Prompt(**{"text": f"question {n}", **prompt}), images=images
    )


def engine(url: str, model: str = MODEL, *, sampling: Sampling | None = None, **options: Any) -> OpenAIEngine:
    pixels = {name: options.pop(name) for name in ("min_pixels", "max_pixels") if name in options}
    return OpenAIEngine(
        url, model, sampling=sampling or Sampling(), options=OpenAIOptions(**{**QUICK, **options}), **pixels
    )


def ask(url: str, *requests: Request, **options: Any) -> list[Response]:
    return sorted(engine(url, **options).generate(requests or (request(),)), key=lambda one: one.item_id)


def png(width: int, height: int, mode: str = "RGB", format: str = "PNG", **save: Any) -> bytes:
    from PIL import Image

    picture = Image.effect_noise((width, height), 60).convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, format, **save)
    return buffer.getvalue()


def sent_image(call: Any) -> tuple[str, bytes]:
    """The media type and the bytes of a call's only image."""
    (uri,) = [part["image_url"]["url"] for part in call.content if part["type"] == "image_url"]
    head, _, rest = uri.partition(",")
    return head, base64.b64decode(rest, validate=True)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ahabench")]


def questions(n_items: int) -> Plan:
    """Return a benchmark that asks what `request` asks."""
    items = [
        Item(id=str(n), question=f"question {n}", gold=str(n), answer_type=AnswerType.INTEGER) for n in range(n_items)
    ]
    return plan_of(items)
