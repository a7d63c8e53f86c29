"""Time of `ahabench compare A B` on 100,000 items: under five CPU seconds, from the start of Python to its end.

Two scored runs on disk, each response with the text and the keys that an engine's have (750 bytes). Measured is the
whole command in a process of its own: imports, files, digests, statistics and the printed answer.
"""

import importlib.util
import json
import os
import resource
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ahabench.harness import dataset
from ahabench.harness.aha.summary import counts
from ahabench.harness.answers.robust import ROBUST
from ahabench.harness.digests import file_digest
from ahabench.harness.manifest import Manifest, TaskRecord, write_manifest
from ahabench.harness.runlog import METRICS, RESPONSES, VERDICTS, responses_digest, write_responses
from ahabench.harness.types import Response

HUGE = Path(__file__).parent / "huge"
LIMIT_S = 5.0
ROUNDS = 3
TEXT = "I look at the picture. " * 20
COMMAND = str(Path(sysconfig.get_path("scripts")) / "ahabench")


@pytest.fixture(scope="module")
def huge() -> ModuleType:
    spec = importlib.util.spec_from_file_location("huge_task", HUGE / "huge_task.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def runs(huge: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two scored runs: every tenth item is wrong in the first, every seventh in the second."""
    folder = tmp_path_factory.mktemp("runs")
    digest = dataset.digest(huge.TASK.items_of(huge.rows()))
    aha = counts(TEXT)
    made = []
    for name, wrong in (("a", 10), ("b", 7)):
        task = folder / name / "huge"
        write_responses(task / RESPONSES, (response(place, place % wrong == 0) for place in range(huge.N_ITEMS)))
        with (task / VERDICTS).open("w") as verdicts:
            for place in range(huge.N_ITEMS):
                said = ("wrong", "2") if place % wrong == 0 else ("correct", "1")
                row = {"item_id": f"item {place}", "sample_index": 0, "status": said[0], "extracted": said[1]}
                verdicts.write(json.dumps(row | {"rule": "tag/integer", "aha": aha}) + "\n")
        metrics = {
            "scorer": f"robust@{ROBUST.version}",
            "responses_sha256": responses_digest(task / RESPONSES),
            "verdicts_sha256": file_digest(task / VERDICTS),
        }
        (task / METRICS).write_text(json.dumps(metrics))
        record = TaskRecord(split="all", data_digest=digest, n_items=huge.N_ITEMS)
        write_manifest(folder / name, Manifest(status="complete", tasks={"huge": record}))
        made.append(folder / name)
    return made


def response(place: int, is_wrong: bool) -> Response:
    return Response(
        item_id=f"item {place}",
        text=f"{TEXT}<answer>{2 if is_wrong else 1}</answer>",
        finish_reason="stop",
        completion_tokens=100,
        prompt_tokens=300,
        image_sizes=((640, 480),),
        images_sha256="ab" * 32,
    )


def children_s() -> float:
    """CPU time of the processes that this one waited for."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def test_a_hundred_thousand_items_are_compared(
    benchmark: BenchmarkFixture, huge: ModuleType, runs: list[Path], record_ratio: Callable[..., Any]
) -> None:
    spent: list[float] = []
    environment = os.environ | {"PYTHONPATH": str(HUGE), "OMP_NUM_THREADS": "1"}

    def work() -> subprocess.CompletedProcess[str]:
        start = children_s()
        done = subprocess.run(
            [COMMAND, "compare", *map(str, runs), "--json"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        spent.append(children_s() - start)
        return done

    rounds = ROUNDS if benchmark.enabled else 1
    done = benchmark.pedantic(work, rounds=rounds)  # type: ignore[no-untyped-call]
    # 1/10 wrong in A, 1/7 in B: a drop of 4.3 points. Nothing on stderr: the verdicts on disk were taken.
    assert (done.returncode, done.stderr) == (1, "")
    (row,) = json.loads(done.stdout)["rows"]
    assert row["n"] == huge.N_ITEMS
    start = resource.getrusage(resource.RUSAGE_SELF)
    assert row["difference"] == pytest.approx(bare(runs))
    end = resource.getrusage(resource.RUSAGE_SELF)
    reference_s = end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime
    record_ratio(
        "compare, 100,000 items", reference="json and pandas", ours_s=min(spent), reference_s=reference_s, limit=None
    )
    if benchmark.enabled:  # a run that times nothing asserts nothing about time
        assert min(spent) < LIMIT_S


def bare(runs: list[Path]) -> float:
    """What a short script would do: read the verdicts, join them by item, and take the difference of the means."""
    import pandas as pd

    tables = []
    for run in runs:
        lines = (run / "huge" / VERDICTS).read_text().splitlines()
        tables.append(pd.DataFrame([json.loads(line) for line in lines]))
    both = tables[0].merge(tables[1], on=["item_id", "sample_index"])
    return float((both.status_y == "correct").mean() - (both.status_x == "correct").mean())
