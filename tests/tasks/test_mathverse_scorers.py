"""MathVerse's prompts against the published queries, and what its two sets of published rules do without a judge."""

import json
from pathlib import Path
from typing import Any

import pytest
from mathverse_records import row

from ahabench.harness.prompts import VLAA_SYSTEM_PROMPT
from ahabench.harness.types import Item, Response, Status, Verdict
from ahabench.tasks.mathverse import TASK, to_item

OFFICIAL = TASK.scorers["official"]
VLMEVALKIT = TASK.scorers["vlmevalkit"]
DIRECT_LETTER = "please directly answer the question and provide the correct option letter, e.g., A, B, C, D."
DIRECT_VALUE = "please directly answer the question and provide the final value, e.g., 1, 2.5, 300."


def compare_official(item: Item, extracted: str) -> Verdict:
    return OFFICIAL.compare(item, extracted)


def prefetch(item: Item, text: str) -> Verdict:
    assert VLMEVALKIT.read is not None
    return VLMEVALKIT.read(item, Response(item_id=item.id, text=text))


@pytest.fixture(scope="module")
def records(data: Path) -> dict[str, Any]:
    content = json.loads((data / "mathverse" / "testmini_text_only.json").read_text(encoding="utf-8"))
    return {record["problem_index"]: record for record in content}


# Prompts


@pytest.mark.parametrize(
    ("style", "field"), [("official", "query_wo"), ("vlmevalkit", "query_wo"), ("official_cot", "query_cot")]
)
def test_a_text_only_query_is_the_published_one_byte_for_byte(
    text_only: dict[str, Item], records: dict[str, Any], style: str, field: str
) -> None:
    render = TASK.prompts[style].render
    assert [problem for problem, item in text_only.items() if render(item).text != records[problem][field]] == []
    assert len(records) == 788


def test_the_five_queries_of_the_authors_example_problem_are_theirs(data: Path) -> None:
    published = json.loads((data / "mathverse" / "output_testmini.json").read_text(encoding="utf-8"))
    assert [record["problem_version"] for record in published] == [
        "Text Dominant",
        "Text Lite",
        "Vision Intensive",
        "Vision Dominant",
        "Vision Only",
    ]
    for record in published:
        item = to_item(record)
        assert TASK.prompts["official"].render(item).text == record["query_wo"]
        assert TASK.prompts["official_cot"].render(item).text == record["query_cot"]


def test_vision_only_queries_point_at_the_picture(vision_only: dict[str, Item]) -> None:
    start = "According to the question shown in the image, "
    texts = {
        (item.tags["question_type"][0], TASK.prompts["vlmevalkit"].render(item).text) for item in vision_only.values()
    }
    assert texts == {("multi-choice", start + DIRECT_LETTER), ("free-form", start + DIRECT_VALUE)}
    reasoned = TASK.prompts["official_cot"].render(vision_only["1"]).text
    assert reasoned == (
        "According to the question shown in the image, please first conduct reasoning, and then answer the question "
        "and provide the correct option letter, e.g., A, B, C, D, at the end."
    )


def test_thinking_asks_the_bare_question_under_the_system_prompt(
    text_only: dict[str, Item], records: dict[str, Any], vision_only: dict[str, Item]
) -> None:
    render = TASK.prompts["think"].render
    assert all(render(item).text == records[problem]["question"] for problem, item in text_only.items())
    asked = {render(item).text for item in vision_only.values()}
    assert asked == {"According to the question shown in the image, please answer the question."}
    assert render(vision_only["1"]).system == VLAA_SYSTEM_PROMPT


def test_images_stand_before_the_text_and_only_thinking_has_a_system_prompt(vision_only: dict[str, Item]) -> None:
    prompts = {name: style.render(vision_only["1"]) for name, style in TASK.prompts.items()}
    assert prompts.keys() == {"official", "official_cot", "vlmevalkit", "think"}
    assert not any(prompt.image_last for prompt in prompts.values())
    assert {name for name, prompt in prompts.items() if prompt.system} == {"think"}


# Scorers


def test_official_needs_a_judges_extraction() -> None:
    assert OFFICIAL.read is None


def test_the_gold_is_right_for_every_item_as_published_and_as_held(
    text_only: dict[str, Item], vision_only: dict[str, Item], records: dict[str, Any]
) -> None:
    for items in (text_only, vision_only):
        for problem, item in items.items():
            for gold in (item.gold or "", records[problem]["answer"]):
                assert compare_official(item, gold).correct
                assert VLMEVALKIT.compare(item, gold).correct
                assert prefetch(item, gold).correct


def test_a_perturbed_gold_is_wrong_for_every_item(text_only: dict[str, Item]) -> None:
    for item in text_only.values():
        perturbed = f"{item.gold}!"
        assert compare_official(item, perturbed).status is Status.WRONG
        assert VLMEVALKIT.compare(item, perturbed).status is Status.WRONG
        assert prefetch(item, perturbed).status is Status.NO_ANSWER


@pytest.mark.parametrize("extraction", ["", "  \n", "null", " NULL "])
def test_the_extraction_steps_word_for_nothing_is_no_answer(extraction: str) -> None:
    assert compare_official(to_item(row()), extraction).status is Status.NO_ANSWER


@pytest.mark.parametrize(
    ("extraction", "status"),
    [
        ("B", Status.CORRECT),
        (" B\n", Status.CORRECT),
        ("b", Status.WRONG),
        ("B:6°", Status.WRONG),
        ("6°", Status.WRONG),
    ],
)
def test_only_equal_text_matches(extraction: str, status: Status) -> None:
    item = to_item(row())
    assert compare_official(item, extraction).status is status
    assert VLMEVALKIT.compare(item, extraction).status is status


def test_white_space_around_a_published_gold_does_not_count(text_only: dict[str, Item]) -> None:
    assert text_only["368"].gold == "777 "
    assert compare_official(text_only["368"], "777").correct


def test_vlmevalkits_second_judge_is_not_replaced_by_a_guess() -> None:
    item = to_item(row(question_type="free-form", question="Find x.", answer="0.5m"))
    assert VLMEVALKIT.compare(item, "50cm").status is Status.WRONG
    assert VLMEVALKIT.compare(item, "").status is Status.NO_ANSWER
    assert VLMEVALKIT.compare(item, "null").status is Status.WRONG


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("B", Status.CORRECT),
        ("\nB ", Status.CORRECT),
        ("<think>6 it is</think><answer> B </answer>", Status.CORRECT),
        ("A", Status.NO_ANSWER),  # a judge reads it
        ("The answer is B", Status.NO_ANSWER),
        ("<answer>B</answer><answer>B</answer>", Status.NO_ANSWER),
        ("", Status.NO_ANSWER),
    ],
)
def test_the_prefetch_accepts_the_gold_and_decides_nothing_else(text: str, status: Status) -> None:
    assert prefetch(to_item(row()), text).status is status


def test_two_letters_match_as_published_or_as_held() -> None:
    item = to_item(row(answer="B\nA"))
    assert item.gold == "B, A"
    assert compare_official(item, "B\nA").correct
    assert compare_official(item, "B, A").correct
    assert compare_official(item, "A, B").status is Status.WRONG
