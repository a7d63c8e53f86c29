"""The commands of this folder. Options are read here; the work is done by the modules they name."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ahabench.harness import registry, report
from ahabench.harness.errors import UsageError
from ahabench.harness.types import Task

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
AllowMixed = Annotated[
    bool, typer.Option(help="Take responses of different versions or dtypes of the engine into one run.")
]
Suite = Annotated[
    str, typer.Option(help="full, or mini: the small benchmarks that are drawn on this machine, no --data, no hub.")
]
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
        str,
        typer.Argument(
            help="A checkpoint folder, a .gguf file, a PEFT adapter folder, a hub name, a served model or a server URL."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Run directory; the same command goes on in it after an interruption.")],
    tasks: Annotated[
        str | None, typer.Option(help="all (what --suite mini means by itself), or mathvista,mathvision:testmini.")
    ] = None,
    suite: Suite = "full",
    data: Data = None,
    engine: Annotated[
        str, typer.Option(help="auto, transformers, vllm, openai:URL, lmms-eval:ADAPTER or replay:RUN.")
    ] = "auto",
    engine_arg: Annotated[
        list[str] | None,
        typer.Option("--engine-arg", metavar="NAME=VALUE", help="An option of the engine's own; repeatable."),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="official, vlmevalkit or think; official unless a preset says.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="vlaa: the protocol of VLAA-Thinking in one name.")] = None,
    scorer: ScorerName = "robust",
    limit: Annotated[
        int | None, typer.Option(min=1, help="About this many items of each task: a seeded, spread sample.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Responses per item.")] = 1,
    shard: Annotated[
        str | None,
        typer.Option(help="i/n, from 1/n to n/n: this node's part of the items; `ahabench merge OUT` joins them."),
    ] = None,
    preflight: Annotated[
        bool, typer.Option(help="Ask the items with the largest image and the longest prompt before all others.")
    ] = True,
    allow_mixed: AllowMixed = False,
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
    batch_size: Annotated[int | None, typer.Option(min=1, help="Most requests at once.")] = None,
    dtype: str = "auto",
    device: str = "auto",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the hub.")] = None,
    text_only: Annotated[bool, typer.Option(help="Leave the images out, whatever the model is.")] = False,
    trust_remote_code: Annotated[bool, typer.Option(help="Run the checkpoint's own Python code.")] = False,
    judge: JudgeUrl = None,
    judge_model: JudgeModel = None,
    allow_missing: AllowMissing = False,
    only_plan: Annotated[
        bool, typer.Option("--plan", help="Print the lines to run and the tokens to expect; load and ask nothing.")
    ] = False,
    breakdown: Annotated[bool, typer.Option(help="Print every breakdown too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Generate responses with a checkpoint and score them."""
    from ahabench.harness import evaluation, plans
    from ahabench.harness.engines import open_engine
    from ahabench.harness.engines.options import parse_pairs
    from ahabench.harness.runner import Plan
    from ahabench.harness.shards import parse_shard

    part = parse_shard(shard) if shard is not None else None
    given = plans.find_preset(preset, prompt)
    style = given.prompt if given else prompt or "official"
    pairs = registry.parse_tasks(tasks, suite=suite)
    plans.check_names(pairs, style, scorer, has_judge=judge is not None)
    asked = _judge(judge, judge_model) if not only_plan else None
    chosen = tuple(plans.plan_task(task, split, style=style, data=data, limit=limit) for task, split in pairs)
    drawn = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "repetition_penalty": repetition_penalty,
    }
    system = system_prompt if system_prompt is not None else given.system if given else None
    plan = Plan(tasks=chosen, samples=samples, system_prompt=system, shard=part)
    sampling = plans.draw(given, drawn, samples=samples, seed=seed)
    smallest = plans.pixel_limit(min_pixels, given.min_pixels if given else None)
    largest = plans.pixel_limit(max_pixels, given.max_pixels if given else None)
    if only_plan:
        from ahabench.harness.launch import Launch, plan_launch, plan_text

        launch = Launch(
            model=model,
            engine=engine,
            options=parse_pairs(engine_arg or ()),
            batch_size=batch_size,
            dtype=dtype,
            text_only=text_only,
            plan=plan,
            sampling=sampling,
            min_pixels=smallest,
            max_pixels=largest,
            out=out,
            command=[word for word in sys.argv[1:] if word != "--plan"],
        )
        if as_json:
            report.print_json(plan_launch(launch))
        else:
            print(plan_text(plan_launch(launch)))
        return
    opened = open_engine(
        engine,
        model,
        sampling=sampling,
        min_pixels=smallest,
        max_pixels=largest,
        options=parse_pairs(engine_arg or ()),
        batch_size=batch_size,
        dtype=dtype,
        device=device,
        revision=revision,
        trust_remote_code=trust_remote_code,
        text_only=True if text_only else None,
    )
    rows = evaluation.evaluate(
        plan,
        opened,
        out,
        scorer=scorer,
        data=data,
        judge=asked,
        allow_missing=allow_missing,
        preflight=preflight,
        allow_mixed=allow_mixed,
    )
    _print(rows, breakdown=breakdown, as_json=as_json)


def merge(
    run: Annotated[Path, typer.Argument(help="The --out of `eval --shard`, with its shard-i-of-n folders.")],
    out: Annotated[Path | None, typer.Option(help="Run directory to write; default: RUN itself.")] = None,
    data: Data = None,
    allow_mixed: AllowMixed = False,
    as_json: AsJson = False,
) -> None:
    """Join the shards of a run, each response exactly once, so that it can be scored."""
    from ahabench.harness.merge import merge as join

    merged = join(run, out=out, data=data, allow_mixed=allow_mixed)
    if as_json:
        report.print_json(merged.as_row())
    else:
        report.print_merged(merged.as_row())
    merged.check_complete()


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


def agreement_engines(
    first: Annotated[Path, typer.Argument(metavar="RUN_A", help="A greedy run of a checkpoint by one engine.")],
    second: Annotated[Path, typer.Argument(metavar="RUN_B", help="One of the same checkpoint by another.")],
    as_json: AsJson = False,
) -> None:
    """Count the responses and verdicts in which two engines differ on one checkpoint."""
    from ahabench.harness.parity import parity

    rows = [found.as_row() for found in parity(first, second)]
    if as_json:
        report.print_json(rows)
    else:
        report.print_parity(rows)


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
    breakdown: Annotated[bool, typer.Option(help="Print every breakdown too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Score a run again, or score anybody's responses."""
    from ahabench.harness import rescore

    rules = scorer or "robust"
    if log_of is not None and (explain or verdicts):
        raise UsageError("--from writes a run; leave --explain and --verdicts out, and give the run to --explain later")
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
    if log_of is not None:
        from ahabench.harness.imports.run import score_logs

        if out is None and source.is_dir():
            raise UsageError(f"{source} is a folder of logs; give --out RUN to write the run to")
        rows = score_logs(
            log_of,
            source,
            task=_one_task(task) if task else None,
            scorer=rules,
            data=data,
            out=out or source.with_suffix(""),
            judge=asked,
            allow_missing=allow_missing,
        )
    elif source.is_dir():
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
    task: Annotated[str | None, typer.Option("--task", help="NAME or NAME:SPLIT.")] = None,
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
        pairs = [_one_task(task)] if task else registry.parse_tasks(tasks, suite=suite)
        names = export_tasks(pairs, out, prompt=prompt or "official", scorer=scorer or "robust", data=data)
        print("\n".join(names))
        report.note(f"written to {out}; run: python -m lmms_eval --include_path {out} --tasks {','.join(names)} ...")
        return
    if kind != "jsonl":
        raise unknown_name("export", kind, ["jsonl", "lmms-eval", *of_runs])
    if task is None or tasks or prompt or scorer or suite != "full":
        raise UsageError("`export jsonl` takes --task NAME[:SPLIT]; the other options go with lmms-eval")
    found, split = _one_task(task)
    print(write_export(load(found, split, data=data), out))


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
