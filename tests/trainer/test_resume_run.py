"""A whole run that is killed with SIGKILL while it saves, and goes on by `--resume`."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ahabench.harness.errors import UsageError
from ahabench.harness.manifest import read_manifest
from ahabench.trainer import commands, grpo_run
from ahabench.trainer.recipe import load_recipe
from ahabench.trainer.run_folder import read_mark, whole_checkpoints

pytestmark = pytest.mark.slow

SETTINGS = [
    "kinds=[digit,mcq,math,iou]",
    "prompts_per_rollout=8",
    "train_batch=16",
    "micro_batch=16",
    "max_new_tokens=24",
    "temperature=1",
    "max_steps=6",
    "save_steps=1",
]
# The third checkpoint's optimiser is never written: its weights stand already, the rest does not.
KILLED = """
import os, signal, sys, torch
from pathlib import Path
from ahabench.trainer.recipe import load_recipe
from ahabench.trainer.grpo_run import train

torch.set_num_threads(1)
write = torch.save

def save(value, file, *args, **kwargs):
    if "checkpoint-3" in str(file) and "optimizer" in str(file):
        os.kill(os.getpid(), signal.SIGKILL)
    return write(value, file, *args, **kwargs)

torch.save = save
train(load_recipe("tiny-cpu", sys.argv[2:]), Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    from ahabench.trainer.reference import make_reference

    return [*SETTINGS, f"model={make_reference(tmp_path_factory.mktemp('base') / 'base', seed=0, steps=60)}"]


@pytest.fixture(scope="module")
def straight(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("straight") / "out"
    grpo_run.train(load_recipe("tiny-cpu", settings), out)
    return out


@pytest.fixture(scope="module")
def killed(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("killed") / "out"
    done = subprocess.run(
        [sys.executable, "-P", "-c", KILLED, str(out), *settings], capture_output=True, timeout=300, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-2_000:]
    return out


def rows(path: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "step_time"} for row in found]


def test_a_killed_run_goes_on_from_the_last_whole_checkpoint(killed: Path, straight: Path, settings: list[str]) -> None:
    assert (killed / ".saving" / "checkpoint-3" / "model.safetensors").is_file()
    assert [path.name for path in whole_checkpoints(killed)] == ["checkpoint-1", "checkpoint-2"]
    # Step 3 was logged and would be logged again.
    assert rows(killed / "log.jsonl")[-1]["step"] == 3
    assert read_manifest(killed).status == "running"

    done = CliRunner().invoke(commands.train, ["grpo", "tiny-cpu", *settings, "--out", str(killed), "--resume"])
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{killed / 'final'}\n"
    assert "go on from" in done.stderr

    assert rows(killed / "log.jsonl") == rows(straight / "log.jsonl")
    for name in ("responses.jsonl", "verdicts.jsonl", "items.jsonl"):
        assert rows(killed / "rollouts" / name) == rows(straight / "rollouts" / name)
    model = "final/model.safetensors"
    assert (killed / model).read_bytes() == (straight / model).read_bytes()
    assert read_manifest(killed).status == "complete"
    assert not list((killed / ".saving").glob("*"))


def test_another_recipe_is_refused(straight: Path, settings: list[str]) -> None:
    # Though the run is complete: an old model must not pass for one of another recipe.
    with pytest.raises(UsageError, match=r"was begun with seed = 0, found 5"):
        grpo_run.train(load_recipe("tiny-cpu", [*settings, "seed=5"]), straight, resume=True)


def test_a_complete_run_is_left_alone(straight: Path, settings: list[str]) -> None:
    before = (straight / "log.jsonl").read_bytes()
    done = CliRunner().invoke(commands.train, ["grpo", "tiny-cpu", *settings, "--out", str(straight), "--resume"])
    assert (done.exit_code, done.stdout) == (0, f"{straight / 'final'}\n")
    assert (straight / "log.jsonl").read_bytes() == before


def test_without_a_checkpoint_it_begins_from_the_start(settings: list[str], straight: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    short = [*settings, "max_steps=4", "save_steps=4"]
    grpo_run.train(load_recipe("tiny-cpu", short), out)
    from ahabench.harness.manifest import write_manifest

    write_manifest(out, read_manifest(out).model_copy(update={"status": "running"}))
    (out / "checkpoint-4" / "resume.json").unlink()
    before = rows(out / "log.jsonl")
    grpo_run.train(load_recipe("tiny-cpu", short), out, resume=True)
    assert rows(out / "log.jsonl") == before
    # Two rollouts of 8 x 4.
    assert len(rows(out / "rollouts" / "responses.jsonl")) == 64
    assert read_mark(out / "checkpoint-4") is not None


def test_a_run_that_only_lacks_its_final_model_gets_it(settings: list[str], straight: Path) -> None:
    import shutil

    from transformers import AutoModelForImageTextToText, AutoProcessor

    from ahabench.harness.manifest import write_manifest

    wanted = (straight / "final" / "model.safetensors").read_bytes()
    shutil.rmtree(straight / "final")
    write_manifest(straight, read_manifest(straight).model_copy(update={"status": "running"}))
    final = grpo_run.train(load_recipe("tiny-cpu", settings), straight, resume=True)
    assert (final / "model.safetensors").read_bytes() == wanted
    AutoModelForImageTextToText.from_pretrained(final)
    AutoProcessor.from_pretrained(final)
    assert not list(final.glob("optimizer*"))
