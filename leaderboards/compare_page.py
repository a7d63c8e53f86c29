"""The page of a comparison: the paired table, what moved beside it, and the items that flipped, side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ahabench.harness import registry
from ahabench.harness.dataset import load
from ahabench.harness.disk import replace_file
from ahabench.harness.errors import AhabenchError
from ahabench.harness.gate.comparison import Comparison, Flip, Said, TaskComparison
from ahabench.harness.report import note
from ahabench.harness.types import Item, Status
from ahabench.leaderboards.site import render
from ahabench.leaderboards.table import name_of

SHOWN = 60
"""Flips of each kind that a benchmark shows; the page says how many more there are."""
LONGEST = 20_000
"""Characters of a response that are shown."""
IMAGE_PIXELS = 512 * 512

Part = tuple[str, str]
"""The class of an aha moment, or "", and a stretch of text."""


def write_compare_page(found: Comparison, out: Path, *, data: Path | None = None, images: bool = True) -> Path:
    """Write the page of a comparison as ``index.html`` of a folder, and return the file.

    It opens from a disk, loads nothing and runs without scripts; what models wrote is only ever text in it.

    Args:
        found: from `harness.compare.compare`.
        out: the folder.
        data: where the items are, for their pictures; without them the page has the words alone.
        images: whether pictures are copied in; a data set's licence may forbid it.

    Raises:
        UsageError: the disk is full or refuses.
    """
    values = {
        "found": found,
        "rows": [row.as_row() for row in found.rows],
        "tasks": [_task(task, data, images=images) for task in found.tasks],
        "labels": [_name(found.a), _name(found.b)],
    }
    text = render("compare.html.jinja", "", **values)
    path = out / "index.html"
    replace_file(path, [text.encode("utf-8", "backslashreplace")])
    return path


def marked(text: str, question: str) -> list[Part]:
    """Return a response as stretches of text, each with the class of the aha moment in it, or ""."""
    from ahabench.harness.aha.moments import moments

    shown, parts, at = text[:LONGEST], list[Part](), 0
    for moment in sorted(moments(text, question), key=lambda one: one.start):
        if at <= moment.start < len(shown):
            parts += [("", shown[at : moment.start]), (moment.kind.value, shown[moment.start : moment.end])]
            at = moment.end
    return [*parts, ("", shown[at:])]


def _name(runs: Sequence[str]) -> str:
    return ", ".join(Path(run).name for run in runs)


def _task(task: TaskComparison, data: Path | None, *, images: bool) -> dict[str, Any]:
    shown = [flip for kind in ("broken", "fixed") for flip in _of_kind(task.flips, kind)[:SHOWN]]
    items = _items(task, {flip.item_id for flip in shown}, data) if images and shown else {}
    return {
        "task": task,
        "label": name_of(task.task),
        "flips": [_flip(flip, items.get(flip.item_id)) for flip in shown],
        "counts": {kind: len(_of_kind(task.flips, kind)) for kind in ("broken", "fixed")},
        "left_out": len(task.flips) - len(shown),
    }


def _of_kind(flips: Sequence[Flip], kind: str) -> list[Flip]:
    return [flip for flip in flips if flip.kind == kind]


def _flip(flip: Flip, item: Item | None) -> dict[str, Any]:
    return {
        "flip": flip,
        "sides": [(side, said, _said(said, flip.question)) for side, said in (("A", flip.a), ("B", flip.b))],
        "images": _images(item) if item is not None else [],
    }


def _said(said: Said, question: str) -> list[Part]:
    if said.text is None:
        return [("", "[never generated]" if said.status == Status.ERROR else "[this run holds no texts]")]
    return marked(said.text, question)


def _items(task: TaskComparison, ids: set[str], data: Path | None) -> Mapping[str, Item]:
    try:
        found = registry.find_task(task.task)
        if data is None and found.splits[task.split].rows is None:
            return {}
        return {item.id: item for item in load(found, task.split, data=data).items if item.id in ids}
    except (AhabenchError, KeyError) as error:
        note(f"{task.task}: its pictures are not at hand, so the page has none: {error}")
        return {}


def _images(item: Item) -> list[str]:
    from ahabench.harness.engines.data_uri import data_uri

    uris = []
    for number, image in enumerate(item.images, start=1):
        try:
            sent = data_uri(image.read(), name=f"{number} of {item.id}", min_pixels=None, max_pixels=IMAGE_PIXELS)
        except AhabenchError as error:
            note(f"image {number} of item {item.id} is left out: {error}")
        else:
            uris.append(sent.uri)
    return uris
