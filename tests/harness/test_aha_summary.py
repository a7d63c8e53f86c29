"""A run's report, checked against numbers worked out by hand."""

import json
from pathlib import Path

import pytest

from ahabench.harness.aha.curve import NO_BASELINE, curve
from ahabench.harness.aha.summary import accuracy, counts, read_all, summarise
from ahabench.harness.aha.told import Told, read_told
from ahabench.harness.errors import UsageError

REFLECTS = "So the answer is 5. Wait, I misread the axis. So the answer is 6."
PLAIN = "So the answer is 5."


def told(item_id: str, sample: int, text: str, correct: bool | None, **more: object) -> Told:
    return Told(item_id=item_id, sample_index=sample, text=text, correct=correct, **more)  # type: ignore[arg-type]


def test_accuracy_is_compared_within_the_same_prompt():
    read = read_all(
        [
            # With a moment 1 of 2, without 0 of 1: +0.5.
            told("a", 0, REFLECTS, True),
            told("a", 1, REFLECTS, False),
            told("a", 2, PLAIN, False),
            # With 0 of 1, without 1 of 1: -1.
            told("b", 0, REFLECTS, False),
            told("b", 1, PLAIN, True),
            # Of one kind only: no pair.
            told("c", 0, PLAIN, True),
            told("d", 0, REFLECTS, None),
        ]
    )
    found = accuracy(read)
    assert found["with"]["value"] == pytest.approx(1 / 3)
    assert found["without"]["value"] == pytest.approx(2 / 3)
    within = found["within_prompt"]
    # Mean of +0.5 and -1; the standard error of two values is half their distance.
    assert (within["value"], within["n"]) == (pytest.approx(-0.25), 2)
    assert within["stderr"] == pytest.approx(0.75)
    assert within["ci95"] == [-1.0, 1.0]


def test_samples_of_different_steps_are_not_siblings():
    read = read_all([told("a", 0, REFLECTS, True, step=0), told("a", 1, PLAIN, False, step=1)])
    assert accuracy(read)["within_prompt"]["n"] == 0


def test_a_summary_counts_what_a_reader_would():
    read = read_all(
        [
            told("a", 0, REFLECTS, True, tokens=20, truncated=False, extracted="6"),
            told("b", 0, PLAIN, False, tokens=30, truncated=True),
        ]
    )
    summary = summarise(read)
    assert summary["n"] == 2
    assert summary["moments"] == 1
    assert summary["with_moment"]["value"] == 0.5
    assert summary["per_1000_tokens"] == pytest.approx(1000 / 50)
    assert summary["by_class"]["correction"]["moments"] == 1
    assert summary["truncated"]["value"] == 0.5
    assert summary["changes"]["wrong_to_right"] == 1
    assert summary["changes"]["net"] == 1
    # "Wait" begins at character 20 of 65.
    assert summary["position"]["first"] == pytest.approx(20 / len(REFLECTS))
    assert summary["position"]["deciles"][3] == 1
    assert summary["published"]["vlaa_data_split"]["hits"] == 1
    json.dumps(summary, allow_nan=False)


def test_an_empty_run_has_no_rates():
    summary = summarise([])
    assert summary["with_moment"]["value"] is None
    assert summary["per_1000_tokens"] is None
    assert summary["changes"]["candidates_found"] is None


def test_the_gold_decides_where_it_is_known():
    read = read_all([told("a", 0, REFLECTS, None)], lambda one, value: value == "5")
    assert summarise(read)["changes"]["right_to_wrong"] == 1


def test_counts_are_what_verdicts_keep():
    row = counts("Wait, I misread the axis. Maybe it is 6. I'm not sure.", "How many?")
    assert row["moments"] == 1
    assert row["classes"] == {"correction": 1}
    assert row["uncertainty"] == 1
    assert row["hedges"] == 1
    assert row["published"]["vlaa_training_plot"] == 1
    json.dumps(row, allow_nan=False)


def test_training_is_read_step_by_step_with_its_baseline():
    rows = []
    for step, reflecting in ((0, 1), (1, 2), (2, 3)):
        for sample in range(4):
            text = REFLECTS if sample < reflecting else PLAIN
            rows.append(told(f"{step}", sample, text, None, step=step, reward=step / 2, tokens=10))
    found = curve(read_all(rows))
    assert found is not None
    assert found["baseline"]["with_moment"] == 0.25
    assert found["note"] is None
    assert [row["with_moment"] for row in found["steps"]] == [0.25, 0.5, 0.75]
    # Share and reward both rise by the same amount each step.
    assert found["correlation"]["with_moment"]["pearson"] == pytest.approx(1)
    assert found["correlation"]["with_moment"]["n"] == 3
    # Every response has 10 tokens: no correlation of a constant.
    assert found["correlation"]["length"]["pearson"] is None


def test_without_step_0_it_says_so():
    found = curve(read_all([told("a", 0, PLAIN, None, step=3, reward=0.5)]))
    assert found is not None
    assert (found["baseline"], found["note"]) == (None, NO_BASELINE)


def test_an_evaluation_has_no_curve():
    assert curve(read_all([told("a", 0, PLAIN, True)])) is None


def write(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_a_run_is_read_with_its_verdicts(tmp_path: Path):
    write(
        tmp_path / "logicvista" / "responses.jsonl",
        {"item_id": 7, "sample_index": 1, "response": REFLECTS, "finish_reason": "length", "completion_tokens": 9},
        {"item_id": "8", "response": None},
    )
    write(
        tmp_path / "logicvista" / "verdicts.jsonl",
        {"item_id": "7", "sample_index": 1, "status": "correct", "extracted": "6"},
    )
    (one,) = read_told(tmp_path)
    assert (one.item_id, one.sample_index, one.task) == ("7", 1, "logicvista")
    assert (one.correct, one.extracted, one.truncated, one.tokens) == (True, "6", True, 9)
    assert (one.is_right("6.0"), one.is_right("5")) == (True, False)


def test_a_plain_file_needs_only_responses(tmp_path: Path):
    path = write(tmp_path / "x.jsonl", {"response": "a", "question": "b"}, {"response": "c", "item_id": "z"})
    assert [(one.item_id, one.question) for one in read_told(path)] == [("1", "b"), ("z", "")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"x\.jsonl:1 is no JSON"),
        ("[1]", r"x\.jsonl:1 is a list, wanted an object"),
        ('{"text": "a"}', r"x\.jsonl:1 has no 'response'; its keys are 'text'"),
        ('{"response": 3}', r"x\.jsonl:1 has a int as 'response'"),
        ("[" * 200_000, r"x\.jsonl:1 is no JSON"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, line: str, message: str):
    path = tmp_path / "x.jsonl"
    path.write_text(line)
    with pytest.raises(UsageError, match=message):
        read_told(path)


def test_a_folder_without_responses_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="holds no responses"):
        read_told(tmp_path)
