"""The commands that generate: `eval`, and `merge` for its shards."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ahabench.harness import registry, report
from ahabench.harness.commands import (
    AllowMissing,
    AllowMixed,
    AsJson,
    Breakdown,
    Data,
    JudgeModel,
    JudgeUrl,
    ScorerName,
    Suite,
    open_judge,
)


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="A checkpoint folder, a .gguf file, a PEFT adapter folder, a hub name, a served model or a server URL."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Run directory; the same command goes on in it after an interruption.")],
    tasks: Annotated[
        str | None, typer.Option(help="all (which --suite mini means), or names: mathvista,wemath:testmini.")
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
    no_preflight: Annotated[
        bool,
        typer.Option("--no-preflight", help="Do not ask the largest image and the longest prompt before all others."),
    ] = False,
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
    text_only: Annotated[
        bool, typer.Option("--text-only", help="Leave the images out, whatever the model is.")
    ] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run the checkpoint's own Python code.")
    ] = False,
    judge: JudgeUrl = None,
    judge_model: JudgeModel = None,
    allow_missing: AllowMissing = False,
    only_plan: Annotated[
        bool, typer.Option("--plan", help="Print the lines to run and the tokens to expect; load and ask nothing.")
    ] = False,
    breakdown: Breakdown = False,
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
        report.answer(plan_launch(launch), lambda planned: print(plan_text(planned)), as_json=as_json)
        return
    with open_judge(judge, judge_model) as asked:
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
            preflight=not no_preflight,
            allow_mixed=allow_mixed,
        )
    report.print_scores(rows, breakdown=breakdown, as_json=as_json)


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
    report.answer(merged.as_row(), report.print_merged, as_json=as_json)
    merged.check_complete()
