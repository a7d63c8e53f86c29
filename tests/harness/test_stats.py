"""Standard errors against statsmodels, against the jackknife, and by hand."""

import math
import random
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.regression.linear_model import OLS, WLS
from statsmodels.stats.inter_rater import cohens_kappa

from ahabench.harness.stats import clustered_mean, clustered_ratio, cohen_kappa
from ahabench.harness.types import Estimate


def drawn(seed: int, *, n_clusters: int = 40) -> tuple[list[float], list[float], list[int]]:
    """Return numerators, denominators and clusters of uneven size whose items resemble each other."""
    rng = random.Random(seed)
    rows = []
    for cluster in range(n_clusters):
        ease = rng.random()
        for _ in range(rng.randint(1, 6)):
            size = rng.randint(1, 5)
            rows.append((float(sum(rng.random() < ease for _ in range(size))), float(size), cluster))
    rng.shuffle(rows)
    numerators, denominators, clusters = zip(*rows, strict=True)
    return list(numerators), list(denominators), list(clusters)


def numbers(found: Estimate) -> list[float | None]:
    # An error within rounding of 0 flips between two kinds of interval; the case of its own below says so.
    interval = found.ci95 if found.ci95 and found.stderr and found.stderr > 1e-9 else ()
    return [found.n, found.value, found.stderr, *interval]


# Means.


@pytest.mark.parametrize("seed", range(5))
def test_a_mean_has_the_error_and_interval_of_a_cluster_robust_regression(seed: int) -> None:
    _, _, clusters = drawn(seed)
    rng = random.Random(seed)
    values = [rng.choice([0.0, 0.25, 1.0]) for _ in clusters]
    # statsmodels multiplies by G/(G-1) * (N-1)/(N-K); with the constant alone K = 1, so only G/(G-1) remains.
    oracle = OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True)
    found = clustered_mean(values, clusters)
    assert found.n == len(values)
    assert found.value == pytest.approx(oracle.params[0])
    assert found.stderr == pytest.approx(oracle.bse[0])
    assert found.ci95 == pytest.approx(tuple(oracle.conf_int(alpha=0.05)[0]))


def test_a_clustered_mean_by_hand() -> None:
    # Mean 3/4. Residuals by cluster: -3/4, 1/4 + 1/4, 1/4; squares 9/16 + 4/16 + 1/16 = 7/8; times 3/2 = 21/16.
    found = clustered_mean([0, 1, 1, 1], ["a", "b", "b", "c"])
    assert found.stderr == pytest.approx(math.sqrt(21) / 4 / 4)
    # Student's t of 2 degrees is 4.303: 0.75 -+ 4.303 * 0.286 leaves [0, 1] on both sides.
    assert (found.value, found.ci95) == (0.75, (0, 1))


def test_items_that_are_their_own_clusters_have_the_textbook_error() -> None:
    values = [0.0, 1.0, 1.0, 0.0, 1.0, 0.5, 1.0]
    found = clustered_mean(values, range(7))
    assert found.stderr == pytest.approx(float(np.std(values, ddof=1)) / math.sqrt(7))


def test_copies_of_an_item_in_its_cluster_add_no_certainty() -> None:
    values, clusters = [0.0, 1.0, 1.0, 0.0, 1.0], [1, 2, 3, 4, 5]
    once, thrice = clustered_mean(values, clusters), clustered_mean(values * 3, clusters * 3)
    assert thrice.stderr == pytest.approx(once.stderr)
    assert thrice.ci95 == pytest.approx(once.ci95)
    assert (once.n, thrice.n) == (5, 15)


def test_nothing_has_no_value() -> None:
    assert clustered_mean([], []) == Estimate(value=None, n=0, stderr=None, ci95=None)


def test_one_cluster_has_a_value_but_no_error() -> None:
    assert clustered_mean([1, 0], ["a", "a"]) == Estimate(value=0.5, n=2, stderr=None, ci95=None)


@pytest.mark.parametrize(
    ("n", "t"),
    # Student's t at 97.5 % from a printed table: degrees 1, 4, 30.
    [(2, 12.706), (5, 2.776), (31, 2.042)],
)
def test_where_every_cluster_agrees_the_interval_is_wilsons(n: int, t: float) -> None:
    # Wilson at p = 1: centre + half width = 1, and the lower end is n / (n + t^2); at p = 0 mirrored.
    lower = n / (n + t * t)
    assert clustered_mean([1] * n, range(n)).ci95 == pytest.approx((lower, 1), abs=2e-4)
    assert clustered_mean([0] * n, range(n)).ci95 == pytest.approx((0, 1 - lower), abs=2e-4)


def test_agreement_on_a_number_that_is_not_binary_is_agreement_too() -> None:
    # Wilson at p = 0.1, n = 3, t = 4.303: (0.1 + 3.086) / 7.172 -+ 4.303 * sqrt(0.03 + 0.5143) / 7.172.
    assert clustered_mean([0.1] * 3, range(3)).ci95 == pytest.approx((0.0017, 0.8869), abs=1e-3)


@given(st.lists(st.tuples(st.sampled_from([0, 0.25, 0.5, 1]), st.integers(0, 5)), min_size=1), st.randoms())
def test_the_order_of_items_changes_no_mean(rows: list[tuple[float, int]], rng: random.Random) -> None:
    shuffled = rng.sample(rows, len(rows))
    assert numbers(clustered_mean(*columns(rows))) == pytest.approx(
        numbers(clustered_mean(*columns(shuffled))), abs=1e-9
    )


@given(st.lists(st.tuples(st.sampled_from([0, 0.25, 0.5, 1]), st.integers(0, 5)), min_size=1))
def test_the_names_of_clusters_change_no_mean(rows: list[tuple[float, int]]) -> None:
    values, clusters = columns(rows)
    assert clustered_mean(values, clusters) == clustered_mean(values, [f"seed {-cluster}" for cluster in clusters])


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5)), min_size=1))
def test_an_interval_lies_in_the_unit_interval(rows: list[tuple[float, int]]) -> None:
    found = clustered_mean(*columns(rows))
    if found.ci95:
        assert 0 <= found.ci95[0] <= found.ci95[1] <= 1


def columns(rows: Sequence[tuple[float, int]]) -> tuple[list[float], list[int]]:
    return [value for value, _ in rows], [cluster for _, cluster in rows]


def test_a_missing_cluster_is_an_error() -> None:
    with pytest.raises(ValueError, match="argument"):
        clustered_mean([1, 0, 1], ["a", "b"])


def test_about_95_of_100_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        # Beta(2, 2) has the mean 1/2; five items share each cluster's chance.
        chances = np.repeat(rng.beta(2, 2, size=60), 5)
        found = clustered_mean((rng.random(300) < chances).astype(float).tolist(), np.repeat(np.arange(60), 5).tolist())
        assert found.ci95
        held += found.ci95[0] <= 0.5 <= found.ci95[1]
    # Binomial(400, 0.95) has the standard deviation 4.4: 380 -+ 4 of them.
    assert 362 <= held <= 397


# Ratios.


@pytest.mark.parametrize("seed", range(5))
def test_a_ratio_with_denominators_of_one_is_a_mean(seed: int) -> None:
    _, _, clusters = drawn(seed)
    rng = random.Random(seed)
    values = [float(rng.random() < 0.7) for _ in clusters]
    assert clustered_ratio(values, [1] * len(values), clusters) == clustered_mean(values, clusters)


@pytest.mark.parametrize("seed", range(5))
def test_a_ratio_has_the_error_and_interval_of_a_weighted_cluster_robust_regression(seed: int) -> None:
    numerators, denominators, clusters = drawn(seed)
    # The weighted mean of y = numerator / denominator with the denominators as weights is the ratio of the totals.
    y = np.divide(numerators, denominators)
    model = WLS(y, np.ones(len(y)), weights=denominators)
    oracle = model.fit(cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True)
    found = clustered_ratio(numerators, denominators, clusters)
    assert found.value == pytest.approx(sum(numerators) / sum(denominators))
    assert found.stderr == pytest.approx(oracle.bse[0])
    assert found.ci95 == pytest.approx(tuple(oracle.conf_int(alpha=0.05)[0]))


@pytest.mark.parametrize("seed", range(3))
def test_a_ratios_error_is_about_that_of_the_jackknife_over_clusters(seed: int) -> None:
    numerators, denominators, clusters = drawn(seed, n_clusters=150)
    names = sorted(set(clusters))
    table = np.array([np.array([numerators, denominators])[:, np.equal(clusters, name)].sum(axis=1) for name in names])
    without = (table.sum(axis=0) - table).T
    left_out = without[0] / without[1]
    jackknife = math.sqrt((len(names) - 1) / len(names) * float(np.square(left_out - left_out.mean()).sum()))
    assert clustered_ratio(numerators, denominators, clusters).stderr == pytest.approx(jackknife, rel=0.03)


def test_a_ratio_by_hand() -> None:
    # 4/8. Residuals: 1 - 2 * 0.5 = 0, 3 - 4 * 0.5 = 1, 0 - 2 * 0.5 = -1; squares 2, times 3/2 = 3; sqrt(3) / 8.
    found = clustered_ratio([1, 3, 0], [2, 4, 2], ["a", "b", "c"])
    assert (found.value, found.n) == (0.5, 3)
    assert found.stderr == pytest.approx(math.sqrt(3) / 8)


def test_items_and_clusters_without_a_denominator_do_not_enter() -> None:
    entering = clustered_ratio([1, 3, 0], [2, 4, 2], ["a", "b", "c"])
    assert clustered_ratio([1, 0, 3, 0, 0], [2, 0, 4, 2, 0], ["a", "a", "b", "c", "only here"]) == entering


def test_a_ratio_over_nothing_has_no_value() -> None:
    assert clustered_ratio([0, 0], [0, 0], ["a", "b"]) == Estimate(value=None, n=0, stderr=None, ci95=None)


# Agreement.


def verdicts(both: int, first: int, second: int, neither: int) -> tuple[list[bool], list[bool]]:
    pairs = [(True, True)] * both + [(True, False)] * first + [(False, True)] * second + [(False, False)] * neither
    return [one for one, _ in pairs], [other for _, other in pairs]


@pytest.mark.parametrize(
    ("table", "kappa"),
    [
        # Observed 35/50; yes 25/50 and 30/50; chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5; (0.7 - 0.5) / 0.5.
        ((20, 5, 10, 15), 0.4),
        ((3, 0, 0, 7), 1.0),
        # Observed 0; yes 0.5 and 0.5; chance 0.5.
        ((0, 5, 5, 0), -1.0),
        # Observed 0; chance 1 * 0 + 0 * 1 = 0.
        ((0, 4, 0, 0), 0.0),
        # Observed 1/4; chance 1/4 * 1 + 3/4 * 0.
        ((1, 0, 3, 0), 0.0),
        ((4, 0, 0, 0), None),
        ((0, 0, 0, 4), None),
        ((0, 0, 0, 0), None),
    ],
)
def test_kappa_by_hand(table: tuple[int, int, int, int], kappa: float | None) -> None:
    assert cohen_kappa(*verdicts(*table)) == (kappa if kappa is None else pytest.approx(kappa))


def test_kappa_is_that_of_statsmodels() -> None:
    for both, first, second, neither in product(range(1, 5), repeat=4):
        oracle = cohens_kappa([[both, first], [second, neither]], return_results=True).kappa
        assert cohen_kappa(*verdicts(both, first, second, neither)) == pytest.approx(oracle)
