"""The files of a submission, looked at before anything in them is read: what they may be, and how large."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

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


def strange_files(run: Path) -> Iterator[str]:
    """Yield what is wrong with the files of a run, of which it reads at most the places of line ends.

    Links are not followed, and what is no plain file is not opened.
    """
    for entry in _entries(run):
        if entry.is_dir(follow_symlinks=False):
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
        return
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
