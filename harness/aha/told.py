"""Responses with what is known of them, read from evaluation runs, training runs and plain JSONL."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ahabench.harness.aha.outcome import same_form
from ahabench.harness.errors import UsageError
from ahabench.harness.runlog import RESPONSES, VERDICTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One response and its outcome."""

    item_id: str
    sample_index: int = 0
    text: str
    task: str = ""
    """The folder that it stands in; empty for a bare file."""
    question: str = ""
    cluster: str = ""
    """`Item.cluster`, where the items are known; empty means the item is its own."""
    correct: bool | None = None
    extracted: str | None = None
    tokens: int | None = None
    truncated: bool | None = None
    """Whether it was cut off; `None` where that is not known."""
    step: int | None = None
    """Updates that the policy had had; `None` outside training."""
    reward: float | None = None

    @property
    def prompt(self) -> tuple[str, str, int | None]:
        """What its siblings share: the item, and in training the policy that was asked."""
        return self.task, self.item_id, self.step

    @property
    def unit(self) -> tuple[str, str]:
        """The cluster of the statistics."""
        return self.task, self.cluster or self.item_id

    def is_right(self, candidate: str) -> bool | None:
        """Whether an answer would be right, as far as the verdict on this response tells.

        The answer that was read is what the verdict says; beside a right one every other is wrong.
        """
        if self.correct is None or self.extracted is None:
            return None
        if same_form(candidate) == same_form(self.extracted):
            return self.correct
        return False if self.correct else None


Compare = Callable[[Told, str], bool | None]
"""Whether a candidate answer to a response's item is right; `None` where that is not known."""


def read_told(source: Path) -> list[Told]:
    """Return the responses of a run directory (all its tasks) or of a JSONL file; those never generated are left out.

    A row needs "response"; "item_id" (the line's number stands in for it), "sample_index", "question",
    "completion_tokens", "finish_reason", "step", "reward", "correct", "official_correct" and "official_extraction" are
    used where they stand. In a run, "verdicts.jsonl" beside the
    responses says what is right.

    Raises:
        UsageError: there is no such file, or a row is not what it should be.
    """
    if not source.is_dir():
        return list(_told(source, {}))
    files = sorted(source.rglob(RESPONSES))
    if not files:
        raise UsageError(f"{source} holds no {RESPONSES}; give a run directory or a JSONL file with responses")
    return [told for file in files for told in _told(file, _verdicts(file.with_name(VERDICTS)))]


def _told(path: Path, verdicts: Mapping[tuple[str, int], Mapping[str, Any]]) -> Iterator[Told]:
    for number, row in _rows(path):
        if "response" not in row:
            raise UsageError(f"{path}:{number} has no 'response'; its keys are {', '.join(map(repr, row)) or 'none'}")
        text = row["response"]
        if text is None:
            continue
        if not isinstance(text, str):
            raise UsageError(f"{path}:{number} has a {type(text).__name__} as 'response', wanted a string or null")
        item_id = str(row.get("item_id", number))
        sample = row.get("sample_index") if isinstance(row.get("sample_index"), int) else 0
        verdict = verdicts.get((item_id, sample or 0), {})
        finish = row.get("finish_reason")
        read_out = verdict.get("extracted", row.get("official_extraction"))
        yield Told(
            item_id=item_id,
            sample_index=sample or 0,
            text=text,
            task=path.parent.name if path.name == RESPONSES else "",
            question=row["question"] if isinstance(row.get("question"), str) else "",
            correct=_correct(row, verdict),
            extracted=read_out if isinstance(read_out, str) else None,
            tokens=_integer(row.get("completion_tokens")),
            truncated=None if finish is None else finish == "length",
            step=_integer(row.get("step", verdict.get("step"))),
            reward=_number(row.get("reward", verdict.get("reward"))),
        )


def _correct(row: Mapping[str, Any], verdict: Mapping[str, Any]) -> bool | None:
    if "status" in verdict:
        return None if verdict["status"] == "error" else verdict["status"] == "correct"
    for key in ("correct", "official_correct"):
        if isinstance(row.get(key), bool):
            return bool(row[key])
    return None


def _verdicts(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
    if not path.exists():
        return {}
    return {(str(row.get("item_id")), _integer(row.get("sample_index")) or 0): row for _, row in _rows(path)}


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, _object(line, path, number)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error


def _object(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}:{number} is no JSON: {str(error).splitlines()[0]}") from error
    if not isinstance(row, dict):
        raise UsageError(f"{path}:{number} is a {type(row).__name__}, wanted an object")
    return row


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
