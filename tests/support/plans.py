"""Benchmarks of given items, and plans that ask them."""

from collections.abc import Mapping, Sequence
from typing import Any

from ahabench.harness.dataset import Dataset
from ahabench.harness.runner import Plan, TaskPlan
from ahabench.harness.types import Item, Prompt, PromptStyle, Split, Task

PLAIN = PromptStyle(version=1, render=lambda item: Prompt(text=item.question))


def benchmark(
    items: Sequence[Item], *, name: str = "sums", prompts: Mapping[str, PromptStyle] | None = None, digest: str = "00"
) -> Dataset:
    """Return a benchmark that nobody scores, as if read from a folder."""
    task = Task(
        name=name,
        title=name,
        version=1,
        paper="",
        licence="",
        splits={"test": Split(n_items=len(items), hub=None)},
        default_split="test",
        read_folder=lambda folder, split: (),
        to_item=lambda row: row["item"],
        prompts=prompts or {"plain": PLAIN},
        scorers={},
        metrics={},
        headline="accuracy",
    )
    return Dataset(task=task, split="test", items=tuple(items), source="folder", revision=None, digest=digest)


def plan_of(items: Sequence[Item], *, name: str = "sums", **fields: Any) -> Plan:
    """Return a plan that asks items as they are."""
    made = benchmark(items, name=name)
    return Plan(tasks=(TaskPlan(dataset=made, style="plain", prompt=PLAIN),), **fields)
