"""The command `aha`: how often a run's responses reflect, and what came of it."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ahabench.harness import report
from ahabench.harness.commands import AsJson, JudgeModel, open_judge
from ahabench.harness.errors import UsageError

if TYPE_CHECKING:
    from ahabench.harness.aha.summary import ReadResponse
    from ahabench.harness.aha.told import Compare, Told
    from ahabench.harness.judge import Judge
    from ahabench.harness.types import Item

    Items = dict[tuple[str, str], Item]


def aha(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Run directories of evaluation or training, or JSONL with response and perhaps question; "
            "with --report a file of labelled passages.",
            metavar="RUN...",
        ),
    ],
    as_json: AsJson = False,
    spans: Annotated[bool, typer.Option("--spans", help="With --json: every response's moments too.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a report with the responses' moments marked.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with the official files: copied questions are left out, and answers judged by gold."),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(help="URL of an OpenAI-compatible server that names behaviours, beside the lexicon's counts."),
    ] = None,
    judge_model: JudgeModel = None,
    judge_limit: Annotated[
        int | None, typer.Option(min=1, help="Responses per run that the judge reads, a seeded sample; default: all.")
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
    if judge_limit is not None and judge is None:
        raise UsageError("--judge-limit goes with --judge URL")
    with open_judge(judge, judge_model) as asked:
        for source in sources:
            responses = _read(source, data)
            summary = summarise(responses)
            if training := curve(responses):
                summary["training"] = training
            if asked is not None:
                summary["behaviours"] = _behaviours(asked, responses, judge_limit)
            runs.append((str(source), summary, responses))
    if html is not None:
        _write_page(html, runs)
    if as_json:
        _print_json(runs, spans=spans)
    else:
        from ahabench.harness.aha.table import print_run

        for name, summary, _ in runs:
            print_run(name, summary)


def _behaviours(judge: "Judge", responses: "list[ReadResponse]", limit: int | None) -> dict[str, Any]:
    from ahabench.harness.aha import behaviours

    found = behaviours.classify(judge, responses, limit=limit)
    if causes := [one.cause for one in found if one.cause]:
        report.note(f"the judge says nothing of {len(causes):,} responses; the first: {causes[0]}")
    return behaviours.summary(judge, found)


def _read(source: Path, data: Path | None) -> "list[ReadResponse]":
    from ahabench.harness.aha.summary import read_all
    from ahabench.harness.aha.told import read_told

    responses = read_told(source)
    items = _items(source, data)
    known = []
    for told in responses:
        item = items.get((told.task, told.item_id))
        known.append(replace(told, question=item.question, cluster=item.cluster) if item else told)
    if not any(told.question for told in known):
        report.note(f"{source}: the questions are not known, so wording copied from them counts; --data DIR tells them")
    return read_all(known, _comparing(items) if items else None)


def _items(source: Path, data: Path | None) -> "Items":
    """Return the items of a run by task and id: those in `data`, and without it those that are built in."""
    from ahabench.harness.errors import IncomparableRunsError
    from ahabench.harness.manifest import MANIFEST, read_manifest
    from ahabench.harness.rescore import items_of

    if data is not None and not source.is_dir():
        raise UsageError(f"--data goes with a run directory, whose manifest says what {source} does not")
    if data is None and not (source / MANIFEST).is_file():
        return {}
    items: Items = {}
    for name, record in read_manifest(source).tasks.items():
        if data is None and record.source != "built-in":
            continue
        try:
            items |= {(name, item.id): item for item in items_of(record, name, data, source).items}
        except IncomparableRunsError as error:
            if data is not None:
                raise
            # Built in since, or with another release: what was asked is then not known.
            report.note(f"{error}")
    return items


def _comparing(items: "Items") -> "Compare":
    from ahabench.harness import registry
    from ahabench.harness.types import Status

    def compare(told: "Told", candidate: str) -> bool | None:
        item = items.get((told.task, told.item_id))
        if item is None or item.gold is None:
            return None
        verdict = registry.find_scorer(registry.find_task(told.task), "robust").compare(item, candidate)
        return None if verdict.status is Status.TIMEOUT else verdict.correct

    return compare


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
