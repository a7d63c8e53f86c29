"""Find a task, a prompt style or a scorer by its name.

Our tasks are the modules of the namespace folder `ahabench.tasks` that hold a `TASK`; a stranger's package adds one by
an entry point in the group `ahabench.tasks`. Neither is imported before somebody asks.
"""

import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points

from ahabench.harness.errors import UsageError, unknown_name
from ahabench.harness.types import PromptStyle, Scorer, Task

GROUP = "ahabench.tasks"


@cache
def tasks() -> dict[str, Task]:
    """Return every installed task by name, sorted.

    Raises:
        UsageError: two packages give tasks of the same name, or an entry point is no task.
    """
    folder = importlib.import_module(GROUP)
    found: dict[str, Task] = {}
    for module in pkgutil.iter_modules(folder.__path__):
        task = getattr(importlib.import_module(f"{GROUP}.{module.name}"), "TASK", None)
        if isinstance(task, Task):
            found[task.name] = task
    for point in entry_points(group=GROUP):
        task = point.load()
        if not isinstance(task, Task):
            raise UsageError(f"the entry point {point.name!r} of {GROUP} is a {type(task).__name__}, wanted a Task")
        if task.name in found:
            raise UsageError(f"two installed packages have a task {task.name!r}; uninstall one ({point.value})")
        found[task.name] = task
    return dict(sorted(found.items()))


def find_task(name: str) -> Task:
    """Return a task by name.

    Raises:
        UsageError: there is none; the message names the nearest.
    """
    known = tasks()
    if name not in known:
        raise unknown_name("task", name, list(known))
    return known[name]


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
