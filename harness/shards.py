"""Parts of a run for many nodes: which items are whose, and in which folders their responses stand."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapreplace
from pathlib import Path

from ahabench.harness.errors import UsageError
from ahabench.harness.manifest import MANIFEST, ShardRecord, read_manifest
from ahabench.harness.types import Item

_MOST = 9_999
_WRITTEN = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")
_FOLDER = re.compile(r"shard-([1-9][0-9]{0,3})-of-([1-9][0-9]{0,3})")


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """One of `count` parts.

    Args:
        index: from 1 to `count`.
        count: at most 9,999.

    Raises:
        UsageError: a number is out of range.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        """Check the range."""
        if not 1 <= self.count <= _MOST or not 1 <= self.index <= self.count:
            raise UsageError(
                f"there is no shard {self}; shards of N are 1/N to N/N, such as 1/8 to 8/8, with N at most {_MOST:,}"
            )

    def __str__(self) -> str:
        """Return it as it is written on the command line."""
        return f"{self.index}/{self.count}"

    @property
    def folder(self) -> str:
        """The name of its run directory, inside that of the whole run."""
        return f"shard-{self.index}-of-{self.count}"

    @property
    def record(self) -> ShardRecord:
        """How the manifest names it."""
        return ShardRecord(index=self.index, count=self.count)


def parse_shard(text: str) -> Shard:
    """Return the shard that is written "i/n", counted from 1.

    Raises:
        UsageError: it is not written so, or there is no such shard.
    """
    found = _WRITTEN.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"--shard is {text!r}, wanted i/n with i from 1 to n, such as 3/8")
    return Shard(int(found[1]), int(found[2]))


def shard_items(items: Sequence[Item], shard: Shard) -> tuple[Item, ...]:
    """Return the items of a shard, in the order of the data.

    Whole clusters, because metrics are defined on them. Every item is in exactly one shard, whatever the order of the
    items. Clusters are dealt, the largest first and equal ones by the SHA-256 of their names, each to the shard with
    the fewest items so far: so the shards' sizes differ by one cluster at most, and slow items, which often stand
    together in the data, are spread.
    """
    sizes: dict[str, int] = defaultdict(int)
    for item in items:
        sizes[item.cluster] += 1
    loads = [(0, index) for index in range(1, shard.count + 1)]
    mine: set[str] = set()
    for cluster in sorted(sizes, key=lambda name: (-sizes[name], _rank(name))):
        load, index = loads[0]
        heapreplace(loads, (load + sizes[cluster], index))
        if index == shard.index:
            mine.add(cluster)
    return tuple(item for item in items if item.cluster in mine)


def shard_folders(run: Path) -> list[tuple[Shard, Path]]:
    """Return the shards that stand in a run directory and have a manifest, in order."""
    found = []
    for path in run.glob(f"shard-*-of-*/{MANIFEST}"):
        name = _FOLDER.fullmatch(path.parent.name)
        if name is not None and int(name[1]) <= int(name[2]):
            found.append((Shard(int(name[1]), int(name[2])), path.parent))
    return sorted(found, key=lambda pair: (pair[0].count, pair[0].index))


def shard_folder(run: Path, shard: Shard) -> Path:
    """Return the run directory of a shard, after checking that nothing beside it would be done twice.

    Raises:
        UsageError: the run was begun unsharded, or with another number of shards.
    """
    if (run / MANIFEST).is_file() and not read_manifest(run).merged:
        raise UsageError(f"{run} was begun without --shard; go on without it, or use another --out")
    others = sorted({other.count for other, _ in shard_folders(run)} - {shard.count})
    if others:
        raise UsageError(
            f"{run} is divided into {others[0]} shards, this command has --shard {shard}; "
            f"go on with 1/{others[0]} to {others[0]}/{others[0]}, or use another --out"
        )
    return run / shard.folder


def check_whole(run: Path) -> None:
    """Refuse to begin a whole run where shards of it stand.

    Raises:
        UsageError: there are shards, and no run that they were merged into.
    """
    found = shard_folders(run)
    if found and not (run / MANIFEST).is_file():
        raise UsageError(
            f"{run} holds {len(found)} of {found[0][0].count} shards, such as {found[0][1].name}; go on with --shard, "
            f"or join them first with `ahabench merge {run}`"
        )


def _rank(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
