"""Which rows of a column are as good as its best: by the paired test over the same items, not by the first decimal."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ahabench.harness import registry
from ahabench.harness.dataset import load, without_images
from ahabench.harness.errors import AhabenchError
from ahabench.harness.gate.difference import Totals, holm, paired_difference
from ahabench.harness.gate.totals import totals_of
from ahabench.harness.report import note
from ahabench.harness.stats import clustered_mean
from ahabench.harness.types import Item, Result
from ahabench.leaderboards.collect import TaskProtocol
from ahabench.leaderboards.runs import BoardRun

if TYPE_CHECKING:
    from collections.abc import Iterable

ALPHA = 0.05
SAME = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Versus:
    """How a row differs from the best of its column."""

    difference: float
    stderr: float
    p: float
    """Two-sided."""
    paired: bool
    """Whether items were paired; otherwise both errors were taken as independent, which errs towards a tie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What a cell says beside its number."""

    best: bool = False
    tied: bool = False
    """Not told apart from the best at 5 %, after Holm's correction for the rows of the group."""
    p_holm: float | None = None
    paired: bool = True


class Pairs:
    """The headline of one benchmark for several runs, as totals by cluster of the same items."""

    def __init__(self, task: str, protocol: TaskProtocol, runs: "Iterable[BoardRun]", data: Path | None) -> None:
        """Bring the runs' verdicts into one order; whoever lacks an item is compared without pairing.

        Args:
            task: the benchmark.
            protocol: how all of these runs were asked and scored.
            runs: those that have a headline there.
            data: where the items are, as for `dataset.load`; without it, pairs need a metric that is a mean over items
                which are their own clusters, or a split that is drawn in this process.
        """
        self._values: dict[str, tuple[float, float | None]] = {}
        self._totals: dict[str, Totals] = {}
        ordered = {run.slug: run for run in runs}
        for slug, run in ordered.items():
            found = run.tasks[task].headline
            assert found is not None
            assert found.value is not None
            self._values[slug] = (found.value, found.stderr)
        results = _results(ordered, task)
        if len(results) > 1:
            self._totals = _with_items(task, protocol, results, data) or _by_item(self._values, results)

    def versus(self, best: str, other: str) -> Versus | None:
        """Return how a run differs from another; `None` where that cannot be said."""
        if best in self._totals and other in self._totals:
            found = paired_difference(self._totals[best], self._totals[other])
            if found is not None:
                return Versus(difference=found.value, stderr=_half(found.ci95), p=found.p, paired=True)
        (first, error), (second, other_error) = self._values[best], self._values[other]
        if error is None or other_error is None:
            return None
        width = math.hypot(error, other_error)
        return _z(second - first, width, paired=False)


def mark_column(values: Mapping[str, float], pairs: Pairs) -> dict[str, Mark]:
    """Return the marks of a group's rows in one column; none where fewer than two rows differ."""
    if not _differ(values):
        return {}
    best = _best(values)
    return _marks(values, best, {slug: pairs.versus(best, slug) for slug in values if slug != best})


def mark_means(values: Mapping[str, float], columns: Sequence[Pairs]) -> dict[str, Mark]:
    """Return the marks of a group's rows for the mean of several benchmarks, which are taken as independent."""
    if not _differ(values):
        return {}
    best = _best(values)
    found: dict[str, Versus | None] = {}
    for slug in values:
        if slug != best:
            parts = [pairs.versus(best, slug) for pairs in columns]
            known = [part for part in parts if part is not None]
            if len(known) < len(parts):
                found[slug] = None
                continue
            width = math.sqrt(sum(part.stderr**2 for part in known)) / len(known)
            difference = sum(part.difference for part in known) / len(known)
            found[slug] = _z(difference, width, paired=all(part.paired for part in known))
    return _marks(values, best, found)


def _differ(values: Mapping[str, float]) -> bool:
    return bool(values) and max(values.values()) > min(values.values()) + SAME


def _best(values: Mapping[str, float]) -> str:
    return max(sorted(values), key=values.__getitem__)


def _marks(values: Mapping[str, float], best: str, versus: Mapping[str, Versus | None]) -> dict[str, Mark]:
    known = {slug: one for slug, one in versus.items() if one is not None}
    adjusted = dict(zip(known, holm([one.p for one in known.values()]), strict=True))
    marks = {best: Mark(best=True)}
    for slug, value in values.items():
        if slug == best:
            continue
        equal = value >= values[best] - SAME
        p = adjusted.get(slug)
        tied = not equal and p is not None and p >= ALPHA
        marks[slug] = Mark(best=equal, tied=tied, p_holm=p, paired=slug in known and known[slug].paired)
    return marks


def _z(difference: float, width: float, *, paired: bool) -> Versus:
    p = math.erfc(abs(difference) / width / math.sqrt(2)) if width > 0 else float(abs(difference) < SAME)
    return Versus(difference=difference, stderr=width, p=p, paired=paired)


def _half(ci95: tuple[float, float]) -> float:
    """Return the standard error that an interval stands for; the interval's own adjustment stays in it."""
    return (ci95[1] - ci95[0]) / 2 / 1.959964


def _results(runs: Mapping[str, BoardRun], task: str) -> dict[str, dict[str, tuple[float, ...]]]:
    """Return each run's scores by item, for the runs that have the most frequent set of keys."""
    keys = {slug: outcomes.keys for slug, run in runs.items() if (outcomes := run.tasks[task].outcomes) is not None}
    if not keys:
        return {}
    sets = {slug: frozenset(found) for slug, found in keys.items()}
    common = max(sets.values(), key=lambda one: (sum(other == one for other in sets.values()), len(one)))
    out: dict[str, dict[str, tuple[float, ...]]] = {}
    for slug, found in keys.items():
        if sets[slug] != common:
            continue
        outcomes = runs[slug].tasks[task].outcomes
        assert outcomes is not None
        by_item: dict[str, list[tuple[int, float]]] = {}
        for (item_id, index), score in zip(found, outcomes.scores, strict=True):
            by_item.setdefault(item_id, []).append((index, float(score)))
        out[slug] = {item: tuple(score for _, score in sorted(rows)) for item, rows in by_item.items()}
    return out


def _with_items(
    task: str, protocol: TaskProtocol, scores: Mapping[str, Mapping[str, tuple[float, ...]]], data: Path | None
) -> dict[str, Totals] | None:
    """Return totals by the task's own clusters and metric; `None` where the items are not at hand."""
    try:
        found = registry.find_task(task)
        if data is None and found.splits[protocol.split].rows is None:
            return None
        dataset = load(found, protocol.split, data=data)
    except (AhabenchError, KeyError) as error:
        note(f"{task} {protocol.split}: its items are not at hand, so ties may be tested without pairing: {error}")
        return None
    if protocol.data_digest not in {None, dataset.digest}:
        note(f"{dataset.protocol}: the items at hand are not those of the runs; ties may be tested without pairing")
        return None
    items = without_images(dataset.items)
    first = next(iter(scores.values()))
    kept = [item for item in items if item.id in first]
    if len(kept) < len(first):
        return None
    sides = [[_result(item, run[item.id]) for item in kept] for run in scores.values()]
    sums = totals_of(found.metrics[found.headline], sides, sides[:1])
    if sums is None:
        return None
    return _split(list(scores), sums.a)


def _by_item(
    values: Mapping[str, tuple[float, float | None]], scores: Mapping[str, Mapping[str, tuple[float, ...]]]
) -> dict[str, Totals]:
    """Return totals by item where the headline is seen to be a mean over items that are their own clusters.

    It is, where the mean of the verdicts and its error, without clusters, are those that the metrics file has.
    """
    import numpy as np

    out: dict[str, Totals] = {}
    order = sorted(next(iter(scores.values())))
    for slug, run in scores.items():
        means = [sum(run[item]) / len(run[item]) for item in order]
        found = clustered_mean(means, order)
        value, stderr = values[slug]
        if found.value is None or abs(found.value - value) > SAME or not _close(found.stderr, stderr):
            continue
        out[slug] = Totals(numerators=np.array([means], float), denominators=np.ones((1, len(means))))
    return out


def _close(first: float | None, second: float | None) -> bool:
    if first is None or second is None:
        return first is second
    return abs(first - second) <= SAME


def _result(item: Item, scores: tuple[float, ...]) -> Result:
    return Result(item=item, scores=scores)


def _split(slugs: Sequence[str], totals: Totals) -> dict[str, Totals]:
    return {
        slug: Totals(
            numerators=totals.numerators[place : place + 1], denominators=totals.denominators[place : place + 1]
        )
        for place, slug in enumerate(slugs)
    }
