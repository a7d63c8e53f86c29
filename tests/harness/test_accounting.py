"""What responses cost and whether they ended: numbers added up by hand."""

from collections.abc import Sequence

import pytest

from ahabench.harness import accounting
from ahabench.harness.errors import IncompleteRunError
from ahabench.harness.judged import Judged
from ahabench.harness.metrics import accuracy
from ahabench.harness.stats import clustered_mean
from ahabench.harness.types import AnswerType, Estimate, Item, Response, Result, Status, Verdict


def item(item_id: str) -> Item:
    """An item whose cluster is its id's first letter."""
    return Item(id=item_id, question="?", gold="1", answer_type=AnswerType.INTEGER, group=item_id[0])


def judged(
    item_id: str, right: bool = True, finish_reason: str | None = "stop", sample: int = 0, **of: object
) -> Judged:
    status = Status.CORRECT if right else Status.TRUNCATED if finish_reason == "length" else Status.WRONG
    response = Response(item_id=item_id, sample_index=sample, text="", finish_reason=finish_reason, **of)  # type: ignore[arg-type]
    return Judged.of(response, Verdict(status=status, rule="by hand"))


def pairs(results: Sequence[Result]) -> Estimate:
    """Share of pairs with both items right in all samples; a pair with a hole is refused."""
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(result.item.cluster, []).append(result)
    if any(len(pair) != 2 for pair in found.values()):
        raise IncompleteRunError("a pair has a hole")
    return clustered_mean([min(result.mean for result in pair) for pair in found.values()], list(found))


ITEMS = [item(name) for name in ("a1", "a2", "b1", "b2", "c1", "c2")]


def test_bounds_are_the_score_and_the_score_among_what_ended() -> None:
    cut = [judged("c1", False, "length"), judged("c2", False, "length")]
    rows = [judged("a1"), judged("a2"), judged("b1"), judged("b2", False), *cut]
    score = accuracy(accounting.results_of(ITEMS, rows))
    # 3 of 6 as it stands; 3 of the 4 that ended.
    assert accounting.bounds(score, accuracy, ITEMS, rows) == {"score": 0.5, "finished": 0.75, "n_finished": 4}


def test_a_metric_of_whole_clusters_leaves_out_those_that_did_not_end() -> None:
    rows = [judged(one.id) for one in ITEMS[:3]] + [judged("b2", False), judged("c1"), judged("c2", False, "length")]
    score = pairs(accounting.results_of(ITEMS, rows))
    # a is right, b is not, c did not end: 1 of 3, and 1 of 2.
    assert accounting.bounds(score, pairs, ITEMS, rows) == {
        "score": pytest.approx(1 / 3),
        "finished": 0.5,
        "n_finished": 2,
    }


def test_a_cluster_of_which_one_sample_did_not_end_is_left_out() -> None:
    rows = [judged(one.id, sample=sample) for one in ITEMS[:4] for sample in (0, 1) if (one.id, sample) != ("b2", 1)]
    rows.append(judged("b2", False, "length", sample=1))
    score = pairs(accounting.results_of(ITEMS[:4], rows))
    found = accounting.bounds(score, pairs, ITEMS[:4], rows)
    # By pairs of whole items b has both, and its second item's finished sample is right.
    assert found["score"] == 0.75
    assert found["finished"] == 1.0


def test_a_cluster_with_an_item_that_nobody_answered_is_left_out() -> None:
    # a2 has no response, c1 did not end: b remains, whose pair is not right.
    rows = [judged("a1"), judged("b1"), judged("b2", False), judged("c1", False, "length"), judged("c2")]
    unknown = Estimate(value=None, n=0, stderr=None, ci95=None)
    assert accounting.bounds(unknown, pairs, ITEMS, rows) == {"score": None, "finished": 0.0, "n_finished": 1}


def test_where_everything_ended_both_bounds_are_the_score() -> None:
    rows = [judged("a1"), judged("a2", False, "content_filter")]
    score = accuracy(accounting.results_of(ITEMS, rows))
    assert accounting.bounds(score, accuracy, ITEMS, rows) == {"score": 0.5, "finished": 0.5, "n_finished": 2}


def test_where_nobody_knows_what_ended_the_second_bound_is_unknown() -> None:
    rows = [judged("a1", finish_reason=None), judged("a2", False, "length")]
    score = accuracy(accounting.results_of(ITEMS, rows))
    assert accounting.bounds(score, accuracy, ITEMS, rows) == {"score": 0.5, "finished": None, "n_finished": 0}


def test_finish_reasons_are_counted_by_name() -> None:
    rows = [judged("a1"), judged("a2"), judged("b1", finish_reason="length"), judged("b2", finish_reason=None)]
    assert accounting.finish_reasons(rows) == {"length": 1, "stop": 2, "unknown": 1}


def test_tokens_are_per_item_with_all_its_samples_and_per_correct_response() -> None:
    rows = [
        judged("a1", True, sample=0, prompt_tokens=100, completion_tokens=10),
        judged("a1", False, sample=1, prompt_tokens=100, completion_tokens=30),
        judged("a2", True, sample=0, prompt_tokens=40, completion_tokens=20),
        judged("a2", True, sample=1, prompt_tokens=40, completion_tokens=60),
    ]
    # 280 and 120 tokens of 2 items; 3 correct.
    assert accounting.tokens(rows) == {
        "prompt_per_item": 140.0,
        "completion_per_item": 60.0,
        "completion_per_correct": 40.0,
    }


def test_tokens_are_unknown_where_one_count_is() -> None:
    rows = [judged("a1", completion_tokens=10, prompt_tokens=5), judged("a2", completion_tokens=10)]
    assert accounting.tokens(rows) == {
        "prompt_per_item": None,
        "completion_per_item": 10.0,
        "completion_per_correct": 10.0,
    }


def test_nothing_correct_has_no_cost_per_correct_answer() -> None:
    assert accounting.tokens([judged("a1", False, completion_tokens=10)])["completion_per_correct"] is None


def test_images_are_ordered_by_area() -> None:
    rows = [
        judged("a1", image_sizes=((100, 10), (20, 20))),
        judged("a2", image_sizes=((28, 28),)),
        judged("b1", image_sizes=((1, 500),)),
        judged("b2"),
    ]
    # Areas 1,000, 400, 784 and 500: the lower median of four is the second, 500.
    assert accounting.image_sizes(rows) == {
        "n": 4,
        "unknown": 1,
        "min": [20, 20],
        "median": [1, 500],
        "max": [100, 10],
    }


def test_no_image_shown_is_told_from_no_size_known() -> None:
    assert accounting.image_sizes([judged("a1")]) is None
    assert accounting.image_sizes([judged("a1", image_sizes=())]) == {
        "n": 0,
        "unknown": 0,
        "min": None,
        "median": None,
        "max": None,
    }
