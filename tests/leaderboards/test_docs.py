"""What docs/board.md and its workflow tell a reader to run."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

MakeRun = Callable[..., Path]
ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / "docs" / "board" / "github-actions.yml"
WORKFLOWS = [WORKFLOW, *sorted((ROOT / "docs" / "gate").glob("*.yml"))]


@pytest.fixture(scope="module")
def workflow() -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(WORKFLOW.read_text())
    return found


@pytest.fixture
def repository(make_run: MakeRun) -> Path:
    """A repository with one run, as the docs lay it out."""
    run = make_run("a", lambda number: number < 30)
    (run / "model.toml").write_text('name = "A"\n')
    return run.parent.parent


def step(workflow: dict[Any, Any], job: str, name: str) -> str:
    (found,) = (one["run"] for one in workflow["jobs"][job]["steps"] if one.get("name") == name)
    return str(found)


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
    # As GitHub runs a step.
    command = ["bash", "-e", "-o", "pipefail", "-c", script]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def at(workflow: str) -> str:
    """Return where a workflow of GitHub or GitLab has ahabench from."""
    found = yaml.safe_load(workflow)
    return str((found.get("env") or found["variables"])["AHABENCH"])


def test_an_honest_submission_passes_and_becomes_a_site(workflow: dict[Any, Any], repository: Path) -> None:
    done = run(step(workflow, "validate", "Validate"), repository)
    assert (done.returncode, done.stdout) == (0, "a: ok\n"), done.stderr
    done = run(step(workflow, "site", "Build"), repository)
    assert done.returncode == 0, done.stderr
    assert (repository / "site" / "index.html").exists()
    assert "# Leaderboard" in (repository / "summary.md").read_text()


def test_a_turned_verdict_fails_the_job(workflow: dict[Any, Any], repository: Path) -> None:
    path = repository / "runs" / "a" / "mathvista" / "verdicts.jsonl"
    path.write_text(path.read_text().replace('"no_answer"', '"correct"'))
    assert run(step(workflow, "validate", "Validate"), repository).returncode == 2


def test_a_hidden_run_fails_the_job_and_is_not_on_the_site(workflow: dict[Any, Any], repository: Path) -> None:
    shutil.copytree(repository / "runs" / "a", repository / "runs" / ".evil")
    (repository / "runs" / ".evil" / "model.toml").write_text('name = "Cheat-7B"\n')
    assert run(step(workflow, "validate", "Validate"), repository).returncode == 2
    assert run(step(workflow, "site", "Build"), repository).returncode == 0
    assert "Cheat" not in (repository / "summary.md").read_text()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: str(path.relative_to(ROOT)))
def test_ahabench_is_installed_from_a_pinned_commit_and_never_by_a_name_that_anybody_may_take(path: Path) -> None:
    text = path.read_text()
    installs = re.findall(r"pip install (.+)", text)
    assert len(installs) >= 2
    for wanted in installs:
        (requirement,) = shlex.split(wanted.replace("$AHABENCH", at(text)))
        parsed = Requirement(requirement)
        assert parsed.name == "ahabench"
        # RFC 2606: nobody can ever own a name that ends so.
        assert re.fullmatch(r"git\+https://[\w-]+\.invalid/ahabench@[0-9a-f]{40}", parsed.url or "")
    assert text.startswith("# Fill in AHABENCH below")


def test_a_filled_in_address_is_what_pip_is_told(workflow: dict[Any, Any], tmp_path: Path) -> None:
    # pip itself reads the line, and would fetch this folder, which is no project.
    (line,) = (one["run"] for one in workflow["jobs"]["site"]["steps"] if "pip install" in one.get("run", ""))
    script = f"{line.replace('python', shlex.quote(sys.executable), 1)} --no-deps --dry-run --no-index"
    done = run(f"export AHABENCH=file://{shlex.quote(str(tmp_path))}\n{script}", tmp_path)
    assert done.returncode == 1
    assert f"{tmp_path} does not appear to be a Python project" in done.stderr


def test_a_submission_meets_no_secret_and_no_right_to_write(workflow: dict[Any, Any]) -> None:
    # YAML reads the key "on" as true.
    assert set(workflow[True]) == {"pull_request", "push"}
    assert workflow["permissions"] == {"contents": "read"}
    assert "permissions" not in workflow["jobs"]["validate"]
    assert workflow["jobs"]["site"]["if"] == "github.event_name == 'push'"
    assert "secrets" not in WORKFLOW.read_text()
    # What a contributor names is never put into a script.
    assert not re.search(r"run:.*\$\{\{", WORKFLOW.read_text())


def test_the_keys_of_the_card_in_the_docs_are_all_there_are(tmp_path: Path) -> None:
    from ahabench.leaderboards.runs import ModelCard, read_card

    text = (ROOT / "docs" / "board.md").read_text()
    found = re.search(r"```toml\n(.*?)```", text, re.DOTALL)
    assert found is not None
    (tmp_path / "model.toml").write_text(found[1])
    assert all(getattr(read_card(tmp_path), name) for name in ModelCard.model_fields)


def test_every_key_of_the_data_files_is_in_the_docs(tmp_path: Path) -> None:
    from ahabench.leaderboards.build import build_tables

    build_tables([], tmp_path, ["csv", "json"], published=True)
    table = json.loads((tmp_path / "leaderboard.json").read_text())["tables"][0]
    row = table["rows"][0]
    keys = {*table, *row, *table["columns"][0], *row["cells"]["mean"]}
    keys |= set((tmp_path / "leaderboard.csv").read_text().splitlines()[0].split(","))
    text = (ROOT / "docs" / "board.md").read_text()
    assert len(keys) > 30
    assert sorted(key for key in keys if f"`{key}`" not in text) == []


def test_the_links_of_the_docs_lead_somewhere() -> None:
    text = (ROOT / "docs" / "board.md").read_text()
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert len(links) >= 2
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
