"""What the tests of reward models share: pictures, claims to be scored, and the settings of a model."""

import io
from pathlib import Path
from typing import Any

from PIL import Image

from ahabench.harness.errors import DatasetError
from ahabench.harness.types import AnswerType, Item
from ahabench.trainer.data import Kind, TrainItem
from ahabench.trainer.recipe import RewardModel
from ahabench.trainer.rewards import Claim


class Picture:
    """A picture of one grey."""

    def __init__(self, level: int) -> None:
        self.level = level

    def read(self) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (self.level,) * 3).save(buffer, "PNG")
        return buffer.getvalue()


class Missing:
    """A picture that is not there."""

    def read(self) -> bytes:
        raise DatasetError("image 7.png cannot be read")


def claim(answer: str, *, item_id: str = "i", gold: str = "a red bus", image: Any = None) -> Claim:
    item = Item(
        id=item_id,
        question="What is it?",
        gold=gold,
        answer_type=AnswerType.TEXT,
        images=(image,) if image is not None else (),
    )
    return Claim(item=TrainItem(item=item, kind=Kind.OPEN_ENDED), answer=answer)


def settings(kind: str, model: Path | str, **changes: Any) -> RewardModel:
    return RewardModel.model_validate({"kind": kind, "model": str(model), "timeout_s": 20, **changes})
