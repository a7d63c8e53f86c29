"""Load a split of a task: from the hub, the official folder or our own JSONL export, or made in this process."""

import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ahabench.harness.disk import replace_file
from ahabench.harness.errors import DatasetError, UsageError, unknown_name
from ahabench.harness.images import ImageFile, TableImage
from ahabench.harness.types import AnswerType, HubDataset, Item, Row, Split, Task

EXPORT_FILE = "items.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """The items of one split, and where they came from."""

    task: Task
    split: str
    items: tuple[Item, ...]
    source: str
    """"hub:REPO", "folder", "export" or "built-in"."""
    revision: str | None
    """The resolved commit on the hub; `None` elsewhere."""
    digest: str
    """SHA-256 of the items without their images, hexadecimal."""

    @property
    def protocol(self) -> str:
        """How the split is named beside a score, such as "mathvision test"."""
        return f"{self.task.name} {self.split}"


def load(task: Task, split: str | None = None, *, data: Path | None = None, revision: str | None = None) -> Dataset:
    """Return a split with its declared number of items.

    Args:
        task: the benchmark.
        split: one of its splits; the task's default if `None`.
        data: a folder in the official layout, a local copy of the hub repository's parquet files, or an export of ours;
            or a folder that holds such a folder under the task's name. `None` loads from the hub. A split that is built
            in needs none and looks there only for an export.
        revision: a branch, tag or commit on the hub.

    Raises:
        UsageError: the task has no such split, or `data` does not exist.
        DatasetError: the data are not there, or are not what the task declares.
    """
    split = split or task.default_split
    if split not in task.splits:
        raise unknown_name(f"split of {task.name}", split, list(task.splits))
    declared = task.splits[split]
    folder = _task_folder(task, data)
    commit = None
    if folder is not None and (folder / EXPORT_FILE).is_file():
        source = "export"
        items = tuple(read_export(folder, task, split))
    elif declared.rows is not None:
        source = "built-in"
        items = tuple(task.items_of(declared.rows()))
    elif folder is not None and not any(folder.rglob("*.parquet")):
        source = "folder"
        items = tuple(task.items_of(task.read_folder(folder, split)))
    else:
        if declared.hub is None:
            raise DatasetError(f"{task.name} {split} is not on the hub; give its official folder with --data DIR")
        source = f"hub:{declared.hub.repo}"
        rows, commit = _hub_rows(declared.hub, folder, revision)
        items = tuple(task.items_of(rows))
    _check(task, split, declared, items)
    return Dataset(task=task, split=split, items=items, source=source, revision=commit, digest=digest(items))


def digest(items: Iterable[Item]) -> str:
    """Return the SHA-256 of what the items ask and expect, in their order."""
    sha = hashlib.sha256()
    for item in items:
        sha.update(_ENCODER.encode(_as_json(item)).encode("utf-8", "surrogatepass"))
        sha.update(b"\n")
    return sha.hexdigest()


def subset(items: Sequence[Item], limit: int, *, seed: int = 0) -> tuple[Item, ...]:
    """Return about `limit` items, a seeded sample of whole clusters spread over the first tag's values, in data order.

    Whole clusters, because DynaMath's and We-Math's metrics are defined on them: at least one cluster comes back,
    otherwise never more than `limit` items.
    """
    strata: dict[tuple[str, ...], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        first_tag = next(iter(item.tags.values()), ())
        strata[first_tag][item.cluster].append(item.id)
    clusters_of: dict[str, list[str]] = defaultdict(list)
    for clusters in strata.values():
        for cluster, ids in clusters.items():
            clusters_of[cluster].extend(ids)
    rng = random.Random(seed)
    queues = []
    for key in sorted(strata):
        names = list(strata[key])
        rng.shuffle(names)
        # Rank within the stratum, so that sorting by it interleaves the strata in proportion to their sizes.
        queues += [((rank + rng.random()) / len(names), name) for rank, name in enumerate(names)]
    chosen: set[str] = set()
    for _, cluster in sorted(queues):
        ids = clusters_of[cluster]
        if chosen and len(chosen | set(ids)) > limit:
            continue
        chosen.update(ids)
        if len(chosen) >= limit:
            break
    return tuple(item for item in items if item.id in chosen)


def write_export(dataset: Dataset, out: Path) -> Path:
    """Write a split as `items.jsonl` with its image files beside it, and return the file.

    The file appears once all is written; an export that failed can be made again in the same folder.

    Raises:
        UsageError: the folder already holds an export, or the disk refuses.
        DatasetError: an image is missing.
    """
    target = out / EXPORT_FILE
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file, wanted a folder")
    if target.exists():
        raise UsageError(f"{target} exists already; give an empty --out folder")
    replace_file(target, _exported_lines(dataset, out))
    return target


def _exported_lines(dataset: Dataset, out: Path) -> Iterator[bytes]:
    """Yield the lines of an export, each after its images have been written."""
    (out / "images").mkdir(exist_ok=True)
    for place, item in enumerate(dataset.items):
        paths = []
        for number, image in enumerate(item.images):
            # Not named by the item: an id may be no file name, or lead out of the folder.
            name = f"images/{place:05}_{number}.img"
            (out / name).write_bytes(image.read())
            paths.append(name)
        row = {"task": dataset.task.name, "split": dataset.split, **_as_json(item), "images": paths}
        yield json.dumps(row).encode("ascii") + b"\n"


def read_export(folder: Path, task: Task, split: str) -> Iterator[Item]:
    """Yield the items of an export.

    Raises:
        DatasetError: a line is not what `write_export` writes, or belongs to another task or split.
    """
    path = folder / EXPORT_FILE
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            found = (row["task"], row["split"])
            if found == (task.name, split):
                yield _exported_item(folder, row)
                continue
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DatasetError(f"{path}:{number} is no exported item: {error}") from error
        raise DatasetError(f"{path}:{number} belongs to {found[0]} {found[1]}, wanted {task.name} {split}")


def _exported_item(folder: Path, row: Row) -> Item:
    values = {name: value for name, value in row.items() if name not in {"task", "split"}}
    if unknown := values.keys() - {field.name for field in fields(Item)}:
        raise ValueError(f"unknown fields {sorted(unknown)}")
    images = []
    for name in values["images"]:
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise ValueError(f"image {name} is outside the export")
        images.append(ImageFile(path))
    values |= {
        "answer_type": AnswerType(values["answer_type"]),
        "images": tuple(images),
        "tags": {key: tuple(tag) for key, tag in values["tags"].items()},
        "choices": tuple(values["choices"]),
        "labels": tuple(values["labels"]),
    }
    return Item(**values)


def without_images(items: Iterable[Item]) -> tuple[Item, ...]:
    """Return the items as scoring needs them: small, and fit to be sent to another process."""
    return tuple(replace(item, images=()) for item in items)


def read_json(path: Path) -> Any:
    """Return a JSON file's content.

    Raises:
        DatasetError: it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        state = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise DatasetError(f"{path} {state}; is --data the official folder?") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not JSON: {error}") from error


def read_jsonl(path: Path) -> Iterator[Row]:
    """Yield the objects of a JSONL data file.

    Raises:
        DatasetError: it is missing or a line is not a JSON object.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        state = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise DatasetError(f"{path} {state}; is --data the official folder?") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not UTF-8: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{path}:{number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DatasetError(f"{path}:{number} is not a JSON object")
        yield row


def _task_folder(task: Task, data: Path | None) -> Path | None:
    if data is None:
        return None
    if not data.is_dir():
        raise UsageError(f"--data {data} is not a folder")
    nested = data / task.name
    return nested if nested.is_dir() else data


def _check(task: Task, split: str, declared: Split, items: Sequence[Item]) -> None:
    if len(items) != declared.n_items:
        raise DatasetError(
            f"{task.name} {split} has {len(items):,} items here, the task declares {declared.n_items:,}. "
            "Give the whole data set, or pin another --revision."
        )
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise DatasetError(f"{task.name} {split} has the item id {item.id!r} twice")
        seen.add(item.id)


def _hub_rows(hub: HubDataset, folder: Path | None, revision: str | None) -> tuple[Iterator[Row], str | None]:
    """Return the rows and the resolved commit. Images stay undecoded and unread."""
    import datasets

    where = str(folder) if folder is not None else hub.repo
    commit = None
    if folder is None:
        commit = _resolve(hub.repo, revision)
    parts = []
    for split in hub.splits:
        try:
            # A copy of parquet files without the repository's README has the files, not the named configurations.
            config = hub.config if folder is None or (folder / "README.md").is_file() else None
            parts.append(datasets.load_dataset(where, config, split=split, revision=commit))
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DatasetError(f"{where} split {split!r} cannot be loaded: {first_line}") from error
    return _table_rows(hub, parts), commit


def _table_rows(hub: HubDataset, parts: Sequence[Any]) -> Iterator[Row]:
    import datasets

    for split, table in zip(hub.splits, parts, strict=True):
        columns = [name for name, feature in table.features.items() if isinstance(feature, datasets.Image)]
        for column in columns:
            table = table.cast_column(column, datasets.Image(decode=False))
        texts = table.remove_columns(columns)
        for index, cells in enumerate(texts):
            row = {hub.columns.get(name, name): value for name, value in cells.items()}
            if any(row.get(name) != value for name, value in hub.where.items()):
                continue
            has_image = hub.image_column in columns
            row["images"] = (TableImage(table, index, hub.image_column),) if has_image else ()
            yield row | {"hub_split": split}


def _resolve(repo: str, revision: str | None) -> str:
    from huggingface_hub import snapshot_download

    try:
        # The folder of a snapshot is named by its commit; the pattern fetches nothing but small text.
        folder = snapshot_download(repo, repo_type="dataset", revision=revision, allow_patterns=["README.md"])
    except (OSError, ValueError, RuntimeError) as error:
        raise DatasetError(
            f"the hub's {repo} cannot be reached ({type(error).__name__}); give a local copy with --data DIR"
        ) from error
    return Path(folder).name


_FIELDS = tuple(field.name for field in fields(Item))
_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True)


def _as_json(item: Item) -> dict[str, Any]:
    # Not dataclasses.asdict, which copies every value: a third of the time of a comparison of 100,000 items.
    return {name: getattr(item, name) for name in _FIELDS} | {"images": None}
