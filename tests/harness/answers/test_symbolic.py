import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import FrameType

import pytest

from ahabench.harness.answers import symbolic
from ahabench.harness.answers.symbolic import Timeout, comparable, equivalent

ENDLESS = ("27", r"\prod_{k=1}^{1000000000} k")
"""Two that computer algebra would work on for hours."""


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    """Every test compares anew: an earlier test's outcome is no proof."""
    symbolic._compared.cache_clear()


def test_a_pair_that_timed_out_is_not_tried_again(monkeypatch: pytest.MonkeyPatch):
    assert equivalent("x+1", "1+x")
    monkeypatch.setattr(symbolic, "DEADLINE_S", 0.3)
    with pytest.raises(Timeout):
        equivalent(*ENDLESS)
    assert symbolic._worker._process is None, "killed at the deadline"

    with pytest.raises(Timeout):
        equivalent(*ENDLESS)

    assert symbolic._worker._process is None, "no worker was started for it"


def pid() -> int:
    """The worker's process id, read where the module keeps it: nothing public tells it."""
    process = symbolic._worker._process
    assert process is not None
    return process.pid


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("x+1", "1+x"),
        ("x^2-1", "(x-1)(x+1)"),
        (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}"),
        (r"2\sqrt{3}", r"\sqrt{12}"),
        ("2x+2y", "2(x+y)"),
    ],
)
def test_two_forms_of_an_expression_are_equal(gold: str, answer: str):
    assert equivalent(gold, answer)
    assert equivalent(answer, gold)


@pytest.mark.parametrize(
    ("gold", "answer"), [("x+1", "x+2"), ("x^2", "x^3"), ("a-b", "b-a"), ("x", r"\frac{"), ("x", "")]
)
def test_two_expressions_are_different(gold: str, answer: str):
    assert not equivalent(gold, answer)


def test_a_worker_that_misses_the_deadline_is_killed_and_replaced():
    assert equivalent("x+7", "7+x")
    before = pid()
    with pytest.raises(Timeout):
        equivalent(*ENDLESS)
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)
    assert equivalent("x+8", "8+x")
    assert not equivalent("x+8", "9+x")
    assert pid() != before


def test_time_without_a_cpu_does_not_count(monkeypatch: pytest.MonkeyPatch):
    assert equivalent("x+21", "21+x")
    monkeypatch.setattr(symbolic, "DEADLINE_S", 0.3)
    os.kill(pid(), signal.SIGSTOP)
    threading.Timer(1.0, os.kill, (pid(), signal.SIGCONT)).start()

    assert equivalent("x+22", "22+x")


def test_a_worker_that_dies_is_replaced():
    assert equivalent("x+9", "9+x")
    before = pid()
    os.kill(before, signal.SIGKILL)
    # A death that is noticed only by the comparison is a Timeout; either way the next one works.
    with suppress(Timeout):
        assert equivalent("x+10", "10+x")
    assert equivalent("x+11", "11+x")
    assert pid() != before


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process are read from Linux' /proc")
def test_the_workers_memory_is_limited():
    assert equivalent("x+12", "12+x")
    with open(f"/proc/{pid()}/limits", encoding="ascii") as limits:
        soft = next(line.split()[3] for line in limits if line.startswith("Max address space"))
    assert 0 < int(soft) <= 4 * 1024**3


def test_the_worker_ends_with_its_input():
    assert equivalent("x+13", "13+x")
    process = symbolic._worker._process
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=10) == 0
    assert equivalent("x+14", "14+x")


def test_threads_get_the_answers_to_their_own_questions():
    pairs = [(f"x+{n}", f"{n + n % 2}+x") for n in range(100, 140)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda pair: equivalent(*pair), pairs))
    assert answers == [n % 2 == 0 for n in range(100, 140)]


def test_it_works_outside_the_main_thread():
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(equivalent("x+15", "15+x")))
    thread.start()
    thread.join(60)
    assert found == [True]


def _compare_in_child(answers: "multiprocessing.queues.Queue[object]") -> None:
    answers.put((equivalent("x+16", "16+x"), equivalent("x+16", "17+x"), pid()))


def forked(timeout_s: float) -> object:
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_compare_in_child, args=(answers,))
    child.start()
    try:
        return answers.get(timeout=timeout_s)
    finally:
        child.kill()
        child.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_a_worker_of_its_own():
    assert equivalent("x+18", "18+x")
    mine = pid()
    equal, different, theirs = forked(60)  # type: ignore[misc]
    assert (equal, different) == (True, False)
    assert theirs != mine
    assert pid() == mine
    assert equivalent("x+19", "19+x")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_forked_during_a_comparison_is_not_stuck():
    assert equivalent("x+20", "20+x")

    def waiting() -> None:
        with pytest.raises(Timeout):
            equivalent("x+24", "24+x")

    os.kill(pid(), signal.SIGSTOP)
    thread = threading.Thread(target=waiting)
    thread.start()
    time.sleep(0.3)
    try:
        equal, different, _ = forked(15)  # type: ignore[misc]
    finally:
        thread.join()
    assert (equal, different) == (True, False)


class Interrupted(Exception):
    """What the handler of a signal raises, as Ctrl-C or a test's time limit does."""


@pytest.fixture
def interrupt_after() -> Iterator[Callable[[float], None]]:
    def handler(_number: int, _frame: FrameType | None) -> None:
        raise Interrupted

    old = signal.signal(signal.SIGALRM, handler)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds) and None
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, old)


def test_after_an_interrupted_comparison_answers_belong_to_their_questions(interrupt_after: Callable[[float], None]):
    assert equivalent("x+21", "21+x")
    worker = pid()
    os.kill(worker, signal.SIGSTOP)
    interrupt_after(0.2)
    with pytest.raises(Interrupted):
        equivalent("x+199", "200+x")
    # Its reply, which is no, comes when nobody waits for it any more.
    with suppress(ProcessLookupError):
        os.kill(worker, signal.SIGCONT)
    answers = [equivalent(f"x+{n}", f"{n + n % 2}+x") for n in range(200, 206)]
    assert answers == [True, False] * 3


def test_after_an_interrupted_start_the_next_comparison_works(interrupt_after: Callable[[float], None]):
    symbolic._worker._stop()
    interrupt_after(0.1)
    with pytest.raises(Interrupted):
        equivalent("x+22", "22+x")
    try:
        assert equivalent("x+23", "23+x")
        assert not equivalent("x+23", "24+x")
    finally:
        symbolic._worker._stop()


@pytest.mark.parametrize(
    "text", ["x+1", r"\frac{\sqrt{3}}{2}", r"\sin(x)^2", "2^{10}", "(1, 2)", r"5\text{ cm}", "n!", "2^{100}"]
)
def test_a_formula_may_be_compared(text: str):
    assert comparable(text)


@pytest.mark.parametrize("text", ["x^2+y^2=r^2", "a^2+b^2+c^2", "x^3-2x^2+x^4"])
def test_powers_side_by_side_are_no_tower(text: str):
    assert comparable(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "nothing"),
        ("x" * 301, "longer than 300 characters"),
        ("(" * 25 + "x" + ")" * 25, "brackets 25 deep"),
        ("2^{2^{2^{2}}}", "a tower of three powers"),
        ("9^9^9^9", "a tower without braces"),
        ("((9!)!)!!", "a factorial of a factorial"),
        ("1234567!", "a factorial of seven digits"),
        ("2^{99999}", "an exponent of five digits"),
        ("the answer depends upon the shape", "a sentence"),
    ],
)
def test_a_text_is_kept_from_computer_algebra(text: str, why: str):
    assert not comparable(text), why


@pytest.mark.parametrize("text", ["(" * 24 + "x" + ")" * 24, "x" * 3 + "+1" * 148])
def test_the_limits_themselves_are_allowed(text: str):
    assert len(text) <= symbolic.MAX_LENGTH
    assert comparable(text)


def test_a_word_is_left_to_computer_algebra_only_where_it_stands_alone():
    assert comparable("area = 5")
    assert not comparable("area plus length")
    assert comparable(r"\alpha\beta\gamma\theta")


@pytest.mark.parametrize(
    "text", ["\x00", "\ud800", "\n", '"]\n["1","1"]', "\u202e1", "{" * 10, "\\" * 50, "%" * 20, "$" * 9]
)
def test_a_strange_text_is_no_equal_and_spoils_nothing(text: str):
    with suppress(Timeout):
        assert not equivalent("x+1", text)
    assert equivalent("x+30", "30+x")
    assert not equivalent("x+30", "31+x")
