"""Moments over training: one row per step, the untrained model's first, and how they go with the reward."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from ahabench.harness.aha.lexicon import MomentClass, published_rules
from ahabench.harness.aha.outcome import Change
from ahabench.harness.aha.summary import ReadResponse

QUANTITIES = (
    "with_moment",
    "moments_per_response",
    "per_1000_tokens",
    "hedges_per_1000_words",
    "with_loop",
    "truncated",
    "length",
    "unchanged",
)
NO_BASELINE = "no rollouts of step 0: without the untrained model's rate nothing here is an effect of training"
FEWEST = 3
"""Steps below which there is no correlation to speak of."""


def curve(responses: Sequence[ReadResponse]) -> dict[str, Any] | None:
    """Return the steps of a training run, its baseline and correlations with the reward; `None` for any other run.

    "baseline" is the row of step 0, the untrained model: a rate says nothing of training without it, so where there is
    none the value is null and "note" says so. "correlation" has Pearson's and Spearman's over the steps that have both
    values, with n; steps of one run are not independent, so no p-value stands beside them. Those of the published rules
    stand under "published/<name>". Of a step, "classes" has moments per response by class, "published" the share of
    responses in which a rule fires.
    """
    by_step: dict[int, list[ReadResponse]] = defaultdict(list)
    for one in responses:
        if one.told.step is not None:
            by_step[one.told.step].append(one)
    if not by_step:
        return None
    steps = [_step(step, by_step[step]) for step in sorted(by_step)]
    baseline = steps[0] if steps[0]["step"] == 0 else None
    return {
        "baseline": baseline,
        "note": None if baseline else NO_BASELINE,
        "steps": steps,
        "correlation": {name: _correlation(steps, [step[name] for step in steps]) for name in QUANTITIES}
        | {
            f"published/{rule.name}": _correlation(steps, [step["published"][rule.name] for step in steps])
            for rule in published_rules()
        },
    }


def _step(step: int, responses: Sequence[ReadResponse]) -> dict[str, Any]:
    n = len(responses)
    moments = sum(len(one.reading.moments) for one in responses)
    tokens = [one.told.tokens for one in responses if one.told.tokens is not None]
    timed = sum(len(one.reading.moments) for one in responses if one.told.tokens is not None)
    words = sum(one.reading.words for one in responses)
    classes = Counter(moment.kind for one in responses for moment in one.reading.moments)
    made = [turn for one in responses for turn in one.turns if turn.change is not Change.UNKNOWN]
    return {
        "step": step,
        "n": n,
        "reward": _mean([one.told.reward for one in responses]),
        "accuracy": _mean([one.told.correct for one in responses]),
        "with_moment": sum(one.has_moment for one in responses) / n,
        "moments_per_response": moments / n,
        "per_1000_tokens": 1_000 * timed / sum(tokens) if sum(tokens) else None,
        "hedges_per_1000_words": 1_000 * sum(one.reading.hedges for one in responses) / words if words else None,
        "with_loop": sum(bool(one.reading.loops) for one in responses) / n,
        "truncated": _mean([one.told.truncated for one in responses]),
        "length": _mean(tokens) if tokens else words / n,
        "unchanged": sum(turn.change is Change.UNCHANGED for turn in made) / len(made) if made else None,
        "classes": {kind.value: classes[kind] / n for kind in MomentClass if kind is not MomentClass.UNCERTAINTY},
        "published": {
            rule.name: sum(rule.count(one.told.text) > 0 for one in responses) / n for rule in published_rules()
        },
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _correlation(steps: Sequence[dict[str, Any]], values: Sequence[float | None]) -> dict[str, Any]:
    from scipy.stats import pearsonr, spearmanr

    pairs = [
        (value, step["reward"])
        for step, value in zip(steps, values, strict=True)
        if value is not None and step["reward"] is not None
    ]
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    if len(pairs) < FEWEST or len(set(first)) == 1 or len(set(second)) == 1:
        return {"pearson": None, "spearman": None, "n": len(pairs)}
    return {
        "pearson": float(pearsonr(first, second).statistic),
        "spearman": float(spearmanr(first, second).statistic),
        "n": len(pairs),
    }
