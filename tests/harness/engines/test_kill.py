"""The command itself with a real checkpoint, killed in the middle of a shard."""

import json
import os
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ahabench.harness import registry
from ahabench.harness.merge import merge

HERE = Path(__file__).parents[1]


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A stranger's package with a benchmark of 240 sums is installed, here and for commands."""
    for name in ("toy", "many"):
        monkeypatch.syspath_prepend(str(HERE / name))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(str(HERE / name) for name in ("many", "toy")))
    registry.tasks.cache_clear()
    yield
    registry.tasks.cache_clear()


def texts(path: Path) -> dict[str, str]:
    return {row["item_id"]: row["response"] for row in map(json.loads, path.read_text().splitlines())}


@pytest.mark.slow
def test_a_killed_shard_of_a_checkpoint_goes_on_to_what_an_undisturbed_run_gives(
    many: None, made: Callable[[str], Path], tmp_path: Path
) -> None:
    # One at a time: the padding of a batch changes the last bits, and shards form other batches.
    script = Path(sysconfig.get_path("scripts")) / "ahabench"
    command = [script, "eval", made("llama"), "--tasks", "many", "--data", tmp_path, "--max-new-tokens", "4"]
    command += ["--batch-size", "1", "--device", "cpu", "--engine", "transformers"]

    def start(*flags: object) -> subprocess.Popen[bytes]:
        words = [str(word) for word in (*command, *flags)]
        return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path)

    out, whole = tmp_path / "run", tmp_path / "whole"
    log = out / "shard-1-of-2" / "many" / "responses.jsonl"
    process = start("--out", out, "--shard", "1/2")
    while process.poll() is None and (not log.exists() or log.read_bytes().count(b"\n") < 20):
        time.sleep(0.01)
    process.kill()
    assert process.wait(60) == -9
    kept = log.read_bytes()
    for flags in (("--out", out, "--shard", "1/2"), ("--out", out, "--shard", "2/2"), ("--out", whole)):
        assert start(*flags).wait(120) == 0
    assert log.read_bytes().startswith(kept[: kept.rindex(b"\n") + 1])
    assert not merge(out, data=tmp_path).missing["many"]
    assert texts(out / "many" / "responses.jsonl") == texts(whole / "many" / "responses.jsonl")
    assert len(texts(out / "many" / "responses.jsonl")) == 240
