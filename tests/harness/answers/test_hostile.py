import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness.answers import symbolic
from ahabench.harness.answers.robust import ROBUST
from ahabench.harness.score import judge_one
from ahabench.harness.types import AnswerType, Item, Response, Status

DATA = Path(__file__).parents[2] / "data" / "hostile.jsonl"
CORPUS: list[dict[str, str]] = [json.loads(line) for line in DATA.read_text(encoding="ascii").splitlines()]
REPEATED = [row for row in CORPUS if "repeat" in row]
FIXED = [row for row in CORPUS if "text" in row]
LONG = 400_000
"""Characters: four times the shorter round, so that what is quadratic takes sixteen times as long."""
MEMORY_BYTES = 4 * 1024**3
LIMIT_S = 240
"""Seconds for a part of the corpus. Linear rules take a quarter of it on a slow machine, quadratic ones take hours."""

VERDICTS = set(Status) - {Status.ERROR}
QUESTION = "Which of the animals in the picture is the smallest one of all?"


def an_item(name: str, answer_type: AnswerType, gold: str, **fields: Any) -> Item:
    return Item(id=name, question=QUESTION, gold=gold, answer_type=answer_type, **fields)


ITEMS = (
    an_item("words", AnswerType.CHOICE, "B", choices=("cat", "dog", "emu", "fox"), labels=tuple("ABCD")),
    an_item("formulas", AnswerType.CHOICE, "B", choices=(r"\sqrt{2}", "2^{10}", "x+1", "5 cm"), labels=tuple("ABCD")),
    an_item("picture", AnswerType.CHOICES, "B, D", labels=tuple("ABCDEFGHI")),
    an_item("integer", AnswerType.INTEGER, "7"),
    an_item("rounded", AnswerType.FLOAT, "3.14", precision=2),
    an_item("near", AnswerType.FLOAT, "3.14", tolerance=0.001),
    an_item("text", AnswerType.TEXT, "March"),
    an_item("list", AnswerType.LIST, "[1, 2]"),
    an_item("number", AnswerType.EXPRESSION, "27"),
    an_item("expression", AnswerType.EXPRESSION, r"\frac{\sqrt{3}}{2}x^2+1"),
)


def text_of(row: dict[str, str], size: int) -> str:
    """Return a row's text, of about `size` characters where a piece is repeated."""
    if "text" in row:
        return row["text"]
    times = (size - len(row["before"]) - len(row["after"])) // len(row["repeat"])
    return row["before"] + row["repeat"] * max(1, times) + row["after"]


def verdicts(row: dict[str, str], size: int, names: list[str], finish_reasons: list[str]) -> Iterator[str]:
    """Yield the status of a row's text for the items of these names."""
    text = text_of(row, size)
    for item in ITEMS:
        for finish_reason in finish_reasons if item.id in names else []:
            response = Response(item_id=item.id, text=text, finish_reason=finish_reason)
            verdict = judge_one(ROBUST, item, response)
            json.dumps([verdict.extracted, verdict.rule])
            yield verdict.status.value


def main(size: int, names: list[str], finish_reasons: list[str]) -> None:
    """Judge the rows of standard input, telling which: what runs in a process of its own."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    # The time of computer algebra is bounded by its deadline, which has tests of its own.
    symbolic.DEADLINE_S = 0.5
    for row in json.load(sys.stdin):
        print("?", row["name"], flush=True)
        print(*verdicts(row, size, names, finish_reasons), flush=True)


def run(folder: Path, rows: list[dict[str, str]], size: int, names: list[str], finish_reasons: list[str]) -> list[str]:
    """Return the lines that `main` printed, or fail with the row that it was at."""
    code = f"import runpy; runpy.run_path({str(__file__)!r})['main']({size}, {names}, {finish_reasons})"
    command = [sys.executable, "-P", "-c", code]
    process = subprocess.Popen(
        command, stdin=-1, stdout=-1, stderr=-1, cwd=folder, env=os.environ | {"PYTHONUTF8": "1"}
    )
    try:
        out, err = process.communicate(json.dumps(rows).encode(), timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"more than {LIMIT_S} s; the last was: {out.decode().splitlines()[-1:]}", pytrace=False)
    lines = out.decode().splitlines()
    assert process.returncode == 0, (lines[-1:], err.decode()[-2000:])
    return lines


EVERY_ITEM = [item.id for item in ITEMS]
FULL = pytest.param(LONG, EVERY_ITEM, marks=pytest.mark.slow)


# The rules look at 24,000 characters of prose at most, so a hundred thousand show the passes over the whole text too.


@pytest.mark.parametrize(("size", "names"), [(100_000, ["formulas", "integer"]), FULL])
def test_every_repetition_ends_in_verdicts_in_linear_time(size: int, names: list[str], tmp_path: Path):
    lines = run(tmp_path, REPEATED, size, names, ["stop"])
    assert lines[::2] == [f"? {row['name']}" for row in REPEATED]
    for name, line in zip(lines[::2], lines[1::2], strict=True):
        assert len(line.split()) == len(names), name
        assert set(line.split()) <= VERDICTS, name
    assert os.listdir(tmp_path) == []


def test_every_repetition_of_a_thousand_characters_ends_in_verdicts_for_every_item(tmp_path: Path):
    lines = run(tmp_path, REPEATED, 1_000, EVERY_ITEM, ["length"])
    assert len(lines) == 2 * len(REPEATED)
    for name, line in zip(lines[::2], lines[1::2], strict=True):
        assert len(line.split()) == len(ITEMS), name
        assert set(line.split()) <= VERDICTS, name


# Each formula that computer algebra gives up on costs a deadline and a new worker, so few items are asked by default.
@pytest.mark.parametrize(
    "names",
    [["words", "picture", "rounded", "text", "list", "expression"], pytest.param(EVERY_ITEM, marks=pytest.mark.slow)],
    ids=["six items", "every item"],
)
def test_every_formula_and_payload_ends_in_verdicts_and_runs_nothing(names: list[str], tmp_path: Path):
    lines = run(tmp_path, FIXED, 0, names, ["stop"])
    assert len(lines) == 2 * len(FIXED)
    for name, line in zip(lines[::2], lines[1::2], strict=True):
        assert len(line.split()) == len(names), name
        assert set(line.split()) <= VERDICTS, name
    assert os.listdir(tmp_path) == []


# What asks for a verdict does not get it. None of these texts holds an answer that is right for any of the items.
@pytest.mark.parametrize(
    "name",
    [
        "an instruction to the scorer",
        "an instruction in a tag",
        "a claim to be right",
        "a claim to every option",
        "every option in a tag",
        "a worker's reply",
        "a JSON line into the worker",
        "a format string",
        "a template",
        "SQL",
        "not a number",
        "infinity",
        "a thousand digits",
    ],
)
def test_a_text_that_asks_for_a_verdict_is_not_correct(name: str):
    row = next(row for row in CORPUS if row["name"] == name)
    for item in ITEMS:
        if name == "SQL" and item.id in {"words", "formulas"}:
            continue  # "B')" opens with the letter B, which a reader of letters may take
        verdict = judge_one(ROBUST, item, Response(item_id=item.id, text=row["text"], finish_reason="stop"))
        assert not verdict.correct, (item.id, verdict)


def test_the_corpus_names_each_text_once_and_covers_every_answer_type():
    names = [row["name"] for row in CORPUS]
    assert len(set(names)) == len(names)
    assert {item.answer_type for item in ITEMS} == set(AnswerType)
    assert len(REPEATED) >= 100
    assert len(FIXED) >= 60
