"""Drawing tokens so that a request's text does not depend on its company in a batch."""

import hashlib
import random
from collections.abc import Sequence
from typing import Any

from ahabench.harness.sampling import Sampling
from ahabench.harness.types import Request


def row_seed(seed: int, request: Request) -> int:
    """Return the seed of one request's random numbers, from the run's seed and the request's key."""
    key = f"{seed}\n{request.sample_index}\n{request.item_id}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big")


def logits_processors(sampling: Sampling, requests: Sequence[Request]) -> list[Any]:
    """Return what turns the scores of greedy generation into draws, in order; nothing at temperature 0.

    The filters are transformers' own, in their usual order: temperature, top-k, top-p.
    """
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    if sampling.temperature == 0:
        return []
    chain: list[Any] = []
    if sampling.temperature != 1:
        chain.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.top_k > 0:
        chain.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        chain.append(TopPLogitsWarper(sampling.top_p))
    return [*chain, RowSampler([row_seed(sampling.seed, request) for request in requests])]


class RowSampler:
    """Draws each row's token with the row's own random numbers and leaves it as the only choice.

    Called by `generate` at every step, in place of its `multinomial`, whose one stream of random numbers is shared by
    the rows: with that, a request's text would depend on the batch and on where an interrupted run went on.

    Args:
        seeds: one per row.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        """Start each row's stream."""
        self._streams = [random.Random(seed) for seed in seeds]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Return scores that are 0 at the token drawn from softmax(scores), and minus infinity elsewhere.

        Args:
            input_ids: ``[B, T]``, not read.
            scores: ``[B, V]`` float; minus infinity where a filter has removed a token.
        """
        import torch

        # Apple's devices have no float64; elsewhere the sum over a large vocabulary is worth it.
        exact = torch.float32 if scores.device.type == "mps" else torch.float64
        cumulative = scores.to(exact).softmax(dim=-1).cumsum(dim=-1)  # [B, V]
        # In (0, 1]: at 0 the first token would be drawn even if its probability is 0.
        uniform = [1 - stream.random() for stream in self._streams]
        target = torch.tensor(uniform, dtype=exact, device=scores.device)[:, None] * cumulative[:, -1:]  # [B, 1]
        drawn = torch.searchsorted(cumulative, target)  # [B, 1], the first index at which the sum reaches the target
        return torch.full_like(scores, float("-inf")).scatter(1, drawn.clamp(max=scores.shape[1] - 1), 0.0)
