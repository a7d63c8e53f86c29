"""What is found wrong with a submitted run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness.errors import UsageError
from ahabench.leaderboards.validate import validate

MakeRun = Callable[..., Path]
Edit = Callable[[Path, Callable[[Any], None]], None]


@pytest.fixture
def run(make_run: MakeRun) -> Path:
    path = make_run("a", lambda number: number < 30)
    (path / "model.toml").write_text('name = "A"\n')
    return path


def problems(run: Path) -> str:
    (found,) = validate(run)
    assert not found.ok
    return "\n".join((*found.problems, *found.unchecked))


def change_lines(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))


def test_an_honest_run_is_taken(run: Path) -> None:
    (found,) = validate(run)
    assert found.as_row() == {
        "run": "a",
        "ok": True,
        "problems": [],
        "unchecked": [],
        "tasks": {"mathvista": "scores again to what is claimed"},
    }


def test_a_claimed_score_is_scored_again(run: Path, edit: Edit) -> None:
    edit(run / "mathvista" / "metrics.json", lambda metrics: metrics["metrics"]["accuracy"].update(value=0.9))
    assert problems(run) == "mathvista: metrics in metrics.json is not what the responses give"


def test_a_verdict_that_was_turned_is_found(run: Path) -> None:
    def turn(lines: list[str]) -> list[str]:
        return [line.replace('"no_answer"', '"correct"') for line in lines]

    path = run / "mathvista" / "verdicts.jsonl"
    wrong = path.read_text().count('"no_answer"')
    assert wrong
    change_lines(path, turn)
    assert f"{wrong} verdicts are not what the responses give" in problems(run)


def test_a_response_that_is_missing_is_found(run: Path) -> None:
    change_lines(run / "mathvista" / "responses.jsonl", lambda lines: lines[:-1])
    assert "1 responses are missing" in problems(run)


def test_a_response_that_stands_twice_is_found(run: Path) -> None:
    change_lines(run / "mathvista" / "responses.jsonl", lambda lines: [*lines, lines[0]])
    assert "repeats item" in problems(run)


def test_other_items_are_found(run: Path, edit: Edit) -> None:
    edit(run / "run.json", lambda manifest: manifest["tasks"]["mathvista"].update(data_digest="f" * 64))
    assert "answered other items" in problems(run)


def test_another_version_of_the_scorer_is_found(run: Path, edit: Edit) -> None:
    edit(run / "mathvista" / "metrics.json", lambda metrics: metrics.update(scorer="robust@0"))
    assert "scored by robust@0" in problems(run)


def test_a_strange_file_is_found(run: Path) -> None:
    (run / "mathvista" / "weights.bin").touch()
    assert problems(run) == "mathvista/weights.bin is no file of a run"


def test_a_link_is_found(run: Path, tmp_path: Path) -> None:
    path = run / "mathvista" / "metrics.json"
    path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    assert "is a link" in problems(run)


@pytest.mark.parametrize("name", ["status", "model", "sampling"])
def test_a_manifest_that_says_too_little_is_found(run: Path, edit: Edit, name: str) -> None:
    edit(
        run / "run.json", lambda manifest: manifest.update({"status": "incomplete"} if name == "status" else {name: {}})
    )
    assert "run.json: " in problems(run)


def test_a_damaged_row_is_a_finding_and_no_traceback(run: Path) -> None:
    change_lines(run / "mathvista" / "responses.jsonl", lambda lines: [*lines[:-1], "{"])
    assert "is not JSON" in problems(run)


def test_an_unknown_key_of_a_card_is_found(run: Path) -> None:
    (run / "model.toml").write_text('name = "A"\nrank = 1\n')
    assert "rank" in problems(run)


def test_items_that_are_not_at_hand_leave_a_run_unchecked(
    run: Path, edit: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        from ahabench.harness.errors import DatasetError

        raise DatasetError("no hub here")

    monkeypatch.setattr("ahabench.harness.rescore.load", offline)
    (found,) = validate(run)
    assert (found.problems, len(found.unchecked), found.ok) == ([], 1, False)


def test_a_folder_of_runs_is_checked_run_by_run(run: Path, make_run: MakeRun) -> None:
    make_run("b", bool)
    assert [(found.run, found.ok) for found in validate(run.parent)] == [("a", True), ("b", False)]


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds none"):
        validate(tmp_path)


def test_nothing_is_written(run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    validate(run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert json.loads((run / "run.json").read_text())["status"] == "complete"
