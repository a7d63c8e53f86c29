"""Shards in processes of their own that are killed again and again while they write, and what a merge makes of them."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ahabench.harness import registry
from ahabench.harness.errors import UsageError
from ahabench.harness.merge import merge
from ahabench.harness.runlog import own_rows
from ahabench.harness.shards import Shard

MANY = Path(__file__).parent / "many"
TOY = Path(__file__).parent / "toy"
N_ITEMS = 240
BATCH = 4
"""What the engine of many_run.py has in flight."""
COUNT = 3


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A stranger's package with a benchmark of 240 sums is installed, here and in the processes that are started."""
    for path in (TOY, MANY):
        monkeypatch.syspath_prepend(str(path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (MANY, TOY))))
    registry.tasks.cache_clear()
    yield
    registry.tasks.cache_clear()


def start(out: Path, shard: str, log: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(MANY / "many_run.py"), str(out), shard, str(log)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def asked(log: Path) -> list[str]:
    """The ids that the engine was asked, in order; a line that a kill tore is left out."""
    return log.read_text().split("\n")[:-1] if log.exists() else []


def written(out: Path, index: int) -> dict[str, bytes]:
    path = out / Shard(index, COUNT).folder / "many" / "responses.jsonl"
    return {own.response.item_id: own.raw for own in own_rows(path)} if path.exists() else {}


def kill_at(processes: dict[Path, subprocess.Popen[str]], lines: Callable[[], int]) -> None:
    """Kill processes, each by its engine's log: once it has been asked so many more requests, or has ended."""
    wanted = {log: len(asked(log)) + lines() for log in processes}
    while wanted:
        for log, process in processes.items():
            if log in wanted and (process.poll() is not None or len(asked(log)) >= wanted[log]):
                process.kill()
                del wanted[log]
        time.sleep(0.001)
    for process in processes.values():
        process.communicate(timeout=60)


def test_shards_that_are_killed_at_any_time_lose_at_most_what_was_in_flight(many: None, tmp_path: Path) -> None:
    out, dice = tmp_path / "run", random.Random(7)
    logs = {index: tmp_path / f"asked-{index}" for index in range(1, COUNT + 1)}
    kills: Counter[int] = Counter()
    for _ in range(3):
        before = {index: (len(asked(log)), written(out, index)) for index, log in logs.items()}
        processes = {log: start(out, f"{index}/{COUNT}", log) for index, log in logs.items()}
        kill_at(processes, lambda: dice.randint(1, 20))
        kills.update(index for index, log in logs.items() if processes[log].returncode == -signal.SIGKILL)
        for index, (asked_before, rows) in before.items():
            again = set(asked(logs[index])[asked_before:]) & rows.keys()
            assert again == set(), f"shard {index} asked again for what it had"
            assert rows.items() <= written(out, index).items()
    assert all(kills[index] for index in logs), kills
    for index, log in logs.items():
        process = start(out, f"{index}/{COUNT}", log)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
        # Every request is either on the disk or was in flight when a process died, once for each death.
        assert len(asked(log)) <= len(written(out, index)) + BATCH * kills[index]
    merged = merge(out, data=tmp_path)
    assert merged.missing == {"many": ()}
    rows = [json.loads(line) for line in (out / "many" / "responses.jsonl").read_text().splitlines()]
    # Each key once, in the order of the data.
    assert [(row["item_id"], row["sample_index"]) for row in rows] == [(str(n), 0) for n in range(N_ITEMS)]
    assert all(row["response"] == f"It is {2 * n}" for n, row in enumerate(rows))


def test_killed_shards_give_the_bytes_of_a_run_that_was_left_alone(many: None, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    process = start(whole, "", tmp_path / "asked-whole")
    kill_at({tmp_path / "asked-1": start(out, "1/2", tmp_path / "asked-1")}, lambda: 20)
    assert process.wait(60) == 0
    for index in (1, 2):
        assert start(out, f"{index}/2", tmp_path / f"asked-{index}").wait(60) == 0
    merge(out, data=tmp_path)
    ours = (out / "many" / "responses.jsonl").read_bytes()
    assert sorted(ours.splitlines()) == sorted((whole / "many" / "responses.jsonl").read_bytes().splitlines())


def test_a_shard_that_is_being_written_is_not_merged(many: None, tmp_path: Path) -> None:
    out, log = tmp_path / "run", tmp_path / "asked"
    process = start(out, "1/1", log)
    try:
        while process.poll() is None and not asked(log):
            time.sleep(0.001)
        with pytest.raises(UsageError, match="is being written by another process"):
            merge(out, data=tmp_path)
    finally:
        process.kill()
        process.communicate(timeout=60)
