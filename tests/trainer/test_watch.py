"""A short real run that is watched on a few items of the built-in suite."""

import json
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness.manifest import read_manifest
from ahabench.trainer import grpo_run
from ahabench.trainer.recipe import load_recipe

pytestmark = pytest.mark.slow

SETTINGS = [
    "prompts_per_rollout=8",
    "train_batch=16",
    "micro_batch=16",
    "max_new_tokens=24",
    "temperature=1",
    "max_steps=4",
    "save_steps=2",
]
WATCHED = "watch={every: 2, suite: mini, benchmarks: [logicvista, mathvision], limit: 12, max_new_tokens: 24}"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ahabench.trainer.reference import make_reference

    return make_reference(tmp_path_factory.mktemp("base") / "base", seed=0, steps=60)


@pytest.fixture(scope="module")
def runs(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    import torch

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs")
    for name, more in (("watched", [WATCHED]), ("unwatched", [])):
        grpo_run.train(load_recipe("tiny-cpu", [*SETTINGS, f"model={base}", *more]), folder / name)
    return {name: folder / name for name in ("watched", "unwatched")}


def log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_benchmarks_are_evaluated_before_during_and_after(runs: dict[str, Path]) -> None:
    found = {row["step"]: row["benchmark/all"] for row in log(runs["watched"]) if "benchmark/all" in row}
    assert sorted(found) == [0, 2, 4]
    for step in found:
        evaluation = runs["watched"] / "evaluations" / f"step-{step}"
        assert read_manifest(evaluation).status == "complete"
        verdicts = [
            json.loads(line)["status"] == "correct"
            for task in ("logicvista", "mathvision")
            for line in (evaluation / task / "verdicts.jsonl").read_text().splitlines()
        ]
        assert found[step] == pytest.approx(sum(verdicts) / len(verdicts))
    assert not (runs["watched"] / "evaluations" / "model").exists()


def test_watching_changes_no_update(runs: dict[str, Path]) -> None:
    model = "final/model.safetensors"
    assert (runs["watched"] / model).read_bytes() == (runs["unwatched"] / model).read_bytes()


def test_the_log_has_what_a_reader_of_curves_wants(runs: dict[str, Path]) -> None:
    rows = log(runs["unwatched"])
    first = next(row for row in rows if row["step"] == 0)
    drawn = next(row for row in rows if row["step"] == 1)
    for name in ("aha/with_moment", "repetition", "reward/answered", "completions/clipped_ratio"):
        assert f"baseline/{name}" in first
        assert name in drawn
    kinds = {name.split("/")[1] for name in drawn if name.startswith("reward/") and name.endswith("/mean")}
    assert kinds
    for kind in kinds:
        assert {f"reward/{kind}/std", f"reward/{kind}/no_signal", f"length/{kind}", f"truncated/{kind}"} <= set(drawn)
    assert {"kl", "beta", "entropy"} <= set(drawn)


def test_a_run_ends_with_its_report(runs: dict[str, Path]) -> None:
    html = (runs["watched"] / "report.html").read_text()
    for name in ("benchmark/all", "reward", "kl", "entropy", "aha/with_moment", "repetition"):
        # A curve, or its value where it is constant.
        assert f'aria-label="{name}"' in html or f"{name} = " in html
    assert html.count("<details>") >= 12


def test_a_reward_that_is_had_without_answering_right_sets_the_alarm_off(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shortness pays ten times what being right does: the shipped recipe, on a weak base and fewer steps.

    The reward rises at a p of some 1e-6 in each of two seeds; the benchmark has little to lose and does not gain.
    """
    few = "logicvista, mathvision, mathvista"
    watched = ["watch.every=16", f"watch.benchmarks=[{few}]", "watch.max_new_tokens=24", "watch.margin=0.2"]
    rates = ["learning_rate=3e-4", "min_learning_rate=3e-5", "max_steps=16", "save_steps=16", "watch.limit=60"]
    grpo_run.train(load_recipe("tiny-cpu-hacked", [*SETTINGS, *rates, *watched, f"model={base}"]), tmp_path / "out")
    assert [row["step"] for row in log(tmp_path / "out") if row.get("benchmark/alarm")] == [16]
    assert "alarm: from step 0 to 16 the reward rises" in capsys.readouterr().err
    assert "Alarm:" in (tmp_path / "out" / "report.html").read_text()
