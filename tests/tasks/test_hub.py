"""A local copy of the hub repository's parquet files gives the items of the official folder."""

import io
from collections import defaultdict
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from ahabench.harness import registry
from ahabench.harness.dataset import load
from ahabench.harness.images import decode

TASKS = ("mathvision", "dynamath", "wemath", "logicvista")
"""MathVista and MathVerse, whose official folders lie here without images, have tests of their own."""
DROPPED = {"images", "variant", "solution", "sourceli,nk", "sourcelink"}


def a_png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(buffer, "PNG")
    return buffer.getvalue()


def write_hub(folder: Path, name: str, data: Path) -> None:
    """Write the folder's rows under the hub's column names, a parquet file a split, with one small picture for all."""
    task = registry.find_task(name)
    hub = task.splits[task.default_split].hub
    assert hub is not None
    rename = {official: column for column, official in hub.columns.items()}
    parts: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in task.read_folder(data / name, task.default_split):
        part = f"sample_variant{row['variant']}" if "variant" in row else hub.splits[0]
        cells = {rename.get(key, key): value for key, value in row.items() if key not in DROPPED}
        parts[part].append(cells | {hub.image_column: {"bytes": a_png(), "path": None}})
    (folder / "data").mkdir(parents=True)
    for part, rows in parts.items():
        table = datasets.Dataset.from_list(rows).cast_column(hub.image_column, datasets.Image())
        table.to_parquet(folder / "data" / f"{part}-00000-of-00001.parquet")


@pytest.mark.parametrize("name", TASKS)
def test_the_hubs_columns_give_the_same_items(tmp_path: Path, data: Path, name: str) -> None:
    write_hub(tmp_path / "hub", name, data)
    task = registry.find_task(name)

    from_hub, from_folder = load(task, data=tmp_path / "hub"), load(task, data=data)

    assert from_hub.digest == from_folder.digest
    assert from_hub.source.startswith("hub:")
    assert decode(from_hub.items[-1].images[0].read(), name="last").size == (3, 2)
