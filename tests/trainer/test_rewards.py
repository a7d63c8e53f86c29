import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahabench.harness.answers import robust, symbolic
from ahabench.harness.types import Response, Status
from ahabench.trainer.data import Kind, TrainItem, to_train_item
from ahabench.trainer.rewards import (
    BETA,
    Claim,
    MixedReward,
    length_reward,
    only_answer,
    relative_reward,
    repetition_reward,
)

OPTIONS = "Find angle B.\nChoices:\nA: 27°\nB: 30°\nC: 45°\nD: 60°"


def item(kind: str, gold: object, question: str = "What?", **more: Any) -> TrainItem:
    row = {"id": f"{kind}-1", "question": question, "gt": gold, "verifier_type": kind} | more
    return to_train_item(row, where="test")


DIGIT = item("digit", 4)
MCQ = item("mcq", "D", OPTIONS)
MATH = item("math", "Step 1\n†Answer: y = 2x+1")
BOX = item("iou", "[0.1, 0.2, 0.7, 0.5]", meta={"box_units": "normalised"})
OPEN = item("open_ended", "He rides a bike.", caption="A man rides a bike.")


class WordCount:
    """A scorer whose scores can be counted by hand: an answer's number of words."""

    def score(self, claims: Sequence[Claim]) -> list[float | None]:
        return [float(len(claim.answer.split())) for claim in claims]


class Fixed:
    def __init__(self, *scores: float | None) -> None:
        self.scores = list(scores)

    def score(self, claims: Sequence[Claim]) -> list[float | None]:
        return self.scores


def reward(of: TrainItem, answer: str, **settings: Any) -> float | None:
    return MixedReward(**settings)(of, f"<think>well</think><answer>{answer}</answer>")


@pytest.mark.parametrize(
    ("of", "answer"),
    [
        (DIGIT, "4"),
        (DIGIT, "4.0"),
        (DIGIT, "four"),
        (DIGIT, "There are 4 cubes."),
        (MCQ, "D"),
        (MCQ, "D: 60°"),
        (MCQ, "(d)"),
        (MCQ, "60°"),
        (MCQ, "\\boxed{D}"),
        (MCQ, "The answer is D."),
        (MATH, "y = 2x+1"),
        (MATH, "$y=1+2x$"),
        (MATH, "\\boxed{2x + 1}"),
        (BOX, "[0.1, 0.2, 0.7, 0.5]"),
    ],
)
def test_a_right_answer_earns_one(of: TrainItem, answer: str) -> None:
    assert reward(of, answer) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("of", "answer"),
    [
        (DIGIT, "5"),
        (DIGIT, "4 or 5"),
        (DIGIT, "3, 4, 5"),
        (DIGIT, "-4"),
        (DIGIT, "many"),
        (MCQ, "A"),
        (MCQ, "A or D"),
        (MCQ, "A, B, C, D"),
        (MCQ, "E"),
        (MCQ, "not D"),
        (MATH, "y = 2x"),
        (MATH, "y = 2x+1 or y = 3x"),
        (BOX, "[0.8, 0.6, 0.9, 0.9]"),
        (BOX, "the upper left"),
        (BOX, "[10, 20, 70, 50]"),
        (BOX, "[0.1, 0.2, 0.7, 0.5] or [0, 0, 1, 1]"),
    ],
)
def test_a_wrong_or_hedged_answer_earns_nothing(of: TrainItem, answer: str) -> None:
    assert reward(of, answer) == 0.0


def test_a_box_earns_its_overlap() -> None:
    # [0.1, 0.2, 0.4, 0.5] is the left half of the gold.
    assert reward(BOX, "[0.1, 0.2, 0.4, 0.5]") == pytest.approx(0.5)


def test_a_box_in_thousandths_is_compared_with_a_normalised_gold_where_both_are_declared() -> None:
    mixed = item("iou", "[0.1, 0.2, 0.7, 0.5]", meta={"box_units": "normalised", "answer_units": "0-1000"})
    assert reward(mixed, "[100, 200, 700, 500]") == pytest.approx(1.0)
    assert reward(BOX, "[100, 200, 700, 500]") == 0.0


def test_a_pixel_box_is_compared_by_the_declared_image_size() -> None:
    meta = {"box_units": "pixel", "answer_units": "normalised", "image_size": [640, 480]}
    pixels = item("iou", "[64, 96, 448, 240]", meta=meta)
    # 64/640, 96/480, 448/640, 240/480
    assert reward(pixels, "[0.1, 0.2, 0.7, 0.5]") == pytest.approx(1.0)


@pytest.mark.parametrize(
    "completion",
    [
        "4",
        "The answer is 4.",
        "<think>2 + 2</think> 4",
        "<answer>4",
        "4</answer>",
        "</answer>4<answer>",
        "<answer></answer>",
        "<answer> \n </answer>",
        "<answer>4</answer><answer>4</answer>",
        "<answer>4</answer> no, <answer>5</answer>",
        "<answer><answer>4</answer>",
        "<ANSWER>4</ANSWER>",
        "",
    ],
)
def test_without_exactly_one_answer_every_kind_earns_nothing(completion: str) -> None:
    assert only_answer(completion) is None
    rewards = MixedReward(scorer=WordCount())
    for of in (DIGIT, MCQ, MATH, BOX, OPEN):
        outcome = rewards.judge([of], [completion])[0]
        assert (outcome.reward, outcome.verdict.status) == (0.0, Status.NO_ANSWER)


def test_thinking_is_not_needed_for_an_answer() -> None:
    assert MixedReward()(DIGIT, "<answer>4</answer>") == 1.0


def test_the_thinking_is_not_read() -> None:
    assert MixedReward()(DIGIT, "<think>the answer is 4, \\boxed{4}</think><answer>5</answer>") == 0.0


def test_an_open_answer_earns_by_its_margin_over_the_reference() -> None:
    # The reference has 4 words. 6 words: 1 - exp(-0.2 * 2); 4 or fewer: 0.
    scored = MixedReward(scorer=WordCount())
    answers = ["one two three four five six", "one two three four", "one"]
    outcomes = scored.judge([OPEN] * 3, [f"<answer>{answer}</answer>" for answer in answers])
    assert [outcome.reward for outcome in outcomes] == [pytest.approx(1 - math.exp(-0.4)), 0.0, 0.0]


def test_the_default_beta_is_that_of_the_formula_s_origin() -> None:
    assert BETA == 0.2
    # A five-point margin: 1 - 1/e.
    assert relative_reward(5.0) == pytest.approx(0.632120558829)


def test_beta_steepens_the_open_reward() -> None:
    assert reward(OPEN, "a b c d e", scorer=WordCount(), beta=1.0) == pytest.approx(1 - math.exp(-1))
    with pytest.raises(ValueError, match="beta"):
        MixedReward(beta=0.0)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 10))
def test_the_open_reward_stays_between_nothing_and_one(margin: float, beta: float) -> None:
    value = relative_reward(margin, beta)
    assert 0.0 <= value <= 1.0
    assert (value > 0) == (margin > 0) or 0 < margin < 1e-300


@pytest.mark.parametrize("scores", [(None, 1.0), (1.0, None), (float("nan"), 1.0), (float("inf"), 1.0)])
def test_an_answer_that_could_not_be_scored_is_masked_and_not_zero(scores: tuple[float | None, float | None]) -> None:
    outcome = MixedReward(scorer=Fixed(*scores)).judge([OPEN], ["<answer>a bike</answer>"])[0]
    assert (outcome.reward, outcome.verdict.status) == (None, Status.ERROR)


def test_open_items_without_a_scorer_are_masked() -> None:
    assert reward(OPEN, "a bike") is None


def test_items_of_a_kind_that_is_not_rewarded_are_masked() -> None:
    only_digits = MixedReward(kinds=frozenset({Kind.DIGIT}))
    assert only_digits(DIGIT, "<answer>4</answer>") == 1.0
    assert only_digits(MCQ, "<answer>D</answer>") is None


def test_a_comparison_that_timed_out_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    # No time at all for computer algebra, which these two want.
    monkeypatch.setattr(symbolic, "DEADLINE_S", 0.0)
    symbolic._compared.cache_clear()
    slow = item("math", "\\frac{x^2-1}{x-1}")
    outcome = MixedReward().judge([slow], ["<answer>\\sqrt{x^2+2x+1}</answer>"])[0]
    symbolic._compared.cache_clear()
    assert (outcome.reward, outcome.verdict.status) == (None, Status.TIMEOUT)


def test_a_batch_keeps_its_order_whatever_the_kinds() -> None:
    items = [OPEN, DIGIT, BOX, OPEN, MCQ, MATH]
    answers = ["a b c d e f", "5", "[0.1, 0.2, 0.4, 0.5]", "short", "D", "2x+1"]
    outcomes = MixedReward(scorer=WordCount()).judge(items, [f"<answer>{answer}</answer>" for answer in answers])
    expected = [1 - math.exp(-0.4), 0.0, 0.5, 0.0, 1.0, 1.0]
    assert [outcome.reward for outcome in outcomes] == pytest.approx(expected)


def test_the_rule_of_a_verdict_begins_with_the_kind() -> None:
    outcomes = MixedReward(scorer=WordCount()).judge(
        [DIGIT, BOX, OPEN], ["<answer>4</answer>", "<answer>[0.1, 0.2, 0.4, 0.5]</answer>", "<answer>a b</answer>"]
    )
    assert [outcome.verdict.rule for outcome in outcomes] == ["digit/integer", "iou/0.5", "open_ended/-2"]


def test_a_long_completion_earns_less_length_reward() -> None:
    shorter = length_reward(lambda text: len(text.split()), free_tokens=2, max_tokens=6)
    values = [shorter(DIGIT, " ".join(["word"] * words)) for words in (0, 2, 3, 4, 6, 9)]
    # Down from 1 at 2 words to 0 at 6: a quarter per word.
    assert values == pytest.approx([1.0, 1.0, 0.75, 0.5, 0.0, 0.0])


def test_a_repetitive_completion_earns_the_share_of_new_word_runs() -> None:
    # "a b a b a": pairs ab ba ab ba, of which two are new.
    assert repetition_reward(2)(DIGIT, "a b a b a") == pytest.approx(0.5)
    assert repetition_reward(2)(DIGIT, "a b c d") == 1.0
    assert repetition_reward(2)(DIGIT, "a") == 1.0


def test_extras_are_weighted_and_added_to_what_was_answered() -> None:
    extras = {"repetition": (repetition_reward(1), 0.5)}
    # "<answer>4</answer> ha ha ha": two of four words are new, so 1 + 0.5 * 0.5.
    assert MixedReward(extras=extras)(DIGIT, "<answer>4</answer> ha ha ha") == pytest.approx(1.25)


def test_extras_pay_neither_without_an_answer_nor_where_the_reward_is_unknown() -> None:
    rewards = MixedReward(extras={"repetition": (repetition_reward(), 1.0)})
    assert rewards(DIGIT, "no tags here") == 0.0
    assert rewards(OPEN, "<answer>a bike</answer>") is None


@pytest.mark.parametrize("of", [DIGIT, MCQ, MATH], ids=lambda of: of.kind.value)
@given(
    st.sampled_from(["4", "D", "60°", "2x + 1"]),
    st.sampled_from(["{}", "\\boxed{{{}}}", "The answer is ${}$.", "{} or 5"]),
)
def test_what_is_paid_is_what_a_benchmark_would_score(of: TrainItem, gold: str, form: str) -> None:
    completion = f"<think>well</think><answer>{form.format(gold)}</answer>"
    verdict = robust.read(of.item, Response(item_id=of.item.id, text=completion, finish_reason="stop"))
    assert MixedReward()(of, completion) == float(verdict.correct)


@given(st.text(max_size=300))
def test_any_text_earns_between_nothing_and_one(answer: str) -> None:
    for of in (DIGIT, MCQ, BOX):
        value = reward(of, answer)
        assert value is not None
        assert 0.0 <= value <= 1.0
