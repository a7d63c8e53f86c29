"""The toy benchmark with 240 sums in 80 clusters of three, each with its own image: enough to divide and to kill."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import toy_task

from ahabench.harness.types import Item, Row, Split

N_ITEMS = 240


@dataclass(frozen=True)
class Dot:
    """A picture of one pixel, made when it is read."""

    level: int

    def read(self) -> bytes:
        def chunk(kind: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
        pixel = zlib.compress(bytes([0, self.level]))
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


def read_folder(folder: Path, split: str) -> Iterator[Row]:
    for n in range(N_ITEMS):
        yield {"id": str(n), "images": (Dot(n),)}


def to_item(row: Row) -> Item:
    n = int(row["id"])
    sample = toy_task.to_item({"id": row["id"], "question": f"{n} + {n}?", "answer": str(2 * n), "kind": "sum"} | row)
    return replace(sample, group=f"g{n // 3}")


TASK = replace(
    toy_task.TASK,
    name="many",
    splits={"test": Split(n_items=N_ITEMS, hub=None)},
    read_folder=read_folder,
    to_item=to_item,
    metrics={"accuracy": toy_task.TASK.metrics["accuracy"]},
    scorers={"robust": toy_task.TASK.scorers["robust"]},
    bad_items={},
)
