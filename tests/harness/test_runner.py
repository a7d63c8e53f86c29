"""Generation to disk with the real replay engine: a run, going on, saying what failed."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from sums import THINK, Named, dataset, go, plan, recording, rows

from ahabench.harness.disk import locked
from ahabench.harness.engines.replay import ReplayEngine
from ahabench.harness.errors import EngineError, UsageError
from ahabench.harness.manifest import read_manifest
from ahabench.harness.prompts import digest
from ahabench.harness.runner import Plan, TaskPlan
from ahabench.harness.types import Prompt, Request, Response

# A run from beginning to end.


def test_every_item_and_sample_is_generated_once(tmp_path: Path) -> None:
    engine = ReplayEngine(recording(tmp_path / "said.jsonl", samples=2))
    manifest, _ = go(plan(samples=2), engine, tmp_path / "run")
    assert manifest.status == "complete"
    assert rows(tmp_path / "run") == {(str(n), s): f"{n}/{s}:".ljust(20, "x") for n in range(6) for s in range(2)}


def test_the_manifest_says_what_was_asked(tmp_path: Path) -> None:
    whole = dataset(n_items=6)
    part = TaskPlan(dataset=replace(whole, items=whole.items[:4]), style="think", prompt=THINK, limit=4)
    engine = ReplayEngine(recording(tmp_path / "said.jsonl"), model="somebody")
    manifest, _ = go(Plan(tasks=(part,)), engine, tmp_path / "run")
    assert manifest == read_manifest(tmp_path / "run")
    assert manifest.model.name == "somebody"
    assert manifest.model.weights_digest is None
    assert manifest.engine.name == "replay"
    assert manifest.system_prompt == "Think first."
    assert manifest.tasks["sums"].model_dump() == {
        "split": "test",
        "source": "folder",
        "revision": None,
        "data_digest": whole.digest,
        "n_items": 4,
        "limit": 4,
        "prompt": {"style": "think", "version": 1},
    }
    assert manifest.packages["python"] == ".".join(map(str, sys.version_info[:3]))


def test_each_row_names_the_prompt_that_was_asked(tmp_path: Path) -> None:
    engine = ReplayEngine(recording(tmp_path / "said.jsonl"))
    go(plan(system_prompt="Be brief."), engine, tmp_path / "run")
    lines = (tmp_path / "run" / "sums" / "responses.jsonl").read_text().splitlines()
    asked = Prompt(text="sums: 0 + 0?", system="Be brief.")
    assert json.loads(lines[0])["prompt_sha256"] == digest(asked, 0)
    assert read_manifest(tmp_path / "run").system_prompt == "Be brief."


def test_no_system_prompt_is_known_to_be_none(tmp_path: Path) -> None:
    manifest, _ = go(plan(), ReplayEngine(recording(tmp_path / "said.jsonl")), tmp_path / "run")
    assert manifest.system_prompt == ""


def test_two_tasks_may_share_item_ids(tmp_path: Path) -> None:
    first = go(plan(), ReplayEngine(recording(tmp_path / "said.jsonl")), tmp_path / "run")[0]
    both, _ = go(
        plan(dataset("sums"), dataset("products")), ReplayEngine(recording(tmp_path / "said.jsonl")), tmp_path / "both"
    )
    assert rows(tmp_path / "both", "products") == rows(tmp_path / "both", "sums") == rows(tmp_path / "run")
    assert (first.status, both.status) == ("complete", "complete")


def test_two_splits_of_a_task_need_two_runs() -> None:
    with pytest.raises(UsageError, match="sums is asked for twice"):
        plan(dataset(), dataset(split="train"))


# Going on.


def test_a_second_call_generates_only_what_is_missing(tmp_path: Path) -> None:
    said, out = recording(tmp_path / "said.jsonl"), tmp_path / "run"
    go(plan(), ReplayEngine(said), out)
    log = out / "sums" / "responses.jsonl"
    whole = log.read_bytes()
    lines = whole.splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:2]) + lines[2][:30])
    _, told = go(plan(), ReplayEngine(said), out)
    assert log.read_bytes() == whole
    assert "4 of 6 responses to generate" in told


def test_a_complete_run_asks_the_engine_nothing(tmp_path: Path) -> None:
    go(plan(), ReplayEngine(recording(tmp_path / "said.jsonl")), tmp_path / "run")
    before = (tmp_path / "run" / "sums" / "responses.jsonl").read_bytes()
    manifest, told = go(plan(), ReplayEngine(recording(tmp_path / "said.jsonl", n_items=0)), tmp_path / "run")
    assert manifest.status == "complete"
    assert told == ""
    assert (tmp_path / "run" / "sums" / "responses.jsonl").read_bytes() == before


def test_failed_requests_make_the_run_incomplete_and_are_redone(tmp_path: Path) -> None:
    out = tmp_path / "run"
    manifest, told = go(plan(), ReplayEngine(recording(tmp_path / "half.jsonl", n_items=4)), out)
    assert manifest.status == read_manifest(out).status == "incomplete"
    assert "sums: 2 of 6 responses failed, the first for item '4': no recording" in told
    assert [key for key, words in rows(out).items() if words is None] == [("4", 0), ("5", 0)]
    manifest, told = go(plan(), ReplayEngine(recording(tmp_path / "whole.jsonl")), out)
    assert manifest.status == "complete"
    assert "2 of 6 responses to generate" in told
    assert None not in rows(out).values()


def test_a_later_call_may_add_a_task(tmp_path: Path) -> None:
    out, said = tmp_path / "run", recording(tmp_path / "said.jsonl")
    go(plan(dataset("sums")), ReplayEngine(said), out)
    manifest, _ = go(plan(dataset("products")), ReplayEngine(said), out)
    assert set(manifest.tasks) == {"sums", "products"}
    assert manifest.status == "complete"


def test_a_run_with_an_unfinished_task_stays_incomplete_when_another_is_added(tmp_path: Path) -> None:
    out = tmp_path / "run"
    go(plan(dataset("sums")), ReplayEngine(recording(tmp_path / "half.jsonl", n_items=3)), out)
    manifest, _ = go(plan(dataset("products")), ReplayEngine(recording(tmp_path / "whole.jsonl")), out)
    assert manifest.status == "incomplete"


def test_a_run_is_written_by_one_process(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    with locked(out / "run.json"), pytest.raises(UsageError, match="is being written by another process"):
        go(plan(), ReplayEngine(recording(tmp_path / "said.jsonl")), out)


# Engines that misbehave.


class Sick(Named):
    """Answers two requests and then does something else."""

    def __init__(self, said: Path, then: Response | Exception | None) -> None:
        super().__init__(said)
        self._then = then

    def generate(self, requests: Sequence[Request]) -> Iterator[Response]:
        yield from self._replay.generate(requests[:2])
        if isinstance(self._then, Exception):
            raise self._then
        if self._then is not None:
            yield self._then


def test_an_engine_that_gives_up_leaves_what_it_had_answered(tmp_path: Path) -> None:
    said, out = recording(tmp_path / "said.jsonl"), tmp_path / "run"
    with pytest.raises(EngineError, match="the device is lost"):
        go(plan(), Sick(said, EngineError("the device is lost")), out)
    assert read_manifest(out).status == "incomplete"
    assert len(rows(out)) == 2
    assert go(plan(), Named(said), out)[0].status == "complete"


def test_requests_without_an_answer_make_the_run_incomplete(tmp_path: Path) -> None:
    manifest, told = go(plan(), Sick(recording(tmp_path / "said.jsonl"), None), tmp_path / "run")
    assert manifest.status == "incomplete"
    assert "4 of 6 responses failed" in told
    assert "the engine did not answer" in told


@pytest.mark.parametrize("item_id", ["0", "99"], ids=["answered already", "never asked"])
def test_an_answer_that_nobody_asked_for_is_an_error(tmp_path: Path, item_id: str) -> None:
    stray = Response(item_id=item_id, text="?")
    with pytest.raises(EngineError, match=f"answered item '{item_id}', sample 0, which it was not asked"):
        go(plan(), Sick(recording(tmp_path / "said.jsonl"), stray), tmp_path / "run")
    assert len(rows(tmp_path / "run")) == 2
