"""The judge against real HTTP servers on this machine that are down, dying, slow, or talking nonsense."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from judging import MODEL, Serve, last_word, pairs, read_one

from ahabench.harness.errors import JudgeError
from ahabench.harness.judge import Judge

FORBIDDEN: tuple[int, dict[str, str], bytes] = (403, {}, b"closed")

# A server that cannot be used from the start.


def test_a_server_that_is_down_is_named_with_model_cause_and_next_step() -> None:
    with closing(socket.socket()) as place:
        place.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{place.getsockname()[1]}/v1"
    with Judge(url, MODEL) as judge, pytest.raises(JudgeError) as caught:
        judge.probe()
    message = str(caught.value)
    assert all(part in message for part in (url, MODEL, "refused", "Check that the server is up"))
    assert caught.value.exit_code == 2


def test_no_pair_is_read_where_the_judge_cannot_be_used(serve: Serve) -> None:
    stream = iter(pairs(3))
    server = serve(lambda _: FORBIDDEN, probed=False)
    with Judge(server.url, MODEL) as judge, pytest.raises(JudgeError, match="HTTP 403: closed"):
        next(judge.extract_all(stream))
    assert len(list(stream)) == 3


@pytest.mark.parametrize("reply", ["<think>2 + 3...</think> 5", b"<html>Welcome</html>"])
def test_a_server_that_cannot_keep_to_the_format_is_refused_at_the_start(serve: Serve, reply: Any) -> None:
    with Judge(serve(lambda _: reply, probed=False).url, MODEL) as judge:
        with pytest.raises(JudgeError, match="the reply is no"):
            judge.probe()
        assert judge.served_model is None


# A server that goes away.

MORTAL_SERVER = """
import json, os, re, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
left = int(sys.argv[1])
class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        global left
        if left == 0:
            os._exit(1)
        left -= 1
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
        last = re.search(r"(\\d+)\\.\\n<<<END", asked)[1]
        choices = [{"message": {"content": json.dumps({"answer": last})}}]
        body = json.dumps({"model": "mortal", "choices": choices}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
HTTPServer.request_queue_size = 64
server = HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextmanager
def mortal(replies: int) -> Iterator[str]:
    """A server process that dies at the request after `replies`."""
    command = [sys.executable, "-c", MORTAL_SERVER, str(replies)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.kill()


def test_a_server_that_dies_halfway_leaves_what_it_finished_and_fails_the_rest_at_once(tmp_path: Path) -> None:
    cache = tmp_path / "judge.sqlite"
    started = time.monotonic()
    with mortal(1 + 6) as url, Judge(url, MODEL, cache=cache, max_concurrency=4) as judge:
        found = list(judge.extract_all(pairs(2_000)))
    # Four requests meet the death together: three pauses (0.25 + 0.5 + 1 s) once, not 2,000 times.
    assert time.monotonic() - started < 120
    assert len(found) == 2_000
    answered = [extraction for extraction in found if extraction.answer is not None]
    assert sorted(int(e.answer or "") for e in answered) == sorted(int(e.item_id) ** 2 for e in answered)
    assert len(answered) == 6
    lost = [extraction for extraction in found if extraction.answer is None]
    assert all(extraction.failed and extraction.cause for extraction in lost)
    assert sum("stopped answering" in (extraction.cause or "") for extraction in lost) >= 1_980

    with mortal(1 + 14) as url, Judge(url, MODEL, cache=cache) as judge:
        again = list(judge.extract_all(pairs(20)))
        assert (judge.cache_hits, judge.asked) == (6, 14)
    assert {e.item_id: e.answer for e in again} == {str(n): str(n * n) for n in range(20)}


def test_what_the_cache_holds_is_given_even_after_the_judge_is_gone(serve: Serve, tmp_path: Path) -> None:
    cache = tmp_path / "judge.sqlite"
    with Judge(serve().url, MODEL, cache=cache) as judge:
        assert [e.answer for e in judge.extract_all(pairs(10)[9:])] == ["81"]
    with Judge(serve(lambda _: FORBIDDEN).url, MODEL, cache=cache, max_concurrency=4) as judge:
        found = {e.item_id: e for e in judge.extract_all(pairs(10))}
        assert judge.asked < 9
    assert (found["9"].answer, found["9"].failed) == ("81", False)
    assert all(found[str(n)].failed for n in range(9))


def test_a_reading_slower_than_the_timeout_fails(serve: Serve) -> None:
    asleep = threading.Event()
    with Judge(serve(lambda _: asleep.wait(5) and "").url, MODEL, timeout_s=0.5) as judge:
        extraction = read_one(judge, "It is 1.")
    asleep.set()
    assert (extraction.answer, extraction.failed, extraction.cause) == (None, True, "no reply within 0.5 s")


def test_a_server_that_only_fails_is_given_up_after_three_readings(serve: Serve) -> None:
    with Judge(serve(lambda _: FORBIDDEN).url, MODEL, max_concurrency=3) as judge:
        found = list(judge.extract_all(pairs(100)))
        # The first two failures let two further readings in; the third ends the round.
        assert 3 <= judge.asked <= 5
    assert len(found) == 100
    assert all(extraction.failed and extraction.cause for extraction in found)


def test_failures_between_successes_do_not_end_a_round(serve: Serve) -> None:
    server = serve(lambda call: last_word(call) if call.number % 3 == 2 else FORBIDDEN)
    with Judge(server.url, MODEL, max_concurrency=1) as judge:
        found = {e.item_id: e.failed for e in judge.extract_all(pairs(18))}
    assert found == {str(n): n % 3 != 2 for n in range(18)}
    assert len(server.readings) == 18


def test_refused_requests_fail_alone(serve: Serve) -> None:
    server = serve(lambda call: last_word(call) if call.number < 3 else (400, {}, b"context too long"))
    with Judge(server.url, MODEL, max_concurrency=1) as judge:
        found = {e.item_id: (e.answer, e.cause) for e in judge.extract_all(pairs(10))}
    refused = (None, "HTTP 400: context too long")
    assert found == {"0": ("0", None), "1": ("1", None), "2": ("4", None)} | {str(n): refused for n in range(3, 10)}
    assert len(server.readings) == 10


def test_a_reply_from_another_model_than_the_probed_one_is_not_taken(serve: Serve) -> None:
    server = serve()
    with Judge(server.url, MODEL) as judge:
        judge.probe()
        server.model = "stranger"
        extraction = read_one(judge, "It is 1.")
    assert (extraction.answer, extraction.failed) == (None, True)
    assert "stranger" in (extraction.cause or "")


# Garbage.


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("The answer is 4.", id="prose"),
        pytest.param('{"answer": "4"', id="cut off"),
        pytest.param('Sure! {"answer": "4"}', id="prose around it"),
        pytest.param('{"answer": "4"} {"answer": "5"}', id="two objects"),
        pytest.param('{"answer": "4", "answer": "5"}', id="two answers"),
        pytest.param('{"answer": "4", "why": "x"}', id="another key"),
        pytest.param('{"Answer": "4"}', id="wrong key"),
        pytest.param('{"answer": 4}', id="a number"),
        pytest.param('{"answer": {}}', id="an object"),
        pytest.param('[["answer", "4"]]', id="a list that looks like an object"),
        pytest.param('{"answer": " "}', id="blank"),
        pytest.param('{"answer": NaN}', id="not a number"),
        pytest.param('{"answer": "%s"}' % ("4" * 501), id="a long answer"),
        pytest.param('{"answer": "4"}' + " " * 5_000, id="a long reply"),
        pytest.param("[" * 1_999, id="deep"),
        pytest.param("null", id="null"),
        pytest.param(None, id="no text"),
        pytest.param(b"<html>Welcome</html>", id="html"),
        pytest.param(b'{"model": "reader-2026-01-31", "choices": []}', id="no choices"),
        pytest.param(b"x" * 2_000_000, id="huge"),
    ],
)
def test_garbage_is_no_answer_with_a_cause_and_is_not_cached(serve: Serve, content: Any, tmp_path: Path) -> None:
    server = serve(lambda _: content)
    with Judge(server.url, MODEL, cache=tmp_path / "judge.sqlite") as judge:
        extraction = read_one(judge, "It is 4.")
        assert len(server.readings) == 1
        read_one(judge, "It is 4.")
        assert len(server.readings) == 2
    assert (extraction.answer, extraction.failed) == (None, False)
    assert extraction.cause
    assert extraction.cause.startswith("the reply ")


def test_garbage_does_not_end_a_round(serve: Serve) -> None:
    with Judge(serve(lambda call: last_word(call) if call.number >= 10 else "well...").url, MODEL) as judge:
        found = {e.item_id: e.answer for e in judge.extract_all(pairs(20))}
    assert found == {str(n): None if n < 10 else str(n * n) for n in range(20)}


def test_a_code_fence_around_the_whole_reply_is_forgiven(serve: Serve) -> None:
    with Judge(serve(lambda _: '```json\n{"answer": "B, D"}\n```').url, MODEL) as judge:
        assert read_one(judge, "B and D").answer == "B, D"
