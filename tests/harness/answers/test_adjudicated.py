"""What people read in responses on which `robust` and the published verdicts differed.

`adjudicated.jsonl` is a seeded sample of the disagreements of `robust@1` as it was first written (MathVision 160 of
493, MathVista 140 of 452, LogicVista all 43), each read with its question and gold. `who_is_right` tells the truth
about the response: the published verdict where it is "official", its opposite where it is "robust".
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness import registry
from ahabench.harness.dataset import load, without_images
from ahabench.harness.runlog import parse_response, read_rows
from ahabench.harness.score import judge_one

CASES: list[dict[str, str]] = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "data" / "adjudicated.jsonl").read_text(encoding="utf-8").splitlines()
]
KEYS = {(case["task"], case["model"], case["item_id"]): case for case in CASES}
KNOWN_FAILURES = {
    ("logicvista", "instructBLIP-vicuna-7B", "v1_266"),
    ("logicvista", "miniGPTvicuna7B", "v1_32"),
    ("logicvista", "miniGPTvicuna7B", "v1_101"),
    ("logicvista", "miniGPTvicuna7B", "v1_110"),
    ("logicvista", "miniGPTvicuna7B", "v1_143"),
    ("logicvista", "miniGPTvicuna7B", "v1_149"),
    ("logicvista", "miniGPTvicuna7B", "v1_278"),
    ("logicvista", "miniGPTvicuna7B", "v1_315"),
    ("logicvista", "miniGPTvicuna7B", "v1_330"),
    ("logicvista", "miniGPTvicuna7B", "v1_424"),
    ("logicvista", "miniGPTvicuna7B", "v1_432"),
    ("mathvision", "thirdparty__URSA-8B", "378"),
    ("mathvista", "gpt4_2shot_solution", "33"),
    ("mathvista", "llava_llama_2_13b", "476"),
}
"""Decided cases on which `robust` is wrong today."""


def test_the_sample_is_large_and_says_why() -> None:
    assert len(KEYS) == len(CASES) >= 300
    assert {case["task"] for case in CASES} == {"mathvista", "mathvision", "logicvista"}
    assert {case["who_is_right"] for case in CASES} == {"robust", "official", "both_defensible"}
    assert all(case["why"] for case in CASES)


def test_robust_was_right_in_most_decided_cases_of_mathvision() -> None:
    counts = Counter(case["who_is_right"] for case in CASES if case["task"] == "mathvision")

    assert counts["robust"] / (counts["robust"] + counts["official"]) >= 0.8


@pytest.fixture(scope="session")
def verdicts(data: Path, outputs: Path) -> dict[tuple[str, str, str], tuple[bool, bool]]:
    """Return (robust's verdict today, the published verdict) by case."""
    found: dict[tuple[str, str, str], tuple[bool, bool]] = {}
    for name in ("mathvista", "mathvision", "logicvista"):
        task = registry.find_task(name)
        items = {item.id: item for item in without_images(load(task, data=data).items)}
        for file in sorted((outputs / name).glob("*.jsonl")):
            for number, row in read_rows(file):
                key = (name, row["model"], row["item_id"])
                if key in KEYS:
                    response = parse_response(row, file, number)
                    verdict = judge_one(task.scorers["robust"], items[row["item_id"]], response)
                    found[key] = (verdict.correct, row["official_correct"])
    return found


def test_every_case_is_in_the_outputs(verdicts: dict[Any, Any]) -> None:
    assert verdicts.keys() == KEYS.keys()


def test_robust_says_what_readers_say_but_for_the_known_failures(
    verdicts: dict[tuple[str, str, str], tuple[bool, bool]],
) -> None:
    wrong = set()
    for key, (ours, official) in verdicts.items():
        who = KEYS[key]["who_is_right"]
        truth = official if who == "official" else not official
        if who != "both_defensible" and ours != truth:
            wrong.add(key)

    assert wrong == KNOWN_FAILURES
