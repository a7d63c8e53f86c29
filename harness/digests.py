"""The digests by which `metrics.json` names the files it was made from."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def file_digest(path: Path) -> str:
    """Return the SHA-256, hexadecimal, of a file that was just written."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def rows_digest(digests: Iterable[bytes]) -> str:
    """Return the SHA-256, hexadecimal, of the sorted SHA-256 of each line: their order changes no verdict either."""
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()
