"""Compare two sides of runs, item by item: is B worse than A by more than a margin?

Guards come first: what changes scores must be the same on both sides. Then each benchmark's headline metric is
compared on the items that both sides answered. The gate is a test of non-inferiority: PASS where the one-sided lower
bound of the difference is above -margin, FAIL where the upper one is below it, INCONCLUSIVE otherwise. That every row
must pass is an intersection-union test and needs no correction for their number; "something got worse" is Holm's.
"""

import gc
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ahabench.harness.accounting import results_of
from ahabench.harness.errors import UsageError, unknown_name
from ahabench.harness.gate import flips
from ahabench.harness.gate.comparison import Comparison, MetricRow, Outcome, Shift, TaskComparison
from ahabench.harness.gate.difference import (
    Difference,
    clusters_to_decide,
    holm,
    mcnemar,
    mcnemar_worse,
    paired_difference,
    wilson_clusters,
)
from ahabench.harness.gate.guards import allow
from ahabench.harness.gate.pairing import (
    Pair,
    check,
    common_items,
    common_tasks,
    missing_phrases,
    notes_on,
    notes_on_policy,
    notes_on_verdicts,
    pair_up,
    row_guards,
)
from ahabench.harness.gate.policy import Policy
from ahabench.harness.gate.power import MOST
from ahabench.harness.gate.sides import Run, Scored
from ahabench.harness.gate.totals import JACKKNIFE_GROUPS, Sums, totals_of
from ahabench.harness.metrics import majority, sampled_metrics
from ahabench.harness.types import Item, Metric, Result

SIGNIFICANT = 0.05
"""Below it a shift beside the score is worth a word."""


def compare(
    a: Sequence[Run],
    b: Sequence[Run],
    policy: Policy,
    *,
    data: Path | None = None,
    tasks: Sequence[str] | None = None,
    scorer: str | None = None,
    examples: int | None = None,
) -> Comparison:
    """Return how B's runs differ from A's, or what speaks against comparing them.

    Args:
        a: the baseline's runs: one, or several that differ in their seeds.
        b: the candidate's.
        policy: margins and what else the gate demands.
        data: where the items are, as for `dataset.load`.
        tasks: benchmarks to compare; all of the baseline's if `None`.
        scorer: score all runs with it, in memory; if `None` the scorer that they were scored with, in its present
            version.
        examples: flips of each kind and benchmark whose responses are read; all if `None`.

    Raises:
        UsageError: a name is unknown, the policy's too; a file is damaged; or the policy has no margin for a benchmark.
        IncomparableRunsError: the items are not at hand, or verdicts need a judge that is not.
    """
    with _no_collection():
        # Another function, so that its millions of rows are gone when collecting begins again.
        return _compare(a, b, policy, data, tasks, scorer, examples)


def _compare(
    a: Sequence[Run],
    b: Sequence[Run],
    policy: Policy,
    data: Path | None,
    tasks: Sequence[str] | None,
    scorer: str | None,
    examples: int | None,
) -> Comparison:
    names = common_tasks(a, b, tasks)
    on_policy = notes_on_policy(policy, names)
    guards, scorers = check(a, b, names, tasks, policy, scorer)
    notes = notes_on(a, b, guards)
    empty = Comparison(
        a=tuple(str(run.path) for run in a),
        b=tuple(str(run.path) for run in b),
        policy=policy,
        guards=tuple(guards),
        missing=(),
        tasks=(),
        notes=tuple(notes),
    )
    if empty.mismatches:
        return empty
    pairs = [pair_up(name, a, b, scorers[name], data) for name in names]
    guards += allow(
        [guard for pair in pairs for guard in row_guards(pair)], policy.allow, extra=[guard.field for guard in guards]
    )
    missing = [] if policy.allow_missing else [phrase for pair in pairs for phrase in missing_phrases(pair)]
    notes = [*notes, *notes_on_verdicts(pairs), *on_policy]
    checked = replace(empty, guards=tuple(guards), missing=tuple(missing), notes=tuple(notes))
    if checked.mismatches or checked.missing:
        return checked
    return replace(checked, tasks=_decided([_task(pair, policy, examples) for pair in pairs], policy))


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the collector of reference cycles from walking millions of rows over and over: a third of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _task(pair: Pair, policy: Policy, examples: int | None) -> TaskComparison:
    """Return the comparison of one benchmark, on the clusters that every run answered in full."""
    task = pair.dataset.task
    items = common_items(pair)
    sides = [[_results(scored, items) for scored in side] for side in (pair.a, pair.b)]
    flipped = flips.kinds(*sides)
    moved = flips.shifts(items, pair.a, pair.b)
    rows = []
    for name, metric in _metrics(pair, policy).items():
        sums = totals_of(metric, *sides)
        row = _row(pair, name, sums, flipped, policy)
        rows.append(replace(row, notes=tuple(_row_notes(pair, row, sums, items, moved))))
    return TaskComparison(
        task=task.name,
        split=pair.dataset.split,
        rows=tuple(rows),
        shifts=moved,
        categories=flips.categories(flipped, items, list(task.breakdowns)),
        flips=flips.flips(flipped, items, task.name, pair.a, pair.b, examples=examples),
    )


def _results(scored: Scored, items: Sequence[Item]) -> list[Result]:
    return results_of(items, scored.scores.judged)


def _metrics(pair: Pair, policy: Policy) -> dict[str, Metric]:
    """Return the metrics to compare: the headline, then those that the policy names for this benchmark.

    Raises:
        UsageError: there is none of that name, or it needs answers and a run holds verdicts alone.
    """
    task = pair.dataset.task
    known = {**task.metrics, **sampled_metrics(pair.a[0].scores.n_samples, task.metrics[task.headline])}
    chosen = {task.headline: task.metrics[task.headline]}
    for text in policy.metrics:
        name, _, metric = text.partition(":")
        if name == task.name:
            if metric not in known:
                raise unknown_name(f"metric of {task.name}", metric, list(known))
            if known[metric] is majority and (alone := [one for one in (*pair.a, *pair.b) if one.places is None]):
                raise UsageError(f"{metric} is a vote among answers, and {alone[0].run.path} holds verdicts alone")
            chosen[metric] = known[metric]
    return chosen


def _row(pair: Pair, metric: str, sums: Sums | None, flipped: Mapping[str, str], policy: Policy) -> MetricRow:
    task, record = pair.dataset.task, pair.a[0].run.manifest.tasks[pair.dataset.task.name]
    margin = policy.margin_of(task.name, metric)
    found = sums and paired_difference(
        sums.a,
        sums.b,
        alpha=policy.alpha,
        bootstrap=sums.on_clusters,
        added=wilson_clusters(policy.alpha),
        swing=sums.swing,
    )
    found = found and found.within(1)
    fixed, broken = (sum(kind == wanted for kind in flipped.values()) for wanted in (flips.FIXED, flips.BROKEN))
    verdict = _verdict(found, margin)
    p, p_worse = (found.p, found.p_worse) if found else (None, None)
    matched = sums is not None and _is_matched(pair, sums)
    if found and matched:
        p, p_worse = mcnemar(fixed, broken), mcnemar_worse(fixed, broken)
    return MetricRow(
        task=task.name,
        split=pair.dataset.split,
        metric=metric,
        headline=metric == task.headline,
        prompt=f"{record.prompt.style}@{record.prompt.version}" if record.prompt else "unknown",
        scorer=pair.a[0].scores.scorer,
        found=found,
        margin=margin,
        verdict=verdict,
        p=p,
        p_worse=p_worse,
        p_holm=None,
        test="exact McNemar" if matched else "clustered t",
        n=sums.n if sums else 0,
        unit="clusters" if sums and sums.counts_clusters else "items",
        clusters=sums.clusters if sums else 0,
        fixed=fixed,
        broken=broken,
        n_needed=_n_needed(sums, margin, policy) if found and sums and verdict is Outcome.INCONCLUSIVE else None,
        interval="" if not found or not sums else found.method if sums.additive else "jackknife over clusters",
        samples=pair.a[0].scores.n_samples,
    )


def _verdict(found: Difference | None, margin: float) -> Outcome:
    if found is not None and found.lower > -margin:
        return Outcome.PASS
    if found is not None and found.upper < -margin:
        return Outcome.FAIL
    return Outcome.INCONCLUSIVE


def _is_matched(pair: Pair, sums: Sums) -> bool:
    """Whether each cluster is one item with one right-or-wrong response a side, as McNemar's test wants it."""
    return (
        len(pair.a) == len(pair.b) == 1
        and pair.a[0].scores.n_samples == pair.b[0].scores.n_samples == 1
        and sums.additive
        and sums.clusters == sums.n == sums.n_items
    )


def _n_needed(sums: Sums, margin: float, policy: Policy) -> int | None:
    """Return the n at which the bounds that decide would clear the margin; at most `MOST`."""
    needed = clusters_to_decide(
        sums.a,
        sums.b,
        margin=margin,
        alpha=policy.alpha,
        bootstrap=sums.on_clusters,
        added=wilson_clusters(policy.alpha),
        swing=sums.swing,
        groups=None if sums.additive else JACKKNIFE_GROUPS,
    )
    return needed and min(MOST, math.ceil(sums.n * needed / sums.a.clusters))


def _row_notes(
    pair: Pair, row: MetricRow, sums: Sums | None, items: Sequence[Item], moved: Sequence[Shift]
) -> Iterator[str]:
    """Yield what a reader of the row must know besides."""
    if row.found is None:
        yield "the metric has no value on a side, or there are fewer than two clusters"
        return
    if row.verdict is Outcome.INCONCLUSIVE and row.n_needed is None:
        yield "no number of items would decide: the runs of a side differ too much; add runs"
    if row.samples > 1:
        yield f"{row.samples} responses to an item: each item counts once, and their spread is part of the interval"
    if row.found.stderr_runs > 0:
        share = (row.found.stderr_runs / row.found.stderr) ** 2
        yield f"the choice of runs makes {100 * share:.0f} % of the variance, the items the rest"
    left_out = {item_id for one in (*pair.a, *pair.b) for item_id in one.scores.excluded}
    if len(items) < len(pair.dataset.items) - len(left_out):
        yield f"on {len(items):,} of {len(pair.dataset.items):,} items: the clusters that all runs answered in full"
    cut = next((shift for shift in moved if shift.name == "truncated"), None)
    if row.headline and sums and not sums.on_clusters and cut and cut.p is not None and cut.p < SIGNIFICANT:
        part = flips.moved_by_truncation(items, pair.a, pair.b)
        yield (
            f"truncation moved by {100 * cut.difference:+.1f} points; of the {100 * row.found.value:+.1f} points, "
            f"{100 * part:+.1f} come from items whose truncation moved"
        )


def _decided(tasks: Sequence[TaskComparison], policy: Policy) -> tuple[TaskComparison, ...]:
    """Return the comparisons with Holm's p-values over all rows, and what the policy makes of them."""
    known = [row.p_worse for task in tasks for row in task.rows if row.p_worse is not None]
    adjusted = iter(holm(known))

    def decide(row: MetricRow) -> MetricRow:
        if row.p_worse is None:
            return row
        p_holm = next(adjusted)
        if policy.on_significant_drop == "fail" and p_holm < policy.alpha and row.verdict is not Outcome.FAIL:
            note = f"a significant drop (Holm's p {p_holm:.3g}), although the margin says {row.verdict}"
            notes = (*row.notes, f"fails by the policy: {note}")
            return replace(row, p_holm=p_holm, verdict=Outcome.FAIL, n_needed=None, dropped=True, notes=notes)
        return replace(row, p_holm=p_holm)

    return tuple(replace(task, rows=tuple(decide(row) for row in task.rows)) for task in tasks)
