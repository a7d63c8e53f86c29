"""Build a board in one call, for the command and for whoever has runs: the values, the tables, the site."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ahabench.harness import registry
from ahabench.harness.errors import AhabenchError, UsageError
from ahabench.leaderboards.chips import chips_of
from ahabench.leaderboards.collect import Comparable, TaskProtocol, collect, comparable
from ahabench.leaderboards.exports import FORMATS, write_tables
from ahabench.leaderboards.reported import Reported, ReportedRow, mean_of, misprinted, read_published
from ahabench.leaderboards.runs import BoardRun, EstimateRow
from ahabench.leaderboards.site import write_site
from ahabench.leaderboards.table import (
    MEAN,
    NOT_RUN,
    REPORTED,
    SIX,
    SIZES,
    Board,
    Cell,
    Column,
    Row,
    Table,
    formula,
    label_of,
    size_group,
)
from ahabench.leaderboards.ties import Mark, Pairs, mark_column, mark_means


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


def build_board(runs: Sequence[BoardRun], reported: Sequence[Reported] = (), *, data: Path | None = None) -> Board:
    """Return the board of runs and of numbers reported elsewhere.

    Args:
        runs: from `collect.collect`.
        reported: tables of others; their rows are never marked together with runs.
        data: where items are, for paired tests on benchmarks whose clusters are not single items.
    """
    tables: list[Table] = []
    joined: set[str] = set()
    for number, group in enumerate(comparable(runs), start=1):
        guests = [] if not _is_full(group) else [one for one in reported if one.joins and one.id not in joined]
        joined |= {one.id for one in guests}
        tables.append(_table(number, group, guests, data))
    tables += [_reported_table(one) for one in reported if one.id not in joined]
    return Board(tables=tuple(_distinct(tables)))


def _distinct(tables: Sequence[Table]) -> Iterator[Table]:
    """Yield the tables, those of one title with what their protocols differ in added to it."""
    for table in tables:
        alike = [one.protocol.split(" · ") for one in tables if one.title == table.title]
        own = [part for part in table.protocol.split(" · ") if not all(part in other for other in alike)]
        yield replace(table, title=": ".join([table.title, *([", ".join(own)] if own else [])]))


def mean_interval(cells: Sequence[Cell]) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean of independent benchmarks, from their own intervals.

    Zou and Donner's method (Statistics in Medicine 27, 2008): it keeps the asymmetry of intervals near 0 and 1, and
    gives a benchmark with no right answer its share of the width.
    """
    low = high = total = 0.0
    for cell in cells:
        if cell.value is None or cell.ci95 is None:
            return None
        total += cell.value
        low += (cell.value - cell.ci95[0]) ** 2
        high += (cell.ci95[1] - cell.value) ** 2
    mean = total / len(cells)
    return mean - math.sqrt(low) / len(cells), mean + math.sqrt(high) / len(cells)


def _table(number: int, group: Comparable, guests: Sequence[Reported], data: Path | None) -> Table:
    tasks = [*SIX, *sorted(group.tasks.keys() - SIX.keys())]
    chips = chips_of(group.runs)
    rows = [_row(run, tasks, chips[run.slug]) for run in group.runs]
    columns = [_column(task, group.tasks.get(task), [row.cells[task].n for row in rows]) for task in tasks]
    mean = Column(key=MEAN, label="Mean", protocol=formula([one.label for one in columns if one.key in SIX]))
    rows = _marked(rows, group, data)
    rows += [_guest(row, tuple(SIX), one) for one in guests for row in one.rows]
    title, protocol = _names(group)
    notes = [*_untested(rows, (mean, *columns)), *(_cited(one) for one in guests)]
    return Table(
        id=f"table-{number}",
        title=title,
        protocol=protocol,
        columns=(mean, *columns),
        rows=_ordered(rows),
        note=" ".join(notes) or None,
    )


def _reported_table(one: Reported) -> Table:
    tasks = tuple(task for task in SIX if any(task in row.scores for row in one.rows))
    labels = [SIX[task] for task in tasks]
    mean = Column(key=MEAN, label="Mean", protocol=formula(labels))
    columns = (mean, *(Column(key=task, label=SIX[task], protocol=REPORTED) for task in tasks))
    rows = [_guest(row, tasks, one) for row in one.rows]
    return Table(
        id=one.id,
        title=one.title,
        protocol=one.protocol,
        columns=columns,
        # Authors order ablations to be read from above.
        rows=_ordered(rows) if one.joins else tuple(rows),
        note=one.note,
        source=str(one.source),
        source_url=one.source.url,
    )


def _untested(rows: Sequence[Row], columns: Sequence[Column]) -> Iterator[str]:
    """Yield where a mark is no paired test, and where there is no test at all."""
    found: dict[bool, list[str]] = {True: [], False: []}
    for column in columns:
        cells = [row.cells[column.key] for row in rows]
        for tested, labels in found.items():
            if any(cell.paired is False and (cell.p_holm is not None) is tested for cell in cells):
                labels.append(column.label)
    if found[True]:
        yield (
            f"Not paired: {', '.join(found[True])}. Verdicts item by item, or the items, are not at hand for some "
            "rows; errors are taken as independent there, which errs towards ≈."
        )
    if found[False]:
        yield f"Not tested: {', '.join(found[False])}. A row there has no standard error, and may be a tie."


def _cited(one: Reported) -> str:
    return f"Rows marked as reported are from {one.source}; they are in no test. {one.note or ''}".strip()


def _is_full(group: Comparable) -> bool:
    try:
        defaults = {task: registry.find_task(task).default_split for task in SIX}
    except AhabenchError:
        return False
    found = {task: one for task, one in group.tasks.items() if task in SIX}
    return bool(found) and all(one.split == defaults[task] and one.limit is None for task, one in found.items())


def _names(group: Comparable) -> tuple[str, str]:
    if not group.tasks:
        return "Runs without scores", "not scored; `ahabench score RUN` does that"
    if group.ways is None:
        return "Runs without a common protocol", "prompts or scorers differ between the benchmarks of a run"
    splits = {one.split for one in group.tasks.values()}
    limits = {one.limit for one in group.tasks.values()}
    if splits == {registry.MINI}:
        title = "Built-in mini suite"
    else:
        title = "Full benchmarks" if _is_full(group) else "Other splits of the benchmarks"
    if limits != {None}:
        title += ", a part of the items"
    prompts = sorted({one.prompt for one in group.tasks.values()})
    scorers = sorted({one.scorer for one in group.tasks.values()})
    _, _, samples, judge = group.ways
    drawn = "1 response per item" if samples == 1 else f"{samples} responses per item"
    judged = f"judge {judge}" if judge else "no judge"
    return title, f"prompt {', '.join(prompts)} · scorer {', '.join(scorers)} · {drawn} · {judged}"


def _column(task: str, protocol: TaskProtocol | None, counted: Iterable[int | None]) -> Column:
    if protocol is None:
        return Column(key=task, label=SIX.get(task, task), protocol=NOT_RUN)
    limit = f" --limit {protocol.limit}" if protocol.limit is not None else ""
    n = max(filter(None, counted), default=None)
    return Column(key=task, label=label_of(task, protocol.split), protocol=f"{protocol.split}{limit}", n=n)


def _row(run: BoardRun, tasks: Sequence[str], chips: tuple[str, ...]) -> Row:
    cells = {task: _cell(run, task) for task in tasks}
    six = [cells[task] for task in SIX]
    values = [cell.value for cell in six if cell.value is not None]
    if len(values) == len(six):
        cells[MEAN] = Cell(value=sum(values) / len(values), ci95=mean_interval(six), n=len(six))
    else:
        cells[MEAN] = Cell(gap=f"{len(values)} of {len(six)} benchmarks")
    return Row(
        slug=run.slug,
        name=run.name,
        reported=False,
        parameters_b=run.parameters_b,
        parameters_guessed=run.parameters_guessed,
        group=size_group(run.parameters_b),
        base=run.card.base,
        date=run.card.date,
        url=run.card.url,
        cells=cells,
        aha=_aha(run),
        length_limited=_rate(run, "length_limited"),
        no_answer=_rate(run, "no_answer"),
        chips=chips,
        note=run.card.note,
    )


def _cell(run: BoardRun, task: str) -> Cell:
    score = run.tasks.get(task)
    if score is None:
        return Cell(gap="not run")
    found = score.headline
    if found is None:
        return Cell(gap=score.gap or "no value")
    return Cell(value=found.value, ci95=_ends(found), n=found.n)


def _ends(found: EstimateRow) -> tuple[float, float] | None:
    return (found.ci95[0], found.ci95[1]) if found.ci95 else None


def _guest(row: ReportedRow, columns: tuple[str, ...], table: Reported) -> Row:
    cells = {
        task: Cell(value=row.scores[task] / 100) if task in row.scores else Cell(gap="not reported") for task in columns
    }
    mean = mean_of(row.scores, columns)
    footnote = None
    if misprinted(row, columns):
        footnote = f"recomputed from the row's scores; {table.source.place} prints {row.mean:g}"
    cells[MEAN] = Cell(gap="not all reported") if mean is None else Cell(value=mean / 100, footnote=footnote)
    return Row(
        slug="",
        name=row.name,
        reported=True,
        parameters_b=row.parameters_b,
        parameters_guessed=False,
        group=size_group(row.parameters_b),
        base=row.base,
        date=row.date,
        url=table.source.url,
        cells=cells,
        chips=("reported, not run here",),
        note=row.note,
    )


def _marked(rows: list[Row], group: Comparable, data: Path | None) -> list[Row]:
    """Return the rows with the best of each size group, and what is not told apart from it."""
    pairs = {}
    for task, protocol in group.tasks.items():
        runs = [run for run in group.runs if task in run.tasks and run.tasks[task].headline is not None]
        if len(runs) > 1:
            pairs[task] = Pairs(task, protocol, runs, data)
    marks: dict[tuple[str, str], Mark] = {}
    for size in {row.group for row in rows}:
        here = [row for row in rows if row.group == size]
        for task, found in pairs.items():
            marks |= {(slug, task): one for slug, one in mark_column(_values(here, task), found).items()}
        if all(task in pairs for task in SIX):
            of_means = mark_means(_values(here, MEAN), [pairs[task] for task in SIX])
            marks |= {(slug, MEAN): one for slug, one in of_means.items()}
    return [_with_marks(row, marks) for row in rows]


def _values(rows: Sequence[Row], column: str) -> dict[str, float]:
    return {row.slug: value for row in rows if (value := row.cells[column].value) is not None}


def _with_marks(row: Row, marks: Mapping[tuple[str, str], Mark]) -> Row:
    cells = dict(row.cells)
    for key, cell in cells.items():
        if (mark := marks.get((row.slug, key))) is not None:
            paired = None if mark.best and mark.p_holm is None else mark.paired
            cells[key] = replace(cell, best=mark.best, tied=mark.tied, p_holm=mark.p_holm, paired=paired)
    return replace(row, cells=cells)


def _ordered(rows: Sequence[Row]) -> tuple[Row, ...]:
    order = [*(f"≤{end}B" for end in SIZES), f">{SIZES[-1]}B", "size not known"]

    def place(row: Row) -> tuple[int, bool, list[float], str]:
        # Without a mean by the first benchmark, and so on; what is missing stands last.
        values = [row.cells[column].value for column in (MEAN, *SIX) if column in row.cells]
        return order.index(row.group), row.reported, [1.0 if value is None else -value for value in values], row.name

    return tuple(sorted(rows, key=place))


def _aha(run: BoardRun) -> float | None:
    """Return the share of responses with an aha moment, over all benchmarks; `None` unless all verdicts say."""
    outcomes = [score.outcomes for score in run.tasks.values() if score.metrics is not None]
    total = sum(len(one.keys) for one in outcomes if one is not None)
    if not total or any(one is None or one.n_aha is None for one in outcomes):
        return None
    return sum(one.n_aha or 0 for one in outcomes if one is not None) / total


def _rate(run: BoardRun, name: str) -> float | None:
    """Return a share of all responses of a run; `None` where a benchmark does not know its own."""
    known = [score.metrics for score in run.tasks.values() if score.metrics is not None]
    weights = [one.n_items * one.n_samples for one in known]
    rates = [one.rates.get(name) for one in known]
    if not sum(weights) or any(rate is None for rate in rates):
        return None
    return sum((rate or 0.0) * weight for rate, weight in zip(rates, weights, strict=True)) / sum(weights)
