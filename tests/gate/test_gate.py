"""Would the gate notice? The trainer, and copies of it with planted changes, against the committed baseline.

train.py says how they are made, changes.yaml what is planted. A change is looked at twice: do 20 short steps follow the
recorded ones (golden.json), and is the model that `tiny-cpu` trains in 16 steps as good as the baseline's, to `ahabench
compare` with policy.yaml? Training and answering take about three minutes on two idle cores.

When the recipe, the trainer or the built-in data are meant to change: look at the comparison, then

    python tests/gate/train.py OUT --record            (and --base where the reference model is to change as well)
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from recorded import explained

from ahabench.harness.gate.compare import compare
from ahabench.harness.gate.comparison import Comparison, Outcome
from ahabench.harness.gate.policy import Policy
from ahabench.harness.gate.sides import open_side

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
BASELINE, POLICY, GOLDEN = HERE / "baseline", HERE / "policy.yaml", HERE / "golden.json"
CHANGES: Mapping[str, Mapping[str, Any]] = yaml.safe_load((HERE / "changes.yaml").read_text(encoding="utf-8"))
FAULTS = [name for name, change in CHANGES.items() if change["fault"]]
HARMLESS = [name for name, change in CHANGES.items() if not change["fault"]]
WANTED = 6
"""Faults that must be caught, of seven."""
BY_THE_GATE = 5
"""Of them by the trained model alone: 16 steps do not show a reference model that moves, nor another normalisation."""
TIMEOUT_S = 3600


class Trained:
    """What train.py made of each change."""

    def __init__(self, folder: Path, results: Mapping[str, Mapping[str, str | None]]) -> None:
        self.folder = folder
        self._results = results
        self._compared: dict[str, Comparison] = {}

    def run(self, change: str) -> Path:
        return self.folder / change / "run"

    def first_difference(self, change: str) -> str | None:
        return self._results[change]["golden"]

    def compared(self, change: str) -> Comparison | None:
        """The comparison with the baseline; `None` where the training stopped itself and there is no model."""
        if self._results[change]["stopped"]:
            return None
        if change not in self._compared:
            a, b = (open_side(str(side), baselines=Path("none")) for side in (BASELINE, self.run(change)))
            self._compared[change] = compare(a, b, Policy.read(POLICY))
        return self._compared[change]

    def gate(self, change: str) -> str:
        """What stops the change, in a few words; "" where nothing does."""
        found = self.compared(change)
        if found is None:
            return "training stops: nothing to learn from"
        if found.outcome in {Outcome.PASS, Outcome.INCONCLUSIVE}:
            return ""
        failed = [
            f"{row.task} {100 * row.found.value:+.0f}"
            for row in found.rows
            if row.found and row.verdict is Outcome.FAIL
        ]
        return ", ".join(failed) or found.outcome.value


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("gate")
    command = [sys.executable, str(HERE / "train.py"), str(folder), "--changes", "all"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr[-5_000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return Trained(folder, {row["change"]: row for row in rows})


def plugin(run: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    options = {"run": run, "baseline": BASELINE, "policy": POLICY}
    named = [f"--ahabench-{name}={path}" for name, path in options.items()]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", "--rootdir", str(folder), *named]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=TIMEOUT_S, check=False)


def test_the_trainer_is_not_worse_than_the_committed_baseline(trained: Trained, tmp_path: Path) -> None:
    done = plugin(trained.run("unchanged"), tmp_path)
    assert done.returncode == 0, done.stdout
    # Ten guards and six benchmarks.
    assert "16 passed" in done.stdout


def test_the_plugin_fails_where_the_trainer_is_worse(trained: Trained, tmp_path: Path) -> None:
    done = plugin(trained.run("advantage sign flipped"), tmp_path)
    assert done.returncode == 1, done.stdout
    assert "FAILED ahabench::mathvista::accuracy" in done.stdout


def unexpected(difference: str | None) -> str:
    """What a test says of steps that should not differ."""
    recorded = json.loads(GOLDEN.read_text())["versions"]
    return explained(difference or "", recorded, again="python tests/gate/train.py OUT --record")


def test_the_trainer_follows_the_golden_steps(trained: Trained) -> None:
    found = trained.first_difference("unchanged")
    assert found is None, unexpected(found)


def test_the_golden_steps_are_not_trivial() -> None:
    steps = json.loads(GOLDEN.read_text())["steps"]
    rewards = [step["reward"] for step in steps if "reward" in step]
    assert len(steps) == 20
    assert len(rewards) == 10
    assert len(set(rewards)) > 3
    assert sum(step["grad_norm"] > 0.1 for step in steps) > 10


@pytest.mark.parametrize("change", FAULTS)
def test_a_fault_leaves_the_golden_steps(change: str, trained: Trained) -> None:
    assert trained.first_difference(change) is not None


@pytest.mark.parametrize("change", HARMLESS)
def test_a_harmless_change_raises_no_alarm(change: str, trained: Trained) -> None:
    found = trained.first_difference(change)
    assert found is None, unexpected(found)
    assert trained.gate(change) == ""


def test_at_least_six_of_seven_faults_are_caught(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(FAULTS) == 7
    assert len(HARMLESS) == 5
    # Before it is printed: comparing says what it does.
    rows = [(name, trained.first_difference(name) or "-", trained.gate(name) or "-") for name in CHANGES]
    with capsys.disabled():
        print(f"\n\n{'planted':45}{'golden steps':47}gate")
        for name, golden, gate in rows:
            print(f"{name:45}{golden.partition(', wanted')[0]:47.45}{gate}")
    caught = [name for name in FAULTS if trained.first_difference(name) or trained.gate(name)]
    assert len(caught) >= WANTED
    assert sum(bool(trained.gate(name)) for name in FAULTS) >= BY_THE_GATE
