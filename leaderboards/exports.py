"""The board as Markdown, CSV and JSON, and as LaTeX by `latex`: the same bytes for the same board."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ahabench.harness.disk import replace_file
from ahabench.harness.report import printable
from ahabench.leaderboards.latex import to_latex
from ahabench.leaderboards.table import MEAN, NOTES, Board, Cell, Row, Table, footnotes, half_width, parameters, splits

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+!|~&$])")
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
"""What a spreadsheet takes for the beginning of a formula, in the wide forms of East Asian ones too."""


def to_json(board: Board) -> str:
    """Return the board with every number in full, as fractions."""
    return json.dumps(board.as_json(), indent=2, ensure_ascii=True, allow_nan=False) + "\n"


def to_csv(board: Board) -> str:
    """Return one line per row and column of each table: what spreadsheets and data frames read. Fractions."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        "table protocol model reported size_group parameters_b base date column column_protocol value ci95_low "
        "ci95_high n best tied p_holm paired aha length_limited no_answer chips why_missing footnote".split()
    )
    for table in board.tables:
        for row in table.rows:
            for column in table.columns:
                writer.writerow([_plain(value) for value in _line(table, row, column.key, column.protocol)])
    return out.getvalue()


def to_markdown(board: Board) -> str:
    """Return the board as tables of GitHub's Markdown, whatever names contain."""
    return "\n".join(_markdown_lines(board)) + "\n"


FORMATS = {"json": to_json, "csv": to_csv, "md": to_markdown, "tex": to_latex}


def write_tables(board: Board, out: Path, formats: Iterable[str] = tuple(FORMATS)) -> list[Path]:
    """Write leaderboard.<format> for each format, and return the files.

    Raises:
        UsageError: the disk is full or refuses.
    """
    paths = []
    for name in formats:
        path = out / f"leaderboard.{name}"
        replace_file(path, [FORMATS[name](board).encode("utf-8", "backslashreplace")])
        paths.append(path)
    return paths


def score(cell: Cell) -> str:
    """Return a cell in percent, such as "71.2 ±1.4"; a dash where there is no value."""
    if cell.value is None:
        return "–"
    text = f"{100 * cell.value:.1f}"
    if (half := half_width(cell)) is not None:
        text += f" ±{half:.1f}"
    return text


def share(value: float | None) -> str:
    """Return a rate in percent; a dash where it is not known."""
    return "–" if value is None else f"{100 * value:.1f}"


def _line(table: Table, row: Row, key: str, protocol: str) -> list[object]:
    cell = row.cells[key]
    low, high = cell.ci95 or (None, None)
    return [
        table.title,
        table.protocol,
        row.name,
        row.reported,
        row.group,
        row.parameters_b,
        row.base,
        row.date,
        key,
        protocol,
        cell.value,
        low,
        high,
        cell.n,
        cell.best,
        cell.tied,
        cell.p_holm,
        cell.paired,
        row.aha,
        row.length_limited,
        row.no_answer,
        "; ".join(row.chips),
        cell.gap,
        cell.footnote,
    ]


def _plain(value: object) -> object:
    """Return a cell on one line that no spreadsheet takes for a formula."""
    if not isinstance(value, str):
        return "" if value is None else value
    text = printable(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _markdown_lines(board: Board) -> Iterator[str]:
    yield "# Leaderboard"
    yield ""
    yield NOTES
    for table in board.tables:
        yield from ("", f"## {_md(table.title)}", "", _md(table.protocol), "")
        notes = footnotes(table)
        before, after = _markdown_facts(table)
        heads = ["Model", *before, *(_md(column.label) for column in table.columns), *after]
        yield f"| {' | '.join(heads)} |"
        yield "|" + "|".join(["---"] * (1 + len(before)) + ["--:"] * (len(heads) - len(before) - 1)) + "|"
        for group, rows in table.groups:
            yield "| " + " | ".join([f"*{_md(group)}*", *[""] * (len(heads) - 1)]) + " |"
            for row in rows:
                name = _md(row.name) + "".join(f" ({_md(chip)})" for chip in row.chips)
                name += f" [{notes.index(row.note) + 1}]" if row.note in notes else ""
                facts, rates = ([_md(show(row)) for show in shown.values()] for shown in (before, after))
                cells = [_md_cell(row.cells[column.key], notes) for column in table.columns]
                yield f"| {' | '.join([name, *facts, *cells, *rates])} |"
        mean = next(column.protocol for column in table.columns if column.key == MEAN)
        numbered = (f"[{number}] {_md(text.rstrip('.'))}." for number, text in enumerate(notes, start=1))
        said = (_md(text) for text in (splits(table), table.note, table.source) if text)
        for text in (f"Mean = {_md(mean)}.", *numbered, *said):
            yield from ("", text)


def _markdown_facts(table: Table) -> tuple[dict[str, Callable[[Row], str]], dict[str, Callable[[Row], str]]]:
    """Return what stands before and after the scores: those of it that some row has."""
    before: dict[str, Callable[[Row], str]] = {"Size": parameters}
    if any(row.base for row in table.rows):
        before["Base"] = lambda row: row.base or "–"
    if any(row.date for row in table.rows):
        before["Date"] = lambda row: row.date or "–"
    after: dict[str, Callable[[Row], str]] = {
        "Aha %": lambda row: share(row.aha),
        "Cut off %": lambda row: share(row.length_limited),
        "No answer %": lambda row: share(row.no_answer),
    }
    return before, {} if table.source else after


def _md(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", printable(text))


def _md_cell(cell: Cell, notes: list[str]) -> str:
    text = score(cell)
    if cell.best:
        text = f"**{text}**"
    elif cell.tied:
        text += " ≈"
    return text if cell.footnote is None else f"{text} [{notes.index(cell.footnote) + 1}]"
