import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ahabench.harness.errors import DatasetError, UsageError
from ahabench.harness.types import AnswerType
from ahabench.trainer.boxes import BoxFormat, BoxUnits
from ahabench.trainer.data import Kind, inline_options, load_records, read_records, to_train_item

GEOMETRY = "As shown, find angle B.\nChoices:\nA: 27°\nB: 30°\nC: 45°\nD: 60°"


def record(**values: Any) -> dict[str, Any]:
    return {"id": "clevr-1", "question": "How many cubes?", "gt": 3, "verifier_type": "digit"} | values


def test_an_integer_gold_becomes_an_integer_item() -> None:
    found = to_train_item(record(), where="x")
    assert (found.kind, found.item.gold, found.item.answer_type) == (Kind.DIGIT, "3", AnswerType.INTEGER)


@pytest.mark.parametrize(
    ("spelling", "kind"),
    [("mcq", Kind.MCQ), ("MCQ", Kind.MCQ), ("open-ended", Kind.OPEN_ENDED), ("open_ended", Kind.OPEN_ENDED)],
)
def test_verifier_types_are_read_without_case_and_hyphens(spelling: str, kind: Kind) -> None:
    row = record(verifier_type=spelling, question=GEOMETRY, gt="B")
    assert to_train_item(row, where="x").kind is kind


@pytest.mark.parametrize("gold", ["D", "D)", "(d)", "d", "D: 60°", "(D) 60°", " D "])
def test_the_spellings_of_a_letter_gold_are_one(gold: str) -> None:
    found = to_train_item(record(verifier_type="mcq", question=GEOMETRY, gt=gold), where="x")
    assert found.item.gold == "D"
    assert found.item.labels == ("A", "B", "C", "D")
    assert found.item.choices == ("27°", "30°", "45°", "60°")


def test_a_gold_of_several_letters_is_a_set() -> None:
    found = to_train_item(record(verifier_type="mcq", question=GEOMETRY, gt="B, D"), where="x")
    assert (found.item.gold, found.item.answer_type) == ("B, D", AnswerType.CHOICES)


def test_options_in_parentheses_are_read() -> None:
    question = "Which?\nChoose from the following options\nA) one\nB) two\n(C) three"
    assert inline_options(question) == (("A", "B", "C"), ("one", "two", "three"))


def test_options_that_stand_in_the_picture_have_labels_only() -> None:
    found = to_train_item(record(verifier_type="mcq", question="Which figure?", gt="E"), where="x")
    assert (found.item.labels, found.item.choices) == (("A", "B", "C", "D", "E"), ())


def test_a_math_gold_is_what_follows_its_last_mark() -> None:
    gold = "Step 1 (slope): 2\nStep 2: intercept 1\n†Answer: y = 2x+1"
    assert to_train_item(record(verifier_type="math", gt=gold), where="x").gold == "y = 2x+1"


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (record(verifier_type="digits"), "unknown verifier_type 'digits'"),
        (record(gt="three"), "wanted an integer"),
        (record(gt=None), "wanted a text or a number as 'gt'"),
        (record(gt=True), "wanted a text or a number as 'gt'"),
        (record(question=""), "'question'"),
        (record(verifier_type="mcq", question=GEOMETRY, gt="E"), "wanted one of A, B, C, D"),
        (record(verifier_type="mcq", gt="sixty"), "wanted an option's letter"),
        (record(verifier_type="math", gt="Step 1\n†Answer: "), "is empty"),
        (record(question="What is <|image_pad|>?"), "control token '<|image_pad|>'"),
        (record(image=3), "wanted a path or an image"),
        (record(verifier_type="iou", gt="[0, 0, 1, 1]"), "declares no box units"),
        (record(verifier_type="iou", gt="[0, 0, 1, 1]", meta={"box_units": "cm"}), "unknown box units 'cm'"),
        (record(verifier_type="iou", gt="[0, 0, 7, 7]", meta={"box_units": "normalised"}), "wanted a box"),
    ],
)
def test_a_bad_record_is_refused_by_name(row: dict[str, Any], what: str) -> None:
    with pytest.raises(DatasetError, match="clevr-1") as refused:
        to_train_item(row, where="train.json, record 7")
    assert what in str(refused.value)


def test_box_units_of_the_record_go_before_those_of_the_recipe() -> None:
    row = record(verifier_type="iou", gt="[0, 0, 500, 500]", meta={"box_units": "0-1000"})
    found = to_train_item(row, where="x", box_units=BoxUnits.NORMALISED)
    assert found.boxes == BoxFormat(gold=BoxUnits.THOUSAND, answer=BoxUnits.THOUSAND)


def test_pixel_answers_to_a_normalised_gold_know_the_image_size(tmp_path: Path) -> None:
    Image.new("RGB", (640, 480)).save(tmp_path / "cat.png")
    meta = {"box_units": "normalised", "answer_units": "pixel"}
    row = record(verifier_type="iou", gt="[0, 0, 0.5, 0.5]", meta=meta, image="cat.png")
    found = to_train_item(row, where="x", images=tmp_path)
    assert found.boxes == BoxFormat(gold=BoxUnits.NORMALISED, answer=BoxUnits.PIXEL, image_size=(640, 480))


@pytest.mark.parametrize("path", ["../secret.png", "/etc/hostname"])
def test_an_image_path_may_not_leave_its_folder(path: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="leaves the image folder"):
        to_train_item(record(image=path), where="x", images=tmp_path)


@pytest.mark.parametrize("path", ["gone.png", "", ".", "x" * 5_000, "a\0b"])
def test_an_image_that_is_no_file_is_named(path: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is missing; name the folder with images=DIR"):
        to_train_item(record(image=path), where="x", images=tmp_path)


def test_a_json_array_and_json_lines_hold_the_same_items(tmp_path: Path) -> None:
    rows = [record(), record(id="clevr-2", gt=5)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert load_records(tmp_path / "a.json") == load_records(tmp_path / "b.jsonl")


def test_a_folder_stands_for_the_one_file_in_it(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([record()]))
    assert [item.item.id for item in load_records(tmp_path).items] == ["clevr-1"]
    (tmp_path / "b.json").write_text("[]")
    with pytest.raises(UsageError, match="holds 2 JSON files"):
        load_records(tmp_path)


def test_skipping_keeps_the_good_records_and_says_why_others_went() -> None:
    found = read_records([record(), record(id="x", gt="many"), record()], name="train.json", skip_bad=True)
    assert [item.item.id for item in found.items] == ["clevr-1"]
    assert [why for why in found.skipped if "wanted an integer" in why or "repeats the id" in why] == list(
        found.skipped
    )
    assert len(found.skipped) == 2


def test_records_of_which_none_is_left_are_refused() -> None:
    with pytest.raises(DatasetError, match="no usable record"):
        read_records([record(gt="many")], name="train.json", skip_bad=True)


def test_a_repeated_id_is_refused() -> None:
    with pytest.raises(DatasetError, match="repeats the id 'clevr-1'"):
        read_records([record(), record()], name="train.json")
