"""Equality of two mathematical expressions by computer algebra, in a process that can be killed.

sympy can run for ever on a short string (towers of powers, factorials, sums) and math-verify's own limit is a signal
that needs a main thread. So the comparison runs in a worker process that speaks JSON lines: its memory is limited, and
one that misses the deadline dies and is replaced. The deadline counts the worker's CPU seconds, so that a busy machine
gives the same verdicts as an idle one. One worker serves a process; it starts with the first comparison.
"""

import atexit
import json
import os
import re
import selectors
import subprocess
import sys
import threading
from functools import lru_cache

DEADLINE_S = 2.0
"""CPU seconds that one comparison may take."""
PATIENCE = 30.0
"""Wall seconds per CPU second that are waited for a worker, in case it gets no CPU at all."""
START_S = 60.0
"""Seconds that a worker may take to import its libraries."""
MAX_LENGTH = 300
"""Characters of an expression; longer ones are not compared."""
MAX_DEPTH = 24
"""Brackets inside one another."""
WORKER = "ahabench.harness.answers.symbolic_worker"

_WORD = re.compile(r"(?<!\\)(?<![A-Za-z])[A-Za-z]{4,}")
_POWER_TOWER = re.compile(
    r"\^\s*[{(\s]*[\w.\\]{1,12}[\s})]*\^\s*[{(\s]*[\w.\\]{1,12}[\s})]*\^|!\s*!|\d{7,}\s*!|\^\s*\{?\s*\(?\d{4,}"
)


class Timeout(Exception):
    """The comparison missed its deadline or its memory limit."""


_HALF_FRACTION = re.compile(r"\\[dt]?frac\s*\{[^{}]{1,80}\}\s*(?![\s\w{\\])")
"""A fraction without its second half: the text broke off."""


def comparable(text: str) -> bool:
    """Whether a text may be sent to computer algebra: short, shallow, formula-like, no tower of powers."""
    if not text or len(text) > MAX_LENGTH or _POWER_TOWER.search(text) or _HALF_FRACTION.search(text):
        return False
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest <= MAX_DEPTH and len(_WORD.findall(text)) <= 1


def equivalent(gold: str, answer: str) -> bool:
    """Whether two expressions are equal by math-verify's rules.

    Args:
        gold: the reference, in LaTeX or plain text.
        answer: the extracted answer.

    Raises:
        Timeout: the deadline or the memory limit was missed. The worker is replaced.
    """
    equal = _compared(gold, answer)
    if equal is None:
        raise Timeout(f"not decided within {DEADLINE_S} CPU seconds")
    return equal


@lru_cache(maxsize=16_384)
def _compared(gold: str, answer: str) -> bool | None:
    """Return the outcome of a comparison, `None` for a timeout, which is remembered too: it would only cost again."""
    try:
        return _worker.compare(gold, answer)
    except Timeout:
        return None


class _Worker:
    """A child process that compares, one request at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._owner = 0

    def compare(self, gold: str, answer: str) -> bool:
        with self._lock:
            try:
                process = self._ready()
                assert process.stdin is not None
                process.stdin.write(json.dumps([gold, answer, DEADLINE_S]).encode() + b"\n")
                process.stdin.flush()
                return bool(json.loads(self._line(process, DEADLINE_S * PATIENCE)))
            except (BrokenPipeError, TimeoutError, EOFError) as error:
                self._stop()
                raise Timeout(f"not decided within {DEADLINE_S} CPU seconds") from error
            except BaseException:
                # Interrupted between question and reply: the reply must not answer the next question.
                self._stop()
                raise

    def _ready(self) -> subprocess.Popen[bytes]:
        # A forked copy of this process must not share its parent's worker.
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is None:
            return self._process
        environment = os.environ | {"PYTHONSAFEPATH": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        self._owner = os.getpid()
        atexit.register(self._stop)
        try:
            self._line(self._process, START_S)
        except (TimeoutError, EOFError) as error:
            self._stop()
            raise RuntimeError(f"{WORKER} does not start; is math-verify installed?") from error
        return self._process

    def _line(self, process: subprocess.Popen[bytes], timeout_s: float) -> bytes:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(timeout_s):
                raise TimeoutError
        line = process.stdout.readline()
        if not line:
            raise EOFError
        return line

    def _stop(self) -> None:
        atexit.unregister(self._stop)
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            process.communicate()


_worker = _Worker()


def _after_fork() -> None:
    # The parent's lock may have been held at that moment by a thread that the child does not have.
    global _worker
    _worker = _Worker()


os.register_at_fork(after_in_child=_after_fork)
