"""The commands about benchmarks, and the options that commands share. The work is done by the modules they name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ahabench.harness import registry, report
from ahabench.harness.errors import UsageError

if TYPE_CHECKING:
    from ahabench.harness.judge import Judge

Data = Annotated[
    Path | None,
    typer.Option(
        help="Folder with the official files, a copy of the hub's parquet files, or an export; default: the hub."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout instead of tables.")]
TaskName = Annotated[str | None, typer.Option("--task", help="NAME or NAME:SPLIT.")]
ScorerName = Annotated[str, typer.Option("--scorer", help="robust, official or vlmevalkit.")]
JudgeUrl = Annotated[
    str | None,
    typer.Option("--judge", help="URL of an OpenAI-compatible server that reads answers which the rules could not."),
]
JudgeModel = Annotated[str | None, typer.Option(help="The judge's model id, as its server names it.")]
AllowMixed = Annotated[
    bool,
    typer.Option("--allow-mixed", help="Take responses of different versions or dtypes of the engine into one run."),
]
Suite = Annotated[
    str, typer.Option(help="full, or mini: the small benchmarks that are drawn on this machine, no --data, no hub.")
]
Breakdown = Annotated[bool, typer.Option("--breakdown", help="Print every breakdown too.")]
AllowMissing = Annotated[bool, typer.Option("--allow-missing", help="Aggregate although responses are missing.")]


def tasks(
    name: Annotated[str | None, typer.Argument(help="One task, in full.")] = None, as_json: AsJson = False
) -> None:
    """List the benchmarks; with NAME: its splits, prompts, scorers, metrics and known bad items."""
    chosen = [registry.find_task(name)] if name else list(registry.tasks().values())
    if as_json:
        report.print_json([report.task_row(task) for task in chosen])
    elif name:
        report.print_task(chosen[0])
    else:
        report.print_tasks(chosen)


def export(
    kind: Annotated[
        str,
        typer.Argument(
            help="jsonl: the items and their images, for --data; lmms-eval: tasks for its --include_path. "
            "Of a run: parquet; inspect: its logs; lmms-eval-log: sample logs.",
            metavar="jsonl|lmms-eval|parquet|inspect|lmms-eval-log",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    run: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="The run that is to be exported.")] = None,
    task: TaskName = None,
    tasks: Annotated[
        str | None, typer.Option(help="lmms-eval only: all, or names such as mathvista,mathvision:testmini.")
    ] = None,
    suite: Suite = "full",
    prompt: Annotated[
        str | None, typer.Option(help="lmms-eval only: official (the default), vlmevalkit or think.")
    ] = None,
    scorer: Annotated[
        str | None, typer.Option(help="lmms-eval only: robust (the default), official or vlmevalkit.")
    ] = None,
    data: Data = None,
) -> None:
    """Write benchmarks, or a run's responses, into another format."""
    from ahabench.harness import extensions
    from ahabench.harness.dataset import load, write_export
    from ahabench.harness.errors import unknown_name

    of_runs = extensions.names("ahabench.exports")
    if kind in of_runs:
        if run is None or task or tasks or prompt or scorer or suite != "full":
            raise UsageError(f"`export {kind}` takes a run: ahabench export {kind} RUN --out DIR, and perhaps --data")
        for path in extensions.load("ahabench.exports", kind)(run, out, data=data):
            print(path)
        return
    if run is not None and kind in {"jsonl", "lmms-eval"}:
        raise UsageError(f"`export {kind}` is of benchmarks, found the run {run}; leave it out")
    if kind == "lmms-eval":
        from ahabench.harness.lmms_export import export_tasks

        if task is not None and (tasks is not None or suite != "full"):
            raise UsageError("give either --task NAME[:SPLIT], or --tasks all, or --suite mini")
        pairs = [registry.parse_task(task)] if task else registry.parse_tasks(tasks, suite=suite)
        names = export_tasks(pairs, out, prompt=prompt or "official", scorer=scorer or "robust", data=data)
        print("\n".join(names))
        report.note(f"written to {out}; run: python -m lmms_eval --include_path {out} --tasks {','.join(names)} ...")
        return
    if kind != "jsonl":
        raise unknown_name("export", kind, ["jsonl", "lmms-eval", *of_runs])
    if task is None or tasks or prompt or scorer or suite != "full":
        raise UsageError("`export jsonl` takes --task NAME[:SPLIT]; the other options go with lmms-eval")
    found, split = registry.parse_task(task)
    print(write_export(load(found, split, data=data), out))


@contextmanager
def open_judge(url: str | None, model: str | None) -> "Iterator[Judge | None]":
    """Give a judge that has answered a probe, or `None` where none is asked for.

    Raises:
        UsageError: only one of URL and model is given.
        JudgeError: the server does not answer, or not as a judge.
    """
    if url is None:
        if model is not None:
            raise UsageError("--judge-model goes with --judge URL")
        yield None
        return
    if model is None:
        raise UsageError("--judge URL goes with --judge-model NAME")
    from ahabench.harness.judge import Judge

    with Judge(url, model, cache=Path.home() / ".cache" / "ahabench" / "judge.sqlite") as judge:
        judge.probe()
        yield judge
