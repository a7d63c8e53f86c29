"""Metrics against enumeration and by hand."""

import random
from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahabench.harness.metrics import accuracy, by_tag, clusters, majority, pass_at, sampled_metrics
from ahabench.harness.types import AnswerType, Item, Result

ANSWERS = (None, "A", "B", "C")


def item(name: str = "1", *, group: str = "", tags: dict[str, tuple[str, ...]] | None = None) -> Item:
    return Item(id=name, question="?", gold="A", answer_type=AnswerType.CHOICE, group=group, tags=tags or {})


def result(*scores: float, answers: tuple[str | None, ...] = (), name: str = "1", group: str = "") -> Result:
    return Result(item=item(name, group=group), scores=scores, answers=answers)


def voted(*answers: str | None) -> Result:
    """Return samples of which "A" is right."""
    return result(*(float(answer == "A") for answer in answers), answers=answers)


# Accuracy.


def test_accuracy_averages_the_samples_of_an_item_before_the_items() -> None:
    # (1/4 + 1) / 2, though 2 of 5 samples are right.
    assert accuracy([result(1, 0, 0, 0), result(1, name="2")]).value == 0.625


def test_accuracy_counts_items_and_clusters_their_error() -> None:
    found = accuracy([result(0, name="1", group="g"), result(1, name="2", group="g"), result(1, name="3")])
    # Mean 2/3; residuals by cluster -2/3 + 1/3 and 1/3; squares 2/9, times 2, root 2/3, over 3.
    assert found.n == 3
    assert found.stderr == pytest.approx(2 / 9)


def test_accuracy_of_nothing_has_no_value() -> None:
    assert accuracy([]).value is None


def test_an_item_without_a_group_is_its_own_cluster() -> None:
    assert clusters([result(1, name="1", group="g"), result(1, name="2")]) == ["g", "2"]


# pass@k.


@pytest.mark.parametrize("n", range(1, 7))
def test_pass_at_k_is_the_share_of_k_subsets_with_a_right_sample(n: int) -> None:
    for scores in product((0.0, 1.0), repeat=n):
        for k in range(1, n + 1):
            subsets = list(combinations(scores, k))
            share = sum(any(subset) for subset in subsets) / len(subsets)
            assert pass_at(k)([result(*scores)]).value == pytest.approx(share)


def test_pass_at_1_is_the_average() -> None:
    results = [result(1, 0, 0), result(1, 1, 0, name="2")]
    assert pass_at(1)(results).value == accuracy(results).value == 0.5


def test_pass_at_k_averages_over_items() -> None:
    # 1 of 4 right: 1 - C(3,2)/C(4,2) = 1/2. None right: 0.
    assert pass_at(2)([result(1, 0, 0, 0), result(0, 0, 0, 0, name="2")]).value == 0.25


# maj@k.


@pytest.mark.parametrize(
    ("answers", "share"),
    [
        (("A", "A", "B"), 1),
        (("A", "B", "B"), 0),
        (("A", "A", "B", "B"), 1 / 2),
        (("B", "B", "A", "A", "C"), 1 / 2),
        (("A", "B", "C"), 1 / 3),
        (("B", "B", "C", "C"), 0),
        ((None, None, None, "A"), 1),
        ((None, "A", "B"), 1 / 2),
        ((None, None), 0),
        (("A",), 1),
    ],
)
def test_the_most_frequent_answer_counts_and_tied_ones_share(answers: tuple[str | None, ...], share: float) -> None:
    assert majority([voted(*answers)]).value == pytest.approx(share)


@given(st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=8), st.randoms())
def test_the_order_of_samples_changes_no_metric(answers: list[str | None], rng: random.Random) -> None:
    one, other = voted(*answers), voted(*rng.sample(answers, len(answers)))
    for metric in (accuracy, majority, *(pass_at(k) for k in range(1, len(answers) + 1))):
        assert metric([one]).value == pytest.approx(metric([other]).value)


@given(st.lists(st.tuples(st.tuples(*[st.sampled_from(ANSWERS)] * 4), st.integers(0, 3)), min_size=1), st.randoms())
def test_the_order_of_items_changes_no_metric(
    rows: list[tuple[tuple[str | None, ...], int]], rng: random.Random
) -> None:
    results = [
        Result(item=item(str(n), group=f"g{group}"), scores=voted(*answers).scores, answers=answers)
        for n, (answers, group) in enumerate(rows)
    ]
    shuffled = rng.sample(results, len(results))
    for metric in (accuracy, pass_at(2), pass_at(4), majority):
        one, other = metric(results), metric(shuffled)
        assert one.n == other.n
        assert one.value == pytest.approx(other.value)
        assert one.stderr == pytest.approx(other.stderr, abs=1e-9)


def test_the_order_of_samples_does_not_matter_where_one_answer_has_two_scores() -> None:
    one = result(1, 0, answers=("A", "A"))
    other = result(0, 1, answers=("A", "A"))
    assert majority([one]).value == majority([other]).value


# Names and breakdowns.


def test_one_sample_adds_no_metric() -> None:
    assert sampled_metrics(1, accuracy) == {}


@pytest.mark.parametrize(
    ("n", "names"),
    [
        (2, ["avg@2", "pass@2", "maj@2"]),
        (5, ["avg@5", "pass@2", "pass@4", "pass@5", "maj@5"]),
        (8, ["avg@8", "pass@2", "pass@4", "pass@8", "maj@8"]),
    ],
)
def test_several_samples_add_metrics_that_are_named_by_their_number(n: int, names: list[str]) -> None:
    assert list(sampled_metrics(n, accuracy)) == names


def test_each_named_metric_is_what_its_name_says() -> None:
    found = sampled_metrics(4, accuracy)
    results = [voted("A", "B", "B", None)]
    # Average 1/4; pairs with the right one 3 of 6; B wins the vote.
    values = {name: metric(results).value for name, metric in found.items()}
    assert values == pytest.approx({"avg@4": 0.25, "pass@2": 0.5, "pass@4": 1, "maj@4": 0})


def test_an_item_stands_under_each_of_its_values_in_sorted_order() -> None:
    both = Result(item=item("1", tags={"skill": ("logic", "arithmetic")}), scores=(1,))
    one = Result(item=item("2", tags={"skill": ("logic",), "level": ("3",)}), scores=(0,))
    none = Result(item=item("3"), scores=(0,))
    assert list(by_tag([both, one, none], "skill").items()) == [("arithmetic", [both]), ("logic", [both, one])]
    assert by_tag([both, one, none], "level") == {"3": [one]}
