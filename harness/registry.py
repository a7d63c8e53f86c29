"""Find a task, a prompt style or a scorer by its name.

Our tasks are the modules of the namespace folder `ahabench.tasks` that hold a `TASK`; a stranger's package adds one by
an entry point in the group `ahabench.tasks`. Neither is imported before somebody asks.
"""

import importlib
import multiprocessing
import pkgutil
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import NamedTuple

from ahabench.harness.errors import UsageError, unknown_name
from ahabench.harness.report import note
from ahabench.harness.types import PromptStyle, Scorer, Task

GROUP = "ahabench.tasks"
UNLISTED = "ahabench.data"
MINI = "mini"
"""The split that a task draws in this process, and the suite of all of those."""
SUITES = ("full", MINI)


class _Found(NamedTuple):
    usable: dict[str, Task]
    unusable: dict[str, str]
    """Why a name that a stranger's package declares stands for no task."""


@cache
def tasks() -> dict[str, Task]:
    """Return every installed task by name, sorted.

    A stranger's task that cannot be used is left out and said once on stderr; it must not take the others along.
    """
    usable, unusable = _found()
    # A worker process would only repeat what its parent said.
    if multiprocessing.parent_process() is None:
        for why in unusable.values():
            note(f"left out: {why}")
    return dict(sorted(usable.items()))


def find_task(name: str) -> Task:
    """Return a task by name.

    Raises:
        UsageError: there is none, and the message names the nearest; or its package cannot be used.
    """
    known = tasks()
    if name in known:
        return known[name]
    if why := _found().unusable.get(name):
        raise UsageError(why)
    # Tasks that are no benchmarks, such as a trainer's rollouts: found by name, in no listing.
    for point in entry_points(group=UNLISTED, name=name):
        return _load(point)
    raise unknown_name("task", name, list(known))


def _found() -> _Found:
    ours: dict[str, Task] = {}
    folder = importlib.import_module(GROUP)
    for module in pkgutil.iter_modules(folder.__path__):
        task = getattr(importlib.import_module(f"{GROUP}.{module.name}"), "TASK", None)
        if isinstance(task, Task):
            ours[task.name] = task
    unusable: dict[str, str] = {}
    theirs: dict[str, list[tuple[EntryPoint, Task]]] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        try:
            task = _load(point)
        except UsageError as error:
            unusable[point.name] = str(error)
        else:
            theirs.setdefault(task.name, []).append((point, task))
    usable = dict(ours)
    for name, declared in theirs.items():
        if name not in ours and len({point.value for point, _ in declared}) == 1:
            usable[name] = declared[0][1]
        else:
            # Ours stays; of two strangers' neither is taken, because which one would be a matter of chance.
            where = ", ".join(point.value for point, _ in declared)
            unusable[name] = f"two installed packages have a task {name!r}; uninstall one ({where})"
    return _Found(usable, unusable)


def _load(point: EntryPoint) -> Task:
    try:
        task = point.load()
    except (Exception, SystemExit) as error:
        why = f"{type(error).__name__}: {error}"
        raise UsageError(f"the task {point.name!r} of {point.value} cannot be loaded: {why}") from error
    if not isinstance(task, Task):
        raise UsageError(f"the entry point {point.name!r} of {GROUP} is a {type(task).__name__}, wanted a Task")
    return task


def parse_tasks(names: str | None, *, suite: str = "full") -> list[tuple[Task, str]]:
    """Return the (task, split) pairs of a list such as "mathvista,mathvision:testmini" or "all".

    Args:
        names: a split that is named goes before the suite's. `None` is "all" in the suite "mini".
        suite: "full" takes each task's default split; "mini" the built-in one, and for "all" leaves out the tasks that
            have none.

    Raises:
        UsageError: a task, split or suite is not known, a task is named twice, a named one has no built-in split, or
            nothing is named.
    """
    if suite not in SUITES:
        raise unknown_name("suite", suite, list(SUITES))
    if names is None and suite != MINI:
        raise UsageError("give --tasks all, or names such as mathvista,mathvision:testmini; or --suite mini")
    if names is None or names == "all":
        chosen = [task for task in tasks().values() if suite != MINI or MINI in task.splits]
        return [(task, _suite_split(task, suite)) for task in chosen]
    pairs: list[tuple[Task, str]] = []
    for part in names.split(","):
        name, _, split = part.strip().partition(":")
        task = find_task(name)
        if split and split not in task.splits:
            raise unknown_name(f"split of {task.name}", split, list(task.splits))
        if any(task is other for other, _ in pairs):
            raise UsageError(f"{task.name} is named twice; a run holds one split of a task")
        if not split and suite == MINI and MINI not in task.splits:
            raise UsageError(f"{task.name} has no built-in split; leave it out, or name a split: {task.name}:SPLIT")
        pairs.append((task, split or _suite_split(task, suite)))
    return pairs


def parse_task(name: str) -> tuple[Task, str]:
    """Return the one task that is named, such as "mathvision:testmini", with its split.

    Raises:
        UsageError: as `parse_tasks`, or it is not one.
    """
    pairs = parse_tasks(name)
    if len(pairs) != 1:
        raise UsageError(f"--task takes one task, found {name!r}")
    return pairs[0]


def _suite_split(task: Task, suite: str) -> str:
    return MINI if suite == MINI else task.default_split


def find_scorer(task: Task, name: str) -> Scorer:
    """Return a task's scorer by name.

    Raises:
        UsageError: it has none of that name.
    """
    if name not in task.scorers:
        raise unknown_name(f"scorer of {task.name}", name, list(task.scorers))
    return task.scorers[name]


def find_prompt(task: Task, name: str) -> PromptStyle:
    """Return a task's prompt style by name.

    Raises:
        UsageError: it has none of that name.
    """
    if name not in task.prompts:
        raise unknown_name(f"prompt style of {task.name}", name, list(task.prompts))
    return task.prompts[name]


def check_scorer(task: Task, name: str, *, has_judge: bool) -> None:
    """Refuse a scorer that cannot score fresh responses, before hours are spent on them.

    Raises:
        UsageError: there is no such scorer, or it compares what a judge extracted and there is no judge.
    """
    if find_scorer(task, name).read is None and not has_judge:
        raise UsageError(
            f"{task.name}: the scorer {name!r} compares an answer that a judge extracted; "
            "give --judge URL, or rows with an official_extraction, or score with --scorer robust."
        )
