"""The command `aha`: how often a run's responses reflect, and what came of it."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ahabench.harness import report
from ahabench.harness.errors import UsageError

if TYPE_CHECKING:
    from ahabench.harness.aha.summary import ReadResponse
    from ahabench.harness.aha.told import Compare, Told
    from ahabench.harness.types import Item


def aha(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Run directories of evaluation or training, or JSONL with response and perhaps question; "
            "with --report a file of labelled passages.",
            metavar="RUN...",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout instead of tables.")] = False,
    spans: Annotated[bool, typer.Option("--spans", help="With --json: every response's moments too.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a report with the responses' moments marked.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with the official files: copied questions are left out, and answers judged by gold."),
    ] = None,
    write_card: Annotated[
        bool, typer.Option("--report", help="Write the card: how well moments are found in labelled passages.")
    ] = False,
    labels: Annotated[Path | None, typer.Option(help="With --report: labels of published outputs.")] = None,
    outputs: Annotated[Path | None, typer.Option(help="With --report: the folder of those outputs.")] = None,
    out: Annotated[Path | None, typer.Option(help="The card's file; default: leaderboards/published/aha.md.")] = None,
) -> None:
    """Report aha moments: how many, of what class, and whether answers got better after them."""
    if write_card:
        _write_card(sources, labels, outputs, out)
        return
    if spans and not as_json:
        raise UsageError("--spans goes with --json")
    from ahabench.harness.aha.curve import curve
    from ahabench.harness.aha.summary import summarise

    runs = []
    for source in sources:
        responses = _read(source, data)
        summary = summarise(responses)
        training = curve(responses)
        runs.append((str(source), {**summary, "training": training} if training else summary, responses))
    if html is not None:
        _write_page(html, runs)
    if as_json:
        _print_json(runs, spans=spans)
    else:
        for name, summary, _ in runs:
            _print_table(name, summary)


def _read(source: Path, data: Path | None) -> "list[ReadResponse]":
    from ahabench.harness.aha.summary import read_all
    from ahabench.harness.aha.told import read_told

    responses = read_told(source)
    compare = None
    if data is not None:
        responses, compare = _with_items(source, responses, data)
    if not any(told.question for told in responses):
        report.note(f"{source}: the questions are not known, so wording copied from them counts; --data DIR tells them")
    return read_all(responses, compare)


def _with_items(source: Path, responses: "list[Told]", data: Path) -> "tuple[list[Told], Compare]":
    """Return the responses of a run with their items' questions and clusters, and what judges a candidate answer."""
    from ahabench.harness import registry
    from ahabench.harness.dataset import load
    from ahabench.harness.runlog import read_manifest
    from ahabench.harness.types import Status

    if not source.is_dir():
        raise UsageError(f"--data goes with a run directory, whose manifest says what {source} does not")
    items: dict[tuple[str, str], Item] = {}
    for name, record in read_manifest(source).tasks.items():
        dataset = load(registry.find_task(name), record.split, data=data, revision=record.revision)
        items |= {(name, item.id): item for item in dataset.items}

    def compare(told: "Told", candidate: str) -> bool | None:
        item = items.get((told.task, told.item_id))
        if item is None or item.gold is None:
            return None
        verdict = registry.find_scorer(registry.find_task(told.task), "robust").compare(item, candidate)
        return None if verdict.status is Status.TIMEOUT else verdict.correct

    known = []
    for told in responses:
        item = items.get((told.task, told.item_id))
        known.append(replace(told, question=item.question, cluster=item.cluster) if item else told)
    return known, compare


def _write_card(sources: list[Path], labels: Path | None, outputs: Path | None, out: Path | None) -> None:
    from ahabench.harness.aha.card import CARD, card
    from ahabench.harness.disk import replace_file

    if len(sources) != 1:
        raise UsageError(f"--report takes one file of labelled passages, found {len(sources)}")
    if (labels is None) != (outputs is None):
        raise UsageError("--labels and --outputs go together: the labels hold keys, the outputs the texts")
    target = out or CARD
    replace_file(target, [card(sources[0], labels, outputs).encode()])
    print(target)


def _write_page(path: Path, runs: "list[tuple[str, dict[str, Any], list[ReadResponse]]]") -> None:
    from ahabench.harness.aha.page import page
    from ahabench.harness.disk import replace_file

    # A lone surrogate in a model's text must not cost the report.
    replace_file(path, [page(runs).encode("utf-8", "backslashreplace")])
    report.note(f"wrote {path}")


def _print_json(runs: "list[tuple[str, dict[str, Any], list[ReadResponse]]]", *, spans: bool) -> None:
    """Print one run's summary as it is, those of several under their names."""
    single = len(runs) == 1
    value: dict[str, Any] = {
        "summary": runs[0][1] if single else {"runs": {name: summary for name, summary, _ in runs}}
    }
    if spans:
        value["responses"] = [
            ({} if single else {"run": name})
            | {
                "item_id": one.told.item_id,
                "sample_index": one.told.sample_index,
                "moments": [moment.as_row() for moment in one.reading.moments],
            }
            for name, _, responses in runs
            for one in responses
        ]
    report.print_json(value)


def _print_table(name: str, summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ahabench.harness.aha.page import facts

    def cell(text: str, style: str = "") -> Text:
        return Text(report.printable(text), style=style)

    table = Table(box=None, show_header=False)
    for left, right in facts(summary):
        table.add_row(cell(left), cell(right))
    classes = Table(box=None)
    for column in ("class", "moments", "responses %"):
        classes.add_column(column, justify="left" if column == "class" else "right")
    for kind, row in summary["by_class"].items():
        share = f"{report.percent(row['with_moment']['value'])} {report.interval(row['with_moment']['ci95'])}"
        classes.add_row(cell(kind), f"{row['moments']:,}", cell(share))
    console = Console(width=None if _is_terminal() else 120)
    console.print(cell(f"{name} · lexicon {summary['lexicon']}", "bold"))
    console.print(table)
    console.print(classes)
    if "training" in summary:
        _print_training(console, summary["training"])


def _print_training(console: Any, training: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None)
    for column in ("step", "n", "reward", "with a moment %", "per 1,000 tokens", "loops %", "cut off %"):
        table.add_column(column, justify="right")
    for row in training["steps"]:
        numbers = ["-" if row[key] is None else f"{row[key]:.3f}" for key in ("reward",)]
        rate = "-" if row["per_1000_tokens"] is None else f"{row['per_1000_tokens']:.2f}"
        shares = [report.percent(row[key]) for key in ("with_loop", "truncated")]
        table.add_row(str(row["step"]), f"{row['n']:,}", *numbers, report.percent(row["with_moment"]), rate, *shares)
    console.print(table)
    for name, found in training["correlation"].items():
        if found["pearson"] is not None:
            console.print(
                f"  reward and {name.replace('_', ' ')}: Pearson {found['pearson']:+.2f}, "
                f"Spearman {found['spearman']:+.2f} over {found['n']} steps"
            )
    if training["note"]:
        console.print(f"  {training['note']}")


def _is_terminal() -> bool:
    import sys

    return sys.stdout.isatty()
