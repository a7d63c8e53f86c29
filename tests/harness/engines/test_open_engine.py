"""Engines by name."""

import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness.engines import open_engine
from ahabench.harness.engines.options import parse_pairs
from ahabench.harness.engines.transformers import TransformersEngine
from ahabench.harness.errors import EngineError, UsageError
from ahabench.harness.sampling import Sampling

Make = Callable[[str], Path]
GREEDY = Sampling(max_new_tokens=16)


without_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")


@without_vllm
def test_auto_opens_transformers_where_there_is_no_vllm_and_says_why(
    made: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "ahabench"):
        assert isinstance(open_engine("auto", str(made("llama")), sampling=GREEDY), TransformersEngine)
    assert "engine transformers: vLLM is not installed" in caplog.messages


def test_auto_takes_a_url_for_a_server() -> None:
    # Nothing listens there, which only the engine for servers can find out.
    with pytest.raises(EngineError, match=r"the server at http://127\.0\.0\.1:9/v1 cannot be used"):
        open_engine("auto", "http://127.0.0.1:9/v1", sampling=GREEDY, options={"attempts": "1", "timeout_s": "2"})


@without_vllm
def test_vllm_that_is_not_installed_is_named_with_the_command_that_installs_it(made: Make) -> None:
    with pytest.raises(EngineError, match=r"not installed: pip install 'ahabench\[vllm\]'"):
        open_engine("vllm", str(made("llama")), sampling=GREEDY)


def test_an_engine_argument_reaches_the_engine_and_is_recorded(made: Make) -> None:
    engine = open_engine("transformers", str(made("llama")), sampling=GREEDY, options={"attn_implementation": "eager"})
    assert engine.info.engine.options == {"attn_implementation": "eager"}
    assert engine.info.engine.name == "transformers"


@pytest.mark.parametrize(
    ("spec", "options", "flags", "message"),
    [
        (
            "vllm",
            {"tensor_paralel_size": "2"},
            {},
            "unknown --engine-arg of the engine 'vllm': 'tensor_paralel_size'. Did you mean 'tensor_parallel_size'?",
        ),
        ("vllm", {"max_model_len": "many"}, {}, "the engine 'vllm' cannot take max_model_len='many'"),
        ("vllm", {"gpu_memory_utilization": "1.5"}, {}, "cannot take gpu_memory_utilization='1.5'"),
        ("vllm", {}, {"device": "cuda:1"}, "the engine 'vllm' takes no --device"),
        ("vllm", {"max_num_seqs": "4"}, {"batch_size": 8}, "--batch-size and --engine-arg max_num_seqs say the same"),
        ("transformers", {"x": "1"}, {}, "Known: batch_size, dtype, device"),
        ("transformers", {"batch_size": "4"}, {"batch_size": 8}, "leave one out"),
        ("openai:http://127.0.0.1:9/v1", {}, {"dtype": "float32"}, "the engine 'openai' takes no --dtype"),
        ("openai:http://127.0.0.1:9/v1", {}, {"trust_remote_code": True}, "takes no --trust-remote-code"),
        ("replay:x", {"a": "b"}, {}, "the engine 'replay' takes no --engine-arg, found 'a'"),
    ],
)
def test_an_option_that_the_engine_does_not_know_is_refused(
    spec: str, options: dict[str, str], flags: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as raised:
        open_engine(spec, "m", sampling=GREEDY, options=options, **flags)
    assert message in str(raised.value)


def test_pairs_are_split_at_the_first_equals_sign() -> None:
    assert parse_pairs(["model_args=a=1,b=2", "max-model-len=8", "x="]) == {
        "model_args": "a=1,b=2",
        "max_model_len": "8",
        "x": "",
    }


@pytest.mark.parametrize("pairs", [["x"], ["=1"], ["a=1", "a=2"]])
def test_a_pair_without_a_name_a_value_or_given_twice_is_refused(pairs: list[str]) -> None:
    with pytest.raises(UsageError, match="--engine-arg"):
        parse_pairs(pairs)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("transformer", "unknown engine 'transformer'. Did you mean 'transformers'?"),
        ("vllm:x", "the engine 'vllm' takes no argument, found 'x'"),
        ("openai", "the engine 'openai' wants the base URL of a server"),
        ("lmms-eval:", "the engine 'lmms-eval' wants the name of a model adapter"),
        ("transformers:x", "the engine 'transformers' takes no argument, found 'x'"),
        ("replay", "replay:PATH"),
        ("", "unknown engine ''"),
    ],
)
def test_an_engine_that_is_not_known_is_refused(spec: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        open_engine(spec, "m", sampling=GREEDY)
    assert message in str(raised.value)
