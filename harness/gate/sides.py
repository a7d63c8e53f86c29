"""One side of a comparison: its runs, and their verdicts by one scorer."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ahabench.harness import registry
from ahabench.harness.accounting import results_of
from ahabench.harness.dataset import Dataset
from ahabench.harness.errors import IncomparableRunsError, UsageError
from ahabench.harness.gate.stored import Asked, Recorded, read_recorded, read_stored, read_verdicts_alone
from ahabench.harness.manifest import MANIFEST, Manifest, read_manifest
from ahabench.harness.report import note
from ahabench.harness.runlog import METRICS, RESPONSES, VERDICTS, Key, own_rows
from ahabench.harness.score import Scores, collect, judge_responses
from ahabench.harness.types import Response

ROUNDING = 1e-9
CARRIED = "file:"
"""How the name of a scorer begins where the verdicts were those that a file carried."""


class Run(NamedTuple):
    """A run directory and its manifest."""

    path: Path
    manifest: Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A run's verdicts on one task."""

    run: Run
    scores: Scores
    asked: Mapping[Key, Asked]
    places: Mapping[Key, int] | None
    """Where each response stands in its file, in bytes; `None` where the run holds verdicts alone."""


def open_side(text: str, *, baselines: Path) -> list[Run]:
    """Return the runs of a side.

    Args:
        text: a run directory; a folder of such, which are one side's seeds; several of either, separated by commas;
            or "baseline:NAME".
        baselines: where baselines are kept.

    Raises:
        UsageError: there is no run, it is one shard of a run, or a baseline is not as it was made.
    """
    from ahabench.harness.gate.baselines import check_baseline  # which keeps what this module opens

    runs: list[Run] = []
    for part in text.split(","):
        if not part.strip():
            raise UsageError(f"{text!r} names no run where it is empty; give a run directory or baseline:NAME")
        kind, _, name = part.strip().partition(":")
        path = Path(part.strip())
        if kind == "baseline" and name:
            check_baseline(name, baselines)
            path = baselines / name
        runs += [Run(found, read_manifest(found)) for found in _folders(path)]
    for run in runs:
        if run.manifest.shard is not None:
            shard = run.manifest.shard
            raise UsageError(
                f"{run.path} is shard {shard.index} of {shard.count}; join the shards with "
                f"`ahabench merge {run.path.absolute().parent}` and compare that"
            )
    paths = [run.path.resolve() for run in runs]
    if len(set(paths)) < len(paths):
        raise UsageError(f"{text} names a run twice; runs of one side must be made independently")
    return runs


def _folders(path: Path) -> list[Path]:
    if (path / MANIFEST).exists() or not path.is_dir():
        return [path]
    found = sorted(folder for folder in path.iterdir() if (folder / MANIFEST).exists())
    if not found:
        raise UsageError(f"{path} is no run and holds none: no {MANIFEST} in it or in a folder of it")
    return found


def versioned(dataset: Dataset, scorer: str) -> str:
    """Return a scorer's name with its version."""
    return f"{scorer}@{registry.find_scorer(dataset.task, scorer).version}"


def scorers_of(runs: Sequence[Run], task: str) -> set[str]:
    """Return the names, without versions, of the scorers that runs were last scored with."""
    found = (read_recorded(run.path / task) for run in runs)
    return {recorded.scorer.partition("@")[0] for recorded in found if recorded is not None}


def score_side(runs: Sequence[Run], dataset: Dataset, scorer: str) -> list[Scored]:
    """Return each run's verdicts by the scorer as it is now: those on disk, or made anew in memory.

    Raises:
        UsageError: a file is damaged, or names an item that the task has not.
        IncomparableRunsError: a judge's readings stand in verdicts of another version, and no judge is at hand.
    """
    return [_score(run, dataset, scorer) for run in runs]


def texts(scored: Scored, task: str, keys: set[Key]) -> dict[Key, str]:
    """Return the responses' texts under these keys; none where the run holds verdicts alone.

    Raises:
        UsageError: the file is not the one that was scored a moment ago.
    """
    found: dict[Key, str] = {}
    places = scored.places
    if places is None:
        return found
    path = scored.run.path / task / RESPONSES
    try:
        with path.open("rb") as file:
            for offset, key in sorted((places[key], key) for key in keys):
                file.seek(offset)
                row = json.loads(file.readline().decode())
                if row["response"] is not None:
                    found[key] = str(row["response"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} was changed while it was compared; run the command again") from error
    return found


def _score(run: Run, dataset: Dataset, scorer: str) -> Scored:
    folder = run.path / dataset.task.name
    carried = scorer.startswith(CARRIED)
    excluded = frozenset() if carried else registry.find_scorer(dataset.task, scorer).excluded
    wanted = scorer if carried else versioned(dataset, scorer)
    recorded = read_recorded(folder)
    if recorded is not None and not (folder / RESPONSES).exists():
        scores = _score_alone(run, dataset, wanted, recorded, excluded)
        return Scored(run=run, scores=scores, asked={}, places=None)
    if recorded is not None and recorded.scorer == wanted:
        read = read_stored(folder, excluded)
        # Readings of a judge and verdicts of a file cannot be made again: those of an older ahabench are taken as well.
        unsaid = recorded.digests == (None, None) and (carried or run.manifest.judge is not None)
        if read is not None and (recorded.digests == read.digests or unsaid):
            samples = run.manifest.sampling.samples
            scores = collect(dataset, wanted, read.judged, excluded=excluded, n_samples=samples)
            return Scored(run=run, scores=scores, asked=read.asked, places=read.places)
    asked: dict[Key, Asked] = {}
    rows, places = [], {}
    for own in own_rows(folder / RESPONSES):
        key = (own.response.item_id, own.response.sample_index)
        rows.append(own.response)
        places[key] = own.offset
        asked[key] = (own.row.get("prompt_sha256"), own.response.images_sha256)
    return Scored(run=run, scores=_score_anew(run, dataset, scorer, recorded, rows), asked=asked, places=places)


def _score_alone(run: Run, dataset: Dataset, wanted: str, recorded: Recorded, excluded: frozenset[str]) -> Scores:
    """Return the verdicts of a run without responses, such as `ahabench board strip` leaves.

    No digest proves these verdicts, since stripping changes the file; that they come to the headline beside them does.
    """
    if recorded.scorer != wanted:
        raise IncomparableRunsError(
            f"{run.path}: {dataset.protocol} was scored by {recorded.scorer}, wanted {wanted}, and the run holds no "
            "responses that could be scored again; compare the run that it was made from"
        )
    folder = run.path / dataset.task.name
    judged = read_verdicts_alone(folder, recorded.lexicon)
    scores = collect(dataset, wanted, judged, excluded=excluded, n_samples=run.manifest.sampling.samples)
    if not scores.missing and recorded.headline is not None:
        name = dataset.task.headline
        value = dataset.task.metrics[name](results_of(dataset.items, scores.judged)).value
        if value is None or not abs(value - recorded.headline) <= ROUNDING:
            raise UsageError(
                f"{folder / VERDICTS} comes to {name} {value}, and {METRICS} beside it says {recorded.headline}: they "
                "are of two scorings; take the run anew from where it came"
            )
    return scores


def _score_anew(
    run: Run, dataset: Dataset, scorer: str, recorded: Recorded | None, responses: Sequence[Response]
) -> Scores:
    if scorer.startswith(CARRIED):
        found = "no verdicts on these responses" if recorded is None or recorded.scorer == scorer else recorded.scorer
        raise IncomparableRunsError(
            f"{run.path}: {dataset.protocol} has {found}, wanted those that a file carried "
            f"({scorer.removeprefix(CARRIED)}); give --scorer to score all runs by the same rules"
        )
    wanted = versioned(dataset, scorer)
    if run.manifest.judge is not None and recorded is not None:
        stale = ", on other responses," if recorded.scorer == wanted else ""
        raise IncomparableRunsError(
            f"{run.path}: the verdicts on {dataset.protocol} are by {recorded.scorer}{stale} and a judge, "
            f"wanted {wanted}; score the run again with that judge, or without one"
        )
    why = "is without current verdicts" if recorded is None else f"is scored by {recorded.scorer}"
    if recorded is not None and recorded.scorer == wanted:
        why = "has verdicts that are not known to be of these responses"
    note(f"{run.path}: {dataset.protocol} {why}; scored with {wanted} for this comparison")
    return judge_responses(dataset, scorer, responses, n_samples=run.manifest.sampling.samples)
