"""Metrics as totals by cluster."""

from collections.abc import Sequence

import numpy as np
import pytest

from ahabench.harness.gate.difference import paired_difference
from ahabench.harness.gate.totals import totals_of
from ahabench.harness.metrics import accuracy
from ahabench.harness.stats import clustered_mean
from ahabench.harness.types import AnswerType, Estimate, Item, Result
from ahabench.tasks.dynamath import reasoning_robustness, worst
from ahabench.tasks.wemath import over_problems


def item(name: str, group: str = "", **tags: str) -> Item:
    return Item(
        id=name,
        question="?",
        gold="1",
        answer_type=AnswerType.INTEGER,
        group=group,
        tags={tag: (value,) for tag, value in tags.items()},
    )


def seeds(scores: np.ndarray) -> list[Result]:
    """DynaMath's results: an array of [seeds, variants]."""
    return [
        Result(item=item(f"{seed}_v{variant}", str(seed)), scores=(float(score),))
        for seed, row in enumerate(scores)
        for variant, score in enumerate(row, start=1)
    ]


def problems(scores: Sequence[tuple[int, int, int]]) -> list[Result]:
    """We-Math's results on problems of two steps."""
    keys = ("2steps_1", "2steps_2", "2steps_multi")
    return [
        Result(item=item(f"{number}-{key}", str(number), key=key), scores=(float(score),))
        for number, row in enumerate(scores)
        for key, score in zip(keys, row, strict=True)
    ]


def drawn(seed: int, n_seeds: int = 80) -> list[Result]:
    rng = np.random.default_rng(seed)
    return seeds(rng.random((n_seeds, 10)) < rng.beta(4, 1, size=(n_seeds, 1)))


def test_an_accuracy_counts_items() -> None:
    results = [Result(item=item(name, name[0]), scores=(score,)) for name, score in (("a1", 1), ("a2", 0), ("b1", 1))]
    found = totals_of(accuracy, [results], [results])
    assert found is not None
    assert (found.n, found.clusters, found.on_clusters) == (3, 2, False)
    assert found.a.numerators.tolist() == [[1, 1]]
    assert found.a.denominators.tolist() == [[2, 1]]


def test_the_short_way_for_an_accuracy_is_the_long_one() -> None:
    def same(results: Sequence[Result]) -> Estimate:
        return clustered_mean([result.mean for result in results], [result.item.cluster for result in results])

    a, b = drawn(0), drawn(1)
    short, long = totals_of(accuracy, [a], [b]), totals_of(same, [a], [b])
    assert short is not None
    assert long is not None
    assert (short.n, short.on_clusters, short.additive) == (long.n, long.on_clusters, long.additive)
    for side in "ab":
        np.testing.assert_allclose(getattr(short, side).numerators, getattr(long, side).numerators)
        np.testing.assert_allclose(getattr(short, side).denominators, getattr(long, side).denominators)


def test_a_worst_case_counts_seeds() -> None:
    # Of three seeds the first is right throughout.
    scores = np.array([[1] * 10, [1] * 9 + [0], [0] * 10])
    found = totals_of(worst, [seeds(scores)], [seeds(scores)])
    assert found is not None
    assert (found.n, found.n_items, found.on_clusters, found.additive) == (3, 30, True, True)
    assert found.a.numerators.tolist() == [[1, 0, 0]]


def test_a_score_of_problems_counts_them() -> None:
    # Complete mastery, inadequate generalisation (half), insufficient knowledge.
    found = totals_of(over_problems({"CM": 1, "IG": 0.5}), *[[problems([(1, 1, 1), (1, 1, 0), (0, 1, 0)])]] * 2)
    assert found is not None
    assert found.a.numerators.tolist() == [[1, 0.5, 0]]
    assert found.on_clusters


def test_a_share_among_some_problems_has_their_count_below() -> None:
    # Rote memorisation among composite answers that are right: the last problem does not enter.
    metric = over_problems({"RM": 1}, among=frozenset({"CM", "RM"}))
    found = totals_of(metric, *[[problems([(1, 1, 1), (0, 1, 1), (0, 1, 0)])]] * 2)
    assert found is not None
    assert (found.a.numerators.tolist(), found.a.denominators.tolist()) == ([[0, 1, 0]], [[1, 1, 0]])


def test_a_metric_that_does_not_add_up_has_about_the_error_that_it_says_itself() -> None:
    # A's ratio is 1 whatever is left out, so that all the error is B's.
    perfect, other = seeds(np.ones((80, 10))), drawn(2)
    found = totals_of(reasoning_robustness, [perfect], [other])
    assert found is not None
    assert not found.additive
    difference = paired_difference(found.a, found.b, swing=found.swing)
    expected = reasoning_robustness(other)
    assert difference is not None
    assert expected.value is not None
    assert difference.value == pytest.approx(expected.value - 1)
    assert difference.stderr == pytest.approx(expected.stderr, rel=0.05)


def test_a_metric_without_a_value_has_no_totals() -> None:
    nothing = seeds(np.zeros((5, 10)))
    assert totals_of(reasoning_robustness, [nothing], [nothing]) is None


def test_every_run_has_a_row() -> None:
    found = totals_of(worst, [drawn(0), drawn(1)], [drawn(2)])
    assert found is not None
    assert (found.a.runs, found.b.runs) == (2, 1)
    assert found.a.numerators.sum(axis=1) / 80 == pytest.approx([worst(drawn(0)).value, worst(drawn(1)).value])
