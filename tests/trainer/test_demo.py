"""The demo with a short warm-up and few steps: every part is real, only the model has learned little."""

import json
import math
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from ahabench.harness.checkpoint import find_checkpoint
from ahabench.harness.dataset import load
from ahabench.harness.errors import UsageError
from ahabench.harness.manifest import read_manifest
from ahabench.harness.registry import parse_tasks
from ahabench.trainer.demo import Part, State, demo, run_parts, shared_items
from ahabench.trainer.demo_report import print_demo

SETTINGS = ("reference_steps=150", "max_steps=2", "prompts_per_rollout=16", "save_steps=2")
TASKS = {"dynamath", "logicvista", "mathverse", "mathvision", "mathvista", "wemath"}


def test_no_item_of_the_suite_is_trained_on() -> None:
    datasets = [load(task, split) for task, split in parse_tasks(None, suite="mini")]
    held_out, shared = shared_items(datasets, seed=0)
    assert held_out >= 6 * 120
    assert shared == 0


def test_a_full_folder_that_no_demo_left_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty and no demo's"):
        demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_another_seed_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text(State(seed=3, settings=()).model_dump_json())
    with pytest.raises(UsageError, match="was begun with --seed 3"):
        demo(tmp_path, seed=4)


def test_an_unknown_setting_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="max_step"):
        demo(tmp_path / "new", settings=["max_step=3"])
    assert not (tmp_path / "new").exists()


def test_a_part_that_fails_leaves_the_time_of_those_before_it(tmp_path: Path) -> None:
    def fail() -> None:
        raise UsageError("no")

    state = State(seed=0, settings=())
    saved: list[int] = []
    parts = [Part("one", 1, lambda: None), Part("two", 1, fail)]
    with pytest.raises(UsageError, match="no"):
        run_parts(parts, state, lambda: saved.append(len(state.seconds)))
    assert saved == [1]
    assert list(state.seconds) == ["one"]


@pytest.mark.parametrize(
    ("ci95", "word"), [([0.01, 0.2], "better"), ([-0.2, -0.01], "worse"), ([-0.1, 0.1], "no difference shown")]
)
def test_the_last_screen_says_what_the_interval_says(ci95: list[float], word: str, tmp_path: Path) -> None:
    change = {"difference": sum(ci95) / 2, "ci95": ci95, "p": 0.02}
    summary = {
        "seconds": 200.0,
        "heldout_items": 720,
        "shared_items": 0,
        "before": 0.5,
        "after": 0.6,
        "forced_mode": 0.55,
        **change,
        "beyond_forced_mode": change,
        "tasks": {"wemath": {"before": 0.5, "after": 0.6, "forced_mode": 0.55}},
        "aha": {"base": {"moments": 0, "n": 720}, "grpo": {"moments": 2, "n": 720}},
    }
    written = StringIO()
    print_demo(summary, tmp_path, Console(width=200, file=written))
    screen = written.getvalue()
    assert f"p = 0.0200: {word}." in screen
    for other in {"better", "worse", "no difference shown"} - {word}:
        assert f": {other}." not in screen


@pytest.mark.slow
def test_the_whole_loop_leaves_what_it_promises_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    summary = demo(out, seed=1, settings=SETTINGS)
    assert json.loads((out / "summary.json").read_text()) == summary
    assert summary["heldout_items"] >= 720
    assert summary["shared_items"] == 0
    assert set(summary["tasks"]) == TASKS
    before = [row["before"] for row in summary["tasks"].values()]
    assert summary["before"] == pytest.approx(sum(before) / 6)
    assert summary["difference"] == pytest.approx(summary["after"] - summary["before"])
    assert summary["ci95"][0] <= summary["difference"] <= summary["ci95"][1]
    assert 0 <= summary["p"] <= 1
    assert not math.isnan(summary["forced_mode"])
    for name in ("base", "grpo"):
        find_checkpoint(str(out / name))
        assert read_manifest(out / "runs" / name).status == "complete"
    assert (out / "site" / "index.html").is_file()

    responses = (out / "runs" / "grpo" / "wemath" / "responses.jsonl").read_bytes()
    again = demo(out, seed=1, settings=SETTINGS)
    assert (out / "runs" / "grpo" / "wemath" / "responses.jsonl").read_bytes() == responses
    assert {**again, "seconds": 0} == {**summary, "seconds": 0}
