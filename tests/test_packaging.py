"""What is built from the repository, and that it does not collide with a user's own folders."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("harness", "leaderboards", "tasks", "trainer")
OTHER_INPUTS = ("LICENSE", "README.md", "pyproject.toml")


def files_of_the_tree() -> set[str]:
    """Every file of the four folders, under the name that it has once installed."""
    return {
        f"ahabench/{path.relative_to(ROOT).as_posix()}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with an sdist, and with the wheel that was built from it.

    They are built from a copy, which holds what an earlier `pip install .` left behind: a module since deleted.
    """
    source = tmp_path_factory.mktemp("source")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in OTHER_INPUTS:
        shutil.copy(ROOT / name, source / name)
    stale = source / "build" / "lib" / "ahabench" / "harness" / "deleted.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=out, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def site_packages(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's files, which is what installing it without its dependencies comes to."""
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run_python(code: str, cwd: Path, site_packages: Path) -> subprocess.CompletedProcess[str]:
    """Run `python -c` as a user would: with the working directory first on the path, then the wheel's files."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    environment["PYTHONPATH"] = str(site_packages)
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        timeout=120,
        check=False,
    )


def folders_that_raise(cwd: Path) -> None:
    for folder in FOLDERS:
        (cwd / folder).mkdir()
        (cwd / folder / "__init__.py").write_text(f"raise RuntimeError('the {folder} folder of the user')\n")


def test_the_wheel_holds_every_file_of_the_folders_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")}
    assert names == files_of_the_tree()


def test_the_wheel_carries_the_licence_and_the_entry_point(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = {name.split("/", 1)[1]: name for name in archive.namelist() if ".dist-info/" in name}
        licence = archive.read(info["licenses/LICENSE"])
        entry_points = archive.read(info["entry_points.txt"]).decode()
    assert licence == (ROOT / "LICENSE").read_bytes()
    assert "ahabench = ahabench.harness.cli:main" in entry_points.splitlines()


def test_the_sdist_holds_no_leftovers_of_a_build(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        tops = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    assert {*FOLDERS, *OTHER_INPUTS} <= tops
    assert tops.isdisjoint({"build", "dist", ".tox", ".venv", "ahabench"})


def test_folders_of_the_user_do_not_shadow_ours(site_packages: Path, tmp_path: Path) -> None:
    folders_that_raise(tmp_path)
    code = "import ahabench.tasks.logicvista as module; print(module.__file__)"
    done = run_python(code, tmp_path, site_packages)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == site_packages / "ahabench" / "tasks" / "logicvista.py"


def test_the_folders_of_the_user_stay_importable(site_packages: Path, tmp_path: Path) -> None:
    folders_that_raise(tmp_path)
    done = run_python("import ahabench.tasks, tasks", tmp_path, site_packages)
    assert done.stderr.splitlines()[-1] == "RuntimeError: the tasks folder of the user"


def test_the_continuous_integration_runs_the_command_of_the_readme() -> None:
    command = "python3 -m venv .venv && .venv/bin/pip install tox && .venv/bin/tox"
    assert f"\n{command}\n" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
