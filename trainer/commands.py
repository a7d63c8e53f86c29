"""The commands of this folder. Options are read here; the work is done by the modules they name."""

from pathlib import Path
from typing import Annotated

import typer

train = typer.Typer(no_args_is_help=True, add_completion=False, help="Train a model with reinforcement learning.")


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
) -> None:
    """Train with GRPO and mixed rewards; print the folder of the trained model."""
    from ahabench.trainer.recipe import load_recipe

    settings = load_recipe(recipe, overrides or [])
    from ahabench.trainer.run import train as run

    print(run(settings, out))


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
