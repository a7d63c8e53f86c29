"""A running vLLM: its processes, an event loop in a thread, and what became of each request."""

import asyncio
import gc
import logging
import os
import queue
import re
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ahabench.harness.engines.outcomes import named
from ahabench.harness.engines.sizes import Sizes
from ahabench.harness.errors import EngineError
from ahabench.harness.types import Request

DECODED = 16
"""Requests whose pictures may be in memory, decoded, before vLLM has taken them."""
THREADS = 4
"""Threads that decode pictures."""

_ERROR = re.compile(r"\b([A-Z][A-Za-z]{0,60}(?:Error|Exception): [^\n]{1,400})")
_HINTS = (
    (
        ("memory", "kv cache"),
        "lower gpu_memory_utilization, max_model_len or max_num_seqs by --engine-arg NAME=VALUE, "
        "or split the model over more GPUs by tensor_parallel_size",
    ),
    (
        ("head size", "head_size", "head_dim", "not supported for now", "not supported"),
        "--engine transformers may run it",
    ),
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request in vLLM's words."""

    prompt: Mapping[str, Any]
    """The text, and the pictures under "multi_modal_data"."""
    add_special_tokens: bool
    sampling: Mapping[str, Any]
    """Arguments of `SamplingParams`."""
    image_sizes: Sizes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of a request: tokens, or an error."""

    request: Request
    tokens: list[int] = field(default_factory=list)
    """With the one that ended the text, if one did."""
    prompt_tokens: list[int] = field(default_factory=list)
    """With those that stand for the pictures."""
    image_sizes: Sizes | None = None
    error: str | None = None
    in_model: bool = False
    """Whether the error arose in the model, and not over what was asked."""


class Core:
    """vLLM with a model in its memory.

    Args:
        arguments: of vLLM's `AsyncEngineArgs`.
        lora: the folder of an adapter that is applied to every request.

    Raises:
        EngineError: vLLM did not start.
    """

    def __init__(self, arguments: Mapping[str, Any], *, lora: str | None) -> None:
        """Start the processes and load the weights."""
        log_to_stderr()
        self._log = Path(tempfile.mkstemp(prefix="ahabench-vllm-", suffix=".log")[1])
        self._held = [_start(arguments, self._log)]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ahabench-vllm", daemon=True)
        self._thread.start()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="ahabench-images")
        self._count = 0
        self._stop = weakref.finalize(self, _stop, self._held, self._loop, self._thread, self._pool, self._log)
        self._lora: Any = None
        if lora is not None:
            self._load_adapter(lora)

    @property
    def _engine(self) -> Any:
        """The engine of vLLM, until it is stopped."""
        return self._held[0]

    def submit(
        self, requests: Sequence[Request], ask: Callable[[Request], Asked | str], outbox: "queue.SimpleQueue[Any]"
    ) -> "Future[None]":
        """Begin to answer requests; each puts an `Answer` into the outbox, or the engine's death an `EngineError`.

        Args:
            requests: what to answer.
            ask: makes vLLM's request, or says why it cannot; called in threads.
            outbox: where the answers go.
        """
        return asyncio.run_coroutine_threadsafe(self._answer_all(requests, ask, outbox), self._loop)

    def close(self) -> None:
        """Stop the processes."""
        self._stop()

    async def _answer_all(
        self, requests: Sequence[Request], ask: Callable[[Request], Asked | str], outbox: "queue.SimpleQueue[Any]"
    ) -> None:
        pending = iter(requests)
        decoding = asyncio.Semaphore(DECODED)

        async def work() -> None:
            for request in pending:
                outbox.put(await self._answer(request, ask, decoding))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(len(requests), self._window())):
                    group.create_task(work())
        except BaseExceptionGroup as failures:
            error = failures.exceptions[0]
            outbox.put(error if isinstance(error, EngineError) else EngineError(f"vLLM failed: {named(error)}"))

    def _window(self) -> int:
        """Return how many requests to have in memory: as many as vLLM runs at once, and some to follow."""
        config = self._engine.vllm_config
        copies = int(config.parallel_config.data_parallel_size)
        return int(config.scheduler_config.max_num_seqs) * copies * 5 // 4 + DECODED

    async def _answer(
        self, request: Request, ask: Callable[[Request], Asked | str], decoding: asyncio.Semaphore
    ) -> Answer:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        async with decoding:
            asked = await self._loop.run_in_executor(self._pool, ask, request)
            if isinstance(asked, str):
                return Answer(request=request, error=asked)
            try:
                rendered = await self._render(asked)
            except Exception as error:  # whatever a model's processor raises over its input
                return Answer(request=request, error=_why(error))
        self._count += 1
        parameters = SamplingParams(**asked.sampling, output_kind=RequestOutputKind.FINAL_ONLY)
        output: Any = None
        try:
            name = f"ahabench-{self._count}"
            async for finished in self._engine.generate(rendered, parameters, name, lora_request=self._lora):
                output = finished
        except Exception as error:
            if type(error).__name__ == "EngineDeadError" or self._engine.errored:
                raise EngineError(self._death()) from error
            return Answer(request=request, error=_why(error), in_model=not _is_clients(error))
        if output is None or output.outputs[0].finish_reason not in {"stop", "length"}:
            reason = output.outputs[0].finish_reason if output is not None else "no output"
            return Answer(request=request, error=f"vLLM ended the request: {reason}", in_model=True)
        return Answer(
            request=request,
            tokens=list(output.outputs[0].token_ids),
            prompt_tokens=list(output.prompt_token_ids or ()),
            image_sizes=asked.image_sizes,
        )

    async def _render(self, asked: Asked) -> Any:
        """Return a request as vLLM's engine takes it: tokens, and prepared pictures."""
        from vllm.renderers.inputs.preprocess import parse_model_prompt

        renderer = self._engine.renderer
        parsed = parse_model_prompt(self._engine.model_config, dict(asked.prompt))
        tokens = renderer.default_cmpl_tok_params.with_kwargs(add_special_tokens=asked.add_special_tokens)
        (rendered,) = await renderer.render_cmpl_async([parsed], tokens)
        return rendered

    def _load_adapter(self, folder: str) -> None:
        from vllm.lora.request import LoRARequest

        self._lora = LoRARequest("adapter", 1, folder)
        try:
            asyncio.run_coroutine_threadsafe(self._engine.add_lora(self._lora), self._loop).result()
        except Exception as error:
            self.close()
            raise EngineError(f"vLLM cannot apply the adapter {folder}: {_why(error)}") from error

    def _death(self) -> str:
        return f"vLLM died: {_cause(self._log)}. What was answered is kept."


def log_to_stderr() -> None:
    """Let vLLM, once it is imported, and the processes that it starts say only what matters, and not on stdout.

    That is the command's answer. What the user's environment says goes before.
    """
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")


def _start(arguments: Mapping[str, Any], log: Path) -> Any:
    """Return vLLM's engine.

    Raises:
        EngineError: it did not start.
    """
    try:
        with _output_to(log):
            from vllm import AsyncEngineArgs, AsyncLLMEngine

            return AsyncLLMEngine.from_engine_args(AsyncEngineArgs(**arguments))
    except Exception as error:
        own = "See root cause" not in str(error) and "Engine core" not in str(error)
        raise EngineError(f"vLLM did not start: {_with_hint(_why(error)) if own else _cause(log)}") from error


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Let this process, and those that it starts, write their output to a file: only so is the cause of a death known.

    The processes that were started go on writing there.
    """
    saved = [(number, os.dup(number)) for number in (1, 2)]
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, _ in saved:
            os.dup2(descriptor, number)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in saved:
            os.dup2(copy, number)
            os.close(copy)
        os.close(descriptor)


def _cause(log: Path) -> str:
    """Return the first error in the processes' output, which the others follow from, and what may help."""
    with suppress(OSError):
        text = log.read_text(errors="replace")[-1_000_000:]
        if found := _ERROR.search(text):
            return f"{_with_hint(found[1])} (the whole log: {log})"
    return f"its log says no more: {log}"


def _with_hint(what: str) -> str:
    lowered = what.lower()
    hint = next((hint for words, hint in _HINTS if any(word in lowered for word in words)), None)
    return f"{what.rstrip('. ')}; {hint}" if hint else what


def _why(error: BaseException) -> str:
    """Return an error on one line; vLLM wraps a request's error into one without words."""
    while not str(error) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, ValidationError):
        return error.errors()[0]["msg"]
    return named(error)


def _is_clients(error: BaseException) -> bool:
    """Return whether vLLM refused what was asked, as an over-long prompt."""
    return isinstance(error, ValueError) or any(kind.__name__ == "VLLMClientError" for kind in type(error).__mro__)


def _stop(
    held: list[Any], loop: asyncio.AbstractEventLoop, thread: threading.Thread, pool: ThreadPoolExecutor, log: Path
) -> None:
    pool.shutdown(wait=False, cancel_futures=True)
    with suppress(Exception):
        # First, or it takes its processes' end for a death and says so at length.
        asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result(timeout=10)
    with suppress(Exception):  # it may be dead already
        held[0].shutdown()
    loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout=10)
    if not loop.is_running():
        loop.close()
    # Now, while the modules are there that its destructor needs, and not at the end of the process.
    held.clear()
    gc.collect()
    log.unlink(missing_ok=True)


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
