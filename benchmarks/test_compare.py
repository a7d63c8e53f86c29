"""Time of a comparison of 100,000 items, files and statistics together: under five seconds.

Shown by `pytest benchmarks/test_compare.py --benchmark-columns=min,median`.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ahabench.harness import dataset, registry
from ahabench.harness.answers.robust import ROBUST
from ahabench.harness.gate.compare import compare
from ahabench.harness.gate.comparison import Comparison, Outcome
from ahabench.harness.gate.policy import Policy
from ahabench.harness.gate.sides import open_side
from ahabench.harness.manifest import Manifest, TaskRecord, write_manifest
from ahabench.harness.metrics import accuracy
from ahabench.harness.runlog import METRICS, RESPONSES, VERDICTS
from ahabench.harness.types import AnswerType, Item, PromptStyle, Row, Split, Task

N_ITEMS = 100_000
LIMIT_S = 5.0
RESPONSE = "I look at the picture. " * 20


def to_item(row: Row) -> Item:
    return Item(
        id=row["id"],
        question="How many?",
        gold="1",
        answer_type=AnswerType.INTEGER,
        tags={"subject": (f"subject {row['place'] % 12}",)},
    )


def rows() -> list[Row]:
    return [{"id": f"item {place}", "place": place} for place in range(N_ITEMS)]


HUGE = Task(
    name="huge",
    title="Huge",
    version=1,
    paper="",
    licence="",
    splits={"all": Split(n_items=N_ITEMS, hub=None, rows=rows)},
    default_split="all",
    read_folder=lambda folder, split: [],
    to_item=to_item,
    prompts={"official": PromptStyle(version=1, render=lambda item: pytest.fail("nothing is asked"))},
    scorers={"robust": ROBUST},
    metrics={"accuracy": accuracy},
    headline="accuracy",
    breakdowns={"subject": ("accuracy",)},
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two scored runs whose verdicts differ on every fifth item."""
    folder = tmp_path_factory.mktemp("runs")
    digest = dataset.digest(HUGE.items_of(rows()))
    made = []
    for name, wrong in (("a", 10), ("b", 7)):
        task = folder / name / "huge"
        task.mkdir(parents=True)
        with (task / RESPONSES).open("w") as responses, (task / VERDICTS).open("w") as verdicts:
            for place in range(N_ITEMS):
                key = {"item_id": f"item {place}", "sample_index": 0}
                said = {"response": RESPONSE, "finish_reason": "stop", "completion_tokens": 100}
                status = "wrong" if place % wrong == 0 else "correct"
                responses.write(json.dumps(key | {"prompt_sha256": "0" * 64} | said) + "\n")
                verdicts.write(json.dumps(key | {"status": status, "extracted": "1", "rule": "tag", "aha": {}}) + "\n")
        (task / METRICS).write_text(json.dumps({"scorer": f"robust@{ROBUST.version}"}))
        record = TaskRecord(split="all", data_digest=digest, n_items=N_ITEMS)
        write_manifest(folder / name, Manifest(status="complete", tasks={"huge": record}))
        made.append(folder / name)
    return made


def test_a_hundred_thousand_items_are_compared(
    benchmark: BenchmarkFixture,
    runs: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    record_ratio: Callable[..., Any],
) -> None:
    monkeypatch.setattr(registry, "tasks", lambda: {"huge": HUGE})
    spent: list[float] = []

    def work() -> Comparison:
        start = time.process_time()
        found = compare(*(open_side(str(run), baselines=Path("none")) for run in runs), Policy())
        spent.append(time.process_time() - start)
        return found

    found = benchmark.pedantic(work, rounds=1)
    assert found.rows[0].n == N_ITEMS
    # 1/10 wrong in A, 1/7 in B: a drop of 4.3 points.
    assert found.outcome is Outcome.FAIL
    start = time.process_time()
    difference = bare(runs)
    reference_s = time.process_time() - start
    assert found.rows[0].found is not None
    assert difference == pytest.approx(found.rows[0].found.value)
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
