"""Join the shards of a run: every (item, sample) exactly once, or a word on what is missing or contradicts itself."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ahabench.harness.dataset import Dataset
from ahabench.harness.disk import locked, refusals, replace_file
from ahabench.harness.errors import IncomparableRunsError, IncompleteRunError, UsageError
from ahabench.harness.identity import circumstances, difference, engine_difference, shown
from ahabench.harness.manifest import MANIFEST, Manifest, TaskRecord, read_manifest, write_manifest
from ahabench.harness.report import note
from ahabench.harness.rescore import items_of
from ahabench.harness.runlog import METRICS, RESPONSES, VERDICTS, Key, own_rows
from ahabench.harness.shards import Shard, shard_folders, shard_items

_NAMED = 5
"""Missing keys that an error names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What a merge wrote."""

    out: Path
    n_responses: Mapping[str, int]
    """Responses with a text, by task."""
    missing: Mapping[str, tuple[Key, ...]]
    """Keys without one, by task, in the order of the data."""
    lacking: Mapping[str, int]
    """How many of them each shard's folder owes."""

    def as_row(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "out": str(self.out),
            "complete": not any(self.missing.values()),
            "tasks": {
                name: {"n_responses": count, "missing": len(self.missing[name])}
                for name, count in self.n_responses.items()
            },
            "lacking": dict(self.lacking),
        }

    def check_complete(self) -> None:
        """Pass where nothing is missing.

        Raises:
            IncompleteRunError: with how many responses are missing, the first of them, and whose they are.
        """
        keys = [(name, *key) for name, found in self.missing.items() for key in found]
        if not keys:
            return
        first = ", ".join(f"{name} item {item_id} sample {sample}" for name, item_id, sample in keys[:_NAMED])
        total = len(keys) + sum(self.n_responses.values())
        owing = ", ".join(f"{folder} ({count:,})" for folder, count in self.lacking.items())
        whose = f" They belong to {owing}: run these shards, then merge again." if owing else ""
        raise IncompleteRunError(
            f"{self.out}: {len(keys):,} of {total:,} responses are missing, the first are {first}.{whose}"
        )


class _Source(NamedTuple):
    """A run directory whose rows are joined."""

    folder: Path
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a row stands; texts stay on the disk."""

    path: Path
    offset: int
    size: int
    content: bytes
    """SHA-256 of the row."""
    has_text: bool


def merge(run: Path, *, out: Path | None = None, data: Path | None = None, allow_mixed: bool = False) -> Merged:
    """Write the shards of a run as one run that `score` and all other commands take, and return what is missing.

    The shards stay as they are. Merging again, after some shards went on or without a change, gives the same bytes as
    merging once; what an earlier merge has and no shard has any more is kept. Where a row stands twice, the two must be
    equal, or one of them be an error, which the other takes the place of. Memory does not grow with the texts.

    Args:
        run: the directory that holds `shard-i-of-n` folders.
        out: the run directory to write; `run` itself if `None`.
        data: where the items are, as for `dataset.load`: what is missing can only be told from them.
        allow_mixed: join shards that different versions or dtypes of an engine answered.

    Raises:
        UsageError: there are no shards, one is being written, a row belongs to no item, or two rows contradict each
            other; or `out` is a run that no merge wrote. Nothing is written then.
        IncomparableRunsError: shards were made with different things; the field is named.
    """
    target = out or run
    shards = shard_folders(run)
    if not run.is_dir():
        raise UsageError(f"{run} is no folder; give the --out of `eval --shard`")
    if not shards:
        raise UsageError(f"{run} holds no shards (such as {Shard(1, 8).folder}); give the --out of `eval --shard`")
    with ExitStack() as stack:
        for _, folder in shards:
            stack.enter_context(locked(folder / MANIFEST))
        with refusals(target):
            target.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(target / MANIFEST))
        sources = [*_earlier(target), *(_Source(folder, read_manifest(folder)) for _, folder in shards)]
        manifest = _joined(sources, shards, allow_mixed=allow_mixed)
        datasets = {name: items_of(record, name, data, target) for name, record in manifest.tasks.items()}
        counts = {
            name: TaskRecord.model_validate({**dict(record), "n_items": len(datasets[name].items)})
            for name, record in manifest.tasks.items()
        }
        manifest = manifest.model_copy(update={"tasks": counts})
        samples = manifest.sampling.samples or 1
        places = {name: _places(dataset, sources, samples) for name, dataset in datasets.items()}
        write_manifest(target, manifest.model_copy(update={"status": "incomplete"}))
        for name, found in places.items():
            _write(target / name, _keys(datasets[name], samples), found)
        merged = _summary(target, shards, datasets, places, samples)
        status = "incomplete" if any(merged.missing.values()) else "complete"
        write_manifest(target, manifest.model_copy(update={"status": status}))
    return merged


def _earlier(target: Path) -> list[_Source]:
    """Return what an earlier merge wrote there, if one did.

    Raises:
        UsageError: something else stands there, that must not be lost.
    """
    if (target / MANIFEST).is_file():
        manifest = read_manifest(target)
        if not manifest.merged:
            raise UsageError(f"{target} is a run of its own, which a merge would replace; give another --out")
        return [_Source(target, manifest)]
    stray = next(iter(sorted(target.glob(f"*/{RESPONSES}"))), None)
    if stray is not None:
        raise UsageError(f"{target} holds {stray.relative_to(target)} but no {MANIFEST}; give another --out")
    return []


def _joined(sources: Sequence[_Source], shards: Sequence[tuple[Shard, Path]], *, allow_mixed: bool) -> Manifest:
    """Return the manifest of the whole run, after checking that its parts are of one run.

    Raises:
        IncomparableRunsError: they are not.
    """
    first = sources[0]
    manifest = first.manifest
    tasks, mixed = dict(manifest.tasks), list(manifest.mixed_engines)
    told: set[str] = set()
    for place, other in enumerate(sources[1:], start=1):
        for known in sources[:place]:
            # Against each, because two may share a task that the first has not.
            if found := difference(known.manifest, other.manifest, items=False):
                raise IncomparableRunsError(
                    f"{known.folder} was made with {found}, {other.folder} with {shown(found.second)}; "
                    "they are no shards of one run: delete the wrong one and generate it again"
                )
        for engine in (other.manifest.engine, *other.manifest.mixed_engines):
            have = manifest.model_copy(update={"mixed_engines": mixed})
            if not (found := engine_difference(have, engine)):
                continue
            if not allow_mixed:
                raise IncomparableRunsError(
                    f"{first.folder} was made with {found}, {other.folder} with {shown(found.second)}; generate one of "
                    "them again, or add --allow-mixed"
                )
            mixed.append(engine)
        for name, was, is_now in circumstances(manifest, other.manifest):
            if name not in told:
                note(f"{first.folder} was made with {name} {was}, {other.folder} with {is_now}; the first is recorded")
            told.add(name)
        tasks |= other.manifest.tasks
    folders = [*manifest.merged, *(folder.name for _, folder in shards)]
    return manifest.model_copy(
        update={"shard": None, "merged": sorted(set(folders)), "tasks": tasks, "mixed_engines": mixed}
    )


def _keys(dataset: Dataset, samples: int) -> list[Key]:
    return [(item.id, sample) for item in dataset.items for sample in range(samples)]


def _places(dataset: Dataset, sources: Sequence[_Source], samples: int) -> dict[Key, _Place]:
    """Return where the row of each key stands.

    Raises:
        UsageError: a row has a key that the run has not, or two rows of a key differ.
    """
    known = set(_keys(dataset, samples))
    found: dict[Key, _Place] = {}
    for source in sources:
        path = source.folder / dataset.task.name / RESPONSES
        if not path.exists():
            continue
        for own in own_rows(path):
            key = (own.response.item_id, own.response.sample_index)
            if key not in known:
                raise UsageError(f"{path}:{own.number} answers item {key[0]!r}, sample {key[1]}, which the run has not")
            content = hashlib.sha256(json.dumps(own.row, sort_keys=True).encode()).digest()
            place = _Place(path, own.offset, len(own.raw), content, own.response.text is not None)
            found[key] = _better(key, found.get(key), place)
    return found


def _better(key: Key, old: _Place | None, new: _Place) -> _Place:
    if old is None or (new.has_text and not old.has_text):
        return new
    if new.has_text and old.content != new.content:
        raise UsageError(
            f"item {key[0]!r}, sample {key[1]}, stands in {old.path} and differently in {new.path}; "
            "delete the one that is wrong"
        )
    return old


def _write(folder: Path, keys: Sequence[Key], places: Mapping[Key, _Place]) -> None:
    """Write the rows in the order of the data; what was derived from other rows is deleted."""
    path = folder / RESPONSES
    before = _digest(path)
    with ExitStack() as stack:
        replace_file(path, _rows(keys, places, stack))
    if _digest(path) != before:
        for derived in (VERDICTS, METRICS):
            (folder / derived).unlink(missing_ok=True)


def _rows(keys: Sequence[Key], places: Mapping[Key, _Place], stack: ExitStack) -> Iterator[bytes]:
    files: dict[Path, BinaryIO] = {}
    for key in keys:
        if (place := places.get(key)) is None:
            continue
        if place.path not in files:
            files[place.path] = stack.enter_context(place.path.open("rb"))
        files[place.path].seek(place.offset)
        yield files[place.path].read(place.size)


def _digest(path: Path) -> bytes | None:
    if not path.exists():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _summary(
    target: Path,
    shards: Sequence[tuple[Shard, Path]],
    datasets: Mapping[str, Dataset],
    places: Mapping[str, Mapping[Key, _Place]],
    samples: int,
) -> Merged:
    counts: dict[str, int] = {}
    missing: dict[str, tuple[Key, ...]] = {}
    lacking: Counter[str] = Counter()
    number = shards[-1][0].count
    for name, dataset in datasets.items():
        keys, found = _keys(dataset, samples), places[name]
        absent = [key for key in keys if key not in found or not found[key].has_text]
        missing[name] = tuple(absent)
        counts[name] = len(keys) - len(absent)
        if absent:
            for index in range(1, number + 1):
                shard = Shard(index, number)
                mine = {item.id for item in shard_items(dataset.items, shard)}
                lacking[shard.folder] += sum(key[0] in mine for key in absent)
    return Merged(
        out=target, n_responses=counts, missing=missing, lacking={folder: n for folder, n in lacking.items() if n}
    )
