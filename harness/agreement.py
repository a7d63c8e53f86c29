"""Agreement of a scorer with the verdicts that a file of responses carries."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ahabench.harness.dataset import Dataset
from ahabench.harness.errors import UsageError
from ahabench.harness.runlog import parse_response, read_rows
from ahabench.harness.score import Judged, judge_responses
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


def agreement(dataset: Dataset, scorer: str, file: Path, *, field: str = "official_correct") -> Agreement:
    """Return a scorer's agreement with the verdicts in one file.

    Args:
        dataset: the items that the file answers.
        scorer: one of the task's scorers.
        file: JSONL with item_id, response and the verdict's field; rows whose response or verdict is null are skipped.
        field: the key of the carried verdict, a boolean.

    Raises:
        UsageError: a row is malformed, an item is unknown, or the scorer needs extractions that the file has not.
    """
    responses: list[Response] = []
    carried: dict[tuple[str, int], bool] = {}
    model = file.stem
    for row, response in read_carried(file, field):
        model = str(row.get("model") or model)
        if response.text is not None and row[field] is not None:
            responses.append(response)
            carried[response.item_id, response.sample_index] = row[field]
    scores = judge_responses(dataset, scorer, responses)
    ours = [row.verdict.correct for row in scores.judged]
    theirs = [carried[row.item_id, row.sample_index] for row in scores.judged]
    n = len(ours)
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    return Agreement(
        file=str(file),
        model=model,
        task=dataset.task.name,
        scorer=scores.scorer,
        n=n,
        agreement=same / n if n else None,
        kappa=cohen_kappa(ours, theirs),
        false_positive=sum(a and not b for a, b in zip(ours, theirs, strict=True)),
        false_negative=sum(b and not a for a, b in zip(ours, theirs, strict=True)),
        no_answer=sum(row.verdict.status in {Status.NO_ANSWER, Status.TRUNCATED} for row in scores.judged),
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
        extracted = None if response.extraction is None else response.extraction
        verdict = Verdict(status=status, extracted=extracted, rule=f"file/{field}")
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
            raise UsageError(f"{file}:{number} has no {field!r}; its keys are {', '.join(row)}")
        if row[field] is not None and not isinstance(row[field], bool):
            raise UsageError(
                f"{file}:{number} has {json.dumps(row[field])[:40]} as {field!r}, wanted true, false or null"
            )
        yield row, parse_response(row, file, number)
