"""The engine for servers against real HTTP servers on this machine: good ones, unruly ones, and ones that die."""

import base64
import importlib.util
import io
import json
import logging
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ahabench.harness import dataset as data
from ahabench.harness.dataset import Dataset
from ahabench.harness.engines import asking, open_engine
from ahabench.harness.engines.openai import OpenAIEngine, OpenAIOptions
from ahabench.harness.engines.sampler import row_seed
from ahabench.harness.errors import EngineError, UsageError
from ahabench.harness.images import ImageFile
from ahabench.harness.manifest import read_manifest
from ahabench.harness.progress import Lines
from ahabench.harness.runlog import read_responses
from ahabench.harness.runner import Plan, TaskPlan, run
from ahabench.harness.sampling import Sampling
from ahabench.harness.types import AnswerType, ImageSource, Item, Prompt, PromptStyle, Request, Response, Split, Task

# pytest's importlib mode puts no folder of tests on the path.
_SPEC = importlib.util.spec_from_file_location("unruly_server", Path(__file__).with_name("unruly_server.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
unruly = importlib.util.module_from_spec(_SPEC)
sys.modules["unruly_server"] = unruly
_SPEC.loader.exec_module(unruly)

MODEL, Call, Drop, Hang, Http, completion = (
    unruly.MODEL,
    unruly.Call,
    unruly.Drop,
    unruly.Hang,
    unruly.Http,
    unruly.completion,
)
KEY = "sk-very-secret-0123456789"
QUICK: dict[str, Any] = {"timeout_s": 5, "attempts": 3}

Serve = Callable[..., Any]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts servers; pauses between attempts are short."""
    for name in ("OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(asking, "FIRST_PAUSE_S", 0.02)
    with ExitStack() as stack:

        def start(*arguments: Any, **options: Any) -> Any:
            server = unruly.UnrulyServer(*arguments, **options)
            stack.callback(lambda: None if server.closing.is_set() else server.close())
            return server

        yield start


@dataclass(frozen=True)
class Bytes:
    """An image in memory."""

    content: bytes

    def read(self) -> bytes:
        return self.content


def request(n: int = 0, *, sample: int = 0, images: tuple[ImageSource, ...] = (), **prompt: Any) -> Request:
    return Request(
        item_id=f"i{n}", sample_index=sample, prompt=Prompt(**{"text": f"question {n}", **prompt}), images=images
    )


def engine(url: str, model: str = MODEL, *, sampling: Sampling | None = None, **options: Any) -> OpenAIEngine:
    pixels = {name: options.pop(name) for name in ("min_pixels", "max_pixels") if name in options}
    return OpenAIEngine(
        url, model, sampling=sampling or Sampling(), options=OpenAIOptions(**{**QUICK, **options}), **pixels
    )


def ask(url: str, *requests: Request, **options: Any) -> list[Response]:
    return sorted(engine(url, **options).generate(requests or (request(),)), key=lambda one: one.item_id)


def png(width: int, height: int, mode: str = "RGB", format: str = "PNG", **save: Any) -> bytes:
    from PIL import Image

    picture = Image.effect_noise((width, height), 60).convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, format, **save)
    return buffer.getvalue()


def sent_image(call: Any) -> tuple[str, bytes]:
    """The media type and the bytes of a call's only image."""
    (uri,) = [part["image_url"]["url"] for part in call.content if part["type"] == "image_url"]
    head, _, rest = uri.partition(",")
    return head, base64.b64decode(rest, validate=True)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ahabench")]


# What is asked.


def test_a_response_has_the_servers_text_finish_reason_and_counts_of_tokens(serve: Serve) -> None:
    server = serve(lambda _: completion("42", finish_reason="length"))
    assert ask(server.url) == [
        Response(item_id="i0", text="42", finish_reason="length", completion_tokens=3, prompt_tokens=7, image_sizes=())
    ]


def test_a_greedy_request_has_only_fields_that_every_server_takes(serve: Serve) -> None:
    server = serve()
    ask(server.url, request(system="Think."), sampling=Sampling(max_new_tokens=99))
    assert server.calls[0].body == {
        "model": MODEL,
        "messages": [{"role": "system", "content": "Think."}, {"role": "user", "content": "question 0"}],
        "temperature": 0,
        "max_tokens": 99,
    }


def test_sampling_is_sent_as_it_was_asked_for(serve: Serve) -> None:
    server = serve()
    sampling = Sampling(temperature=0.5, top_p=0.9, top_k=20, repetition_penalty=1.05, seed=3)
    ask(server.url, sampling=sampling)
    body = server.calls[0].body
    names = ("temperature", "top_p", "top_k", "repetition_penalty")
    assert [body[name] for name in names] == [0.5, 0.9, 20, 1.05]
    assert "min_p" not in body


def test_vllm_is_told_also_what_changes_nothing_since_it_would_take_the_models_own_settings(serve: Serve) -> None:
    server = serve(owner="vllm", version="0.32.0")
    ask(server.url)
    body = server.calls[0].body
    names = ("temperature", "top_p", "top_k", "repetition_penalty", "min_p")
    assert [body[name] for name in names] == [0, 1, -1, 1, 0]


def test_each_sample_of_an_item_has_its_own_seed_that_does_not_depend_on_company(serve: Serve) -> None:
    server = serve()
    sampling = Sampling(temperature=1.0, seed=5)
    ask(server.url, request(1), request(2, sample=0), request(2, sample=1), sampling=sampling)
    seeds = {(call.text, call.body["seed"]) for call in server.calls}
    # The upper 31 of 64 bits: 2 ** 33 of the possible seeds share each.
    wanted = {("question 2", row_seed(5, request(2, sample=s)) // 2**33) for s in (0, 1)}
    assert len(seeds) == 3
    assert wanted < seeds
    assert all(0 <= seed < 2**31 for _, seed in seeds)


def test_images_precede_the_text_or_follow_it_as_the_prompt_says(serve: Serve) -> None:
    server = serve()
    picture = Bytes(png(30, 30))
    ask(server.url, request(images=(picture,)), concurrency=1)
    ask(server.url, request(images=(picture,), image_last=True), concurrency=1)
    kinds = [[part["type"] for part in call.content] for call in server.calls]
    assert kinds == [["image_url", "text"], ["text", "image_url"]]


def test_without_images_for_a_model_that_takes_none(serve: Serve) -> None:
    server = serve()
    asked = engine(server.url, text_only=True)
    (said,) = asked.generate([request(images=(Bytes(png(30, 30)),))])
    assert server.calls[0].content == "question 0"
    assert said.image_sizes == ()
    assert asked.info.model.text_only is True


def test_half_a_surrogate_pair_in_a_question_does_not_stop_it(serve: Serve) -> None:
    server = serve()
    (said,) = ask(server.url, request(text="a\ud800b"))
    assert said.text == "answer to a?b"


def test_a_server_that_wants_the_newer_name_for_the_limit_of_tokens_gets_it(serve: Serve) -> None:
    refusal = {
        "error": {
            "message": "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
            "param": "max_tokens",
        }
    }

    def answer(call: Any) -> Any:
        return Http(400, json.dumps(refusal).encode()) if "max_tokens" in call.body else "fine"

    server = serve(answer)
    said = ask(server.url, request(0), request(1), request(2), concurrency=1)
    assert [one.text for one in said] == ["fine"] * 3
    names = ["max_tokens" if "max_tokens" in call.body else "max_completion_tokens" for call in server.calls]
    assert names == ["max_tokens", *["max_completion_tokens"] * 3]


def test_a_limit_of_tokens_that_is_too_large_is_no_question_of_its_name(serve: Serve) -> None:
    said = b"'max_tokens' or 'max_completion_tokens' is too large: 9999. The maximum context length is 4096 tokens"
    server = serve(lambda _: Http(400, said))
    (response,) = ask(server.url)
    assert response.error == f"HTTP 400: {said.decode()}"
    assert len(server.calls) == 1


# Images.


def test_the_bytes_of_an_image_go_untouched_where_no_limit_is_given(serve: Serve) -> None:
    server = serve()
    files = {"image/png": png(50, 40), "image/jpeg": png(50, 40, format="JPEG"), "image/webp": png(9, 9, format="WEBP")}
    for content in files.values():
        (said,) = ask(server.url, request(images=(Bytes(content),)))
        assert said.image_sizes is None  # the server may resize it and does not say so
    assert [sent_image(call) for call in server.calls] == [
        (f"data:{mime};base64", content) for mime, content in files.items()
    ]


def test_an_image_within_the_limits_goes_untouched(serve: Serve) -> None:
    server = serve()
    content = png(100, 90)
    (said,) = ask(server.url, request(images=(Bytes(content),)), min_pixels=8000, max_pixels=10_000)
    assert sent_image(server.calls[0])[1] == content
    assert said.image_sizes == ((100, 90),)


@pytest.mark.parametrize(
    ("size", "limits", "wanted"),
    [
        # 307,200 px are 3.92 times too many: edges / 1.98 are 323 and 242, so 11 and 8 patches of 28.
        ((640, 480), (None, 78_400), (308, 224)),
        # 1,200 px are a sixth of 7,200: edges x 2.45 are 98 and 73.5, so 4 and 3 patches, rounded up.
        ((40, 30), (7_200, 78_400), (112, 84)),
    ],
)
def test_an_image_beyond_the_limits_is_resized_and_its_size_recorded(
    serve: Serve, size: tuple[int, int], limits: tuple[int | None, int], wanted: tuple[int, int]
) -> None:
    from PIL import Image

    server = serve()
    asked = engine(server.url, min_pixels=limits[0], max_pixels=limits[1])
    (said,) = asked.generate([request(images=(Bytes(png(*size)),))])
    head, content = sent_image(server.calls[0])
    assert head == "data:image/png;base64"
    assert Image.open(io.BytesIO(content)).size == wanted
    assert said.image_sizes == (wanted,)
    assert (asked.info.pixels.min, asked.info.pixels.max) == limits


def test_a_turned_or_transparent_image_goes_as_every_engine_sees_it(serve: Serve) -> None:
    from PIL import Image

    server = serve()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    turned = png(60, 20, format="JPEG", exif=exif)
    clear = io.BytesIO()
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(clear, "PNG")
    ask(server.url, request(images=(Bytes(turned),)))
    ask(server.url, request(images=(Bytes(clear.getvalue()),)))
    first, second = (Image.open(io.BytesIO(sent_image(call)[1])) for call in server.calls)
    assert first.size == (20, 60)
    assert second.convert("RGB").getpixel((4, 4)) == (255, 255, 255)


def test_an_image_that_cannot_be_read_is_an_error_of_its_item_alone(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    broken = [request(n, images=(Bytes(png(30, 30)[:200]),)) for n in range(20)]
    missing = request(20, images=(ImageFile(tmp_path / "gone.png"),))
    said = {one.item_id: one for one in ask(server.url, *broken, missing, request(21))}
    assert said["i21"].text == "answer to question 21"
    assert "cannot be decoded" in str(said["i0"].error)
    assert "gone.png" in str(said["i20"].error)
    assert len(server.calls) == 1


# What is read.


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_that_the_server_keeps_apart_is_put_before_the_content(serve: Serve, name: str) -> None:
    server = serve(lambda _: completion("\n\n4", message={name: "2 and 2"}))
    assert ask(server.url)[0].text == "<think>2 and 2</think>\n\n4"


def test_reasoning_that_was_cut_off_is_not_closed(serve: Serve) -> None:
    server = serve(lambda _: completion(None, message={"reasoning_content": "2 and"}, finish_reason="length"))
    assert ask(server.url)[0].text == "<think>2 and"


@pytest.mark.parametrize(
    ("said", "text", "reason"),
    [
        (completion("", finish_reason="stop"), "", "stop"),
        (completion(None, finish_reason="length"), "", "length"),
        (completion("4", finish_reason="MAX_TOKENS"), "4", "length"),
        (completion("4", finish_reason="end_turn"), "4", "stop"),
        (completion(None, finish_reason="content_filter"), "", "content_filter"),
        (completion(None, message={"refusal": "I will not."}), "I will not.", "stop"),
        (completion("4", finish_reason=None), "4", None),
        (completion("4", usage=None), "4", "stop"),
    ],
)
def test_what_a_model_may_do_is_a_response(serve: Serve, said: Any, text: str, reason: str | None) -> None:
    (one,) = ask(serve(lambda _: said).url)
    assert (one.text, one.finish_reason, one.error) == (text, reason, None)


# Misbehaviour.

BAD: dict[str, tuple[Any, str]] = {
    "500": (Http(500, b"boom"), "HTTP 500: boom"),
    "429": (Http(429, b"slow down", {"Retry-After": "0"}), "HTTP 429: slow down"),
    "no answer": (Drop(0), "RemoteProtocolError"),
    "dropped in the middle": (Drop(200), "RemoteProtocolError"),
    "late": (Hang(60), "no reply within 0."),
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
    (said,) = ask(server.url, timeout_s=0.5)
    assert (said.text, said.error, len(server.calls)) == ("fine", None, 2)


@pytest.mark.parametrize("bad", BAD)
def test_misbehaviour_that_stays_is_an_error_of_its_item_with_its_cause(serve: Serve, bad: str) -> None:
    answer, cause = BAD[bad]
    server = serve(lambda call: answer if call.text == "question 1" else "fine")
    began = time.monotonic()
    said = ask(server.url, request(0), request(1), request(2), timeout_s=0.5, attempts=2)
    assert [one.text for one in said] == ["fine", None, "fine"]
    assert said[1].finish_reason == "error"
    assert str(said[1].error).startswith(cause)
    # All attempts at one request have 2 x 0.5 s.
    assert time.monotonic() - began < 5


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
    plan = plan_of(n_items)
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
        run(plan_of(300), asked, tmp_path / "run", progress=Lines(StringIO()))
    kept = {row.item_id for row in read_responses(tmp_path / "run/sums/responses.jsonl") if row.text is not None}
    assert 20 <= len(kept) < 100
    assert read_manifest(tmp_path / "run").status == "incomplete"
    assert threads() == []

    reborn = serve(port=server.port)
    manifest = run(plan_of(300), engine(reborn.url), tmp_path / "run", progress=Lines(StringIO()))
    assert manifest.status == "complete"
    assert {call.text.split()[-1] for call in reborn.calls} == {str(n) for n in range(300)} - kept
    assert len(reborn.calls) == 300 - len(kept)


def test_a_server_that_hangs_does_not_hang_the_run(serve: Serve) -> None:
    server = serve(lambda _: Hang(60))
    began = time.monotonic()
    with pytest.raises(EngineError, match=r"has not answered for|in a row"):
        ask(server.url, *map(request, range(1000)), timeout_s=0.3)
    # No longer than twice 2 x 0.3 s, and the last attempts.
    assert time.monotonic() - began < 6


# The server before the first request.


def test_a_server_that_is_down_is_refused_at_once(serve: Serve) -> None:
    server = serve()
    server.close()
    began = time.monotonic()
    with pytest.raises(EngineError, match=r"cannot be used: ConnectError.*Check that it is up"):
        engine(server.url)
    assert time.monotonic() - began < 5


def test_a_model_that_is_not_served_is_refused_with_those_that_are(serve: Serve) -> None:
    server = serve(models=["Qwen/Qwen2.5-VL-7B-Instruct", "other"])
    with pytest.raises(EngineError, match=r"does not serve 'Qwen2.5-VL-7B'; it serves Qwen/Qwen2.5-VL-7B-Instruct, o"):
        engine(server.url, "Qwen2.5-VL-7B")


def test_without_a_name_the_only_model_is_taken(serve: Serve) -> None:
    assert engine(serve().url, "").info.model.name == MODEL
    with pytest.raises(EngineError, match="wants the name of a model; it serves a, b"):
        engine(serve(models=["a", "b"]).url, "")


def test_a_server_without_a_list_of_models_is_taken_at_its_word(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    server = serve(models=Http(404, b"no"))
    assert ask(server.url, request())[0].text == "answer to question 0"
    assert "does not list its models" in caplog.text


def test_a_list_that_names_not_every_model_can_be_passed_over(serve: Serve) -> None:
    server = serve(models=["a"])
    (said,) = engine(server.url, "alias", probe=False).generate([request()])
    assert said.text == "answer to question 0"
    assert server.calls[0].body["model"] == "alias"


@pytest.mark.parametrize("said", [b"<html>", b"{}", b'{"data": 3}', b'{"data": [{"name": 1}]}'])
def test_a_page_in_place_of_the_list_of_models_is_no_such_server(serve: Serve, said: bytes) -> None:
    with pytest.raises(EngineError, match="not the base of an OpenAI-compatible server"):
        engine(serve(models=Http(200, said)).url)


def test_a_key_that_the_list_refuses_is_an_error_with_the_next_step(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    server = serve(models=Http(401, b"bad key"))
    with pytest.raises(EngineError, match=r"HTTP 401: bad key\. Put the key into MY_KEY"):
        engine(server.url, api_key_env="MY_KEY")


def test_the_record_names_the_server_its_version_and_its_url(serve: Serve) -> None:
    server = serve(owner="vllm", version="0.32.0")
    info = engine(server.url + "/", sampling=Sampling(temperature=0.7), max_pixels=1000).info
    assert (info.engine.name, info.engine.version, info.engine.url) == ("openai", "vllm 0.32.0", server.url)
    assert (info.model.name, info.model.weights_digest, info.model.text_only) == (MODEL, None, False)
    assert info.sampling.temperature == 0.7
    assert (info.pixels.min, info.pixels.max) == (None, 1000)


def test_where_the_server_does_not_tell_its_version_the_clients_is_recorded(serve: Serve) -> None:
    import openai

    assert engine(serve().url).info.engine.version == f"openai-python {openai.__version__}"


# The key.


def test_the_key_of_the_environment_is_sent_and_shows_nowhere(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OTHER_KEY", KEY)
    tell_tale = {0: "your key is {}", 1: Http(400, b"bad key {}"), 2: Http(401, b"bad key {}")}

    def answer(call: Any) -> Any:
        said = tell_tale[int(call.text.split()[-1])]
        key = call.headers["Authorization"]
        return said.format(key) if isinstance(said, str) else replace(said, body=said.body.replace(b"{}", key.encode()))

    server = serve(answer)
    asked = engine(server.url, api_key_env="OTHER_KEY", concurrency=1)
    said = list(asked.generate([request(0), request(1)]))
    with pytest.raises(EngineError, match=r"bad key Bearer \*\*\*") as caught:
        list(asked.generate([request(2)]))
    assert [call.headers["Authorization"] for call in server.calls] == [f"Bearer {KEY}"] * 3
    assert said[0].text == "your key is Bearer ***"
    shown = [repr(asked), repr(vars(asked)), repr(asked.info), asked.info.engine.model_dump_json(), repr(said)]
    error: BaseException | None = caught.value
    while error is not None:
        shown += [repr(error), str(error)]
        error = error.__cause__ or error.__context__
    assert KEY not in "".join([*shown, caplog.text])


def test_a_local_server_without_a_key_gets_the_customary_placeholder(serve: Serve) -> None:
    server = serve()
    ask(server.url)
    assert server.calls[0].headers["Authorization"] == "Bearer EMPTY"


def test_a_variable_that_was_named_for_the_key_must_be_set(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTHER_KEY", raising=False)
    with pytest.raises(UsageError, match="OTHER_KEY"):
        engine(serve().url, api_key_env="OTHER_KEY")


@pytest.mark.parametrize("url", [f"http://user:{KEY}@host/v1", f"https://host/v1?key={KEY}", "localhost:8000", ""])
def test_a_url_with_a_key_or_without_a_host_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="engine URL") as caught:
        engine(url)
    assert KEY not in str(caught.value)


def test_a_key_in_place_of_a_variables_name_is_refused_and_not_shown() -> None:
    with pytest.raises(ValidationError) as invalid:
        OpenAIOptions(api_key_env=KEY)
    with pytest.raises(UsageError, match=r"cannot take api_key_env=\*\*\*") as caught:
        open_engine("openai:http://host/v1", MODEL, sampling=Sampling(), options={"api_key_env": KEY})
    assert KEY not in f"{invalid.value} {caught.value} {caught.value.__cause__}"


def test_options_are_read_from_strings_and_unknown_ones_refused() -> None:
    options = OpenAIOptions.model_validate({"concurrency": "8", "timeout_s": "1.5", "text_only": "true"})
    assert (options.concurrency, options.timeout_s, options.text_only) == (8, 1.5, True)
    for wrong in ({"concurency": "8"}, {"concurrency": "0"}, {"timeout_s": "nan"}, {"timeout_s": "inf"}):
        with pytest.raises(ValidationError):
            OpenAIOptions.model_validate(wrong)


def test_pixel_limits_that_cross_are_refused(serve: Serve) -> None:
    with pytest.raises(UsageError, match="at least 900 and at most 100"):
        engine(serve().url, min_pixels=900, max_pixels=100)


# How many at once.


def test_no_more_than_the_bound_are_under_way_or_in_memory(serve: Serve) -> None:
    reading, most = Counter[str](), []
    lock = threading.Lock()
    content = png(20, 20)

    @dataclass(frozen=True)
    class Watched:
        n: int

        def read(self) -> bytes:
            with lock:
                reading["begun"] += 1
                most.append(reading["begun"] - reading["done"])
            return content

    def answer(call: Any) -> str:
        time.sleep(0.05)
        return "fine"

    server = serve(answer)
    asked = engine(server.url, concurrency=12)
    for _ in asked.generate([request(n, images=(Watched(n),)) for n in range(150)]):
        with lock:
            reading["done"] += 1
    assert server.most <= 12
    assert server.most >= 10  # it grew from 8
    # A seat is given on just before its response is counted here, so the next image may be read in between.
    assert max(most) <= 12 + 1


def test_a_server_that_bears_two_at_once_gets_two(serve: Serve) -> None:
    def strict(call: Any) -> Any:
        if server.under_way > 2:
            return Http(429, b"too many")
        time.sleep(0.02)
        return "fine"

    server = serve(strict)
    said = ask(server.url, *map(request, range(120)), concurrency=64)
    assert Counter(one.text for one in said) == {"fine": 120}
    # Without adapting, nearly all of 64 would be refused again and again; each of the 120 may be refused twice at most.
    refused = len(server.calls) - 120
    assert refused < 120


def test_a_wish_to_be_left_alone_is_kept_by_all_requests(serve: Serve) -> None:
    hush = [Http(429, b"later", {"Retry-After": "1"})]
    server = serve(lambda _: hush.pop() if hush else "fine")
    said = ask(server.url, *map(request, range(6)), concurrency=1)
    assert [one.text for one in said] == ["fine"] * 6
    assert server.calls[1].at - server.calls[0].at >= 1


def test_images_are_encoded_while_others_are_waited_for(serve: Serve) -> None:
    n, pause_s = 24, 0.25
    content = png(1200, 900)  # some 50 ms to decode, resize and encode

    def answer(call: Any) -> str:
        time.sleep(pause_s)
        return "fine"

    server = serve(answer)
    asked = engine(server.url, concurrency=8, max_pixels=400_000)
    began = time.monotonic()
    list(asked.generate([request(k, images=(Bytes(content),)) for k in range(n)]))
    # One after the other, waiting alone takes 6 s; 8 at once need 0.75 s and the time of the encoders.
    assert time.monotonic() - began < 0.75 * n * pause_s


MEASURE = """
import io, resource, sys
from dataclasses import dataclass
from PIL import Image
from ahabench.harness.engines.openai import OpenAIEngine, OpenAIOptions
from ahabench.harness.sampling import Sampling
from ahabench.harness.types import Prompt, Request

@dataclass(frozen=True)
class Noise:
    content: bytes

    def read(self):
        return self.content + bytes()

buffer = io.BytesIO()
Image.effect_noise((700, 700), 80).save(buffer, "PNG")
image = Noise(buffer.getvalue())
engine = OpenAIEngine(sys.argv[1], "", sampling=Sampling(), options=OpenAIOptions(concurrency=8))
def ask(n):
    requests = [Request(item_id=str(k), sample_index=0, prompt=Prompt(text="?"), images=(image,)) for k in range(n)]
    assert sum(said.text is not None for said in engine.generate(requests)) == n
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(len(image.content) // 1024, ask(40), ask(400))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_items(serve: Serve, tmp_path: Path) -> None:
    server = serve(keep_calls=False)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, server.url], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0, done.stderr
    image_kb, few_mb, many_mb = map(int, done.stdout.split())
    assert image_kb > 300
    # 400 images would be more than 150 MB as data URIs.
    assert many_mb - few_mb < 30


# Being stopped.


def test_closing_the_iterator_early_gives_up_what_is_under_way(serve: Serve) -> None:
    server = serve(lambda call: "fine" if call.text == "question 0" else Hang(60))
    generating = engine(server.url, timeout_s=60).generate([request(n) for n in range(50)])
    assert next(iter(generating)).item_id == "i0"
    began = time.monotonic()
    generating.close()
    assert time.monotonic() - began < 5
    assert threads() == []


def test_an_interrupt_stops_promptly_and_leaves_nothing_behind(serve: Serve) -> None:
    import os
    import signal

    server = serve(lambda _: Hang(60))
    asked = engine(server.url, timeout_s=60)
    threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(asked.generate([request(n) for n in range(50)]))
    assert time.monotonic() - began < 5
    assert threads() == []


def test_an_engine_may_be_asked_again(serve: Serve) -> None:
    server = serve()
    asked = engine(server.url)
    for n in range(3):
        assert [one.item_id for one in asked.generate([request(n)])] == [f"i{n}"]
    assert list(asked.generate([])) == []
    assert threads() == []


def test_it_works_where_an_event_loop_is_running_already(serve: Serve) -> None:
    import asyncio

    server = serve()

    async def notebook() -> list[Response]:
        return list(engine(server.url).generate([request()]))

    assert asyncio.run(notebook())[0].text == "answer to question 0"


# Runs.


def plan_of(n_items: int) -> Plan:
    style = PromptStyle(version=1, render=lambda item: Prompt(text=item.question))
    task = Task(
        name="sums",
        title="sums",
        version=1,
        paper="",
        licence="",
        splits={"test": Split(n_items=n_items, hub=None)},
        default_split="test",
        read_folder=lambda folder, split: (),
        to_item=lambda row: row["item"],
        prompts={"plain": style},
        scorers={},
        metrics={},
        headline="accuracy",
    )
    items = tuple(
        Item(id=str(n), question=f"question {n}", gold=str(n), answer_type=AnswerType.INTEGER) for n in range(n_items)
    )
    dataset = Dataset(task=task, split="test", items=items, source="folder", revision=None, digest=data.digest(items))
    return Plan(tasks=(TaskPlan(dataset=dataset, style="plain", prompt=style),))
