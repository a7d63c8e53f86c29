"""What a log and a terminal show of a generation."""

import io
import time

import pytest

from ahabench.harness.progress import Bar, Lines, console_progress, counted
from ahabench.harness.types import Response


def answered(tokens: int = 50) -> Response:
    return Response(item_id="1", text="x", completion_tokens=tokens)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_says_what_begins_and_how_far_it_came() -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.start("mathvista", done=4, total=10)
    lines.advance(answered())
    lines.advance(Response(item_id="2", text=None, error="?"))
    lines.stop()
    first, last = stream.getvalue().splitlines()
    assert first == "mathvista: 6 of 10 responses to generate"
    assert last.startswith("mathvista: 6/10 responses, ")
    assert " tokens/s, " in last
    assert last.endswith(" left, 1 failed")


def test_a_log_gets_lines_while_a_batch_takes_its_time() -> None:
    stream = io.StringIO()
    lines = Lines(stream, interval_s=0.05)
    lines.start("mathvista", done=0, total=2)
    time.sleep(0.3)
    lines.stop()
    said = stream.getvalue().splitlines()
    assert len(said) >= 4
    assert said[1] == "mathvista: 0/2 responses, waiting since 0s"


def test_a_log_is_silent_after_its_task() -> None:
    stream = io.StringIO()
    lines = Lines(stream, interval_s=0.05)
    lines.start("mathvista", done=0, total=1)
    lines.advance(answered())
    lines.stop()
    said = stream.getvalue()
    time.sleep(0.2)
    lines.stop()
    assert stream.getvalue() == said


def test_time_left_is_by_the_pace_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("ahabench.harness.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    lines = Lines(stream)
    lines.start("mathvista", done=900, total=1000)
    for _ in range(20):
        lines.advance(answered(tokens=60))
    now[0] += 40
    lines.stop()
    # 20 in 40 s leave 80, which take 160 s; 20 * 60 / 40 = 30 tokens a second.
    assert stream.getvalue().splitlines()[-1] == "mathvista: 920/1000 responses, 30 tokens/s, 2m40s left"


def test_a_terminal_gets_a_bar_that_ends_where_the_task_does() -> None:
    stream = Terminal()
    bar = console_progress(stream)
    assert isinstance(bar, Bar)
    bar.start("mathvista", done=1, total=3)
    bar.advance(answered())
    bar.note("a [word] in between")
    bar.advance(answered())
    bar.stop()
    assert "3/3" in stream.getvalue()
    assert "tokens/s" in stream.getvalue()
    assert "a [word] in between" in stream.getvalue()


def test_a_file_gets_lines() -> None:
    assert isinstance(console_progress(io.StringIO()), Lines)


def test_a_count_that_takes_long_is_told_to_a_log_and_yields_every_value(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 3))
    monkeypatch.setattr("ahabench.harness.progress.time.monotonic", lambda: float(next(clock)))
    stream = io.StringIO()

    values = list(counted("abcdefgh", total=8, what="scoring toy", stream=stream))

    assert values == list("abcdefgh")
    # 3 s a value: the first line after 12 s, which is the first time that 10 s have passed.
    assert stream.getvalue().splitlines() == ["scoring toy: 4 of 8, 12s left", "scoring toy: 8 of 8, 0s left"]


def test_a_short_count_says_nothing() -> None:
    stream = io.StringIO()

    assert list(counted("ab", total=2, what="scoring toy", stream=stream)) == ["a", "b"]
    assert stream.getvalue() == ""
