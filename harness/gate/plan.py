"""What a comparison on each benchmark can show, and how many items a margin takes: the rows of `ahabench plan`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ahabench.harness import registry
from ahabench.harness.accounting import results_of
from ahabench.harness.dataset import Dataset
from ahabench.harness.errors import IncomparableRunsError, UsageError
from ahabench.harness.gate.pairing import check, common_items, common_tasks, notes_on, pair_up
from ahabench.harness.gate.policy import Policy
from ahabench.harness.gate.power import (
    POWER,
    correlation_within,
    design_effect,
    items_to_pass,
    items_to_show,
    smallest_difference,
)
from ahabench.harness.gate.sides import Run
from ahabench.harness.report import note
from ahabench.harness.types import Metric, Result

DISCORDANCES = (0.1, 0.2, 0.3)
CORRELATION = 0.5
"""Assumed between two items' differences in one cluster, where no runs tell."""


class Size(NamedTuple):
    """A set of items as it is published, or as somebody names it."""

    name: str
    metric: str
    n: int
    """Units of the metric."""
    clusters: int
    """Equal in size, as nearly as they can be."""
    unit: str = "items"
    """What `n` counts: "items" or "clusters"."""


SMOKE_SET = Size("smoke set", "accuracy", 100, 100)
"""What many a team gates on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """What is compared: how many units, in which clusters, and how alike a cluster's items behave."""

    name: str
    """The benchmark and split, or the number of items."""
    metric: str
    n: int
    """Items, or clusters where the headline counts those."""
    unit: str
    """What `n` counts: "items" or "clusters"."""
    sizes: tuple[int, ...]
    """Units of each cluster."""
    correlation: float
    """Of two units' differences within a cluster."""
    discordances: tuple[float, ...]
    measured: bool
    """Whether correlation and discordance come from two runs."""

    @property
    def effect(self) -> float:
        """The design effect of the clusters."""
        return design_effect(self.sizes, self.correlation)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """One benchmark at one discordance. Fractions; `None` where no number would do."""

    name: str
    metric: str
    n: int
    unit: str
    """Of `n`, `n_to_show` and `n_to_pass`."""
    clusters: int
    correlation: float
    design_effect: float
    discordance: float
    measured: bool
    margin: float
    smallest_difference: float | None
    """That a two-sided test at 5 % shows with the power."""
    n_to_show: int | None
    """So that the margin is the smallest difference."""
    n_to_pass: int | None
    """So that the gate passes with the power where nothing changed."""

    def as_row(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


def design_of(dataset: Dataset, *, correlation: float, discordances: Sequence[float]) -> Design:
    """Return what comparing two runs on a split comes to, with an assumed correlation and discordances."""
    metric = dataset.task.metrics[dataset.task.headline]
    results = [Result(item=item, scores=(1.0,), answers=(None,)) for item in dataset.items]
    n, sizes = _units(metric, results)
    return Design(
        name=dataset.protocol,
        metric=dataset.task.headline,
        n=n,
        unit="clusters" if n < len(results) else "items",
        sizes=sizes,
        correlation=correlation,
        discordances=tuple(discordances),
        measured=False,
    )


def design_of_size(size: Size, *, correlation: float, discordances: Sequence[float]) -> Design:
    """Return the design of so many units in clusters of equal size, as nearly as they can be."""
    small, larger = divmod(size.n, size.clusters)
    return Design(
        name=size.name,
        metric=size.metric,
        n=size.n,
        unit=size.unit,
        sizes=(small + 1,) * larger + (small,) * (size.clusters - larger),
        correlation=correlation,
        discordances=tuple(discordances),
        measured=False,
    )


def published_sizes() -> list[Size]:
    """Return what the installed benchmarks declare of their splits, once each size, the smallest first: no data needed.

    Where a headline counts clusters, the split stands there a second time, with its items.
    """
    sizes = {SMOKE_SET._replace(name=""): SMOKE_SET}
    for task in registry.tasks().values():
        left_out = len(task.scorers["robust"].excluded) if "robust" in task.scorers else 0
        # The default split first: of several splits of one size it is the one that is named.
        for name, split in sorted(task.splits.items(), key=lambda one: one[0] != task.default_split):
            if split.rows is not None or not split.answers_public:
                continue
            n = split.n_items - left_out
            clusters = split.n_clusters or n
            found = [Size(f"{task.name} {name}", "accuracy", n, clusters)]
            if task.counts_clusters:
                found.append(Size(f"{task.name} {name}", task.headline, clusters, clusters, "clusters"))
            for size in found:
                sizes.setdefault(size._replace(name=task.name), size)
    return sorted(sizes.values(), key=lambda size: size.n)


def parse_sizes(text: str) -> list[Size]:
    """Return the sizes of "500" or "304,3940/788", which has 3,940 items in 788 clusters.

    Raises:
        UsageError: a part is no number of items, or of at most as many clusters.

    >>> parse_sizes("3940/788")
    [Size(name='3,940 items', metric='accuracy', n=3940, clusters=788, unit='items')]
    """
    sizes = []
    for part in text.split(","):
        n, slash, clusters = part.strip().partition("/")
        numbers = [int(one) if one.isascii() and one.isdigit() and len(one) < 10 else 0 for one in (n, clusters or n)]
        if not 2 <= numbers[1] <= numbers[0] or (slash and not clusters):
            raise UsageError(f"--items {text!r}: {part!r} is no number of items from 2, such as 1000 or 3940/788")
        sizes.append(Size(f"{numbers[0]:,} items", "accuracy", numbers[0], numbers[1]))
    return sizes


def measured_designs(a: Sequence[Run], b: Sequence[Run], policy: Policy, data: Path | None) -> list[Design]:
    """Return the designs of the benchmarks of two runs, with the discordance and correlation that they show.

    Raises:
        IncomparableRunsError: the runs differ in what changes scores.
        UsageError: as `compare`.
    """
    names = common_tasks(a, b, None)
    guards, scorers = check(a, b, names, None, policy, None)
    if failing := [str(guard) for guard in guards if not guard.passed]:
        raise IncomparableRunsError("; ".join(failing))
    for text in notes_on(a, b, guards):
        note(text)
    designs = []
    for name in names:
        pair = pair_up(name, a[:1], b[:1], scorers[name], data)
        items = common_items(pair)
        first, second = (results_of(items, side[0].scores.judged) for side in (pair.a, pair.b))
        metric = pair.dataset.task.metrics[pair.dataset.task.headline]
        n, sizes = _units(metric, first)
        differences, clusters = _differences(metric, first, second, on_clusters=n < len(items))
        designs.append(
            Design(
                name=pair.dataset.protocol,
                metric=pair.dataset.task.headline,
                n=n,
                unit="clusters" if n < len(items) else "items",
                sizes=sizes,
                correlation=correlation_within(differences, clusters) or 0.0,
                discordances=(sum(value**2 for value in differences) / len(differences),),
                measured=True,
            )
        )
    return designs


def plan_rows(designs: Sequence[Design], *, margin: float, alpha: float = 0.05, power: float = POWER) -> list[PlanRow]:
    """Return a row for each design and discordance.

    Args:
        designs: what is compared.
        margin: a fraction.
        alpha: one-sided, of the gate; a difference is shown by a two-sided test at 5 %, as tables of power have it.
        power: the chance of showing, and of passing.
    """
    return [_row(design, share, margin, alpha, power) for design in designs for share in design.discordances]


def _row(design: Design, discordance: float, margin: float, alpha: float, power: float) -> PlanRow:
    effect = design.effect
    shows = to_show = None
    if discordance > 0:
        shows = smallest_difference(design.n, discordance, power=power, effect=effect)
        to_show = items_to_show(margin, discordance, power=power, effect=effect)
    return PlanRow(
        name=design.name,
        metric=design.metric,
        n=design.n,
        unit=design.unit,
        clusters=len(design.sizes),
        correlation=design.correlation,
        design_effect=effect,
        discordance=discordance,
        measured=design.measured,
        margin=margin,
        smallest_difference=shows,
        n_to_show=to_show,
        n_to_pass=items_to_pass(margin, discordance, alpha=alpha, power=power, effect=effect),
    )


def _units(metric: Metric, results: Sequence[Result]) -> tuple[int, tuple[int, ...]]:
    """Return what a metric counts, and how many of that stand in each cluster."""
    counts = Counter(result.item.cluster for result in results)
    n = metric(results).n
    return n, tuple(counts.values()) if n == len(results) else (1,) * n


def _differences(
    metric: Metric, first: Sequence[Result], second: Sequence[Result], *, on_clusters: bool
) -> tuple[list[float], list[str]]:
    """Return the difference of each unit and its cluster."""
    if not on_clusters:
        values = [theirs.mean - ours.mean for ours, theirs in zip(first, second, strict=True)]
        return values, [result.item.cluster for result in first]
    parts: dict[str, tuple[list[Result], list[Result]]] = {}
    for ours, theirs in zip(first, second, strict=True):
        both = parts.setdefault(ours.item.cluster, ([], []))
        both[0].append(ours)
        both[1].append(theirs)
    pairs = {name: (metric(ours).value, metric(theirs).value) for name, (ours, theirs) in parts.items()}
    known = {name: theirs - ours for name, (ours, theirs) in pairs.items() if ours is not None and theirs is not None}
    return list(known.values()), list(known)
