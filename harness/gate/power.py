"""How many items a comparison of two checkpoints needs, and what a given number can show.

Both answer the same items. The discordance d is the share of items that exactly one of them answers right; a paired
difference of binary scores has the variance d - difference² per item. Items in clusters tell less than as many
independent ones: the design effect is the factor by which they raise the variance of a mean (Kish, Survey Sampling,
1965, section 5.4).
"""

import math
from collections import Counter
from collections.abc import Sequence

POWER = 0.8
"""The chance of showing what is there that a plan aims at."""
MOST = 1_000_000
"""A larger number of items is not counted out."""


def smallest_difference(
    n: float, discordance: float, *, alpha: float = 0.05, power: float = POWER, effect: float = 1.0
) -> float | None:
    """Return the smallest difference D, a fraction, that a two-sided paired test shows with the given power.

    It solves D = z(1 - alpha/2) * sqrt(d/n) + z(power) * sqrt((d - D²)/n) for D, with n divided by the design effect.

    Args:
        n: items.
        discordance: share of items that one side alone gets right, in (0, 1].
        alpha: two-sided.
        power: in (0.5, 1).
        effect: the design effect of the clusters, from `design_effect`.

    Returns:
        `None` where not even a difference as large as the discordance would be shown.
    """
    z, z_power, units = _z(1 - alpha / 2), _z(power), n / effect
    # (D - c)² = z_power² (d - D²) / n with c = z sqrt(d/n): the larger root of a quadratic equation.
    c, share = z * math.sqrt(discordance / units), z_power**2 / units
    inside = c * c - (1 + share) * (c * c - share * discordance)
    if inside < 0:
        return None
    found = (c + math.sqrt(inside)) / (1 + share)
    return found if found <= discordance else None


def items_to_show(
    difference: float, discordance: float, *, alpha: float = 0.05, power: float = POWER, effect: float = 1.0
) -> int | None:
    """Return how many items make `smallest_difference` this small; `None` where the discordance is smaller still.

    Args:
        difference: a fraction above 0.
        discordance: as for `smallest_difference`.
        alpha: two-sided.
        power: in (0.5, 1).
        effect: the design effect of the clusters.
    """
    if difference > discordance:
        return None
    root = _z(1 - alpha / 2) * math.sqrt(discordance) + _z(power) * math.sqrt(discordance - difference**2)
    # Less what adding floats may have left, or the inverse of `smallest_difference` were one too many.
    return math.ceil((root / difference) ** 2 * effect * (1 - 1e-12))


def items_to_pass(
    margin: float,
    discordance: float,
    *,
    difference: float = 0.0,
    alpha: float = 0.05,
    power: float = POWER,
    effect: float = 1.0,
) -> int | None:
    """Return how many items let the gate PASS with the given power where the true difference is `difference`.

    The gate passes where the one-sided lower bound is above -margin: n = (z(1 - alpha) + z(power))² (d - D²) / (D +
    margin)² times the design effect; but no fewer than pass where nothing differs at all, z(1 - alpha)² (1 - margin) /
    margin, since the bounds are then Wilson's.

    Args:
        margin: the largest drop that is accepted, a fraction.
        discordance: as for `smallest_difference`, or 0.
        difference: B minus A, a fraction.
        alpha: one-sided.
        power: in (0.5, 1).
        effect: the design effect of the clusters.

    Returns:
        `None` where the true difference is at or below -margin: no number would do.
    """
    if difference <= -margin or abs(difference) > discordance:
        return None
    z = _z(1 - alpha)
    needed = (z + _z(power)) ** 2 * (discordance - difference**2) / (difference + margin) ** 2
    return math.ceil(max(needed, z**2 * (1 - margin) / margin) * effect)


def design_effect(sizes: Sequence[int], correlation: float) -> float:
    """Return 1 + (m - 1) * correlation, with m the mean size of the cluster in which an item stands; 0.01 at least.

    Args:
        sizes: items of each cluster.
        correlation: of two items' differences within a cluster (intra-cluster correlation).

    >>> design_effect([5] * 788, 0.5)
    3.0
    """
    mean = sum(size * size for size in sizes) / sum(sizes)
    # A measured correlation may be that of clusters that cancel out, and no plan rests on no variance at all.
    return max(0.01, 1 + (mean - 1) * correlation)


def correlation_within(differences: Sequence[float], clusters: Sequence[str]) -> float | None:
    """Return the correlation of two items' differences in one cluster, about their common mean.

    It is the mean product over pairs of one cluster divided by the mean square over all items; `None` where there are
    no pairs or all differences are equal.
    """
    mean = sum(differences) / len(differences)
    square = sum((value - mean) ** 2 for value in differences)
    totals: dict[str, float] = {}
    for value, cluster in zip(differences, clusters, strict=True):
        totals[cluster] = totals.get(cluster, 0.0) + value - mean
    pairs = sum(size * (size - 1) for size in Counter(clusters).values())
    if pairs == 0 or square == 0:
        return None
    products = sum(total**2 for total in totals.values()) - square
    return (products / pairs) / (square / len(differences))


def _z(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(level))
