"""What a folder of runs holds, and a run's files, before anything in them is read: what they may be, and how large."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ahabench.harness.errors import UsageError
from ahabench.harness.manifest import MANIFEST
from ahabench.harness.runlog import METRICS, RESPONSES, VERDICTS
from ahabench.leaderboards.runs import CARD, LARGEST_CARD, TRAINING_LOG

LARGEST = {
    MANIFEST: 1_000_000,
    CARD: LARGEST_CARD,
    "README.md": 1_000_000,
    "LICENSE": 1_000_000,
    TRAINING_LOG: 20_000_000,
    METRICS: 5_000_000,
    VERDICTS: 500_000_000,
    RESPONSES: 500_000_000,
}
"""Bytes that a file may have, by its name."""
LONGEST_LINE = 4_000_000
"""Bytes of a line of JSONL: twenty times what 32,000 tokens take."""
MOST_LINES = 1_000_000
OF_A_TASK = frozenset({METRICS, RESPONSES, VERDICTS})
_BLOCK = 1 << 20


class Held(NamedTuple):
    """What stands in a place that is given as a run or a folder of runs."""

    runs: list[Path]
    strangers: dict[str, str]
    """All else in a folder of runs: the name, and what it is."""


def held(place: Path) -> Held:
    """Return the runs in a place; checking and building both go by this, so that nothing is shown unchecked.

    A place with a manifest is one run. In any other, a run is a folder with a manifest, both plain: what is hidden or
    a link is none.

    Raises:
        UsageError: it is no folder, or an empty one.
    """
    if (place / MANIFEST).exists():
        return Held([place], {})
    if not place.is_dir():
        raise UsageError(f"{place} is no run: it has no {MANIFEST}")
    found = Held([], {})
    for entry in _entries(place):
        if (what := _stranger(entry)) is None:
            found.runs.append(place / entry.name)
        else:
            found.strangers[entry.name] = what
    if not found.runs and not found.strangers:
        raise UsageError(f"{place} is no run and holds none: no {MANIFEST} in it or in a folder of it")
    return found


def _stranger(entry: os.DirEntry[str]) -> str | None:
    if entry.name.startswith("."):
        return f"{entry.name} is hidden; a run is a folder that everybody sees"
    if entry.is_symlink():
        return f"{entry.name} is a link; a run is a folder of plain files"
    if not entry.is_dir(follow_symlinks=False):
        return f"{entry.name} is no folder; a folder of runs holds nothing but runs"
    manifest = Path(entry.path, MANIFEST)
    if manifest.is_symlink():
        return f"{entry.name}/{MANIFEST} is a link; a run holds plain files"
    return None if manifest.is_file() else f"{entry.name} is no run: it has no {MANIFEST}"


def strange_files(run: Path) -> Iterator[str]:
    """Yield what is wrong with the files of a run, of which it reads at most the places of line ends.

    Links are not followed, and what is no plain file is not opened.
    """
    for entry in _entries(run):
        if entry.is_dir(follow_symlinks=False):
            if entry.name.startswith("."):
                yield f"{entry.name} is a hidden folder; a run has none"
            for inner in _entries(Path(entry.path)):
                yield from _strange(inner, f"{entry.name}/{inner.name}", OF_A_TASK)
        else:
            yield from _strange(entry, entry.name, LARGEST.keys() - OF_A_TASK)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _strange(entry: os.DirEntry[str], name: str, known: frozenset[str] | set[str]) -> Iterator[str]:
    found = entry.stat(follow_symlinks=False)
    if stat.S_ISLNK(found.st_mode):
        yield f"{name} is a link; a run holds plain files"
    elif stat.S_ISDIR(found.st_mode):
        yield f"{name} is a folder within a benchmark's"
    elif not stat.S_ISREG(found.st_mode):
        yield f"{name} is no plain file"
    elif entry.name.startswith("."):
        # Locks, which stay beside what they lock; nothing reads them.
        if found.st_size:
            yield f"{name} is hidden and has {found.st_size:,} bytes; only empty locks are hidden in a run"
    elif entry.name not in known:
        yield f"{name} is no file of a run"
    elif found.st_size > LARGEST[entry.name]:
        yield f"{name} has {found.st_size:,} bytes, wanted at most {LARGEST[entry.name]:,}"
    elif entry.name.endswith(".jsonl"):
        yield from _long_lines(Path(entry.path), name)


def _long_lines(path: Path, name: str) -> Iterator[str]:
    lines = length = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            first, *others = block.split(b"\n")
            for part in (length + len(first), *map(len, others)):
                if part > LONGEST_LINE:
                    yield f"{name} has a line of more than {LONGEST_LINE:,} bytes"
                    return
            length = len(others[-1]) if others else length + len(first)
            lines += len(others)
            if lines > MOST_LINES:
                yield f"{name} has more than {MOST_LINES:,} lines"
                return
