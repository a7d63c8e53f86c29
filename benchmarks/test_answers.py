"""Time of the judge-free rules on hostile and on ordinary responses, by length: ten times the text, ten times the time.

Shown by `pytest benchmarks/test_answers.py --benchmark-group-by=param:name --benchmark-columns=min,median`.
"""

import json
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ahabench.harness.answers.robust import ROBUST
from ahabench.harness.score import judge_one
from ahabench.harness.types import AnswerType, Item, Response, Status

DATA = Path(__file__).parents[1] / "tests" / "data" / "hostile.jsonl"
SHAPES = {row["name"]: row for row in map(json.loads, DATA.read_text(encoding="ascii").splitlines()) if "repeat" in row}
REASONING = "First, I look at the {n}. bar: it is 12 cm high, so it is $\\frac{{1}}{{2}} \\cdot {n}$. A does not fit.\n"
QUESTION = "Which of the animals in the picture is the smallest one of all?"
CHOICE = Item(
    id="choice",
    question=QUESTION,
    gold="B",
    answer_type=AnswerType.CHOICE,
    choices=("cat", "dog", "emu", "fox"),
    labels=tuple("ABCD"),
)
NUMBER = Item(id="integer", question=QUESTION, gold="7", answer_type=AnswerType.INTEGER)


def judge(item: Item, text: str) -> Status:
    return judge_one(ROBUST, item, Response(item_id=item.id, text=text, finish_reason="stop")).status


@pytest.mark.parametrize("size", [10_000, 100_000, 1_000_000])
@pytest.mark.parametrize("item", [CHOICE, NUMBER], ids=lambda item: item.id)
@pytest.mark.parametrize(
    "name",
    [
        "spaces",
        "line ends",
        "heading signs alone",
        "letters of the alphabet with blanks",
        "listing of the options over and over",
        "commas",
        "digits, a megabyte of them",
        "digits in groups",
        "digits with blanks",
        "fractions side by side",
        "round openings",
        "stars of Markdown",
        "cue 'answer is' over and over",
        "box openings",
        "answer tags",
        "verdicts that never come",
        "refusals that never end",
        "JSON keys with open strings",
        "text commands",
    ],
)
def test_a_hostile_response_is_judged(benchmark: BenchmarkFixture, name: str, item: Item, size: int):
    row = SHAPES[name]
    text = row["before"] + row["repeat"] * (size // len(row["repeat"])) + row["after"]
    assert benchmark.pedantic(judge, (item, text), rounds=3, warmup_rounds=1) is not Status.ERROR


@pytest.mark.parametrize("size", [1_000, 10_000, 100_000])
@pytest.mark.parametrize(("item", "gold"), [(CHOICE, "B"), (NUMBER, "7")], ids=["choice", "integer"])
def test_an_ordinary_response_is_judged(benchmark: BenchmarkFixture, item: Item, gold: str, size: int):
    steps = "".join(REASONING.format(n=n) for n in range(size // len(REASONING)))
    assert benchmark(judge, item, f"{steps}\nTherefore, the answer is {gold}.") is Status.CORRECT
