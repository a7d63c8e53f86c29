"""What the page of one benchmark shows: every metric and every breakdown of the runs that were scored on it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ahabench.harness import registry
from ahabench.harness.errors import AhabenchError
from ahabench.leaderboards.run_page import cell_of
from ahabench.leaderboards.runs import BoardRun, EstimateRow, TaskScore
from ahabench.leaderboards.table import SIX, Board, Row, Table, name_of

SHORT = {
    "ik": "IK",
    "ig": "IG",
    "cm_strict": "CM strict",
    "cm_loose": "CM loose",
    "rm_strict": "RM strict",
    "rm_loose": "RM loose",
    "s1": "one step",
    "s2": "two steps",
    "s3": "three steps",
    "score_strict": "strict",
    "score_loose": "loose",
    "rr": "robustness",
    "concept_macro": "concepts",
}
"""Names for the heads of columns."""
OUTCOMES = frozenset({"ik", "ig", "cm_strict", "cm_loose", "rm_strict", "rm_loose"})
"""Those whose words stand below."""
METRIC_WORDS = {
    "accuracy": "accuracy",
    "average": "average over variants",
    "worst": "worst case: all variants right",
    "best": "best case: any variant right",
    "rr": "reasoning robustness: worst / average",
    "score_strict": "strict score",
    "score_loose": "loose score",
    "ik": "IK, insufficient knowledge",
    "ig": "IG, inadequate generalisation",
    "cm_strict": "CM, complete mastery (strict)",
    "cm_loose": "CM, complete mastery (loose)",
    "rm_strict": "RM, rote memorisation (strict)",
    "rm_loose": "RM, rote memorisation (loose)",
    "s1": "one-step accuracy",
    "s2": "two-step accuracy",
    "s3": "three-step accuracy",
    "concept_macro": "mean over concepts",
}


def benchmark_values(task: str, board: Board, runs: Mapping[str, BoardRun]) -> dict[str, Any]:
    """Return what the template shows of a benchmark: of each table all metrics, then each breakdown.

    Args:
        task: the benchmark.
        board: all tables.
        runs: those on it, by slug.
    """
    sections = []
    for table in board.tables:
        scored = [(row, score) for row in table.rows if (score := _score_of(row, task, runs)) is not None]
        if scored:
            sections.append(_section(table, task, scored))
    return {"task": task, "label": name_of(task), "sections": sections, "about": about(task)}


def _score_of(row: Row, task: str, runs: Mapping[str, BoardRun]) -> TaskScore | None:
    run = runs.get(row.slug)
    score = run.tasks.get(task) if run is not None else None
    return score if score is not None and score.metrics is not None else None


def about(task: str) -> dict[str, str] | None:
    """Return what is said of a benchmark; `None` of one that is not installed."""
    try:
        found = registry.find_task(task)
    except AhabenchError:
        return None
    archive, _, number = found.paper.partition(":")
    return {
        "label": SIX.get(task, task),
        "title": found.title,
        "paper": found.paper,
        "url": f"https://arxiv.org/abs/{number}" if archive == "arXiv" else "",
        "headline": METRIC_WORDS.get(found.headline, found.headline),
        "split": f"{found.default_split}, {found.splits[found.default_split].n_items:,} items",
        "licence": found.licence,
    }


def _section(table: Table, task: str, scored: Sequence[tuple[Row, TaskScore]]) -> dict[str, Any]:
    """Return what a benchmark's page shows of one table: all metrics, then each breakdown, a model in each row."""
    column = next(column for column in table.columns if column.key == task)
    parts = [score.metrics for _, score in scored if score.metrics is not None]
    metrics = list(dict.fromkeys(name for part in parts for name in part.metrics))
    matrices = [
        {
            "title": "All metrics",
            "id": f"{table.id}-metrics",
            "counts": [
                _counted(score.metrics.metrics.get(name) for _, score in scored if score.metrics) for name in metrics
            ],
            "columns": [SHORT.get(name, name) for name in metrics],
            "words": [(SHORT[name], METRIC_WORDS[name].partition(", ")[2]) for name in metrics if name in OUTCOMES],
            "rows": [
                (row, [cell_of(score.metrics.metrics.get(name)) for name in metrics])
                for row, score in scored
                if score.metrics
            ],
        }
    ]
    tags = list(dict.fromkeys(tag for part in parts for tag in part.breakdown))
    for tag in tags:
        names = list(dict.fromkeys(_names(scored, tag)))
        for name in names:
            matrices.append(_matrix(table, scored, tag, name, several=len(names) > 1))
    return {"table": table, "protocol": f"{column.protocol} · {table.protocol}", "matrices": matrices}


def _names(scored: Sequence[tuple[Row, TaskScore]], tag: str) -> Iterator[str]:
    for _, score in scored:
        if score.metrics is not None:
            for estimates in score.metrics.breakdown.get(tag, {}).values():
                yield from estimates


def _matrix(
    table: Table, scored: Sequence[tuple[Row, TaskScore]], tag: str, name: str, *, several: bool
) -> dict[str, Any]:
    parts = [(row, score.metrics.breakdown.get(tag, {})) for row, score in scored if score.metrics is not None]
    values = sorted({value for _, part in parts for value in part})
    word = f": {METRIC_WORDS.get(name, name)}" if several else ""
    return {
        "title": f"By {tag.replace('_', ' ')}{word}",
        "id": f"{table.id}-{tag}-{name}",
        "columns": [value.replace("_", " ") for value in values],
        "counts": [_counted(part.get(value, {}).get(name) for _, part in parts) for value in values],
        "words": [],
        "rows": [(row, [cell_of(part.get(value, {}).get(name)) for value in values]) for row, part in parts],
    }


def _counted(found: Iterable[EstimateRow | None]) -> str:
    """Return of how many a column's numbers are shares: "12", or "9–13" where that differs between its rows."""
    counts = sorted({one.n for one in found if one is not None})
    return f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,}–{counts[-1]:,}" if counts else "–"
