"""Aha moments of a task's scored responses, from what verdicts.jsonl keeps of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ahabench.harness.aha.lexicon import published_rules
from ahabench.harness.judged import Judged
from ahabench.harness.stats import clustered_mean
from ahabench.harness.types import Item, Status


def rates(judged: Sequence[Judged], items: Sequence[Item]) -> dict[str, Any]:
    """Return what `metrics.json` says of aha moments; `{}` where nothing was counted.

    "with_moment" is the share of responses with a moment, clustered as the metrics are; "accuracy" is that of the
    responses with and without one, which says nothing about a cause: harder items may draw more moments (`ahabench aha`
    compares within an item). "published" has the share of responses that each published rule fires on.
    """
    clusters = {item.id: item.cluster for item in items}
    answered = [row for row in judged if row.verdict.status is not Status.ERROR]
    if not answered or not all(row.aha for row in answered):
        return {}
    moments = [int(row.aha["moments"]) for row in answered]
    tokens: list[int] = [row.completion_tokens for row in answered if row.completion_tokens is not None]
    share = asdict(clustered_mean([float(count > 0) for count in moments], [clusters[row.item_id] for row in answered]))
    total = sum(tokens) if len(tokens) == len(answered) else 0
    classes: Counter[str] = Counter()
    for row in answered:
        classes.update(row.aha["classes"])
    return {
        "lexicon": answered[0].aha["lexicon"],
        "with_moment": share | {"ci95": list(share["ci95"]) if share["ci95"] else None},
        "moments": sum(moments),
        "per_1000_tokens": 1000 * sum(moments) / total if total else None,
        "classes": dict(sorted(classes.items())),
        "accuracy": {
            "with": _accuracy([row for row, count in zip(answered, moments, strict=True) if count]),
            "without": _accuracy([row for row, count in zip(answered, moments, strict=True) if not count]),
        },
        "loops": sum(bool(row.aha["loop_share"]) for row in answered) / len(answered),
        "published": {rule.name: _fires(answered, rule.name) for rule in published_rules()},
    }


def _accuracy(rows: Sequence[Judged]) -> dict[str, Any]:
    return {"value": sum(row.verdict.correct for row in rows) / len(rows) if rows else None, "n": len(rows)}


def _fires(rows: Sequence[Judged], name: str) -> float:
    return sum(name in row.aha["published"] for row in rows) / len(rows)
