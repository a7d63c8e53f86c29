"""The group of commands that installed packages declare by entry points, imported one at a time."""

from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from typer.core import TyperGroup

from ahabench.harness.errors import UsageError
from ahabench.harness.report import note

GROUP = "ahabench.commands"


class Commands(TyperGroup):
    """The commands that installed packages declare, each imported when it is named."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names, as they are declared."""
        return sorted(_points())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command; `None` if no package declares it."""
        if cmd_name not in _points():
            return None
        point, *others = _points()[cmd_name]
        for other in others:
            note(f"the command {cmd_name!r} is that of {point.value}; another package has one too: {other.value}")
        try:
            return _command(point)
        except (Exception, SystemExit) as error:
            # A broken package of a stranger's must not take our own commands along.
            return _broken(point, error)


def _points() -> dict[str, list[EntryPoint]]:
    """Return the different commands of each name, ours first."""
    found: dict[str, list[EntryPoint]] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: (not _is_ours(point), point.value)):
        same_name = found.setdefault(point.name, [])
        # A distribution may be found in two places, such as a checkout and its installation.
        if point.value not in {other.value for other in same_name}:
            same_name.append(point)
    return found


def _is_ours(point: EntryPoint) -> bool:
    return point.dist is not None and point.dist.name == "ahabench"


def _command(point: EntryPoint) -> Any:
    target = point.load()
    if not isinstance(target, typer.Typer):
        function, target = target, typer.Typer(add_completion=False)
        target.command(point.name)(function)
    command = typer.main.get_command(target)
    command.name = point.name
    return command


def _broken(point: EntryPoint, error: BaseException) -> Any:
    def refuse() -> None:
        raise UsageError(
            f"the command {point.name!r} of {point.value} cannot be loaded: {type(error).__name__}: {error}"
        )

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
