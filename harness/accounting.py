"""What a task's responses cost and whether they came to an end: finish reasons, bounds, tokens, image sizes."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from ahabench.harness.errors import IncompleteRunError
from ahabench.harness.judged import Judged
from ahabench.harness.types import Estimate, Item, Metric, Result, Status

MUCH_TRUNCATION = 0.02
"""Share of responses that ended at a token limit above which a score is printed with a warning."""


def results_of(items: Sequence[Item], judged: Sequence[Judged]) -> list[Result]:
    """Return what metrics aggregate, in the order of the items; those that nobody answered are left out."""
    by_item: dict[str, list[Judged]] = defaultdict(list)
    for row in judged:
        if row.verdict.status is not Status.ERROR:
            by_item[row.item_id].append(row)
    return [
        Result(
            item=item,
            scores=tuple([float(row.verdict.correct) for row in by_item[item.id]]),
            answers=tuple([row.verdict.extracted for row in by_item[item.id]]),
        )
        for item in items
        if item.id in by_item
    ]


def finish_reasons(answered: Sequence[Judged]) -> dict[str, int]:
    """Return how many responses ended for each reason, by its name; "unknown" where nobody said."""
    counts = Counter(response.finish_reason or "unknown" for response in answered)
    return dict(sorted(counts.items()))


def bounds(score: Estimate, metric: Metric, items: Sequence[Item], answered: Sequence[Judged]) -> dict[str, Any]:
    """Return the headline as it stands, where what was cut off is wrong, and among the responses that came to an end.

    The first is what the model gives within its limit. With a higher one it would lie above that; the second says about
    how far, and errs on the high side where hard items are the ones that are cut off. Where the metric is defined on
    whole clusters, the second leaves out a cluster with any response that did not end.

    Args:
        score: the headline's estimate over all responses.
        metric: the headline.
        items: of the task, in the order of the data.
        answered: responses that were generated, in the order of the data.

    Returns:
        "score", "finished" (`None` where no response is known to have ended) and "n_finished", the items or clusters
        that "finished" rests on.
    """
    ended = [response for response in answered if response.finish_reason not in {None, "length"}]
    finished = Estimate(value=None, n=0, stderr=None, ci95=None)
    if len(ended) == len(answered):
        finished = score
    elif ended:
        try:
            finished = metric(results_of(items, ended))
        except IncompleteRunError:
            finished = _whole_clusters(metric, items, answered)
    return {"score": score.value, "finished": finished.value, "n_finished": finished.n}


def tokens(answered: Sequence[Judged]) -> dict[str, float | None]:
    """Return tokens per item, all its samples together, and per correct response; `None` unless all counts are known.

    Prompt tokens are the model's own, images included.
    """
    n_items = len({response.item_id for response in answered})
    prompt = _total([response.prompt_tokens for response in answered])
    completion = _total([response.completion_tokens for response in answered])
    correct = sum(response.verdict.correct for response in answered)
    return {
        "prompt_per_item": _ratio(prompt, n_items),
        "completion_per_item": _ratio(completion, n_items),
        "completion_per_correct": _ratio(completion, correct),
    }


def image_sizes(answered: Sequence[Judged]) -> dict[str, Any] | None:
    """Return the smallest, median and largest image, by area, as the model saw them; `None` where no response says.

    Returns:
        "n" images, "unknown" responses that do not say, and "min", "median" (the lower one of two) and "max" as
        [width, height] in pixels, `None` where no image was shown.
    """
    known = [response.image_sizes for response in answered if response.image_sizes is not None]
    if not known:
        return None
    sizes = sorted((size for shown in known for size in shown), key=lambda size: (size[0] * size[1], size))
    places = {"min": 0, "median": (len(sizes) - 1) // 2, "max": len(sizes) - 1}
    named = {name: list(sizes[place]) if sizes else None for name, place in places.items()}
    return {"n": len(sizes), "unknown": len(answered) - len(known), **named}


def _whole_clusters(metric: Metric, items: Sequence[Item], answered: Sequence[Judged]) -> Estimate:
    """Return a metric over the clusters all of whose items came to an end in all samples."""
    left = {response.item_id for response in answered if response.finish_reason in {None, "length"}}
    left |= {item.id for item in items} - {response.item_id for response in answered}
    broken = {item.cluster for item in items if item.id in left}
    whole = {item.id for item in items if item.cluster not in broken}
    kept = [response for response in answered if response.item_id in whole]
    try:
        return metric(results_of(items, kept))
    except IncompleteRunError:
        return Estimate(value=None, n=0, stderr=None, ci95=None)


def _total(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _ratio(total: int | None, parts: int) -> float | None:
    return None if total is None or not parts else total / parts
