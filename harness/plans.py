"""A plan from what was asked: presets, flags before presets, and every name checked before anything is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ahabench.harness import registry
from ahabench.harness.dataset import load, subset
from ahabench.harness.errors import UsageError, unknown_name
from ahabench.harness.prompts import PRESETS, Preset
from ahabench.harness.report import note
from ahabench.harness.runner import TaskPlan
from ahabench.harness.sampling import Sampling
from ahabench.harness.types import Task


def find_preset(name: str | None, prompt: str | None) -> Preset | None:
    """Return a preset by its name.

    Raises:
        UsageError: there is no such preset, or a prompt style is asked for beside it.
    """
    if name is None:
        return None
    if name not in PRESETS:
        raise unknown_name("preset", name, list(PRESETS))
    if prompt is not None:
        raise UsageError(f"--preset {name} asks with the prompt style {PRESETS[name].prompt!r}; leave --prompt out")
    return PRESETS[name]


def check_names(pairs: Sequence[tuple[Task, str]], style: str, scorer: str, *, has_judge: bool) -> None:
    """Refuse a prompt style or a scorer that a task has not, or a scorer that needs a judge and has none.

    Raises:
        UsageError: with the names that there are.
    """
    for task, _ in pairs:
        registry.find_prompt(task, style)
        registry.find_scorer(task, scorer)
    for task, split in pairs:
        if task.splits[split].answers_public:
            registry.check_scorer(task, scorer, has_judge=has_judge)


def plan_task(task: Task, split: str, *, style: str, data: Path | None, limit: int | None) -> TaskPlan:
    """Return what to ask of one benchmark; a limit that made it fewer items is said.

    Raises:
        UsageError: as `dataset.load`.
        DatasetError: as `dataset.load`.
    """
    dataset = load(task, split, data=data)
    if limit is not None:
        dataset = replace(dataset, items=subset(dataset.items, limit))
        note(f"{dataset.protocol}: {len(dataset.items):,} items of --limit {limit} (whole clusters)")
    return TaskPlan(dataset=dataset, style=style, prompt=registry.find_prompt(task, style), limit=limit)


def draw(preset: Preset | None, flags: Mapping[str, Any], *, samples: int, seed: int) -> Sampling:
    """Return how to draw; a flag goes before a preset.

    Raises:
        UsageError: a value is out of range.
    """
    values = {name: getattr(preset, name) for name in flags} if preset else {}
    values |= {name: value for name, value in flags.items() if value is not None}
    return Sampling(samples=samples, seed=seed, **values)


def pixel_limit(flag: int | None, preset: int | None) -> int | None:
    """Return a limit; a flag goes before a preset, and 0 takes the preset's limit away."""
    return preset if flag is None else flag or None
