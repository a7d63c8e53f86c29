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


def parse_tasks(names: str) -> list[tuple[Task, str]]:
    """Return the (task, split) pairs of a list such as "mathvista,mathvision:testmini" or "all".

    Raises:
        UsageError: a task or split is not known, or a task is named twice.
    """
    if names == "all":
        return [(task, task.default_split) for task in tasks().values()]
    pairs: list[tuple[Task, str]] = []
    for part in names.split(","):
        name, _, split = part.strip().partition(":")
        task = find_task(name)
        if split and split not in task.splits:
            raise unknown_name(f"split of {task.name}", split, list(task.splits))
        if any(task is other for other, _ in pairs):
            raise UsageError(f"{task.name} is named twice; a run holds one split of a task")
        pairs.append((task, split or task.default_split))
    return pairs


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
