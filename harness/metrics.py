"""Metrics that every benchmark shares. A metric turns results into an estimate; fractions in [0, 1]."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from math import comb

from ahabench.harness.stats import clustered_mean
from ahabench.harness.types import Estimate, Metric, Result


def accuracy(results: Sequence[Result]) -> Estimate:
    """Share of right answers, averaged over an item's samples first (avg@k)."""
    return clustered_mean([result.mean for result in results], clusters(results))


def pass_at(k: int) -> Metric:
    """Return the unbiased chance that at least one of k samples is right (Chen et al., arXiv:2107.03374, eq. 1).

    Args:
        k: at most the number of samples that every result has.
    """

    def metric(results: Sequence[Result]) -> Estimate:
        return clustered_mean([_pass_at(k, result.scores) for result in results], clusters(results))

    return metric


def majority(results: Sequence[Result]) -> Estimate:
    """Share of items whose most frequent extracted answer is right (maj@k, self-consistency, arXiv:2203.11171).

    Samples without an answer do not vote. Tied answers share the item equally: no order of samples is preferred.
    """
    return clustered_mean([_majority(result) for result in results], clusters(results))


def sampled_metrics(n_samples: int, headline: Metric) -> dict[str, Metric]:
    """Return the metrics that several samples per item add: avg@n, pass@k for k = 2, 4, 8, ... and n, maj@n."""
    if n_samples < 2:
        return {}
    ks = sorted({2**power for power in range(1, n_samples.bit_length()) if 2**power <= n_samples} | {n_samples})
    return {
        f"avg@{n_samples}": headline,
        **{f"pass@{k}": pass_at(k) for k in ks},
        f"maj@{n_samples}": majority,
    }


def by_tag(results: Sequence[Result], tag: str) -> dict[str, list[Result]]:
    """Return the results by the values of a tag, sorted; an item with several values stands under each."""
    parts: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        for value in result.item.tags.get(tag, ()):
            parts[value].append(result)
    return dict(sorted(parts.items()))


def clusters(results: Sequence[Result]) -> list[str]:
    """Return the cluster of each result."""
    return [result.item.cluster for result in results]


def _pass_at(k: int, scores: Sequence[float]) -> float:
    n, right = len(scores), sum(score > 0 for score in scores)
    return 1.0 - comb(n - right, k) / comb(n, k)


def _majority(result: Result) -> float:
    votes = Counter(answer for answer in result.answers if answer is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    tied = [answer for answer, count in votes.items() if count == most]
    scores = [score for answer, score in zip(result.answers, result.scores, strict=True) if answer in tied]
    return sum(scores) / len(scores)
