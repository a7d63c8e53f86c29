"""The board as tables for LaTeX, whatever names contain."""

import re
from collections.abc import Iterator

from ahabench.harness.report import printable
from ahabench.leaderboards.table import MEAN, NOTES, Board, Cell, Table, footnotes, half_width, parameters, splits

_ESCAPES = {
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
    "“": r"\textquotedblleft{}",
    "”": r"\textquotedblright{}",
    # After \\ these two would be its arguments.
    "[": "{[}",
    "*": "{*}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}


def to_latex(board: Board) -> str:
    r"""Return the board as tables for LaTeX with the packages booktabs and graphicx (``\resizebox``)."""
    head = r"% Needs \usepackage{booktabs,graphicx} and, for names beyond Latin letters, a Unicode engine."
    return "\n".join([head, *(line for table in board.tables for line in _lines(table))]) + "\n"


def _lines(table: Table) -> Iterator[str]:
    columns, notes = table.columns, footnotes(table)
    yield ""
    yield r"\begin{table}"
    yield r"\centering"
    yield rf"\caption{{{_text(table.title)}: {_text(table.protocol)}.}}"
    yield rf"\label{{tab:{table.id}}}"
    yield r"\smallskip"
    yield r"\resizebox{\linewidth}{!}{%"
    # Two columns each, so that points stand below points: the score, and what hangs on it.
    yield rf"\begin{{tabular}}{{ll{'r@{}l' * len(columns)}}}"
    yield r"\toprule"
    heads = (rf"\multicolumn{{2}}{{l}}{{{_text(column.label)}}}" for column in columns)
    yield " & ".join(["Model", "Size", *heads]) + r" \\"
    for group, rows in table.groups:
        yield r"\midrule"
        yield rf"\multicolumn{{{2 * len(columns) + 2}}}{{l}}{{\emph{{{_text(group)}}}}} \\"
        for row in rows:
            marks = [*(["r"] if row.reported else []), *([str(notes.index(row.note) + 1)] if row.note in notes else [])]
            name = _text(row.name) + (f"$^{{{','.join(marks)}}}$" if marks else "")
            cells = [_cell(row.cells[column.key], notes) for column in columns]
            yield " & ".join([name, _text(parameters(row)), *cells]) + r" \\"
    yield r"\bottomrule"
    yield r"\end{tabular}}"
    yield r"\par\smallskip\parbox{\linewidth}{\footnotesize"
    yield from _below(table, notes)
    yield "}"
    yield r"\end{table}"


def _below(table: Table, notes: list[str]) -> Iterator[str]:
    """Yield what a reader of the table alone must know."""
    if not table.source:
        yield _text(NOTES)
    mean = next(column.protocol for column in table.columns if column.key == MEAN)
    yield f"Mean = {_text(mean)}."
    if (said := splits(table)) is not None:
        yield _text(said)
    yield from (f"$^{{{number}}}$~{_text(text.rstrip('.'))}." for number, text in enumerate(notes, start=1))
    if any(row.reported for row in table.rows):
        yield "$^{r}$~Reported, not run here" + (f": {_text(table.source)}." if table.source else ".")
    if table.note:
        yield _text(table.note)


def _text(text: str) -> str:
    paired = re.sub(r'"(?=\w)', "“", printable(text)).replace('"', "”")
    return "".join(_ESCAPES.get(char, char) for char in paired)


def _cell(cell: Cell, notes: list[str]) -> str:
    if cell.value is None:
        return "-- &"
    text = f"{100 * cell.value:.1f}"
    score = rf"\textbf{{{text}}}" if cell.best else text
    half = half_width(cell)
    interval = "" if half is None else rf"\,{{\scriptsize$\pm${half:.1f}}}"
    marks = [*([r"\approx"] if cell.tied else []), *([str(notes.index(cell.footnote) + 1)] if cell.footnote else [])]
    return f"{score} & {interval}" + (f"$^{{{','.join(marks)}}}$" if marks else "")
