"""One chat completion from an OpenAI-compatible server: bounded, retried, with the API key kept out of sight."""

import os
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from ahabench.harness.errors import UsageError

if TYPE_CHECKING:
    import openai
    from openai.types.chat import ChatCompletionMessageParam
    from tenacity import RetryCallState

ATTEMPTS = 4
"""Requests per completion, the first included."""
MAX_PAUSE_S = 30.0
"""The longest pause between two attempts, whatever the server's Retry-After says."""
MAX_TOKENS = 256
MAX_BODY_BYTES = 256 * 1024
MAX_ERROR_BYTES = 4 * 1024
MAX_CAUSE_CHARS = 300
MIN_SECRET_CHARS = 8
"""A shorter key is no secret, and to blot it out would damage replies."""

Messages = list[dict[str, str]]
"""A chat: {"role", "content"} each."""

_NO_KEY = "EMPTY"  # what local servers expect where there is no key
_BODY = "ahabench.body"
_RETRIED = frozenset({408, 409, 425, 429})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A completion."""

    model: str
    """The model id that the server names, which may be more precise than the one asked for."""
    content: str


class UnreachableError(Exception):
    """No completion came: the server is down, too slow, or refuses."""

    def __init__(self, cause: str, *, status: int = 0, again: bool = True, retry_after_s: int = 0) -> None:
        """Keep the cause, which does not hold the key; HTTP's status, or 0; and whether to ask again, and when."""
        super().__init__(cause)
        self.cause = cause
        self.status = status
        self.again = again
        self.retry_after_s = retry_after_s


class UnreadableError(Exception):
    """A reply came that is no completion, or that is too long."""


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
        import openai

        self.url = _base_url(url)
        self.model = model
        self._timeout_s = timeout_s
        self._key = _api_key()
        # A redirect would turn the POST into a GET or carry the response elsewhere: it is reported instead.
        http = openai.DefaultHttpxClient(
            timeout=timeout_s, follow_redirects=False, event_hooks={"response": [self._read_bounded]}
        )
        self._openai = openai.OpenAI(
            base_url=self.url, api_key=self._key.get_secret_value(), max_retries=0, timeout=timeout_s, http_client=http
        )

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
                body: bytes = reply.http_response.extensions[_BODY]
                return body
        except openai.APIError as error:
            # openai 2 wraps what the hook raises, openai 3 lets it through.
            inner = error.__cause__ if isinstance(error.__cause__, openai.APIError) else error
            raise self._failure(inner) from None

    def _read_bounded(self, response: Any) -> None:
        """Read a body as it arrives, for the library would read an endless or a dripping one for ever.

        The type is httpx's or httpx2's Response, by openai's version. As a hook of the client it runs where the library
        still translates what a broken connection raises.
        """
        import openai

        deadline = time.monotonic() + self._timeout_s
        limit = MAX_BODY_BYTES if response.is_success else MAX_ERROR_BYTES
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if time.monotonic() > deadline:
                raise openai.APITimeoutError(request=response.request)
            if len(body) > limit:
                break
        text = self._without_key(bytes(body))
        if not response.is_success:
            raise openai.APIStatusError(text[:limit].decode(errors="replace"), response=response, body=None)
        if len(body) > limit:
            raise openai.APIResponseValidationError(response, body=None)
        response.extensions[_BODY] = text

    def _failure(self, error: "openai.APIError") -> UnreachableError | UnreadableError:
        import openai

        match error:
            case openai.APIResponseValidationError():
                return UnreadableError(f"the reply is longer than {MAX_BODY_BYTES:,} bytes")
            case openai.APIStatusError(status_code=status):
                after = re.fullmatch(r"\s*(\d{1,6})\s*", error.response.headers.get("retry-after", ""))
                return UnreachableError(
                    f"HTTP {status}: {_one_line(error.message)}",
                    status=status,
                    again=status >= 500 or status in _RETRIED,
                    retry_after_s=int(after[1]) if after else 0,
                )
            case openai.APITimeoutError():
                return UnreachableError(f"no reply within {self._timeout_s:g} s")
        cause = error.__cause__ or error
        text = self._without_key(f"{type(cause).__name__}: {cause}".encode(errors="replace"))
        return UnreachableError(_one_line(text.decode()))

    def _without_key(self, text: bytes) -> bytes:
        """Return the text with the key blotted out, for some servers quote it when they refuse it."""
        key = self._key.get_secret_value()
        return text.replace(key.encode(), b"***") if len(key) >= MIN_SECRET_CHARS else text


def _reply(body: bytes) -> Reply:
    try:
        completion = _Completion.model_validate_json(body, strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise UnreadableError(f"the reply is no chat completion: {where}: {_one_line(first['msg'])}") from None
    return Reply(model=completion.model, content=completion.choices[0].message.content or "")


def _pause_s(state: "RetryCallState") -> float:
    """Return the pause before the next attempt: from 0.25 s where nobody answers, from 1 s where a server refuses."""
    error = state.outcome.exception() if state.outcome else None
    status, asked_for = (error.status, error.retry_after_s) if isinstance(error, UnreachableError) else (0, 0)
    growing = (1.0 if status else 0.25) * 2.0 ** (state.attempt_number - 1)
    return min(MAX_PAUSE_S, max(growing, asked_for))


def _base_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isprintable() or " " in url:
        raise UsageError(f"judge URL {_one_line(url.rpartition('@')[2])!r} is not usable; wanted http://HOST:PORT/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        # It is printed and goes into manifests.
        raise UsageError(
            f"judge URL of {parts.hostname} has more than a host and a path; the key goes into OPENAI_API_KEY"
        )
    return url.rstrip("/")


def _api_key() -> SecretStr:
    key = os.environ.get("OPENAI_API_KEY", "").strip() or _NO_KEY
    if not (key.isascii() and key.isprintable()):
        raise UsageError("OPENAI_API_KEY holds characters that no HTTP header can carry; set it anew")
    return SecretStr(key)


def _one_line(text: str) -> str:
    """Return the text fit for one line of an error message or a log."""
    words = " ".join("".join(char if char.isprintable() else " " for char in text[: 4 * MAX_CAUSE_CHARS]).split())
    return words if len(words) <= MAX_CAUSE_CHARS else words[: MAX_CAUSE_CHARS - 1] + "…"
