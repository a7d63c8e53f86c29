"""A run without texts."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness.errors import UsageError
from ahabench.leaderboards.build import build_board
from ahabench.leaderboards.collect import collect
from ahabench.leaderboards.runs import place_free
from ahabench.leaderboards.stripped import strip
from ahabench.leaderboards.validate import validate

MakeRun = Callable[..., Path]
Edit = Callable[[Path, Callable[[Any], None]], None]
SECRET = "<answer>A sentence that nobody else may read. Wait, 7</answer>"


@pytest.fixture
def run(make_run: MakeRun) -> Path:
    return make_run("a-2B", lambda number: number < 30, tasks=("mathvista", "dynamath"), text=SECRET)


def test_a_board_of_stripped_runs_is_that_of_the_runs(run: Path, make_run: MakeRun, tmp_path: Path) -> None:
    runs = [run, make_run("b-2B", lambda number: number < 25, tasks=("mathvista", "dynamath"))]
    stripped = [strip(one, tmp_path / "stripped" / one.name) for one in runs]
    first, second = (build_board(collect(places)) for places in (runs, stripped))
    assert asdict(first) == asdict(second)
    assert first.tables[0].rows[1].cells["dynamath"].paired is True


def test_nothing_of_a_response_is_left(run: Path, tmp_path: Path) -> None:
    out = strip(run, tmp_path / "out")
    texts = [path.read_text() for path in out.rglob("*") if path.is_file()]
    assert len(texts) == 5
    assert not [text for text in texts if "nobody else" in text or "extracted" in text or "none" in text.lower()]
    assert json.loads((out / "mathvista" / "verdicts.jsonl").read_text().splitlines()[-1]) == {
        "item_id": "mini-vista-120",
        "sample_index": 0,
        "status": "wrong",
        "aha": {"moments": 1},
    }


def test_places_of_the_machine_are_left_out(run: Path, edit: Edit, tmp_path: Path) -> None:
    def place(manifest: Any) -> None:
        manifest["model"].update(name="/home/me/Model-2B", adapter="lora on /home/me/base")
        manifest["engine"].update(
            url="http://10.0.0.7:8000/v1", options={"download_dir": "/home/me/x", "dtype": "auto"}
        )
        manifest["mixed_engines"] = [{"name": "vllm", "url": "http://10.0.0.7:8000/v1"}]
        manifest["merged"] = ["/home/me/shard-1-of-2"]

    edit(run / "run.json", place)
    text = (strip(run, tmp_path / "out") / "run.json").read_text()
    assert [word for word in ("/home", "10.0.0.7") if word in text] == []
    manifest = json.loads(text)
    assert (manifest["model"]["name"], manifest["model"]["adapter"]) == ("Model-2B", "lora on base")
    assert manifest["engine"]["options"] == {"download_dir": "x", "dtype": "auto"}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("/a/b/Model", "Model"),
        ("./Model/", "Model"),
        ("~/m", "m"),
        ("C:\\models\\m", "m"),
        ("org/Model", "org/Model"),
        ("https://host/v1", "v1"),
        ("", ""),
    ],
)
def test_only_paths_are_shortened(name: str, wanted: str) -> None:
    assert place_free(name) == wanted


def test_of_a_training_log_the_curves_are_left(run: Path, tmp_path: Path) -> None:
    (run / "log.jsonl").write_text('{"step": 0, "baseline/reward": 0.12345678, "sample": "secret", "x": 1}\n')
    out = strip(run, tmp_path / "out")
    assert json.loads((out / "log.jsonl").read_text()) == {"step": 0.0, "baseline/reward": 0.123457}


def test_a_run_that_is_not_scored_is_refused(run: Path, tmp_path: Path) -> None:
    (run / "dynamath" / "verdicts.jsonl").unlink()
    with pytest.raises(UsageError, match="not scored on dynamath"):
        strip(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_refused(run: Path) -> None:
    with pytest.raises(UsageError, match="not empty"):
        strip(run, run)


def test_what_was_stripped_is_not_taken_for_checked(run: Path, tmp_path: Path) -> None:
    out = strip(run, tmp_path / "out")
    (out / "model.toml").write_text('name = "A"\n')
    (found,) = validate(out)
    assert (found.ok, found.problems) == (False, [])
    assert found.unchecked[0] == "mathvista/responses.jsonl is missing, so nothing can be scored again"
