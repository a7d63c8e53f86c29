"""Tasks of our own and of strangers' packages, found by name."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ahabench.harness import registry
from ahabench.harness.errors import UsageError

TOY = Path(__file__).parent / "toy"
OURS = ("dynamath", "logicvista", "mathverse", "mathvision", "mathvista", "wemath")
SCRIPT = str(Path(sys.executable).with_name("ahabench"))

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a package for this process and its children: (name, entry point of ahabench.tasks, source)."""
    paths = []

    def add(name: str, target: str, source: str) -> None:
        site = tmp_path / f"site-{name}"
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[ahabench.tasks]\n{name} = {target}\n")
        (site / f"{name}.py").write_text(source)
        monkeypatch.syspath_prepend(str(site))
        paths.append(str(site))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
        registry.tasks.cache_clear()

    yield add
    registry.tasks.cache_clear()


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(TOY))
    registry.tasks.cache_clear()
    yield
    registry.tasks.cache_clear()


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, timeout=120, check=False)


def test_our_six_tasks_are_found_in_order() -> None:
    assert tuple(registry.tasks()) == OURS
    assert [task.name for task in registry.tasks().values()] == list(OURS)


@pytest.mark.parametrize("name", OURS)
def test_every_task_of_ours_has_what_the_commands_offer(name: str) -> None:
    task = registry.find_task(name)
    assert set(task.scorers) >= {"robust", "official", "vlmevalkit"}
    assert set(task.prompts) >= {"official", "vlmevalkit", "think"}
    assert task.default_split in task.splits
    assert task.headline in task.metrics
    assert {metric for metrics in task.breakdowns.values() for metric in metrics} <= set(task.metrics)
    assert {item for scorer in task.scorers.values() for item in scorer.excluded} <= set(task.bad_items)


@pytest.mark.usefixtures("toy")
def test_a_strangers_task_stands_among_ours() -> None:
    assert tuple(registry.tasks()) == (*OURS[:5], "toy", OURS[5])
    assert registry.find_task("toy").title == "Toy sums"


def test_a_strangers_task_does_not_take_the_place_of_ours(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    ours = registry.find_task("wemath")
    source = (TOY / "toy_task.py").read_text().replace('name="toy"', 'name="wemath"')
    install("second_wemath", "second_wemath:TASK", source)
    assert registry.find_task("wemath") is ours
    said = capsys.readouterr().err
    assert said == ("left out: two installed packages have a task 'wemath'; uninstall one (second_wemath:TASK)\n")


def test_of_two_strangers_with_the_same_task_neither_is_taken(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    source = (TOY / "toy_task.py").read_text()
    install("first_toy", "first_toy:TASK", source)
    install("second_toy", "second_toy:TASK", source)
    assert tuple(registry.tasks()) == OURS
    assert "first_toy:TASK, second_toy:TASK" in capsys.readouterr().err
    with pytest.raises(UsageError, match="two installed packages have a task 'toy'"):
        registry.find_task("toy")


def test_an_entry_point_that_is_no_task_is_left_out_and_refused_by_name(install: Install) -> None:
    install("no_task", "no_task:TASK", "TASK = {'name': 'x'}\n")
    assert tuple(registry.tasks()) == OURS
    with pytest.raises(UsageError, match=r"entry point 'no_task' of ahabench.tasks is a dict, wanted a Task"):
        registry.find_task("no_task")


def test_what_is_left_out_is_said_once(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("no_task", "no_task:TASK", "TASK = 1\n")
    for _ in range(2):
        registry.tasks()
        registry.find_task("wemath")
        assert [task.name for task, _ in registry.parse_tasks("all")] == list(OURS)
    assert capsys.readouterr().err.count("no_task") == 1


@pytest.mark.parametrize(
    ("target", "source"),
    [
        ("half_installed:TASK", "import a_module_that_nobody_has\n"),
        ("half_installed:TASK", "OTHER = 1\n"),
        ("half_installed:TASK", "def broken(:\n"),
        ("half_installed:TASK", "raise SystemExit(77)\n"),
    ],
)
def test_a_task_that_cannot_be_imported_is_one_line_and_takes_no_other_along(
    install: Install, target: str, source: str
) -> None:
    install("half_installed", target, source)
    done = run("tasks")
    assert done.returncode == 0
    assert all(name in done.stdout for name in OURS)
    assert done.stderr.startswith("left out: the task 'half_installed' of half_installed:TASK cannot be loaded: ")
    assert done.stderr.count("\n") == 1
    named = run("tasks", "half_installed")
    assert (named.returncode, named.stdout) == (2, "")
    assert named.stderr.splitlines()[-1].startswith("error: the task 'half_installed' of half_installed:TASK cannot")


def test_help_does_not_import_tasks(install: Install) -> None:
    install("loud_task", "loud_task:TASK", "raise SystemExit(77)\n")
    done = run("--help")
    assert done.returncode == 0
    assert "agreement" in done.stdout


@pytest.mark.parametrize(
    ("typo", "meant"), [("mathvsta", "mathvista"), ("WeMath", "wemath"), ("logic-vista", "logicvista")]
)
def test_an_unknown_task_is_told_the_nearest_and_all(typo: str, meant: str) -> None:
    with pytest.raises(UsageError) as refused:
        registry.find_task(typo)
    assert f"unknown task '{typo}'. Did you mean '{meant}'?" in str(refused.value)
    assert ", ".join(OURS) in str(refused.value)


def test_a_name_that_is_like_nothing_gets_no_suggestion() -> None:
    with pytest.raises(UsageError) as refused:
        registry.find_task("zzz")
    assert "Did you mean" not in str(refused.value)


def test_all_is_every_task_with_its_default_split() -> None:
    assert [(task.name, split) for task, split in registry.parse_tasks("all")] == [
        ("dynamath", "sample"),
        ("logicvista", "test"),
        ("mathverse", "vision_only"),
        ("mathvision", "test"),
        ("mathvista", "testmini"),
        ("wemath", "testmini"),
    ]


def test_a_list_keeps_its_order_and_splits() -> None:
    pairs = registry.parse_tasks(" wemath , mathvision:testmini,mathvista")
    assert [(task.name, split) for task, split in pairs] == [
        ("wemath", "testmini"),
        ("mathvision", "testmini"),
        ("mathvista", "testmini"),
    ]


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ("mathvision:testmni", "unknown split of mathvision 'testmni'. Did you mean 'testmini'"),
        ("mathvision,mathvision:testmini", "mathvision is named twice"),
        ("mathvision,", "unknown task ''"),
        ("", "unknown task ''"),
        ("all,wemath", "unknown task 'all'"),
    ],
)
def test_a_list_that_cannot_be_run_is_refused(names: str, why: str) -> None:
    with pytest.raises(UsageError) as refused:
        registry.parse_tasks(names)
    assert why in str(refused.value)


def test_scorers_and_prompts_are_found_by_name_or_refused_with_the_nearest() -> None:
    task = registry.find_task("wemath")
    assert registry.find_scorer(task, "official") is task.scorers["official"]
    assert registry.find_prompt(task, "think") is task.prompts["think"]
    with pytest.raises(UsageError, match=r"unknown scorer of wemath 'offical'. Did you mean 'official'"):
        registry.find_scorer(task, "offical")
    with pytest.raises(UsageError, match=r"unknown prompt style of wemath 'thnk'. Did you mean 'think'"):
        registry.find_prompt(task, "thnk")


# Design section 4: these compare what a judge extracted.
NEED_A_JUDGE = {
    ("mathvista", "official"),
    ("mathverse", "official"),
    ("logicvista", "official"),
    ("logicvista", "vlmevalkit"),
}


@pytest.mark.parametrize("scorer", ["robust", "official", "vlmevalkit"])
@pytest.mark.parametrize("name", OURS)
def test_a_scorer_is_refused_before_generation_only_if_it_needs_a_judge(name: str, scorer: str) -> None:
    task = registry.find_task(name)
    registry.check_scorer(task, scorer, has_judge=True)
    if (name, scorer) in NEED_A_JUDGE:
        with pytest.raises(UsageError, match=f"{name}: the scorer '{scorer}' compares .* give --judge URL"):
            registry.check_scorer(task, scorer, has_judge=False)
    else:
        registry.check_scorer(task, scorer, has_judge=False)
