"""Put two sides of runs beside each other: what may be compared, by which scorer, and on which items."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ahabench.harness import registry
from ahabench.harness.dataset import Dataset
from ahabench.harness.errors import UsageError, unknown_name
from ahabench.harness.gate.guards import Guard, allow, circumstances, guards_of, missing_tasks
from ahabench.harness.gate.policy import ANY, Policy
from ahabench.harness.gate.sides import Run, Scored, score_side, scorers_of
from ahabench.harness.rescore import items_of
from ahabench.harness.types import Item

DEFAULT_SCORER = "robust"
ROW_GUARDS = ("prompt_sha256", "images_sha256")
"""What each response says of what was asked: prompts to the letter, images to the byte."""
SAMPLED = re.compile(r"(avg|pass|maj)@[1-9][0-9]*")
"""Metrics that any benchmark has where a run has several responses to an item."""


class Pair(NamedTuple):
    """A benchmark's verdicts on both sides."""

    dataset: Dataset
    a: Sequence[Scored]
    b: Sequence[Scored]


def common_tasks(a: Sequence[Run], b: Sequence[Run], tasks: Sequence[str] | None) -> list[str]:
    """Return the benchmarks that every run has and that can be scored here, among `tasks` if it is given.

    Raises:
        UsageError: one of `tasks` is in no run.
    """
    known = list(dict.fromkeys(name for run in (*a, *b) for name in run.manifest.tasks))
    for name in tasks or ():
        if name not in known:
            raise unknown_name("task of these runs", name, known)
    shared = [name for name in known if all(name in run.manifest.tasks for run in (*a, *b))]
    chosen = shared if tasks is None else [name for name in shared if name in tasks]
    return [name for name in chosen if _is_public(name, a[0])]


def check(
    a: Sequence[Run],
    b: Sequence[Run],
    names: Sequence[str],
    tasks: Sequence[str] | None,
    policy: Policy,
    scorer: str | None,
) -> tuple[list[Guard], dict[str, tuple[str, str]]]:
    """Return the guards of all runs against the first, failing ones before others, and each side's scorer by task.

    Raises:
        UsageError: a run stands on both sides, or the sides have no benchmark in common that can be scored here.
    """
    for run in a:
        if run.path.resolve() in {other.path.resolve() for other in b}:
            raise UsageError(f"{run.path} is on both sides; name the run that is to be compared with it")
    first, *others = (*a, *b)
    found: dict[tuple[str, str | None], Guard] = {}
    for other in others:
        missing = missing_tasks(first.manifest, other.manifest, tasks)
        for guard in (missing, *guards_of(first.manifest, other.manifest, names)):
            place = (guard.field, guard.task)
            if place not in found or found[place].same:
                found[place] = guard
    scorers = {}
    for name in names:
        one, other_one = _scorers(a, name, scorer), _scorers(b, name, scorer)
        one, other_one = one or other_one or DEFAULT_SCORER, other_one or one or DEFAULT_SCORER
        found["scorer", name] = Guard(guard="scorer", field="scorer", task=name, a=one, b=other_one)
        scorers[name] = (one, other_one)
    accepted = allow(list(found.values()), policy.allow, extra=ROW_GUARDS)
    if not names and all(guard.passed for guard in accepted):
        raise UsageError("the two sides have no benchmark in common that can be scored here")
    return accepted, scorers


def notes_on(a: Sequence[Run], b: Sequence[Run], guards: Sequence[Guard]) -> list[str]:
    """Return what a reader of the whole comparison must know; of one that is refused, only what was accepted."""
    accepted = [f"accepted: {guard}" for guard in guards if guard.allowed and not guard.same]
    if not all(guard.passed for guard in guards):
        return accepted
    notes = []
    if unknown := _unknown(guards):
        notes.append(f"taken as equal, since neither side knows: {', '.join(unknown)}")
    notes += accepted
    weights = [{run.manifest.model.weights_digest for run in side} for side in (a, b)]
    if None not in weights[0] | weights[1] and weights[0] == weights[1]:
        why = "what was accepted, or noise" if accepted else "noise"
        notes.append(f"A and B are the same weights (A/A): what moved is {why} of engine and sampling")
    for label, side in zip("AB", (a, b), strict=True):
        drawn = [(run.manifest.model.weights_digest, run.manifest.sampling.seed) for run in side]
        if len(side) > 1 and None not in {digest for digest, _ in drawn} and len(set(drawn)) < len(drawn):
            notes.append(f"runs of {label} share weights and sampling seed: their spread says less than it seems to")
    if len(a) == len(b) == 1:
        notes.append("one run a side: this is about these two checkpoints, not about training again with another seed")
    elif 1 in (len(a), len(b)):
        notes.append("a side with one run is taken to spread between runs as the other does")
    return notes + circumstances(a[0].manifest, b[0].manifest)


def notes_on_policy(policy: Policy, names: Sequence[str]) -> list[str]:
    """Return what a policy names and a comparison of these benchmarks does not have: it may serve other runs too.

    Raises:
        UsageError: a margin or a metric is for a benchmark that is not installed, or for a metric that it has not.
    """
    compared = {f"{name}:{registry.find_task(name).headline}" for name in names} | set(policy.metrics)
    for text in policy.metrics:
        if ":" not in text:
            raise UsageError(f"the metric {text!r} names no benchmark, wanted TASK:METRIC")
    given = [text for text in (*policy.margin, *policy.metrics) if text != ANY]
    for text in given:
        _check_name(text, names)
    notes = []
    if absent := dict.fromkeys(text.partition(":")[0] for text in given if text.partition(":")[0] not in names):
        notes.append(f"the policy names benchmarks that are not compared here: {', '.join(absent)}")
    unused = [text for text in policy.margin if text.partition(":")[0] in names and ":" in text]
    if unused := [text for text in unused if text not in compared]:
        notes.append(f"margins of metrics that are not compared; add them to the metrics: {', '.join(unused)}")
    return notes


def _check_name(text: str, names: Sequence[str]) -> None:
    """Refuse a "TASK" or "TASK:METRIC" that no run could have."""
    task, colon, metric = text.partition(":")
    if task not in names and task not in registry.tasks():
        raise unknown_name("benchmark of a margin or metric", task, list(registry.tasks()))
    known = list(registry.find_task(task).metrics)
    if colon and metric not in known and not SAMPLED.fullmatch(metric):
        raise unknown_name(f"metric of {task}", metric, known)


def pair_up(name: str, a: Sequence[Run], b: Sequence[Run], scorers: tuple[str, str], data: Path | None) -> Pair:
    """Return a benchmark's verdicts on both sides, by each side's scorer.

    Raises:
        UsageError: a file is damaged.
        IncomparableRunsError: the items are not those of a run, or its verdicts need a judge that is not at hand.
    """
    datasets: dict[int | None, Dataset] = {}
    sides = []
    for side, scorer in zip((a, b), scorers, strict=True):
        scored = []
        for run in side:
            record = run.manifest.tasks[name]
            if record.limit not in datasets:
                datasets[record.limit] = items_of(record, name, data, run.path)
            scored += score_side([run], datasets[record.limit], scorer)
        sides.append(scored)
    return Pair(next(iter(datasets.values())), *sides)


def row_guards(pair: Pair) -> list[Guard]:
    """Return the guards on what each response was asked, where both sides recorded it."""
    guards = []
    first = pair.a[0].asked
    for place, field in enumerate(ROW_GUARDS):
        differing = next(
            (
                (key, first[key][place], asked[place])
                for other in (*pair.a[1:], *pair.b)
                for key, asked in other.asked.items()
                if key in first and None not in (first[key][place], asked[place]) and first[key][place] != asked[place]
            ),
            None,
        )
        guard = Guard(
            guard="prompt" if place == 0 else "items", field=field, task=pair.dataset.task.name, a="same", b="same"
        )
        if differing is not None:
            (item_id, _), one, other_one = differing
            guard = replace(guard, a=f"{str(one)[:12]} (item {item_id})", b=f"{str(other_one)[:12]} (item {item_id})")
        guards.append(guard)
    return guards


def notes_on_verdicts(pairs: Sequence[Pair]) -> list[str]:
    """Return which runs hold verdicts alone, a note each, and what that leaves out."""
    alone = [scored.run.path for pair in pairs for scored in (*pair.a, *pair.b) if scored.places is None]
    return [
        f"{path} holds no responses: its verdicts are compared as they stand, prompts and images are not checked item "
        "by item, and flips come without texts"
        for path in dict.fromkeys(alone)
    ]


def missing_phrases(pair: Pair) -> list[str]:
    """Return what responses each run lacks, a phrase each."""
    return [
        f"{scored.run.path}: responses to {pair.dataset.protocol} are missing: {len(scored.scores.missing):,}, "
        f"the first is item {scored.scores.missing[0][0]} sample {scored.scores.missing[0][1]}"
        for scored in (*pair.a, *pair.b)
        if scored.scores.missing
    ]


def common_items(pair: Pair) -> list[Item]:
    """Return the items of the clusters that every run answered in full, without those that a scorer leaves out.

    Raises:
        UsageError: there are none.
    """
    scored = (*pair.a, *pair.b)
    lost = {item_id for one in scored for item_id, _ in one.scores.missing}
    excluded = {item_id for one in scored for item_id in one.scores.excluded}
    asked = set.intersection(*({item.id for item in one.scores.dataset.items} for one in scored))
    holes = {item.cluster for item in pair.dataset.items if item.id in lost}
    items = [
        item
        for item in pair.dataset.items
        if item.id in asked and item.id not in excluded and item.cluster not in holes
    ]
    if not items:
        raise UsageError(f"{pair.dataset.protocol}: no item was answered by every run; there is nothing to compare")
    return items


def _is_public(name: str, run: Run) -> bool:
    """Whether a split can be scored here; where not, nothing is said of it."""
    return registry.find_task(name).splits[run.manifest.tasks[name].split].answers_public


def _unknown(guards: Sequence[Guard]) -> list[str]:
    """Return what neither side knows: a guard's name where it knows none of its fields, else the fields."""
    names: list[str] = []
    for name in dict.fromkeys(guard.guard for guard in guards):
        mine = [guard for guard in guards if guard.guard == name]
        unknown = list(dict.fromkeys(guard.field for guard in mine if guard.unknown))
        known = [guard for guard in mine if not guard.unknown and guard.a is not None]
        names += unknown if known or not unknown else [name]
    return names


def _scorers(side: Sequence[Run], name: str, scorer: str | None) -> str | None:
    """Return a side's scorer, `None` where it has not been scored."""
    if scorer is not None:
        return scorer
    found = sorted(scorers_of(side, name))
    if len(found) > 1:
        raise UsageError(f"{name} was scored with {' and '.join(found)} within one side; choose one with --scorer")
    return found[0] if found else None
