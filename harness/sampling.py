"""How text is drawn from a model."""

import math
from dataclasses import dataclass

from ahabench.harness.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """The parameters of generation that can change a score.

    Raises:
        UsageError: a value lies outside its range.
    """

    max_new_tokens: int = 2048
    """At least 1; a response that reaches it ends with finish_reason "length"."""
    temperature: float = 0.0
    """0 is greedy: `top_p`, `top_k` and `seed` then change nothing."""
    top_p: float = 1.0
    """In (0, 1]; 1 keeps everything."""
    top_k: int = 0
    """0 keeps everything."""
    repetition_penalty: float = 1.0
    """Above 0; 1 is none. It counts the prompt's tokens too, as in transformers and vLLM."""
    samples: int = 1
    """Responses per item, at least 1."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        rules = (
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("temperature", 0 <= self.temperature < math.inf, "0 or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k >= 0, "0 (off) or more"),
            ("repetition_penalty", 0 < self.repetition_penalty < math.inf, "above 0"),
            ("samples", self.samples >= 1, "at least 1"),
        )
        for name, holds, wanted in rules:
            if not holds:
                raise UsageError(f"{name} is {getattr(self, name)}, wanted {wanted}")
