"""What a rollout looks like beside its rewards: lengths, truncation, repetition and moments, all logged by step."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from ahabench.harness.aha.logged import logged
from ahabench.trainer.data import Kind, TrainItem
from ahabench.trainer.rewards import repetition_reward


def measures(
    items: Sequence[TrainItem], texts: Sequence[str], finish: Sequence[str], lengths: Sequence[int]
) -> dict[str, float]:
    """Return what is logged about the completions of a rollout, beside `rollouts.statistics`.

    Args:
        items: what was asked.
        texts: the completions.
        finish: "stop" or "length" of each.
        lengths: tokens of each.

    Returns:
        For each kind in it "length/<kind>" (mean tokens) and "truncated/<kind>" (share); "repetition", the mean share
        of word 4-grams that a completion had written before; and the moments of `harness.aha.logged`.
    """
    if not items:
        return {}
    tokens: dict[Kind, list[int]] = defaultdict(list)
    cut: dict[Kind, list[bool]] = defaultdict(list)
    for item, reason, length in zip(items, finish, lengths, strict=True):
        tokens[item.kind].append(length)
        cut[item.kind].append(reason == "length")
    fresh = repetition_reward()
    found = {f"length/{kind}": fmean(values) for kind, values in tokens.items()}
    found |= {f"truncated/{kind}": fmean(values) for kind, values in cut.items()}
    found["repetition"] = fmean(1.0 - (fresh(*pair) or 0.0) for pair in zip(items, texts, strict=True))
    return found | logged(texts, [item.item.question for item in items], tokens=lengths)
