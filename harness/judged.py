"""A response's key with its verdict and what it cost, without its text: what metrics and verdicts.jsonl are made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from ahabench.harness.types import Response, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A response's key with its verdict."""

    item_id: str
    sample_index: int
    verdict: Verdict
    finish_reason: str | None
    completion_tokens: int | None = None
    prompt_tokens: int | None = None
    image_sizes: tuple[tuple[int, int], ...] | None = None
    aha: Mapping[str, Any] = field(default_factory=dict)
    """From `aha.summary.counts`; empty where nobody counted."""

    @classmethod
    def of(cls, response: Response, verdict: Verdict, aha: Mapping[str, Any] | None = None) -> Self:
        """Return a response's verdict with all that the response says of itself."""
        return cls(
            item_id=response.item_id,
            sample_index=response.sample_index,
            verdict=verdict,
            finish_reason=response.finish_reason,
            completion_tokens=response.completion_tokens,
            prompt_tokens=response.prompt_tokens,
            image_sizes=response.image_sizes,
            aha=aha or {},
        )

    def as_row(self) -> dict[str, Any]:
        """Return the row of `verdicts.jsonl`."""
        return {
            "item_id": self.item_id,
            "sample_index": self.sample_index,
            "status": self.verdict.status.value,
            "extracted": self.verdict.extracted,
            "rule": self.verdict.rule,
            "aha": dict(self.aha),
        }
