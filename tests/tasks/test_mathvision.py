"""MathVision's items and prompts."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mathvision_items import choice, free, row

from ahabench.harness.dataset import load
from ahabench.harness.errors import DatasetError
from ahabench.harness.images import ImageFile
from ahabench.harness.prompts import VLAA_SYSTEM_PROMPT
from ahabench.harness.types import AnswerType, Item
from ahabench.tasks.mathvision import TASK, read_folder, to_item

# Items


def test_test_has_the_published_composition(items: dict[str, Item]) -> None:
    assert Counter(item.answer_type for item in items.values()) == {
        AnswerType.CHOICE: 1532,
        AnswerType.EXPRESSION: 1508,
    }
    assert sum(item.choices == ("A", "B", "C", "D", "E") for item in items.values()) == 384
    assert Counter(item.tags["level"][0] for item in items.values()) == {
        "1": 237,
        "2": 738,
        "3": 551,
        "4": 830,
        "5": 684,
    }
    assert Counter(item.tags["subject"][0] for item in items.values()) == {
        "metric geometry - area": 500,
        "metric geometry - length": 449,
        "metric geometry - angle": 173,
        "algebra": 345,
        "combinatorial geometry": 308,
        "solid geometry": 244,
        "transformation geometry": 168,
        "combinatorics": 168,
        "arithmetic": 140,
        "logic": 119,
        "descriptive geometry": 104,
        "graph theory": 90,
        "analytic geometry": 84,
        "counting": 67,
        "statistics": 58,
        "topology": 23,
    }


def test_testmini_is_a_part_of_test_with_19_items_of_each_subject(items: dict[str, Item], data: Path) -> None:
    mini = load(TASK, "testmini", data=data / "mathvision").items
    assert len(mini) == 304
    assert all(items[item.id] == item for item in mini)
    assert set(Counter(item.tags["subject"][0] for item in mini).values()) == {19}


def test_the_first_tag_is_the_subject(items: dict[str, Item]) -> None:
    assert list(items["1"].tags) == ["subject", "level", "subject_level", "question_type"]
    assert items["1"].tags["subject_level"] == ("arithmetic, level 2",)


def test_an_image_is_read_from_the_official_folder_when_it_is_needed(items: dict[str, Item]) -> None:
    (image,) = items["1"].images
    assert isinstance(image, ImageFile)
    assert image.path.parts[-2:] == ("images", "1.jpg")


def test_a_missing_image_file_does_not_stop_loading(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text(json.dumps(row()) + "\n", encoding="utf-8")
    (item,) = map(to_item, read_folder(tmp_path, "test"))
    with pytest.raises(DatasetError, match=r"9001\.jpg cannot be read"):
        item.images[0].read()


def test_a_gold_is_kept_as_published_even_where_it_is_damaged(items: dict[str, Item]) -> None:
    assert items["2830"].gold == "\x0crac{36}{13}"
    assert items["2521"].gold == "11 "
    assert items["2947"].gold == "69{degrees}"


@pytest.mark.parametrize("image", [None, "/etc/passwd", "../1.jpg", "images/../../1.jpg"])
def test_an_image_outside_the_folder_is_refused(tmp_path: Path, image: str | None) -> None:
    (tmp_path / "test.jsonl").write_text(json.dumps(row(image=image)) + "\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="wanted a path inside the folder"):
        list(read_folder(tmp_path, "test"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"level": 9}, "level"),
        ({"answer": ""}, "answer"),
        ({"options": ["a", "b", "c"]}, "3 options, wanted none or 5"),
        ({"options": ["1", "2", "3", "4", "5"], "answer": "4"}, "no letter from A to E"),
        ({"options": None}, "options"),
    ],
)
def test_a_malformed_record_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=rf"mathvision .*9001.*{message}"):
        to_item(row(**changes))


def test_known_defects_are_in_the_data(items: dict[str, Item]) -> None:
    assert set(TASK.bad_items) <= set(items)
    twice = {item.id for item in items.values() if len(set(item.choices)) < len(item.choices)}
    assert twice == {"1843", "1893"}
    displaced = {
        item.id
        for item in items.values()
        if any(text in item.labels and text != label for label, text in zip(item.labels, item.choices, strict=True))
    }
    assert displaced == {"654", "742", "941", "1893"}
    boxed = {item.id for item in items.values() if "\\boxed" in (item.gold or "")}
    assert boxed == {"2828", "2833", "2875", "2877"}
    letters = {item.id for item in items.values() if not item.choices and (item.gold or "") in "ABCDE"}
    assert letters == {"59", "434"}
    assert twice | displaced | boxed | letters <= set(TASK.bad_items)


# Prompts


def test_the_official_prompt_asks_for_a_box_and_lists_the_options() -> None:
    prompt = TASK.prompts["official"].render(choice("A", ("1", "2", "3", "4", "5")))
    assert prompt.text == (
        'Please solve the problem step by step and put your answer in one "\\boxed{}". If it is a multiple choice '
        'question, only one letter is allowed in the "\\boxed{}".\n'
        "How many corners has it?\n<image1>\n(A) 1\n(B) 2\n(C) 3\n(D) 4\n(E) 5\n"
    )
    assert prompt.system is None
    assert not prompt.image_last


def test_the_official_prompt_leaves_out_options_that_are_only_letters() -> None:
    with_letters = TASK.prompts["official"].render(choice("A", ("A", "B", "C", "D", "E")))
    without = TASK.prompts["official"].render(free("6"))
    assert with_letters.text == without.text
    assert without.text.endswith("\nHow many corners has it?\n<image1>\n")


def test_the_leaderboards_prompt_begins_with_the_hint() -> None:
    render = TASK.prompts["vlmevalkit"].render
    assert render(free("6")).text == (
        "Hint: Please answer the question and provide the final answer at the end.\n"
        "Question: How many corners has it?\n<image1>"
    )
    assert render(choice("A", ("1", "2", "3", "4", "5"))).text == (
        "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.\n"
        "Question: How many corners has it?\n<image1>\nChoices:\n(A) 1\n(B) 2\n(C) 3\n(D) 4\n(E) 5"
    )


def test_the_think_prompt_is_the_bare_question_under_the_system_prompt() -> None:
    prompt = TASK.prompts["think"].render(choice("A", ("1", "2", "3", "4", "5")))
    assert prompt.text == "How many corners has it?\n<image1>\n(A) 1\n(B) 2\n(C) 3\n(D) 4\n(E) 5"
    assert prompt.system == VLAA_SYSTEM_PROMPT
