"""Demonstrations for supervised fine-tuning, in VLAA-Thinking's record schema or a plainer one.

Where the completion comes from, the first of:

    completion             as it stands
    reasoning, answer      the final form that the authors' README describes
    ds_answer              the distilled trace, "<think>...</think> ... **Answer:** ..."

Every completion ends up with exactly one `<answer>` tag, since the system prompt asks for it and GRPO's reward reads
nothing else. One that has it stays as it is. Otherwise the reasoning is what `<think>` holds, and the answer what
follows the last "**Answer:**", or all that follows `</think>`; an explanation between the two is left out.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ahabench.harness.errors import DatasetError
from ahabench.harness.types import ImageSource
from ahabench.trainer.data import only_file, plain_text, raw_records, read_question, record_images, record_text
from ahabench.trainer.rewards import only_answer

_THINK, _THINK_END = "<think>", "</think>"
_MARK = "**answer:**"


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """A question and the completion that is to be imitated."""

    id: str
    question: str
    completion: str
    images: tuple[ImageSource, ...]


class Demonstrations(NamedTuple):
    """What a source holds."""

    items: tuple[Demonstration, ...]
    skipped: tuple[str, ...]
    """Why each bad record was left out."""

    @property
    def digest(self) -> str:
        """SHA-256, hexadecimal, of ids, questions and completions in their order; the images are not in it."""
        sha = hashlib.sha256()
        for item in self.items:
            sha.update(json.dumps([item.id, item.question, item.completion]).encode() + b"\n")
        return sha.hexdigest()


def load_demonstrations(path: Path, *, images: Path | None = None, skip_bad: bool = False) -> Demonstrations:
    """Return the demonstrations of a JSON array or JSONL file, or of the only such file in a folder.

    Args:
        path: the file or folder.
        images: where the records' image paths start; the file's folder if `None`.
        skip_bad: leave out records without a usable completion or image, instead of refusing the file.

    Raises:
        UsageError: there is no such file, or a folder has none or several.
        DatasetError: a record cannot be used and `skip_bad` is off; or no record is left.
    """
    file = only_file(path)
    return read_demonstrations(raw_records(file), name=file.name, images=images or file.parent, skip_bad=skip_bad)


def read_demonstrations(
    rows: Iterable[Mapping[str, Any]], *, name: str, images: Path | None = None, skip_bad: bool = False
) -> Demonstrations:
    """Return the demonstrations of records, whose images may also be `ImageSource`s.

    Raises:
        DatasetError: as `load_demonstrations`.
    """
    items: dict[str, Demonstration] = {}
    skipped: list[str] = []
    for number, row in enumerate(rows):
        try:
            found = to_demonstration(row, where=f"{name}, record {number}", images=images)
            if found.id in items:
                raise DatasetError(f"{name}, record {number}, repeats the id {found.id!r}")
        except DatasetError as error:
            if not skip_bad:
                raise
            skipped.append(str(error))
            continue
        items[found.id] = found
    if not items:
        raise DatasetError(f"{name} has no usable record" + (f"; the first: {skipped[0]}" if skipped else ""))
    return Demonstrations(tuple(items.values()), tuple(skipped))


def to_demonstration(row: Mapping[str, Any], *, where: str, images: Path | None = None) -> Demonstration:
    """Return the demonstration of one record.

    Raises:
        DatasetError: something is missing, or there is no telling what the answer is.
    """
    where = f"{where} ({row['id']})" if isinstance(row.get("id"), str) else where
    return Demonstration(
        id=record_text(row, "id", where),
        question=read_question(row, where),
        completion=completion_of(row, where),
        images=record_images(row, images, where),
    )


def completion_of(row: Mapping[str, Any], where: str) -> str:
    """Return the completion of a record, with exactly one `<answer>` tag.

    Raises:
        DatasetError: it has none of the known keys, or no answer can be told from the reasoning.
    """
    if row.get("completion") is not None:
        text = plain_text(row, "completion", where)
    elif row.get("reasoning") is not None:
        reasoning = plain_text(row, "reasoning", where).strip()
        reasoning = reasoning if _THINK_END in reasoning else f"{_THINK}{reasoning}{_THINK_END}"
        text = reasoning + plain_text(row, "answer", where)
    elif row.get("ds_answer") is not None:
        text = plain_text(row, "ds_answer", where)
    else:
        raise DatasetError(f"{where}: wanted one of 'completion', 'reasoning' with 'answer', or 'ds_answer'")
    return tagged(text, where)


def tagged(text: str, where: str) -> str:
    r"""Return a completion with exactly one `<answer>` tag.

    Raises:
        DatasetError: it has several, or one that is empty or unclosed; or no `</think>` before the answer.

    >>> tagged("<think>2 + 2</think> So it is four.\n**Answer:** 4", "record 0")
    '<think>2 + 2</think><answer>4</answer>'
    """
    if only_answer(text) is not None:
        return text
    if "<answer>" in text or "</answer>" in text:
        raise DatasetError(f"{where}: wanted one <answer>...</answer> in the completion, found {text[-80:]!r}")
    reasoning, end, rest = text.partition(_THINK_END)
    reasoning = reasoning.partition(_THINK)[2].strip() if _THINK in reasoning else reasoning.strip()
    place = rest.lower().rfind(_MARK)
    answer = (rest[place + len(_MARK) :] if place >= 0 else rest).strip()
    if not end or not reasoning or not answer or _THINK in reasoning or _THINK_END in answer:
        raise DatasetError(
            f"{where}: wanted <think>reasoning</think> and an answer after it in the completion, found {text[:80]!r}"
        )
    return f"{_THINK}{reasoning}{_THINK_END}<answer>{answer}</answer>"
