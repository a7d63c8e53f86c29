"""The whole loop in one folder: make the base, evaluate it, train it with GRPO, evaluate again, compare.

    <out>/base, <out>/grpo            checkpoints
    <out>/base-thinking               the base again, with a chat template that makes it think first
    <out>/training                    the GRPO run (trainer.grpo_run)
    <out>/runs/{base,forced,grpo}     evaluations on the mini suite
    <out>/site                        the board of the evaluations
    <out>/summary.json                the answer

Whatever stops it, the same command goes on: a finished part is not done again.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from ahabench.harness import registry
from ahabench.harness.dataset import Dataset, load, read_jsonl
from ahabench.harness.disk import replace_file
from ahabench.harness.errors import UsageError
from ahabench.harness.progress import duration
from ahabench.harness.report import note
from ahabench.harness.runlog import VERDICTS, write_metrics
from ahabench.harness.sampling import Sampling
from ahabench.harness.types import Item, Status
from ahabench.trainer.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from ahabench.harness.gate.difference import Difference, Totals

SUMMARY = "summary.json"
STYLE = "think"
RECIPE = "tiny-cpu"
MAX_NEW_TOKENS = 64

_BASE, _THINKING, _TRAINING, _GRPO, _RUNS, _SITE = "base", "base-thinking", "training", "grpo", "runs", "site"
_FORCED = "forced"
_STATE = "demo.json"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the loop."""

    title: str
    seconds: float
    """What it takes on two idle cores, for the time that is left."""
    do: Callable[[], None]


class State(BaseModel):
    """What the folder remembers between two calls."""

    model_config = ConfigDict(extra="forbid")

    seed: int
    settings: tuple[str, ...]
    seconds: dict[str, float] = {}
    """What each finished part took, by its title."""


def run_parts(parts: Sequence[Part], state: State, save: Callable[[], None]) -> None:
    """Do all parts in order; say which begins, and how long the rest will take at the pace so far."""
    for place, part in enumerate(parts):
        done = [earlier for earlier in parts[:place] if earlier.title in state.seconds]
        expected = sum(earlier.seconds for earlier in done)
        pace = sum(state.seconds[earlier.title] for earlier in done) / expected if expected else 1.0
        left = pace * sum(later.seconds for later in parts[place:] if later.title not in state.seconds)
        note(f"[{place + 1}/{len(parts)}] {part.title} (about {duration(left)} left)")
        began = time.monotonic()
        part.do()
        # A part that an earlier call has finished is only looked at again.
        state.seconds[part.title] = max(state.seconds.get(part.title, 0.0), time.monotonic() - began)
        save()


def demo(out: Path, *, seed: int = 0, settings: Sequence[str] = ()) -> dict[str, Any]:
    """Run the loop and return what `summary.json` says; all scores are fractions.

    "before" and "after" are accuracies over all held-out items, "difference" is paired by item with the interval and
    the two-sided p-value of a t test over clusters; "forced_mode" is the accuracy of the untrained base where its
    template makes it think first: what GRPO would reach by choosing that mode and learning nothing else.

    Args:
        out: the folder; one of an earlier call with the same seed and settings is gone on in.
        seed: of the base and the training.
        settings: overrides of the recipe `tiny-cpu`, such as "max_steps=100".

    Raises:
        UsageError: the folder holds something else, or a setting is none of the recipe's.
        AhabenchError: as the parts.
    """
    recipe = load_recipe(RECIPE, [*settings, f"seed={seed}"])
    state = _claim(out, seed, tuple(settings))
    datasets = [load(task, split) for task, split in registry.parse_tasks(None, suite="mini")]
    runs = out / _RUNS
    found: dict[str, Any] = {}
    parts = [
        Part("a base model: a tiny Qwen2.5-VL, made from nothing", 75, lambda: _make_base(out, recipe)),
        Part("evaluate the base", 25, lambda: _evaluate(out / _BASE, runs / _BASE, datasets)),
        Part("evaluate it again, made to think first", 30, lambda: _evaluate_forced(out, datasets)),
        Part("train it with GRPO and mixed rewards", 75, lambda: _train(out, recipe)),
        Part("evaluate the trained model", 30, lambda: _evaluate(out / _GRPO, runs / _GRPO, datasets)),
        Part("compare, and count aha moments", 10, lambda: found.update(_summary(out, datasets, seed))),
        Part("the board", 5, lambda: _board(out)),
    ]
    run_parts(parts, state, lambda: _save(out, state))
    summary = {"seconds": round(sum(state.seconds.values()), 1), **found}
    write_metrics(out / SUMMARY, summary)
    return summary


def shared_items(datasets: Sequence[Dataset], seed: int) -> tuple[int, int]:
    """Return how many different items are held out, and how many of them were seen in training.

    Items are the same where their pictures and the texts of their prompts are. Training is the warm-up's lessons and
    the GRPO records.
    """
    from ahabench.tasks.mini.training import train_samples
    from ahabench.trainer.reference import warmup_samples
    from ahabench.trainer.task import MINI_RECORDS

    def content(image: bytes, text: str) -> bytes:
        return sha256(len(image).to_bytes(8, "big") + image + text.encode()).digest()

    held_out = {content(item.images[0].read(), text) for item, text in _asked(datasets)}
    trained = set()
    for samples in (warmup_samples(seed), train_samples(MINI_RECORDS)):
        trained |= {content(sample.record["image"].read(), sample.record["question"]) for sample in samples}
    return len(held_out), len(held_out & trained)


def _asked(datasets: Sequence[Dataset]) -> Iterator[tuple[Item, str]]:
    for dataset in datasets:
        render = dataset.task.prompts[STYLE].render
        yield from ((item, render(item).text) for item in dataset.items)


def _claim(out: Path, seed: int, settings: tuple[str, ...]) -> State:
    """Take a new folder, or one that this demo left with the same seed and settings."""
    state = State(seed=seed, settings=settings)
    if (out / _STATE).is_file():
        try:
            found = State.model_validate_json((out / _STATE).read_bytes())
        except ValueError as error:
            raise UsageError(f"{out / _STATE} is damaged; use another --out") from error
        if (found.seed, found.settings) != (seed, settings):
            begun = " ".join([f"--seed {found.seed}", *found.settings])
            raise UsageError(f"{out} was begun with {begun}; give the same again, or another --out")
        return found
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out {out} is not empty and no demo's; give a new folder")
    out.mkdir(parents=True, exist_ok=True)
    _save(out, state)
    return state


def _save(out: Path, state: State) -> None:
    replace_file(out / _STATE, [state.model_dump_json(indent=2).encode() + b"\n"])


def _whole(target: Path, make: Callable[[Path], object]) -> None:
    """Make a folder under another name first, so that one with its own name is whole."""
    if target.exists():
        return
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    make(partial)
    partial.rename(target)


def _make_base(out: Path, recipe: Recipe) -> None:
    from ahabench.trainer.reference import WARMUP_STEPS, make_reference

    steps = WARMUP_STEPS if recipe.reference_steps is None else recipe.reference_steps
    _whole(out / _BASE, lambda folder: make_reference(folder, seed=recipe.seed, steps=steps, progress=note))


def _train(out: Path, recipe: Recipe) -> None:
    import torch

    from ahabench.trainer.grpo_run import train
    from ahabench.trainer.lifecycle import FINAL

    # On a busy machine of two cores, 12 steps took 41 s with one thread and seven times that with two: the threads of
    # so small a model mostly wait for each other.
    torch.set_num_threads(1)
    ours = recipe.model_copy(update={"model": str(out / _BASE), "reference_steps": None})
    _whole(out / _TRAINING, lambda folder: train(ours, folder))
    _whole(out / _GRPO, lambda folder: shutil.copytree(out / _TRAINING / FINAL, folder))


def _evaluate_forced(out: Path, datasets: Sequence[Dataset]) -> None:
    from ahabench.trainer.baseline import force_careful

    _whole(out / _THINKING, lambda folder: force_careful(out / _BASE, folder))
    _evaluate(out / _THINKING, out / _RUNS / _FORCED, datasets)


def _evaluate(checkpoint: Path, run: Path, datasets: Sequence[Dataset]) -> None:
    from ahabench.harness.engines import open_engine
    from ahabench.harness.evaluation import evaluate
    from ahabench.harness.runner import Plan, TaskPlan

    engine = open_engine("transformers", str(checkpoint), sampling=Sampling(max_new_tokens=MAX_NEW_TOKENS))
    tasks = tuple(
        TaskPlan(dataset=dataset, style=STYLE, prompt=dataset.task.prompts[STYLE], limit=None) for dataset in datasets
    )
    evaluate(Plan(tasks=tasks), engine, run, scorer="robust", data=None)


def _summary(out: Path, datasets: Sequence[Dataset], seed: int) -> dict[str, Any]:
    runs = out / _RUNS
    base, forced, grpo = (_totals(runs / name, datasets) for name in (_BASE, _FORCED, _GRPO))
    difference = _difference(list(base.values()), list(grpo.values()))
    gain = _difference(list(forced.values()), list(grpo.values()))
    held_out, shared = shared_items(datasets, seed)
    return {
        "heldout_items": held_out,
        "shared_items": shared,
        "before": difference.a,
        "after": difference.b,
        "difference": difference.value,
        "ci95": list(difference.ci95),
        "p": difference.p,
        "forced_mode": gain.a,
        "beyond_forced_mode": {"difference": gain.value, "ci95": list(gain.ci95), "p": gain.p},
        "tasks": {
            name: {"before": _score(base[name]), "after": _score(grpo[name]), "forced_mode": _score(forced[name])}
            for name in base
        },
        "aha": {name: _aha(runs / name) for name in (_BASE, _GRPO)},
    }


def _totals(run: Path, datasets: Sequence[Dataset]) -> dict[str, "Totals"]:
    """Return the right answers and the items of each cluster, by task."""
    import numpy as np

    from ahabench.harness.gate.difference import Totals

    found = {}
    for dataset in datasets:
        name = dataset.task.name
        right = {row["item_id"]: row["status"] == Status.CORRECT.value for row in read_jsonl(run / name / VERDICTS)}
        clusters = sorted({item.cluster for item in dataset.items})
        place = [clusters.index(item.cluster) for item in dataset.items]
        hits = np.bincount(place, weights=[right[item.id] for item in dataset.items], minlength=len(clusters))
        found[name] = Totals(
            numerators=hits[None, :].astype(float),
            denominators=np.bincount(place, minlength=len(clusters))[None, :].astype(float),
        )
    return found


def _joined(sides: Sequence["Totals"]) -> "Totals":
    import numpy as np

    from ahabench.harness.gate.difference import Totals

    return Totals(
        numerators=np.hstack([side.numerators for side in sides]),
        denominators=np.hstack([side.denominators for side in sides]),
    )


def _difference(a: Sequence["Totals"], b: Sequence["Totals"]) -> "Difference":
    from ahabench.harness.gate.difference import paired_difference

    found = paired_difference(_joined(a), _joined(b))
    assert found is not None, "the mini suite has clusters enough"
    return found


def _score(side: "Totals") -> float:
    return float(side.numerators.sum() / side.denominators.sum())


def _aha(run: Path) -> dict[str, Any]:
    from ahabench.harness.aha.summary import read_all, summarise
    from ahabench.harness.aha.told import read_told

    found = summarise(read_all(read_told(run)))
    return {name: found[name] for name in ("n", "with_moment", "moments", "per_1000_tokens", "lexicon")}


def _board(out: Path) -> None:
    from ahabench.leaderboards.build import build_site
    from ahabench.leaderboards.runs import TRAINING_LOG

    # The page of the trained checkpoint shows its curves.
    shutil.copyfile(out / _TRAINING / TRAINING_LOG, out / _RUNS / _GRPO / TRAINING_LOG)
    build_site([out / _RUNS / name for name in (_BASE, _FORCED, _GRPO)], out / _SITE)
