"""Build a board in one call: for the command, and for whoever has runs and wants a site."""

from collections.abc import Sequence
from pathlib import Path

from ahabench.harness.errors import UsageError
from ahabench.leaderboards.collect import collect
from ahabench.leaderboards.exports import FORMATS, write_tables
from ahabench.leaderboards.reported import read_published
from ahabench.leaderboards.site import write_site
from ahabench.leaderboards.table import Board, build_board


def build_site(runs: Sequence[Path], out: Path, *, published: bool = False, data: Path | None = None) -> Board:
    """Write a site with its tables, and return the board.

    Args:
        runs: run directories, or folders of such.
        out: the site's folder; files of an earlier board are replaced.
        published: add what papers report, marked as such.
        data: where the items are, as for `dataset.load`: for paired tests on DynaMath, We-Math and all of MathVerse.

    Raises:
        UsageError: a place holds no run, a run is a shard or damaged, or the disk refuses.
    """
    found = collect(runs)
    board = build_board(found, read_published() if published else (), data=data)
    write_site(board, found, out)
    return board


def build_tables(
    runs: Sequence[Path], out: Path, formats: Sequence[str], *, published: bool = False, data: Path | None = None
) -> Board:
    """Write leaderboard.<format> for each format and no pages, and return the board; arguments as of `build_site`.

    Raises:
        UsageError: as `build_site`, or a format is not known.
    """
    if strange := [name for name in formats if name not in FORMATS]:
        raise UsageError(f"unknown format {strange[0]!r}; formats: {', '.join(FORMATS)}")
    board = build_board(collect(runs), read_published() if published else (), data=data)
    write_tables(board, out, formats)
    return board
