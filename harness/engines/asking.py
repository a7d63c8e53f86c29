"""Many requests to one server at once, from a thread of their own."""

import asyncio
import logging
import queue
import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ahabench.harness.endpoint import Endpoint, UnreachableError, UnreadableError, one_line
from ahabench.harness.engines.completions import Completion, messages, read_completion, sampling_fields
from ahabench.harness.engines.data_uri import SentImage, data_uri
from ahabench.harness.engines.window import Window
from ahabench.harness.errors import DatasetError, EngineError
from ahabench.harness.sampling import Sampling
from ahabench.harness.types import Request, Response

if TYPE_CHECKING:
    import openai
    from tenacity import RetryCallState

PATIENCE = 16
"""Requests that may fail in a row, each after its attempts, before the server counts as gone.

As many may be refused, one by one, before any is answered."""
FEWEST_SILENT = 8
"""Attempts that must have failed in a row before silence says anything."""
MAX_PAUSE_S = 60.0
"""The longest pause between two attempts, whatever the server's Retry-After says."""
FIRST_PAUSE_S = 0.5
ENCODERS = 4
"""Images that are decoded at the same time."""

_OVERLOADED = frozenset({429, 503, 529})
_CLOSED = frozenset({401, 403, 404})
_NO_MONEY = "insufficient_quota"  # a 429 of OpenAI's that no pause will cure
_OLDER, _NEWER = "max_tokens", "max_completion_tokens"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is the same in all requests."""

    endpoint: Endpoint
    model: str
    sampling: Sampling
    extended: bool
    """Whether the server takes vLLM's sampling fields."""
    min_pixels: int | None
    max_pixels: int | None
    text_only: bool
    key_variable: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long and how often to try."""

    concurrency: int
    timeout_s: float
    """Of an attempt."""
    deadline_s: float
    """Of all attempts at a request and the pauses between them; waiting for a place does not count."""
    attempts: int
    """HTTP 429 does not count: the deadline bounds it."""


@dataclass(frozen=True, slots=True)
class _End:
    """Stands behind the last response."""

    error: BaseException | None


@dataclass(slots=True)
class _Effort:
    """What one request has cost."""

    attempts: int = 0
    failures: int = 0
    spent_s: float = 0.0


class _Patience:
    """Decides which failure ends the run."""

    def __init__(self, asked: Asked, limits: Limits) -> None:
        self._asked = asked
        self._silence_s = 2 * limits.deadline_s
        self._heard_at = time.monotonic()
        self._answered = False
        self._attempts_in_a_row = 0
        self._in_a_row = 0
        self._refused = 0

    def answered(self) -> None:
        self._heard_at = time.monotonic()
        self._answered = True
        self._attempts_in_a_row = 0
        self._in_a_row = 0

    def attempt_failed(self, error: UnreachableError | UnreadableError) -> None:
        """Count an attempt: a server that hangs has few requests under way, so that `failed` would notice it late.

        Raises:
            EngineError: the server has not answered anything for twice the deadline of a request.
        """
        self._attempts_in_a_row += 1
        silent_s = time.monotonic() - self._heard_at
        if self._attempts_in_a_row >= FEWEST_SILENT and silent_s > self._silence_s:
            raise EngineError(
                f"the server at {self._asked.endpoint.url} has not answered for {silent_s:.0f} s: {error}. What was "
                "answered is kept: run the same command again when it is well."
            )

    def failed(self, error: UnreachableError | UnreadableError) -> None:
        """Count a request that failed for good.

        Raises:
            EngineError: there is no point in asking on.
        """
        server = f"the server at {self._asked.endpoint.url}"
        status = error.status if isinstance(error, UnreachableError) else 0
        if status == 429 and _NO_MONEY in str(error):
            raise EngineError(f"{server} has no quota left for this key: {error}")
        if status in _CLOSED and not self._answered:
            step = (
                "Check that the URL is its base, usually ending in /v1, and that it serves this model for chat."
                if status == 404
                else f"Put a key that may use it into {self._asked.key_variable}."
            )
            raise EngineError(f"{server} refuses {self._asked.model!r}: {error}. {step}")
        if 400 <= status < 500 and status not in _CLOSED and isinstance(error, UnreachableError) and not error.again:
            self._refused += 1
            if self._refused >= PATIENCE and not self._answered:
                raise EngineError(f"{server} refused the first {PATIENCE} requests, the last one with {error}")
            return
        self._in_a_row += 1
        if self._in_a_row >= PATIENCE:
            raise EngineError(
                f"{PATIENCE} requests in a row to {server} failed, the last one with {error}. What was answered is "
                "kept: run the same command again when it is back."
            )


class Asking:
    """One round of requests: they run in a thread with an event loop of its own, so that any caller may iterate."""

    def __init__(self, asked: Asked, limits: Limits, window: Window, requests: Sequence[Request]) -> None:
        """Prepare; nothing is sent before `responses` is iterated."""
        self._asked = asked
        self._limits = limits
        self._window = window
        self._requests = requests
        self._patience = _Patience(asked, limits)
        self._longest = _OLDER
        self._results: queue.SimpleQueue[Response | _End] = queue.SimpleQueue()
        self._seats = asyncio.Semaphore(limits.concurrency)
        self._encoders = ThreadPoolExecutor(ENCODERS, thread_name_prefix="ahabench-encode")
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="ahabench-openai", daemon=True)

    def responses(self) -> Iterator[Response]:
        """Yield the responses as they arrive. A request keeps its seat until its response is taken.

        Raises:
            EngineError: there is no point in asking on.
        """
        self._task = self._loop.create_task(self._serve_all())
        self._thread.start()
        while not isinstance(result := self._results.get(), _End):
            with suppress(RuntimeError):  # the loop is closed: these are the last ones
                self._loop.call_soon_threadsafe(self._seats.release)
            yield result
        if result.error is not None:
            raise result.error

    def stop(self) -> None:
        """Give up what is under way, and wait until its connections are closed."""
        if self._task is None:
            self._loop.close()
            return
        with suppress(RuntimeError):  # the loop is closed: there is nothing to give up
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()

    def _run(self) -> None:
        assert self._task is not None
        error: BaseException | None = None
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            error = EngineError("the requests were given up")
        except BaseException as caught:  # carried to the thread that iterates
            error = caught
        finally:
            self._encoders.shutdown(cancel_futures=True)
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()
            self._results.put(_End(error))

    async def _serve_all(self) -> None:
        try:
            async with self._asked.endpoint.async_client() as client, asyncio.TaskGroup() as group:
                for request in self._requests:
                    await self._seats.acquire()
                    group.create_task(self._serve(client, request))
        except BaseExceptionGroup as group_error:
            raise group_error.exceptions[0] from None

    async def _serve(self, client: "openai.AsyncOpenAI", request: Request) -> None:
        try:
            response = await self._answer(client, request)
        except EngineError:
            raise
        except Exception as error:  # the boundary of one request for whatever libraries raise
            _log.debug("item %s, sample %d failed", request.item_id, request.sample_index, exc_info=True)
            failure = UnreadableError(f"{type(error).__name__}: {one_line(str(error))}")
            self._patience.failed(failure)
            response = _error(request, str(failure))
        self._results.put(response)

    async def _answer(self, client: "openai.AsyncOpenAI", request: Request) -> Response:
        try:
            images = await self._loop.run_in_executor(self._encoders, self._encode, request)
        except DatasetError as error:
            return _error(request, str(error))
        asked = self._asked
        body = {
            "model": asked.model,
            "messages": messages(request.prompt, [image.uri for image in images]),
            **sampling_fields(asked.sampling, request, extended=asked.extended),
        }
        effort = _Effort()
        try:
            completion = await self._ask(client, body, effort)
        except (UnreachableError, UnreadableError) as error:
            self._patience.failed(error)
            tries = f" (after {effort.attempts} attempts)" if effort.attempts > 1 else ""
            return _error(request, f"{error}{tries}")
        self._patience.answered()
        sizes = tuple((image.width, image.height) for image in images)
        return Response(
            item_id=request.item_id,
            sample_index=request.sample_index,
            text=completion.text,
            finish_reason=completion.finish_reason,
            completion_tokens=completion.completion_tokens,
            prompt_tokens=completion.prompt_tokens,
            # Without a limit of ours the server may shrink an image, and does not say so.
            image_sizes=sizes if asked.max_pixels is not None or not sizes else None,
        )

    def _encode(self, request: Request) -> list[SentImage]:
        asked = self._asked
        images = () if asked.text_only else request.images
        return [
            data_uri(image.read(), name=request.item_id, min_pixels=asked.min_pixels, max_pixels=asked.max_pixels)
            for image in images
        ]

    async def _ask(self, client: "openai.AsyncOpenAI", body: dict[str, Any], effort: _Effort) -> Completion:
        """Return the completion, after retries with growing pauses."""
        import tenacity

        def is_over(state: "RetryCallState") -> bool:
            over = effort.spent_s + state.upcoming_sleep >= self._limits.deadline_s
            return over or effort.failures >= self._limits.attempts

        def count_pause(state: "RetryCallState") -> None:
            effort.spent_s += state.upcoming_sleep

        asking = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(_may_pass),
            stop=is_over,
            wait=_pause_s,
            before_sleep=count_pause,
            sleep=asyncio.sleep,
            reraise=True,
        )
        return await asking(self._attempt, client, body, effort)

    async def _attempt(self, client: "openai.AsyncOpenAI", body: dict[str, Any], effort: _Effort) -> Completion:
        async with self._window.place() as round_:
            began = self._loop.time()
            limit_s = min(self._limits.timeout_s, self._limits.deadline_s - effort.spent_s)
            effort.attempts += 1
            try:
                async with asyncio.timeout(limit_s):
                    completion = read_completion(await self._post(client, body))
            except (TimeoutError, UnreachableError, UnreadableError) as caught:
                error = self._asked.endpoint.too_slow(limit_s) if isinstance(caught, TimeoutError) else caught
                effort.failures += not _is_rate_limit(error)
                if isinstance(error, UnreachableError) and (error.slow or error.status in _OVERLOADED):
                    self._window.complained(round_, pause_s=min(MAX_PAUSE_S, error.retry_after_s))
                if _may_pass(error):
                    self._patience.attempt_failed(error)
                raise error from None
            finally:
                effort.spent_s += self._loop.time() - began
            tokens = completion.completion_tokens or len(completion.text) // 4
            self._window.answered((self._loop.time() - began) / max(1, tokens))
            return completion

    async def _post(self, client: "openai.AsyncOpenAI", body: dict[str, Any]) -> bytes:
        """Return the body of the reply; the limit of tokens goes under the name that the server knows."""
        name = self._longest
        try:
            return await self._send(client, {**body, name: self._asked.sampling.max_new_tokens})
        except UnreachableError as error:
            if name == _NEWER or not _wants_newer_name(error):
                raise
        self._longest = _NEWER
        return await self._send(client, {**body, _NEWER: self._asked.sampling.max_new_tokens})

    async def _send(self, client: "openai.AsyncOpenAI", body: dict[str, Any]) -> bytes:
        import openai

        create: Any = client.chat.completions.with_streaming_response.create
        try:
            async with create(**body) as reply:
                return self._asked.endpoint.body(reply)
        except openai.APIError as error:
            raise self._asked.endpoint.failure(error) from None


def _is_rate_limit(error: BaseException) -> bool:
    return isinstance(error, UnreachableError) and error.status == 429


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, UnreachableError):
        return error.again and not (error.status == 429 and _NO_MONEY in error.cause)
    return isinstance(error, UnreadableError)


def _wants_newer_name(error: UnreachableError) -> bool:
    """Whether the server knows the limit of tokens by its newer name only, as OpenAI's reasoning models do."""
    said = error.cause.lower()
    return error.status == 400 and _NEWER in said and ("unsupported" in said or "not supported" in said)


def _pause_s(state: "RetryCallState") -> float:
    """Return the pause before the next attempt: growing, at least what the server asks for, and spread a little."""
    error = state.outcome.exception() if state.outcome else None
    asked_for = error.retry_after_s if isinstance(error, UnreachableError) else 0
    growing = FIRST_PAUSE_S * 2.0 ** min(20, state.attempt_number - 1)
    # Otherwise requests that were refused together would come again together.
    return min(MAX_PAUSE_S, max(growing, asked_for) * random.uniform(1, 1.25))


def _error(request: Request, error: str) -> Response:
    return Response(
        item_id=request.item_id, sample_index=request.sample_index, text=None, finish_reason="error", error=error
    )
