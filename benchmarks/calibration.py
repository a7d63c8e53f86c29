"""How often the gate is right, by simulation on the benchmarks' own cluster structures; writes calibration.md.

    python benchmarks/calibration.py --out leaderboards/published/calibration.md

Two checkpoints answer items drawn anew in each repetition. A cluster has an ability and an item an easiness, both
normal on the logit scale, and a cluster a change of its own between the checkpoints; a shift of B is solved for so that
the true difference of the metric is what a row says. Answers are then tossed independently, and the comparison is made
by `paired_difference`, as `ahabench compare` makes it.
"""

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtri
from scipy.stats import binom, norm

from ahabench.harness.gate.difference import Totals, paired_difference, wilson_clusters
from ahabench.harness.gate.power import correlation_within, design_effect

ALPHA = 0.05
MARGIN = 0.02
ADDED = wilson_clusters(ALPHA)
LARGE = 300_000
"""Clusters by which a true difference is worked out."""

Floats = NDArray[np.float64]
Score = Callable[[Floats, NDArray[np.bool_]], Floats]
"""Each cluster's numerator, from the chances (or the tosses) of its items, of shape [..., clusters, items]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """A benchmark as the statistics see it."""

    name: str
    sizes: tuple[int, ...]
    score: Score
    """Of chances it is the expected score, since items are tossed independently."""
    per_item: bool
    """Whether the metric counts items; clusters otherwise, and then the bootstrap is used."""
    ability: float
    mean: float
    easiness: float = 1.0
    change: float = 0.8
    runs: int = 1
    between_runs: float = 0.0
    """Standard deviation of a run's own shift, in logits."""


def right(chances: Floats, present: NDArray[np.bool_]) -> Floats:
    """Right answers of each cluster."""
    return np.where(present, chances, 0).sum(axis=-1)


def all_right(chances: Floats, present: NDArray[np.bool_]) -> Floats:
    """DynaMath's worst case: whether all variants are right."""
    return np.where(present, chances, 1).prod(axis=-1)


def strict(chances: Floats, present: NDArray[np.bool_]) -> Floats:
    """We-Math's strict score: 1 for complete mastery, half where only the composite answer (the first) is wrong."""
    steps = np.where(present, chances, 1)[..., 1:].prod(axis=-1)
    return steps * chances[..., 0] + 0.5 * steps * (1 - chances[..., 0])


STRUCTURES = (
    Structure(name="independent items, 1,000", sizes=(1,) * 1000, score=right, per_item=True, ability=1, mean=0.5),
    Structure(name="independent items, 304", sizes=(1,) * 304, score=right, per_item=True, ability=1, mean=-1),
    Structure(name="MathVerse, 788 x 5", sizes=(5,) * 788, score=right, per_item=True, ability=1.5, mean=0),
    Structure(name="DynaMath average, 501 x 10", sizes=(10,) * 501, score=right, per_item=True, ability=1.5, mean=0.5),
    Structure(name="DynaMath worst, 501 x 10", sizes=(10,) * 501, score=all_right, per_item=False, ability=2.5, mean=1),
    # 1,740 questions in 525 problems: 360 of two steps and 165 of three, each with its composite question.
    Structure(
        name="We-Math strict, 525 of 3 or 4",
        sizes=(3,) * 360 + (4,) * 165,
        score=strict,
        per_item=False,
        ability=1.5,
        mean=1,
    ),
    Structure(
        name="3 + 3 runs, 1,000 items",
        sizes=(1,) * 1000,
        score=right,
        per_item=True,
        ability=1,
        mean=0.5,
        runs=3,
        between_runs=0.05,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What became of the repetitions. Fractions."""

    structure: str
    truth: float
    passed: float
    failed: float
    covered: float
    planned: float | None
    """The chance of a PASS by the formula of `ahabench plan`; `None` with several runs a side, which it leaves out."""
    naive_covered: float
    """What the interval would cover if items were taken for independent."""


def simulate(structure: Structure, truth: float, *, repetitions: int, seed: int, large: int = LARGE) -> Counted:
    """Compare two checkpoints again and again, where the true difference is known.

    Args:
        structure: the benchmark.
        truth: B minus A, a fraction.
        repetitions: how often.
        seed: of all that is drawn.
        large: clusters by which the shift of B is solved for.
    """
    rng = np.random.default_rng(seed)
    shift, planned = _solved(structure, truth, rng, large)
    present = _present(structure.sizes)
    sizes = present.sum(axis=1).astype(float)
    count = {"passed": 0, "failed": 0, "covered": 0, "naive": 0}
    for repetition in range(repetitions):
        logits = _logits(structure, present, rng)
        sides = []
        for side, moved in ((0, 0.0), (1, shift)):
            own = rng.normal(0, structure.between_runs, size=(structure.runs, 1, 1)) if structure.runs > 1 else 0.0
            tosses = (rng.random((structure.runs, *present.shape)) < expit(logits[side] + moved + own)).astype(float)
            weights = np.broadcast_to(
                sizes if structure.per_item else np.ones_like(sizes), (structure.runs, len(sizes))
            )
            numerators = structure.score(tosses, present)
            sides.append((Totals(numerators=numerators, denominators=weights.copy()), tosses))
        (a, first), (b, second) = sides
        found = paired_difference(a, b, alpha=ALPHA, bootstrap=not structure.per_item, added=ADDED, seed=repetition)
        assert found is not None
        count["passed"] += found.lower > -MARGIN
        count["failed"] += found.upper < -MARGIN
        count["covered"] += found.ci95[0] <= truth <= found.ci95[1]
        flat = (
            (second.mean(axis=0) - first.mean(axis=0))[present]
            if structure.per_item
            else b.numerators[0] - a.numerators[0]
        )
        count["naive"] += abs(flat.mean() - truth) <= 1.96 * flat.std(ddof=1) / math.sqrt(flat.size)
    shares = {name: hits / repetitions for name, hits in count.items()}
    return Counted(
        structure=structure.name,
        truth=truth,
        passed=shares["passed"],
        failed=shares["failed"],
        covered=shares["covered"],
        planned=planned,
        naive_covered=shares["naive"],
    )


def identical_runs(n: int, flips: float, *, repetitions: int, seed: int) -> int:
    """Return how often two evaluations of one checkpoint FAIL, where noise makes a share of the verdicts differ."""
    rng = np.random.default_rng(seed)
    failed = 0
    for _ in range(repetitions):
        known = (rng.random((1, n)) < 0.6).astype(float)
        a, b = (np.where(rng.random((1, n)) < flips / 2, 1 - known, known) for _ in range(2))
        failed += _bounds(a, b)[1] < -MARGIN
    return failed


def passed_without_fixes(n: int) -> float:
    """Return the exact chance of a PASS where the true drop is the margin, and B breaks items and fixes none."""
    before = np.ones((1, n))
    chance = 0.0
    for broken in range(n + 1):
        after = before.copy()
        after[0, :broken] = 0
        if _bounds(before, after)[0] <= -MARGIN:
            break
        chance += float(binom.pmf(broken, n, MARGIN))
    return chance


def _bounds(a: Floats, b: Floats) -> tuple[float, float]:
    """Return the bounds by which the gate decides on single items."""
    ones = np.ones_like(a)
    found = paired_difference(
        Totals(numerators=a, denominators=ones), Totals(numerators=b, denominators=ones), alpha=ALPHA, added=ADDED
    )
    assert found is not None
    return found.lower, found.upper


def _present(sizes: Sequence[int]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = np.arange(max(sizes)) < np.array(sizes)[:, None]
    return found


def _logits(structure: Structure, present: NDArray[np.bool_], rng: np.random.Generator) -> tuple[Floats, Floats]:
    clusters = len(present)
    ability = rng.normal(structure.mean, structure.ability, size=(clusters, 1))
    items = ability + rng.normal(0, structure.easiness, size=present.shape)
    return items, items + rng.normal(0, structure.change, size=(clusters, 1))


def _solved(structure: Structure, truth: float, rng: np.random.Generator, large: int) -> tuple[float, float | None]:
    """Return the shift of B that makes the difference true, and the chance of a PASS that a plan foretells."""
    present = _present((structure.sizes * (1 + large // len(structure.sizes)))[:large])
    weights = present.sum(axis=1) if structure.per_item else np.ones(large)
    first, second = _logits(structure, present, rng)
    noise = [rng.normal(0, structure.between_runs, size=(large, 1)) if structure.runs > 1 else 0.0 for _ in range(2)]
    base = structure.score(expit(first + noise[0]), present).sum()

    def difference(shift: float) -> float:
        return float((structure.score(expit(second + noise[1] + shift), present).sum() - base) / weights.sum())

    low, high = -3.0, 3.0
    for _ in range(28):
        middle = (low + high) / 2
        low, high = (middle, high) if difference(middle) < truth else (low, middle)
    shift = (low + high) / 2
    if structure.runs > 1:
        return shift, None
    tosses = [(rng.random(present.shape) < expit(side)).astype(float) for side in (first, second + shift)]
    if structure.per_item:
        values = (tosses[1] - tosses[0])[present]
        names = [str(place) for place in np.nonzero(present)[0]]
        n = sum(structure.sizes)
        effect = design_effect(structure.sizes, correlation_within(values.tolist(), names) or 0.0)
    else:
        values = structure.score(tosses[1], present) - structure.score(tosses[0], present)
        n, effect = len(structure.sizes), 1.0
    error = math.sqrt((float(np.square(values).mean()) - truth**2) * effect / n)
    return shift, float(norm.cdf((truth + MARGIN) / error - ndtri(1 - ALPHA)))


def report(repetitions: int, seed: int = 0) -> Iterator[str]:
    """Yield the lines of calibration.md."""
    error = 100 * math.sqrt(ALPHA * (1 - ALPHA) / repetitions)
    yield "# Calibration of the gate"
    yield ""
    yield (
        f"{repetitions:,} simulated comparisons a row, made by `python benchmarks/calibration.py --repetitions "
        f"{repetitions}`; the script says how. Margin {100 * MARGIN:g} points, one-sided alpha {100 * ALPHA:g} %; a "
        f"share of {100 * ALPHA:g} % has a Monte-Carlo error of {error:.1f} points."
    )
    yield ""
    yield (
        "Where the true drop is the margin, neither PASS nor FAIL may be more frequent than alpha. Where nothing "
        "changed, PASS is the power, beside what `ahabench plan` foretells, and FAIL stays far below alpha. The last "
        "column is what the 95 % interval would cover if items (and runs) were taken for independent."
    )
    yield ""
    yield "| structure | true difference | PASS % | planned % | FAIL % | 95 % interval covers % | without clusters % |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for place, structure in enumerate(STRUCTURES):
        for truth in (0.0, -MARGIN, -3 * MARGIN):
            row = simulate(structure, truth, repetitions=repetitions, seed=seed + place)
            planned = "" if row.planned is None else f"{100 * row.planned:.1f}"
            shares = [f"{100 * value:.1f}" for value in (row.failed, row.covered, row.naive_covered)]
            passed = f"{100 * row.passed:.1f}"
            yield f"| {row.structure} | {100 * truth:.1f} | {passed} | {planned} | {' | '.join(shares)} |"
    yield ""
    yield "The same checkpoint evaluated twice, where noise of the engine makes a share of the verdicts differ:"
    yield ""
    yield "| items | differing % | FAIL |"
    yield "|--:|--:|--:|"
    for n in (120, 304, 1_000):
        for flips in (0.0, 0.01, 0.05):
            failed = identical_runs(n, flips, repetitions=repetitions, seed=seed)
            yield f"| {n:,} | {100 * flips:g} | {failed} of {repetitions:,} |"
    yield ""
    yield (
        "Where B breaks as many items as the margin allows and fixes none, few counts are to be told apart and their "
        "distribution leans to one side, which is the hardest case for bounds like these; the exact chance of a PASS:"
    )
    yield ""
    yield "| single items | PASS % |"
    yield "|--:|--:|"
    for n in (100, 120, 150, 304, 447, 788, 1_000, 3_040):
        yield f"| {n:,} | {100 * passed_without_fixes(n):.1f} |"


def main() -> None:
    """Write the card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("leaderboards/published/calibration.md"))
    parser.add_argument("--repetitions", type=int, default=2_000)
    given = parser.parse_args()
    given.out.write_text("\n".join(report(given.repetitions)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
