"""Work on many responses in several processes, which Ctrl-C ends without a word of their own."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from multiprocessing.synchronize import Event
from typing import TypeVar

from ahabench.harness import registry
from ahabench.harness.progress import counted
from ahabench.harness.types import Item, Response, Scorer, Task

Value = TypeVar("Value")

CHUNK = 256
"""Responses that a worker process takes at a time."""


def spread(
    work: Callable[[Scorer, Item, Response], Value],
    task: Task,
    scorer_name: str,
    items: Mapping[str, Item],
    responses: Sequence[Response],
    *,
    workers: int | None,
) -> Iterator[Value]:
    """Yield what `work` returns for each response, in order, spread over processes where there are many.

    An interrupt ends it as soon as the responses under way are done.

    Args:
        work: a function at the top of a module; called with the scorer, the response's item and the response.
        task: the benchmark.
        scorer_name: one of its scorers.
        items: by id, without their images; every response's item is among them.
        responses: what was answered.
        workers: processes at most; as many as there are cores if `None`.
    """
    processes = min(workers or os.cpu_count() or 1, 1 + len(responses) // (4 * CHUNK))
    if processes == 1:
        scorer = registry.find_scorer(task, scorer_name)
        one_by_one = (work(scorer, items[response.item_id], response) for response in responses)
        yield from counted(one_by_one, total=len(responses), what=f"scoring {task.name}")
        return
    # spawn, not fork: an engine in this process may hold threads and locks.
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(
        processes, mp_context=context, initializer=_start_worker, initargs=(task.name, scorer_name, items, stop)
    ) as pool:
        try:
            with _interrupts_held_back():
                # This starts the workers.
                done = pool.map(partial(_work, work), _chunks(responses))
            yield from counted(chain.from_iterable(done), total=len(responses), what=f"scoring {task.name}")
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Hold Ctrl-C back: for a moment in this thread, and for good in the processes that it starts.

    Each of them would print a traceback, and one that dies with the lock of a queue in its hands hangs the others.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_worker: tuple[Scorer, Mapping[str, Item], Event]


def _start_worker(task_name: str, scorer_name: str, items: Mapping[str, Item], stop: Event) -> None:
    global _worker
    _worker = registry.find_scorer(registry.find_task(task_name), scorer_name), items, stop


def _work(work: Callable[[Scorer, Item, Response], Value], responses: list[Response]) -> list[Value]:
    """Return the results of one chunk; fewer where nobody waits for them any more."""
    scorer, items, stop = _worker
    return [work(scorer, items[response.item_id], response) for response in responses if not stop.is_set()]


def _chunks(responses: Sequence[Response]) -> Iterator[list[Response]]:
    iterator = iter(responses)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk
