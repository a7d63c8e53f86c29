"""What the rows of a submission say they answer, held against what its items and its manifest's prompt ask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ahabench.harness.dataset import Dataset
from ahabench.harness.errors import DatasetError
from ahabench.harness.manifest import Manifest, TaskRecord
from ahabench.harness.prompts import digest
from ahabench.harness.runlog import Key
from ahabench.harness.seen import read_digest
from ahabench.harness.types import Item, PromptStyle


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """The digests that a benchmark's rows carry, by key; `None` where a row carries none."""

    prompts: dict[Key, Any] = field(default_factory=dict)
    images: dict[Key, str | None] = field(default_factory=dict)

    def note(self, key: Key, row: Mapping[str, Any], images_sha256: str | None) -> None:
        """Add those of a row of `responses.jsonl`."""
        self.prompts[key] = row.get("prompt_sha256")
        self.images[key] = images_sha256


@dataclass(slots=True, kw_only=True)
class Asked:
    """What came of it: at most one line for the prompts and one for the images."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What could not be checked, and why."""


def check_asked(dataset: Dataset, style: PromptStyle, manifest: Manifest, claims: Claims) -> Asked:
    """Return where rows name another prompt or other images than a run asked, as its manifest says it asked.

    A digest proves no response: whoever forges a row can compute it. It finds rows of another prompt, system prompt or
    picture than the table that they are to stand in says.

    Args:
        dataset: the items of the run. Its images are read, one at a time, if rows name some.
        style: the one that the manifest names.
        manifest: the run's.
        claims: those of its rows, all of them answers to these items.
    """
    task = dataset.task.name
    found = Asked()
    items = {item.id: item for item in dataset.items}
    shown = not manifest.model.text_only
    silent = [key for key, claimed in claims.prompts.items() if claimed is None]
    if silent:
        found.notes.append(f"{task}: prompts not checked: {_some(silent, claims)} do not say which they answer")
    if said := {key: claimed for key, claimed in claims.prompts.items() if claimed is not None}:
        wanted = {
            item_id: _prompts(items[item_id], style, manifest, shown=shown) for item_id in {key[0] for key in said}
        }
        wrong = [key for key, claimed in said.items() if claimed not in wanted[key[0]]]
        found.problems += _wrong(task, wrong, "prompt_sha256", "the manifest's prompt of these items")
    _images(found, dataset, items if shown else {}, manifest.tasks[task], claims)
    return found


def _prompts(item: Item, style: PromptStyle, manifest: Manifest, *, shown: bool) -> Sequence[str]:
    """Return the digests that a row of this item may have, as the runner computes them."""
    prompt = style.render(item)
    n_images = len(item.images) if shown else 0
    if manifest.system_prompt is None:
        # It differs between the items, which the style alone makes it do.
        return [digest(prompt, n_images)]
    # "" is both a style without a system prompt and one from which it was taken away.
    systems = (manifest.system_prompt,) if manifest.system_prompt else (None, "")
    return [digest(replace(prompt, system=system), n_images) for system in systems]


def _images(found: Asked, dataset: Dataset, items: Mapping[str, Item], record: TaskRecord, claims: Claims) -> None:
    """Add what the rows say of their images; `items` are those that were shown theirs."""
    task = dataset.task.name
    pictured = {item_id for item_id, item in items.items() if item.images}
    none = [key for key, claimed in claims.images.items() if claimed is not None and key[0] not in pictured]
    found.problems += _wrong(task, none, "images_sha256", "an item that was shown no image")
    owed = {key: claimed for key, claimed in claims.images.items() if key[0] in pictured}
    if silent := [key for key, claimed in owed.items() if claimed is None]:
        found.notes.append(f"{task}: images not checked: {_some(silent, claims)} do not say which they answer")
    said = {key: claimed for key, claimed in owed.items() if claimed is not None}
    try:
        now = {item_id: read_digest(items[item_id].images) for item_id in sorted({key[0] for key in said})}
    except DatasetError as error:
        found.notes.append(f"{task}: images not checked: {error}")
        return
    wrong = [key for key, claimed in said.items() if claimed != now[key[0]]]
    here, there = (f"{source} {revision or ''}".strip() for source, revision in _origins(dataset, record))
    if wrong and here != there:
        # The hub's files and the authors' folders may hold the same picture in other bytes.
        found.notes.append(
            f"{task}: images not checked: {_some(wrong, claims)} name others than are here, and the run read them "
            f"from {there}, not from {here}"
        )
    else:
        found.problems += _wrong(task, wrong, "images_sha256", "the images of these items")


def _origins(dataset: Dataset, record: TaskRecord) -> tuple[tuple[str, str | None], tuple[str, str | None]]:
    return (dataset.source, dataset.revision), (record.source or "an unknown place", record.revision)


def _wrong(task: str, keys: Sequence[Key], name: str, wanted: str) -> list[str]:
    if not keys:
        return []
    (item_id, index), *_ = keys
    return [f"{task}: {name} of {len(keys):,} responses is not of {wanted}, the first is item {item_id} sample {index}"]


def _some(keys: Sequence[Key], claims: Claims) -> str:
    return f"{'all ' if len(keys) == len(claims.prompts) else ''}{len(keys):,} responses"
