"""The board as values: tables, rows and cells, fractions throughout; exports and the site only lay it out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ahabench.leaderboards.runs import BoardRun

SIX = {
    "mathvista": "MathVista",
    "mathvision": "MathVision",
    "mathverse": "MathVerse vision-only",
    "dynamath": "DynaMath worst",
    "wemath": "WeMath strict",
    "logicvista": "LogicVista",
}
"""The columns of the Open LMM Reasoning Leaderboard, in its order."""
MEAN = "mean"
REPORTED, NOT_RUN = "reported", "not run"
UNSPLIT = frozenset({REPORTED, NOT_RUN})
"""What a column has for a protocol where no run of its table was asked."""
SIZES = (4, 8, 16, 40)
"""Upper ends of the size groups in billions of parameters, rounded to whole ones."""
NOTES = (
    "Scores in percent, ± half the width of the 95 % interval. Bold: best run of its size group. ≈: not told apart "
    "from it at 5 % (Holm), tested in pairs over the same items unless a table says otherwise. –: no value, which is "
    "never 0 and never averaged."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One benchmark of a table, or the mean."""

    key: str
    label: str
    protocol: str
    """Split and limit, or one of `UNSPLIT`; for the mean its formula."""
    n: int | None = None
    """What its numbers are shares of: items, or where the metric is defined on them seeds or problems."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One number. All fractions."""

    value: float | None = None
    ci95: tuple[float, float] | None = None
    n: int | None = None
    best: bool = False
    tied: bool = False
    p_holm: float | None = None
    """Against the best of the group, two-sided, after Holm."""
    paired: bool | None = None
    gap: str | None = None
    """Why there is no value, or why it stands apart."""
    footnote: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One model of a table."""

    slug: str
    """Of the run's page; "" for what was reported elsewhere."""
    name: str
    reported: bool
    parameters_b: float | None
    parameters_guessed: bool
    group: str
    base: str | None
    date: str | None
    url: str | None
    cells: Mapping[str, Cell]
    aha: float | None = None
    length_limited: float | None = None
    no_answer: float | None = None
    chips: tuple[str, ...] = ()
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows that measure the same thing."""

    id: str
    title: str
    protocol: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    """By size group, within one by the mean, best first."""
    note: str | None = None
    source: str | None = None
    source_url: str | None = None

    @property
    def by_mean(self) -> bool:
        """Whether the rows of each group stand by their mean, best first, as they do unless others ordered them."""
        means = [[row.cells[MEAN].value for row in rows] for _, rows in self.groups]
        known = [[value for value in values if value is not None] for values in means]
        return any(known) and all(
            found == sorted(found, reverse=True) == values[: len(found)]
            for found, values in zip(known, means, strict=True)
        )

    @property
    def with_intervals(self) -> frozenset[str]:
        """The columns in which some row has an interval."""
        return frozenset(key for row in self.rows for key, cell in row.cells.items() if cell.ci95 is not None)

    @property
    def groups(self) -> list[tuple[str, list[Row]]]:
        """The rows by size group, in order."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.group, []).append(row)
        return list(found.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """All tables."""

    tables: tuple[Table, ...]

    def as_json(self) -> dict[str, Any]:
        """Return what `leaderboard.json` holds."""
        return {"schema_version": 1, "tables": [asdict(table) for table in self.tables]}


def size_group(parameters_b: float | None) -> str:
    """Return the size group of a model, by its billions of parameters."""
    if parameters_b is None:
        return "size not known"
    for end in SIZES:
        if math.floor(parameters_b + 0.5) <= end:
            return f"≤{end}B"
    return f">{SIZES[-1]}B"


def formula(labels: Sequence[str]) -> str:
    """Return how a mean is made, in words."""
    return f"({' + '.join(labels)}) / {len(labels)}"


def name_of(task: str) -> str:
    """Return a benchmark's name without what the leaderboard counts of it: "DynaMath" for "DynaMath worst"."""
    return SIX.get(task, task).partition(" ")[0]


def label_of(task: str, split: str) -> str:
    """Return the label of a benchmark's column; "MathVerse" alone where another version than the label's was asked."""
    return name_of(task) if task == "mathverse" and split != "vision_only" else SIX.get(task, task)


def half_width(cell: Cell) -> float | None:
    """Return half the width of a cell's interval in points."""
    return None if cell.ci95 is None else 50 * (cell.ci95[1] - cell.ci95[0])


def parameters(row: "Row | BoardRun") -> str:
    """Return a model's size, such as "7B" or "≈135M" where only the name told it."""
    if row.parameters_b is None:
        return "–"
    size = f"{row.parameters_b:g}B" if row.parameters_b >= 1 else f"{1000 * row.parameters_b:.3g}M"
    return f"≈{size}" if row.parameters_guessed else size


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


def splits(table: Table) -> str | None:
    """Return what each column's numbers are shares of, in words; `None` where the table does not say."""
    said = [
        f"{column.label} {column.protocol}" + (f" (n {column.n:,})" if column.n else "")
        for column in table.columns
        if column.key != MEAN and column.protocol not in UNSPLIT
    ]
    return f"Splits: {', '.join(said)}." if said else None
