"""What each part costs, as a multiple of the plainest program that does about the same, measured in turn with it.

    tox -e bench

Machines differ, and the same machine differs from minute to minute; a ratio within one run moves little. Ours and the
reference take turns, and the quickest round of each counts, in CPU seconds: a busy machine stretches those the least.
The table at the end of the session has the ratios beside the largest that is accepted, about twice what was measured.
"""

import json
import os
import random
import re
import resource
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ahabench.harness.aha import moments as finder
from ahabench.harness.answers.robust import ROBUST
from ahabench.harness.runlog import ResponseLog
from ahabench.harness.score import judge_one
from ahabench.harness.types import AnswerType, Item, Response
from ahabench.trainer.data import TrainItem, read_records
from ahabench.trainer.rewards import MixedReward

ROUNDS = 5
Work = Callable[[], object]
Measure = Callable[..., None]


def cpu_s() -> float:
    """CPU time of this process and of the children that it waited for."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


@pytest.fixture
def measure(benchmark: BenchmarkFixture, record_ratio: Callable[..., Any], request: pytest.FixtureRequest) -> Measure:
    """Times ours and the reference in turn, and holds their ratio against a limit."""

    def both(name: str, ours: Work, reference: Work, *, beside: str, limit: float) -> None:
        benchmark.pedantic(ours, rounds=1)  # type: ignore[no-untyped-call]
        reference()
        if request.config.getoption("benchmark_disable"):
            return  # both work; a run that times nothing asserts nothing about time
        spent: dict[Work, list[float]] = {ours: [], reference: []}
        for turn in range(ROUNDS):
            for work in (ours, reference) if turn % 2 else (reference, ours):
                start = cpu_s()
                work()
                spent[work].append(cpu_s() - start)
        ratio = record_ratio(
            name, reference=beside, ours_s=min(spent[ours]), reference_s=min(spent[reference]), limit=limit
        )
        benchmark.extra_info |= {"reference": beside, "ratio": round(ratio.value, 3)}
        assert ratio.value < limit

    return both


NUMBERS = [
    Item(id=str(place), question="How many?", gold=str(place), answer_type=AnswerType.INTEGER) for place in range(200)
]
STEPS = "First, I look at bar {n}: it is 12 cm high. Then ${n} + 12 - 12 = {n}$, so nothing changes. "


def test_scorer(measure: Measure) -> None:
    from math_verify import parse, verify

    rounds = count()

    def texts() -> list[str]:
        # New in every round, so that nothing is remembered.
        start = f"Attempt {next(rounds)}. "
        return [start + 5 * STEPS.format(n=item.id) + f"\\boxed{{{item.gold}}}" for item in NUMBERS]

    def ours() -> int:
        responses = [Response(item_id="", text=text, finish_reason="stop") for text in texts()]
        return sum(judge_one(ROBUST, item, one).correct for item, one in zip(NUMBERS, responses, strict=True))

    def reference() -> int:
        return sum(bool(verify(parse(item.gold), parse(text))) for item, text in zip(NUMBERS, texts(), strict=True))

    assert ours() == reference() == len(NUMBERS)
    measure("scorer, 200 responses", ours, reference, beside="math-verify", limit=0.2)


def test_aha_counter(measure: Measure) -> None:
    draw = random.Random(0)
    words = "radius angle bar label axis wait triangle circle so hmm base value check segment sum again".split()
    text = ". ".join(" ".join(draw.choices(words, k=12)) for _ in range(6_000))
    keywords = re.compile(r"\b(?:wait|hmm|check|again|mistake|alternatively|however|recheck|aha)\b", re.IGNORECASE)

    def ours() -> int:
        finder._marks.cache_clear()
        return len(finder.moments(text))

    measure("aha counter, 0.4 MB", ours, lambda: len(keywords.findall(text)), beside="one regular expression", limit=30)


@pytest.fixture(scope="module")
def completions() -> tuple[list[TrainItem], list[str]]:
    """512 completions of built-in training items, most of them right."""
    from ahabench.tasks.mini.training import train_samples

    samples = [sample for sample in train_samples(600) if sample.record["verifier_type"] != "open_ended"][:512]
    items = read_records((sample.record for sample in samples), name="mini").items
    texts = [sample.hasty if place % 3 == 0 else sample.careful for place, sample in enumerate(samples)]
    return list(items), texts


def test_reward(measure: Measure, completions: tuple[list[TrainItem], list[str]]) -> None:
    items, texts = completions
    reward = MixedReward()

    def reference() -> list[float | None]:
        from trl.rewards.accuracy_rewards import accuracy_reward

        conversations = [[{"role": "assistant", "content": text}] for text in texts]
        found: list[float | None] = accuracy_reward(conversations, [item.gold for item in items])
        return found

    assert sum(outcome.reward or 0 for outcome in reward.judge(items, texts)) > 300
    work = {"ours": lambda: reward.judge(items, texts), "reference": reference}
    measure("reward, 512 completions", **work, beside="TRL's accuracy_reward", limit=0.2)


def test_run_log_append(measure: Measure, tmp_path: Path) -> None:
    text = "I look at the picture. " * 20
    ids = count()
    log = ResponseLog(tmp_path / "ours" / "responses.jsonl")
    bare = os.open(tmp_path / "bare.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def ours() -> None:
        for _ in range(300):
            log.append(Response(item_id=str(next(ids)), text=text, finish_reason="stop"), "0" * 64)

    def reference() -> None:
        for _ in range(300):
            row = {"item_id": str(next(ids)), "sample_index": 0, "prompt_sha256": "0" * 64, "response": text}
            os.write(bare, json.dumps(row).encode() + b"\n")
            os.fsync(bare)

    try:
        # Both wait for the disk as often; that is not counted.
        measure("run-log append, 300 rows", ours, reference, beside="write and fsync", limit=4)
    finally:
        log.close()
        os.close(bare)


def test_help(measure: Measure) -> None:
    command = [str(Path(sysconfig.get_path("scripts")) / "ahabench"), "--help"]
    hello = "import typer; app = typer.Typer(); app.command()(lambda: None); app(['--help'], prog_name='hello')"
    bare = [sys.executable, "-c", hello]

    def run(arguments: list[str]) -> str:
        return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout

    assert "compare" in run(command)
    assert "--help" in run(bare)
    measure("ahabench --help", lambda: run(command), lambda: run(bare), beside="an empty typer app", limit=6)
