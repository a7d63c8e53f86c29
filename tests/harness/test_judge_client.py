"""One completion from real HTTP servers on this machine: failing, slow, talking nonsense, or asking for the key."""

import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from ahabench.harness.errors import UsageError
from ahabench.harness.judge_client import ChatClient, Reply, UnreachableError, UnreadableError

MODEL = "reader"
SERVED = "reader-2026-01-31"
KEY = "sk-very-secret-0123456789"
CHAT = [{"role": "user", "content": "Say something."}]

Serve = Callable[..., Any]


def ask(url: str, *, timeout_s: float = 10, stop: threading.Event | None = None) -> Reply:
    with closing(ChatClient(url, MODEL, timeout_s=timeout_s)) as client:
        return client.complete(CHAT, stop or threading.Event())


def once(first: Any, then: Any) -> Callable[[Any], Any]:
    """Give the first answer to the first call and the other one to the rest."""
    answers = [first]
    return lambda _: answers.pop() if answers else then


def test_a_reply_has_its_content_and_the_id_of_the_model_that_gave_it(serve: Serve) -> None:
    server = serve(lambda _: "Hello.")
    assert ask(server.url) == Reply(model=SERVED, content="Hello.")
    assert [call.body["messages"] for call in server.calls] == [CHAT]


def test_a_trailing_slash_of_the_url_is_of_no_account(serve: Serve) -> None:
    assert ask(serve(lambda _: "Hello.").url + "/").content == "Hello."


def test_requests_are_greedy_and_bounded(serve: Serve) -> None:
    server = serve(lambda _: "Hello.")
    ask(server.url)
    (call,) = server.calls
    assert (call.body["model"], call.body["temperature"], call.body["max_tokens"]) == (MODEL, 0, 256)


# Failures.


def test_a_server_that_fails_once_is_asked_again(serve: Serve) -> None:
    server = serve(once((500, {}, b"warming up"), "Hello."))
    assert ask(server.url).content == "Hello."
    assert len(server.calls) == 2


def test_a_servers_wish_to_be_left_alone_for_a_while_is_kept(serve: Serve) -> None:
    server = serve(once((429, {"Retry-After": "2"}, b"slow down"), "Hello."))
    assert ask(server.url).content == "Hello."
    first, second = server.calls
    # Without the header it would be 1 s.
    assert second.at - first.at >= 2


def test_a_server_that_always_fails_is_given_up_with_its_own_words(serve: Serve) -> None:
    server = serve(lambda _: (503, {}, b"out of\n memory"))
    with pytest.raises(UnreachableError, match=r"^HTTP 503: out of memory$") as caught:
        ask(server.url, timeout_s=0.4)
    assert caught.value.status == 503
    # 0.8 s to try in, 1 s between attempts.
    assert len(server.calls) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_is_final(serve: Serve, status: int) -> None:
    server = serve(lambda _: (status, {}, b"no"))
    with pytest.raises(UnreachableError, match=f"^HTTP {status}: no$"):
        ask(server.url)
    assert len(server.calls) == 1


def test_a_redirect_is_reported_and_not_followed(serve: Serve) -> None:
    elsewhere = serve(lambda _: "Hello.")
    server = serve(lambda _: (307, {"Location": f"{elsewhere.url}/chat/completions"}, b""))
    with pytest.raises(UnreachableError, match="HTTP 307"):
        ask(server.url)
    assert elsewhere.calls == []


def test_nothing_is_sent_once_a_stop_was_asked_for(serve: Serve) -> None:
    server = serve(lambda _: "Hello.")
    stop = threading.Event()
    stop.set()
    with pytest.raises(UnreachableError):
        ask(server.url, stop=stop)
    assert server.calls == []


def test_a_stop_ends_the_pause_between_attempts(serve: Serve) -> None:
    stop = threading.Event()

    def busy(_: Any) -> Any:
        threading.Timer(0.2, stop.set).start()
        return 429, {"Retry-After": "60"}, b"slow down"

    server = serve(busy)
    started = time.monotonic()
    with pytest.raises(UnreachableError):
        ask(server.url, timeout_s=60, stop=stop)
    assert time.monotonic() - started < 30
    assert len(server.calls) == 1


def test_a_reply_slower_than_the_timeout_is_a_failure_that_says_so(serve: Serve) -> None:
    asleep = threading.Event()
    server = serve(lambda _: asleep.wait(60) and "Hello.")
    started = time.monotonic()
    with pytest.raises(UnreachableError, match=r"^no reply within 0\.3 s$"):
        ask(server.url, timeout_s=0.3)
    asleep.set()
    # 0.6 s to try in: attempts at 0 s and 0.55 s.
    assert time.monotonic() - started < 30


@contextmanager
def endless(head: bytes, *, piece: bytes = b" ", pause_s: float = 0.05) -> Iterator[str]:
    """A server that never ends its reply."""
    stop = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def drip(connection: socket.socket) -> None:
        with closing(connection):
            connection.recv(65_536)
            connection.sendall(head)
            try:
                while not stop.wait(pause_s):
                    connection.sendall(piece)
            except OSError:
                return  # the client hung up

    def accept() -> None:
        listener.settimeout(0.05)
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            connection.settimeout(None)
            threading.Thread(target=drip, args=[connection]).start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        stop.set()
        accepting.join()
        listener.close()


@pytest.mark.parametrize("status", ["200 OK", "500 Internal Server Error"])
def test_a_reply_that_drips_for_ever_is_a_failure(status: str) -> None:
    started = time.monotonic()
    # Each byte is in time, the whole never is.
    with (
        endless(f"HTTP/1.1 {status}\r\nContent-Length: 100000\r\n\r\n".encode()) as url,
        pytest.raises(UnreachableError, match=r"no reply within 0\.2 s"),
    ):
        ask(url, timeout_s=0.2)
    assert time.monotonic() - started < 30  # the whole would take 5,000 s


# Garbage.


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"<html>Welcome to the proxy</html>", id="html"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\xfe\x00", id="bytes"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b'{"model": "m", "choices": []}', id="no choices"),
        pytest.param(b'{"model": "m", "choices": null}', id="null choices"),
        pytest.param(b'{"model": "m", "choices": [{"text": "4"}]}', id="no message"),
        pytest.param(b'{"model": "m", "choices": [{"message": {"content": 4}}]}', id="number"),
        pytest.param(b'{"choices": [{"message": {"content": "4"}}]}', id="no model"),
    ],
)
def test_a_body_that_is_no_completion_is_unreadable_and_not_asked_for_again(serve: Serve, body: bytes) -> None:
    server = serve(lambda _: body)
    with pytest.raises(UnreadableError, match=r"^the reply is no chat completion: "):
        ask(server.url)
    assert len(server.calls) == 1


def test_a_body_longer_than_the_bound_is_unreadable(serve: Serve) -> None:
    whole = b'{"model": "m", "choices": [{"message": {"content": "4"}}]}'
    assert ask(serve(lambda _: whole + b" " * 100_000).url).content == "4"
    with pytest.raises(UnreadableError, match="longer than 262,144 bytes"):
        ask(serve(lambda _: whole + b" " * 2_000_000).url)


def test_a_body_without_an_end_is_unreadable_long_before_the_timeout() -> None:
    with (
        endless(b"HTTP/1.1 200 OK\r\n\r\n", piece=b" " * 65_536, pause_s=0) as url,
        pytest.raises(UnreadableError, match="longer than 262,144 bytes"),
    ):
        ask(url, timeout_s=5)


def test_a_very_long_error_page_is_cut_off(serve: Serve) -> None:
    with pytest.raises(UnreachableError, match=r"^HTTP 403: <p>") as caught:
        ask(serve(lambda _: (403, {}, b"<p>" * 1_000_000)).url)
    assert len(caught.value.cause) < 400


def test_a_cause_is_one_line_without_control_characters(serve: Serve) -> None:
    with pytest.raises(UnreachableError) as caught:
        ask(serve(lambda _: (403, {}, b"red \x1b[31m\r\nalert\x00")).url)
    assert caught.value.cause == "HTTP 403: red [31m alert"


# The address and the key.


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "ftp://host/v1", "http://", "http://[::1/v1", "http://h:x/v1", ""]
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="http://HOST:PORT/v1"):
        ChatClient(url, MODEL, timeout_s=1)


def test_the_key_of_the_environment_is_sent(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(lambda _: "Hello.")
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    ask(server.url)
    assert [call.authorization for call in server.calls] == [f"Bearer {KEY}"]


def test_a_server_without_a_key_gets_the_customary_placeholder(serve: Serve) -> None:
    server = serve(lambda _: "Hello.")
    ask(server.url)
    assert [call.authorization for call in server.calls] == ["Bearer EMPTY"]


def test_the_key_is_in_no_error_reply_log_or_repr_even_if_the_server_repeats_it(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    refusing = serve(lambda call: (401, {}, f"bad key {call.authorization}".encode()))
    repeating = serve(lambda call: f"your key is {call.authorization}")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(UnreachableError, match=re.escape("HTTP 401: bad key Bearer ***")) as caught:
        ask(refusing.url)
    error: BaseException | None = caught.value
    shown = []
    while error is not None:
        shown += [repr(error), str(error)]
        error = error.__cause__ or error.__context__
    assert ask(repeating.url).content == "your key is Bearer ***"
    client = ChatClient(repeating.url, MODEL, timeout_s=1)
    shown += [repr(client), repr(vars(client)), caplog.text]
    client.close()
    assert KEY not in "".join(shown)


@pytest.mark.parametrize("url", [f"http://user:{KEY}@host/v1", f"https://host/v1?api-key={KEY}", f"http//:{KEY}@host"])
def test_a_key_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        ChatClient(url, MODEL, timeout_s=1)
    assert KEY not in str(caught.value)


def test_a_key_that_no_header_can_carry_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\r\nX-Evil: 1")
    with pytest.raises(UsageError, match="OPENAI_API_KEY") as caught:
        ChatClient("http://127.0.0.1:1/v1", MODEL, timeout_s=1)
    assert KEY not in str(caught.value)
