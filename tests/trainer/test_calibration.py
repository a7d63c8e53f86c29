from collections.abc import Sequence

import pytest

from ahabench.harness.types import AnswerType, Item, Status, Verdict
from ahabench.trainer.calibration import FEWEST, Calibration, auc
from ahabench.trainer.data import Kind, TrainItem
from ahabench.trainer.measures import measures
from ahabench.trainer.rewards import Claim, Outcome


class Longest:
    """A scorer that takes the longer answer for the better one."""

    def score(self, claims: Sequence[Claim]) -> list[float | None]:
        return [None if claim.answer == "unread" else float(len(claim.answer)) for claim in claims]


def item(name: str, kind: Kind = Kind.DIGIT) -> TrainItem:
    return TrainItem(
        item=Item(id=name, question="How many?", gold="3", answer_type=AnswerType.INTEGER),
        kind=kind,
        caption="three dots",
    )


def outcome(answer: str, right: bool) -> Outcome:
    status = Status.CORRECT if right else Status.WRONG
    return Outcome(reward=float(right), verdict=Verdict(status=status, extracted=answer, rule="test"))


@pytest.mark.parametrize(
    ("right", "wrong", "wanted"),
    [([2.0], [1.0], 1.0), ([1.0], [2.0], 0.0), ([1.0], [1.0], 0.5), ([3.0, 1.0], [2.0], 0.5), ([], [1.0], None)],
)
def test_auc_is_the_share_of_pairs_in_order(right: list[float], wrong: list[float], wanted: float | None) -> None:
    assert auc(right, wrong) == wanted


def test_answers_are_ranked_within_an_item_only() -> None:
    a, b = item("a"), item("b")
    # Within a: "12" right over "1": 1. Within b: "1" right under "12": 0. Across, b's would win and lose too.
    items = [a, a, b, b]
    outcomes = [outcome("12", True), outcome("1", False), outcome("1", True), outcome("12", False)]
    assert Calibration(Longest()).see(items, outcomes) == {"calibration/auc": 0.5, "calibration/groups": 2.0}


def test_groups_that_all_agree_and_kinds_without_a_rule_are_left_out() -> None:
    a, b = item("a"), item("b", Kind.OPEN_ENDED)
    outcomes = [outcome("1", True), outcome("2", True), outcome("12", True), outcome("1", False)]
    assert Calibration(Longest()).see([a, a, b, b], outcomes) == {}


def test_an_answer_without_a_score_is_left_out() -> None:
    a = item("a")
    outcomes = [outcome("unread", True), outcome("12", True), outcome("1", False)]
    assert Calibration(Longest()).see([a, a, a], outcomes)["calibration/auc"] == 1.0


def run(share_in_order: float) -> Calibration:
    watch = Calibration(Longest())
    n = 2 * FEWEST
    for k in range(n):
        right, wrong = ("12", "1") if k < share_in_order * n else ("1", "12")
        watch.see([item(str(k))] * 2, [outcome(right, True), outcome(wrong, False)])
    return watch


def test_a_scorer_that_guesses_is_warned_of_once(capsys: pytest.CaptureFixture[str]) -> None:
    watch = run(0.5)
    assert watch.estimate().value == 0.5
    assert capsys.readouterr().err.count("not shown to be better than chance") == 1


def test_a_scorer_that_knows_is_not_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(0.9).estimate().value == 0.9
    assert capsys.readouterr().err == ""


def test_lengths_and_truncation_are_logged_by_kind() -> None:
    items = [item("a"), item("a"), item("b", Kind.MCQ)]
    found = measures(items, ["one", "wait, one", "two"], ["stop", "length", "stop"], [2, 6, 3])
    assert (found["length/digit"], found["length/mcq"]) == (4.0, 3.0)
    assert (found["truncated/digit"], found["truncated/mcq"]) == (0.5, 0.0)


def test_repetition_is_the_share_of_word_4_grams_that_came_before() -> None:
    # "a b c d a b c d" has 5 4-grams, of which the last is the first again; the other text has none at all.
    found = measures([item("a"), item("a")], ["a b c d a b c d", "a b"], ["stop", "stop"], [8, 2])
    assert found["repetition"] == pytest.approx((1 / 5 + 0) / 2)


def test_every_published_rule_has_a_curve() -> None:
    from ahabench.harness.aha.lexicon import published_rules

    found = measures([item("a")], ["one"], ["stop"], [1])
    assert {f"aha/rule/{rule.name}" for rule in published_rules()} <= set(found)
    assert measures([], [], [], []) == {}
