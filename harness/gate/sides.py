"""One side of a comparison: its runs, and their verdicts by one scorer."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ahabench.harness import registry
from ahabench.harness.dataset import Dataset
from ahabench.harness.errors import IncomparableRunsError, UsageError
from ahabench.harness.judged import Judged
from ahabench.harness.manifest import MANIFEST, Manifest, read_manifest
from ahabench.harness.report import note
from ahabench.harness.runlog import METRICS, RESPONSES, VERDICTS, Key, own_rows
from ahabench.harness.score import Scores, collect, judge_responses
from ahabench.harness.types import Response, Status, Verdict

Row = Mapping[str, Any]
_STATUSES = {status.value: status for status in Status}
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
    asked: Mapping[Key, tuple[str | None, str | None]]
    """The digests of prompt and images of each response."""
    places: Mapping[Key, int]
    """Where each response stands in its file, in bytes."""


def open_side(text: str, *, baselines: Path) -> list[Run]:
    """Return the runs of a side.

    Args:
        text: a run directory; a folder of such, which are one side's seeds; several of either, separated by commas;
            or "baseline:NAME".
        baselines: where baselines are kept.

    Raises:
        UsageError: there is no run, or it is one shard of a run.
    """
    runs: list[Run] = []
    for part in text.split(","):
        kind, _, name = part.strip().partition(":")
        path = baselines / name if kind == "baseline" and name else Path(part.strip())
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
    return {scorer.partition("@")[0] for run in runs if (scorer := _recorded_scorer(run.path / task)) is not None}


def score_side(runs: Sequence[Run], dataset: Dataset, scorer: str) -> list[Scored]:
    """Return each run's verdicts by the scorer as it is now: those on disk, or made anew in memory.

    Raises:
        UsageError: a file is damaged, or names an item that the task has not.
        IncomparableRunsError: a judge's readings stand in verdicts of another version, and no judge is at hand.
    """
    return [_score(run, dataset, scorer) for run in runs]


def texts(scored: Scored, task: str, keys: set[Key]) -> dict[Key, str]:
    """Return the responses' texts under these keys.

    Raises:
        UsageError: the file is not the one that was scored a moment ago.
    """
    found: dict[Key, str] = {}
    path = scored.run.path / task / RESPONSES
    try:
        with path.open("rb") as file:
            for offset, key in sorted((scored.places[key], key) for key in keys):
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
    asked: dict[Key, tuple[str | None, str | None]] = {}
    rows, places = {}, {}
    for own in own_rows(folder / RESPONSES):
        key = (own.response.item_id, own.response.sample_index)
        rows[key], places[key] = own.response, own.offset
        asked[key] = (own.row.get("prompt_sha256"), own.response.images_sha256)
    recorded = _recorded_scorer(folder)
    verdicts = _verdicts(folder) if recorded == wanted else None
    if verdicts is None or verdicts.keys() != {key for key in rows if key[0] not in excluded}:
        scores = _score_anew(run, dataset, scorer, recorded, list(rows.values()))
        return Scored(run=run, scores=scores, asked=asked, places=places)
    judged = [_judged(row, rows[key], folder) for key, row in verdicts.items()]
    scores = collect(dataset, wanted, judged, excluded=excluded, n_samples=run.manifest.sampling.samples)
    return Scored(run=run, scores=scores, asked=asked, places=places)


def _score_anew(run: Run, dataset: Dataset, scorer: str, recorded: str | None, responses: Sequence[Response]) -> Scores:
    if scorer.startswith(CARRIED):
        raise IncomparableRunsError(
            f"{run.path}: {dataset.protocol} has {recorded or 'no verdicts'}, wanted those that a file carried "
            f"({scorer.removeprefix(CARRIED)}); give --scorer to score all runs by the same rules"
        )
    wanted = versioned(dataset, scorer)
    if run.manifest.judge is not None and recorded is not None:
        raise IncomparableRunsError(
            f"{run.path}: the verdicts on {dataset.protocol} are by {recorded} and a judge, wanted {wanted}; "
            "score the run again with that judge, or without one"
        )
    why = f"scored by {recorded}" if recorded not in {None, wanted} else "without current verdicts"
    note(f"{run.path}: {dataset.protocol} is {why}; scored with {wanted} for this comparison")
    return judge_responses(dataset, scorer, responses, n_samples=run.manifest.sampling.samples)


def _recorded_scorer(folder: Path) -> str | None:
    """Return the scorer of a run's verdicts; `None` where there are none."""
    if not (folder / METRICS).exists() or not (folder / VERDICTS).exists():
        return None
    try:
        return str(json.loads((folder / METRICS).read_bytes())["scorer"])
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise _damaged(folder / METRICS, error) from error


def _verdicts(folder: Path) -> dict[Key, Row]:
    path = folder / VERDICTS
    found: dict[Key, Row] = {}
    try:
        with path.open("rb") as file:
            for line in file:
                row = json.loads(line.decode())
                found[str(row["item_id"]), int(row["sample_index"])] = row
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error
    return found


def _judged(row: Row, response: Response, folder: Path) -> Judged:
    try:
        verdict = Verdict(status=_STATUSES[row["status"]], extracted=row["extracted"], rule=str(row["rule"]))
    except KeyError as error:
        raise _damaged(folder / VERDICTS, error) from error
    return Judged.of(response, verdict, row.get("aha"))


def _damaged(path: Path, error: Exception) -> UsageError:
    return UsageError(f"{path} is damaged ({error}); delete it and run `ahabench score` again")
