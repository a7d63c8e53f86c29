"""Runs in a process of their own that is killed or interrupted while it writes."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ahabench.harness import registry
from ahabench.harness.dataset import load
from ahabench.harness.manifest import read_manifest
from ahabench.harness.runlog import read_responses

# Replays 120 responses of 40 kB, each synchronised to the disk: argv is the recording and the run directory.
_SCRIPT = """
import sys
from pathlib import Path
from ahabench.harness.dataset import Dataset
from ahabench.harness.engines.replay import ReplayEngine
from ahabench.harness.runner import Plan, TaskPlan, run
from ahabench.harness.types import AnswerType, Item, Prompt, PromptStyle, Split, Task

style = PromptStyle(version=1, render=lambda item: Prompt(text=item.question))
task = Task(
    name="sums", title="Sums", version=1, paper="", licence="", splits={"test": Split(n_items=120, hub=None)},
    default_split="test", read_folder=lambda folder, split: (), to_item=lambda row: row["item"],
    prompts={"plain": style}, scorers={}, metrics={}, headline="accuracy",
)
items = tuple(Item(id=str(n), question=f"{n} + {n}?", gold=None, answer_type=AnswerType.INTEGER) for n in range(120))
dataset = Dataset(task=task, split="test", items=items, source="folder", revision=None, digest="00")
plan = Plan(tasks=(TaskPlan(dataset=dataset, style="plain", prompt=style),))
run(plan, ReplayEngine(Path(sys.argv[1])), Path(sys.argv[2]))
"""


def record(path: Path) -> Path:
    rows = [{"item_id": str(n), "response": f"{n}:".ljust(40_000, "x")} for n in range(120)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows(out: Path) -> list[str]:
    return [response.item_id for response in read_responses(out / "sums" / "responses.jsonl")]


def start(said: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _SCRIPT, str(said), str(out)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def stop_when_written(process: subprocess.Popen[str], log: Path, size: int, how: signal.Signals) -> None:
    """Send a signal as soon as a file has grown to a size, or the process has ended."""
    while process.poll() is None and (not log.exists() or log.stat().st_size < size):
        time.sleep(0.0005)
    process.send_signal(how)


def test_a_run_that_is_killed_again_and_again_ends_as_if_it_never_was(tmp_path: Path) -> None:
    said = record(tmp_path / "said.jsonl")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert start(said, whole).wait(60) == 0
    rng = random.Random(7)
    log = broken / "sums" / "responses.jsonl"
    sizes = sorted(rng.randrange(4_800_000) for _ in range(7))
    killed = 0
    for size in [0, *sizes]:
        process = start(said, broken)
        stop_when_written(process, log, size, signal.SIGKILL)
        process.communicate(timeout=60)
        killed += process.returncode == -signal.SIGKILL
    assert killed >= 3  # else the machine was too fast for this test to mean anything
    assert start(said, broken).wait(60) == 0
    ours, theirs = (path / "sums" / "responses.jsonl" for path in (broken, whole))
    assert sorted(ours.read_bytes().splitlines()) == sorted(theirs.read_bytes().splitlines())
    assert (broken / "run.json").read_bytes() == (whole / "run.json").read_bytes()


def test_a_run_killed_before_its_first_response_starts_again(tmp_path: Path) -> None:
    said = record(tmp_path / "said.jsonl")
    for delay_s in (0.15, 0.3, 0.4):
        process = start(said, tmp_path / "run")
        time.sleep(delay_s)
        process.kill()
        process.communicate(timeout=60)
    assert start(said, tmp_path / "run").wait(60) == 0
    assert len(rows(tmp_path / "run")) == 120


def test_an_interrupt_says_in_one_line_how_to_go_on(tmp_path: Path) -> None:
    said = record(tmp_path / "said.jsonl")
    process = start(said, tmp_path / "run")
    stop_when_written(process, tmp_path / "run" / "sums" / "responses.jsonl", 400_000, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert re.search(r"^interrupted; .* run the same command again to go on$", stderr, re.MULTILINE)
    assert read_manifest(tmp_path / "run").status == "incomplete"
    assert 10 <= len(rows(tmp_path / "run")) < 120


def test_an_interrupt_while_python_still_imports_is_one_line(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [Path(sys.executable).with_name("ahabench"), "demo", "--out", tmp_path / "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPROFILEIMPORTTIME": "1"},
    )
    assert process.stderr is not None
    # The first of many modules that the command line imports once it runs.
    while not re.search(r"\| +typer\.", line := process.stderr.readline()):
        assert line, "it ended before it imported typer"
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    told = [line for line in stderr.splitlines() if not line.startswith("import time:")]
    assert told == ["interrupted; the same command goes on where it stopped"]
    assert (process.returncode, stdout) == (130, "")
    assert not (tmp_path / "demo").exists()


def children(pid: int) -> int:
    """Return how many processes another one has started and that still run."""
    return len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


@pytest.mark.skipif(not Path("/proc/self/task").exists() or os.cpu_count() == 1, reason="needs /proc and two cores")
@pytest.mark.parametrize("pause_s", [0, 1.5])
def test_an_interrupt_while_processes_score_is_one_line(tmp_path: Path, pause_s: float) -> None:
    item_ids = [item.id for item in load(registry.find_task("logicvista"), "mini").items]
    said = tmp_path / "said.jsonl"
    keys = [(item_id, sample) for sample in range(100) for item_id in item_ids]
    long = "Let me think about it step by step. " * 100 + "The answer is B."
    said.write_text(
        "".join(json.dumps({"item_id": name, "sample_index": n, "response": long}) + "\n" for name, n in keys)
    )
    script = Path(sys.executable).with_name("ahabench")
    process = subprocess.Popen(
        [script, "score", said, "--task", "logicvista:mini"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while process.poll() is None and children(process.pid) < 3:  # two workers, and Python's own tracker
        time.sleep(0.002)
    time.sleep(pause_s)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, "")
    told = [line for line in stderr.splitlines() if not line.startswith("scoring ")]
    assert told == ["interrupted; the same command goes on where it stopped"]
