"""What tests ask of engines: pictures in memory, requests, and a benchmark of additions."""

import io
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ahabench.harness.dataset import Dataset
from ahabench.harness.runner import Plan, TaskPlan
from ahabench.harness.types import AnswerType, ImageSource, Item, Prompt, PromptStyle, Request, Split, Task


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


def additions(n_items: int, samples: int) -> Plan:
    """Return a benchmark of additions."""
    style = PromptStyle(version=1, render=lambda item: Prompt(text=item.question))
    split = Split(n_items=n_items, hub=None)
    task = Task(
        name="sums",
        title="Sums",
        version=1,
        paper="",
        licence="",
        splits={"test": split},
        default_split="test",
        read_folder=lambda folder, name: (),
        to_item=lambda row: row["item"],
        prompts={"plain": style},
        scorers={},
        metrics={},
        headline="accuracy",
    )
    items = tuple(
        Item(id=str(n), question=f"{n} + {10**n}?", gold=None, answer_type=AnswerType.INTEGER) for n in range(n_items)
    )
    made = Dataset(task=task, split="test", items=items, source="folder", revision=None, digest="00")
    return Plan(tasks=(TaskPlan(dataset=made, style="plain", prompt=style),), samples=samples)
