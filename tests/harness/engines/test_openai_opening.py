"""The engine for servers before its first request: which model is served, keys, options."""

import logging
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError
from served import KEY, Serve, ask, engine, request
from unruly_server import MODEL, Http

from ahabench.harness.engines import open_engine
from ahabench.harness.engines.openai import OpenAIOptions
from ahabench.harness.errors import EngineError, UsageError
from ahabench.harness.sampling import Sampling

# The server before the first request.


def test_a_server_that_is_down_is_refused_at_once(serve: Serve) -> None:
    server = serve()
    server.close()
    # Refused, that is, and not given up after a time limit.
    with pytest.raises(EngineError, match=r"cannot be used: ConnectError.*Check that it is up"):
        engine(server.url)


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
