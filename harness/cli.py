"""The `ahabench` command: finds its sub-commands by entry point and prints errors as one line."""

import os
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from typer.core import TyperGroup

from ahabench.harness.errors import AhabenchError, UsageError

GROUP = "ahabench.commands"
INTERRUPTED = 130


class Commands(TyperGroup):
    """The commands that installed packages declare, each imported when it is named."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names, as they are declared."""
        return [point.name for point in _points()]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command; `None` if no package declares it."""
        for point in _points():
            if point.name == cmd_name:
                try:
                    return _command(point)
                except (ImportError, AttributeError) as error:
                    # A broken package of a stranger's must not take our own commands along.
                    return _broken(point, error)
        return None


def _points() -> list[EntryPoint]:
    found = {point.name: point for point in entry_points(group=GROUP)}
    return sorted(found.values(), key=lambda point: point.name)


def _command(point: EntryPoint) -> Any:
    target = point.load()
    if not isinstance(target, typer.Typer):
        function, target = target, typer.Typer(add_completion=False)
        target.command(point.name)(function)
    command = typer.main.get_command(target)
    command.name = point.name
    return command


def _broken(point: EntryPoint, error: Exception) -> Any:
    def refuse() -> None:
        raise UsageError(f"the command {point.name!r} of {point.value} cannot be loaded: {error}")

    command = typer.Typer(add_completion=False)
    command.command(point.name, help=f"(cannot be loaded from {point.value})")(refuse)
    return typer.main.get_command(command)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Score reasoning vision-language models on six benchmarks, without a judge, "
    "with numbers that say what they are.",
)


@app.callback()
def _root() -> None:
    pass


def main() -> None:
    """Run the command line.

    Exit codes: 0 done, 1 regression, 2 usage, 3 inconclusive, 4 not comparable, 5 incomplete, 130 interrupted.
    """
    try:
        app()
    except AhabenchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of stdout went away (`| head`): nothing to say, and nowhere to say it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
