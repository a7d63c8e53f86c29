"""One run as a board reads it: its manifest, its metrics, and what its verdicts say item by item."""

import json
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ahabench.harness.errors import UsageError
from ahabench.harness.manifest import Manifest, TaskRecord, read_manifest
from ahabench.harness.runlog import METRICS, VERDICTS

CARD = "model.toml"
"""What the user says of the model, beside run.json: name, parameters_b, base, date, url, licence, note."""
LARGEST_CARD = 10_000
"""Bytes: a reader of TOML takes time and memory with the square of a dotted key's length."""
TRAINING_LOG = "log.jsonl"
"""What a training run says of its steps, beside run.json."""

_TASK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SIZE = re.compile(r"(?<![A-Za-z0-9.])(\d{1,4}(?:\.\d{1,3})?)([BM])(?![A-Za-z])", re.IGNORECASE)


SLACK = 1e-9
"""Of floating point."""
Share = Annotated[float, Field(ge=-SLACK, le=1 + SLACK, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=10**12)]
Quantity = Annotated[float, Field(ge=0, lt=1e12, allow_inf_nan=False)]


class _FromFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelCard(_FromFile):
    """What a manifest cannot know of a model."""

    name: str | None = Field(default=None, max_length=120)
    parameters_b: float | None = Field(default=None, gt=0, lt=1e6, allow_inf_nan=False)
    """In billions."""
    base: str | None = Field(default=None, max_length=120)
    """The model that it was trained from."""
    date: str | None = Field(default=None, pattern=r"^\d{4}-\d{2}(-\d{2})?$")
    """When it was released."""
    url: str | None = Field(default=None, pattern=r"^https?://[!-~]+$", max_length=500)
    licence: str | None = Field(default=None, max_length=120)
    note: str | None = Field(default=None, max_length=400)


class EstimateRow(_FromFile):
    """An `Estimate` as `metrics.json` has it."""

    value: Share | None
    n: Count
    stderr: Quantity | None = None
    ci95: tuple[Share, Share] | None = None

    @model_validator(mode="after")
    def _is_an_interval(self) -> Self:
        if self.ci95 and self.ci95[0] > self.ci95[1]:
            raise ValueError(f"the interval {list(self.ci95)} ends before it begins")
        return self


class ImageSizes(BaseModel):
    """The smallest, median and largest image, as [width, height] in pixels."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    min: tuple[Count, Count] | None = None
    median: tuple[Count, Count] | None = None
    max: tuple[Count, Count] | None = None


class MetricsFile(BaseModel):
    """What a board reads of `metrics.json`. Further keys are let be: a newer ahabench may write more."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    task: str
    split: str
    prompt: str
    scorer: str
    n_items: Count
    n_samples: int = Field(default=1, ge=1, lt=10**6)
    excluded: tuple[str, ...] = ()
    missing: Count = 0
    headline: str
    metrics: dict[str, EstimateRow]
    rates: dict[str, Share | None] = {}
    bounds: dict[str, Quantity | None] = {}
    finish_reasons: dict[str, Count] = {}
    tokens: dict[str, Quantity | None] = {}
    image_sizes: ImageSizes | None = None
    breakdown: dict[str, dict[str, dict[str, EstimateRow]]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """A run's verdicts on one task, without texts."""

    keys: tuple[tuple[str, int], ...]
    """(item_id, sample_index), as they stand in the file; equal tuples of several runs are one object."""
    scores: bytes
    """1 where the verdict is correct, 0 where it is anything else that counts; as long as `keys`."""
    n_aha: int | None
    """Responses with an aha moment; `None` where a verdict does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskScore:
    """What a run has on one benchmark."""

    record: TaskRecord
    metrics: MetricsFile | None
    """`None` where the run was not scored, or could not be."""
    gap: str | None
    """Why there are no metrics."""
    outcomes: Outcomes | None

    @property
    def headline(self) -> EstimateRow | None:
        """The headline's estimate; `None` where there is none, or responses are missing."""
        if self.metrics is None or self.metrics.missing:
            return None
        found = self.metrics.metrics.get(self.metrics.headline)
        return found if found is not None and found.value is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardRun:
    """One run."""

    slug: str
    """Unique on the board, and safe in file names and URLs."""
    name: str
    card: ModelCard
    parameters_b: float | None
    parameters_guessed: bool
    """Whether they were read out of the name."""
    manifest: Manifest
    tasks: Mapping[str, TaskScore]
    training: tuple[Mapping[str, float], ...] = ()
    """The logged steps of a training run, each with "step"."""


class Reader:
    """Reads runs; what runs share (item ids, key lists) is kept once, so that fifty runs fit into memory."""

    def __init__(self) -> None:
        self._keys: dict[tuple[tuple[str, int], ...], tuple[tuple[str, int], ...]] = {}

    def read(self, path: Path, slug: str) -> BoardRun:
        """Return a run.

        Raises:
            UsageError: it is no run, or one shard of a run, or one of its files is damaged.
        """
        manifest = read_manifest(path)
        if manifest.shard is not None:
            raise UsageError(
                f"{path} is shard {manifest.shard.index} of {manifest.shard.count}; join the shards with "
                f"`ahabench merge {path.absolute().parent}` and put that on the board"
            )
        for task in manifest.tasks:
            # It becomes a part of paths.
            if not _TASK.fullmatch(task):
                raise UsageError(f"{path} has a benchmark named {task!r}, wanted letters, digits, '_', '.' and '-'")
        card = read_card(path)
        name = card.name or model_name(manifest) or path.absolute().name
        size = card.parameters_b if card.parameters_b is not None else size_of(name)
        return BoardRun(
            slug=slug,
            name=name,
            card=card,
            parameters_b=size,
            parameters_guessed=card.parameters_b is None and size is not None,
            manifest=manifest,
            tasks={task: self._task(path / task, record) for task, record in manifest.tasks.items()},
            training=tuple(_training(path / TRAINING_LOG)),
        )

    def _task(self, folder: Path, record: TaskRecord) -> TaskScore:
        path = folder / METRICS
        if not path.exists():
            return TaskScore(record=record, metrics=None, gap="not scored", outcomes=None)
        try:
            metrics = MetricsFile.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise UsageError(
                f"{path} is damaged ({_first(error)}); delete it and run `ahabench score` on its run"
            ) from error
        if metrics.task != folder.name or metrics.split != record.split:
            raise UsageError(
                f"{path} is of {metrics.task} {metrics.split}, the manifest says {folder.name} {record.split}; "
                "run `ahabench score` again"
            )
        gap = f"{metrics.missing:,} responses missing" if metrics.missing else None
        verdicts = folder / VERDICTS
        return TaskScore(
            record=record,
            metrics=metrics,
            gap=gap,
            outcomes=self._outcomes(verdicts) if verdicts.exists() else None,
        )

    def _outcomes(self, path: Path) -> Outcomes:
        keys: list[tuple[str, int]] = []
        scores = bytearray()
        n_aha: int | None = 0
        for number, row in read_objects(path):
            try:
                status = row["status"]
                if status == "error":
                    continue
                keys.append((sys.intern(str(row["item_id"])), int(row["sample_index"])))
            except (KeyError, TypeError, ValueError) as error:
                raise UsageError(f"{path}:{number} is damaged ({error!r}); run `ahabench score` again") from error
            scores.append(status == "correct")
            moments = _moments(row.get("aha"))
            n_aha = None if n_aha is None or moments is None else n_aha + (moments > 0)
        found = tuple(keys)
        return Outcomes(keys=self._keys.setdefault(found, found), scores=bytes(scores), n_aha=n_aha if found else None)


def read_card(run: Path) -> ModelCard:
    """Return what the user says of a run's model; an empty card where there is none.

    Raises:
        UsageError: the file is damaged or has a key that is not known.
    """
    path = run / CARD
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_CARD + 1)
        if len(data) > LARGEST_CARD:
            raise ValueError(f"it has more than {LARGEST_CARD:,} bytes")
        return ModelCard.model_validate(tomllib.loads(data.decode("utf-8")))
    except FileNotFoundError:
        return ModelCard()
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{path} cannot be read: {_first(error)}. Keys: {', '.join(ModelCard.model_fields)}"
        ) from error


def model_name(manifest: Manifest) -> str | None:
    """Return the model's name without the folders of the machine that it lay on."""
    return place_free(manifest.model.name)


def place_free(name: str | None) -> str | None:
    """Return the last part of what is a path of some machine; everything else, such as a name on the hub, as it is.

    >>> place_free("/home/me/Model-3B"), place_free("org/Model-3B"), place_free("auto"), place_free(None)
    ('Model-3B', 'org/Model-3B', 'auto', None)
    """
    if name is None:
        return None
    path = name.replace("\\", "/").rstrip("/")
    local = path.startswith(("/", "./", "../", "~")) or re.match(r"^[A-Za-z]:/", path) or path.count("/") > 1
    return path.rpartition("/")[2] if local else name


def size_of(name: str) -> float | None:
    """Return the billions of parameters that a name tells, such as 3.0 for "Qwen2.5-VL-3B"; the last such mark."""
    found = _SIZE.findall(name.replace("_", "-"))
    if not found:
        return None
    number, unit = found[-1]
    return float(number) / (1000 if unit in "mM" else 1)


def _training(path: Path) -> Iterator[Mapping[str, float]]:
    if not path.exists():
        return
    for number, row in read_objects(path):
        step = {
            name: float(value)
            for name, value in row.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
        }
        if "step" not in step:
            raise UsageError(f"{path}:{number} has no number as 'step'; it is no training log")
        yield step


def _moments(aha: object) -> int | None:
    value = aha.get("moments") if isinstance(aha, dict) else None
    return value if isinstance(value, int) else None


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the line number and the object of each line of a JSONL file.

    Raises:
        UsageError: a line is no JSON object, or the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            yield from _parsed(file, path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def _parsed(lines: Iterable[bytes], path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path}:{number} is not JSON: {_first(error)}") from error
        if not isinstance(row, dict):
            raise UsageError(f"{path}:{number} is a {type(row).__name__}, wanted an object")
        yield number, row


def _first(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return (str(error).splitlines() or [type(error).__name__])[0]
