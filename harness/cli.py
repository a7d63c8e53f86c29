"""The `ahabench` command: finds its sub-commands by entry point and prints errors as one line."""

import errno
import os
import sys
from contextlib import suppress
from importlib.metadata import EntryPoint, entry_points
from io import TextIOWrapper
from typing import Any

import typer
from typer.core import TyperGroup

from ahabench.harness.errors import AhabenchError, UsageError
from ahabench.harness.report import note

GROUP = "ahabench.commands"
INTERRUPTED = 130


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


def main() -> None:
    """Run the command line.

    Exit codes: 0 done, 1 regression, 2 usage, 3 inconclusive, 4 not comparable, 5 incomplete, 130 interrupted.
    """
    _open_what_is_closed()
    if isinstance(sys.stdout, TextIOWrapper):
        # A terminal or a pipe that cannot show a character must not cost the whole answer.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = _run(sys.argv[1:])
        # Here, because at its end Python would make a failure an exit code of its own.
        sys.stdout.flush()
    except AhabenchError as error:
        code = _refuse(str(error), error.exit_code)
    except typer.TyperException as error:
        code = _refuse(_usage(error)) if error.format_message() else AhabenchError.exit_code
    except BrokenPipeError:
        code = 0
    except OSError as error:
        where = error.filename or ("stdout cannot be written" if error.errno == errno.ENOSPC else None)
        code = _refuse(": ".join(str(part) for part in (where, error.strerror or error) if part))
    except (KeyboardInterrupt, typer.Abort):
        note("interrupted; the same command goes on where it stopped")
        code = INTERRUPTED
    except SystemExit as end:
        # This is how rich ends where nobody reads its output any more.
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        code = 0
    _drop_what_cannot_be_written()
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    """Run a command past typer's own ending, which hides an interrupt and a closed pipe from `main`."""
    command = typer.main.get_command(app)
    try:
        with command.make_context("ahabench", arguments) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    return 0


def _refuse(why: str, code: int = AhabenchError.exit_code) -> int:
    note(f"error: {why}")
    return code


def _usage(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    hint = f" See `{context.command_path} --help`." if context is not None else ""
    return f"{error.format_message()}{hint}"


def _open_what_is_closed() -> None:
    """Give an output that the shell closed (`>&-`) somewhere to go: Python has `None` in its place."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


def _drop_what_cannot_be_written() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        # The reader went away or the disk is full. Python would try again at its end, and fail.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
