"""Why a response got its verdict: each step of reading it, for a person."""

from typing import Any

from ahabench.harness.answers import robust, symbolic
from ahabench.harness.score import judge_one
from ahabench.harness.types import Item, Response, Scorer, Verdict

MAX_SHOWN = 300
"""Characters of a span that are shown."""


def explain(scorer: Scorer, item: Item, response: Response) -> dict[str, Any]:
    """Return the item, the verdict and, for the robust scorer, every step up to the one that decided.

    Args:
        scorer: the scorer whose verdict is explained; other scorers than `robust` have one step, their rule.
        item: the question.
        response: what was answered.
    """
    verdict = judge_one(scorer, item, response)
    return {
        "item_id": item.id,
        "question": item.question,
        "choices": dict(zip(item.labels, item.choices, strict=False)) or list(item.labels),
        "gold": item.gold,
        "answer_type": item.answer_type.value,
        "steps": _steps(item, response, verdict) if scorer.read is robust.read else [],
        "status": verdict.status.value,
        "extracted": verdict.extracted,
        "rule": verdict.rule,
    }


def _steps(item: Item, response: Response, verdict: Verdict) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    try:
        for attempt in robust.attempts(item, response):
            steps.append(
                {
                    "extractor": attempt.extractor,
                    "span": attempt.span.strip()[:MAX_SHOWN],
                    "read": attempt.extracted,
                    "compared_with": item.gold if attempt.extracted is not None else None,
                    "comparison": attempt.comparison,
                    "equal": attempt.correct,
                }
            )
            if verdict.rule == f"{attempt.extractor}/{attempt.comparison}":
                break
    except symbolic.Timeout:
        steps.append({"extractor": "symbolic", "comparison": "timeout", "equal": False})
    return steps
