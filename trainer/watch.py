"""Benchmarks during training: every k steps the policy is saved, evaluated as `ahabench eval` does it, and compared.

    <out>/evaluations/step-N/    a run of its own: `ahabench compare`, `board` and `aha` read it

The evaluations have their own engine and draw no random numbers of the training's, so a watched run makes the same
updates as an unwatched one. Step 0 is the untrained model.
"""

import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ahabench.harness import registry
from ahabench.harness.dataset import Dataset, load, read_jsonl, subset
from ahabench.harness.engines import open_engine
from ahabench.harness.errors import UsageError, unknown_name
from ahabench.harness.evaluation import evaluate
from ahabench.harness.gate.difference import Totals
from ahabench.harness.report import note
from ahabench.harness.runlog import RESPONSES, VERDICTS
from ahabench.harness.runner import Plan, TaskPlan
from ahabench.harness.sampling import Sampling
from ahabench.harness.types import Status, Task
from ahabench.trainer.divergence import Divergence, compare, groups, pairs
from ahabench.trainer.recipe import Recipe, Watch
from ahabench.trainer.run_folder import EVALUATIONS, STEP
from ahabench.trainer.task import TASK


class BenchmarkWatch(TrainerCallback):
    """Evaluates the policy, logs "benchmark/<task>" and "benchmark/all" (fractions), and says when they diverge.

    Args:
        trainer: whose model is evaluated.
        recipe: with its `watch`.
        out: the run's folder.
    """

    def __init__(self, trainer: Any, recipe: Recipe, out: Path) -> None:
        assert recipe.watch is not None, "there is something to watch"
        self._trainer = trainer
        self._recipe = recipe
        self._watch = recipe.watch
        self._out = out
        self._datasets = open_benchmarks(recipe.watch)
        self._seen: dict[int, Totals] = {}
        self.divergences: list[Divergence] = []

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Evaluate the untrained model, and read the evaluations of a run that goes on."""
        for step in _due(self._watch.every, state.global_step):
            self._look(step, state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Evaluate every k steps and at the end."""
        if state.global_step % self._watch.every == 0 or state.global_step == state.max_steps:
            self._look(state.global_step, state)

    def _look(self, step: int, state: TrainerState) -> None:
        run = self._out / EVALUATIONS / f"{STEP}{step}"
        accelerator = self._trainer.accelerator
        model = self._out / EVALUATIONS / "model"
        if not run.is_dir() and step != state.global_step:
            return
        fresh = not (run / "complete").is_file()
        if fresh:
            self._trainer.save_model(str(model))
            if accelerator.is_main_process:
                with undisturbed():
                    self._evaluate(model, run)
        if accelerator.is_main_process:
            shutil.rmtree(model, ignore_errors=True)
            self._compare(step, run, state, log=fresh)
        accelerator.wait_for_everyone()

    def _evaluate(self, model: Path, run: Path) -> None:
        # What a kill left is of the same step, but not surely of the same weights.
        shutil.rmtree(run, ignore_errors=True)
        engine = open_engine(
            "transformers",
            str(model),
            sampling=Sampling(max_new_tokens=self._watch.max_new_tokens),
            min_pixels=self._recipe.min_pixels,
            max_pixels=self._recipe.max_pixels,
        )
        tasks = tuple(
            TaskPlan(
                dataset=dataset,
                style=self._watch.prompt,
                prompt=dataset.task.prompts[self._watch.prompt],
                limit=self._watch.limit,
            )
            for dataset in self._datasets
        )
        evaluate(Plan(tasks=tasks), engine, run, scorer="robust", data=self._watch.data, preflight=False)
        (run / "complete").touch()

    def _compare(self, step: int, run: Path, state: TrainerState, *, log: bool) -> None:
        totals = {dataset.task.name: totals_of(run, dataset) for dataset in self._datasets}
        joined = join(list(totals.values()))
        scores = {f"benchmark/{name}": score(side) for name, side in totals.items()} | {"benchmark/all": score(joined)}
        if log:
            self._log(scores)
            note(f"step {step}: benchmark {100 * scores['benchmark/all']:.1f} %")
        rollouts = self._out / TASK.name / RESPONSES
        drawn = groups(read_jsonl(rollouts)) if rollouts.is_file() else []
        planned = len({*range(0, state.max_steps + 1, self._watch.every), state.max_steps})
        level = self._watch.alpha / max(1, pairs(planned))
        for earlier, before in sorted(self._seen.items()):
            found = compare((earlier, before), (step, joined), drawn, level=level, margin=self._watch.margin)
            if found is not None:
                self.divergences.append(found)
                if found.finding is not None and log:
                    note(found.message)
        self._seen[step] = joined
        if log and any(one.finding and one.step == step for one in self.divergences):
            self._log({"benchmark/alarm": 1.0})

    def _log(self, values: dict[str, float]) -> None:
        control = self._trainer.control
        wanted = control.should_log
        # Past TRL's own `log`, which would empty the metrics of the step.
        Trainer.log(self._trainer, values)
        # transformers takes any log for the step's own, which would then never come: neither would the KL's.
        control.should_log = wanted


def open_benchmarks(watch: Watch) -> list[Dataset]:
    """Return the benchmarks to watch, with at most `limit` items each.

    Raises:
        AhabenchError: one is not known, not there, or has no such prompt.
    """
    found = [load(task, split, data=watch.data) for task, split in watched_tasks(watch)]
    if watch.limit is None:
        return found
    return [replace(dataset, items=subset(dataset.items, watch.limit)) for dataset in found]


def watched_tasks(watch: Watch) -> list[tuple[Task, str]]:
    """Return the benchmarks to watch with their splits; nothing is read.

    Raises:
        UsageError: one is not known, or has no such prompt; or the folder of their data is not there.
    """
    names = ",".join(watch.benchmarks) or (None if watch.suite == "mini" else "all")
    found = registry.parse_tasks(names, suite=watch.suite)
    for task, _ in found:
        if watch.prompt not in task.prompts:
            raise unknown_name(f"prompt of {task.name}", watch.prompt, list(task.prompts))
    if watch.data is not None and not watch.data.is_dir():
        raise UsageError(f"watch.data is {watch.data}, and there is no such folder")
    return found


def totals_of(run: Path, dataset: Dataset) -> Totals:
    """Return the right answers and the items of each cluster of one benchmark."""
    right = {
        row["item_id"]: row["status"] == Status.CORRECT.value for row in read_jsonl(run / dataset.task.name / VERDICTS)
    }
    clusters = sorted({item.cluster for item in dataset.items})
    place = {cluster: index for index, cluster in enumerate(clusters)}
    hits, sizes = np.zeros((1, len(clusters))), np.zeros((1, len(clusters)))
    for item in dataset.items:
        hits[0, place[item.cluster]] += right[item.id]
        sizes[0, place[item.cluster]] += 1
    return Totals(numerators=hits, denominators=sizes)


def join(sides: Sequence[Totals]) -> Totals:
    """Return the benchmarks of one evaluation as one: every item counts the same."""
    return Totals(
        numerators=np.hstack([side.numerators for side in sides]),
        denominators=np.hstack([side.denominators for side in sides]),
    )


def score(side: Totals) -> float:
    """Return the share of right answers."""
    return float(side.numerators.sum() / side.denominators.sum())


@contextmanager
def undisturbed() -> Iterator[None]:
    """Leave every random stream as it was."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _due(every: int, step: int) -> list[int]:
    """Return the steps up to one at which there is an evaluation, if all went as planned."""
    return list(range(0, step + 1, every))
