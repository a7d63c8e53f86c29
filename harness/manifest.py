"""The manifest of a run: what its numbers were made with."""

import json
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ahabench.harness.disk import replace_file
from ahabench.harness.errors import UsageError

MANIFEST = "run.json"
SCHEMA_VERSION: Final = 1


class Record(BaseModel):
    """A part of the manifest. `None` always means that it is not known."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelRecord(Record):
    """What was asked."""

    name: str | None = None
    """As the user gave it."""
    weights_digest: str | None = None
    """From `checkpoint.weights_digest`."""
    revision: str | None = None
    """The commit on the hub."""
    adapter: str | None = None
    """Kind and base of an adapter, such as "lora on org/base"; "" for a whole checkpoint."""
    chat_template_sha256: str | None = None
    """Of the template's text; "" where the model has none."""
    text_only: bool | None = None
    """Whether the images were left out."""


class EngineRecord(Record):
    """What ran it."""

    name: str | None = None
    version: str | None = None
    device: str | None = None
    dtype: str | None = None
    url: str | None = None
    """The base URL of a server, without a key."""
    options: dict[str, str] = {}
    """What it was told beyond the fields of this manifest, by name; never a secret."""


class SamplingRecord(Record):
    """How text was drawn; the fields of `Sampling`."""

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    samples: int | None = None
    seed: int | None = None


class PixelsRecord(Record):
    """The limits, in pixels, between which images were resized; `None` also where a model has no such limits."""

    min: int | None = None
    max: int | None = None


class PromptRecord(Record):
    """The prompt style of one task, whose version is the task's own."""

    style: str
    version: int


class TaskRecord(Record):
    """What one benchmark contributed."""

    split: str
    source: str | None = None
    revision: str | None = None
    data_digest: str | None = None
    """Of the whole split, also where `limit` took a part of it."""
    n_items: int
    """The items that were asked."""
    limit: int | None = None
    """The `--limit` that was given; `None` is the whole split."""
    prompt: PromptRecord | None = None


class JudgeRecord(Record):
    """Who read the answers that the rules could not."""

    model: str
    url: str
    served_model: str | None = None
    """The exact model that answered, as the server names it."""
    prompt_version: int | None = None


class ShardRecord(Record):
    """Which part of the items a run was to answer."""

    index: int
    """From 1 to `count`."""
    count: int


class GitRecord(Record):
    """The commit of ahabench's own source tree."""

    commit: str
    dirty: bool


class Manifest(Record):
    """What the numbers of a run were made with. Holds no secret and no time."""

    schema_version: Literal[1] = SCHEMA_VERSION
    status: Literal["running", "complete", "incomplete"]
    model: ModelRecord = ModelRecord()
    engine: EngineRecord = EngineRecord()
    sampling: SamplingRecord = SamplingRecord()
    pixels: PixelsRecord = PixelsRecord()
    system_prompt: str | None = None
    """"" where none was sent; `None` where it is not known or differs between items."""
    tasks: dict[str, TaskRecord] = {}
    mixed_engines: list[EngineRecord] = []
    """What else than `engine` answered a part of the rows, where the user allowed that."""
    shard: ShardRecord | None = None
    """`None`: the run is whole. A shard's `n_items` count its own items."""
    merged: list[str] = []
    """The shards' folders that a merge joined into this run."""
    judge: JudgeRecord | None = None
    packages: dict[str, str] = {}
    git: GitRecord | None = None


def read_manifest(run: Path) -> Manifest:
    """Return the manifest of a run directory.

    Raises:
        UsageError: there is none, it is damaged, or a newer ahabench wrote it.
    """
    path = run / MANIFEST
    try:
        data = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{run} is no run: it has no {MANIFEST}") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UsageError(f"{path} has schema_version {version}, this ahabench reads {SCHEMA_VERSION}; upgrade ahabench")
    try:
        return Manifest.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _damaged(path, f"{where}: {first['msg']}") from error


def write_manifest(run: Path, manifest: Manifest) -> None:
    """Replace the manifest of a run directory, which is made if need be.

    Raises:
        UsageError: the disk is full or refuses.
    """
    text = json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=True)
    replace_file(run / MANIFEST, [text.encode() + b"\n"])


def _damaged(path: Path, how: str) -> UsageError:
    return UsageError(f"{path} is damaged ({how}); restore it, or start anew with another --out")
