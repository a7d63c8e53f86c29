"""The ranges of generation's parameters."""

import math
from typing import Any

import pytest

from ahabench.harness.errors import UsageError
from ahabench.harness.sampling import Sampling


@pytest.mark.parametrize(
    "value",
    [
        {"max_new_tokens": 0},
        {"temperature": -0.1},
        {"temperature": math.inf},
        {"temperature": math.nan},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": math.nan},
        {"top_k": -1},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": math.nan},
        {"samples": 0},
    ],
)
def test_a_value_out_of_range_is_refused_by_its_name(value: dict[str, Any]) -> None:
    ((name, found),) = value.items()
    with pytest.raises(UsageError, match=f"^{name} is {found}, wanted "):
        Sampling(**value)


def test_the_papers_near_greedy_settings_are_in_range() -> None:
    # VLAA-Thinker on VLMEvalKit (vlm/vlaa_thinker.py@e8e78f0)
    Sampling(max_new_tokens=2048, temperature=0.01, top_p=0.001, top_k=1, repetition_penalty=1.0)


def test_the_default_is_greedy() -> None:
    assert (Sampling().temperature, Sampling().samples, Sampling().repetition_penalty) == (0.0, 1, 1.0)
