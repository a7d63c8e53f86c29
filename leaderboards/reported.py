"""Numbers that others published, as rows that are visibly not of this board's making."""

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ahabench.harness.errors import UsageError

MEAN_ROUNDING = 0.1 + 1e-9
"""How far, in points, a printed mean may lie from that of the printed scores: either is rounded by up to 0.05."""


class _FromFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_FromFile):
    """Where numbers stand."""

    cite: str
    url: str = Field(pattern=r"^https?://")
    place: str
    """Table or figure."""
    page: str
    """As printed; "not known" where the source was read without pages."""

    def __str__(self) -> str:
        """Return what a reader looks up."""
        return f"{self.cite}, {self.place}, page {self.page}"


class ReportedRow(_FromFile):
    """One row of a published table. Scores are in percent, as printed."""

    name: str
    parameters_b: float | None = None
    base: str | None = None
    date: str | None = None
    scores: dict[str, float]
    mean: float | None = None
    """As printed; the board shows that of the scores."""
    note: str | None = None


class Reported(_FromFile):
    """One published table."""

    schema_version: Literal[1]
    id: str = Field(pattern=r"^[a-z0-9-]+$")
    title: str
    order: int
    joins: bool = False
    """Whether its rows also stand below those of runs on the same full benchmarks."""
    protocol: str
    """How its numbers were made, as far as the source says."""
    source: Source
    rows: tuple[ReportedRow, ...]
    note: str | None = None


def read_published() -> list[Reported]:
    """Return the tables that come with the package, in their order.

    Raises:
        UsageError: a file is damaged.
    """
    folder = files("ahabench.leaderboards").joinpath("published")
    tables = []
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if not file.name.endswith(".json"):
            continue
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            tables.append(Reported.model_validate(data))
        except (ValueError, ValidationError) as error:
            raise UsageError(f"published/{file.name} is damaged: {error}") from error
    return sorted(tables, key=lambda table: (table.order, table.id))


def mean_of(scores: Mapping[str, float], columns: tuple[str, ...]) -> float | None:
    """Return the mean of a row's scores, in their unit; `None` unless every column has one."""
    if not columns or any(column not in scores for column in columns):
        return None
    return sum(scores[column] for column in columns) / len(columns)


def misprinted(row: ReportedRow, columns: tuple[str, ...]) -> bool:
    """Whether a row's printed mean is not that of its printed scores, beyond rounding."""
    mean = mean_of(row.scores, columns)
    return mean is not None and row.mean is not None and abs(mean - row.mean) > MEAN_ROUNDING
