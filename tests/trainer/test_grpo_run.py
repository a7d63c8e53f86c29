"""The whole way: the command, a briefly warmed-up base, the built-in data, and the tools that read a run."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ahabench.harness.errors import TrainingError, UsageError
from ahabench.harness.manifest import read_manifest
from ahabench.harness.runlog import read_responses
from ahabench.trainer import commands, grpo_run
from ahabench.trainer.recipe import load_recipe, parse_recipe

SMALL = [
    "reference_steps=60",
    "kinds=[digit,mcq,math,iou]",
    "prompts_per_rollout=8",
    "train_batch=16",
    "micro_batch=16",
    "max_new_tokens=32",
    "temperature=1",
    "max_steps=4",
    "save_steps=2",
]


def test_a_folder_that_is_in_use_is_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"):
        grpo_run.train(parse_recipe(settings, name="test"), tmp_path)


def test_too_few_records_for_one_rollout_are_refused(settings: dict[str, Any]) -> None:
    batches = {"prompts_per_rollout": 64, "train_batch": 64}
    with pytest.raises(UsageError, match="has 24 records, wanted at least prompts_per_rollout = 64"):
        grpo_run.load_items(parse_recipe(settings | batches, name="test"))


def test_records_of_other_kinds_are_left_out(settings: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    found = grpo_run.load_items(parse_recipe(settings | {"kinds": ["digit"]}, name="test"))
    assert {item.kind for item in found.items} == {"digit"}
    assert "records of other kinds left out" in capsys.readouterr().err


@pytest.mark.parametrize("captioned", [0, 8, 9])
def test_open_ended_records_that_nothing_pays_are_named(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], captioned: int
) -> None:
    row = {"question": "What is it?", "gt": "A cat.", "verifier_type": "open_ended"}
    rows = [row | {"id": str(n)} | ({"caption": "A cat on a mat."} if n < captioned else {}) for n in range(9)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe = parse_recipe(settings | {"data": str(tmp_path / "data.jsonl"), "kinds": ["open_ended"]}, name="test")
    if captioned == 0:
        with pytest.raises(UsageError, match="9 of 9 records are open_ended without the caption"):
            grpo_run.load_items(recipe)
        return
    assert len(grpo_run.load_items(recipe).items) == 9
    assert ("warning: " in capsys.readouterr().err) == (captioned == 8)


def test_a_run_without_signal_is_saved_before_it_stops(settings: dict[str, Any], tmp_path: Path) -> None:
    # An untrained model finds no tags in eight tokens, so every reward is 0.
    with pytest.raises(TrainingError, match="no group had two different rewards") as stopped:
        grpo_run.train(parse_recipe(settings | {"max_steps": 2}, name="test"), tmp_path / "out")
    assert (tmp_path / "out" / "checkpoint-2" / "model.safetensors").is_file()
    assert "checkpoint-2" in str(stopped.value)
    assert read_manifest(tmp_path / "out").status == "incomplete"
    assert "2 steps, incomplete" in (tmp_path / "out" / "report.html").read_text()
    # 4 prompts x 4, once for both steps.
    assert len(list(read_responses(tmp_path / "out" / "rollouts" / "responses.jsonl"))) == 16


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run by the command, and what it printed on stdout."""
    out = tmp_path_factory.mktemp("run") / "out"
    done = CliRunner().invoke(commands.train, ["grpo", "tiny-cpu", *SMALL, "--out", str(out)])
    assert done.exit_code == 0, done.output
    return out, done.stdout


@pytest.mark.slow
def test_the_command_prints_the_final_model_and_nothing_else(finished: tuple[Path, str]) -> None:
    out, printed = finished
    assert printed == f"{out / 'final'}\n"


@pytest.mark.slow
def test_a_run_holds_what_it_promises(finished: tuple[Path, str]) -> None:
    out, _ = finished
    names = {path.name for path in out.iterdir()}
    wanted = {"base", "checkpoint-2", "checkpoint-4", "final", "log.jsonl", "recipe.yaml", "rollouts", "run.json"}
    assert wanted <= names
    assert not list(out.rglob("README.md"))
    manifest = read_manifest(out)
    assert (manifest.status, manifest.engine.name, manifest.model.name) == ("complete", "trl-grpo", "reference")
    assert load_recipe(out / "recipe.yaml") == load_recipe("tiny-cpu", SMALL)


@pytest.mark.slow
def test_the_final_model_is_a_checkpoint_that_differs_from_the_base(finished: tuple[Path, str]) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from ahabench.harness.checkpoint import weights_digest

    out, _ = finished
    manifest = read_manifest(out)
    assert manifest.model.weights_digest == weights_digest(out / "base") != weights_digest(out / "final")
    model = AutoModelForImageTextToText.from_pretrained(out / "final")
    assert (
        AutoProcessor.from_pretrained(out / "final").tokenizer.eos_token_id
        == model.config.get_text_config().eos_token_id
    )


@pytest.mark.slow
def test_rewards_in_the_log_are_those_of_the_rollouts(finished: tuple[Path, str]) -> None:
    out, _ = finished
    rows = [json.loads(line) for line in (out / "rollouts" / "responses.jsonl").read_text().splitlines()]
    logs = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    first = [row["reward"] for row in rows if row["step"] == 0]
    assert len(first) == 32
    assert logs[0]["baseline/reward"] == pytest.approx(sum(first) / len(first))
    assert len({row["reward"] for row in rows}) > 1


@pytest.mark.slow
def test_score_reads_the_rollouts_and_agrees_with_the_rewards(finished: tuple[Path, str]) -> None:
    from ahabench.harness.agreement import agreements
    from ahabench.harness.dataset import load
    from ahabench.harness.rescore import score_run
    from ahabench.trainer.task import TASK

    out, _ = finished
    responses = out / "rollouts" / "responses.jsonl"
    carried = [json.loads(line) for line in responses.read_text().splitlines()]
    (metrics,) = score_run(out, scorer="robust", data=None, allow_missing=True)
    items = {row["item_id"] for row in carried}
    assert metrics["n_items"] == len(items) == 16
    (agreement,) = agreements(load(TASK), "robust", [responses])
    assert agreement.n == len(carried) == 64
    # The benchmarks' scorer also reads answers without tags, so it may be kinder, and is never harsher.
    assert agreement.false_negative == 0
    assert agreement.agreement is not None
    assert agreement.agreement > 0.9
