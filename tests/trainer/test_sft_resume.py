"""Supervised fine-tuning that was interrupted, against a run that never was."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ahabench.harness.errors import TrainingError, UsageError
from ahabench.trainer import commands, sft
from ahabench.trainer.recipe_files import dump_recipe, parse_as
from ahabench.trainer.run_folder import read_mark, whole_checkpoints
from ahabench.trainer.sft_recipe import SftRecipe

# 24 demonstrations in batches of 5 make 5 steps an epoch, the last of them a small one.
ALL = 8
TIMES = ("step_time",)


@pytest.fixture(scope="module")
def recipe(untrained: Path, records: Path, tmp_path_factory: pytest.TempPathFactory) -> SftRecipe:
    rows = json.loads((records / "records.json").read_text())
    for index, row in enumerate(rows):
        row["completion"] = f"<think>{'the ' * (1 + index % 3)}</think><answer>{index % 4}</answer>"
    file = tmp_path_factory.mktemp("demonstrations") / "sft.json"
    file.write_text(json.dumps(rows))
    values = {
        "model": str(untrained),
        "data": str(file),
        "images": str(records),
        "batch": 5,
        "micro_batch": 5,
        "max_steps": ALL,
        "learning_rate": 1e-3,
        "save_steps": 1,
        "freeze_vision": False,
        "bf16": False,
        "gradient_checkpointing": False,
        "spikes": {"window": 8},
        "probe_prompts": 1,
        "probe_tokens": 2,
    }
    return parse_as(SftRecipe, values, name="test")


@pytest.fixture(scope="module")
def straight(recipe: SftRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight steps in one go, over more than one epoch, with a checkpoint after each."""
    out = tmp_path_factory.mktemp("straight") / "out"
    sft.train(recipe, out)
    return out


def interrupted(straight: Path, out: Path, step: int) -> Path:
    """What a run leaves that is killed after the log of `step + 1`, before its checkpoint is whole."""
    shutil.copytree(straight, out)
    for later in range(step + 1, ALL + 1):
        shutil.rmtree(out / f"checkpoint-{later}")
    shutil.rmtree(out / "final")
    kept = [line for line in (out / "log.jsonl").read_text().splitlines() if json.loads(line)["step"] <= step + 1]
    (out / "log.jsonl").write_text("\n".join(kept) + "\n")
    record = json.loads((out / "sft.json").read_text())
    (out / "sft.json").write_text(json.dumps(record | {"status": "running"}))
    return out


def logged(out: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{name: row[name] for name in row if name not in TIMES} for row in rows]


@pytest.mark.parametrize(("step", "where"), [(3, "within an epoch"), (5, "between epochs"), (6, "in the second")])
def test_a_resumed_run_equals_an_uninterrupted_one(
    step: int, where: str, recipe: SftRecipe, straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = interrupted(straight, tmp_path / "out", step)
    final = sft.train(recipe, out, resume=True)
    assert f"go on from {out / f'checkpoint-{step}'}" in capsys.readouterr().err
    # To the last bit: loss, gradient, learning rate, entropy, tokens.
    assert logged(out) == logged(straight), where
    model = "model.safetensors"
    assert (final / model).read_bytes() == (straight / "final" / model).read_bytes()
    assert json.loads((out / "sft.json").read_text()) == json.loads((straight / "sft.json").read_text())


def test_the_straight_run_is_not_trivial(straight: Path) -> None:
    rows = logged(straight)
    assert [row["step"] for row in rows] == list(range(1, ALL + 1))
    assert len({row["loss"] for row in rows}) == len({row["grad_norm"] for row in rows}) == ALL
    tokens = [row["num_tokens"] for row in rows]
    assert tokens == sorted(set(tokens))


def test_a_checkpoint_keeps_the_window_of_the_spikes(straight: Path) -> None:
    state = json.loads((straight / "checkpoint-6" / "trainer_state.json").read_text())["stateful_callbacks"]
    assert state["SpikeWatch"]["attributes"]["usual"] == [row["loss"] for row in logged(straight)[:6]]


def test_a_spike_is_seen_by_the_window_from_before_the_interruption(
    recipe: SftRecipe, straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from ahabench.trainer.sft_watch import SpikeWatch

    def feed(watch: SpikeWatch, losses: list[float]) -> None:
        for loss in losses:
            watch.on_log(TrainingArguments(output_dir="unused"), TrainerState(), TrainerControl(), {"loss": loss})

    before = SpikeWatch(window=8, z=6.0, patience=2)
    feed(before, [1.0, 1.1, 0.9, 1.0, 1.1, 0.9, 1.0, 1.0, 4.0])
    after = SpikeWatch.from_state(json.loads(json.dumps(before.state())))
    with pytest.raises(TrainingError, match="spike 2 in a row"):
        feed(after, [4.0])


def test_a_run_that_only_lacks_its_final_model_gets_it(recipe: SftRecipe, straight: Path, tmp_path: Path) -> None:
    out = interrupted(straight, tmp_path / "out", ALL)
    final = sft.train(recipe, out, resume=True)
    model = "model.safetensors"
    assert (final / model).read_bytes() == (straight / "final" / model).read_bytes()
    assert not list(final.glob("optimizer*"))
    assert json.loads((out / "sft.json").read_text())["status"] == "complete"


def test_a_damaged_checkpoint_is_gone_past(recipe: SftRecipe, straight: Path, tmp_path: Path) -> None:
    out = interrupted(straight, tmp_path / "out", 6)
    weights = out / "checkpoint-6" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert read_mark(out / "checkpoint-6") is None
    sft.train(recipe, out, resume=True)
    assert logged(out) == logged(straight)
    assert whole_checkpoints(out)[-1].name == f"checkpoint-{ALL}"


def test_another_setting_is_refused(recipe: SftRecipe, straight: Path, tmp_path: Path) -> None:
    out = interrupted(straight, tmp_path / "out", 3)
    with pytest.raises(UsageError, match=r"was begun with seed = 0, found 1"):
        sft.train(recipe.model_copy(update={"seed": 1}), out, resume=True)


def test_other_demonstrations_are_refused(recipe: SftRecipe, straight: Path, tmp_path: Path) -> None:
    out = interrupted(straight, tmp_path / "out", 3)
    rows = json.loads(Path(recipe.data).read_text())
    (tmp_path / "fewer.json").write_text(json.dumps(rows[:-1]))
    with pytest.raises(UsageError, match="trained on other items"):
        sft.train(recipe.model_copy(update={"data": str(tmp_path / "fewer.json")}), out, resume=True)


def test_a_torn_record_is_one_line(recipe: SftRecipe, straight: Path, tmp_path: Path) -> None:
    out = interrupted(straight, tmp_path / "out", 3)
    (out / "sft.json").write_text('{"status": "run')
    with pytest.raises(UsageError, match=r"sft.json is damaged"):
        sft.train(recipe, out, resume=True)


def test_a_run_that_its_first_step_stops_is_saved_and_says_why(
    recipe: SftRecipe, untrained: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForImageTextToText

    broken = tmp_path / "broken"
    shutil.copytree(untrained, broken)
    model = AutoModelForImageTextToText.from_pretrained(broken)
    with torch.no_grad():
        model.model.language_model.norm.weight.fill_(float("nan"))
    model.save_pretrained(broken)
    with pytest.raises(TrainingError, match=r"the loss of step 1 is not finite; .*; what was reached is in"):
        sft.train(recipe.model_copy(update={"model": str(broken), "probe_prompts": 0}), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "sft.json").read_text())["status"] == "incomplete"
    assert read_mark(tmp_path / "out" / "checkpoint-0") is not None


def test_a_complete_run_has_its_report(straight: Path) -> None:
    html = (straight / "report.html").read_text()
    assert 'aria-label="loss"' in html
    assert f"{ALL} steps, complete" in html


def test_the_command_leaves_a_complete_run_alone(recipe: SftRecipe, straight: Path, tmp_path: Path) -> None:
    (tmp_path / "sft-test.yaml").write_text(dump_recipe(recipe))
    asked = ["sft", str(tmp_path / "sft-test.yaml"), "--out", str(straight)]
    again = CliRunner().invoke(commands.train, [*asked, "--resume"])
    assert (again.exit_code, again.stdout) == (0, f"{straight / 'final'}\n")
    refused = CliRunner().invoke(commands.train, asked)
    assert isinstance(refused.exception, UsageError)
    assert "is not empty" in str(refused.exception)
