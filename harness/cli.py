"""The `ahabench` command: runs a sub-command and prints errors as one line.

Imports next to nothing: an interrupt while the rest is imported is to end as any other, and only `main` can see to it.
"""

import errno
import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

USAGE = 2
INTERRUPTED = 130


def main() -> None:
    """Run the command line.

    Exit codes: 0 done, 1 regression, 2 usage, 3 inconclusive, 4 not comparable, 5 incomplete, 130 interrupted.
    """
    try:
        _open_what_is_closed()
        if isinstance(sys.stdout, TextIOWrapper):
            # A terminal or a pipe that cannot show a character must not cost the whole answer.
            sys.stdout.reconfigure(errors="backslashreplace")
        code = _code(sys.argv[1:])
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr, flush=True)
        code = INTERRUPTED
    _drop_what_cannot_be_written()
    sys.exit(code)


def _code(arguments: list[str]) -> int:
    """Run a command and return its exit code, after a line on stderr where it failed."""
    import typer

    from ahabench.harness.errors import AhabenchError

    code = 0
    try:
        code = _run(arguments)
        # Here, because at its end Python would make a failure an exit code of its own.
        sys.stdout.flush()
        return code
    except AhabenchError as error:
        return _refuse(str(error), error.exit_code)
    except typer.TyperException as error:
        return _refuse(_usage(error)) if error.format_message() else USAGE
    except BrokenPipeError:
        return code
    except OSError as error:
        where = error.filename or ("stdout cannot be written" if error.errno == errno.ENOSPC else None)
        return _refuse(": ".join(str(part) for part in (where, error.strerror or error) if part))
    except typer.Abort:
        raise KeyboardInterrupt from None
    except SystemExit as end:
        # This is how rich ends where nobody reads its output any more.
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        return 0


def _run(arguments: list[str]) -> int:
    """Run a command past typer's own ending, which hides an interrupt and a closed pipe from `main`."""
    import typer

    from ahabench.harness.command_group import app

    command = typer.main.get_command(app)
    try:
        with command.make_context("ahabench", arguments) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    return 0


def _refuse(why: str, code: int = USAGE) -> int:
    from ahabench.harness.report import note

    note(f"error: {why}")
    return code


def _usage(error: "typer.TyperException") -> str:
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
