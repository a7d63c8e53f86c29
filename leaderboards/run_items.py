"""A run item by item: what was asked, what was answered, what the verdict was. Per-item exports start from it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ahabench.harness import registry
from ahabench.harness.dataset import Dataset
from ahabench.harness.errors import IncomparableRunsError, UsageError
from ahabench.harness.manifest import Manifest, read_manifest
from ahabench.harness.rescore import items_of
from ahabench.harness.runlog import RESPONSES, VERDICTS, read_responses
from ahabench.harness.types import Item, Prompt, Response
from ahabench.leaderboards.runs import read_objects

_THINK = re.compile(r"\s*<think>(?P<thought>.*?)</think>(?P<rest>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One response with all that belongs to it."""

    task: str
    split: str
    item: Item
    prompt: Prompt | None
    """As it was rendered for the model; `None` where the run does not say in which style."""
    response: Response
    verdict: Mapping[str, Any] | None
    """The row of `verdicts.jsonl`; `None` where the scorer left the item out, or the run is not scored."""
    other: Mapping[str, Any] | None = None
    """The row of another run; `None` where there is none to compare with."""

    @property
    def flip(self) -> str | None:
        """Compared with the other run: "fixed" if only this one is right, "broken" if only that one, else "same"."""
        if self.verdict is None or self.other is None:
            return None
        before, now = (row["status"] == "correct" for row in (self.other, self.verdict))
        return "same" if before == now else "fixed" if now else "broken"


def answered(
    run: Path, manifest: Manifest, task: str, *, data: Path | None, against: Path | None = None
) -> Iterator[Answered]:
    """Yield a task's responses in the order of the data, each with its item and verdict.

    Args:
        run: the run directory.
        manifest: its manifest.
        task: one of its tasks.
        data: where the items are, as for `dataset.load`.
        against: another run directory, whose verdicts come along where it answered the same task.

    Raises:
        UsageError: a file is damaged, or there are no responses.
        DatasetError: the items are not at hand.
        IncomparableRunsError: the items at hand are not those of the run, or those of `against` are others.
    """
    record = manifest.tasks[task]
    dataset = items_of(record, task, data, run)
    verdicts = _verdicts(run / task / VERDICTS)
    others = _others(against, manifest, task) if against is not None else {}
    by_item: dict[str, list[Response]] = {}
    for response in read_responses(run / task / RESPONSES):
        by_item.setdefault(response.item_id, []).append(response)
    for item in dataset.items:
        said = by_item.get(item.id, [])
        prompt = _prompt(dataset, item, manifest, task) if said else None
        for response in sorted(said, key=lambda one: one.sample_index):
            yield Answered(
                task=task,
                split=record.split,
                item=item,
                prompt=prompt,
                response=response,
                verdict=verdicts.get((response.item_id, response.sample_index)),
                other=others.get((response.item_id, response.sample_index)),
            )


def think_and_answer(text: str) -> tuple[str | None, str]:
    """Return the thought in ``<think>`` that a response begins with, and the rest; `None` and the whole without one."""
    found = _THINK.fullmatch(text)
    return (found["thought"], found["rest"]) if found else (None, text)


def chosen_tasks(manifest: Manifest, run: Path, only: str | None) -> list[str]:
    """Return the tasks of a run, or the one that is named.

    Raises:
        UsageError: the run does not hold it.
    """
    if only is not None and only not in manifest.tasks:
        raise UsageError(f"{run} holds no responses to {only}; it has {', '.join(manifest.tasks) or 'none'}")
    return [only] if only is not None else list(manifest.tasks)


def _prompt(dataset: Dataset, item: Item, manifest: Manifest, task: str) -> Prompt | None:
    style = manifest.tasks[task].prompt
    known = dataset.task.prompts.get(style.style) if style is not None else None
    if style is None or known is None or known.version != style.version:
        return None
    prompt = registry.find_prompt(dataset.task, style.style).render(item)
    return prompt if manifest.system_prompt is None else replace(prompt, system=manifest.system_prompt or None)


def _others(against: Path, manifest: Manifest, task: str) -> dict[tuple[str, int], Mapping[str, Any]]:
    theirs, ours = read_manifest(against).tasks.get(task), manifest.tasks[task]
    if theirs is None:
        return {}
    if (theirs.split, theirs.data_digest) != (ours.split, ours.data_digest):
        raise IncomparableRunsError(
            f"{against} answered other items of {task}; leave out --against, or give another run"
        )
    return _verdicts(against / task / VERDICTS)


def _verdicts(path: Path) -> dict[tuple[str, int], Mapping[str, Any]]:
    if not path.exists():
        return {}
    return {(str(row.get("item_id")), int(row.get("sample_index") or 0)): row for _, row in read_objects(path)}
