"""One side of a comparison: its runs, and their verdicts by one scorer."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ahabench.harness import registry
from ahabench.harness.dataset import Dataset
from ahabench.harness.digests import rows_digest
from ahabench.harness.errors import IncomparableRunsError, UsageError
from ahabench.harness.judged import Judged
from ahabench.harness.manifest import MANIFEST, Manifest, read_manifest
from ahabench.harness.report import note
from ahabench.harness.runlog import METRICS, RESPONSES, VERDICTS, Key, own_rows
from ahabench.harness.score import Scores, collect, judge_responses
from ahabench.harness.types import Response, Status, Verdict

Asked = tuple[str | None, str | None]
"""The digests of prompt and images that a response answers."""
_Settled = tuple[Verdict, Mapping[str, Any]]
_decode = json.JSONDecoder().raw_decode
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
    asked: Mapping[Key, Asked]
    places: Mapping[Key, int]
    """Where each response stands in its file, in bytes."""


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
    found = (_recorded(run.path / task) for run in runs)
    return {recorded.scorer.partition("@")[0] for recorded in found if recorded is not None}


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
    recorded = _recorded(folder)
    if recorded is not None and recorded.scorer == wanted:
        read = _read_scored(folder, excluded)
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


def _score_anew(
    run: Run, dataset: Dataset, scorer: str, recorded: "_Recorded | None", responses: Sequence[Response]
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


class _Recorded(NamedTuple):
    """What a `metrics.json` says of the verdicts beside it."""

    scorer: str
    digests: tuple[str | None, str | None]
    """Of responses and verdicts; `None` where an older ahabench wrote it."""


def _recorded(folder: Path) -> _Recorded | None:
    """Return whose a run's verdicts are, and on what; `None` where there are none."""
    if not (folder / METRICS).exists() or not (folder / VERDICTS).exists():
        return None
    try:
        row = json.loads((folder / METRICS).read_bytes())
        return _Recorded(str(row["scorer"]), (row.get("responses_sha256"), row.get("verdicts_sha256")))
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder / METRICS, error) from error


class _Read(NamedTuple):
    """Responses with the verdicts on disk."""

    judged: list[Judged]
    """Without image sizes and prompt tokens, which no comparison looks at."""
    asked: dict[Key, Asked]
    places: dict[Key, int]
    digests: tuple[str, str]
    """Of responses and verdicts, as `metrics.json` has them."""


def _read_scored(folder: Path, excluded: frozenset[str]) -> _Read | None:
    """Return the verdicts on disk with what the responses say beside their texts; `None` where they do not match.

    Rows are not checked one by one as `own_rows` does it: the digest tells that they are those that were.
    """
    verdicts, verdicts_sha256 = _verdicts(folder)
    digests = []
    read = _Read([], {}, {}, ("", ""))
    offset = 0
    try:
        with (folder / RESPONSES).open("rb") as file:
            for line in file:
                digests.append(hashlib.sha256(line).digest())
                row, _ = _decode(line.decode())
                key = (str(row["item_id"]), row.get("sample_index") or 0)
                read.asked[key] = (row.get("prompt_sha256"), row.get("images_sha256"))
                read.places[key] = offset
                offset += len(line)
                if key[0] not in excluded:
                    verdict, aha = verdicts.pop(key)
                    reason, tokens = row.get("finish_reason"), row.get("completion_tokens")
                    read.judged.append(
                        Judged(
                            item_id=key[0],
                            sample_index=key[1],
                            verdict=verdict,
                            finish_reason=reason,
                            completion_tokens=tokens,
                            aha=aha,
                        )
                    )
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        # What is wrong, if anything is, whoever reads them with care will say.
        return None
    return None if verdicts else read._replace(digests=(rows_digest(digests), verdicts_sha256))


def _verdicts(folder: Path) -> tuple[dict[Key, _Settled], str]:
    """Return verdict and aha counts by key, and the file's SHA-256. Equal ones are one object: most say the same."""
    path = folder / VERDICTS
    sha = hashlib.sha256()
    found: dict[Key, _Settled] = {}
    known: dict[tuple[str, str | None, str], Verdict] = {}
    counts: dict[tuple[object, object], Mapping[str, Any]] = {}
    try:
        with path.open("rb") as file:
            for line in file:
                sha.update(line)
                row, _ = _decode(line.decode())
                said = (row["status"], row["extracted"], row["rule"])
                if said not in known:
                    known[said] = Verdict(status=_STATUSES[said[0]], extracted=said[1], rule=said[2])
                aha = row.get("aha") or {}
                # All that a comparison looks at.
                read = (aha.get("lexicon"), aha.get("moments"))
                if read not in counts:
                    counts[read] = {"lexicon": read[0], "moments": read[1]}
                found[str(row["item_id"]), int(row["sample_index"])] = (known[said], counts[read])
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error
    return found, sha.hexdigest()


def _damaged(path: Path, error: Exception) -> UsageError:
    return UsageError(f"{path} is damaged ({error}); delete it and run `ahabench score` again")
