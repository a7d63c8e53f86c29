"""How well a rule finds moments: precision, recall and F1 on labelled text, with intervals."""

import math
import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ahabench.harness.aha.lexicon import PRIORITY, MomentClass, published_rules
from ahabench.harness.aha.moments import moments
from ahabench.harness.errors import UsageError
from ahabench.harness.runlog import read_rows

SEED = 20260801
"""Draws the halves."""
RESAMPLES = 2_000
OURS = "ahabench"


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A labelled stretch of a response."""

    item_id: str
    question: str
    text: str
    moment: bool
    kind: str
    """One of our classes, or "none"."""
    source: str
    """The trace that it was cut from; passages of one trace are one cluster."""
    weight: float = 1.0
    """One over the probability with which it was drawn."""


Shares = tuple[float | None, float | None, float | None]
"""Precision, recall and F1."""


class Share(NamedTuple):
    """A fraction with its two-sided 95 % interval; all `None` where there is nothing to take a share of."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    """What it is a share of, unweighted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """One rule on one set of passages."""

    rule: str
    precision: Share
    recall: Share
    f1: Share


def read_passages(path: Path) -> list[Passage]:
    """Return labelled passages: JSONL with item_id, question, response, moment, class and source.

    Raises:
        UsageError: a row has no such key, or a class that is not ours.
    """
    return [_passage(row, path, number) for number, row in read_rows(path)]


def halves(passages: Sequence[Passage], seed: int = SEED) -> tuple[list[Passage], list[Passage]]:
    """Return the half to tune on and the half to hold out.

    Passages of one source stay together. Sources are shuffled with the seed, then each goes where its classes are
    the fewer so far, so that both halves hold about as many of each class.
    """
    by_source: dict[str, list[Passage]] = defaultdict(list)
    for passage in passages:
        by_source[passage.source].append(passage)
    names = sorted(by_source)
    random.Random(seed).shuffle(names)
    sides: tuple[list[Passage], list[Passage]] = ([], [])
    counts: tuple[dict[str, int], dict[str, int]] = (defaultdict(int), defaultdict(int))
    for name in names:
        kinds = [passage.kind for passage in by_source[name]]
        lean = sum(counts[0][kind] - counts[1][kind] for kind in kinds)
        side = int(lean > 0 or (lean == 0 and len(sides[0]) > len(sides[1])))
        sides[side].extend(by_source[name])
        for kind in kinds:
            counts[side][kind] += 1
    return sides


def finders() -> dict[str, Callable[[Passage], bool]]:
    """Return what says whether a passage holds a moment: ours first, then the published rules by title."""
    found: dict[str, Callable[[Passage], bool]] = {OURS: lambda passage: bool(moments(passage.text, passage.question))}
    for rule in published_rules():
        found[rule.title] = lambda passage, rule=rule: rule.count(passage.text) > 0  # type: ignore[misc]
    return found


def quality(rule: str, passages: Sequence[Passage], said: Sequence[bool]) -> Quality:
    """Return precision, recall and F1 of yes/no answers, weighted where the passages are.

    Intervals: where all weights are 1, or all cases agree, Wilson's for precision and recall; otherwise, and for F1,
    percentiles of a bootstrap over the sources.
    """
    labels = [passage.moment for passage in passages]
    weights = [passage.weight for passage in passages]
    clusters = [passage.source for passage in passages]

    def shares(index: Sequence[int]) -> Shares:
        hit = sum(weights[i] for i in index if said[i] and labels[i])
        spoke = sum(weights[i] for i in index if said[i])
        true = sum(weights[i] for i in index if labels[i])
        return _over(hit, spoke), _over(hit, true), _over(2 * hit, spoke + true)

    values = shares(range(len(passages)))
    draws = _bootstrap(clusters, shares)
    counts = (sum(said), sum(labels), len(passages))
    names = [_percentiles(values[i], [draw[i] for draw in draws], counts[i]) for i in range(3)]
    hits = sum(a and b for a, b in zip(said, labels, strict=True))
    for i in range(2):
        # A bootstrap of cases that all agree has no width.
        if all(weight == 1 for weight in weights) or names[i].low == names[i].high:
            names[i] = wilson(hits, counts[i])
    return Quality(rule=rule, precision=names[0], recall=names[1], f1=names[2])


def class_quality(passages: Sequence[Passage], *, one_each: bool = False) -> dict[str, Quality]:
    """Return how well ours names each class.

    Args:
        passages: with one label each.
        one_each: name a passage once, by `main_class`; otherwise it counts for every class of which it has a moment.
    """
    found = [{moment.kind.value for moment in moments(passage.text, passage.question)} for passage in passages]
    if one_each:
        found = [{kind} if (kind := main_class(passage)) else set() for passage in passages]
    return {
        kind: quality(
            kind,
            [_relabelled(passage, passage.kind == kind) for passage in passages],
            [kind in kinds for kinds in found],
        )
        for kind in (kind.value for kind in MomentClass if kind is not MomentClass.UNCERTAINTY)
    }


def main_class(passage: Passage) -> str | None:
    """Return the class that is the first in `PRIORITY` of those of a passage's moments; `None` where it has none.

    As within a moment, an interruption names only what holds nothing more specific.
    """
    kinds = {moment.kind for moment in moments(passage.text, passage.question)}
    return next((kind for kind in PRIORITY if kind in kinds), None)


def wilson(hits: int, n: int) -> Share:
    """Return hits / n with Wilson's 95 % interval."""
    if n == 0:
        return Share(None, None, None, 0)
    z, p = 1.959963984540054, hits / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Share(p, max(0.0, centre - half), min(1.0, centre + half), n)


def _bootstrap(clusters: Sequence[Hashable], measure: Callable[[Sequence[int]], Shares]) -> list[Shares]:
    members: dict[Hashable, list[int]] = defaultdict(list)
    for i, cluster in enumerate(clusters):
        members[cluster].append(i)
    names, rng = sorted(members, key=str), random.Random(SEED)
    return [measure([i for name in rng.choices(names, k=len(names)) for i in members[name]]) for _ in range(RESAMPLES)]


def _percentiles(value: float | None, draws: Iterable[float | None], n: int) -> Share:
    drawn = sorted(draw for draw in draws if draw is not None)
    if value is None or not drawn:
        return Share(value, None, None, n)
    return Share(value, drawn[int(0.025 * (len(drawn) - 1))], drawn[math.ceil(0.975 * (len(drawn) - 1))], n)


def _over(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _relabelled(passage: Passage, moment: bool) -> Passage:
    from dataclasses import replace

    return replace(passage, moment=moment)


def _passage(row: Mapping[str, Any], path: Path, number: int) -> Passage:
    kinds = {*MomentClass, "none"}
    if not isinstance(row.get("moment"), bool) or row.get("class") not in kinds:
        raise UsageError(
            f'{path}:{number} is no labelled passage; wanted "moment" (true or false) and "class" '
            f"({', '.join(sorted(kinds))})"
        )
    source = str(row.get("source") or "")
    return Passage(
        item_id=str(row["item_id"]),
        question=str(row.get("question") or ""),
        text=str(row["response"] or ""),
        moment=row["moment"],
        kind=row["class"],
        # "a public repository" names no trace: such passages stand alone.
        source=source if "#" in source else str(row["item_id"]),
    )
