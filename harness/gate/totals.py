"""Any metric as totals by cluster, so that two sides can be compared on it."""

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ahabench.harness.gate.difference import Totals
from ahabench.harness.metrics import accuracy
from ahabench.harness.types import Metric, Result

JACKKNIFE_GROUPS = 100
"""Parts of the clusters, one of which is left out at a time, for a metric that is no ratio of totals."""
EXACT = 1e-9


class Sums(NamedTuple):
    """A metric's totals on both sides, and how they are to be read."""

    a: Totals
    b: Totals
    n: int
    """Items, or clusters where the metric is defined on those."""
    n_items: int
    clusters: int
    on_clusters: bool
    """Whether the metric counts clusters of several items as one."""
    additive: bool
    """Whether the totals are the metric's own; jackknife pseudo-values otherwise."""
    swing: float
    """How far one cluster can move the score, in multiples of a column's weight."""

    @property
    def counts_clusters(self) -> bool:
        """Whether `n` counts clusters, as it also does for a metric that does not add up, such as a ratio of two."""
        return self.on_clusters or (not self.additive and self.n <= self.clusters < self.n_items)


def totals_of(metric: Metric, a: Sequence[Sequence[Result]], b: Sequence[Sequence[Result]]) -> Sums | None:
    """Return a metric's totals on both sides; `None` where it has no value on one of them.

    A metric adds up if it is the mean of what it says of each cluster alone, weighted with its own n there: accuracies,
    metrics that are defined on whole clusters, and shares among clusters do. Others (a ratio of two metrics, a macro
    average) become pseudo-values of a jackknife that leaves out groups of whole clusters.

    Args:
        metric: what to compare.
        a: the results of each run of the baseline: the same items, in the same order, for every run of both sides.
        b: those of the candidate.

    Raises:
        IncompleteRunError: the metric is defined on whole clusters and one has a hole.
    """
    places = clusters_of(a[0])
    sides = [[_run_totals(metric, results, places) for results in side] for side in (a, b)]
    runs = [run for side in sides for run in side]
    if any(run.value is None for run in runs):
        return None
    n = max(sum(run.counts) for run in runs)
    if all(run.additive for run in runs):
        return Sums(
            a=_stack(sides[0]),
            b=_stack(sides[1]),
            n=n,
            n_items=len(a[0]),
            clusters=len(places),
            on_clusters=n < len(a[0]) and max(runs[0].counts) == 1,
            additive=True,
            swing=1.0,
        )
    groups = _groups(list(places))
    pseudo = [[_pseudo(metric, results, groups) for results in side] for side in (a, b)]
    if any(run.value is None for side in pseudo for run in side):
        return None
    first, second = (_stack(side) for side in pseudo)
    return Sums(
        a=first,
        b=second,
        n=n,
        n_items=len(a[0]),
        clusters=len(places),
        on_clusters=False,
        additive=False,
        swing=len(groups) / len(places),
    )


def clusters_of(results: Sequence[Result]) -> Mapping[str, int]:
    """Return the place of each cluster, in order of appearance."""
    places: dict[str, int] = {}
    for result in results:
        places.setdefault(result.item.cluster, len(places))
    return places


class _Run(NamedTuple):
    """One run's share of each cluster, in the order of the clusters."""

    value: float | None
    sums: Sequence[float]
    counts: Sequence[int]
    additive: bool


def _run_totals(metric: Metric, results: Sequence[Result], places: Mapping[str, int]) -> _Run:
    if metric is accuracy:
        # What the general way below comes to, without a call for each of many thousand clusters.
        sums, counts = [0.0] * len(places), [0] * len(places)
        for result in results:
            place = places[result.item.cluster]
            sums[place] += result.mean
            counts[place] += 1
        return _Run(sum(sums) / len(results), sums, counts, additive=True)
    whole = metric(results)
    parts = [metric(part) for part in _by_cluster(results, places)]
    counts = [part.n for part in parts]
    sums = [0.0 if part.value is None else part.value * part.n for part in parts]
    additive = whole.value is not None and sum(counts) == whole.n and abs(sum(sums) / whole.n - whole.value) <= EXACT
    return _Run(whole.value, sums, counts, additive)


def _by_cluster(results: Sequence[Result], places: Mapping[str, int]) -> list[list[Result]]:
    parts: list[list[Result]] = [[] for _ in places]
    for result in results:
        parts[places[result.item.cluster]].append(result)
    return parts


def _groups(clusters: Sequence[str]) -> list[set[str]]:
    """Return the clusters in up to `JACKKNIFE_GROUPS` groups whose sizes differ by at most one, by a fixed shuffle."""
    shuffled = random.Random(0).sample(list(clusters), len(clusters))
    count = min(JACKKNIFE_GROUPS, len(shuffled))
    return [set(shuffled[start::count]) for start in range(count)]


def _pseudo(metric: Metric, results: Sequence[Result], groups: Sequence[set[str]]) -> _Run:
    """Return Tukey's pseudo-values of a metric, moved so that their mean is the metric's own value."""
    whole = metric(results).value
    without = [metric([result for result in results if result.item.cluster not in group]).value for group in groups]
    known = [value for value in without if value is not None]
    if whole is None or len(known) < len(without):
        return _Run(None, [], [], additive=False)
    mean = sum(known) / len(known)
    return _Run(
        whole, [whole - (len(groups) - 1) * (value - mean) for value in known], [1] * len(groups), additive=True
    )


def _stack(runs: Sequence[_Run]) -> Totals:
    import numpy as np

    return Totals(
        numerators=np.array([run.sums for run in runs], float),
        denominators=np.array([run.counts for run in runs], float),
    )
