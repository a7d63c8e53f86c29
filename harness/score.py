"""Responses to verdicts to metrics: pure functions of the responses and the task."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ahabench.harness import accounting, registry
from ahabench.harness.accounting import results_of
from ahabench.harness.aha.rates import rates
from ahabench.harness.aha.summary import counts as aha_counts
from ahabench.harness.dataset import Dataset, without_images
from ahabench.harness.errors import IncompleteRunError, UsageError
from ahabench.harness.judge import Judge
from ahabench.harness.judged import Judged as Judged
from ahabench.harness.metrics import by_tag, sampled_metrics
from ahabench.harness.spread import spread
from ahabench.harness.types import Estimate, Item, Response, Result, Scorer, Status, Task, Verdict

MAX_SAMPLES = 1_024
"""Samples per item that a file may have by its sample indices alone: every key up to them is listed."""
_SHOWN = 80
"""Characters of an item's id in an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The verdicts on one task's responses, in the data set's order, with what is missing."""

    dataset: Dataset
    scorer: str
    """Name and version, such as "robust@1"."""
    excluded: frozenset[str]
    judged: tuple[Judged, ...]
    n_samples: int
    missing: tuple[tuple[str, int], ...]
    """Keys without a response, or whose response was never generated."""
    judge_failures: int = 0
    """Responses that a judge was to read and could not be asked about: they stay `no_answer`."""


def judge_responses(
    dataset: Dataset,
    scorer_name: str,
    responses: Sequence[Response],
    *,
    judge: Judge | None = None,
    n_samples: int | None = None,
    workers: int | None = None,
) -> Scores:
    """Return the verdict of a task's scorer on every response.

    Args:
        dataset: the items that are expected to have responses.
        scorer_name: one of the task's scorers.
        responses: unique by (item_id, sample_index), in any order.
        judge: reads what the rules could not, where it is given.
        n_samples: the samples that every item should have; the largest sample index says it if `None`.
        workers: processes; as many as there are cores if `None`.

    Raises:
        UsageError: a response belongs to no item, or the scorer needs a judge's extraction and there is none.
    """
    scorer = registry.find_scorer(dataset.task, scorer_name)
    items = {item.id: item for item in without_images(dataset.items)}
    check_scorable(dataset, scorer_name, responses, has_judge=judge is not None)
    counted = [response for response in responses if response.item_id not in scorer.excluded]
    settled = list(spread(_judge_and_read, dataset.task, scorer_name, items, counted, workers=workers))
    verdicts, failures = [verdict for verdict, _ in settled], 0
    if judge is not None:
        verdicts, failures = _ask(judge, scorer, items, counted, verdicts)
    judged = [
        Judged.of(response, verdict, aha)
        for response, verdict, (_, aha) in zip(counted, verdicts, settled, strict=True)
    ]
    return collect(
        dataset,
        f"{scorer_name}@{scorer.version}",
        judged,
        excluded=scorer.excluded,
        n_samples=n_samples,
        judge_failures=failures,
    )


def collect(
    dataset: Dataset,
    scorer: str,
    judged: Iterable[Judged],
    *,
    excluded: frozenset[str] = frozenset(),
    n_samples: int | None = None,
    judge_failures: int = 0,
) -> Scores:
    """Return verdicts in the data set's order, with the keys that have none.

    Raises:
        UsageError: a verdict belongs to no item, or the largest sample index is beyond `MAX_SAMPLES`.
    """
    judged = list(judged)
    check_known(dataset, (row.item_id for row in judged))
    by_key = {(row.item_id, row.sample_index): row for row in judged}
    samples = n_samples or 1 + max((index for _, index in by_key), default=0)
    if n_samples is None and samples > MAX_SAMPLES:
        raise UsageError(
            f"{dataset.protocol}: a row has the sample_index {samples - 1}, wanted at most {MAX_SAMPLES - 1:,}; "
            "number the samples of an item from 0"
        )
    ids = [item.id for item in dataset.items if item.id not in excluded]
    keys = [(item_id, index) for item_id in ids for index in range(samples)]
    missing = tuple(key for key in keys if key not in by_key or by_key[key].verdict.status is Status.ERROR)
    return Scores(
        dataset=dataset,
        scorer=scorer,
        excluded=excluded & {item.id for item in dataset.items},
        judged=tuple(by_key[key] for key in keys if key in by_key),
        n_samples=samples,
        missing=missing,
        judge_failures=judge_failures,
    )


def judge_one(scorer: Scorer, item: Item, response: Response) -> Verdict:
    """Return the verdict of a scorer's rules on one response: what benchmarks and rewards share."""
    if response.text is None:
        return Verdict(status=Status.ERROR, rule="not-generated")
    if scorer.read is not None:
        return _truncated(scorer.read(item, response), response)
    if response.extraction is not None:
        return _truncated(scorer.compare(item, response.extraction), response)
    # Nobody has read it yet, so nobody knows whether it was cut off before an answer.
    return Verdict(status=Status.NO_ANSWER, rule="no-extraction")


def summarise(
    scores: Scores, *, prompt: str = "unknown", allow_missing: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """Return the content of `metrics.json`, and one line for each metric that is refused.

    Args:
        scores: the verdicts.
        prompt: name and version of the prompt style.
        allow_missing: aggregate what is there; metrics that need whole clusters are refused where one has a hole.

    Raises:
        IncompleteRunError: keys are missing and that is not allowed.
        UsageError: the authors withhold the answers of this split.
    """
    task, split = scores.dataset.task, scores.dataset.split
    check_answers(task, split)
    if scores.missing and not allow_missing:
        item_id, index = scores.missing[0]
        raise IncompleteRunError(
            f"{task.name} {split}: {len(scores.missing):,} of {len(scores.missing) + _present(scores):,} responses are "
            f"missing, the first is item {item_id} sample {index}. Generate them, or give --allow-missing."
        )
    results = results_of(scores.dataset.items, scores.judged)
    refused: list[str] = []
    values = _metrics(task, results, scores.n_samples, refused)
    breakdown = {tag: _breakdown(task, results, tag, names, refused) for tag, names in task.breakdowns.items()}
    return {
        "task": task.name,
        "split": split,
        "prompt": prompt,
        "scorer": scores.scorer,
        "n_items": len(results),
        "n_samples": scores.n_samples,
        "excluded": sorted(scores.excluded),
        "missing": len(scores.missing),
        "headline": task.headline,
        "metrics": {name: estimate_row(estimate) for name, estimate in values.items()},
        "rates": _rates(scores),
        **_costs(scores, values[task.headline]),
        "breakdown": breakdown,
        "aha": rates(scores.judged, scores.dataset.items),
    }, sorted(set(refused))


def estimate_row(estimate: Estimate) -> dict[str, Any]:
    """Return an estimate as JSON has it."""
    row = asdict(estimate)
    return row | {"ci95": list(estimate.ci95) if estimate.ci95 else None}


def check_answers(task: Task, split: str) -> None:
    """Refuse a split that cannot be scored here.

    Raises:
        UsageError: the authors withhold the answers of this split.
    """
    if not task.splits[split].answers_public:
        raise UsageError(f"{task.name} {split}: its answers are not public; send the responses to the authors")


def check_scorable(dataset: Dataset, scorer_name: str, responses: Sequence[Response], *, has_judge: bool) -> None:
    """Refuse responses that a scorer cannot score.

    Raises:
        UsageError: a response belongs to no item, or the scorer needs a judge's extraction and there is none.
    """
    scorer = registry.find_scorer(dataset.task, scorer_name)
    check_known(dataset, (response.item_id for response in responses))
    counted = [response for response in responses if response.item_id not in scorer.excluded]
    if counted and all(response.extraction is None for response in counted):
        registry.check_scorer(dataset.task, scorer_name, has_judge=has_judge)


def check_known(dataset: Dataset, item_ids: Iterable[str]) -> None:
    """Refuse ids that are no item's.

    Raises:
        UsageError: with the first such id.
    """
    known = {item.id for item in dataset.items}
    for item_id in item_ids:
        if item_id not in known:
            raise UsageError(
                f"{dataset.protocol} has no item {item_id[:_SHOWN]!r}; its ids look like {dataset.items[0].id!r}. "
                "Is it the right --task and split?"
            )


def _truncated(verdict: Verdict, response: Response) -> Verdict:
    """Return the verdict of somebody who looked for an answer; without one, a response may have been cut off."""
    if verdict.status is Status.NO_ANSWER and response.finish_reason == "length":
        return replace(verdict, status=Status.TRUNCATED)
    return verdict


def settle(
    task: Task,
    scorer_name: str,
    items: Mapping[str, Item],
    responses: Sequence[Response],
    *,
    workers: int | None = None,
) -> Iterator[Verdict]:
    """Yield the verdict of a scorer's rules on each response, in order, spread over processes where there are many.

    Args:
        task: the benchmark.
        scorer_name: one of its scorers.
        items: by id, without their images; every response's item is among them.
        responses: what was answered.
        workers: processes at most; as many as there are cores if `None`.
    """
    yield from spread(judge_one, task, scorer_name, items, responses, workers=workers)


def _judge_and_read(scorer: Scorer, item: Item, response: Response) -> tuple[Verdict, Mapping[str, Any]]:
    """Return the verdict on a response and its aha counts."""
    counts = aha_counts(response.text, item.question) if response.text is not None else {}
    return judge_one(scorer, item, response), counts


def _ask(
    judge: Judge, scorer: Scorer, items: dict[str, Item], responses: Sequence[Response], verdicts: list[Verdict]
) -> tuple[list[Verdict], int]:
    """Return the verdicts with the judge's reading where the rules found nothing, and how often it failed."""
    open_keys = {
        (response.item_id, response.sample_index): index
        for index, (response, verdict) in enumerate(zip(responses, verdicts, strict=True))
        if verdict.status is Status.NO_ANSWER
    }
    settled, failures = list(verdicts), 0
    pairs = ((items[responses[index].item_id], responses[index]) for index in open_keys.values())
    for extraction in judge.extract_all(pairs):
        index = open_keys[extraction.item_id, extraction.sample_index]
        failures += extraction.failed
        if extraction.answer is not None:
            verdict = scorer.compare(items[extraction.item_id], extraction.answer)
            # Rules for a judge's replies are called so already.
            settled[index] = replace(verdict, rule=f"judge/{verdict.rule.removeprefix('judge/')}")
        elif extraction.cause is not None:
            settled[index] = replace(verdicts[index], rule=f"judge: {extraction.cause}")
        else:
            settled[index] = _truncated(replace(verdicts[index], rule="judge: no answer"), responses[index])
    return settled, failures


def _costs(scores: Scores, headline: Estimate) -> dict[str, Any]:
    """Return what `accounting` says of the responses that were generated, under its functions' names."""
    answered = [row for row in scores.judged if row.verdict.status is not Status.ERROR]
    items = [item for item in scores.dataset.items if item.id not in scores.excluded]
    metric = scores.dataset.task.metrics[scores.dataset.task.headline]
    return {
        "bounds": accounting.bounds(headline, metric, items, answered),
        "finish_reasons": accounting.finish_reasons(answered),
        "tokens": accounting.tokens(answered),
        "image_sizes": accounting.image_sizes(answered),
    }


def _metrics(task: Task, results: list[Result], n_samples: int, refused: list[str]) -> dict[str, Estimate]:
    metrics = dict(task.metrics)
    if all(len(result.scores) == n_samples for result in results):
        metrics |= sampled_metrics(n_samples, task.metrics[task.headline])
    return {name: _estimate(metric, results, name, refused) for name, metric in metrics.items()}


def _breakdown(
    task: Task, results: list[Result], tag: str, names: tuple[str, ...], refused: list[str]
) -> dict[str, dict[str, Any]]:
    return {
        value: {name: estimate_row(_estimate(task.metrics[name], part, name, refused)) for name in names}
        for value, part in by_tag(results, tag).items()
    }


def _estimate(metric: Any, results: list[Result], name: str, refused: list[str]) -> Estimate:
    try:
        estimate: Estimate = metric(results)
    except IncompleteRunError as error:
        refused.append(f"{name} is refused: {error}")
        return Estimate(value=None, n=0, stderr=None, ci95=None)
    return estimate


def _rates(scores: Scores) -> dict[str, float | None]:
    """Return shares of the responses; `length_limited` is unknown where no finish reason is."""
    present = [row for row in scores.judged if row.verdict.status is not Status.ERROR]
    known = [row for row in present if row.finish_reason is not None]
    rates: dict[str, float | None] = {
        status.value: sum(row.verdict.status is status for row in present) / len(present) if present else None
        for status in (Status.NO_ANSWER, Status.TRUNCATED, Status.TIMEOUT)
    }
    limited = sum(row.finish_reason == "length" for row in known)
    return rates | {"length_limited": limited / len(known) if known else None}


def _present(scores: Scores) -> int:
    return sum(row.verdict.status is not Status.ERROR for row in scores.judged)
