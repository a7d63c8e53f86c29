"""Runs and reported numbers, sorted into tables whose rows measure the same thing."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ahabench.harness.errors import UsageError
from ahabench.harness.manifest import MANIFEST
from ahabench.harness.report import note
from ahabench.leaderboards.run_files import held
from ahabench.leaderboards.runs import BoardRun, Reader, TaskScore

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskProtocol:
    """How one benchmark was asked and scored: where two rows differ in it, they are not compared."""

    split: str
    data_digest: str | None
    limit: int | None
    n_items: int
    prompt: str
    scorer: str
    samples: int
    judge: str | None

    @property
    def ways(self) -> tuple[str, str, int, str | None]:
        """What all benchmarks of a table share: names of prompt style and scorer, samples, judge."""
        return self.prompt.partition("@")[0], self.scorer.partition("@")[0], self.samples, self.judge

    def __str__(self) -> str:
        """Return the pair that is printed with a number."""
        return f"{self.split} · {self.prompt} · {self.scorer}"


@dataclass(slots=True, kw_only=True)
class Comparable:
    """Runs whose common benchmarks were asked and scored alike."""

    ways: tuple[str, str, int, str | None] | None
    tasks: dict[str, TaskProtocol] = field(default_factory=dict)
    runs: list[BoardRun] = field(default_factory=list)

    def fits(self, ways: object, protocols: Mapping[str, TaskProtocol]) -> bool:
        """Whether a run may stand among these."""
        return ways == self.ways and all(self.tasks.get(task, one) == one for task, one in protocols.items())


def collect(paths: Sequence[Path]) -> list[BoardRun]:
    """Return the runs in these places, each a run directory or a folder of such, whatever the order of the places.

    Raises:
        UsageError: there is none in a place, one is named twice, or one cannot be read.
    """
    reader, taken, runs = Reader(), set[str](), []
    seen: dict[Path, Path] = {}
    for path in (found for place in paths for found in _runs_in(place)):
        real = path.resolve()
        if real in seen:
            raise UsageError(f"{path} is named twice; a run is one row")
        seen[real] = path
    for real, path in sorted(seen.items(), key=lambda one: (one[0].name, one[0])):
        slug = _slug(real.name, taken)
        taken.add(slug)
        runs.append(reader.read(path, slug))
    return _distinct(runs)


def protocol_of(score: TaskScore, samples: int | None, judge: str | None) -> TaskProtocol:
    """Return how a run's benchmark was asked and scored."""
    metrics, record = score.metrics, score.record
    prompt = f"{record.prompt.style}@{record.prompt.version}" if record.prompt else "unknown"
    return TaskProtocol(
        split=record.split,
        data_digest=record.data_digest,
        limit=record.limit,
        n_items=record.n_items,
        prompt=prompt if metrics is None else metrics.prompt,
        scorer="none" if metrics is None else metrics.scorer,
        samples=(samples or 1) if metrics is None else metrics.n_samples,
        judge=judge,
    )


def protocols_of(run: BoardRun) -> dict[str, TaskProtocol]:
    """Return how each scored benchmark of a run was asked and scored."""
    judge = run.manifest.judge
    name = (judge.served_model or judge.model) if judge else None
    samples = run.manifest.sampling.samples
    return {task: protocol_of(score, samples, name) for task, score in run.tasks.items() if score.metrics is not None}


def comparable(runs: Iterable[BoardRun]) -> list[Comparable]:
    """Return the runs sorted into groups, those with most benchmarks first; a run without metrics joins the first.

    Within a group every two runs agree in split, items, prompt, scorer (with their versions), samples and judge on each
    benchmark that both have, and in the names of prompt style and scorer throughout.
    """
    groups: list[Comparable] = []
    for run in sorted(runs, key=lambda run: (-len(protocols_of(run)), run.slug)):
        protocols = protocols_of(run)
        ways = min((one.ways for one in protocols.values()), key=str, default=None)
        mixed = {one.ways for one in protocols.values()}
        fitting = (group for group in groups if group.fits(ways, protocols))
        group = next(fitting, None) if len(mixed) == 1 else None
        if group is None and ways is None and groups:
            group = groups[0]
        if group is None:
            group = Comparable(ways=ways if len(mixed) == 1 else None)
            groups.append(group)
        for task, one in protocols.items():
            group.tasks.setdefault(task, one)
        group.runs.append(run)
    return groups


def _runs_in(place: Path) -> list[Path]:
    found = held(place)
    left = [what for name, what in found.strangers.items() if (place / name / MANIFEST).exists()]
    if not found.runs:
        raise UsageError(f"{place} is no run and holds none" + "".join(f"; {what}" for what in left[:1]))
    for what in left:
        note(f"{place}: left out: {what}")
    return found.runs


def _slug(name: str, taken: set[str]) -> str:
    """Return a name for files and URLs that is not taken, whatever the case of letters."""
    plain = _UNSAFE.sub("-", name).strip("-.")[:60].lower() or "run"
    slug, number = plain, 2
    while slug in taken:
        slug, number = f"{plain}-{number}", number + 1
    return slug


def _distinct(runs: list[BoardRun]) -> list[BoardRun]:
    """Return the runs with the folder's name added where two would have the same name."""
    names = [run.name for run in runs]
    return [replace(run, name=f"{run.name} ({run.slug})") if names.count(run.name) > 1 else run for run in runs]
