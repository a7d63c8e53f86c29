"""How far a generation or a scoring has come, on stderr."""

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Protocol, TextIO, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Live
from rich.text import Text

from ahabench.harness.types import Response

Value = TypeVar("Value")

INTERVAL_S = 10.0
"""Seconds between two lines where there is no terminal."""


class Progress(Protocol):
    """Is told what happens."""

    def start(self, task: str, *, done: int, total: int) -> None:
        """Begin a task of `total` responses, `done` of which an earlier run has written."""
        ...

    def advance(self, response: Response) -> None:
        """Count one more response."""
        ...

    def note(self, text: str) -> None:
        """Show a line that stays."""
        ...

    def stop(self) -> None:
        """End the task, also where it was cut short."""
        ...


def console_progress(stream: TextIO | None = None) -> Progress:
    """Return a bar for a terminal, or a line every `INTERVAL_S` seconds for anything else; stderr if `None`."""
    stream = stream or sys.stderr
    return Bar(stream) if stream.isatty() else Lines(stream)


QUIET_S = 2.0
"""What takes less is not announced."""


def counted(values: Iterable[Value], *, total: int, what: str, stream: TextIO | None = None) -> Iterator[Value]:
    """Yield the values, and tell a terminal each second, a log every `INTERVAL_S`, how many are done and what is left.

    Args:
        values: as they come.
        total: how many there will be.
        what: what is being done, for the line.
        stream: where the line goes; stderr if `None`.
    """
    stream = stream or sys.stderr
    live = stream.isatty()
    began = told = time.monotonic()
    shown = False
    for done, value in enumerate(values, start=1):
        yield value
        now = time.monotonic()
        if now - began >= QUIET_S and now - told >= (1.0 if live else INTERVAL_S):
            told, shown = now, True
            line = f"{what}: {done:,} of {total:,}, {duration((now - began) / done * (total - done))} left"
            print(f"\r\x1b[K{line}" if live else line, end="" if live else "\n", file=stream, flush=True)
    if live and shown:
        print("\r\x1b[K", end="", file=stream, flush=True)


class _Pace:
    """What this process has done of a task; earlier runs' work does not flatter it."""

    def __init__(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        self._began = time.monotonic()
        self._new, self._tokens, self._failed = 0, 0, 0

    def count(self, response: Response) -> None:
        self.done += 1
        self._new += 1
        self._failed += response.text is None
        self._tokens += response.completion_tokens or 0

    def __str__(self) -> str:
        elapsed_s = max(time.monotonic() - self._began, 1e-9)
        if not self._new:
            return f"waiting since {duration(elapsed_s)}"
        words = [f"{self._tokens / elapsed_s:,.0f} tokens/s"]
        if self.done < self.total:
            words.append(f"{duration(elapsed_s / self._new * (self.total - self.done))} left")
        if self._failed:
            words.append(f"{self._failed} failed")
        return ", ".join(words)


class Lines:
    """Progress as lines of a log, written by a thread: batches take longer than the interval.

    Args:
        stream: where they go.
        interval_s: seconds between two lines.
    """

    def __init__(self, stream: TextIO, interval_s: float = INTERVAL_S) -> None:
        """Say nothing yet."""
        self._stream, self._interval_s = stream, interval_s
        self._task = ""
        self._pace = _Pace(0, 0)
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    def start(self, task: str, *, done: int, total: int) -> None:
        """Say what begins, and from now on how far it is."""
        self._task, self._pace = task, _Pace(done, total)
        self.note(f"{task}: {total - done} of {total} responses to generate")
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._repeat, args=(self._stopped,), daemon=True)
        self._thread.start()

    def advance(self, response: Response) -> None:
        """Count."""
        self._pace.count(response)

    def note(self, text: str) -> None:
        """Write the line."""
        print(text, file=self._stream, flush=True)

    def stop(self) -> None:
        """Say how far it came."""
        if self._thread is not None:
            self._stopped.set()
            self._thread.join()
            self._thread = None
            self._report()

    def _repeat(self, stopped: threading.Event) -> None:
        while not stopped.wait(self._interval_s):
            self._report()

    def _report(self) -> None:
        self.note(f"{self._task}: {self._pace.done}/{self._pace.total} responses, {self._pace}")


class Bar:
    """Progress as a bar.

    Args:
        stream: a terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        """Draw nothing yet."""
        self._console = Console(file=stream)
        self._pace = _Pace(0, 0)
        self._bar: Live | None = None
        self._task = TaskID(0)

    def start(self, task: str, *, done: int, total: int) -> None:
        """Draw the bar."""
        self._pace = _Pace(done, total)
        name = TextColumn("{task.description}")
        self._bar = Live(name, BarColumn(), MofNCompleteColumn(), _PaceColumn(self._pace), console=self._console)
        self._task = self._bar.add_task(task, total=total, completed=done)
        self._bar.start()

    def advance(self, response: Response) -> None:
        """Move the bar."""
        self._pace.count(response)
        if self._bar is not None:
            self._bar.update(self._task, completed=self._pace.done)

    def note(self, text: str) -> None:
        """Write the line above the bar."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class _PaceColumn(ProgressColumn):
    """Speed and time left, drawn anew also while a batch is running."""

    def __init__(self, pace: _Pace) -> None:
        super().__init__()
        self._pace = pace

    def render(self, task: Task) -> Text:
        return Text(str(self._pace))


def duration(seconds: float) -> str:
    """Return a duration as people say it: "45s", "3m05s", "2h07m"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"
