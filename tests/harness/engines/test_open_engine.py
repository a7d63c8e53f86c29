"""Engines by name."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ahabench.harness.engines import open_engine
from ahabench.harness.engines.transformers import TransformersEngine
from ahabench.harness.errors import UsageError
from ahabench.harness.sampling import Sampling

Make = Callable[[str], Path]
GREEDY = Sampling(max_new_tokens=16)


def test_auto_opens_transformers(made: Make) -> None:
    assert isinstance(open_engine("auto", str(made("llama")), sampling=GREEDY), TransformersEngine)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("transformer", "unknown engine 'transformer'. Did you mean 'transformers'?"),
        ("vllm", "unknown engine 'vllm'"),
        ("transformers:x", "the engine 'transformers' takes no argument, found 'x'"),
        ("replay", "replay:PATH"),
        ("", "unknown engine ''"),
    ],
)
def test_an_engine_that_is_not_known_is_refused(spec: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        open_engine(spec, "m", sampling=GREEDY)
    assert message in str(raised.value)
