"""What `ahabench aha` prints of a run: tables that fit into 80 columns."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ahabench.harness import report
from ahabench.harness.aha.page import behaviour_rows, facts

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

PIPE_WIDTH = 120
STEPS_SHOWN = 12
"""Rows of a long training run; `--json` has all."""
_BARS = "▁▂▃▄▅▆▇█"


def print_run(name: str, summary: Mapping[str, Any]) -> None:
    """Print one run: what was counted, by class, and over training or by the judge where there is such."""
    import sys

    from rich.console import Console
    from rich.table import Table

    # Rich guesses 80 columns for a pipe; a table in a file must not be cut.
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    console.print(_cell(f"{name} · lexicon {summary['lexicon']}", "bold"))
    table = Table(box=None, show_header=False)
    for left, right in facts(summary):
        table.add_row(_cell(left), _cell(right))
    console.print(table)
    classes = Table(box=None)
    for column in ("class", "moments", "responses %"):
        classes.add_column(column, justify="left" if column == "class" else "right")
    for kind, row in summary["by_class"].items():
        share = f"{report.percent(row['with_moment']['value'])} {report.interval(row['with_moment']['ci95'])}"
        classes.add_row(_cell(kind), f"{row['moments']:,}", _cell(share))
    console.print(classes)
    if "training" in summary:
        _print_training(console, summary["training"])
    if "behaviours" in summary:
        _print_behaviours(console, summary["behaviours"])


def shown_steps(steps: Sequence[Mapping[str, Any]], most: int = STEPS_SHOWN) -> list[Mapping[str, Any]]:
    """Return the first step, the last and some between them at even distances: `most` at most."""
    n = len(steps)
    if n <= most:
        return list(steps)
    return [steps[round(i * (n - 1) / (most - 1))] for i in range(most)]


def sparkline(values: Sequence[float | None]) -> str:
    """Return values as bars from 0 to their maximum, a blank for what is not known."""
    top = max((value for value in values if value is not None), default=0.0)
    if top <= 0:
        return "".join(" " if value is None else _BARS[0] for value in values)
    places = [None if value is None else max(0, round(value / top * (len(_BARS) - 1))) for value in values]
    return "".join(" " if place is None else _BARS[place] for place in places)


def _print_training(console: "Console", training: Mapping[str, Any]) -> None:
    from rich.table import Table

    steps = training["steps"]
    rows = shown_steps(steps)
    table = Table(box=None)
    for column in ("step", "n", "reward", "moment %", "per 1,000 tok", "loops %", "cut off %"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        shares = [report.percent(row[key]) for key in ("with_loop", "truncated")]
        table.add_row(
            str(row["step"]),
            f"{row['n']:,}",
            _number(row["reward"], 3),
            report.percent(row["with_moment"]),
            _number(row["per_1000_tokens"], 2),
            *shares,
        )
    console.print(_cell("over training" + (f" ({len(rows)} of {len(steps)} steps)" if len(rows) < len(steps) else "")))
    console.print(table)
    _print_correlations(console, training)
    if training["note"]:
        console.print(_cell(f"  {training['note']}"))


def _print_correlations(console: "Console", training: Mapping[str, Any]) -> None:
    """Print each quantity that moves: from the baseline to the end, its curve, and how it goes with the reward."""
    from rich.table import Table

    steps = training["steps"]
    rows = shown_steps(steps, 20)
    table = Table(box=None)
    for column in ("", "step 0" if training["baseline"] else "first", "last", "curve", "r", "rho"):
        table.add_column(column, justify="left" if column in ("", "curve") else "right", no_wrap=True)
    flat = []
    for name, found in training["correlation"].items():
        values = [_value(step, name) for step in steps]
        label = name.removeprefix("published/").replace("_", " ")
        if len({value for value in values if value is not None}) < 2:
            flat.append(label)
            continue
        table.add_row(
            _cell(label),
            _number(values[0], 3),
            _number(values[-1], 3),
            _cell(sparkline([_value(row, name) for row in rows])),
            _signed(found["pearson"]),
            _signed(found["spearman"]),
        )
    if table.row_count:
        console.print(_cell("r, rho: Pearson's and Spearman's correlation with the reward over the steps"))
        console.print(table)
    if flat:
        console.print(_cell(f"the same at every step: {', '.join(flat)}"))


def _print_behaviours(console: "Console", found: Mapping[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None)
    for column in ("behaviour", "responses %", "both", "judge alone", "lexicon alone", "κ"):
        table.add_column(column, justify="left" if column == "behaviour" else "right")
    for row in behaviour_rows(found):
        table.add_row(*map(_cell, row))
    judge = found["judge"]
    served = f" ({judge['served_model']})" if judge["served_model"] != judge["model"] else ""
    console.print(_cell(f"behaviours by {judge['model']}{served} in {found['n']:,} responses, beside the lexicon"))
    console.print(table)
    if found["failed"] or found["unreadable"]:
        console.print(_cell(f"  not judged: {found['failed']:,} failed, {found['unreadable']:,} replies unreadable"))


def _value(step: Mapping[str, Any], name: str) -> float | None:
    rule = name.removeprefix("published/")
    value: float | None = step["published"][rule] if rule != name else step[name]
    return value


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _cell(text: str, style: str = "") -> "Text":
    from rich.text import Text

    return Text(report.printable(text), style=style)
