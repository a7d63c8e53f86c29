"""A comparison as text for a terminal of 80 columns, as Markdown, and as JUnit. Here fractions become points."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ahabench.harness.disk import replace_file
from ahabench.harness.gate.comparison import (
    Category,
    Comparison,
    Flip,
    MetricRow,
    Outcome,
    Said,
    Shift,
    TaskComparison,
)
from ahabench.harness.gate.flips import BROKEN, FIXED
from ahabench.harness.gate.guards import GUARDS, Guard
from ahabench.harness.gate.power import MOST
from ahabench.harness.identity import shown
from ahabench.harness.report import percent, printable

COLUMNS = 80
EXAMPLES = 5
"""Flips of each kind that a Markdown file shows, by benchmark."""
EXCERPT = 400
"""Characters of a response there: its end, where the answer is."""
CATEGORIES = 3

_STYLES = {Outcome.PASS: "green", Outcome.FAIL: "bold red", Outcome.INCONCLUSIVE: "yellow"}
_MEANS = {
    Outcome.PASS: "no drop beyond the margin",
    Outcome.FAIL: "B is worse than the margin allows",
    Outcome.INCONCLUSIVE: "the data do not decide",
    Outcome.NOT_COMPARABLE: "the runs differ in what changes scores",
    Outcome.INCOMPLETE: "responses are missing",
}
_COMPLETE = "Generate them with the same `ahabench eval` again, or compare what all runs answered with --allow-missing."


class Case(NamedTuple):
    """One test of a report: a guard, or a metric of a benchmark."""

    group: str
    name: str
    outcome: str
    """"passed", "failed" or "skipped"."""
    message: str


def cases(found: Comparison) -> list[Case]:
    """Return a test for each guard, and for each metric once the guards let it be compared."""
    tests = []
    for name in GUARDS:
        why = [str(guard) for guard in found.mismatches if guard.guard == name]
        if name == "complete":
            why = list(found.missing)
        tests.append(Case("guard", name, "failed" if why else "passed", "; ".join(why)))
    for row in found.rows:
        doubt = "failed" if found.policy.inconclusive == "fail" else "skipped"
        outcome = {Outcome.PASS: "passed", Outcome.INCONCLUSIVE: doubt}.get(row.verdict, "failed")
        tests.append(Case(row.task, row.metric, outcome, sentence(row)))
    return tests


def sentence(row: MetricRow) -> str:
    """Return a row in one line: its verdict, and what it rests on."""
    if row.found is None:
        return f"{row.verdict}: {row.task} {row.metric}: {'; '.join(row.notes)}"
    return (
        f"{row.verdict}: {row.task} {row.metric} {percent(row.found.a)} -> {percent(row.found.b)}, "
        f"{_points(row.found.value)} points {_interval(row.found.ci95)}, margin {100 * row.margin:g}; {basis(row)}"
    )


def basis(row: MetricRow) -> str:
    """Return what a row rests on: sizes, flips, p-value and what would decide."""
    inside = "" if row.clusters == row.n else f" in {row.clusters:,} clusters"
    parts = [f"n {row.n:,} {row.unit}{inside}", f"{row.fixed:,} items fixed, {row.broken:,} items broken"]
    if row.p is not None:
        parts.append(f"p {_p(row.p)} ({row.test})")
    if row.n_needed is not None:
        parts.append(f"needs {'over ' if row.n_needed >= MOST else ''}{row.n_needed:,} {row.unit}")
    return ", ".join(parts)


def print_comparison(found: Comparison, *, examples: int = 0) -> None:
    """Print a comparison in 80 columns.

    Args:
        found: what was found.
        examples: flips of each kind to print with both responses, by benchmark.
    """
    console = Console(width=COLUMNS, highlight=False)

    def say(text: str, indent: int = 0, style: str = "") -> None:
        # Wrapped here, so that what follows a line break is indented too.
        for number, line in enumerate(_wrapped(printable(text), COLUMNS - indent - 2)):
            console.print(Text(" " * (indent + 2 * (number > 0)) + line, style=style), soft_wrap=True)

    for label, runs in (("A", found.a), ("B", found.b)):
        say(f"{label}  {', '.join(runs)}")
    console.print()
    if found.mismatches:
        console.print(_guards_table(found.mismatches))
        console.print()
        say(f"To compare them all the same: {_allowing(found.mismatches)}")
    for phrase in found.missing:
        say(f"! {phrase}")
    if found.missing:
        say(_COMPLETE)
    if found.rows:
        console.print(_rows_table(found.rows))
        for task in found.tasks:
            _print_task(task, say, examples)
    for note in found.notes:
        say(f"- {note}")
    if len(found.rows) > 1:
        worse = ", ".join(f"{row.task} {row.metric}" for row in found.worse)
        say(f"- got worse at all (Holm, one-sided {found.policy.alpha:g}): {worse or 'nothing shown'}")
    console.print()
    say(f"{found.outcome}: {_meaning(found)} (exit code {found.exit_code})", style=_STYLES.get(found.outcome, ""))


def _meaning(found: Comparison) -> str:
    """Return what the outcome means, and which rows it is about where there are others."""
    rows = [f"{row.task} {row.metric}" for row in found.rows if row.verdict is found.outcome]
    if found.outcome is Outcome.INCONCLUSIVE and any(row.n_needed is not None for row in found.rows):
        return f"the data do not decide {len(rows)} of {len(found.rows)}; see how many items each needs"
    about = f" on {', '.join(rows)}" if 0 < len(rows) < len(found.rows) else ""
    if found.outcome is Outcome.FAIL and any(row.dropped for row in found.rows):
        return f"B is worse{about}, by more than the margin or significantly"
    return _MEANS[found.outcome] + about


def write_markdown(found: Comparison, path: Path) -> None:
    """Write a comparison for a pull request or a job's summary. The tool itself posts nothing.

    Raises:
        UsageError: the disk refuses.
    """
    replace_file(path, [("\n".join(_markdown(found)) + "\n").encode("utf-8", "replace")])


def write_junit(found: Comparison, path: Path) -> None:
    """Write the guards and rows as a JUnit file; an inconclusive row is skipped, or fails where the policy says so.

    Raises:
        UsageError: the disk refuses.
    """
    tests = cases(found)
    count = {outcome: sum(test.outcome == outcome for test in tests) for outcome in ("failed", "skipped")}
    numbers = {"tests": str(len(tests)), "failures": str(count["failed"]), "errors": "0"}
    # Jenkins' schema knows no "skipped" of the whole.
    root = ElementTree.Element("testsuites", {"name": "ahabench compare", **numbers})
    suite = ElementTree.SubElement(root, "testsuite", {"name": "ahabench", **numbers, "skipped": str(count["skipped"])})
    for test in tests:
        place = {"classname": f"ahabench.{test.group}", "name": test.name, "time": "0"}
        element = ElementTree.SubElement(suite, "testcase", {name: _xml(value) for name, value in place.items()})
        message = _xml(test.message)
        if test.outcome == "failed":
            ElementTree.SubElement(element, "failure", {"message": message, "type": "regression"}).text = message
        elif test.outcome == "skipped":
            ElementTree.SubElement(element, "skipped", {"message": message})
        elif message:
            ElementTree.SubElement(element, "system-out").text = message
    ElementTree.indent(root)
    replace_file(path, [ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"])


def _rows_table(rows: Sequence[MetricRow]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("benchmark", overflow="fold")
    for name in ("A %", "B %", "B - A", "95 % interval", "margin"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in rows:
        cells = Text(printable(f"{row.task} {row.metric}")), Text(row.verdict, style=_STYLES.get(row.verdict, ""))
        values = ["-", "-", "-", ""]
        if row.found is not None:
            found = row.found
            values = [percent(found.a), percent(found.b), _points(found.value), _interval(found.ci95)]
        table.add_row(cells[0], *values, f"{100 * row.margin:g}", cells[1])
    return table


def _guards_table(guards: Sequence[Guard]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("differs", overflow="fold", min_width=20)
    for name in ("in A", "in B"):
        table.add_column(name, overflow="fold")
    for guard in guards:
        where = f"{guard.task} " if guard.task else ""
        cells = (where + guard.field, shown(guard.a), shown(guard.b))
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


def _allowing(guards: Sequence[Guard]) -> str:
    """Return the flags that accept these differences."""
    return " ".join(f"--allow {field}" for field in dict.fromkeys(guard.field for guard in guards))


def _print_task(task: TaskComparison, say: Callable[..., None], examples: int) -> None:
    for row in task.rows:
        say("")
        say(f"{row.task} {row.split} · {row.metric} · {row.prompt} · {row.scorer}", style="bold")
        say(f"{basis(row)}; interval by {row.interval}", indent=2)
        for note in row.notes:
            say(f"! {note}", indent=2)
    if moved := [_shift(shift) for shift in task.shifts if shift.a or shift.b]:
        say(f"beside the score: {'; '.join(moved)}", indent=2)
    if task.categories:
        say(f"most changed: {'; '.join(map(_category, task.categories[:CATEGORIES]))}", indent=2)
    for kind in (BROKEN, FIXED):
        for flip in [flip for flip in task.flips if flip.kind == kind][:examples]:
            say(f"{kind}: item {flip.item_id}, gold {flip.gold}", indent=2)
            for label, said in (("A", flip.a), ("B", flip.b)):
                text = " ".join((said.text or "").split())[-EXCERPT:]
                say(f"{label} {_read(said)}{': ' if said.text else ''}{text}", indent=4)


def _markdown(found: Comparison) -> Iterator[str]:
    yield f"### ahabench: {found.outcome}"
    yield ""
    meaning = _meaning(found)
    yield f"{_plain(meaning[0].upper() + meaning[1:])}. A: {_names(found.a)} · B: {_names(found.b)}"
    yield ""
    if found.mismatches:
        yield "| differs | A | B |"
        yield "|---|---|---|"
        for guard in found.mismatches:
            where = f"{guard.task} " if guard.task else ""
            yield f"| {_plain(where + guard.field)} | {_plain(shown(guard.a))} | {_plain(shown(guard.b))} |"
        yield ""
        yield f"- To compare them all the same: {_plain(_allowing(found.mismatches))}"
    yield from (f"- {_plain(phrase)}" for phrase in found.missing)
    if found.missing:
        yield f"- {_plain(_COMPLETE)}"
    if found.rows:
        yield (
            "| benchmark | A % | B % | B − A | 95 % interval | margin | verdict | n | n needed "
            "| items fixed | items broken |"
        )
        yield "|---|--:|--:|--:|--:|--:|---|--:|--:|--:|--:|"
        yield from map(_markdown_row, found.rows)
        yield ""
    for task in found.tasks:
        yield from _markdown_task(task)
    yield from (f"- {_plain(text)}" for text in found.notes)
    if len(found.rows) > 1:
        worse = ", ".join(f"{row.task} {row.metric}" for row in found.worse) or "nothing shown"
        yield f"- Got worse at all (Holm, one-sided {found.policy.alpha:g}): {_plain(worse)}"


def _markdown_row(row: MetricRow) -> str:
    found = row.found
    values = ["-", "-", "-", "-"]
    if found is not None:
        values = [percent(found.a), percent(found.b), _points(found.value), _interval(found.ci95)]
    needed = "" if row.n_needed is None else f"{row.n_needed:,}"
    counts = [f"{row.n:,} {row.unit}", needed, f"{row.fixed:,}", f"{row.broken:,}"]
    cells = [_plain(f"{row.task} {row.metric}"), *values, f"{100 * row.margin:g}", f"**{row.verdict}**", *counts]
    return f"| {' | '.join(cells)} |"


def _markdown_task(task: TaskComparison) -> Iterator[str]:
    notes = [text for row in task.rows for text in row.notes]
    moved = [_shift(shift) for shift in task.shifts if shift.a or shift.b]
    yield f"<details><summary>{_plain(task.task)}: what changed</summary>"
    yield ""
    row = task.rows[0]
    yield f"{_plain(f'{row.task} {row.split} · {row.prompt} · {row.scorer} · {basis(row)}; {row.interval}')}"
    yield ""
    yield from (f"- {_plain(text)}" for text in notes)
    if moved:
        yield f"- Beside the score: {_plain('; '.join(moved))}"
    yield ""
    if task.categories:
        yield "| category | items | fixed | broken |"
        yield "|---|--:|--:|--:|"
        for one in task.categories[:20]:
            yield f"| {_plain(f'{one.tag}: {one.value}')} | {one.n:,} | {one.fixed:,} | {one.broken:,} |"
        yield ""
    for kind in (BROKEN, FIXED):
        for flip in [flip for flip in task.flips if flip.kind == kind][:EXAMPLES]:
            yield from _markdown_flip(flip)
    yield "</details>"
    yield ""


def _markdown_flip(flip: Flip) -> Iterator[str]:
    yield f"**{flip.kind}**: item {_plain(flip.item_id)}, gold {_plain(str(flip.gold))}"
    yield ""
    for label, said in (("A", flip.a), ("B", flip.b)):
        yield f"{label}: {_plain(_read(said))}"
        text = said.text
        if text is None:
            yield ""
            continue
        cut = "…" + text[-EXCERPT:] if len(text) > EXCERPT else text
        longest = max((len(run) for run in "".join(c if c == "`" else " " for c in cut).split()), default=0)
        fence = "`" * max(3, longest + 1)
        yield ""
        yield f"{fence}text"
        yield from ("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in x) for x in cut.splitlines())
        yield fence
        yield ""


def _read(said: Said) -> str:
    """Return what became of a response, and what was read out of it where the run has that."""
    return said.status if said.text is None else f"{said.status}, read {said.extracted}"


def _wrapped(text: str, width: int) -> list[str]:
    from textwrap import wrap

    return wrap(text, width, break_on_hyphens=False) or [""]


def _shift(shift: Shift) -> str:
    p = "" if shift.p is None else f" (p {_p(shift.p)})"
    if shift.name == "tokens":
        return f"tokens {shift.a:,.0f} -> {shift.b:,.0f}{p}"
    return f"{shift.name.replace('_', ' ')} {percent(shift.a)} -> {percent(shift.b)} %{p}"


def _category(one: Category) -> str:
    return f"{one.tag} {one.value} +{one.fixed} -{one.broken} of {one.n:,}"


def _points(value: float) -> str:
    text = f"{100 * value:+.1f}"
    return "0.0" if text in {"+0.0", "-0.0"} else text


def _interval(ci95: tuple[float, float]) -> str:
    return f"[{_points(ci95[0])}, {_points(ci95[1])}]"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def _names(runs: Sequence[str]) -> str:
    return ", ".join(map(_plain, runs))


def _plain(text: str) -> str:
    """Return a text that Markdown shows as it stands, whatever a model or a data set put into it."""
    return "".join(char if char.isalnum() or char in " ,;:/%" else f"&#{ord(char)};" for char in printable(text))


def _xml(text: str) -> str:
    """Return a text without what XML cannot hold."""
    return "".join(char if char.isprintable() and char < "\ufffe" else " " for char in text)
