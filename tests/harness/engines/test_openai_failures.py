"""The engine for servers against unruly ones on this machine, and ones that die."""

import threading
import time
from collections import Counter
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from served import KEY, Serve, ask, engine, questions, request, threads
from unruly_server import MODEL, Drop, Hang, Http, completion

from ahabench.harness.errors import EngineError
from ahabench.harness.manifest import read_manifest
from ahabench.harness.progress import Lines
from ahabench.harness.runlog import read_responses
from ahabench.harness.runner import run

# Misbehaviour.

BAD: dict[str, tuple[Any, str]] = {
    "500": (Http(500, b"boom"), "HTTP 500: boom"),
    "429": (Http(429, b"slow down", {"Retry-After": "0"}), "HTTP 429: slow down"),
    "no answer": (Drop(0), "RemoteProtocolError"),
    "dropped in the middle": (Drop(200), "RemoteProtocolError"),
    "late": (Hang(60), "no reply within "),
    "no JSON": (Http(200, b'{"choices": [{"mess'), "the reply is no chat completion"),
    "a page": (Http(200, b"<html>Welcome to the proxy</html>"), "the reply is no chat completion"),
    "no choices": (completion(choices=[]), "the reply is no chat completion: choices"),
    "null choices": (completion(choices=None), "the reply is no chat completion: choices"),
    "no content": (completion(None), "the reply has no content"),
    "broken off": (completion("4", finish_reason="abort"), "the server broke the reply off"),
    "endless": (Http(200, b" " * (17 * 1024 * 1024)), "the reply is longer than 16,777,216 bytes"),
}


@pytest.mark.parametrize("bad", BAD)
def test_misbehaviour_that_passes_costs_another_attempt(serve: Serve, bad: str) -> None:
    first = [BAD[bad][0]]
    server = serve(lambda _: first.pop() if first else "fine")
    (said,) = ask(server.url, timeout_s=1)
    assert (said.text, said.error, len(server.calls)) == ("fine", None, 2)


@pytest.mark.parametrize("bad", BAD)
def test_misbehaviour_that_stays_is_an_error_of_its_item_with_its_cause(serve: Serve, bad: str) -> None:
    answer, cause = BAD[bad]
    server = serve(lambda call: answer if call.text == "question 1" else "fine")
    began = time.monotonic()
    said = ask(server.url, request(0), request(1), request(2), timeout_s=1, attempts=2)
    assert [one.text for one in said] == ["fine", None, "fine"]
    assert said[1].finish_reason == "error"
    assert str(said[1].error).startswith(cause)
    # All attempts at one request have 2 x 1 s, and the server would hang for 60 s.
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_the_server_refuses_is_an_error_at_once(serve: Serve, status: int) -> None:
    server = serve(lambda call: Http(status, b"too long") if call.text == "question 1" else "fine")
    said = ask(server.url, request(0), request(1), request(2))
    assert [one.error for one in said] == [None, f"HTTP {status}: too long", None]
    assert len(server.calls) == 3


def test_a_mixed_bag_ends_in_responses_and_errors_and_the_same_command_redoes_only_the_errors(
    serve: Serve, tmp_path: Path
) -> None:
    kinds = list(BAD)
    n_items = 6 * len(kinds)
    tries: Counter[str] = Counter()

    def moody(call: Any) -> Any:
        """Misbehave once for every third item, always for every sixth."""
        n = int(call.text.split()[-1])
        tries[call.text] += 1
        bad = n % 6 == 5 or (n % 6 == 2 and tries[call.text] == 1)
        return BAD[kinds[n // 6]][0] if bad else f"answer to {n}"

    server = serve(moody)
    plan = questions(n_items)
    told = StringIO()
    asked = engine(server.url, timeout_s=0.5, attempts=2, concurrency=16)
    manifest = run(plan, asked, tmp_path / "run", progress=Lines(told))
    assert manifest.status == "incomplete"
    rows = {row.item_id: row for row in read_responses(tmp_path / "run/sums/responses.jsonl")}
    assert len(rows) == n_items
    for n in range(n_items):
        if n % 6 == 5:
            assert rows[str(n)].text is None
            assert str(rows[str(n)].error).startswith(BAD[kinds[n // 6]][1])
        else:
            assert rows[str(n)].text == f"answer to {n}"
    assert f"{len(kinds)} of {n_items} responses failed" in told.getvalue()

    server.calls.clear()
    server.answer = lambda call: "at last"
    manifest = run(plan, engine(server.url), tmp_path / "run", progress=Lines(StringIO()))
    assert manifest.status == "complete"
    assert sorted(call.text for call in server.calls) == sorted(f"question {n}" for n in range(5, n_items, 6))


def test_the_command_says_what_failed_and_goes_on_where_it_stopped(
    serve: Serve, toy: Path, ahabench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = serve(lambda call: Http(500, b"boom") if len({c.text for c in server.calls}) > 4 else "It is 4.")
    command = ["eval", MODEL, "--engine", f"openai:{server.url}", "--engine-arg", "attempts=2"]
    command += ["--engine-arg", "concurrency=1", "--tasks", "toy", "--data", toy, "--out", tmp_path / "run"]
    ran = ahabench(*command)
    assert ran.code == 5
    assert "2 of 6 responses failed" in ran.err
    assert "HTTP 500: boom (after 2 attempts)" in ran.err
    asked = {call.text for call in server.calls}
    assert len(asked) == 6
    assert KEY not in "".join(path.read_text() for path in (tmp_path / "run").rglob("*") if path.is_file())

    done = {row.item_id for row in read_responses(tmp_path / "run/toy/responses.jsonl") if row.text is not None}
    assert len(done) == 4
    server.calls.clear()
    server.answer = lambda call: "It is 4."
    ran = ahabench(*command)
    assert ran.code == 0, ran.err
    assert len(server.calls) == 2
    manifest = read_manifest(tmp_path / "run")
    assert (manifest.status, manifest.engine.name, manifest.engine.url) == ("complete", "openai", server.url)


# Giving up.


@pytest.mark.parametrize(
    ("status", "step"), [(401, "OPENAI_API_KEY"), (403, "OPENAI_API_KEY"), (404, "usually ending in /v1")]
)
def test_a_refusal_of_the_key_or_the_model_at_the_first_request_stops_the_run(
    serve: Serve, status: int, step: str
) -> None:
    server = serve(lambda _: Http(status, b"no"))
    with pytest.raises(EngineError, match=rf"refuses 'tiny-vlm': HTTP {status}: no\..*{step}") as caught:
        ask(server.url, *map(request, range(50)), concurrency=4)
    assert "\n" not in str(caught.value)
    assert len(server.calls) <= 4


def test_a_key_without_money_stops_the_run(serve: Serve) -> None:
    server = serve(lambda _: Http(429, b'{"error": {"code": "insufficient_quota"}}'))
    with pytest.raises(EngineError, match="no quota left"):
        ask(server.url, *map(request, range(50)), concurrency=1)
    assert len(server.calls) == 1


def test_a_server_that_refuses_everything_from_the_start_stops_the_run(serve: Serve) -> None:
    server = serve(lambda _: Http(400, b"images are not supported"))
    with pytest.raises(EngineError, match=r"refused the first 16 requests.*images are not supported"):
        ask(server.url, *map(request, range(100)), concurrency=2)
    assert len(server.calls) <= 16 + 2


def test_refusals_are_borne_once_the_server_has_answered_something(serve: Serve) -> None:
    server = serve(lambda call: "fine" if call.text == "question 0" else Http(400, b"too long"))
    said = ask(server.url, *map(request, range(40)), concurrency=1)
    assert Counter(one.error for one in said) == {None: 1, "HTTP 400: too long": 39}


def test_a_server_that_dies_in_the_middle_stops_the_run_and_what_was_answered_is_kept(
    serve: Serve, tmp_path: Path
) -> None:
    def answer(call: Any) -> Any:
        if len(server.calls) == 30:
            threading.Thread(target=server.close).start()
            server.closing.wait(5)
        return f"answer to {call.text}"

    server = serve(answer)
    asked = engine(server.url, concurrency=4, attempts=2)
    with pytest.raises(EngineError, match=r"16 requests in a row .* failed.*run the same command again"):
        run(questions(300), asked, tmp_path / "run", progress=Lines(StringIO()))
    kept = {row.item_id for row in read_responses(tmp_path / "run/sums/responses.jsonl") if row.text is not None}
    assert 20 <= len(kept) < 100
    assert read_manifest(tmp_path / "run").status == "incomplete"
    assert threads() == []

    reborn = serve(port=server.port)
    manifest = run(questions(300), engine(reborn.url), tmp_path / "run", progress=Lines(StringIO()))
    assert manifest.status == "complete"
    assert {call.text.split()[-1] for call in reborn.calls} == {str(n) for n in range(300)} - kept
    assert len(reborn.calls) == 300 - len(kept)


def test_a_server_that_hangs_does_not_hang_the_run(serve: Serve) -> None:
    server = serve(lambda _: Hang(60))
    began = time.monotonic()
    with pytest.raises(EngineError, match=r"has not answered for|in a row"):
        ask(server.url, *map(request, range(1000)), timeout_s=0.3)
    # No longer than twice 2 x 0.3 s, and the last attempts; eight at a time, 1,000 requests would take 75 s.
    assert time.monotonic() - began < 30
