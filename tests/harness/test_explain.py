"""Why a response got its verdict: the steps end where the verdict says, and nothing is written."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness.answers import robust
from ahabench.harness.explain import MAX_SHOWN, explain
from ahabench.harness.types import AnswerType, Item, Response, Scorer, Status, Verdict

SCRIPT = str(Path(sys.executable).with_name("ahabench"))
TOY = Path(__file__).parent / "toy"
NUMBER = Item(id="n", question="What is 3 + 4?", gold="7", answer_type=AnswerType.INTEGER)
CHOICE = Item(
    id="c",
    question="Which is a fruit?",
    gold="B",
    answer_type=AnswerType.CHOICE,
    choices=("stone", "apple", "chair", "cloud"),
    labels=("A", "B", "C", "D"),
)


def explained(item: Item, text: str | None, **fields: Any) -> dict[str, Any]:
    return explain(robust.ROBUST, item, Response(item_id=item.id, text=text, **fields))


@pytest.mark.parametrize(
    ("item", "text", "read", "status"),
    [
        (NUMBER, "<answer>7</answer>", "7", "correct"),
        (NUMBER, "So it is \\boxed{8}.", "8", "wrong"),
        (CHOICE, "The answer is (B).", "B", "correct"),
        (CHOICE, "<answer>C</answer>", "C", "wrong"),
    ],
)
def test_the_last_step_is_the_one_that_decided(item: Item, text: str, read: str, status: str) -> None:
    row = explained(item, text)
    last = row["steps"][-1]
    assert row["status"] == status
    assert row["rule"] == f"{last['extractor']}/{last['comparison']}"
    assert (last["read"], last["compared_with"], last["equal"]) == (read, item.gold, status == "correct")


def test_the_item_is_shown_with_its_options_by_label() -> None:
    row = explained(CHOICE, "B")
    assert row["choices"] == {"A": "stone", "B": "apple", "C": "chair", "D": "cloud"}
    assert (row["item_id"], row["question"], row["gold"], row["answer_type"]) == (
        "c",
        "Which is a fruit?",
        "B",
        "choice",
    )


def test_options_that_stand_only_in_the_picture_are_shown_by_their_labels() -> None:
    item = Item(id="p", question="Which?", gold="A", answer_type=AnswerType.CHOICE, labels=("A", "B"))
    assert explained(item, "A")["choices"] == ["A", "B"]


@pytest.mark.parametrize(("finish", "status"), [("stop", "no_answer"), ("length", "truncated"), (None, "no_answer")])
def test_a_response_without_an_answer_has_no_equal_step(finish: str | None, status: str) -> None:
    row = explained(NUMBER, "Let me think about this.", finish_reason=finish)
    assert row["status"] == status
    assert not any(step["equal"] for step in row["steps"])


def test_what_was_never_generated_is_explained_as_that() -> None:
    row = explained(NUMBER, None)
    assert (row["status"], row["rule"]) == ("error", "not-generated")


def test_a_long_span_is_shortened() -> None:
    row = explained(NUMBER, f"<answer>{'very ' * 1000}7</answer>")
    assert row["steps"]
    assert max(len(step["span"]) for step in row["steps"]) <= MAX_SHOWN


def test_another_scorer_has_its_verdict_and_no_steps() -> None:
    def read(item: Item, response: Response) -> Verdict:
        return Verdict(status=Status.WRONG, extracted=response.text, rule="mine")

    scorer = Scorer(version=1, read=read, compare=lambda item, extracted: read(item, Response(item_id="", text="")))
    row = explain(scorer, NUMBER, Response(item_id="n", text="7"))
    assert (row["status"], row["extracted"], row["rule"], row["steps"]) == ("wrong", "7", "mine", [])


# The command.


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(TOY))
    rows = [{"item_id": "a1", "sample_index": n, "response": text} for n, text in enumerate(("2", "[red]3[/x]"))]
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def score(file: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [SCRIPT, "score", str(file), "--task", "toy", "--data", str(TOY / "data"), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_every_sample_of_an_item_is_explained_and_nothing_written(file: Path) -> None:
    done = score(file, "--explain", "a1", "--json")
    assert done.returncode == 0, done.stderr
    assert [(row["status"], row["extracted"]) for row in json.loads(done.stdout)] == [("correct", "2"), ("wrong", "3")]
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_an_explanation_for_a_person_names_the_verdict(file: Path) -> None:
    done = score(file, "--explain", "a1")
    assert done.returncode == 0, done.stderr
    assert "verdict: correct (rule same, extracted '2')" in done.stdout


@pytest.mark.parametrize(
    ("item_id", "why"), [("a9", "toy test has no item 'a9'"), ("a2", "has no response to item 'a2'")]
)
def test_what_cannot_be_explained_is_refused(file: Path, item_id: str, why: str) -> None:
    done = score(file, "--explain", item_id)
    assert done.returncode == 2
    assert why in done.stderr
