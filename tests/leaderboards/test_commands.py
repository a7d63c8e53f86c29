"""The commands, as a user calls them."""

import json
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

MakeRun = Callable[..., Path]
SCRIPT = Path(sysconfig.get_path("scripts")) / "ahabench"


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(SCRIPT), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_build_prints_where_to_look(make_run: MakeRun, tmp_path: Path) -> None:
    done = call(tmp_path, "board", "build", str(make_run("a", bool)), "--published", "--out", "site")
    assert (done.returncode, done.stdout) == (0, "site/index.html\n"), done.stderr
    assert (tmp_path / "site" / "index.html").exists()


def test_build_without_anything_says_what_to_give(tmp_path: Path) -> None:
    done = call(tmp_path, "board", "build", "--out", "site")
    assert (done.returncode, done.stderr) == (2, "error: give run directories, --published, or both\n")


def test_validate_ends_with_2_for_a_wrong_run(make_run: MakeRun, tmp_path: Path) -> None:
    done = call(tmp_path, "board", "validate", str(make_run("a", bool)), "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)[0]["problems"] == ["model.toml does not give the model's name"]


def test_an_export_of_a_run_wants_one(tmp_path: Path) -> None:
    done = call(tmp_path, "export", "parquet", "--out", "x")
    assert done.returncode == 2
    assert "takes a run" in done.stderr


def test_compare_writes_its_page(make_run: MakeRun, tmp_path: Path) -> None:
    sides = [str(make_run(name, bool)) for name in ("a", "b")]
    call(tmp_path, "compare", *sides, "--html", "page", "--no-images")
    assert "against" in (tmp_path / "page" / "index.html").read_text()
