"""How many items a comparison takes."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from ahabench.harness.gate.power import (
    correlation_within,
    design_effect,
    items_to_pass,
    items_to_show,
    smallest_difference,
)

# Points at discordances of 10, 20 and 30 %, worked out by others beforehand for the benchmarks' sizes.
PUBLISHED = {
    100: (8.8, 12.4, 15.2),
    304: (5.1, 7.2, 8.8),
    447: (4.2, 5.9, 7.2),
    501: (3.9, 5.6, 6.8),
    788: (3.2, 4.5, 5.5),
    1000: (2.8, 4.0, 4.8),
    1740: (2.1, 3.0, 3.7),
    3040: (1.6, 2.3, 2.8),
    3940: (1.4, 2.0, 2.4),
    5010: (1.3, 1.8, 2.2),
}


@pytest.mark.parametrize("n", PUBLISHED)
def test_the_power_table_is_reproduced_to_its_digits(n: int) -> None:
    found = [smallest_difference(n, discordance) for discordance in (0.1, 0.2, 0.3)]
    assert tuple(round(100 * (value or 0), 1) for value in found) == PUBLISHED[n]


@pytest.mark.parametrize("discordance", [0.05, 0.2, 0.7])
@pytest.mark.parametrize("n", [400, 3_000, 20_000])
def test_the_smallest_difference_solves_its_equation(n: int, discordance: float) -> None:
    found = smallest_difference(n, discordance, alpha=0.1, power=0.9, effect=1.7)
    assert found is not None
    units = n / 1.7
    right = norm.ppf(0.95) * math.sqrt(discordance / units) + norm.ppf(0.9) * math.sqrt(
        (discordance - found**2) / units
    )
    assert found == pytest.approx(right, rel=1e-9)


def test_no_difference_is_larger_than_the_discordance() -> None:
    # 1.96 * sqrt(0.01/10) = 0.06 alone is more than the 0.01 of items that can differ.
    assert smallest_difference(10, 0.01) is None
    assert items_to_show(0.02, 0.01) is None


@pytest.mark.parametrize("discordance", [0.0, 0.001, 0.008])
def test_no_fewer_items_pass_than_where_nothing_differs(discordance: float) -> None:
    # z² 0.98 / 0.02 with z = 1.645; Student's t, which the gate takes, asks for one more.
    assert items_to_pass(0.02, discordance) == 133
    assert items_to_pass(0.02, discordance, effect=3) == math.ceil(3 * norm.ppf(0.95) ** 2 * 49)


@pytest.mark.parametrize("n", [100, 447, 3040])
def test_the_items_to_show_a_difference_are_its_inverse(n: int) -> None:
    shown = smallest_difference(n, 0.2)
    assert shown is not None
    assert items_to_show(shown, 0.2) == n


def test_the_items_to_pass_by_hand() -> None:
    # (1.6449 + 0.8416)² = 6.1826; 6.1826 * 0.2 / 0.02² = 3091.3.
    assert items_to_pass(0.02, 0.2) == 3092
    # At a true drop of 1 of 2 points: 6.1826 * (0.2 - 0.0001) / 0.01² = 12358.9; three times that with clusters.
    assert items_to_pass(0.02, 0.2, difference=-0.01) == 12_359
    assert items_to_pass(0.02, 0.2, difference=-0.01, effect=3) == pytest.approx(3 * 12_359, abs=3)


def test_a_drop_of_the_margin_never_passes() -> None:
    assert items_to_pass(0.02, 0.2, difference=-0.02) is None


@pytest.mark.parametrize(("sizes", "effect"), [([5] * 788, 3.0), ([10] * 501, 5.5), ([1] * 7, 1.0), ([1, 3], 1.75)])
def test_the_design_effect_by_hand(sizes: list[int], effect: float) -> None:
    # The last: an item stands in a cluster of (1 * 1 + 3 * 3) / 4 = 2.5 on average.
    assert design_effect(sizes, 0.5) == effect


def test_clusters_that_agree_are_correlated_fully() -> None:
    assert correlation_within([1, 1, 1, 0, 0, 0], list("aaabbb")) == pytest.approx(1)


def test_clusters_that_contrast_are_correlated_negatively() -> None:
    assert correlation_within([1, -1, 1, -1], list("aabb")) == pytest.approx(-1)


def test_nothing_is_known_of_correlation_without_pairs_or_differences() -> None:
    assert correlation_within([1, 0], list("ab")) is None
    assert correlation_within([0, 0, 0], list("aab")) is None


def test_the_correlation_makes_the_design_effect_that_the_clusters_have() -> None:
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(400), 8)
    values = rng.normal(size=400)[clusters] + rng.normal(size=3_200)
    found = correlation_within(values.tolist(), [str(cluster) for cluster in clusters])
    # Half of the variance is the clusters'.
    assert found == pytest.approx(0.5, abs=0.05)
