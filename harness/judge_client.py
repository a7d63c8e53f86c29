"""One chat completion from an OpenAI-compatible server: bounded, retried, with the API key kept out of sight."""

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ahabench.harness.endpoint import Endpoint, one_line
from ahabench.harness.endpoint import UnreachableError as UnreachableError
from ahabench.harness.endpoint import UnreadableError as UnreadableError

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam
    from tenacity import RetryCallState

ATTEMPTS = 4
"""Requests per completion, the first included."""
MAX_PAUSE_S = 30.0
"""The longest pause between two attempts, whatever the server's Retry-After says."""
MAX_TOKENS = 256
MAX_BODY_BYTES = 256 * 1024

Messages = list[dict[str, str]]
"""A chat: {"role", "content"} each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A completion."""

    model: str
    """The model id that the server names, which may be more precise than the one asked for."""
    content: str


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True)  # not extra="forbid": servers add fields of their own
    content: str | None = None


class _Choice(BaseModel):
    model_config = ConfigDict(frozen=True)
    message: _Message


class _Completion(BaseModel):
    model_config = ConfigDict(frozen=True)
    model: Annotated[str, Field(min_length=1, max_length=300)]
    choices: Annotated[list[_Choice], Field(min_length=1)]


class ChatClient:
    """A server and a model, asked at temperature 0.

    The key comes from the environment variable OPENAI_API_KEY alone and stands in no message, reply or `repr`.
    """

    def __init__(self, url: str, model: str, *, timeout_s: float) -> None:
        """Prepare the connections; the server is not contacted yet.

        Args:
            url: the server's base URL, usually ending in /v1.
            model: the name to ask for.
            timeout_s: the longest silence within a request, and the longest time for the body of its reply.

        Raises:
            UsageError: the URL or the key cannot be used.
        """
        self._endpoint = Endpoint(url, role="judge", timeout_s=timeout_s, max_body_bytes=MAX_BODY_BYTES)
        self.url = self._endpoint.url
        self.model = model
        self._timeout_s = timeout_s
        self._openai = self._endpoint.client()

    def close(self) -> None:
        """Close the connections."""
        self._openai.close()

    def complete(self, messages: Messages, stop: threading.Event) -> Reply:
        """Return the reply, after retries with growing pauses. May be called from several threads.

        Args:
            messages: the chat, without lone surrogates.
            stop: once it is set, nothing is retried and no pause lasts.

        Raises:
            UnreachableError: the last attempt failed.
            UnreadableError: what came is no completion.
        """
        import tenacity

        asking = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, UnreachableError) and error.again),
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(ATTEMPTS),
                tenacity.stop_after_delay(2 * self._timeout_s),
                tenacity.stop_when_event_set(stop),
            ),
            wait=_pause_s,
            sleep=tenacity.sleep_using_event(stop),
            reraise=True,
        )
        return _reply(asking(self._post, messages, stop))

    def _post(self, messages: Messages, stop: threading.Event) -> bytes:
        import openai

        if stop.is_set():  # during the pause before this attempt
            raise UnreachableError("given up before another attempt", again=False)
        chat: list[ChatCompletionMessageParam] = list[Any](messages)
        streamed = self._openai.chat.completions.with_streaming_response
        try:
            with streamed.create(model=self.model, messages=chat, temperature=0, max_tokens=MAX_TOKENS) as reply:
                return self._endpoint.body(reply)
        except openai.APIError as error:
            raise self._endpoint.failure(error) from None


def _reply(body: bytes) -> Reply:
    try:
        completion = _Completion.model_validate_json(body, strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise UnreadableError(f"the reply is no chat completion: {where}: {one_line(first['msg'])}") from None
    return Reply(model=completion.model, content=completion.choices[0].message.content or "")


def _pause_s(state: "RetryCallState") -> float:
    """Return the pause before the next attempt: from 0.25 s where nobody answers, from 1 s where a server refuses."""
    error = state.outcome.exception() if state.outcome else None
    status, asked_for = (error.status, error.retry_after_s) if isinstance(error, UnreachableError) else (0, 0)
    growing = (1.0 if status else 0.25) * 2.0 ** (state.attempt_number - 1)
    return min(MAX_PAUSE_S, max(growing, asked_for))
