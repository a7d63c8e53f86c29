"""The commands of this folder. Options are read here; the work is done by the modules they name."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ahabench.harness import registry, report
from ahabench.harness.errors import UsageError
from ahabench.harness.types import Task

if TYPE_CHECKING:
    from ahabench.harness.prompts import Preset
    from ahabench.harness.runner import TaskPlan
    from ahabench.harness.sampling import Sampling

Data = Annotated[
    Path | None,
    typer.Option(
        help="Folder with the official files, a copy of the hub's parquet files, or an export; default: the hub."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout instead of tables.")]
TaskName = Annotated[str, typer.Option("--task", help="NAME or NAME:SPLIT.")]
ScorerName = Annotated[str, typer.Option("--scorer", help="robust, official or vlmevalkit.")]
JudgeUrl = Annotated[
    str | None,
    typer.Option("--judge", help="URL of an OpenAI-compatible server that reads answers which the rules could not."),
]
JudgeModel = Annotated[str | None, typer.Option(help="The judge's model id, as its server names it.")]
AllowMissing = Annotated[bool, typer.Option(help="Aggregate although responses are missing.")]


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


def evaluate(
    model: Annotated[
        str, typer.Argument(help="A checkpoint folder, a .gguf file, a PEFT adapter folder or a hub name.")
    ],
    tasks: Annotated[str, typer.Option(help="all, or names such as mathvista,mathvision:testmini.")],
    out: Annotated[Path, typer.Option(help="Run directory; the same command goes on in it after an interruption.")],
    data: Data = None,
    engine: Annotated[str, typer.Option(help="auto, transformers or replay:RUN.")] = "auto",
    prompt: Annotated[
        str | None, typer.Option(help="official, vlmevalkit or think; official unless a preset says.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="vlaa: the protocol of VLAA-Thinking in one name.")] = None,
    scorer: ScorerName = "robust",
    limit: Annotated[
        int | None, typer.Option(min=1, help="About this many items of each task: a seeded, spread sample.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Responses per item.")] = 1,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest response; 2048 unless a preset says.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, help="0 is greedy, the default.")] = None,
    top_p: Annotated[float | None, typer.Option(min=0.0, max=1.0)] = None,
    top_k: Annotated[int | None, typer.Option(min=0)] = None,
    repetition_penalty: Annotated[float | None, typer.Option(min=0.0)] = None,
    seed: int = 0,
    system_prompt: Annotated[str | None, typer.Option(help="Takes the place of the prompt style's own.")] = None,
    min_pixels: Annotated[
        int | None, typer.Option(min=0, help="Smallest image after the model's resizing; 0: no limit but the model's.")
    ] = None,
    max_pixels: Annotated[
        int | None, typer.Option(min=0, help="Largest image after the model's resizing; 0: no limit but the model's.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    dtype: str = "auto",
    device: str = "auto",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the hub.")] = None,
    text_only: Annotated[bool, typer.Option(help="Leave the images out, whatever the model is.")] = False,
    trust_remote_code: Annotated[bool, typer.Option(help="Run the checkpoint's own Python code.")] = False,
    judge: JudgeUrl = None,
    judge_model: JudgeModel = None,
    allow_missing: AllowMissing = False,
    breakdown: Annotated[bool, typer.Option(help="Print every breakdown too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Generate responses with a checkpoint and score them."""
    from ahabench.harness import rescore
    from ahabench.harness.engines import open_engine
    from ahabench.harness.runner import Plan, run

    given = _preset(preset, prompt)
    style = given.prompt if given else prompt or "official"
    pairs = registry.parse_tasks(tasks)
    scored = [task for task, split in pairs if task.splits[split].answers_public]
    for task, _ in pairs:
        registry.find_prompt(task, style)
        registry.find_scorer(task, scorer)
    for task in scored:
        registry.check_scorer(task, scorer, has_judge=judge is not None)
    asked = _judge(judge, judge_model)
    plans = tuple(_task_plan(task, split, style=style, data=data, limit=limit) for task, split in pairs)
    drawn = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "repetition_penalty": repetition_penalty,
    }
    opened = open_engine(
        engine,
        model,
        sampling=_sampling(given, drawn, samples=samples, seed=seed),
        min_pixels=_pixels(min_pixels, given.min_pixels if given else None),
        max_pixels=_pixels(max_pixels, given.max_pixels if given else None),
        batch_size=batch_size,
        dtype=dtype,
        device=device,
        revision=revision,
        trust_remote_code=trust_remote_code,
        text_only=True if text_only else None,
    )
    system = system_prompt if system_prompt is not None else given.system if given else None
    run(Plan(tasks=plans, samples=samples, system_prompt=system), opened, out)
    for task, split in pairs:
        if task not in scored:
            report.note(
                f"{task.name} {split}: its answers are not public; responses written to {out / task.name}; "
                "send them to the authors"
            )
    rows = []
    if scored:
        names = [task.name for task in scored]
        rows = rescore.score_run(out, scorer=scorer, data=data, judge=asked, allow_missing=allow_missing, only=names)
    _print(rows, breakdown=breakdown, as_json=as_json)


def agreement(
    files: Annotated[
        list[Path],
        typer.Argument(help="JSONL with item_id, response and official_correct; with --report their folder."),
    ],
    task: Annotated[str | None, typer.Option("--task", help="NAME or NAME:SPLIT.")] = None,
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
    found, split = _one_task(task)
    dataset = load(found, split, data=data)
    rows = [row.as_row() for row in agreements(dataset, scorer, files)]
    rules = registry.find_scorer(found, scorer)
    left_out = rules.excluded & {item.id for item in dataset.items}
    report.note_excluded(dataset.protocol, f"{scorer}@{rules.version}", left_out)
    if as_json:
        report.print_json(rows)
    else:
        report.print_agreement(rows)


def score(
    source: Annotated[
        Path, typer.Argument(help="A run directory, or JSONL with item_id and response.", metavar="RUN|FILE")
    ],
    task: Annotated[str | None, typer.Option("--task", help="NAME or NAME:SPLIT; a run knows its own.")] = None,
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
    breakdown: Annotated[bool, typer.Option(help="Print every breakdown too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Score a run again, or score anybody's responses."""
    from ahabench.harness import rescore

    rules = scorer or "robust"
    if explain is not None:
        rows = rescore.explain_item(source, explain, task=_one_task(task) if task else None, scorer=rules, data=data)
        if as_json:
            report.print_json(rows)
        else:
            report.print_explanations(rows)
        return
    if verdicts is not None and (scorer is not None or judge is not None):
        raise UsageError("--verdicts takes the verdicts that FILE carries; leave --scorer and --judge out")
    asked = _judge(judge, judge_model)
    if source.is_dir():
        if verdicts or out:
            raise UsageError("--verdicts and --out go with a FILE; a run is scored where it stands")
        rows = rescore.score_run(
            source,
            scorer=rules,
            data=data,
            judge=asked,
            allow_missing=allow_missing,
            only=[_one_task(task)[0].name] if task else None,
        )
    else:
        if task is None:
            raise UsageError(f"{source} does not say which benchmark it answers; give --task NAME")
        found, split = _one_task(task)
        rows = [
            rescore.score_file(
                source,
                found,
                split,
                scorer=rules,
                data=data,
                out=out or source.with_suffix(""),
                judge=asked,
                allow_missing=allow_missing,
                field=verdicts,
            )
        ]
    _print(rows, breakdown=breakdown, as_json=as_json)


def export(
    kind: Annotated[str, typer.Argument(help="jsonl: the items and their images, for --data.")],
    task: TaskName,
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    data: Data = None,
) -> None:
    """Write a benchmark's items into another format."""
    from ahabench.harness.dataset import load, write_export
    from ahabench.harness.errors import unknown_name

    if kind != "jsonl":
        raise unknown_name("export", kind, ["jsonl"])
    found, split = _one_task(task)
    print(write_export(load(found, split, data=data), out))


def _preset(name: str | None, prompt: str | None) -> "Preset | None":
    from ahabench.harness.errors import unknown_name
    from ahabench.harness.prompts import PRESETS

    if name is None:
        return None
    if name not in PRESETS:
        raise unknown_name("preset", name, list(PRESETS))
    if prompt is not None:
        raise UsageError(f"--preset {name} asks with the prompt style {PRESETS[name].prompt!r}; leave --prompt out")
    return PRESETS[name]


def _task_plan(task: Task, split: str, *, style: str, data: Path | None, limit: int | None) -> "TaskPlan":
    from ahabench.harness.dataset import load, subset
    from ahabench.harness.runner import TaskPlan

    dataset = load(task, split, data=data)
    if limit is not None:
        dataset = replace(dataset, items=subset(dataset.items, limit))
        report.note(f"{dataset.protocol}: {len(dataset.items):,} items of --limit {limit} (whole clusters)")
    return TaskPlan(dataset=dataset, style=style, prompt=registry.find_prompt(task, style), limit=limit)


def _sampling(preset: "Preset | None", flags: Mapping[str, Any], *, samples: int, seed: int) -> "Sampling":
    """Return how to draw; a flag goes before a preset."""
    from ahabench.harness.sampling import Sampling

    values = {name: getattr(preset, name) for name in flags} if preset else {}
    values |= {name: value for name, value in flags.items() if value is not None}
    return Sampling(samples=samples, seed=seed, **values)


def _pixels(flag: int | None, preset: int | None) -> int | None:
    """Return a limit; a flag goes before a preset, and 0 takes the preset's limit away."""
    return preset if flag is None else flag or None


def _one_task(name: str) -> tuple[Task, str]:
    pairs = registry.parse_tasks(name)
    if len(pairs) != 1:
        raise UsageError(f"--task takes one task, found {name!r}")
    return pairs[0]


def _judge(url: str | None, model: str | None) -> Any:
    """Return a judge that has answered a probe, or `None` where none is asked for."""
    if url is None:
        if model is not None:
            raise UsageError("--judge-model goes with --judge URL")
        return None
    if model is None:
        raise UsageError("--judge URL goes with --judge-model NAME")
    from ahabench.harness.judge import Judge

    judge = Judge(url, model, cache=Path.home() / ".cache" / "ahabench" / "judge.sqlite")
    judge.probe()
    return judge


def _print(rows: list[dict[str, Any]], *, breakdown: bool, as_json: bool) -> None:
    if as_json:
        report.print_json(rows)
        return
    report.print_metrics(rows)
    if breakdown:
        for row in rows:
            report.print_breakdown(row)
