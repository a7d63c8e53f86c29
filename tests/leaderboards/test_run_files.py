"""The files of a submission, before anything in them is read."""

import os
from pathlib import Path

import pytest

from ahabench.leaderboards import run_files
from ahabench.leaderboards.run_files import held, strange_files


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    (folder / "mathvista").mkdir(parents=True)
    for name in ("run.json", "model.toml", "mathvista/metrics.json", "mathvista/.responses.jsonl.lock"):
        (folder / name).touch()
    return folder


def test_the_files_of_a_run_are_not_strange(run: Path) -> None:
    assert list(strange_files(run)) == []


def test_a_pipe_is_not_opened(run: Path) -> None:
    os.mkfifo(run / "mathvista" / "responses.jsonl")
    assert list(strange_files(run)) == ["mathvista/responses.jsonl is no plain file"]


def test_a_folder_that_is_a_link_is_not_entered(run: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").touch()
    (run / "wemath").symlink_to(tmp_path / "secret")
    assert list(strange_files(run)) == ["wemath is a link; a run holds plain files"]


def test_a_hidden_file_that_is_no_empty_lock_is_found(run: Path) -> None:
    (run / ".run.json.lock").write_text("{}")
    assert list(strange_files(run)) == [
        ".run.json.lock is hidden and has 2 bytes; only empty locks are hidden in a run"
    ]


def test_a_hidden_folder_is_found(run: Path) -> None:
    (run / ".mathvista").mkdir()
    assert list(strange_files(run)) == [".mathvista is a hidden folder; a run has none"]


def test_what_a_folder_of_runs_holds(run: Path, tmp_path: Path) -> None:
    (tmp_path / ".evil").mkdir()
    (tmp_path / ".evil" / "run.json").touch()
    (tmp_path / "linked").symlink_to(run)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "run.json").symlink_to(run / "run.json")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.md").touch()
    found = held(tmp_path)
    assert found.runs == [run]
    assert found.strangers == {
        ".evil": ".evil is hidden; a run is a folder that everybody sees",
        "empty": "empty is no run: it has no run.json",
        "half": "half/run.json is a link; a run holds plain files",
        "linked": "linked is a link; a run is a folder of plain files",
        "notes.md": "notes.md is no folder; a folder of runs holds nothing but runs",
    }


def test_a_place_with_a_manifest_is_one_run(run: Path) -> None:
    assert held(run) == ([run], {})


def test_a_hidden_link_is_found(run: Path) -> None:
    (run / ".x").symlink_to("/")
    assert list(strange_files(run)) == [".x is a link; a run holds plain files"]


def test_folders_are_entered_once(run: Path) -> None:
    (run / "mathvista" / "/".join("d" * 300)).mkdir(parents=True)
    assert list(strange_files(run)) == ["mathvista/d is a folder within a benchmark's"]


@pytest.mark.parametrize("name", ["mathvista/run.json", "responses.jsonl", "x.py", "mathvista/METRICS.json"])
def test_a_file_in_the_wrong_place_is_strange(run: Path, name: str) -> None:
    (run / name).touch()
    assert list(strange_files(run)) == [f"{name} is no file of a run"]


def test_a_large_file_is_not_read(run: Path) -> None:
    with (run / "mathvista" / "responses.jsonl").open("wb") as file:
        # A hole: nothing is written, and reading it would take minutes.
        file.truncate(10**13)
    assert list(strange_files(run)) == [
        "mathvista/responses.jsonl has 10,000,000,000,000 bytes, wanted at most 500,000,000"
    ]


@pytest.mark.parametrize(("length", "strange"), [(4_000_000, False), (4_000_001, True)])
def test_lines_have_a_length(run: Path, length: int, strange: bool) -> None:
    (run / "mathvista" / "responses.jsonl").write_bytes(b"a\n" + b"x" * length + b"\nb\n")
    wanted = ["mathvista/responses.jsonl has a line of more than 4,000,000 bytes"] if strange else []
    assert list(strange_files(run)) == wanted


def test_a_last_line_without_an_end_has_a_length_too(run: Path) -> None:
    (run / "mathvista" / "responses.jsonl").write_bytes(b"a\n" + b"x" * 4_000_001)
    assert len(list(strange_files(run))) == 1


def test_lines_have_a_number(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_files, "MOST_LINES", 10)
    path = run / "mathvista" / "verdicts.jsonl"
    path.write_bytes(b"{}\n" * 10)
    assert list(strange_files(run)) == []
    path.write_bytes(b"{}\n" * 11)
    assert list(strange_files(run)) == ["mathvista/verdicts.jsonl has more than 10 lines"]
