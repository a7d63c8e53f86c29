import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahabench.harness.answers.robust import ROBUST, attempts, compare, read
from ahabench.harness.score import judge_one
from ahabench.harness.types import AnswerType, Item, Response, Status, Verdict

DATA = Path(__file__).parents[2] / "data" / "answers.jsonl"
CASES: list[dict[str, Any]] = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
ALPHABET = "ABCDEFGHI"
PETS = ("cat", "dog", "emu", "fox")


def an_item(answer_type: str, gold: str | None, **fields: Any) -> Item:
    choices = tuple(fields.pop("choices", ()))
    labels = tuple(fields.pop("labels", ALPHABET[: len(choices)]))
    question = fields.pop("question", "What does the picture show?")
    return Item(
        id="1",
        question=question,
        gold=gold,
        answer_type=AnswerType(answer_type),
        choices=choices,
        labels=labels,
        **fields,
    )


ITEMS = (
    an_item("choice", "B", choices=PETS),
    an_item("choice", "B", choices=(r"\sqrt{2}", "2^{10}", "x+1", "5 cm", "None of the above")),
    an_item("choice", "E", labels="ABCDE"),
    an_item("choices", "B, D", labels=ALPHABET),
    an_item("integer", "7"),
    an_item("float", "3.14", precision=2),
    an_item("float", "2.5", tolerance=0.001),
    an_item("text", "March"),
    an_item("list", "[1, 2]"),
    an_item("expression", "27"),
    an_item("expression", r"2\sqrt{3}"),
    an_item("expression", "x^2-1"),
)


def judge(item: Item, text: str, finish_reason: str | None = "stop") -> Verdict:
    return judge_one(ROBUST, item, Response(item_id=item.id, text=text, finish_reason=finish_reason))


def case_id(case: dict[str, Any]) -> str:
    return f"{case['answer_type']}: {case['why']}"


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_a_response_is_judged_as_a_reader_would(case: dict[str, Any]):
    fields = {name: case[name] for name in ("choices", "labels", "precision", "tolerance", "question") if name in case}
    item = an_item(case["answer_type"], case["gold"], **fields)
    verdict = judge(item, case["response"], case.get("finish_reason", "stop"))
    assert verdict.status == case["status"], (case["response"], verdict)


def test_every_answer_type_and_every_status_of_a_response_has_cases():
    assert {case["answer_type"] for case in CASES} == set(AnswerType)
    assert {case["status"] for case in CASES} == {"correct", "wrong", "no_answer", "truncated"}
    assert len(CASES) >= 200


def test_the_cases_are_told_apart_by_their_reason():
    ids = [case_id(case) for case in CASES]
    assert len(set(ids)) == len(ids), sorted({i for i in ids if ids.count(i) > 1})


# The rule is part of the run's files: it says which span was read, then how it was compared.
@pytest.mark.parametrize(
    ("item", "text", "rule"),
    [
        (ITEMS[0], "<answer>B</answer> \\boxed{A}", "tag/option"),
        (ITEMS[0], "The answer is A. \\boxed{B}", "boxed/option"),
        (ITEMS[0], '{"short answer": "B"}\nThe answer is A.', "json/option"),
        (ITEMS[0], "I looked.\nThe answer is B.\nThat is all.", "cue/option"),
        (ITEMS[0], "B", "whole/option"),
        (ITEMS[4], "\\boxed{7}", "boxed/integer"),
        (ITEMS[5], "\\boxed{3.14}", "boxed/rounded to 2"),
        (ITEMS[6], "\\boxed{2.5}", "boxed/within 0.001"),
        (ITEMS[8], "\\boxed{[1, 2]}", "boxed/list"),
        (ITEMS[11], "\\boxed{(x-1)(x+1)}", "boxed/same expression"),
    ],
)
def test_the_rule_names_the_span_and_the_comparison(item: Item, text: str, rule: str):
    verdict = judge(item, text)
    assert verdict.correct
    assert verdict.rule == rule


def test_what_was_never_generated_has_no_verdict_but_an_error():
    response = Response(item_id="1", text=None, finish_reason="error")
    assert judge_one(ROBUST, ITEMS[0], response).status is Status.ERROR


def test_a_choice_is_extracted_in_the_items_own_spelling_and_order():
    assert judge(ITEMS[0], "(b)").extracted == "B"
    assert judge(ITEMS[3], "D and B").extracted == "B, D"


def test_the_attempts_end_with_the_one_that_read_decides_by():
    response = Response(item_id="1", text="\\boxed{horse} so the answer is B.", finish_reason="stop")
    steps = list(attempts(ITEMS[0], response))
    decided = next(step for step in steps if step.extracted is not None)
    assert [step.extractor for step in steps][:1] == ["boxed"]
    assert decided.extractor != "boxed"
    assert read(ITEMS[0], response).extracted == decided.extracted == "B"


def test_options_of_the_same_content_are_the_same_answer():
    item = an_item("choice", "B", choices=("4", "5", "6", "5"))
    assert judge(item, "D").correct
    assert not judge(item, "C").correct


@pytest.mark.parametrize("answer_type", list(AnswerType))
def test_an_item_whose_gold_is_withheld_has_a_verdict_that_is_not_correct(answer_type: AnswerType):
    item = an_item(answer_type, None, labels="ABCD", precision=2 if answer_type is AnswerType.FLOAT else None)
    for text in ("7", "The answer is 7.", "\\boxed{B}", "[1, 2]", ""):
        assert not judge(item, text).correct


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: f"{item.answer_type} {item.gold}")
def test_an_extraction_of_somebody_else_is_compared_by_the_same_rules(item: Item):
    assert compare(item, item.gold or "").correct
    assert compare(item, f" {item.gold}\n").correct
    assert compare(item, "nothing of the kind").status is Status.WRONG


# Totality.
ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=300)
FRAGMENTS = st.sampled_from(
    [
        *(
            "The answer is ",
            "Answer: ",
            "answer",
            "so ",
            "Therefore, ",
            "not ",
            "or ",
            "and ",
            "is ",
            "= ",
            "≈ ",
            "答案是",
            "选",
            "。",
        ),
        *(
            "<answer>",
            "</answer>",
            "<think>",
            "</think>",
            "\\boxed{",
            "}",
            "{",
            "**",
            "*",
            "`",
            "$",
            "\\(",
            "\\)",
            "\\[",
            "\n",
            " ",
            "\t",
        ),
        *(
            "A",
            "B",
            "(B)",
            "B.",
            "b",
            "E",
            "I ",
            "dog",
            "cat",
            "B, D",
            "None of the above",
            "option ",
            "A is correct. ",
            "wait, no, ",
        ),
        *(
            "7",
            "3.14",
            "-",
            ".5",
            "1,200",
            "½",
            "\\frac{1}{2}",
            "\\frac12",
            "\\sqrt{3}",
            "√",
            "π",
            "\\pi",
            "^",
            "_",
            "2",
            "x",
            "!",
            "%",
            "°",
        ),
        *(
            "[1, 2]",
            "[",
            "]",
            "(",
            ")",
            ",",
            ";",
            ":",
            '"answer": ',
            '"',
            "\\",
            "\\text{",
            "cm",
            "²",
            "e5",
            "1e999",
            "March",
            "\uff21",
            "٣",
        ),
        *(
            "\x00",
            "\ud800",
            "\u202e",
            "\u2028",
            "İ",
            "ß",
            "cannot be determined",
            "\nQuestion:",
            "```json\n",
            "{}",
            "<|im_end|>",
        ),
    ]
)
ANSWER_SHAPED = st.lists(FRAGMENTS, max_size=14).map("".join)


@given(
    item=st.sampled_from(ITEMS),
    text=st.one_of(ANY_TEXT, ANSWER_SHAPED),
    finish=st.sampled_from(["stop", "length", None]),
)
def test_any_text_has_a_verdict(item: Item, text: str, finish: str | None):
    verdict = judge(item, text, finish)
    assert verdict.status is not Status.ERROR
    assert verdict.rule
    assert verdict.extracted is not None or not verdict.correct
    json.dumps([verdict.status.value, verdict.extracted, verdict.rule])


@given(item=st.sampled_from(ITEMS), text=st.one_of(ANY_TEXT, ANSWER_SHAPED))
def test_any_extraction_has_a_verdict(item: Item, text: str):
    assert compare(item, text).status in {Status.CORRECT, Status.WRONG, Status.TIMEOUT}


@given(
    item=st.sampled_from(ITEMS),
    text=ANSWER_SHAPED,
    before=st.text(" \n\t", max_size=4),
    after=st.text(" \n\t", max_size=4),
)
def test_white_space_around_a_response_changes_nothing(item: Item, text: str, before: str, after: str):
    bare, padded = judge(item, text.strip()), judge(item, before + text.strip() + after)
    assert (padded.status, padded.rule) == (bare.status, bare.rule)


@given(item=st.sampled_from(ITEMS), text=ANSWER_SHAPED)
def test_the_same_response_has_the_same_verdict_twice(item: Item, text: str):
    assert judge(item, text) == judge(item, text)


# Gold.
WORDS = st.from_regex(r"[a-z]{3,10}( [a-z]{3,10})?", fullmatch=True)
NUMERALS = st.one_of(
    st.integers(-9999, 9999).map(str),
    st.integers(1000, 9_999_999).map("{:,}".format),
    st.tuples(st.integers(1, 99), st.integers(2, 99)).map(lambda pair: rf"\frac{{{pair[0]}}}{{{pair[1]}}}"),
    st.tuples(st.integers(1, 99), st.integers(2, 99)).map(lambda pair: rf"{pair[0]}\sqrt{{{pair[1]}}}"),
    st.integers(2, 99).map(lambda n: rf"{n}\pi"),
    st.integers(2, 99).map(lambda n: f"{n}°"),
    st.tuples(st.integers(-9, 9), st.integers(-9, 9)).map(lambda pair: f"({pair[0]}, {pair[1]})"),
    st.sampled_from(
        ["x+1", "2x", "x^2-1", "y=2x+1", "\\frac{x+1}{2}", "a^2+b^2", "\\{1, 2\\}", "[0, 3)", "3 \\times 10^8", "5:00"]
    ),
)


@st.composite
def items_with_gold(draw: st.DrawFn) -> Item:
    answer_type = draw(st.sampled_from(list(AnswerType)))
    match answer_type:
        case AnswerType.CHOICE:
            labels = ALPHABET[: draw(st.integers(2, 9))]
            return an_item("choice", draw(st.sampled_from(labels)), labels=labels)
        case AnswerType.CHOICES:
            chosen = draw(st.sets(st.sampled_from(ALPHABET), min_size=2, max_size=8))
            return an_item("choices", ", ".join(sorted(chosen)), labels=ALPHABET)
        case AnswerType.INTEGER:
            return an_item("integer", str(draw(st.integers(-(10**9), 10**9))))
        case AnswerType.FLOAT:
            precision = draw(st.integers(1, 3))
            return an_item(
                "float", f"{draw(st.integers(-99999, 99999)) / 10**precision:.{precision}f}", precision=precision
            )
        case AnswerType.TEXT:
            return an_item("text", draw(WORDS))
        case AnswerType.LIST:
            return an_item("list", str(draw(st.lists(st.integers(-99, 99), min_size=2, max_size=5))))
        case AnswerType.EXPRESSION:
            return an_item("expression", draw(NUMERALS))


@pytest.mark.parametrize("form", ["{}", "The answer is {}.", "\\boxed{{{}}}", "<answer>{}</answer>"])
@given(item=items_with_gold())
def test_the_gold_is_right(form: str, item: Item):
    verdict = judge(item, form.format(item.gold))
    assert verdict.correct, (item.answer_type, item.gold, verdict)


@given(item=items_with_gold())
def test_an_empty_response_is_no_answer(item: Item):
    assert judge(item, "").status is Status.NO_ANSWER
    assert judge(item, "", "length").status is Status.TRUNCATED


@given(gold=st.integers(-999, 999), off=st.integers(1, 9))
def test_another_integer_is_wrong(gold: int, off: int):
    item = an_item("integer", str(gold))
    for form in ("{}", "The answer is {}.", "\\boxed{{{}}}", "<answer>{}</answer>"):
        assert judge(item, form.format(gold + off)).status is Status.WRONG


@given(labels=st.integers(2, 9).map(lambda n: ALPHABET[:n]), data=st.data())
def test_another_letter_is_wrong(labels: str, data: st.DataObject):
    gold, other = data.draw(st.permutations(labels))[:2]
    item = an_item("choice", gold, labels=labels)
    for form in ("{}", "({})", "The answer is {}.", "\\boxed{{{}}}", "<answer>{}</answer>"):
        assert judge(item, form.format(other)).status is Status.WRONG
