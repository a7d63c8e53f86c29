"""OpenAI-compatible servers: their address and key, bounded replies, and what their failures mean."""

import math
import os
import re
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from ahabench.harness.errors import UsageError

if TYPE_CHECKING:
    import openai

KEY_VARIABLE = "OPENAI_API_KEY"
MAX_ERROR_BYTES = 4 * 1024
MAX_CAUSE_CHARS = 300
MIN_SECRET_CHARS = 8
"""A shorter key is no secret, and to blot it out would damage replies."""

_NO_KEY = "EMPTY"  # what local servers expect where there is no key
_BODY = "ahabench.body"
_RETRIED = frozenset({408, 409, 425, 429})
_SECONDS = re.compile(r"\d{1,6}(?:\.\d{1,6})?", re.ASCII)


class UnreachableError(Exception):
    """No completion came: the server is down, too slow, or refuses."""

    def __init__(
        self, cause: str, *, status: int = 0, again: bool = True, retry_after_s: int = 0, slow: bool = False
    ) -> None:
        """Keep the cause, which does not hold the key; HTTP's status, or 0; whether to ask again, and when.

        `slow` says that it was the time limit.
        """
        super().__init__(cause)
        self.cause = cause
        self.status = status
        self.again = again
        self.retry_after_s = retry_after_s
        self.slow = slow


class UnreadableError(Exception):
    """A reply came that is no completion, or that is too long."""


class Endpoint:
    """The address of a server, and the key for it, which stands in no message, body or `repr`."""

    def __init__(
        self, url: str, *, role: str, timeout_s: float, max_body_bytes: int, key_variable: str = KEY_VARIABLE
    ) -> None:
        """Check the address and read the key; the server is not contacted.

        Args:
            url: the server's base URL, usually ending in /v1.
            role: what the server is to the user, for errors, such as "judge".
            timeout_s: the longest silence within a request, and the longest time for the body of its reply.
            max_body_bytes: the longest reply that is read.
            key_variable: the environment variable that holds the key; without one, a placeholder is sent.

        Raises:
            UsageError: the URL or the key cannot be used.
        """
        self.url = _base_url(url, role, key_variable)
        self.timeout_s = timeout_s
        self._max_body_bytes = max_body_bytes
        self._key = _api_key(key_variable)

    def client(self) -> "openai.OpenAI":
        """Return a client that neither retries nor follows redirects; replies are to be taken by `body`.

        A redirect would turn the POST into a GET or carry the question elsewhere: it is reported instead.
        """
        import openai

        http = openai.DefaultHttpxClient(
            timeout=self.timeout_s, follow_redirects=False, event_hooks={"response": [self._read]}
        )
        return openai.OpenAI(
            base_url=self.url,
            api_key=self._key.get_secret_value(),
            max_retries=0,
            timeout=self.timeout_s,
            http_client=http,
        )

    def async_client(self) -> "openai.AsyncOpenAI":
        """Return the same as `client`, for use in an event loop."""
        import openai

        http = openai.DefaultAsyncHttpxClient(
            timeout=self.timeout_s, follow_redirects=False, event_hooks={"response": [self._read_async]}
        )
        return openai.AsyncOpenAI(
            base_url=self.url,
            api_key=self._key.get_secret_value(),
            max_retries=0,
            timeout=self.timeout_s,
            http_client=http,
        )

    def body(self, reply: Any) -> bytes:
        """Return what came, without the key, from a reply of the library's `with_streaming_response`."""
        body: bytes = reply.http_response.extensions[_BODY]
        return body

    def failure(self, error: "openai.APIError") -> UnreachableError | UnreadableError:
        """Return what an error of the library means."""
        import openai

        # openai 2 wraps what a hook raises, openai 3 lets it through.
        error = error.__cause__ if isinstance(error.__cause__, openai.APIError) else error
        match error:
            case openai.APIResponseValidationError():
                return UnreadableError(f"the reply is longer than {self._max_body_bytes:,} bytes")
            case openai.APIStatusError(status_code=status):
                return UnreachableError(
                    f"HTTP {status}: {one_line(error.message)}",
                    status=status,
                    again=status >= 500 or status in _RETRIED,
                    retry_after_s=retry_after_s(error.response.headers.get("retry-after", "")),
                )
            case openai.APITimeoutError():
                return self.too_slow(self.timeout_s)
        cause = error.__cause__ or error
        text = self._without_key(f"{type(cause).__name__}: {cause}".encode(errors="replace"))
        return UnreachableError(one_line(text.decode()))

    def too_slow(self, seconds: float) -> UnreachableError:
        """Return the failure of a request that was given up after so many seconds."""
        return UnreachableError(f"no reply within {round(seconds, 2):g} s", slow=True)

    # Hooks of the clients: there the library still translates what a broken connection raises. The type is httpx's or
    # httpx2's Response, by openai's version.

    def _read(self, response: Any) -> None:
        reading = _Reading(response, self.timeout_s, self._max_body_bytes)
        for chunk in response.iter_bytes():
            if reading.is_enough(chunk):
                break
        self._keep(reading)

    async def _read_async(self, response: Any) -> None:
        reading = _Reading(response, self.timeout_s, self._max_body_bytes)
        async for chunk in response.aiter_bytes():
            if reading.is_enough(chunk):
                break
        self._keep(reading)

    def _keep(self, reading: "_Reading") -> None:
        import openai

        response, text = reading.response, self._without_key(bytes(reading.body))
        if not response.is_success:
            message = text[: reading.limit].decode(errors="replace")
            raise openai.APIStatusError(message, response=response, body=None)
        if len(reading.body) > reading.limit:
            raise openai.APIResponseValidationError(response, body=None)
        response.extensions[_BODY] = text

    def _without_key(self, text: bytes) -> bytes:
        """Return the text with the key blotted out, for some servers quote it when they refuse it."""
        key = self._key.get_secret_value()
        return text.replace(key.encode(), b"***") if len(key) >= MIN_SECRET_CHARS else text


class _Reading:
    """A body as it arrives, for the library would read an endless or a dripping one for ever."""

    def __init__(self, response: Any, timeout_s: float, max_body_bytes: int) -> None:
        self.response = response
        self.body = bytearray()
        self.limit = max_body_bytes if response.is_success else MAX_ERROR_BYTES
        self._deadline = time.monotonic() + timeout_s

    def is_enough(self, chunk: bytes) -> bool:
        """Add a chunk, and return whether the body is longer than it may be."""
        import openai

        self.body += chunk
        if time.monotonic() > self._deadline:
            raise openai.APITimeoutError(request=self.response.request)
        return len(self.body) > self.limit


def retry_after_s(header: str) -> int:
    """Return the whole seconds that a Retry-After header asks for, rounded up; 0 where it says nothing that is known.

    A number of seconds, or a date, as RFC 9110 (section 10.2.3) has it; some servers send fractions.

    >>> retry_after_s("2"), retry_after_s("0.2"), retry_after_s("soon")
    (2, 1, 0)
    """
    header = header.strip()
    if _SECONDS.fullmatch(header):
        return math.ceil(float(header))
    try:
        date = parsedate_to_datetime(header[:100])
        return max(0, math.ceil((date - datetime.now(UTC)).total_seconds())) if date.tzinfo else 0
    except (ValueError, TypeError, OverflowError):
        return 0


def one_line(text: str) -> str:
    """Return the text fit for one line of an error message or a log."""
    words = " ".join("".join(char if char.isprintable() else " " for char in text[: 4 * MAX_CAUSE_CHARS]).split())
    return words if len(words) <= MAX_CAUSE_CHARS else words[: MAX_CAUSE_CHARS - 1] + "…"


def _base_url(url: str, role: str, key_variable: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isprintable() or " " in url:
        raise UsageError(f"{role} URL {one_line(url.rpartition('@')[2])!r} is not usable; wanted http://HOST:PORT/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        # It is printed and goes into manifests.
        raise UsageError(
            f"{role} URL of {parts.hostname} has more than a host and a path; the key goes into {key_variable}"
        )
    return url.rstrip("/")


def _api_key(variable: str) -> SecretStr:
    key = os.environ.get(variable, "").strip()
    if not key and variable != KEY_VARIABLE:
        raise UsageError(f"the environment variable {variable}, which is to hold the key, is not set")
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"{variable} holds characters that no HTTP header can carry; set it anew")
    return SecretStr(key or _NO_KEY)
