"""An interrupted run against one that was never stopped, step by step, and checkpoints against being killed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ahabench.harness.errors import UsageError
from ahabench.trainer.grpo import LOG
from ahabench.trainer.run_folder import MARK, read_mark, rewind, whole_checkpoints

TrainerOf = Callable[..., Any]
# 24 records make 6 rollouts an epoch, each feeding two steps, so an epoch has 12.
ALL = 15
TIMES = ("step_time",)


def logged(out: Path) -> dict[int, dict[str, Any]]:
    rows = [json.loads(line) for line in (out / LOG).read_text().splitlines()]
    return {
        row["step"]: {name: value for name, value in row.items() if name not in TIMES} for row in rows if "loss" in row
    }


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.fixture(scope="module")
def straight(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """15 steps in one go, over more than one epoch, with a checkpoint after each."""
    from ahabench.trainer.base_model import open_model
    from ahabench.trainer.grpo_run import load_items, trainer_with
    from ahabench.trainer.recipe import parse_recipe

    settings = request.getfixturevalue("settings") | {"max_steps": ALL, "save_steps": 1}
    recipe = parse_recipe(settings, name="straight")
    out = tmp_path_factory.mktemp("straight")
    trainer = trainer_with(recipe, load_items(recipe), open_model(recipe, out), odd_ids, out)
    trainer.train()
    return out, trainer


def odd_ids(completion_ids: list[list[int]], **columns: Any) -> list[float | None]:
    return [sum(token % 2 for token in ids) / len(ids) for ids in completion_ids]


@pytest.mark.parametrize(
    ("stopped_at", "where"), [(4, "between rollouts"), (5, "within a rollout"), (12, "between epochs"), (13, "later")]
)
def test_a_resumed_run_equals_an_uninterrupted_one_at_every_step(
    stopped_at: int, where: str, straight: tuple[Path, Any], trainer_of: TrainerOf, tmp_path: Path
) -> None:
    wanted, straight_trainer = straight
    resumed = trainer_of(odd_ids, max_steps=ALL, save_steps=100)
    resumed.train(resume_from_checkpoint=str(wanted / f"checkpoint-{stopped_at}"))
    found, all_steps = logged(tmp_path / "out"), logged(wanted)
    assert list(found) == list(range(stopped_at + 1, ALL + 1))
    for step, row in found.items():
        # To the last bit: loss, gradient, KL, beta, learning rate, reward, lengths, entropy.
        assert row == all_steps[step], f"step {step}, stopped {where}"
    expected = weights(straight_trainer.model)
    assert all(torch.equal(value, expected[name]) for name, value in weights(resumed.model).items())


def test_the_straight_run_is_not_trivial(straight: tuple[Path, Any]) -> None:
    rows = logged(straight[0])
    assert len({row["grad_norm"] for row in rows.values()}) == ALL
    assert len({row["beta"] for row in rows.values()}) == ALL
    assert len({row["reward"] for row in rows.values() if "reward" in row}) > 4


def test_a_checkpoint_of_other_data_is_refused(straight: tuple[Path, Any], trainer_of: TrainerOf) -> None:
    with pytest.raises(UsageError, match="trained on other items"):
        trainer_of(odd_ids, kinds=["digit", "mcq"]).train(resume_from_checkpoint=str(straight[0] / "checkpoint-4"))


def test_a_checkpoint_of_more_processes_is_refused(
    straight: tuple[Path, Any], trainer_of: TrainerOf, tmp_path: Path
) -> None:
    copy = tmp_path / "checkpoint-4"
    shutil.copytree(straight[0] / "checkpoint-4", copy)
    mark = json.loads((copy / MARK).read_text())
    (copy / MARK).write_text(json.dumps(mark | {"processes": 8}))
    with pytest.raises(UsageError, match="written by 8 processes, now there are 1"):
        trainer_of(odd_ids).train(resume_from_checkpoint=str(copy))


def test_a_low_rank_run_goes_on_as_if_it_had_not_stopped(trainer_of: TrainerOf, tmp_path: Path) -> None:
    settings = {"lora": {"rank": 4, "alpha": 8}, "max_steps": 5}
    trainer_of(odd_ids, out=tmp_path / "straight", save_steps=3, **settings).train()
    trainer_of(odd_ids, out=tmp_path / "again", **settings).train(
        resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-3")
    )
    wanted = logged(tmp_path / "straight")
    assert logged(tmp_path / "again") == {step: wanted[step] for step in (4, 5)}


@pytest.mark.parametrize("damage", ["shorter", "gone", "unmarked"])
def test_a_damaged_checkpoint_is_not_whole(damage: str, straight: tuple[Path, Any], tmp_path: Path) -> None:
    for step in (3, 4):
        shutil.copytree(straight[0] / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    newest = tmp_path / "checkpoint-4"
    file = newest / "model.safetensors"
    if damage == "shorter":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "gone":
        file.unlink()
    else:
        (newest / MARK).unlink()
    assert whole_checkpoints(tmp_path) == [tmp_path / "checkpoint-3"]


def test_checkpoints_are_sorted_by_number(straight: tuple[Path, Any]) -> None:
    assert [path.name for path in whole_checkpoints(straight[0])] == [f"checkpoint-{n}" for n in range(1, ALL + 1)]


def test_a_mark_says_where_in_a_rollout_it_stands(straight: tuple[Path, Any]) -> None:
    for step in (4, 5):
        mark = read_mark(straight[0] / f"checkpoint-{step}")
        assert mark is not None
        assert (mark.step, mark.in_rollout) == (step, step == 5)


def test_only_the_newest_checkpoints_are_kept_where_asked(trainer_of: TrainerOf, tmp_path: Path) -> None:
    trainer_of(odd_ids, max_steps=4, save_steps=1, keep_checkpoints=2).train()
    names = sorted(path.name for path in (tmp_path / "out").glob("checkpoint-*"))
    assert names == ["checkpoint-3", "checkpoint-4"]


def test_rows_that_will_come_again_are_taken_away(tmp_path: Path) -> None:
    rows = [b'{"step": 0}\n', b'{"step": 2}\n', b'{"step": 4}\n', b'{"step": 2, "torn']
    (tmp_path / "rows.jsonl").write_bytes(b"".join(rows))
    rewind(tmp_path, ["rows.jsonl", "none.jsonl"], before=4)
    assert (tmp_path / "rows.jsonl").read_bytes() == b"".join(rows[:2])
