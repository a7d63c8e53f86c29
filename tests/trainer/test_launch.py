"""`accelerate launch ... ahabench train grpo` on two CPU processes: one run, written and told once."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness.manifest import read_manifest
from ahabench.trainer.recipe_files import RECIPES

pytestmark = pytest.mark.slow

ACCELERATE = RECIPES / "accelerate"
SETTINGS = [
    "kinds=[digit,mcq,math,iou]",
    "group_size=4",
    "prompts_per_rollout=4",
    "train_batch=8",
    "micro_batch=4",
    "max_new_tokens=24",
    "temperature=1",
    "save_steps=1",
]
FAILING = Path(__file__).parent / "launched" / "failing.py"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model after a short warm-up: now and then it answers as it is asked to."""
    from ahabench.trainer.reference import make_reference

    return make_reference(tmp_path_factory.mktemp("base") / "base", seed=0, steps=60)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a function that runs a script on two processes, as a user would, far from the checkout."""
    folder = tmp_path_factory.mktemp("launch")

    def launch(*script: str) -> subprocess.CompletedProcess[str]:
        launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(ACCELERATE / "cpu.yaml")]
        return subprocess.run(
            [*launcher, *script],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return launch


@pytest.fixture(scope="module")
def train(run: Run, base: Path) -> Run:
    """Return a function that runs `ahabench train grpo` into a folder."""
    command = shutil.which("ahabench", path=str(Path(sys.executable).parent))
    assert command is not None, "the command is installed beside Python"

    def launch(out: Path, *asked: str) -> subprocess.CompletedProcess[str]:
        return run(command, "train", "grpo", "tiny-cpu", f"model={base}", *SETTINGS, *asked, "--out", str(out))

    return launch


@pytest.fixture(scope="module")
def finished(train: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    out = tmp_path_factory.mktemp("run") / "out"
    done = train(out, "max_steps=2")
    assert done.returncode == 0, done.stderr[-3_000:]
    return out, done


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


Finished = tuple[Path, subprocess.CompletedProcess[str]]


def test_the_answer_is_printed_once(finished: Finished) -> None:
    out, done = finished
    assert done.stdout == f"{out / 'final'}\n"


def test_progress_is_told_once(finished: Finished) -> None:
    _, done = finished
    told = Counter(line for line in done.stderr.splitlines() if line.startswith(("step ", "mini: ")))
    assert {line.split("  ")[0] for line in told if line.startswith("step ")} == {"step 0/2", "step 1/2", "step 2/2"}
    assert sum(line.startswith("mini: ") for line in told) == 1
    assert set(told.values()) == {1}


def test_the_run_is_whole(finished: Finished) -> None:
    out, _ = finished
    names = {path.name for path in out.iterdir()}
    wanted = {
        "checkpoint-1",
        "checkpoint-2",
        "final",
        "log.jsonl",
        "recipe.yaml",
        "report.html",
        "rollouts",
        "run.json",
    }
    assert wanted <= names
    assert read_manifest(out).status == "complete"
    mark = json.loads((out / "checkpoint-1" / "resume.json").read_text())
    assert mark["processes"] == 2
    # In the middle of a rollout: each process keeps its own rest of it.
    assert {"rollout-0.safetensors", "rollout-1.safetensors", "rng_state_0.pth", "rng_state_1.pth"} <= set(
        mark["files"]
    )


def test_each_prompt_and_sample_is_written_once(finished: Finished) -> None:
    out, _ = finished
    for name in ("responses.jsonl", "verdicts.jsonl"):
        keys = Counter((row["item_id"], row["sample_index"]) for row in rows(out / "rollouts" / name))
        # One rollout of 4 prompts x 4, 2 prompts on each process.
        assert len(keys) == 16
        assert set(keys.values()) == {1}
        assert {sample for _, sample in keys} == {0, 1, 2, 3}


def test_the_log_has_each_step_once_and_the_rewards_of_both_processes(finished: Finished) -> None:
    out, _ = finished
    logged = rows(out / "log.jsonl")
    assert [row["step"] for row in logged if "loss" in row] == [1, 2]
    written = rows(out / "rollouts" / "responses.jsonl")
    assert logged[0]["baseline/reward"] == pytest.approx(sum(row["reward"] for row in written) / 16)
    kinds = Counter(row["kind"] for row in written)
    assert {kind: logged[0][f"baseline/reward/{kind}/n"] for kind in kinds} == kinds
    for kind in kinds:
        own = [row["reward"] for row in written if row["kind"] == kind]
        assert logged[0][f"baseline/reward/{kind}/mean"] == pytest.approx(sum(own) / len(own))


def test_the_trained_model_is_a_checkpoint_that_has_moved(finished: Finished, base: Path) -> None:
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    out, _ = finished
    AutoProcessor.from_pretrained(out / "final")
    before, after = (AutoModelForImageTextToText.from_pretrained(path) for path in (base, out / "final"))
    assert any(not torch.equal(*pair) for pair in zip(before.parameters(), after.parameters(), strict=True))


def test_a_run_goes_on_on_as_many_processes(finished: Finished, train: Run, tmp_path: Path) -> None:
    straight, _ = finished
    out = tmp_path / "out"
    shutil.copytree(straight, out)
    # As after a kill between the two steps.
    for gone in ("checkpoint-2", "final"):
        shutil.rmtree(out / gone)
    manifest = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(manifest | {"status": "running"}))
    done = train(out, "max_steps=2", "--resume")
    assert done.returncode == 0, done.stderr[-3_000:]
    assert done.stdout == f"{out / 'final'}\n"
    assert done.stderr.count("go on from") == 1
    for name in ("responses.jsonl", "verdicts.jsonl", "items.jsonl"):
        assert rows(out / "rollouts" / name) == rows(straight / "rollouts" / name)
    steps, wanted = ([row for row in rows(run / "log.jsonl") if "loss" in row] for run in (out, straight))
    assert [row["step"] for row in steps] == [1, 2]
    for name in ("loss", "grad_norm", "kl", "beta"):
        assert steps[1][name] == pytest.approx(wanted[1][name], rel=1e-5, abs=1e-8)
    model = "final/model.safetensors"
    assert (out / model).read_bytes() == (straight / model).read_bytes()


def test_what_is_wrong_with_the_data_is_said_once(train: Run, records: Path, tmp_path: Path) -> None:
    done = train(tmp_path / "out", f"data={records}", "prompts_per_rollout=64", "train_batch=256")
    assert done.returncode != 0
    assert done.stdout == ""
    assert sum(line.startswith("error:") for line in done.stderr.splitlines()) == 1
    assert "wanted at least prompts_per_rollout = 64" in done.stderr


def test_batches_that_do_not_divide_are_said_once(train: Run, tmp_path: Path) -> None:
    done = train(tmp_path / "out", "micro_batch=8")
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "train_batch is 8, wanted a multiple of micro_batch x processes = 8 x 2" in errors[0]


def test_a_reward_that_fails_on_one_process_stops_them_all(
    run: Run, settings: dict[str, Any], records: Path, tmp_path: Path
) -> None:
    recipe = settings | {"prompts_per_rollout": 4, "train_batch": 16, "micro_batch": 8}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    out = tmp_path / "out"
    done = run(str(FAILING), str(tmp_path / "recipe.json"), str(out))
    assert done.returncode != 0
    # All hear of it, and one speaks.
    assert done.stderr.count("error: after step 0, rollout of") == 1
    assert "process 1: ZeroDivisionError: no judge today" in done.stderr
    # The failed batch is that of both processes, and what was reached is saved by both.
    batch = json.loads((out / "failed-batch.json").read_text())
    assert len(batch["item_ids"]) == 4
    assert (out / "checkpoint-0" / "resume.json").is_file()
    assert read_manifest(out).status == "incomplete"
