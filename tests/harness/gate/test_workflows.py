"""The step of the example workflow that compares, run as GitHub runs it."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from ahabench.harness.gate.baselines import set_baseline
from ahabench.harness.gate.sides import open_side

Make = Callable[..., Path]
WORKFLOW = Path(__file__).resolve().parents[3] / "docs" / "gate" / "github-actions.yml"


def script(job: str, name: str) -> str:
    steps = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"][job]["steps"]
    (found,) = (step["run"] for step in steps if step.get("name") == name)
    return str(found)


def ran(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What `shell: bash` of a step does."""
    (folder / "gate" / "policy.yaml").write_text("margin: 20\n")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {
        **os.environ,
        "PATH": path,
        "POLICY": "gate/policy.yaml",
        "GITHUB_STEP_SUMMARY": str(folder / "summary"),
    }
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def laid_out(mini_run: Make, tmp_path: Path) -> Callable[..., Path]:
    """A checkout with the baselines of main and of the release, and a candidate with so many wrong answers of 120."""

    def lay(main: Sequence[int], release: Sequence[int], candidate: Sequence[int]) -> Path:
        folder = tmp_path / "checkout"
        for name, wrong, kept in (("main", main, "baselines"), ("release", release, "gate")):
            set_baseline(open_side(str(mini_run(name, wrong)), baselines=folder), name, folder / kept)
        (folder / "runs").mkdir()
        mini_run("candidate", candidate).rename(folder / "runs" / "candidate")
        return folder

    return lay


def test_a_candidate_like_main_and_the_release_passes(laid_out: Callable[..., Path]) -> None:
    folder = laid_out(range(5), range(5), range(5))
    done = ran(script("compare", "Compare"), folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "summary").read_text().count("### ahabench: PASS") == 2


def test_a_drop_within_the_margin_of_main_fails_against_the_release(laid_out: Callable[..., Path]) -> None:
    # 40 and 50 of 120 wrong: 8 points below main, 42 below the release, at a margin of 20.
    folder = laid_out(range(40), [], range(50))
    done = ran(script("compare", "Compare"), folder)
    assert done.returncode == 1, done.stderr
    assert [line for line in (folder / "summary").read_text().splitlines() if line.startswith("###")] == [
        "### ahabench: PASS",
        "### ahabench: FAIL",
    ]


@pytest.mark.parametrize(("wrong", "code"), [(50, 1), (24, 0)], ids=["behind", "inconclusive"])
def test_main_keeps_its_baseline_where_it_fell_behind_the_release(
    laid_out: Callable[..., Path], wrong: int, code: int
) -> None:
    # 24 of 120 are the margin to the point: nobody can tell.
    done = ran(script("baseline", "Compare with the release"), laid_out([], [], range(wrong)))
    assert done.returncode == code, done.stderr
