"""What the tasks that `ahabench export lmms-eval` wrote do while lmms-eval runs them. Written for lmms-eval 0.7.3.

lmms-eval scores in several threads; nothing here keeps state but caches, and the comparison of formulas runs in a
process of its own behind a lock (answers/symbolic.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ahabench.harness import registry
from ahabench.harness.dataset import read_export
from ahabench.harness.errors import IncompleteRunError, UsageError
from ahabench.harness.images import decode
from ahabench.harness.metrics import accuracy
from ahabench.harness.report import note
from ahabench.harness.score import judge_one
from ahabench.harness.types import Item, Prompt, PromptStyle, Response, Result, Scorer, Status, Task

NO_ANSWER = "no_answer_rate"
"""The share of responses out of which nothing could be read, beside the task's own metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What one exported task is, as its utils.py says."""

    folder: Path
    """Where `dataset.write_export` wrote the items."""
    task: str
    task_version: int
    split: str
    prompt: str
    prompt_version: int
    scorer: str
    scorer_version: int


@dataclass(frozen=True, slots=True)
class _Opened:
    task: Task
    style: PromptStyle
    scorer: Scorer
    items: Mapping[str, Item]


def text(exported: Exported, doc: Mapping[str, Any]) -> str:
    """Return the prompt for adapters that take no system message: there it opens the text."""
    prompt = _prompt(exported, doc)
    return f"{prompt.system}\n\n{prompt.text}" if prompt.system else prompt.text


def pictures(exported: Exported, doc: Mapping[str, Any]) -> list[Any]:
    """Return the item's images as Pillow's, decoded as for our own engines.

    Raises:
        DatasetError: one is missing or damaged.
    """
    item = _item(exported, doc)
    return [decode(image.read(), name=item.id) for image in item.images]


def messages(exported: Exported, doc: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the prompt as lmms-eval's chat adapters take it."""
    prompt = _prompt(exported, doc)
    words = [{"type": "text", "text": prompt.text}]
    shown = [{"type": "image", "url": picture} for picture in pictures(exported, doc)]
    user = {"role": "user", "content": words + shown if prompt.image_last else shown + words}
    if not prompt.system:
        return [user]
    return [{"role": "system", "content": [{"type": "text", "text": prompt.system}]}, user]


def settle(exported: Exported, doc: Mapping[str, Any], responses: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the verdict on an item's first response, per metric as `aggregate` wants it.

    All of it stands in a sample's log, the whole verdict under the headline metric: `imports` finds the item there.
    """
    opened, item = _open(exported), _item(exported, doc)
    verdict = judge_one(opened.scorer, item, Response(item_id=item.id, text=responses[0]))
    value = {"item_id": item.id, "correct": verdict.correct, "extracted": verdict.extracted}
    found: dict[str, dict[str, Any]] = {}
    for name, metric in opened.task.metrics.items():
        # lmms-eval draws its own standard error from "score": right for a plain mean and for nothing else.
        plain = metric is accuracy and item.id not in opened.scorer.excluded
        found[name] = value | ({"score": float(verdict.correct), "cluster": item.cluster} if plain else {})
    found[opened.task.headline] |= {"status": verdict.status.value, "rule": verdict.rule}
    found[NO_ANSWER] = {"item_id": item.id, "no_answer": verdict.status is Status.NO_ANSWER}
    return found


def aggregate(exported: Exported, metric: str, values: Sequence[Mapping[str, Any]]) -> float | None:
    """Return a metric, a fraction in [0, 1], over what `settle` returned for it, without what the scorer leaves out.

    `None`, and a line on stderr, where the metric is defined on whole clusters and `--limit` took a part of one.
    """
    opened = _open(exported)
    # By item: with several processes lmms-eval pads their shares, and an item may come twice.
    counted = {value["item_id"]: value for value in values if value["item_id"] not in opened.scorer.excluded}
    if metric == NO_ANSWER:
        return sum(bool(value["no_answer"]) for value in counted.values()) / len(counted) if counted else None
    results = [
        Result(item=opened.items[item_id], scores=(float(value["correct"]),), answers=(value["extracted"],))
        for item_id, value in counted.items()
    ]
    try:
        return opened.task.metrics[metric](results).value
    except IncompleteRunError as error:
        note(f"{exported.task} {exported.split}: {metric} is refused: {error}")
        return None


def _prompt(exported: Exported, doc: Mapping[str, Any]) -> Prompt:
    return _open(exported).style.render(_item(exported, doc))


def _item(exported: Exported, doc: Mapping[str, Any]) -> Item:
    return _open(exported).items[str(doc["item_id"])]


@lru_cache(maxsize=64)
def _open(exported: Exported) -> _Opened:
    """Return what an exported task works with.

    Raises:
        UsageError: the ahabench that is installed would ask or score differently from what the task's name says.
    """
    task = registry.find_task(exported.task)
    style = registry.find_prompt(task, exported.prompt)
    scorer = registry.find_scorer(task, exported.scorer)
    for name, was, now in (
        (f"task {task.name}", exported.task_version, task.version),
        (f"prompt {exported.prompt}", exported.prompt_version, style.version),
        (f"scorer {exported.scorer}", exported.scorer_version, scorer.version),
    ):
        if was != now:
            raise UsageError(
                f"{exported.folder} was exported with the {name}@{was}, the ahabench installed here has @{now}; "
                "export it again"
            )
    items = {item.id: item for item in read_export(exported.folder, task, exported.split)}
    return _Opened(task, style, scorer, items)
