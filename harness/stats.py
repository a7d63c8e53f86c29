"""Standard errors and intervals with the cluster as the unit."""

import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from ahabench.harness.types import Estimate

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

ROUNDING = 1e-12
"""A standard error below it is the noise of adding floats."""


def clustered_mean(values: Sequence[float], clusters: Sequence[Hashable]) -> Estimate:
    """Return the mean of values in [0, 1] with its cluster-robust standard error.

    Args:
        values: one score per item.
        clusters: the cluster of each, as long as `values`.
    """
    return clustered_ratio(values, [1.0] * len(values), clusters)


def clustered_ratio(numerators: "ArrayLike", denominators: "ArrayLike", clusters: Sequence[Hashable]) -> Estimate:
    """Return sum(numerators) / sum(denominators) with its cluster-robust standard error.

    The error is the linearised (delta-method) one of a ratio of two totals, with the G/(G-1) correction for G
    clusters; with denominators of 1 it is the clustered standard error of a mean (Miller, arXiv:2411.00640, eq. 4).
    The interval is Student's t with G-1 degrees of freedom, cut at 0 and 1. Where every cluster agrees the linearised
    error is 0 although the truth need not be: there the interval is Wilson's over the clusters.

    Args:
        numerators: one per item; each cluster's total is at most its denominators' total.
        denominators: one per item, at least 0. Items that do not enter the ratio have 0 in both.
        clusters: the cluster of each item.

    Returns:
        `n` counts the items with a denominator above 0. The value is `None` where no item has one.
    """
    import numpy as np

    numerator, denominator = np.asarray(numerators, float), np.asarray(denominators, float)
    entering = denominator > 0
    n = int(entering.sum())
    if n == 0:
        return Estimate(value=None, n=0, stderr=None, ci95=None)
    total = denominator.sum()
    value = float(numerator.sum() / total)
    codes: dict[Hashable, int] = {}
    index = [
        codes.setdefault(cluster, len(codes)) for cluster, enters in zip(clusters, entering, strict=True) if enters
    ]
    residuals = np.bincount(index, weights=(numerator - value * denominator)[entering])
    count = len(residuals)
    if count < 2:
        return Estimate(value=value, n=n, stderr=None, ci95=None)
    stderr = float(math.sqrt(count / (count - 1) * float(np.square(residuals).sum())) / total)
    return Estimate(value=value, n=n, stderr=stderr, ci95=_interval(value, stderr, count))


def cohen_kappa(first: Sequence[bool], second: Sequence[bool]) -> float | None:
    """Return Cohen's kappa of two lists of yes/no verdicts in [-1, 1]; `None` where chance alone agrees fully."""
    n = len(first)
    if n == 0:
        return None
    a, b = sum(first) / n, sum(second) / n
    chance = a * b + (1 - a) * (1 - b)
    if chance == 1:
        return None
    same = sum(x == y for x, y in zip(first, second, strict=True)) / n
    return (same - chance) / (1 - chance)


def _interval(value: float, stderr: float, clusters: int) -> tuple[float, float]:
    t = _t975(clusters - 1)
    if stderr > ROUNDING:
        return max(0.0, value - t * stderr), min(1.0, value + t * stderr)
    centre = (value + t * t / (2 * clusters)) / (1 + t * t / clusters)
    half = t * math.sqrt(value * (1 - value) / clusters + t * t / (4 * clusters**2)) / (1 + t * t / clusters)
    return max(0.0, centre - half), min(1.0, centre + half)


def _t975(degrees: int) -> float:
    from scipy.special import stdtrit  # scipy.stats takes half a second to import

    return float(stdtrit(degrees, 0.975))
