"""A training run of 20 tiny steps against recorded numbers.

They change when TRL, transformers, torch, the reference model or the trainer compute something else. Then look at which
quantity moved and from which step, find out why, and record anew in a commit that says so:

    AHABENCH_RECORD_GOLDEN=1 pytest tests/trainer/test_golden.py
"""

import json
import os
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from ahabench.trainer.grpo import LOG

GOLDEN = Path(__file__).parent / "golden" / "tiny.json"
MEASURED = ("loss", "grad_norm", "kl", "beta", "learning_rate", "reward", "completions/mean_length", "entropy")
RELATIVE = 1e-3
"""Other processors add in another order: single precision has about 1e-7, which 20 steps of Adam amplify; two threads
and torch's kernels without vector instructions (ATEN_CPU_CAPABILITY=default) stayed within it. One token
drawn otherwise moves the mean length and the reward of a rollout by several per cent."""
ABSOLUTE = 1e-5
"""The loss and the KL of a first step are zero but for rounding."""


@pytest.fixture(scope="module")
def trajectory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The log of 20 steps in float32 from a fixed seed, on one thread."""
    from ahabench.trainer.base_model import open_model
    from ahabench.trainer.grpo_run import load_items, trainer_with
    from ahabench.trainer.recipe import parse_recipe

    settings = request.getfixturevalue("settings")
    overrides = {"max_steps": 20, "max_new_tokens": 24, "learning_rate": 1e-4, "warmup": 0.1}
    recipe = parse_recipe(settings | overrides, name="golden")
    out = tmp_path_factory.mktemp("golden")
    trainer_with(recipe, load_items(recipe), open_model(recipe, out), odd_ids, out).train()
    rows = [json.loads(line) for line in (out / LOG).read_text().splitlines()]
    return [{name: row[name] for name in ("step", *MEASURED) if name in row} for row in rows if "loss" in row]


def odd_ids(completion_ids: list[list[int]], **columns: Any) -> list[float | None]:
    return [sum(token % 2 for token in ids) / len(ids) for ids in completion_ids]


def test_20_steps_follow_the_recorded_trajectory(trajectory: list[dict[str, Any]]) -> None:
    if os.environ.get("AHABENCH_RECORD_GOLDEN"):
        versions = {name: metadata.version(name) for name in ("torch", "transformers", "trl")}
        lines = ",\n".join(f"    {json.dumps(row)}" for row in trajectory)
        GOLDEN.write_text(f'{{\n  "versions": {json.dumps(versions)},\n  "steps": [\n{lines}\n  ]\n}}\n')
        pytest.skip(f"recorded {GOLDEN}")
    golden = json.loads(GOLDEN.read_text())
    assert len(trajectory) == len(golden["steps"]) == 20
    for found, wanted in zip(trajectory, golden["steps"], strict=True):
        assert found == pytest.approx(wanted, rel=RELATIVE, abs=ABSOLUTE), f"recorded with {golden['versions']}"


def test_the_recorded_trajectory_is_not_trivial() -> None:
    steps = json.loads(GOLDEN.read_text())["steps"]
    rollouts = [step for step in steps if "reward" in step]
    assert len(rollouts) == 10
    assert len({step["reward"] for step in rollouts}) > 5
    assert len({step["completions/mean_length"] for step in rollouts}) > 5
    assert all(step["grad_norm"] > 0.01 for step in steps)
    assert steps[-1]["kl"] > 1e-4 > abs(steps[0]["kl"])


Trainer = Callable[..., Any]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed", [{"seed": 1}, {"temperature": 1.9}, {"learning_rate": 1.1e-4}, {"clip_eps": 0.001}, {"loss": "dr_grpo"}]
)
def test_the_trajectory_tells_other_settings_apart(
    changed: dict[str, Any], trainer_of: Trainer, tmp_path: Path
) -> None:
    same = {"max_new_tokens": 24, "learning_rate": 1e-4, "warmup": 0.1, "max_steps": 20}
    trainer = trainer_of(odd_ids, **same | changed)
    trainer.train()
    rows = [json.loads(line) for line in (tmp_path / "out" / LOG).read_text().splitlines()]
    found = [row["loss"] for row in rows if "loss" in row]
    wanted = [step["loss"] for step in json.loads(GOLDEN.read_text())["steps"]]
    assert found != pytest.approx(wanted, rel=RELATIVE, abs=ABSOLUTE)
