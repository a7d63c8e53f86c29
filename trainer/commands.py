"""The commands of this folder. Options are read here; the work is done by the modules they name."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

train = typer.Typer(no_args_is_help=True, add_completion=False, help="Train a model: by reward, or supervised.")


@train.callback()
def _root() -> None:
    pass


@train.command()
def grpo(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (tiny-cpu, vlaa-qwen2.5-vl-3b) or a YAML file.")],
    out: Annotated[Path, typer.Option(help="Run directory, new or empty.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings of the recipe, such as seed=1 kl.init=1e-2.", metavar="KEY=VALUE"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest whole checkpoint in --out.")] = False,
) -> None:
    """Train with GRPO and mixed rewards; print the folder of the trained model."""
    from ahabench.trainer.recipe import load_recipe

    settings = load_recipe(recipe, overrides or [])
    from ahabench.trainer.grpo_run import train as run

    _print_trained(lambda: run(settings, out, resume=resume))


@train.command()
def sft(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (sft-tiny-cpu, sft-126k, sft-25k) or a YAML file.")],
    out: Annotated[Path, typer.Option(help="Run directory, new or empty.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings of the recipe, such as seed=1 spikes.z=8.", metavar="KEY=VALUE"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest whole checkpoint in --out.")] = False,
) -> None:
    """Fine-tune on demonstrations; print the folder of the trained model, which GRPO takes as its model."""
    from ahabench.trainer.sft_recipe import load_sft_recipe

    settings = load_sft_recipe(recipe, overrides or [])
    from ahabench.trainer.sft import train as run

    _print_trained(lambda: run(settings, out, resume=resume))


def _print_trained(run: Callable[[], Path]) -> None:
    """Train, and print the folder of the trained model; of several processes the first one does."""
    from ahabench.trainer.processes import is_main, speaking_once

    with speaking_once():
        final = run()
    if is_main():
        print(final)


@train.command()
def report(run: Annotated[Path, typer.Argument(help="The folder of a training run, running or not.")]) -> None:
    """Write the run's curves and example rollouts as one HTML file; print its name."""
    from ahabench.trainer.training_page import write_page

    print(write_page(run))


@train.command(name="plan")
def plan_recipe(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe or a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings of the recipe, such as data=FILE images=DIR.", metavar="KEY=VALUE"),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(min=0, help="GPUs, one process on each; 0: the CPU. If not given, 8; 0 for the built-in model."),
    ] = None,
    gpu_memory: Annotated[float, typer.Option(min=1, help="Memory of a GPU in GB.")] = 80.0,
    sharding: Annotated[
        str | None, typer.Option(help="ddp, zero2, zero3 or fsdp; the least of the first three that fits.")
    ] = None,
    decode: Annotated[bool, typer.Option("--decode", help="Decode every image, which takes a while.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Check a recipe without a GPU: data, batches, steps and memory; refuse what cannot work."""
    from ahabench.harness.errors import UsageError, unknown_name
    from ahabench.harness.report import print_json
    from ahabench.trainer import plan, plan_report, sizes

    shared = next((known for known in sizes.SHARDINGS if known == sharding), None)
    if sharding is not None and shared is None:
        raise unknown_name("sharding", sharding, list(sizes.SHARDINGS))
    settings = overrides or []
    gpus = plan.usual_gpus(recipe, settings) if gpus is None else gpus
    machine = plan.Machine(gpus=gpus, gpu_gb=gpu_memory, sharding=shared)
    found = plan.plan(recipe, settings, machine, decode=decode)
    if as_json:
        print_json(found.as_json())
    else:
        print("\n".join(plan_report.lines(found)))
    if found.problems:
        raise UsageError(f"{recipe} cannot work as it is: {found.problems[0]}")


def demo(
    settings: Annotated[
        list[str] | None,
        typer.Argument(help="Settings of the recipe tiny-cpu, such as max_steps=100.", metavar="[KEY=VALUE]..."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for everything; the same command goes on in it.")] = Path(
        "runs/demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Of the base and the training.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Run the whole loop on this machine in minutes: base, evaluation, GRPO, evaluation, comparison."""
    from ahabench.harness.report import print_json
    from ahabench.trainer.demo import demo as run
    from ahabench.trainer.demo_report import print_demo

    summary = run(out, seed=seed, settings=settings or [])
    if as_json:
        print_json(summary)
    else:
        print_demo(summary, out)


curate = typer.Typer(no_args_is_help=True, add_completion=False, help="Make training data.")


@curate.callback()
def _curate_root() -> None:
    pass


@curate.command()
def split(
    source: Annotated[
        Path,
        typer.Argument(
            help="Distilled records (JSON, JSONL or a folder with one such file), or a YAML file of settings.",
            metavar="CONFIG|FILE",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for sft.jsonl, rl.jsonl and split.json, without any yet.")],
    rule: Annotated[
        str | None,
        typer.Option(help="vlaa_data_split, the paper's and the default; ahabench; or another published rule."),
    ] = None,
    together: Annotated[str | None, typer.Option(help="What is never divided: prompt (default) or image.")] = None,
    min_hits: Annotated[int | None, typer.Option(min=1, help="Hits that send a record to RL; default 1.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out bad records instead of stopping.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Split records by whether their trace reflects: SFT gets those that do not, RL those that do."""
    from ahabench.harness.report import print_json
    from ahabench.trainer.split import split_file
    from ahabench.trainer.split_report import print_split, read_config

    given = {"rule": rule, "together": together, "min_hits": min_hits, "skip_bad": skip_bad or None}
    config = read_config(source, {key: value for key, value in given.items() if value is not None})
    report = split_file(config, out).report
    if as_json:
        print_json(report)
    else:
        print_split(report, out)
