"""What the commands print: tables on stdout, notes on stderr. Only here do fractions become percent."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ahabench.harness.accounting import MUCH_TRUNCATION
from ahabench.harness.types import Task

Value = TypeVar("Value")


def note(text: str) -> None:
    """Print one line on stderr."""
    print(printable(text), file=sys.stderr, flush=True)


def note_excluded(protocol: str, scorer: str, item_ids: Iterable[str]) -> None:
    """Say on stderr which items a scorer leaves out, if it leaves out any."""
    if listed := ", ".join(sorted(item_ids)):
        note(f"{protocol}: left out by {scorer}: {listed}")


def printable(text: str) -> str:
    """Return a text on one line, with escapes for what a terminal would obey or cannot show."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def print_json(value: Any) -> None:
    """Print a value for machines, as it is where stdout can hold it and in ASCII elsewhere."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2)
    print(text)


def answer(value: Value, print_it: Callable[[Value], None], *, as_json: bool) -> None:
    """Print what a command answers: for machines, or as `print_it` does for people."""
    if as_json:
        print_json(value)
    else:
        print_it(value)


def print_scores(rows: Sequence[Mapping[str, Any]], *, breakdown: bool, as_json: bool) -> None:
    """Print the rows of `metrics.json`, with every breakdown if asked for; JSON has them always."""
    answer(rows, print_metrics, as_json=as_json)
    for row in rows if breakdown and not as_json else ():
        print_breakdown(row)


def percent(value: float | None) -> str:
    """Return a fraction in percent with one decimal; a dash where it is unknown."""
    return "-" if value is None else f"{100 * value:.1f}"


def interval(ci95: Sequence[float] | None) -> str:
    """Return an interval in percent."""
    return "" if ci95 is None else f"[{100 * ci95[0]:.1f}, {100 * ci95[1]:.1f}]"


def print_metrics(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the metrics of tasks, headline first, each with its n, interval and protocol."""
    for row in rows:
        table = Table(box=None)
        for name, justify in (("metric", "left"), ("%", "right"), ("95 % interval", "left"), ("n", "right")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        names = sorted(row["metrics"], key=lambda name: name != row["headline"])
        for name in names:
            estimate = row["metrics"][name]
            label = _text(name, style="bold" if name == row["headline"] else "")
            table.add_row(label, *_cells(estimate), f"{estimate['n']:,}")
        console = _console()
        _print_title(console, f"{row['task']} {row['split']} · {row['prompt']} · {row['scorer']}")
        console.print(table)
        for line in (_rates(row), *_costs(row)):
            console.print(_text(f"  {line}"))
        if "judge" in row:
            failures = row["judge"]["failures"]
            failed = f"failed on {failures:,} responses, which stay unanswered" if failures else "no failures"
            console.print(_text(f"  judge {row['judge']['model']}: {failed}"))
        console.print()


def print_breakdown(row: Mapping[str, Any]) -> None:
    """Print every breakdown of one task."""
    for tag, values in row["breakdown"].items():
        table = Table(box=None)
        names = list(next(iter(values.values()), {}))
        table.add_column(_text(tag), overflow="fold")
        for name in names:
            table.add_column(_text(f"{name} %"), justify="right")
            table.add_column("95 % interval")
        table.add_column("n", justify="right")
        for value, estimates in values.items():
            cells = [cell for name in names for cell in _cells(estimates[name])]
            table.add_row(_text(value), *cells, f"{max(estimates[name]['n'] for name in names):,}")
        console = _console()
        _print_title(console, f"{row['task']} by {tag}")
        console.print(table)
        console.print(_text(f"  {_limited(row)}"))
        console.print()


def print_agreement(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print how a scorer agrees with the carried verdicts, one file a row."""
    table = Table(box=None)
    table.add_column("model", overflow="fold")
    for name in ("n", "agree %", "κ", "FP", "FN", "none", "ours %", "file %"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        agree = "-" if row["agreement"] is None else f"{100 * row['agreement']:.2f}"
        kappa = "-" if row["kappa"] is None else f"{row['kappa']:.3f}"
        counts = [str(row[name]) for name in ("false_positive", "false_negative", "no_answer")]
        shares = [percent(row["accuracy"]), percent(row["official_accuracy"])]
        table.add_row(_text(row["model"]), str(row["n"]), agree, kappa, *counts, *shares)
    console = _console()
    _print_title(console, f"{rows[0]['task']} · {rows[0]['scorer']}" if rows else "nothing to compare")
    console.print(table)


def print_parity(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print how two engines agree on one checkpoint, one task a row."""
    table = Table(box=None)
    table.add_column("task", overflow="fold")
    for name in ("n", "identical", "%", "common prefix", "verdicts differ", "only A right", "only B right", "not both"):
        table.add_column(name, justify="right")
    for row in rows:
        prefix = "-" if row["prefix_median"] is None else f"{row['prefix_median']:,.0f} (min {row['prefix_min']:,})"
        names = ("verdicts_differ", "only_first_correct", "only_second_correct")
        verdicts = ["-" if row[name] is None else f"{row[name]:,}" for name in names]
        missing = row["only_in_first"] + row["only_in_second"]
        texts = [f"{row['n']:,}", f"{row['identical']:,}", percent(row["identical_share"]), prefix]
        table.add_row(_text(f"{row['task']} {row['split']}"), *texts, *verdicts, f"{missing:,}")
    console = _console()
    _print_title(console, f"A {rows[0]['engines'][0]} · B {rows[0]['engines'][1]}")
    console.print(table)
    console.print(_text("  common prefix: median characters before two texts part, where they do"))


def print_merged(row: Mapping[str, Any]) -> None:
    """Print what a merge wrote: one line a task, then the folder."""
    for name, found in row["tasks"].items():
        missing = f", {found['missing']:,} missing" if found["missing"] else ""
        print(printable(f"{name}: {found['n_responses']:,} responses{missing}"))
    print(printable(row["out"]))


def print_explanations(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print how responses were read and compared, step by step."""
    console = _console()

    def show(text: str) -> None:
        console.print(_text(text))

    for row in rows:
        show(f"item {row['item_id']} ({row['answer_type']}), gold {row['gold']!r}, options {row['choices'] or '-'}")
        for number, step in enumerate(row["steps"], start=1):
            read = "nothing read" if step.get("read") is None else f"read {step['read']!r}"
            same = "equal" if step["equal"] else "not equal"
            outcome = f"{read}: {step['comparison']}" + (f", {same}" if step.get("read") is not None else "")
            show(f"  {number}. {step['extractor']}: {step.get('span', '')!r}")
            show(f"     {outcome}")
        show(f"  verdict: {row['status']} (rule {row['rule']}, extracted {row['extracted']!r})")


def print_tasks(tasks: Sequence[Task]) -> None:
    """Print one line a task."""
    table = Table(box=None)
    for name in ("task", "splits (items)", "headline", "licence"):
        table.add_column(name, overflow="fold")
    for task in tasks:
        splits = ", ".join(f"{name} ({split.n_items:,})" for name, split in task.splits.items())
        table.add_row(*map(_text, (task.name, splits, task.headline, task.licence)))
    _console().print(table)


def task_row(task: Task) -> dict[str, Any]:
    """Return what `ahabench tasks NAME --json` says of a task."""
    return {
        "name": task.name,
        "title": task.title,
        "version": task.version,
        "paper": task.paper,
        "licence": task.licence,
        "default_split": task.default_split,
        "splits": {
            name: {
                "n_items": split.n_items,
                "hub": split.hub.repo if split.hub else None,
                "answers": split.answers_public,
                "built_in": split.rows is not None,
            }
            for name, split in task.splits.items()
        },
        "headline": task.headline,
        "metrics": list(task.metrics),
        "breakdowns": list(task.breakdowns),
        "prompts": {name: style.version for name, style in task.prompts.items()},
        "scorers": {
            name: {"version": scorer.version, "needs_judge": scorer.read is None, "excluded": sorted(scorer.excluded)}
            for name, scorer in task.scorers.items()
        },
        "bad_items": dict(task.bad_items),
    }


def print_task(task: Task) -> None:
    """Print all that is known of a task: sizes, sources, styles, scorers, known defects."""
    row = task_row(task)
    console = _console()
    _print_title(console, f"{task.title} ({task.name}@{task.version})  {task.paper}  {task.licence}")
    lines = []
    for name, split in row["splits"].items():
        mark = " (default)" if name == task.default_split else ""
        hidden = "" if split["answers"] else ", answers withheld"
        source = "built in" if split["built_in"] else f"hub {split['hub'] or '-'}"
        lines.append(f"split {name}{mark}: {split['n_items']:,} items{hidden}, {source}")
    lines.append(f"headline: {task.headline}; metrics: {', '.join(row['metrics'])}")
    lines.append(f"breakdowns: {', '.join(row['breakdowns']) or '-'}")
    lines.append(f"prompts: {', '.join(f'{name}@{version}' for name, version in row['prompts'].items())}")
    for name, scorer in row["scorers"].items():
        needs = ", needs a judge's extraction" if scorer["needs_judge"] else ""
        out = f", leaves out {', '.join(scorer['excluded'])}" if scorer["excluded"] else ""
        lines.append(f"scorer {name}@{scorer['version']}{needs}{out}")
    if task.bad_items:
        lines.append(f"known bad items ({len(task.bad_items)}):")
        lines += [f"  {item_id}: {reason}" for item_id, reason in task.bad_items.items()]
    for line in lines:
        console.print(_text(f"  {line}"))


def _console() -> Console:
    # Rich guesses 80 columns for a pipe; a table in a file or a CI log must not be cut.
    return Console() if sys.stdout.isatty() else Console(width=120)


def _print_title(console: Console, title: str) -> None:
    # Not as the title of a table, where it would be wrapped to the table's width.
    console.print(_text(title, style="bold"))


def _text(text: str, style: str = "") -> Text:
    """Return a text that rich prints as it stands: names and answers may look like markup."""
    return Text(printable(text), style=style)


def _cells(estimate: Mapping[str, Any]) -> tuple[str, str]:
    return percent(estimate["value"]), interval(estimate["ci95"])


def truncation_warning(row: Mapping[str, Any]) -> str | None:
    """Return what to say of metrics whose responses were often cut off; `None` where that is rare or not known."""
    share = row["rates"]["length_limited"]
    if share is None or share <= MUCH_TRUNCATION:
        return None
    found = row["bounds"]
    return (
        f"{percent(share)} % of the responses were cut off at a length limit (more than {100 * MUCH_TRUNCATION:g} %): "
        f"{row['headline']} is {percent(found['score'])} % as it stands and {percent(found['finished'])} % among "
        f"finished answers (n {found['n_finished']:,}); a longer --max-new-tokens would tell"
    )


def _limited(row: Mapping[str, Any]) -> str:
    """Return the truncation rate: of responses that ended at a limit, and of those among them without an answer."""
    return (
        f"length limited {percent(row['rates']['length_limited'])} %, truncated {percent(row['rates']['truncated'])} %"
    )


def _costs(row: Mapping[str, Any]) -> list[str]:
    """Return the lines of a table's foot that say what the responses were and took, where that is known."""
    lines = []
    if warning := truncation_warning(row):
        lines.append(f"! {warning}")
    counts = row.get("tokens", {})
    names = {
        "prompt_per_item": "prompt per item",
        "completion_per_item": "completion per item",
        "completion_per_correct": "completion per correct answer",
    }
    known = [f"{label} {counts[name]:,.0f}" for name, label in names.items() if counts.get(name) is not None]
    if known:
        lines.append(f"tokens: {', '.join(known)}")
    sizes = row.get("image_sizes")
    if sizes is not None and sizes["n"]:
        shown = ", ".join(f"{name} {sizes[name][0]}x{sizes[name][1]}" for name in ("min", "median", "max"))
        unknown = f"; unknown for {sizes['unknown']:,} responses" if sizes["unknown"] else ""
        lines.append(f"images as the model saw them, in pixels: {shown}{unknown}")
    return lines


def _rates(row: Mapping[str, Any]) -> str:
    rates = ", ".join(f"{name.replace('_', ' ')} {percent(value)} %" for name, value in row["rates"].items())
    left_out = f"; left out: {', '.join(row['excluded'])}" if row["excluded"] else ""
    missing = f"; missing: {row['missing']}" if row["missing"] else ""
    return f"{row['n_items']:,} items x {row['n_samples']}; {rates}{left_out}{missing}"
