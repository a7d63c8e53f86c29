"""How a run ends where something stops it."""

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness.errors import TrainingError, UsageError
from ahabench.trainer.lifecycle import carry_out
from ahabench.trainer.recipe import parse_recipe
from ahabench.trainer.recipe_files import dump_recipe
from ahabench.trainer.run_folder import check_recipe, newest
from ahabench.trainer.training_page import SFT_RECORD


def test_an_image_that_cannot_be_decoded_stops_a_run_that_goes_on_when_it_is_mended(
    trainer_of: Callable[..., Any], records: Path, tmp_path: Path
) -> None:
    data, out = shutil.copytree(records, tmp_path / "data"), tmp_path / "out"
    image = data / "images" / "0.png"
    whole = image.read_bytes()
    image.write_bytes(whole[:60])
    ended: list[str] = []

    def say(status: str) -> None:
        ended.append(status)
        (out / SFT_RECORD).write_text(json.dumps({"status": status, "model": {"name": "tiny"}}))

    # Six rollouts of four prompts: each of the 24 records is drawn.
    trainer = trainer_of(data=str(data), max_steps=12)
    with pytest.raises(TrainingError, match=r"digit-0 cannot be decoded.*mend it and give --resume") as stopped:
        carry_out(trainer, out, None, say)
    checkpoint = newest(out)
    assert checkpoint is not None
    assert checkpoint.step == trainer.state.global_step
    assert str(checkpoint.path) in str(stopped.value)
    image.write_bytes(whole)
    assert carry_out(trainer_of(data=str(data), max_steps=12), out, checkpoint, say) == out / "final"
    assert ended == ["incomplete", "complete"]
    assert "12 steps, complete" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("changed", "refused"),
    [({"url": "http://b:1"}, False), ({"timeout_s": 9.0}, False), ({"model": "n"}, True), ({"label": 1}, True)],
)
def test_a_reward_server_may_move_and_not_become_another(
    changed: dict[str, Any], refused: bool, settings: dict[str, Any], tmp_path: Path
) -> None:
    server = {"kind": "classify-server", "model": "m", "url": "http://a:1"}
    begun, now = (parse_recipe(settings | {"reward_model": one}, name="test") for one in (server, server | changed))
    (tmp_path / "recipe.yaml").write_text(dump_recipe(begun))
    with pytest.raises(UsageError, match="was begun with reward_model = ") if refused else nullcontext():
        check_recipe(now, tmp_path / "recipe.yaml")


def test_adapters_for_modules_that_are_not_there_are_one_line(trainer_of: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match=r"no module that lora\.target_modules = 'nothing' names"):
        trainer_of(lora={"target_modules": "nothing"})
