"""The board as Markdown, CSV, LaTeX and JSON: the same bytes for the same board."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ahabench.harness.disk import replace_file
from ahabench.leaderboards.table import MEAN, Board, Cell, Row, Table

NOTES = (
    "Scores in percent, ± half the width of the 95 % interval. Bold: best of its size group. ≈: not told apart from "
    "the best at 5 % (Holm), tested in pairs over the same items unless a table says otherwise. –: no value, which is "
    "never 0 and never averaged."
)
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+!|~&$])")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "≈": r"$\approx$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "–": "--",
    "·": r"$\cdot$",
    "→": r"$\rightarrow$",
    "−": "$-$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def to_json(board: Board) -> str:
    """Return the board with every number in full, as fractions."""
    return json.dumps(board.as_json(), indent=2, ensure_ascii=True, allow_nan=False) + "\n"


def to_csv(board: Board) -> str:
    """Return one line per row and column of each table: what spreadsheets and data frames read. Fractions."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        "table protocol model reported size_group parameters_b base date column column_protocol value ci95_low "
        "ci95_high n best tied p_holm paired aha truncated no_answer chips why_missing footnote".split()
    )
    for table in board.tables:
        for row in table.rows:
            for column in table.columns:
                writer.writerow([_plain(value) for value in _line(table, row, column.key, column.protocol)])
    return out.getvalue()


def to_markdown(board: Board) -> str:
    """Return the board as tables of GitHub's Markdown, whatever names contain."""
    return "\n".join(_markdown_lines(board)) + "\n"


def to_latex(board: Board) -> str:
    r"""Return the board as tables for LaTeX with the packages booktabs and graphicx (``\resizebox``)."""
    head = "% Needs \\usepackage{booktabs,graphicx} and, for names beyond ASCII, a Unicode engine."
    return "\n".join([head, f"% {NOTES}", *(line for table in board.tables for line in _latex_lines(table))]) + "\n"


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


def half_width(cell: Cell) -> float | None:
    """Return half the width of a cell's interval in points."""
    return None if cell.ci95 is None else 50 * (cell.ci95[1] - cell.ci95[0])


def parameters(row: Row) -> str:
    """Return a model's size, such as "7B" or "≈135M" where only the name told it."""
    if row.parameters_b is None:
        return "–"
    size = f"{row.parameters_b:g}B" if row.parameters_b >= 1 else f"{1000 * row.parameters_b:.3g}M"
    return f"≈{size}" if row.parameters_guessed else size


def share(value: float | None) -> str:
    """Return a rate in percent; a dash where it is not known."""
    return "–" if value is None else f"{100 * value:.1f}"


def footnotes(table: Table, *, cards: bool = True) -> list[str]:
    """Return the table's footnotes, each once, in the order in which rows and cells refer to them.

    Args:
        table: whose.
        cards: with the notes of the runs' own cards.
    """
    found = []
    for row in table.rows:
        found += [row.note] if row.note and (row.reported or cards) else []
        found += [cell.footnote for cell in row.cells.values() if cell.footnote]
    return list(dict.fromkeys(found))


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
        row.truncated,
        row.no_answer,
        "; ".join(row.chips),
        cell.gap,
        cell.footnote,
    ]


def _plain(value: object) -> object:
    """Return a cell that no spreadsheet takes for a formula."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return "" if value is None else value


def _markdown_lines(board: Board) -> Iterator[str]:
    yield "# Leaderboard"
    yield ""
    yield NOTES
    for table in board.tables:
        yield ""
        yield f"## {_md(table.title)}"
        yield ""
        yield _md(table.protocol)
        yield ""
        labels = [_md(column.label) for column in table.columns]
        yield "| " + " | ".join(["Model", "Size", "Base", "Date", *labels, "Aha", "Cut off", "No answer"]) + " |"
        yield "|" + "|".join(["---"] * 4 + ["--:"] * (len(labels) + 3)) + "|"
        notes = footnotes(table)
        for group, rows in table.groups:
            yield "| " + " | ".join([f"*{_md(group)}*", *[""] * (len(labels) + 6)]) + " |"
            for row in rows:
                name = _md(row.name) + "".join(f" ({_md(chip)})" for chip in row.chips)
                name += f" [{notes.index(row.note) + 1}]" if row.note in notes else ""
                facts = [_md(parameters(row)), _md(row.base or "–"), _md(row.date or "–")]
                cells = [_md_cell(row.cells[column.key], notes) for column in table.columns]
                rates = [share(row.aha), share(row.truncated), share(row.no_answer)]
                yield "| " + " | ".join([name, *facts, *cells, *rates]) + " |"
        yield ""
        mean = next((column for column in table.columns if column.key == MEAN), None)
        if mean is not None:
            yield f"Mean = {_md(mean.protocol)}."
        for number, text in enumerate(notes, start=1):
            yield ""
            yield f"[{number}] {_md(text.rstrip('.'))}."
        for said in filter(None, (table.note, table.source)):
            yield ""
            yield _md(said)


def _md(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", text.replace("\n", " "))


def _md_cell(cell: Cell, notes: list[str]) -> str:
    text = score(cell)
    if cell.best:
        text = f"**{text}**"
    elif cell.tied:
        text += " ≈"
    return text if cell.footnote is None else f"{text} [{notes.index(cell.footnote) + 1}]"


def _latex_lines(table: Table) -> Iterator[str]:
    columns = table.columns
    notes = footnotes(table)
    yield ""
    yield r"\begin{table}"
    yield r"\centering"
    marks = "".join(f" $^{{{number}}}${_tex(text.rstrip('.'))}." for number, text in enumerate(notes, start=1))
    mean = next(column.protocol for column in columns if column.key == MEAN)
    yield rf"\caption{{{_tex(table.title)}: {_tex(table.protocol)}. Mean = {_tex(mean)}.{marks}}}"
    yield r"\resizebox{\linewidth}{!}{%"
    yield rf"\begin{{tabular}}{{ll{'r' * len(columns)}}}"
    yield r"\toprule"
    yield " & ".join(["Model", "Size", *(_tex(column.label) for column in columns)]) + r" \\"
    for group, rows in table.groups:
        yield r"\midrule"
        yield rf"\multicolumn{{{len(columns) + 2}}}{{l}}{{\emph{{{_tex(group)}}}}} \\"
        for row in rows:
            name = _tex(row.name) + (r"\,$^{r}$" if row.reported else "")
            name += f"$^{{{notes.index(row.note) + 1}}}$" if row.note in notes else ""
            cells = [_tex_cell(row.cells[column.key], notes) for column in columns]
            yield " & ".join([name, _tex(parameters(row)), *cells]) + r" \\"
    yield r"\bottomrule"
    yield r"\end{tabular}}"
    if any(row.reported for row in table.rows):
        source = f" {_tex(table.source)}." if table.source else ""
        yield rf"\\ {{\footnotesize $^{{r}}$reported, not run here.{source}}}"
    if table.note:
        yield rf"\\ {{\footnotesize {_tex(table.note)}}}"
    yield r"\end{table}"


def _tex(text: str) -> str:
    return "".join(_LATEX.get(char, char) for char in text.replace("\n", " "))


def _tex_cell(cell: Cell, notes: list[str]) -> str:
    if cell.value is None:
        return "--"
    text = f"{100 * cell.value:.1f}"
    text = rf"\textbf{{{text}}}" if cell.best else text
    if (half := half_width(cell)) is not None:
        text += rf" {{\scriptsize$\pm${half:.1f}}}"
    if cell.tied:
        text += r"$^{\approx}$"
    return text if cell.footnote is None else f"{text}$^{{{notes.index(cell.footnote) + 1}}}$"
