"""MathVista's two sets of published rules, on hand-made cases and on published outputs."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness.types import AnswerType, Item, Response, Status, Verdict
from ahabench.tasks.mathvista import TASK

OFFICIAL = TASK.scorers["official"]
VLMEVALKIT = TASK.scorers["vlmevalkit"]

MODELS = [
    "bard",
    "chatgpt",
    "chatgpt_2shot_solution",
    "claude_2shot_solution",
    "gpt4_2shot_solution",
    "idefics_9b_instruct",
    "llava_llama_2_13b",
    "minigpt4_llama2",
]


def choice_item(choices: tuple[str, ...] = ("yes", "no"), gold: str = "A") -> Item:
    labels = tuple("ABCDEFGH"[: len(choices)])
    return Item(id="1", question="?", gold=gold, answer_type=AnswerType.CHOICE, choices=choices, labels=labels)


def number_item(gold: str, *, precision: int | None = None) -> Item:
    answer_type = AnswerType.INTEGER if precision is None else AnswerType.FLOAT
    return Item(id="1", question="?", gold=gold, answer_type=answer_type, precision=precision)


def list_item(gold: str) -> Item:
    return Item(id="1", question="?", gold=gold, answer_type=AnswerType.LIST)


def official(item: Item, extracted: str) -> Verdict:
    return OFFICIAL.compare(item, extracted)


def prefetch(item: Item, text: str) -> Verdict:
    assert VLMEVALKIT.read is not None
    return VLMEVALKIT.read(item, Response(item_id=item.id, text=text))


@pytest.fixture(scope="module")
def records(data: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((data / "mathvista" / "testmini.json").read_text(encoding="utf-8"))
    return content


def test_a_withheld_answer_has_no_verdict() -> None:
    item = Item(id="1", question="?", gold=None, answer_type=AnswerType.INTEGER)
    assert official(item, "3").status is Status.ERROR
    assert prefetch(item, "3").status is Status.ERROR
    assert VLMEVALKIT.compare(item, "3").status is Status.ERROR


# The authors' rules


@pytest.mark.parametrize("model", MODELS)
def test_official_verdicts_agree_with_the_published_ones(outputs: Path, items: dict[str, Item], model: str) -> None:
    agreed, differing, unknown = 0, [], []
    with (outputs / "mathvista" / f"{model}.jsonl").open(encoding="utf-8") as file:
        for published in map(json.loads, file):
            pid, extraction = published["item_id"], published["official_extraction"]
            if published["official_correct"] is None:
                unknown.append(pid)
                continue
            verdict = official(items[pid], extraction)
            if verdict.correct == published["official_correct"]:
                agreed += 1
            else:
                differing.append((pid, extraction, verdict.correct))
    assert unknown == (["2", "4"] if model == "chatgpt" else [])
    # Published verdicts differ only where an integer was read with int(x), which refuses "5.0": ours are then right.
    assert all(correct and items[pid].answer_type is AnswerType.INTEGER for pid, _, correct in differing)
    assert all("." in extraction for _, extraction, _ in differing)
    # The authors' current code, run on the same extractions, gains two items here and none in the other seven files.
    assert len(differing) == (2 if model == "idefics_9b_instruct" else 0)
    assert agreed >= 0.99 * 1000 - len(unknown)


def test_the_published_gold_is_right_for_every_item(items: dict[str, Item], records: dict[str, Any]) -> None:
    # In these two the options' texts are letters in parentheses in another order: the authors read "(b)" as option B.
    letters_as_texts = ["168", "849"]
    wrong = [pid for pid, record in records.items() if not official(items[pid], record["answer"]).correct]
    assert wrong == letters_as_texts
    assert set(letters_as_texts) <= TASK.bad_items.keys()


def test_the_gold_of_the_item_is_right_for_every_item(items: dict[str, Item]) -> None:
    assert [pid for pid, item in items.items() if not official(item, item.gold or "").correct] == []


def test_another_option_is_wrong_for_every_item_but_the_one_with_the_gold_twice(items: dict[str, Item]) -> None:
    accepted = [
        (pid, label)
        for pid, item in items.items()
        for label in item.labels
        if label != item.gold and official(item, label).correct
    ]
    assert accepted == [("781", "D")]


@pytest.mark.parametrize(
    ("extraction", "label", "rule"),
    [
        ("B", "B", "choice-label"),
        (" (b) no way", "B", "choice-label"),
        ("(A) or (B)", "A", "choice-label"),
        ("the answer is (b)", "B", "choice-label"),
        ("no", "B", "nearest-choice"),
        # "b": 3 edits from "yes", 2 from "no".
        ("b", "B", "nearest-choice"),
        # An empty extraction: 3 edits from "yes", 2 from "no".
        ("", "B", "nearest-choice"),
        # "N/A": 3 edits from "yes"; from "no" 3, since nothing agrees in place: a tie, the first option.
        ("N/A", "A", "nearest-choice"),
        # (x) is no option, so "X" is compared: 3 edits from "yes", 2 from "no".
        ("(x)", "B", "nearest-choice"),
        ("B.", "B", "nearest-choice"),
    ],
)
def test_a_choice_extraction_always_becomes_an_option(extraction: str, label: str, rule: str) -> None:
    verdict = official(choice_item(("yes", "no"), gold="B"), extraction)
    assert (verdict.extracted, verdict.rule) == (label, rule)
    assert verdict.correct == (label == "B")


def test_the_first_of_equally_near_options_is_taken() -> None:
    # "115" is one edit from none of them: "11x", "x15", "1x5" are one each.
    verdict = official(choice_item(("11x", "x15", "1x5"), gold="A"), "115")
    assert (verdict.extracted, verdict.status) == ("A", Status.CORRECT)


def test_either_of_two_equal_options_is_right() -> None:
    item = choice_item(("3", "5", "8", "8"), gold="C")
    assert official(item, "D").correct
    assert official(item, "(C)").correct
    assert not official(item, "B").correct


@pytest.mark.parametrize(
    ("gold", "extraction", "status"),
    [
        ("5", "5", Status.CORRECT),
        ("5", "5.0", Status.CORRECT),
        ("5", "5.9", Status.CORRECT),  # cut toward zero
        ("-5", "-5.9", Status.CORRECT),
        ("5", " 5 ", Status.CORRECT),
        ("500", "5e2", Status.CORRECT),
        ("5", "4.99", Status.WRONG),
        ("5", "five", Status.WRONG),
        ("1000", "1,000", Status.WRONG),
        ("5", "nan", Status.WRONG),
        ("5", "inf", Status.WRONG),
        ("5", "1e999", Status.WRONG),
        ("5", "1" * 5000, Status.WRONG),
        ("5", "0" * 5000 + "5", Status.CORRECT),
        ("5", "", Status.NO_ANSWER),
        ("5", " \n", Status.NO_ANSWER),
    ],
)
def test_an_integer_is_cut_toward_zero(gold: str, extraction: str, status: Status) -> None:
    assert official(number_item(gold), extraction).status is status


@pytest.mark.parametrize(
    ("gold", "precision", "extraction", "status"),
    [
        ("1.2", 1, "1.2", Status.CORRECT),
        ("1.2", 1, "1.24", Status.CORRECT),
        ("1.2", 1, "1.26", Status.WRONG),
        ("0.6", 2, "0.60", Status.CORRECT),
        ("0.60", 2, "0.60", Status.WRONG),  # the text of the rounded number is "0.6"
        ("2.0", 1, "2", Status.CORRECT),
        ("1.2", 1, "1.2 cm", Status.WRONG),
        ("1.2", 1, "nan", Status.WRONG),
        ("1.2", 1, "-inf", Status.WRONG),
        ("1.2", 1, "9" * 100_000, Status.WRONG),
        ("1.2", 1, "", Status.NO_ANSWER),
    ],
)
def test_a_float_is_rounded_to_the_items_precision(gold: str, precision: int, extraction: str, status: Status) -> None:
    assert official(number_item(gold, precision=precision), extraction).status is status


def test_a_list_is_compared_as_text() -> None:
    item = list_item("[2014, 2016]")
    assert official(item, "[2014, 2016]").correct
    assert official(item, "[2014,2016]").status is Status.WRONG
    assert official(item, "__import__('os').abort()").status is Status.WRONG


def test_a_huge_extraction_is_settled_quickly() -> None:
    item = choice_item(("yes", "no"))
    started = time.process_time()
    assert official(item, "(" * 500_000 + "yes").rule == "nearest-choice"
    assert time.process_time() - started < 5


# VLMEvalKit's rules


def test_an_inferred_option_is_final_even_when_wrong() -> None:
    item = choice_item(("yes", "no"), gold="B")
    assert prefetch(item, "The answer is B").status is Status.CORRECT
    wrong = prefetch(item, "The answer is A")
    assert (wrong.status, wrong.extracted) == (Status.WRONG, "A")


def test_a_refusal_is_wrong_without_a_judge() -> None:
    verdict = prefetch(choice_item(), "Cannot determine the answer")
    assert (verdict.status, verdict.extracted) == (Status.WRONG, "Z")


def test_an_option_that_cannot_be_inferred_is_left_to_the_judge() -> None:
    verdict = prefetch(choice_item(), "It could be A or B")
    assert (verdict.status, verdict.extracted) == (Status.NO_ANSWER, None)


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (number_item("5"), "5"),
        (number_item("5"), " 5\n"),
        (number_item("5"), "+5"),
        (number_item("0"), "0"),
        (number_item("1.2", precision=1), "1.2"),
        (number_item("1.2", precision=1), "1.20"),
        (number_item("1.2", precision=1), "12e-1"),
        (number_item("5"), "<think>2 + 3</think><answer> 5 </answer>"),
    ],
)
def test_a_response_that_is_the_right_number_decides(item: Item, text: str) -> None:
    verdict = prefetch(item, text)
    assert verdict.status is Status.CORRECT
    assert verdict.rule == f"prefetch/{item.answer_type.value}"


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (number_item("5"), "4"),
        (number_item("5"), "5.0"),
        (number_item("5"), "The answer is 5"),
        (number_item("5"), ""),
        (number_item("5"), "1" * 5000),
        (number_item("5"), "nan"),
        (number_item("1.2", precision=1), "1.24"),
        (number_item("1.2", precision=1), "nan"),
        (number_item("1.2", precision=1), "1e999"),
        (number_item("5"), "<answer>5</answer><answer>5</answer>"),
        (list_item("[1, 2]"), "[1, 2]"),
    ],
)
def test_every_other_free_form_response_is_left_to_the_judge(item: Item, text: str) -> None:
    assert prefetch(item, text).status is Status.NO_ANSWER


@pytest.mark.parametrize(
    ("item", "extraction", "status"),
    [
        (choice_item(("yes", "no"), gold="A"), "A", Status.CORRECT),
        (choice_item(("yes", "no"), gold="A"), "(A) yes", Status.CORRECT),
        (choice_item(("yes", "no"), gold="A"), "B", Status.WRONG),
        (choice_item(("yes", "no"), gold="A"), "neither", Status.WRONG),
        (choice_item(("yes", "no"), gold="A"), "", Status.NO_ANSWER),
        (number_item("5"), "5", Status.CORRECT),
        (number_item("5"), "5.0", Status.WRONG),
        (number_item("5"), "6", Status.WRONG),
        (number_item("5"), "", Status.NO_ANSWER),
        (number_item("5"), "9" * 5000, Status.WRONG),
        (number_item("1.2", precision=1), "1.2", Status.CORRECT),
        (number_item("1.2", precision=1), "1.24", Status.WRONG),  # not rounded
        (number_item("1.2", precision=1), "inf", Status.WRONG),
        (list_item("[1, 2]"), "[1, 2]", Status.WRONG),  # VLMEvalKit's bug: a list is never right
    ],
)
def test_an_extraction_is_settled_as_vlmevalkit_does(item: Item, extraction: str, status: Status) -> None:
    assert VLMEVALKIT.compare(item, extraction).status is status


def agreements(outputs: Path, items: dict[str, Item], model: str) -> list[bool]:
    """Whether the prefetch and the authors' judge agree, for each of a model's options that the prefetch settles."""
    with (outputs / "mathvista" / f"{model}.jsonl").open(encoding="utf-8") as file:
        rows = [published for published in map(json.loads, file) if items[published["item_id"]].choices]
    assert len(rows) == 540
    verdicts = [prefetch(items[published["item_id"]], published["response"]) for published in rows]
    return [
        verdict.correct == published["official_correct"]
        for verdict, published in zip(verdicts, rows, strict=True)
        if verdict.status is not Status.NO_ANSWER
    ]


def test_the_prefetch_settles_only_a_few_of_bards_long_responses(outputs: Path, items: dict[str, Item]) -> None:
    # Counted with another port of the rules: 21 options, of which two thirds as the authors' judge has them.
    assert Counter(agreements(outputs, items, "bard")) == {True: 14, False: 7}


@pytest.mark.parametrize(
    ("model", "lowest", "highest"),
    # Measured with another port: 99.5 to 100 % on zero-shot chat, 86 % where Claude ran on into invented problems.
    [("chatgpt", 0.995, 1.0), ("claude_2shot_solution", 0.855, 0.865)],
)
def test_the_prefetch_agrees_with_the_published_verdicts_as_often_as_known(
    outputs: Path, items: dict[str, Item], model: str, lowest: float, highest: float
) -> None:
    agreeing = agreements(outputs, items, model)
    assert len(agreeing) > 270  # more than half of the 540
    assert lowest <= sum(agreeing) / len(agreeing) <= highest


def test_a_bare_number_that_the_prefetch_accepts_was_accepted_by_the_authors(
    outputs: Path, items: dict[str, Item]
) -> None:
    with (outputs / "mathvista" / "chatgpt.jsonl").open(encoding="utf-8") as file:
        rows = [published for published in map(json.loads, file) if not items[published["item_id"]].choices]
    accepted = [
        published["official_correct"]
        for published in rows
        if prefetch(items[published["item_id"]], published["response"]).correct
    ]
    assert accepted
    assert all(accepted)
