import functools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness.dataset import Dataset, load
from ahabench.harness.errors import DatasetError
from ahabench.harness.images import ImageFile
from ahabench.harness.metrics import by_tag
from ahabench.harness.types import AnswerType, Item, Result, Status
from ahabench.tasks.logicvista import TASK, to_item

OFFICIAL, KIT = TASK.scorers["official"], TASK.scorers["vlmevalkit"]
SKILLS = ("inductive", "deductive", "numerical", "spatial", "mechanical")
# Right of 448, then percent: accuracy and the five skills, recomputed from the authors' result files.
PUBLISHED = {
    "GPT4": (146, "32.59", "22.43", "54.84", "24.21", "21.52", "41.89"),
    "LLAVA13B": (108, "24.11", "18.69", "31.18", "20.00", "27.85", "24.32"),
    "BLIP2": (96, "21.43", "17.76", "23.66", "23.16", "24.05", "18.92"),
    "instructBLIP-vicuna-7B": (67, "14.96", "4.67", "21.51", "24.21", "2.53", "22.97"),
    "miniGPTvicuna7B": (50, "11.16", "10.28", "9.68", "7.37", "3.80", "27.03"),
    "pix2struct": (40, "8.93", "12.15", "6.45", "2.11", "7.59", "17.57"),
    "GIT": (19, "4.24", "4.67", "4.30", "0.00", "8.86", "4.05"),
}
ROW = {"id": "v1_7", "question": "Which one? (A) one (B) two", "answer": "B", "skill": ["inductive"], "images": ()}


@functools.cache
def loaded(data: Path) -> Dataset:
    return load(TASK, data=data)


def item(gold: str, question: str = "Which one? (A) one (B) two") -> Item:
    return to_item(ROW | {"answer": gold, "question": question})


def published(outputs: Path, model: str) -> dict[str, dict[str, Any]]:
    lines = (outputs / "logicvista" / f"{model}.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["item_id"]: row for row in map(json.loads, lines)}


# The data


def test_the_folder_has_448_items_of_the_published_skills(data: Path):
    items = loaded(data).items
    assert [each.id for each in items] == [f"v1_{number}" for number in range(448)]
    assert Counter(each.tags["skill"][0] for each in items) == {
        "inductive": 107,
        "numerical": 95,
        "deductive": 93,
        "spatial": 79,
        "mechanical": 74,
    }
    assert Counter(each.tags["broad_capability"][0] for each in items) == {
        "diagram": 236,
        "ocr": 125,
        "diagram and ocr": 87,
    }
    assert len({each.tags["specific_capability"] for each in items}) == 11


def test_the_golds_are_letters_and_sets_of_letters_but_for_two(data: Path):
    items = {each.id: each for each in loaded(data).items}
    assert Counter(each.gold for each in items.values()) == {
        **{"A": 111, "C": 110, "B": 104, "D": 83, "E": 33, "B, D": 2, "A, C": 1, "G": 1, "F": 1, "3": 1, "": 1}
    }
    several = {key for key, each in items.items() if each.answer_type is AnswerType.CHOICES}
    assert several == {"v1_1", "v1_2", "v1_5"}
    assert items["v1_382"].gold == ""


def test_every_gold_is_among_the_labels_but_the_one_that_is_not_annotated(data: Path):
    strangers = [each.id for each in loaded(data).items if not set((each.gold or "").split(", ")) <= set(each.labels)]
    assert strangers == ["v1_382"]


def test_the_361_questions_with_bracketed_options_have_their_labels(data: Path):
    bracketed = [each for each in loaded(data).items if "(A)" in each.question]
    assert len(bracketed) == 361
    # 32 of them, "... (A) (B) (C) (D)", leave the options to the picture.
    empty = [each for each in bracketed if each.question.rstrip().endswith("(A) (B) (C) (D)")]
    assert len(empty) == 32
    assert all(not each.choices and each.labels == tuple("ABCD") for each in empty)
    assert all(len(each.choices) == len(each.labels) > 1 for each in bracketed if each not in empty)


def test_images_of_the_folder_can_be_read(data: Path):
    assert loaded(data).items[0].images[0].read().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("question", "labels", "choices"),
    [
        ("True? Select from A, B and C. (A) True (B)False (C)Unknown", "ABC", ("True", "False", "Unknown")),
        ("Select from (A), (B), (C). (A) 4cm, (B) 6cm, (C) A and B", "ABC", ("4cm", "6cm", "A and B")),
        ("Which? Select from A, B, C, and D. (A) (B) (C) (D)", "ABCD", ()),
        ("Which one? (A) (B) (C)", "ABC", ()),
        ("How many? Select answers from A-D. \n A) 10 B) 12 C) 14 D) 16", "ABCD", ("10", "12", "14", "16")),
        ("What choice (A, B, C, or D) fits the pattern?", "ABCD", ()),
        ("Which two of the proposals A, B or C complete it?", "ABC", ()),
        ("Select from A, B,  C,  D, and E.", "ABCDE", ()),
        ("Which of the figures (A,B,C,D) is it?", "ABCD", ()),
        ("Who is the odd one out? Select answers from A-I", "ABCDEFGHI", ()),
        ("Which of boxes A to F completes the grid?", "ABCDEF", ()),
        ("Which is correct? Select from 1-5", "12345", ()),
        ("Which figure is a rotation of the object?", "ABCDE", ()),
        ("", "ABCDE", ()),
    ],
)
def test_labels_are_those_that_the_question_names(question: str, labels: str, choices: tuple[str, ...]):
    found = item("A", question)
    assert found.labels == tuple(labels)
    assert found.choices == choices


@pytest.mark.parametrize(
    "name",
    [{"id": "v1_7"}, {"id": 7}, {"index": "7"}, {"imagename": "v1_7.png"}, {"id": None, "index": 7}],
)
def test_a_row_of_a_copy_finds_its_official_key(name: dict[str, object]):
    row = {"question": "?", "answer": "A", "images": ()} | name
    assert to_item(row).id == "v1_7"


def test_a_row_without_a_key_is_refused_with_the_next_step():
    with pytest.raises(DatasetError, match="--data DIR"):
        to_item({"question": "?", "answer": "A", "images": ()})


def test_a_row_without_an_answer_column_is_refused():
    with pytest.raises(DatasetError, match="wanted question and answer"):
        to_item({"id": "v1_7", "question": "?", "images": ()})


def test_a_missing_answer_is_an_empty_gold():
    assert to_item(ROW | {"answer": None}).gold == ""


def test_a_tag_may_come_as_a_list_or_alone():
    assert to_item(ROW).tags["skill"] == ("inductive",)
    assert to_item(ROW | {"skill": "inductive"}).tags["skill"] == ("inductive",)
    assert to_item(ROW).tags["broad_capability"] == ()


def test_images_stand_beside_the_records_and_never_outside(tmp_path: Path):
    records = {"v1_0": {"imagename": "v1_0.png"}, "v1_1": {"imagename": "../../v1_1.png"}, "v1_2": {}}
    (tmp_path / "dataset.json").write_text(json.dumps(records), encoding="utf-8")
    images = [row["images"] for row in TASK.read_folder(tmp_path, "test")]
    assert images == [(ImageFile(tmp_path / "images" / f"v1_{number}.png"),) for number in range(3)]


def test_a_file_of_another_shape_is_refused(tmp_path: Path):
    (tmp_path / "dataset.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(DatasetError, match="no object of objects"):
        list(TASK.read_folder(tmp_path, "test"))


def test_bad_items_are_items(data: Path):
    assert set(TASK.bad_items) <= {each.id for each in loaded(data).items}


# The prompts


def test_the_official_prompt_puts_the_question_after_three_examples():
    text = TASK.prompts["official"].render(item("B")).text
    assert text.startswith("\nYour response should only contain letters/numbers,")
    assert text.count("question: ") == 4
    assert text.endswith("provided image:\nquestion: Which one? (A) one (B) two\nanswer: ")


def test_the_other_prompts_are_the_bare_question():
    assert TASK.prompts["vlmevalkit"].render(item("B")).text == "Which one? (A) one (B) two"
    assert TASK.prompts["vlmevalkit"].render(item("B")).system is None
    think = TASK.prompts["think"].render(item("B"))
    assert think.text == "Which one? (A) one (B) two"
    assert think.system is not None
    assert "<think>" in think.system


# The scorers


def test_both_published_rule_sets_need_a_judge():
    assert OFFICIAL.read is None
    assert KIT.read is None


def test_only_the_authors_count_the_item_without_an_answer():
    assert OFFICIAL.excluded == frozenset()
    assert KIT.excluded == TASK.scorers["robust"].excluded == {"v1_382"}


@pytest.mark.parametrize("model", PUBLISHED)
def test_official_agrees_with_every_published_verdict(data: Path, outputs: Path, model: str):
    rows = published(outputs, model)
    assert len(rows) == 448
    for each in loaded(data).items:
        extraction = rows[each.id]["official_extraction"]
        assert isinstance(extraction, list)
        assert OFFICIAL.compare(each, ", ".join(extraction)).correct == rows[each.id]["official_correct"], each.id


@pytest.mark.parametrize("model", PUBLISHED)
def test_published_extractions_reproduce_the_published_scores(data: Path, outputs: Path, model: str):
    rows, results = published(outputs, model), []
    for each in loaded(data).items:
        extraction = ", ".join(rows[each.id]["official_extraction"])
        results.append(Result(item=each, scores=(float(OFFICIAL.compare(each, extraction).correct),)))
    accuracy = TASK.metrics["accuracy"]
    parts = by_tag(results, "skill")
    assert "accuracy" in TASK.breakdowns["skill"]
    scores = [accuracy(results), *(accuracy(parts[skill]) for skill in SKILLS)]
    found = [f"{100 * estimate.value:.2f}" for estimate in scores if estimate.value is not None]
    assert (round(sum(result.mean for result in results)), *found) == PUBLISHED[model]


@pytest.mark.parametrize(
    ("gold", "extraction", "status"),
    [
        ("B", "b", Status.CORRECT),
        ("B", "B", Status.CORRECT),
        ("B", "a", Status.WRONG),
        ("B, D", "d, b", Status.CORRECT),
        ("B, D", "b, d, d", Status.WRONG),
        ("B, D", "bd", Status.WRONG),
        ("B", "zzzzz", Status.NO_ANSWER),
        ("B", "", Status.NO_ANSWER),
        ("3", "3", Status.CORRECT),
        ("", "", Status.CORRECT),
        ("", "b", Status.WRONG),
    ],
)
def test_official_compares_sorted_lists_of_letters(gold: str, extraction: str, status: Status):
    assert OFFICIAL.compare(item(gold), extraction).status is status


@pytest.mark.parametrize(
    ("gold", "reply", "status"),
    [
        ("B", "B", Status.CORRECT),
        ("B", " B\n", Status.CORRECT),
        ("B", "A", Status.WRONG),
        ("B, D", "DB", Status.CORRECT),
        ("B, D", "B", Status.WRONG),
        ("B, D", "b, d", Status.CORRECT),
        ("B", "zzzzz", Status.NO_ANSWER),
        ("B", "Z", Status.NO_ANSWER),
        ("B", "", Status.NO_ANSWER),
        ("3", "3", Status.NO_ANSWER),
    ],
)
def test_vlmevalkit_takes_letters_in_any_order_and_nothing_else(gold: str, reply: str, status: Status):
    assert KIT.compare(item(gold), reply).status is status


def test_every_gold_is_right_under_the_official_comparison(data: Path):
    assert all(OFFICIAL.compare(each, each.gold or "").correct for each in loaded(data).items)


def test_every_gold_but_two_is_right_under_vlmevalkits_comparison(data: Path):
    golds = {each.id: (each, (each.gold or "").replace(", ", "")) for each in loaded(data).items}
    assert [key for key, (each, gold) in golds.items() if not KIT.compare(each, gold).correct] == ["v1_20", "v1_382"]
