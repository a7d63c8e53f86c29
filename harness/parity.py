"""How far two engines agree on one checkpoint: greedy responses to the letter, and their verdicts."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ahabench.harness.errors import IncomparableRunsError, UsageError
from ahabench.harness.identity import compared, shown
from ahabench.harness.manifest import Manifest, read_manifest
from ahabench.harness.report import note
from ahabench.harness.runlog import METRICS, RESPONSES, VERDICTS, Key, read_rows
from ahabench.harness.types import Status

_FREE = {"engine", "shard", "sampling.seed", "sampling.top_p", "sampling.top_k"}
"""What may differ: the engines are what is compared, and at temperature 0 the others change nothing."""
_NAMES = {"model.name", "model.adapter"}
"""What a server may call otherwise; it counts only by the weights' digest."""

_RIGHT = Status.CORRECT.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How two runs agree on one task. Lengths are in characters."""

    task: str
    split: str
    engines: tuple[str, str]
    n: int
    """Responses that both runs have."""
    identical: int
    """Texts that are equal to the letter."""
    prefix_min: int | None
    """Length of the common beginning of two texts that differ: the shortest; `None` where none differ."""
    prefix_median: float | None
    prefix_max: int | None
    scorer: str | None
    """Which scorer's verdicts are compared; `None`: a run has none."""
    verdicts_differ: int | None
    """Responses whose statuses differ."""
    only_first_correct: int | None
    only_second_correct: int | None
    only_in_first: int
    """Responses that the second run lacks, or that failed there."""
    only_in_second: int

    def as_row(self) -> dict[str, Any]:
        """Return it as JSON has it, with the share of identical responses."""
        return asdict(self) | {"identical_share": self.identical / self.n if self.n else None}


def parity(first: Path, second: Path) -> list[Parity]:
    """Return how two runs of one checkpoint by two engines agree, for each task that both have.

    Verdicts are those of each run's last scoring.

    Raises:
        UsageError: a directory is no run, or a run was not drawn greedily.
        IncomparableRunsError: the runs differ in weights, items, prompts, images, sampling or pixel limits, or in the
            scorer of their verdicts; or no task is common. What one of them does not know is noted and passes.
    """
    ours, theirs = read_manifest(first), read_manifest(second)
    for run, manifest in ((first, ours), (second, theirs)):
        if manifest.sampling.temperature not in {None, 0.0}:
            raise UsageError(
                f"{run} was drawn at temperature {manifest.sampling.temperature:g}; only greedy responses (0) can be "
                "compared to the letter"
            )
    common = [name for name in ours.tasks if name in theirs.tasks]
    if not common:
        raise IncomparableRunsError(f"{first} and {second} have no task in common")
    _check_same(first, ours, second, theirs)
    engines = (_engine(ours), _engine(theirs))
    return [_compare(name, ours.tasks[name].split, engines, first / name, second / name) for name in common]


def _check_same(first: Path, ours: Manifest, second: Path, theirs: Manifest) -> None:
    unknown = []
    here, there = compared(ours, theirs), compared(theirs, ours)
    for name in here:
        if name in _FREE or here[name] == there[name]:
            continue
        if name in _NAMES or here[name] is None or there[name] is None:
            unknown.append(f"{name} {shown(here[name])} and {shown(there[name])}")
        else:
            raise IncomparableRunsError(
                f"{first} was made with {name} {shown(here[name])}, {second} with {shown(there[name])}; "
                "the engines cannot be told from that"
            )
    if unknown:
        note(f"taken for the same, since it is not known to differ: {'; '.join(unknown)}")


def _compare(name: str, split: str, engines: tuple[str, str], first: Path, second: Path) -> Parity:
    known = dict(_answered(first))
    prefixes: list[int] = []
    keys: list[Key] = []
    extra = 0
    for key, row in _answered(second):
        if key not in known:
            extra += 1
            continue
        keys.append(key)
        other = known[key]
        for asked in ("prompt_sha256", "images_sha256"):
            if None not in (other.get(asked), row.get(asked)) and other[asked] != row[asked]:
                raise IncomparableRunsError(
                    f"{name}: item {key[0]!r}, sample {key[1]}, was asked with another {asked.split('_')[0]} in "
                    f"{first.parent} than in {second.parent}"
                )
        if other["response"] != row["response"]:
            prefixes.append(_common(other["response"], row["response"]))
    scorer = _same_scorer(name, first, second)
    pairs = None
    if scorer is not None:
        here, there = _statuses(first), _statuses(second)
        pairs = [(here[key], there[key]) for key in keys if key in here and key in there]
    return Parity(
        task=name,
        split=split,
        engines=engines,
        n=len(keys),
        identical=len(keys) - len(prefixes),
        prefix_min=min(prefixes, default=None),
        prefix_median=median(prefixes) if prefixes else None,
        prefix_max=max(prefixes, default=None),
        scorer=scorer,
        verdicts_differ=None if pairs is None else sum(ours != theirs for ours, theirs in pairs),
        only_first_correct=None if pairs is None else sum(_RIGHT == ours != theirs for ours, theirs in pairs),
        only_second_correct=None if pairs is None else sum(ours != theirs == _RIGHT for ours, theirs in pairs),
        only_in_first=len(known) - len(keys),
        only_in_second=extra,
    )


def _answered(folder: Path) -> Iterator[tuple[Key, dict[str, Any]]]:
    """Yield the rows with a text, by key."""
    for _, row in read_rows(folder / RESPONSES):
        if row["response"] is not None:
            yield (str(row["item_id"]), row.get("sample_index") or 0), row


def _common(first: str, second: str) -> int:
    """Return how many characters two texts begin with alike."""
    for place, (ours, theirs) in enumerate(zip(first, second, strict=False)):
        if ours != theirs:
            return place
    return min(len(first), len(second))


def _same_scorer(name: str, first: Path, second: Path) -> str | None:
    """Return the scorer of both runs' verdicts; `None` where a run has not been scored."""
    scorers = {folder: _scorer(folder) for folder in (first, second)}
    unscored = [str(folder.parent) for folder, scorer in scorers.items() if scorer is None]
    if unscored:
        note(f"{name}: no verdicts to compare; run `ahabench score` on {', '.join(unscored)}")
        return None
    if scorers[first] != scorers[second]:
        raise IncomparableRunsError(
            f"{name} was scored with {scorers[first]} in {first.parent} and with {scorers[second]} in {second.parent}; "
            "score both again"
        )
    return scorers[first]


def _scorer(folder: Path) -> str | None:
    path = folder / METRICS
    if not path.exists() or not (folder / VERDICTS).exists():
        return None
    try:
        return str(json.loads(path.read_bytes())["scorer"])
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is damaged ({error}); delete it and run `ahabench score` again") from error


def _statuses(folder: Path) -> dict[Key, str]:
    path = folder / VERDICTS
    found: dict[Key, str] = {}
    try:
        with path.open("rb") as file:
            for line in file:
                row = json.loads(line)
                found[str(row["item_id"]), int(row["sample_index"])] = str(row["status"])
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is damaged ({error}); delete it and run `ahabench score` again") from error
    return found


def _engine(manifest: Manifest) -> str:
    engine = manifest.engine
    words = [engine.name or "unknown engine", engine.version, engine.dtype]
    return " ".join(word for word in words if word)
