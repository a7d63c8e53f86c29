"""How a run ends where something stops it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness.errors import TrainingError, UsageError
from ahabench.trainer.lifecycle import carry_out
from ahabench.trainer.run_folder import newest


def test_an_image_that_cannot_be_decoded_stops_a_run_that_goes_on_when_it_is_mended(
    trainer_of: Callable[..., Any], records: Path, tmp_path: Path
) -> None:
    data, out = shutil.copytree(records, tmp_path / "data"), tmp_path / "out"
    image = data / "images" / "0.png"
    whole = image.read_bytes()
    image.write_bytes(whole[:60])
    ended: list[str] = []
    # Six rollouts of four prompts: each of the 24 records is drawn.
    trainer = trainer_of(data=str(data), max_steps=12)
    with pytest.raises(TrainingError, match=r"digit-0 cannot be decoded.*mend it and give --resume") as stopped:
        carry_out(trainer, out, None, ended.append)
    checkpoint = newest(out)
    assert checkpoint is not None
    assert checkpoint.step == trainer.state.global_step
    assert str(checkpoint.path) in str(stopped.value)
    image.write_bytes(whole)
    assert carry_out(trainer_of(data=str(data), max_steps=12), out, checkpoint, ended.append) == out / "final"
    assert ended == ["incomplete", "complete"]


def test_adapters_for_modules_that_are_not_there_are_one_line(trainer_of: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match=r"no module that lora\.target_modules = 'nothing' names"):
        trainer_of(lora={"target_modules": "nothing"})
