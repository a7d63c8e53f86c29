"""Responses per second, and agreement with the published verdicts: ahabench, math-verify, lmms-eval's rule scorer.

On the published MathVision outputs of $AHABENCH_DATA, every scorer in a process of its own and all in one session:

    AHABENCH_DATA=DIR AHABENCH_LMMS_PYTHON=VENV/bin/python pytest benchmarks/test_scoring.py

The whole command is timed from the outside, start-up and file reading included, on all cores. `robust`, math-verify and
lmms-eval's `compute_score` are timed on the scoring alone, one response after the other; the latter two on a seeded
sample, since math-verify is slow. The table at the end has the ratios. Nothing is asserted about time: a busy machine
stretches the wall time of all of them, the CPU time less. CPU time is that of all processes of a scorer.
"""

import json
import os
import random
import resource
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ahabench.harness import registry
from ahabench.harness.dataset import load
from ahabench.harness.runlog import read_rows

SAMPLE = 2_000
RUNNER = Path(__file__).with_name("score_rate.py")
Row = dict[str, Any]
Record = Callable[..., None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    files: tuple[Path, ...]
    data: Path
    rows: tuple[Row, ...]
    sample: tuple[int, ...]
    """Places of the sample in the rows, in a random order."""


@pytest.fixture(scope="module")
def published() -> Published:
    """The published MathVision responses with their gold; the test skips where there are none."""
    folder = os.environ.get("AHABENCH_DATA")
    if not folder:
        pytest.skip("set AHABENCH_DATA to the folder with data/ and outputs/ to measure on published outputs")
    files = tuple(sorted((Path(folder) / "outputs" / "mathvision").glob("*.jsonl")))
    data = Path(folder) / "data"
    items = {item.id: item for item in load(registry.find_task("mathvision"), data=data).items}
    carried = [row for file in files for _, row in read_rows(file)]
    rows = tuple(
        {
            "item_id": row["item_id"],
            "response": row["response"],
            "gold": items[row["item_id"]].gold,
            "labels": items[row["item_id"]].labels,
            "official_correct": row["official_correct"],
        }
        for row in carried
        if row["response"] is not None and row["official_correct"] is not None
    )
    assert len(rows) >= SAMPLE, f"{len(rows)} responses in {folder}/outputs/mathvision"
    return Published(files=files, data=data, rows=rows, sample=tuple(random.Random(0).sample(range(len(rows)), SAMPLE)))


def test_the_whole_command_on_all_cores(benchmark: BenchmarkFixture, published: Published, record: Record):
    command = Path(sysconfig.get_path("scripts")) / "ahabench"
    arguments = ["agreement", *map(str, published.files), "--task", "mathvision", "--data", str(published.data)]
    before, start = children_cpu_s(), time.perf_counter()
    done = benchmark.pedantic(run, ([str(command), *arguments, "--json"],), rounds=1)
    wall, cpu = time.perf_counter() - start, children_cpu_s() - before
    rows = json.loads(done)
    n = sum(row["n"] for row in rows)
    assert n == len(published.rows)
    same = sum(row["agreement"] * row["n"] for row in rows)
    record("ahabench, whole command", n=n, wall_s=wall, cpu_s=cpu, agreement=same / n, verdicts=())


def test_robust_on_one_core(benchmark: BenchmarkFixture, published: Published, record: Record):
    found = measure(benchmark, [sys.executable, str(RUNNER), "robust", str(published.data)], published.rows)
    pairs = found.pop("verdicts")
    record("robust", **found, verdicts=[pairs[place] for place in published.sample])


def test_math_verify_called_directly(benchmark: BenchmarkFixture, published: Published, record: Record):
    rows = [published.rows[place] for place in published.sample]
    record("math-verify", **measure(benchmark, [sys.executable, str(RUNNER), "math-verify"], rows))


def test_the_rule_scorer_of_lmms_eval(benchmark: BenchmarkFixture, published: Published, record: Record):
    python = os.environ.get("AHABENCH_LMMS_PYTHON")
    if not python:
        pytest.skip("set AHABENCH_LMMS_PYTHON to a Python that has lmms-eval to measure its rule scorer too")
    rows = [published.rows[place] for place in published.sample]
    record("lmms-eval", **measure(benchmark, [python, str(RUNNER), "lmms-eval"], rows))


def measure(benchmark: BenchmarkFixture, command: list[str], rows: Sequence[Row]) -> dict[str, Any]:
    """Return what `record` wants of a scorer that the runner runs: the seconds are those of the scoring alone."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    done = json.loads(benchmark.pedantic(run, (command, text), rounds=1))
    pairs = [(ours, row["official_correct"]) for ours, row in zip(done["verdicts"], rows, strict=True)]
    benchmark.extra_info |= {"responses": len(rows), "scoring_wall_s": done["wall_s"], "scoring_cpu_s": done["cpu_s"]}
    return {
        "n": len(rows),
        "wall_s": done["wall_s"],
        "cpu_s": done["cpu_s"],
        "agreement": sum(ours == theirs for ours, theirs in pairs) / len(pairs),
        "verdicts": pairs,
    }


def run(command: list[str], text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout


def children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
