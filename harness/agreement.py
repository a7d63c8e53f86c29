"""Agreement of a scorer with the verdicts that a file of responses carries."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ahabench.harness import registry
from ahabench.harness.dataset import Dataset, without_images
from ahabench.harness.errors import UsageError
from ahabench.harness.runlog import parse_response, read_rows
from ahabench.harness.score import Judged, check_answers, check_scorable, settle
from ahabench.harness.stats import cohen_kappa
from ahabench.harness.types import Response, Status, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How often a scorer and the carried verdicts say the same. Shares are fractions, the rest are counts."""

    file: str
    model: str
    task: str
    scorer: str
    n: int
    """Responses with a text and a carried verdict, without the items that the scorer leaves out."""
    agreement: float | None
    kappa: float | None
    """Cohen's; `None` where chance alone agrees fully."""
    false_positive: int
    """Right for the scorer, wrong in the file."""
    false_negative: int
    no_answer: int
    """Responses out of which the scorer read nothing."""
    accuracy: float | None
    official_accuracy: float | None

    def as_row(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Carried:
    """The responses of one file with their verdicts, `None` verdicts and absent texts left out."""

    file: Path
    model: str
    responses: tuple[Response, ...]
    verdicts: tuple[bool, ...]


def agreements(
    dataset: Dataset, scorer: str, files: Sequence[Path], *, field: str = "official_correct"
) -> list[Agreement]:
    """Return a scorer's agreement with the verdicts in each file; the files share worker processes.

    Args:
        dataset: the items that the files answer.
        scorer: one of the task's scorers.
        files: JSONL with item_id, response and the verdict's field; rows whose response or verdict is null are skipped.
        field: the key of the carried verdict, a boolean.

    Raises:
        UsageError: a row is malformed, an item is unknown, the answers of the split are withheld, or the scorer needs
            extractions that a file has not.
    """
    check_answers(dataset.task, dataset.split)
    rules = registry.find_scorer(dataset.task, scorer)
    carried = [_carried(file, field, rules.excluded) for file in files]
    for part in carried:
        check_scorable(dataset, scorer, part.responses, has_judge=False)
    items = {item.id: item for item in without_images(dataset.items)}
    responses = [response for part in carried for response in part.responses]
    ours = settle(dataset.task, scorer, items, responses)
    label = f"{scorer}@{rules.version}"
    return [_measured(dataset.task.name, label, part, list(islice(ours, len(part.responses)))) for part in carried]


def _carried(file: Path, field: str, excluded: frozenset[str]) -> _Carried:
    model = file.stem
    responses: list[Response] = []
    verdicts: list[bool] = []
    for row, response in read_carried(file, field):
        model = str(row.get("model") or model)
        if response.text is not None and row[field] is not None and response.item_id not in excluded:
            responses.append(response)
            verdicts.append(row[field])
    return _Carried(file=file, model=model, responses=tuple(responses), verdicts=tuple(verdicts))


def _measured(task: str, scorer: str, part: _Carried, verdicts: Sequence[Verdict]) -> Agreement:
    ours, theirs = [verdict.correct for verdict in verdicts], part.verdicts
    n = len(ours)
    false_positive = sum(a and not b for a, b in zip(ours, theirs, strict=True))
    false_negative = sum(b and not a for a, b in zip(ours, theirs, strict=True))
    return Agreement(
        file=str(part.file),
        model=part.model,
        task=task,
        scorer=scorer,
        n=n,
        agreement=(n - false_positive - false_negative) / n if n else None,
        kappa=cohen_kappa(ours, theirs),
        false_positive=false_positive,
        false_negative=false_negative,
        no_answer=sum(verdict.status in {Status.NO_ANSWER, Status.TRUNCATED} for verdict in verdicts),
        accuracy=sum(ours) / n if n else None,
        official_accuracy=sum(theirs) / n if n else None,
    )


def carried_verdicts(file: Path, field: str) -> list[Judged]:
    """Return the verdicts that a file carries, for aggregation by our metrics; a null verdict is `no_answer`.

    Raises:
        UsageError: a row is malformed or has no such field.
    """
    judged = []
    for row, response in read_carried(file, field):
        value = row[field]
        status = Status.NO_ANSWER if value is None else Status.CORRECT if value else Status.WRONG
        verdict = Verdict(status=status, extracted=response.extraction, rule=f"file/{field}")
        judged.append(
            Judged(item_id=response.item_id, sample_index=response.sample_index, verdict=verdict, finish_reason=None)
        )
    return judged


def read_carried(file: Path, field: str) -> Iterator[tuple[dict[str, Any], Response]]:
    """Yield the rows of a file that carries verdicts, with their responses.

    Raises:
        UsageError: the field is missing, or is neither a boolean nor null.
    """
    for number, row in read_rows(file):
        if field not in row:
            raise UsageError(f"{file}:{number} has no {field!r}; its keys are {', '.join(map(repr, row))}")
        if row[field] is not None and not isinstance(row[field], bool):
            raise UsageError(
                f"{file}:{number} has {json.dumps(row[field])[:40]} as {field!r}, wanted true, false or null"
            )
        yield row, parse_response(row, file, number)
