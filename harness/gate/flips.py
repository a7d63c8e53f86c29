"""Which items changed between two sides, in which categories, and what moved beside the score."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from ahabench.harness.gate.comparison import Category, Flip, Said, Shift
from ahabench.harness.gate.paired import Totals, paired_difference
from ahabench.harness.gate.sides import Scored, texts
from ahabench.harness.judged import Judged
from ahabench.harness.runlog import Key
from ahabench.harness.types import Item, Result, Status

FIXED, BROKEN = "fixed", "broken"

ByItem = Mapping[str, list[Judged]]
Side = Sequence[Scored]


def kinds(a: Sequence[Sequence[Result]], b: Sequence[Sequence[Result]]) -> dict[str, str]:
    """Return which items flipped, by id: those that one side answers right, by more than half of its responses.

    Args:
        a: the results of each run of the baseline, of the same items in the same order.
        b: those of the candidate.
    """
    found = {}
    for ours, theirs in zip(zip(*a, strict=True), zip(*b, strict=True), strict=True):
        was, now = _mean(ours) > 0.5, _mean(theirs) > 0.5
        if was != now:
            found[ours[0].item.id] = FIXED if now else BROKEN
    return found


def categories(flipped: Mapping[str, str], items: Sequence[Item], tags: Sequence[str]) -> tuple[Category, ...]:
    """Return the counts of flips for each value of these tags that has any, the largest net change first."""
    found = []
    for tag in tags:
        ids: dict[str, list[str]] = defaultdict(list)
        for item in items:
            for value in item.tags.get(tag, ()):
                ids[value].append(item.id)
        for value, members in ids.items():
            counts = [sum(flipped.get(member) == kind for member in members) for kind in (FIXED, BROKEN)]
            if any(counts):
                found.append(Category(tag=tag, value=value, n=len(members), fixed=counts[0], broken=counts[1]))
    return tuple(sorted(found, key=lambda one: (-abs(one.fixed - one.broken), one.tag, one.value)))


def flips(flipped: Mapping[str, str], items: Sequence[Item], task: str, a: Side, b: Side) -> tuple[Flip, ...]:
    """Return the items that flipped, each with one response of either side that shows it.

    Raises:
        UsageError: a file of responses cannot be read any more.
    """
    chosen = [item for item in items if item.id in flipped]
    wanted = {item.id: flipped[item.id] for item in chosen}
    sides = [_said(side, task, wanted, right) for side, right in ((a, BROKEN), (b, FIXED))]
    return tuple(
        Flip(
            item_id=item.id,
            kind=wanted[item.id],
            question=item.question,
            gold=item.gold,
            tags=item.tags,
            a=sides[0][item.id],
            b=sides[1][item.id],
        )
        for item in chosen
    )


def _said(side: Side, task: str, kinds: Mapping[str, str], right: str) -> dict[str, Said]:
    """Return a response of the side to each item: a right one for items of the kind `right`, else a wrong one."""
    picked: dict[str, tuple[Scored, Judged]] = {}
    for scored in side:
        for row in scored.scores.judged:
            shows = row.item_id in kinds and row.verdict.correct == (kinds[row.item_id] == right)
            if shows and row.item_id not in picked:
                picked[row.item_id] = (scored, row)
    found = {}
    for scored in side:
        mine = {row.item_id: row for one, row in picked.values() if one is scored}
        keys: set[Key] = {(row.item_id, row.sample_index) for row in mine.values()}
        said = texts(scored, task, keys)
        for item_id, row in mine.items():
            found[item_id] = Said(
                run=str(scored.run.path),
                sample_index=row.sample_index,
                text=said.get((item_id, row.sample_index)),
                extracted=row.verdict.extracted,
                status=row.verdict.status.value,
                rule=row.verdict.rule,
            )
    return found


def shifts(items: Sequence[Item], a: Side, b: Side) -> tuple[Shift, ...]:
    """Return how truncation, missing answers, length and aha moments moved, as far as both sides know them."""
    sides = [[_by_item(scored) for scored in side] for side in (a, b)]
    rows = [row for side in sides for run in side for judged in run.values() for row in judged]
    found = [
        _shift("truncated", items, sides, truncated),
        _shift("no_answer", items, sides, lambda row: float(row.verdict.status is Status.NO_ANSWER)),
    ]
    if all(row.completion_tokens is not None for row in rows):
        found.append(_shift("tokens", items, sides, lambda row: float(row.completion_tokens or 0), swing=0.0))
    if (aha := _aha(a, b)) is not None:
        found.append(_shift("aha", items, sides, aha))
    return tuple(shift for shift in found if shift is not None)


def truncated(row: Judged) -> float:
    """Return 1 where a response was cut off at a limit; where nobody said so, where it has no answer for it."""
    if row.finish_reason is None:
        return float(row.verdict.status is Status.TRUNCATED)
    return float(row.finish_reason == "length")


def moved_by_truncation(items: Sequence[Item], a: Side, b: Side) -> float:
    """Return the part of a difference in accuracy that comes from items whose truncation differs between the sides."""
    ours, theirs = ([_by_item(scored) for scored in side] for side in (a, b))
    total = 0.0
    for item in items:
        cut = [_over(side, item.id, truncated) for side in (ours, theirs)]
        right = [_over(side, item.id, lambda row: float(row.verdict.correct)) for side in (ours, theirs)]
        if cut[0] != cut[1]:
            total += right[1] - right[0]
    return total / len(items)


def _shift(
    name: str, items: Sequence[Item], sides: Sequence[Sequence[ByItem]], of: Callable[[Judged], float], swing: float = 1
) -> Shift | None:
    first, second = (_totals(items, side, of) for side in sides)
    found = paired_difference(first, second, swing=swing)
    if not found:
        return None
    return Shift(name=name, a=found.a, b=found.b, difference=found.value, ci95=found.ci95, p=found.p)


def _totals(items: Sequence[Item], side: Sequence[ByItem], of: Callable[[Judged], float]) -> Totals:
    """Return the sums over each cluster of what is counted, an item's responses averaged."""
    import numpy as np

    places: dict[str, int] = {}
    clusters = [places.setdefault(item.cluster, len(places)) for item in items]
    values = [[_mean_of(run[item.id], of) for item in items] for run in side]
    return Totals(
        numerators=np.array([np.bincount(clusters, weights=run) for run in values]),
        denominators=np.array([np.bincount(clusters).astype(float)] * len(values)),
    )


def _mean_of(rows: Sequence[Judged], of: Callable[[Judged], float]) -> float:
    return of(rows[0]) if len(rows) == 1 else sum(map(of, rows)) / len(rows)


def _aha(a: Side, b: Side) -> Callable[[Judged], float] | None:
    """Return what says whether a response has an aha; `None` unless the same lexicon has read every response."""
    rows = [row for scored in (*a, *b) for row in scored.scores.judged if row.verdict.status is not Status.ERROR]
    if not all(isinstance(row.aha.get("moments"), int) for row in rows):
        return None
    if len({row.aha.get("lexicon") for row in rows}) > 1:
        return None
    return lambda row: float(row.aha["moments"] > 0)


def _by_item(scored: Scored) -> ByItem:
    found: dict[str, list[Judged]] = defaultdict(list)
    for row in scored.scores.judged:
        found[row.item_id].append(row)
    return found


def _over(side: Sequence[ByItem], item_id: str, of: Callable[[Judged], float]) -> float:
    values = [of(row) for run in side for row in run[item_id]]
    return sum(values) / len(values)


def _mean(results: Sequence[Result]) -> float:
    return sum(result.mean for result in results) / len(results)
