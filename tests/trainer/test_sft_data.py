"""Demonstrations out of records: where a completion comes from, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness.errors import DatasetError
from ahabench.trainer.rewards import only_answer
from ahabench.trainer.sft_data import completion_of, load_demonstrations, read_demonstrations

ROW = {"id": "a-1", "question": "How many?"}


def row(**values: Any) -> dict[str, Any]:
    return {**ROW, **values}


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        # As it stands, blanks and all.
        ({"completion": "<think> 2 </think>\n<answer> 2</answer>"}, "<think> 2 </think>\n<answer> 2</answer>"),
        ({"ds_answer": "<think>one two</think> <answer>2</answer>"}, "<think>one two</think> <answer>2</answer>"),
        ({"reasoning": "I count two.", "answer": 2}, "<think>I count two.</think><answer>2</answer>"),
        ({"reasoning": "<think>I count</think>", "answer": "two"}, "<think>I count</think><answer>two</answer>"),
        # The form that the authors' README shows.
        (
            {"ds_answer": "<think>\nTwo.\n</think>  There are.\n\n**Answer:** 2\n"},
            "<think>Two.</think><answer>2</answer>",
        ),
        ({"ds_answer": "<think>Two.</think>\nThere are two."}, "<think>Two.</think><answer>There are two.</answer>"),
        # DeepSeek-R1's template opens the thought itself, so that a trace begins inside it.
        ({"ds_answer": "Two.</think>**ANSWER:** 2"}, "<think>Two.</think><answer>2</answer>"),
        ({"ds_answer": "<think>a</think>**Answer:** 1 or **Answer:** 2"}, "<think>a</think><answer>2</answer>"),
    ],
)
def test_a_completion_has_one_answer_tag(values: dict[str, Any], wanted: str) -> None:
    found = completion_of(row(**values), "here")
    assert found == wanted
    assert only_answer(found) is not None


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({}, "wanted one of 'completion'"),
        ({"ds_answer": "It is 2."}, "wanted <think>reasoning</think>"),
        ({"ds_answer": "<think></think>2"}, "wanted <think>reasoning</think>"),
        ({"ds_answer": "<think>one</think> **Answer:** "}, "wanted <think>reasoning</think>"),
        ({"ds_answer": "<think>a</think>b</think>c"}, "wanted <think>reasoning</think>"),
        ({"completion": "<answer>1</answer><answer>2</answer>"}, "wanted one <answer>"),
        ({"completion": "<think>a</think><answer>1"}, "wanted one <answer>"),
        ({"completion": "<think>a</think><answer>1</answer><|im_end|>"}, "control token '<|im_end|>'"),
        ({"reasoning": "two"}, "wanted a text as 'answer'"),
        ({"completion": 7.5}, "wanted a text as 'completion'"),
    ],
)
def test_a_record_without_a_clear_answer_is_refused(values: dict[str, Any], why: str) -> None:
    with pytest.raises(DatasetError, match="a-1") as refused:
        read_demonstrations([row(**values)], name="file")
    assert why in str(refused.value)


def test_an_image_token_in_a_question_is_refused() -> None:
    rows = [row(question="What is <|image_pad|>?", completion="<answer>1</answer>")]
    with pytest.raises(DatasetError, match="its question holds the control token"):
        read_demonstrations(rows, name="file")


def test_bad_records_are_left_out_only_if_asked() -> None:
    rows = [row(completion="<answer>1</answer>"), row(id="a-2"), row(completion="<answer>1</answer>")]
    found = read_demonstrations(rows, name="file", skip_bad=True)
    assert [item.id for item in found.items] == ["a-1"]
    assert "record 1 (a-2)" in found.skipped[0]
    assert "repeats the id 'a-1'" in found.skipped[1]


def test_a_file_of_bad_records_alone_is_refused() -> None:
    with pytest.raises(DatasetError, match="has no usable record"):
        read_demonstrations([row()], name="file", skip_bad=True)


def test_an_array_and_lines_hold_the_same(tmp_path: Path, records: Path) -> None:
    rows = [row(id=str(n), image=f"images/{n}.png", ds_answer=f"<think>n</think>{n}") for n in range(3)]
    for folder in ("array", "lines"):
        (tmp_path / folder).mkdir()
    (tmp_path / "array" / "sft.json").write_text(json.dumps(rows))
    (tmp_path / "lines" / "sft.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    array, lines = (load_demonstrations(tmp_path / folder, images=records) for folder in ("array", "lines"))
    assert array == lines
    assert array.digest == lines.digest
    assert [item.images[0].read() for item in array.items] == [
        (records / "images" / f"{n}.png").read_bytes() for n in range(3)
    ]


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    file = tmp_path / "sft.json"
    file.write_text(json.dumps([row(image="images/7.png", completion="<answer>1</answer>")]))
    with pytest.raises(DatasetError, match=r"images/7\.png is missing; name the folder with images=DIR"):
        load_demonstrations(file)


def test_the_digest_moves_with_a_completion() -> None:
    one, other = (read_demonstrations([row(completion=f"<answer>{n}</answer>")], name="file").digest for n in (1, 2))
    assert one != other


def test_every_built_in_record_is_a_demonstration() -> None:
    from ahabench.trainer.task import MINI_RECORDS, built_in_records

    found = read_demonstrations(built_in_records(), name="mini")
    assert len(found.items) == MINI_RECORDS
    assert all(only_answer(item.completion) and item.images for item in found.items)
