"""Which items changed between two sides, in which categories, and what moved beside the score."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, NamedTuple

from ahabench.harness.gate.comparison import Category, Flip, Said, Shift
from ahabench.harness.gate.difference import Totals, paired_difference
from ahabench.harness.gate.sides import Scored, texts
from ahabench.harness.judged import Judged
from ahabench.harness.runlog import Key
from ahabench.harness.types import Item, Result, Status

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FIXED, BROKEN = "fixed", "broken"

Side = Sequence[Scored]
Of = Callable[[Judged], float]


def kinds(a: Sequence[Sequence[Result]], b: Sequence[Sequence[Result]]) -> dict[str, str]:
    """Return which items flipped, by id: those that one side answers right, by more than half of its responses.

    Args:
        a: the results of each run of the baseline, of the same items in the same order.
        b: those of the candidate.
    """
    import numpy as np

    was, now = (np.array([[result.mean for result in run] for run in side]).mean(axis=0) > 0.5 for side in (a, b))
    return {a[0][place].item.id: FIXED if now[place] else BROKEN for place in np.flatnonzero(was != now).tolist()}


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


def flips(
    flipped: Mapping[str, str], items: Sequence[Item], task: str, a: Side, b: Side, *, examples: int | None = None
) -> tuple[Flip, ...]:
    """Return the items that flipped, each with one response of either side that shows it.

    Args:
        flipped: from `kinds`.
        items: that were compared.
        task: the benchmark.
        a: the baseline's verdicts.
        b: the candidate's.
        examples: how many of each kind, the first ones, come with the text of their responses; all if `None`.

    Raises:
        UsageError: a file of responses cannot be read any more.
    """
    chosen = [item for item in items if item.id in flipped]
    wanted = {item.id: flipped[item.id] for item in chosen}
    read = {
        item_id for kind in (FIXED, BROKEN) for item_id in [one for one in wanted if wanted[one] == kind][:examples]
    }
    sides = [_said(side, task, wanted, right, read) for side, right in ((a, BROKEN), (b, FIXED))]
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


def _said(side: Side, task: str, kinds: Mapping[str, str], right: str, read: Set[str]) -> dict[str, Said]:
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
        keys: set[Key] = {(row.item_id, row.sample_index) for row in mine.values() if row.item_id in read}
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
    sides = [[_answers(items, scored) for scored in side] for side in (a, b)]
    places: dict[str, int] = {}
    clusters = [places.setdefault(item.cluster, len(places)) for item in items]
    found = [
        _shift("truncated", clusters, sides, _truncated(sides)),
        _shift("no_answer", clusters, sides, lambda row: float(row.verdict.status is Status.NO_ANSWER)),
    ]
    if all(row.completion_tokens is not None for side in sides for answers in side for row in answers.rows):
        found.append(_shift("tokens", clusters, sides, lambda row: float(row.completion_tokens or 0), swing=0.0))
    if (aha := _aha(a, b)) is not None:
        found.append(_shift("aha", clusters, sides, aha))
    return tuple(shift for shift in found if shift is not None)


def _truncated(sides: "Sequence[Sequence[_Answers]]") -> Of:
    """Return what says whether a response was cut off at a limit: in the same sense for both sides.

    Where somebody does not say how a response ended, only those without an answer for it are known.
    """
    if all(row.finish_reason is not None for side in sides for answers in side for row in answers.rows):
        return lambda row: float(row.finish_reason == "length")
    return lambda row: float(row.verdict.status is Status.TRUNCATED)


def moved_by_truncation(items: Sequence[Item], a: Side, b: Side) -> float:
    """Return the part of a difference in accuracy that comes from items whose truncation differs between the sides."""
    import numpy as np

    sides = [[_answers(items, scored) for scored in side] for side in (a, b)]
    cut, right = (
        [np.mean([answers.means(of) for answers in side], axis=0) for side in sides]
        for of in (_truncated(sides), _right)
    )
    return float((right[1] - right[0])[cut[0] != cut[1]].sum()) / len(items)


def _right(row: Judged) -> float:
    return float(row.verdict.correct)


class _Answers(NamedTuple):
    """A run's responses to some items."""

    rows: Sequence[Judged]
    places: Sequence[int]
    """Of the item of each, in order."""

    def means(self, of: Of) -> "NDArray[np.float64]":
        """Return what is counted, averaged over each item's responses."""
        import numpy as np

        counted = np.fromiter(map(of, self.rows), float, len(self.rows))
        sums = np.bincount(self.places, weights=counted)
        means: NDArray[np.float64] = sums / np.bincount(self.places)
        return means


def _answers(items: Sequence[Item], scored: Scored) -> _Answers:
    """Return a run's responses to these items, all of which it answered."""
    place = {item.id: number for number, item in enumerate(items)}
    rows = [row for row in scored.scores.judged if row.item_id in place]
    return _Answers(rows, [place[row.item_id] for row in rows])


def _shift(
    name: str, clusters: Sequence[int], sides: Sequence[Sequence[_Answers]], of: Of, swing: float = 1
) -> Shift | None:
    first, second = (_totals(clusters, side, of) for side in sides)
    found = paired_difference(first, second, swing=swing)
    if not found:
        return None
    if swing:
        found = found.within(1)
    return Shift(name=name, a=found.a, b=found.b, difference=found.value, ci95=found.ci95, p=found.p)


def _totals(clusters: Sequence[int], side: Sequence[_Answers], of: Of) -> Totals:
    """Return the sums over each cluster of what is counted, an item's responses averaged."""
    import numpy as np

    return Totals(
        numerators=np.array([np.bincount(clusters, weights=answers.means(of)) for answers in side]),
        denominators=np.array([np.bincount(clusters).astype(float)] * len(side)),
    )


def _aha(a: Side, b: Side) -> Of | None:
    """Return what says whether a response has an aha; `None` unless the same lexicon has read every response."""
    rows = [row for scored in (*a, *b) for row in scored.scores.judged if row.verdict.status is not Status.ERROR]
    if not all(isinstance(row.aha.get("moments"), int) for row in rows):
        return None
    if len({row.aha.get("lexicon") for row in rows}) > 1:
        return None
    return lambda row: float(row.aha["moments"] > 0)
