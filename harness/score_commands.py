"""The commands that score, and those that say how far a scorer or an engine agrees with another."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import typer

from ahabench.harness import registry, report
from ahabench.harness.commands import (
    AllowMissing,
    AsJson,
    Breakdown,
    Data,
    JudgeModel,
    JudgeUrl,
    ScorerName,
    TaskName,
    open_judge,
)
from ahabench.harness.errors import UsageError

if TYPE_CHECKING:
    from ahabench.harness.judge import Judge


def score(
    source: Annotated[
        Path,
        typer.Argument(
            help="A run directory, JSONL with item_id and response, or, with --from, another tool's log or folder.",
            metavar="RUN|FILE",
        ),
    ],
    task: Annotated[str | None, typer.Option("--task", help="NAME or NAME:SPLIT; a run knows its own.")] = None,
    log_of: Annotated[
        str | None,
        typer.Option("--from", help="FILE is a log of this tool: lmms-eval or vlmevalkit.", metavar="TOOL"),
    ] = None,
    scorer: Annotated[
        str | None, typer.Option("--scorer", help="robust (the default), official or vlmevalkit.")
    ] = None,
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(help="Run directory to write for a FILE; default: FILE without its suffix.")
    ] = None,
    verdicts: Annotated[
        str | None, typer.Option(help="Aggregate the verdicts under this key of FILE instead of scoring.")
    ] = None,
    judge: JudgeUrl = None,
    judge_model: JudgeModel = None,
    allow_missing: AllowMissing = False,
    explain: Annotated[
        str | None, typer.Option(help="Print how this item's response is read and compared, and write nothing.")
    ] = None,
    breakdown: Breakdown = False,
    as_json: AsJson = False,
) -> None:
    """Score a run again, or score anybody's responses."""
    if log_of is not None and (explain or verdicts):
        raise UsageError("--from writes a run; leave --explain and --verdicts out, and give the run to --explain later")
    if explain is not None:
        from ahabench.harness.rescore import explain_item

        pair = registry.parse_task(task) if task else None
        rows = explain_item(source, explain, task=pair, scorer=scorer or "robust", data=data)
        report.answer(rows, report.print_explanations, as_json=as_json)
        return
    if verdicts is not None and (scorer is not None or judge is not None):
        raise UsageError("--verdicts takes the verdicts that FILE carries; leave --scorer and --judge out")
    with open_judge(judge, judge_model) as asked:
        how = _How(scorer=scorer or "robust", data=data, judge=asked, allow_missing=allow_missing)
        if log_of is not None:
            rows = _score_logs(source, log_of, task, out, how)
        elif source.is_dir():
            if verdicts or out:
                raise UsageError("--verdicts and --out go with a FILE; a run is scored where it stands")
            rows = _score_run(source, task, how)
        else:
            rows = [_score_file(source, task, out, verdicts, how)]
    report.print_scores(rows, breakdown=breakdown, as_json=as_json)


class _How(TypedDict):
    """What every way of scoring is told."""

    scorer: str
    data: Path | None
    judge: "Judge | None"
    allow_missing: bool


def _score_logs(source: Path, tool: str, task: str | None, out: Path | None, how: _How) -> list[dict[str, Any]]:
    from ahabench.harness.imports.run import score_logs

    if out is None and source.is_dir():
        raise UsageError(f"{source} is a folder of logs; give --out RUN to write the run to")
    pair = registry.parse_task(task) if task else None
    return score_logs(tool, source, task=pair, out=out or source.with_suffix(""), **how)


def _score_run(run: Path, task: str | None, how: _How) -> list[dict[str, Any]]:
    from ahabench.harness.rescore import score_run

    return score_run(run, only=[registry.parse_task(task)[0].name] if task else None, **how)


def _score_file(file: Path, task: str | None, out: Path | None, verdicts: str | None, how: _How) -> dict[str, Any]:
    from ahabench.harness.rescore import score_file

    if task is None:
        raise UsageError(f"{file} does not say which benchmark it answers; give --task NAME")
    found, split = registry.parse_task(task)
    return score_file(file, found, split, out=out or file.with_suffix(""), field=verdicts, **how)


def agreement(
    files: Annotated[
        list[Path],
        typer.Argument(help="JSONL with item_id, response and official_correct; with --report their folder."),
    ],
    task: TaskName = None,
    scorer: ScorerName = "robust",
    data: Data = None,
    write_card: Annotated[
        bool, typer.Option("--report", help="Write the card of every task and scorer for a folder of <task>/*.jsonl.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="The card's file; default: leaderboards/published/agreement.md.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare a scorer with the verdicts that files of responses carry (official_correct)."""
    if write_card:
        from ahabench.harness.agreement_card import CARD, card
        from ahabench.harness.disk import replace_file

        target = out or CARD
        replace_file(target, ["\n".join(card(folder, data) for folder in files).encode()])
        print(target)
        return
    from ahabench.harness.agreement import agreements
    from ahabench.harness.dataset import load

    if task is None:
        raise UsageError("give --task NAME, or --report for every task of a folder")
    for folder in filter(Path.is_dir, files):
        raise UsageError(f"{folder} is a folder; give its files, or --report for every task of a folder")
    found, split = registry.parse_task(task)
    dataset = load(found, split, data=data)
    rows = [row.as_row() for row in agreements(dataset, scorer, files)]
    for row in rows:
        if not row["n"]:
            report.note(f"{row['file']} has no response with a verdict: there is nothing to compare")
    rules = registry.find_scorer(found, scorer)
    left_out = rules.excluded & {item.id for item in dataset.items}
    report.note_excluded(dataset.protocol, f"{scorer}@{rules.version}", left_out)
    report.answer(rows, report.print_agreement, as_json=as_json)


def agreement_engines(
    first: Annotated[Path, typer.Argument(metavar="RUN_A", help="A greedy run of a checkpoint by one engine.")],
    second: Annotated[Path, typer.Argument(metavar="RUN_B", help="One of the same checkpoint by another.")],
    as_json: AsJson = False,
) -> None:
    """Count the responses and verdicts in which two engines differ on one checkpoint."""
    from ahabench.harness.parity import parity

    rows = [found.as_row() for found in parity(first, second)]
    report.answer(rows, report.print_parity, as_json=as_json)
