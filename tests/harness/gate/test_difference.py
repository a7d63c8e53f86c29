"""Paired differences against statsmodels and scipy, and by hand."""

import math
import random
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_of_statsmodels
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from ahabench.harness.gate.difference import (
    Totals,
    clusters_to_decide,
    holm,
    mcnemar,
    mcnemar_worse,
    paired_difference,
    wilson_clusters,
)
from ahabench.harness.gate.power import MOST
from ahabench.harness.stats import clustered_mean


def totals(runs: list[list[float]], sizes: list[float] | None = None) -> Totals:
    """Numerators by run and cluster; each cluster has as many items as `sizes` says, one without it."""
    numerators = np.array(runs, float)
    weights = np.array(sizes, float) if sizes else np.ones(numerators.shape[1])
    return Totals(numerators=numerators, denominators=np.broadcast_to(weights, numerators.shape).copy())


def drawn(seed: int, n_clusters: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right and wrong of two sides on items of clusters of 1 to 6: (a, b, cluster of each item)."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 7, size=n_clusters)
    clusters = np.repeat(np.arange(n_clusters), sizes)
    chance = rng.beta(1, 1, size=n_clusters)[clusters]
    return (rng.random(len(clusters)) < chance) * 1.0, (rng.random(len(clusters)) < chance) * 1.0, clusters


def by_cluster(values: np.ndarray, clusters: np.ndarray) -> Totals:
    sizes = np.bincount(clusters).astype(float)
    return totals([np.bincount(clusters, weights=values).tolist()], sizes.tolist())


def found(a: Totals, b: Totals, **options: Any) -> Any:
    difference = paired_difference(a, b, **options)
    assert difference is not None
    return difference


@pytest.mark.parametrize("seed", range(20))
def test_the_error_is_that_of_a_cluster_robust_regression_of_the_differences(seed: int) -> None:
    a, b, clusters = drawn(seed)
    oracle = sm.OLS(b - a, np.ones(len(a))).fit(cov_type="cluster", cov_kwds={"groups": clusters})
    difference = found(by_cluster(a, clusters), by_cluster(b, clusters))
    assert difference.value == pytest.approx(oracle.params[0], abs=1e-9)
    assert difference.stderr == pytest.approx(oracle.bse[0], abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_without_the_adjustment_the_interval_is_that_of_the_cluster_robust_regression(seed: int) -> None:
    a, b, clusters = drawn(seed)
    oracle = sm.OLS(b - a, np.ones(len(a))).fit(cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True)
    difference = found(by_cluster(a, clusters), by_cluster(b, clusters), swing=0, alpha=0.025)
    assert difference.ci95 == pytest.approx(tuple(oracle.conf_int(alpha=0.05)[0]), abs=1e-9)
    assert (difference.lower, difference.upper) == pytest.approx(difference.ci95, abs=1e-12)
    assert difference.p == pytest.approx(oracle.pvalues[0], abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_with_single_items_and_no_adjustment_it_is_the_paired_t_test(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.random((2, 200)) < [[0.6], [0.5]]) * 1.0
    oracle = stats.ttest_rel(b, a)
    difference = found(totals([a.tolist()]), totals([b.tolist()]), swing=0)
    assert difference.p == pytest.approx(oracle.pvalue, abs=1e-9)
    assert difference.p_worse == pytest.approx(stats.ttest_rel(b, a, alternative="less").pvalue, abs=1e-9)


def test_a_difference_by_hand() -> None:
    # b - a = 0, 1, 1, -1 and mean 1/4; squares about it 1/16 + 9/16 + 9/16 + 25/16 = 44/16; 4/3 * 44/16 / 16.
    difference = found(totals([[1, 0, 0, 1]]), totals([[1, 1, 1, 0]]))
    assert (difference.a, difference.b, difference.value) == (0.5, 0.75, 0.25)
    assert difference.stderr == pytest.approx(math.sqrt(4 / 3 * 44 / 16 / 16))


def test_two_runs_that_agree_on_everything_still_have_an_interval() -> None:
    same = totals([[1.0] * 200 + [0.0] * 100])
    # Two halves of a cluster at +1 and -1 of 302: squares 1, variance 302/301 / 302²; Student's t with 299 degrees.
    half = 1.96793 * math.sqrt(302 / 301) / 302
    difference = found(same, same)
    assert (difference.value, difference.stderr) == (0, 0)
    assert difference.ci95 == pytest.approx((-half, half), rel=1e-4)


def test_the_interval_is_agresti_and_mins_but_for_students_t() -> None:
    # 4 fixed and 10 broken of 100. Their adjustment: half an item in each cell, so 4.5 and 10.5 of 102.
    a, b = [0.0] * 4 + [1.0] * 10 + [1.0] * 86, [1.0] * 4 + [0.0] * 10 + [1.0] * 86
    centre = (4.5 - 10.5) / 102
    wald = math.sqrt((4.5 + 10.5) / 102 - centre**2) / math.sqrt(101)
    t = stats.t.ppf(0.975, 99)
    assert found(totals([a]), totals([b])).ci95 == pytest.approx((centre - t * wald, centre + t * wald), abs=1e-9)


def test_fewer_than_two_clusters_have_no_difference() -> None:
    assert paired_difference(totals([[3]], [5]), totals([[2]], [5])) is None


def test_an_undefined_score_has_no_difference() -> None:
    assert paired_difference(totals([[0, 0]], [0, 0]), totals([[1, 1]], [1, 1])) is None


@pytest.mark.parametrize("seed", range(3))
def test_the_bootstrap_is_that_of_whole_clusters(seed: int) -> None:
    a, b, clusters = drawn(seed, n_clusters=40)
    first, second = by_cluster(a, clusters), by_cluster(b, clusters)
    rng = np.random.default_rng(1_000 + seed)
    naive = []
    for _ in range(4_000):
        chosen = rng.integers(0, 40, size=40)
        n = first.denominators[0, chosen].sum()
        naive.append((second.numerators[0, chosen].sum() - first.numerators[0, chosen].sum()) / n)
    low, high = np.quantile(naive, [0.025, 0.975])
    difference = found(first, second, bootstrap=True, swing=0)
    assert difference.method == "cluster bootstrap"
    # A quantile of 4,000 draws has an error of about sqrt(0.025 * 0.975 / 4000) / density: 0.07 standard errors.
    assert difference.ci95 == pytest.approx((low, high), abs=0.3 * difference.stderr)


def test_the_bootstrap_repeats_itself() -> None:
    a, b, clusters = drawn(0)
    pair = by_cluster(a, clusters), by_cluster(b, clusters)
    assert found(*pair, bootstrap=True) == found(*pair, bootstrap=True)


@pytest.mark.parametrize("bootstrap", [False, True])
def test_swapping_the_sides_turns_the_interval_round(bootstrap: bool) -> None:
    a, b, clusters = drawn(3)
    there = found(by_cluster(a, clusters), by_cluster(b, clusters), bootstrap=bootstrap)
    back = found(by_cluster(b, clusters), by_cluster(a, clusters), bootstrap=bootstrap)
    assert back.value == pytest.approx(-there.value)
    assert back.stderr == pytest.approx(there.stderr)
    assert back.ci95 == pytest.approx((-there.ci95[1], -there.ci95[0]), abs=0.2 * there.stderr if bootstrap else 1e-12)


# Several runs a side.


def test_runs_that_say_the_same_are_one_run() -> None:
    a, b, clusters = drawn(1)
    one, other = by_cluster(a, clusters), by_cluster(b, clusters)
    twice = Totals(numerators=np.vstack([other.numerators] * 2), denominators=np.vstack([other.denominators] * 2))
    single, double = found(one, other), found(one, twice)
    assert double.stderr_runs == 0
    assert (double.value, double.stderr) == pytest.approx((single.value, single.stderr))


def test_the_spread_between_runs_enters_the_error() -> None:
    # B's runs score 0.4 and 0.6 by the same 0.2 on every cluster: variance 0.02 between runs, nothing left to luck.
    a = totals([[0.5] * 10, [0.5] * 10])
    b = totals([[0.4] * 10, [0.6] * 10])
    assert found(a, b).stderr_runs == pytest.approx(math.sqrt(0.02 / 2))


def test_a_side_with_one_run_is_taken_to_spread_as_the_other_does() -> None:
    a, b = totals([[0.5] * 10]), totals([[0.4] * 10, [0.6] * 10])
    assert found(a, b).stderr_runs == pytest.approx(math.sqrt(0.02 / 1 + 0.02 / 2))


def test_few_runs_that_differ_widen_the_interval_more_than_the_error() -> None:
    # One degree of freedom on each side: Satterthwaite's is at most 2, whose t is 4.3 or more.
    a = totals([[0.45] * 10, [0.55] * 10])
    b = totals([[0.4] * 10, [0.6] * 10])
    difference = found(a, b, swing=0)
    assert (difference.ci95[1] - difference.ci95[0]) / 2 >= 4.3 * difference.stderr


def test_luck_of_each_run_is_not_counted_twice() -> None:
    # Runs of one checkpoint: their scores differ only as independent items do, so next to no spread is left.
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(200):
        a, b = (totals((rng.random((4, 300)) < 0.5).astype(float).tolist()) for _ in range(2))
        difference = found(a, b)
        shares.append(difference.stderr_runs**2 / difference.stderr**2)
    assert np.mean(shares) < 0.25


# What would decide.


def matched(fixed: int, broken: int, n: int) -> tuple[Totals, Totals]:
    """Both sides over n single items."""
    same = n - fixed - broken
    return totals([[0.0] * fixed + [1.0] * (broken + same)]), totals([[1.0] * fixed + [0.0] * broken + [1.0] * same])


def decided_by_formula(fixed: Any, broken: Any, n: int, margin: float) -> Any:
    """Whether Agresti and Min's bounds with Student's t lie on one side of -margin, worked out apart from the code."""
    centre = (fixed - broken) / (n + 2)
    # At 0 where an array holds counts above n, which have no chance.
    width = stats.t.ppf(0.95, n - 1) * np.sqrt(np.maximum((fixed + broken + 1) / (n + 2) - centre**2, 0) / (n + 1))
    return (centre - width > -margin) | (centre + width < -margin)


def decided_by_the_rule(a: Totals, b: Totals, margin: float, **options: Any) -> bool:
    difference = found(a, b, **options)
    return bool(difference.lower > -margin or difference.upper < -margin)


def test_items_that_all_agree_need_the_first_number_that_decides() -> None:
    first = next(n for n in range(12, 1_000) if decided_by_formula(0, 0, n, 0.02))
    assert 80 < first < 90
    assert clusters_to_decide(*matched(0, 0, 12), margin=0.02) == first


@pytest.mark.parametrize("bootstrap", [False, True])
@pytest.mark.parametrize("margin", [0.01, 0.02, 0.05])
def test_what_is_needed_where_all_agree_is_what_the_rule_decides_on(bootstrap: bool, margin: float) -> None:
    needed = clusters_to_decide(*matched(0, 0, 12), margin=margin, bootstrap=bootstrap)
    assert needed is not None
    assert decided_by_the_rule(*matched(0, 0, needed), margin, bootstrap=bootstrap)
    assert not decided_by_the_rule(*matched(0, 0, needed - 1), margin, bootstrap=bootstrap)


ALPHA = 0.05
WILSON = {"alpha": ALPHA, "added": wilson_clusters(ALPHA)}


def test_items_that_all_agree_pass_a_margin_only_where_a_drop_that_large_would_have_shown() -> None:
    # Wilson's lower bound of a share that was never seen is z² / (n + z²): 2 % at n = 132.6. Student's t asks for more.
    z2 = stats.norm.ppf(1 - ALPHA) ** 2
    assert 0.98 * z2 / 0.02 == pytest.approx(132.6, abs=0.1)
    assert not decided_by_the_rule(*matched(0, 0, 132), 0.02, **WILSON)
    assert decided_by_the_rule(*matched(0, 0, 135), 0.02, **WILSON)
    assert clusters_to_decide(*matched(0, 0, 12), margin=0.02, **WILSON) in {133, 134, 135}


@pytest.mark.parametrize("n", [100, 120, 304, 447, 1_000])
@pytest.mark.parametrize("fixed_per_broken", [0, 0.2])
def test_few_flips_do_not_pass_a_drop_of_the_margin_too_often(n: int, fixed_per_broken: float) -> None:
    # Of n items the net drop is 2 %; the chance of each number of flips is worked out, none is drawn.
    broken = 0.02 / (1 - fixed_per_broken)
    chances = [broken * fixed_per_broken, broken, 1 - broken * (1 + fixed_per_broken)]

    def passed(**options: float) -> float:
        chance_to_pass = 0.0
        for more in range(25 if fixed_per_broken else 1):
            for less in range(60):
                chance = stats.multinomial.pmf([more, less, n - more - less], n, chances)
                if chance > 1e-6 and found(*matched(more, less, n), **options).lower > -0.02:
                    chance_to_pass += chance
        return chance_to_pass

    assert passed(**WILSON) <= 0.07
    if n == 100 and not fixed_per_broken:
        assert passed() > 0.13


@pytest.mark.parametrize("bootstrap", [False, True])
def test_few_clusters_reach_no_further_than_a_difference_can(bootstrap: bool) -> None:
    wide = found(*matched(0, 2, 2), bootstrap=bootstrap, **WILSON)
    cut = wide.within(1)
    ends = [*cut.ci95, cut.lower, cut.upper]
    assert [min(1, max(-1, end)) for end in (*wide.ci95, wide.lower, wide.upper)] == ends
    assert (cut.value, cut.p, -1 in ends) == (-1, wide.p, True)


UNDECIDED = [(0, 3, 40), (3, 3, 40), (1, 2, 30), (2, 9, 60), (5, 2, 60), (0, 1, 12)]
"""Fixed and broken of n, at a margin of 5 points."""


@pytest.mark.parametrize(("fixed", "broken", "n"), UNDECIDED)
def test_without_power_it_is_where_such_data_decide_at_all(fixed: int, broken: int, n: int) -> None:
    needed = clusters_to_decide(*matched(fixed, broken, n), margin=0.05, power=0.5)
    assert needed is not None
    for times in range(1, 2 * needed // n + 2):
        data = matched(times * fixed, times * broken, times * n)
        assert decided_by_the_rule(*data, 0.05) == (times * n >= needed), times


@pytest.mark.parametrize(("fixed", "broken", "n"), UNDECIDED)
def test_what_is_needed_decides_four_times_of_five(fixed: int, broken: int, n: int) -> None:
    needed = clusters_to_decide(*matched(fixed, broken, n), margin=0.05)
    assert needed is not None
    more, less = np.meshgrid(np.arange(300), np.arange(300), indexing="ij")
    chances = stats.multinomial.pmf(
        np.stack([more, less, needed - more - less], axis=-1), needed, [fixed / n, broken / n, 1 - (fixed + broken) / n]
    )
    assert chances.sum() == pytest.approx(1, abs=1e-6)
    # Normal, of counts that are whole and whose spread moves with them.
    assert chances[decided_by_formula(more, less, needed, 0.05)].sum() == pytest.approx(0.8, abs=0.05)


def test_a_gap_of_nothing_is_never_decided() -> None:
    assert clusters_to_decide(*matched(0, 5, 100), margin=0.05) == MOST


def test_more_clusters_do_not_help_where_the_runs_differ_too_much() -> None:
    a, b = totals([[0.45] * 10, [0.55] * 10]), totals([[0.4] * 10, [0.6] * 10])
    assert clusters_to_decide(a, b, margin=0.05) is None


# Tests of counts.


@pytest.mark.parametrize("seed", range(30))
def test_mcnemar_is_that_of_statsmodels(seed: int) -> None:
    rng = random.Random(seed)
    fixed, broken = rng.randrange(0, 60), rng.randrange(1, 60)
    oracle = mcnemar_of_statsmodels([[5, broken], [fixed, 7]], exact=True)
    assert mcnemar(fixed, broken) == pytest.approx(min(1.0, oracle.pvalue), abs=1e-9)


@pytest.mark.parametrize(
    ("fixed", "broken", "p"),
    # Tails of coin tosses: 1/8 of all three broken; (1 + 3)/8 of at least two of three; always at least none.
    [(0, 3, 1 / 8), (1, 2, 4 / 8), (3, 0, 1.0), (0, 0, 1.0)],
)
def test_the_one_sided_p_by_hand(fixed: int, broken: int, p: float) -> None:
    assert mcnemar_worse(fixed, broken) == pytest.approx(p)


@pytest.mark.parametrize("seed", range(20))
def test_holm_is_that_of_statsmodels(seed: int) -> None:
    values = np.random.default_rng(seed).random(1 + seed % 7) ** 3
    assert holm(values.tolist()) == pytest.approx(multipletests(values, method="holm")[1].tolist(), abs=1e-9)


def test_nothing_is_adjusted_to_nothing() -> None:
    assert holm([]) == []


@pytest.mark.parametrize("right", [0, 1])
@pytest.mark.parametrize("n", [2, 5, 30, 400])
def test_wilson_is_that_of_statsmodels_at_the_level_of_students_t(n: int, right: int) -> None:
    level = 2 * stats.norm.sf(stats.t.ppf(0.975, n - 1))
    oracle = proportion_confint(right * n, n, alpha=level, method="wilson")
    assert clustered_mean([float(right)] * n, range(n)).ci95 == pytest.approx(oracle, abs=1e-9)
