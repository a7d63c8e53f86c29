"""Two sides' scores on the same clusters: the difference with its error, interval, one-sided bounds and p-values.

A metric enters as totals by cluster: a numerator and a denominator for each run of a side, so that a score is
sum(numerators) / sum(denominators). That covers a mean over items (denominators count items), a metric defined on
whole clusters (denominators of 1) and a ratio; `gate.totals` brings others into this form.

Items are crossed with runs: every run of both sides answers the same items. The variance of the difference has a part
of the items, from the clusters' linearised differences averaged over each side's runs, and where a side has several
runs a part of those, from the spread of their scores beyond what the items' share in it explains.

Intervals rest on a few more clusters than there are: some where only B is right, as many where only A is, and one where
both agree. Half a cluster of each is Agresti and Min's adjustment for matched proportions (Statistics in Medicine 24,
2005), carried over to clusters; without any, two runs that agree on everything would have an interval of width 0. For a
decision half is too few: it would pass a margin of 2 points on 82 items that all agree, although a drop of 2 points
leaves as many without a change 19 times of 100. `wilson_clusters` adds what Wilson's interval does, and asks for 134.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Self

from ahabench.harness.gate.power import MOST, POWER

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

AGRESTI_MIN = 0.5
"""Clusters that are added in either direction where nothing is decided."""
REPLICATES = 4_000
"""Bootstrap samples: the 5 % quantile then has a Monte-Carlo error of 0.35 percentage points of its level."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """One side's numerators and denominators, of shape [runs, clusters]."""

    numerators: "Floats"
    denominators: "Floats"

    @property
    def runs(self) -> int:
        """How many runs the side has."""
        return int(self.numerators.shape[0])

    @property
    def clusters(self) -> int:
        """How many clusters."""
        return int(self.numerators.shape[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Score of B minus score of A, as fractions."""

    a: float
    b: float
    value: float
    stderr: float
    """Clustered by item, with the runs' part where a side has several; without the adjustment of the interval."""
    ci95: tuple[float, float]
    lower: float
    """One-sided bound: the true difference is above it with confidence 1 - alpha."""
    upper: float
    p: float
    """Two-sided, for no difference."""
    p_worse: float
    """One-sided, against "B is not worse"."""
    clusters: int
    stderr_runs: float
    """The runs' part of `stderr`; 0 where each side has one run, whose choice is then taken as given."""
    method: str
    """"clustered t" or "cluster bootstrap"."""

    def within(self, most: float) -> Self:
        """Return it with interval and bounds cut at what no difference can pass, which few clusters may reach."""
        low, high, lower, upper = (min(most, max(-most, end)) for end in (*self.ci95, self.lower, self.upper))
        return replace(self, ci95=(low, high), lower=lower, upper=upper)


def wilson_clusters(alpha: float) -> float:
    """Return how many clusters Wilson's interval adds in either direction at a one-sided level: z²/2."""
    from scipy.special import ndtri

    return float(ndtri(1 - alpha)) ** 2 / 2


def paired_difference(
    a: Totals,
    b: Totals,
    *,
    alpha: float = 0.05,
    bootstrap: bool = False,
    added: float = AGRESTI_MIN,
    swing: float = 1.0,
    seed: int = 0,
) -> Difference | None:
    """Return the difference of two sides' scores over the same clusters, in the same order.

    Args:
        a: the baseline.
        b: the candidate.
        alpha: of the one-sided bounds.
        bootstrap: take the items' part from a seeded bootstrap over clusters; with one run a side its quantiles are
            the interval and the bounds, instead of Student's t.
        added: clusters that are added in either direction.
        swing: how far such a cluster moves a score, in multiples of its own weight. 0: nothing is added.
        seed: of the bootstrap.

    Returns:
        `None` where there are fewer than two clusters, or a score is undefined.
    """
    import numpy as np

    if a.clusters < 2 or not all(side.denominators.sum(axis=1).all() for side in (a, b)):
        return None
    plain = _Weighted(a, b, np.ones(a.clusters))
    spreads = _run_variances(a, b)
    runs = sum(spread.variance for spread in spreads)
    rule = _Rule(alpha=alpha, bootstrap=bootstrap, added=added, swing=swing, seed=seed)
    bounds = rule.bounds(a, b, spreads)
    scores = plain.scores()
    return Difference(
        a=float(scores[0].mean()),
        b=float(scores[1].mean()),
        value=plain.difference(),
        stderr=math.sqrt(plain.variance() + runs),
        stderr_runs=math.sqrt(runs),
        ci95=(bounds.low, bounds.high),
        lower=bounds.lower,
        upper=bounds.upper,
        p=bounds.p,
        p_worse=bounds.p_worse,
        clusters=a.clusters,
        method="cluster bootstrap" if bootstrap and not spreads else "clustered t",
    )


def clusters_to_decide(
    a: Totals,
    b: Totals,
    *,
    margin: float,
    alpha: float = 0.05,
    bootstrap: bool = False,
    added: float = AGRESTI_MIN,
    swing: float = 1.0,
    groups: int | None = None,
    power: float = POWER,
    seed: int = 0,
) -> int | None:
    """Return how many clusters like those at hand would decide, if what was seen of them is true.

    At that number the bounds of `paired_difference` clear -margin, on one side or the other, by as much as the
    difference moves by chance: so they do with the given power, and one cluster fewer is too few.

    Args:
        a: the baseline, of which the clusters at hand do not decide.
        b: the candidate.
        margin: a fraction.
        alpha: as for `paired_difference`.
        bootstrap: likewise.
        added: likewise.
        swing: likewise.
        groups: where the clusters are groups of a jackknife, how many these can become at most.
        power: in [0.5, 1).
        seed: of the bootstrap.

    Returns:
        `None` where no number would, because the spread between runs alone is too large; `MOST` for that or any more.
    """
    import numpy as np

    spreads = _run_variances(a, b)
    runs = sum(spread.variance for spread in spreads)
    rule = _Rule(alpha=alpha, bootstrap=bootstrap, added=added, swing=swing, seed=seed, groups=groups)

    def decide(clusters: int) -> bool:
        times = clusters / a.clusters
        seen = _Weighted(a, b, np.full(a.clusters, times))
        return _clears(rule.bounds(a, b, spreads, times), seen.variance() + runs, margin, power)

    needed = _first(decide, a.clusters)
    if needed is None and runs:
        # What is left once there is no end of clusters.
        seen = _Weighted(a, b, np.ones(a.clusters))
        rest = _bounds(seen.difference(), math.sqrt(runs), _degrees(spreads), alpha, None)
        return MOST if _clears(rest, runs, margin, power) else None
    return needed or MOST


def _clears(bounds: "_Bounds", variance: float, margin: float, power: float) -> bool:
    """Return whether bounds lie on one side of -margin with room for chance."""
    from scipy.special import ndtri

    room = float(ndtri(power)) * math.sqrt(variance)
    return bounds.lower - room > -margin or bounds.upper + room < -margin


def _first(holds: Callable[[int], bool], start: int) -> int | None:
    """Return the first number, from `start` on, from which on something holds; `None` where not even at `MOST`."""
    low = high = start
    while not holds(high):
        if high >= MOST:
            return None
        low, high = high, min(MOST, 2 * high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def mcnemar(fixed: int, broken: int) -> float:
    """Return the exact two-sided p-value that as many items are fixed as broken (McNemar's test, binomial form)."""
    from scipy.special import bdtr

    if fixed == broken:
        return 1.0
    return min(1.0, 2 * float(bdtr(min(fixed, broken), fixed + broken, 0.5)))


def mcnemar_worse(fixed: int, broken: int) -> float:
    """Return the exact one-sided p-value of at least so many broken items, where fixing and breaking are as likely."""
    from scipy.special import bdtrc

    return float(bdtrc(broken - 1, fixed + broken, 0.5))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values that are adjusted for their number by Holm's step-down method, in the given order."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


class _Spread(NamedTuple):
    """A part of the variance of the difference, and its degrees of freedom."""

    variance: float
    degrees: float


class _Bounds(NamedTuple):
    low: float
    high: float
    lower: float
    upper: float
    p: float
    p_worse: float


class _Rule(NamedTuple):
    """How bounds are made, whatever the number of clusters."""

    alpha: float
    bootstrap: bool
    added: float
    swing: float
    seed: int
    groups: int | None = None

    def bounds(self, a: Totals, b: Totals, spreads: Sequence[_Spread], times: float = 1.0) -> _Bounds:
        """Return them as they are with so many times the clusters, in the proportions of those at hand."""
        import numpy as np

        more = self._adjusted(a, b, times)
        draws = _bootstrap(more, self.seed) if self.bootstrap else None
        items = more.variance() if draws is None else float(np.var(draws))
        runs = sum(spread.variance for spread in spreads)
        degrees = _degrees([_Spread(items, min(times * a.clusters, self.groups or math.inf) - 1), *spreads])
        return _bounds(more.difference(), math.sqrt(items + runs), degrees, self.alpha, None if spreads else draws)

    def _adjusted(self, a: Totals, b: Totals, times: float) -> "_Weighted":
        """Return the sides, so many times, with clusters where only B is right, as many where only A is, and one."""
        import numpy as np

        weights = np.full(a.clusters, times)
        if self.swing == 0:
            return _Weighted(a, b, weights)

        def longer(side: Totals, *right: float) -> Totals:
            size = side.denominators.mean(axis=1, keepdims=True)
            return Totals(
                numerators=np.hstack([side.numerators, size * self.swing * np.array(right)]),
                denominators=np.hstack([side.denominators, size * np.ones(3)]),
            )

        weights = np.concatenate([weights, [self.added, self.added, 1.0]])
        return _Weighted(longer(a, 0, 1, 0.5), longer(b, 1, 0, 0.5), weights)


class _Weighted(NamedTuple):
    """Both sides over clusters that count with weights, of shape [clusters]."""

    a: Totals
    b: Totals
    weights: "Floats"

    def scores(self) -> "list[Floats]":
        """Return the score of each run, by side."""
        return [
            (side.numerators * self.weights).sum(axis=1) / (side.denominators * self.weights).sum(axis=1)
            for side in (self.a, self.b)
        ]

    def difference(self) -> float:
        """Return the mean score of B's runs minus that of A's."""
        a, b = self.scores()
        return float(b.mean() - a.mean())

    def variance(self) -> float:
        """Return the items' part of the difference's variance: linearised, robust to correlation within clusters."""
        shares = [_shares(side, score, self.weights) for side, score in zip(self[:2], self.scores(), strict=True)]
        residuals = shares[1].mean(axis=0) - shares[0].mean(axis=0)
        count = float(self.weights.sum())
        return count / (count - 1) * float((self.weights * residuals**2).sum())


def _shares(side: Totals, scores: "Floats", weights: "Floats") -> "Floats":
    """Return each cluster's linearised share in the deviation of each run's score, of shape [runs, clusters]."""
    total = (side.denominators * weights).sum(axis=1, keepdims=True)
    shares: Floats = (side.numerators - scores[:, None] * side.denominators) / total
    return shares


def _run_variances(a: Totals, b: Totals) -> list[_Spread]:
    """Return the runs' part of the variance for each side, beyond what the items' share in it explains.

    Runs of one side differ because training does, and because each answers items by luck; the items' variance already
    has the latter, so it is taken off. A side with one run is taken to spread as the other does, unless both have one.
    """
    import numpy as np

    found: list[_Spread | None] = []
    for side in (a, b):
        if side.runs < 2:
            found.append(None)
            continue
        ones = np.ones(side.clusters)
        scores = side.numerators.sum(axis=1) / side.denominators.sum(axis=1)
        shares = _shares(side, scores, ones)
        luck = float(np.square(shares - shares.mean(axis=0)).sum()) / (side.runs - 1)
        found.append(_Spread(max(0.0, float(np.var(scores, ddof=1)) - luck), side.runs - 1))
    known = next((one for one in found if one is not None), None)
    if known is None:
        return []
    spreads = [one or known for one in found]
    return [_Spread(one.variance / side.runs, one.degrees) for one, side in zip(spreads, (a, b), strict=True)]


def _degrees(parts: Sequence[_Spread]) -> float:
    """Return Satterthwaite's degrees of freedom of a sum of variances."""
    total = sum(part.variance for part in parts)
    if total == 0:
        return float(parts[0].degrees)
    return total**2 / sum(part.variance**2 / part.degrees for part in parts)


def _bounds(centre: float, width: float, degrees: float, alpha: float, draws: "Floats | None") -> _Bounds:
    """Return interval and bounds, from the draws' quantiles where there are draws, and p-values from Student's t."""
    import numpy as np
    from scipy.special import stdtr, stdtrit  # scipy.stats takes half a second to import

    if width == 0:
        return _Bounds(centre, centre, centre, centre, 1.0, 1.0)
    levels = np.array([0.025, 0.975, alpha, 1 - alpha])
    ends = np.quantile(draws, levels) if draws is not None else centre + stdtrit(degrees, levels) * width
    low, high, lower, upper = (float(end) for end in np.asarray(ends))
    return _Bounds(
        low, high, lower, upper, float(2 * stdtr(degrees, -abs(centre) / width)), float(stdtr(degrees, centre / width))
    )


def _bootstrap(both: _Weighted, seed: int) -> "Floats":
    """Return differences over clusters that are drawn again, with chances by their weights.

    Clusters that contribute alike are drawn together, as counts: the same distribution, in a fraction of the time.
    """
    import numpy as np

    parts = [both.a.numerators, both.a.denominators, both.b.numerators, both.b.denominators]
    kinds, place = np.unique(np.vstack(parts), axis=1, return_inverse=True)
    chances = np.bincount(place.ravel(), weights=both.weights)
    count = round(float(chances.sum()))
    draws = np.random.default_rng(seed).multinomial(count, chances / chances.sum(), size=REPLICATES)
    totals = np.split(draws @ kinds.T, np.cumsum([len(part) for part in parts])[:-1], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = totals[0] / totals[1], totals[2] / totals[3]
    found: Floats = b.mean(axis=1) - a.mean(axis=1)
    return found[np.isfinite(found)]
