"""MathVista: 6,141 questions on mathematics in pictures, from 31 older data sets.

Paper: arXiv:2310.02255. Official rules: github.com/lupantech/MathVista@53d5258; the leaderboard's: VLMEvalKit@e8e78f0.
The gold of a multiple-choice item is published as the option's text; here it is that option's label.
Of 6,141 only testmini's 1,000 answers are public; the leaderboards' column is testmini.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from rapidfuzz.distance import Levenshtein

from ahabench.harness.answers.prefetch import can_infer
from ahabench.harness.answers.robust import ROBUST
from ahabench.harness.dataset import read_json
from ahabench.harness.errors import DatasetError
from ahabench.harness.images import ImageFile
from ahabench.harness.metrics import accuracy
from ahabench.harness.prompts import lettered, tagged_answer, think
from ahabench.harness.types import (
    AnswerType,
    HubDataset,
    Item,
    Prompt,
    PromptStyle,
    Response,
    Row,
    Scorer,
    Split,
    Status,
    Task,
    Verdict,
)
from ahabench.tasks.mini.suite import mini

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_IN_PARENTHESES = re.compile(r"\(([a-zA-Z])\)")
_FREE_FORM = {"integer": AnswerType.INTEGER, "float": AnswerType.FLOAT, "list": AnswerType.LIST}


class _Metadata(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    split: str
    language: str | None
    source: str | None
    category: str | None
    task: str | None
    context: str | None
    grade: str | None
    skills: tuple[str, ...] | None


class _Record(BaseModel):
    """A record of the official files; the hub adds columns and stores `precision` as a float."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    pid: str
    question: str
    choices: tuple[str, ...] | None
    unit: str | None
    precision: int | None
    answer: str | None
    question_type: Literal["multi_choice", "free_form"]
    answer_type: Literal["text", "integer", "float", "list"]
    metadata: _Metadata


def read_folder(folder: Path, split: str) -> Iterator[Row]:
    """Yield the records of `testmini.json` or `test.json`, with the image files under `images/`.

    Raises:
        DatasetError: the file is missing or not a dict of records, or an image's path leaves the folder.
    """
    path = folder / f"{split}.json"
    records = read_json(path)
    if not isinstance(records, dict):
        raise DatasetError(f"{path} holds a {type(records).__name__}, wanted a dict of records by pid")
    for pid, record in records.items():
        image = record.get("image") if isinstance(record, dict) else None
        if not isinstance(image, str):
            raise DatasetError(f"{path}: record {pid!r} is no record with an image path")
        relative = PurePosixPath(image)
        if relative.is_absolute() or ".." in relative.parts:
            raise DatasetError(f"{path}: record {pid!r} has the image {image!r}, wanted a path inside the folder")
        yield record | {"images": (ImageFile(folder / relative),)}


def to_item(row: Row) -> Item:
    """Return the item of a record.

    Raises:
        DatasetError: a field is missing or malformed, or a public answer is not what its type says.
    """
    try:
        record = _Record.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DatasetError(f"mathvista record {row.get('pid')!r}: {where}: {first['msg']}") from error
    choices = (record.choices or ()) if record.question_type == "multi_choice" else ()
    labels = tuple(_LETTERS[: len(choices)])
    answer_type = _answer_type(record)
    return Item(
        id=record.pid,
        question=record.question,
        gold=_gold(record, labels),
        answer_type=answer_type,
        images=tuple(row.get("images", ())),
        choices=choices,
        labels=labels,
        precision=record.precision if answer_type is AnswerType.FLOAT else None,
        unit=record.unit or None,
        tags=_tags(record),
    )


def _answer_type(record: _Record) -> AnswerType:
    if record.question_type == "multi_choice":
        if not 2 <= len(record.choices or ()) <= len(_LETTERS):
            raise DatasetError(f"mathvista {record.pid}: {len(record.choices or ())} choices, wanted 2 to 26")
        return AnswerType.CHOICE
    if record.answer_type not in _FREE_FORM:
        raise DatasetError(f"mathvista {record.pid}: a free-form item of type {record.answer_type!r} has no rule")
    if record.answer_type == "float" and record.precision not in _FLOAT_HINTS:
        raise DatasetError(f"mathvista {record.pid}: a float of precision {record.precision}, wanted 1 or 2")
    return _FREE_FORM[record.answer_type]


def _gold(record: _Record, labels: tuple[str, ...]) -> str | None:
    if not record.answer:
        if record.metadata.split == "testmini":
            raise DatasetError(f"mathvista {record.pid}: testmini's answer is missing")
        return None
    if record.question_type == "free_form":
        return record.answer
    choices = record.choices or ()
    if record.answer not in choices:
        raise DatasetError(f"mathvista {record.pid}: the answer {record.answer!r} is none of the choices {choices}")
    return labels[choices.index(record.answer)]


def _tags(record: _Record) -> dict[str, tuple[str, ...]]:
    data = record.metadata
    single = {
        "task": data.task,
        "context": data.context,
        "grade": data.grade,
        "answer_type": record.answer_type,
        "question_type": record.question_type,
        "source": data.source,
        "language": data.language,
        "category": data.category,
    }
    tags: dict[str, tuple[str, ...]] = {name: (value,) for name, value in single.items() if value}
    return tags | {"skill": data.skills} if data.skills else tags


# Prompts. The wording is the published one (query.json); build_query.py in the same repository orders it otherwise.

_FLOAT_HINTS = {
    1: "requiring a floating-point number with one decimal place and provide the final value, e.g., 1.2, 1.3, 1.4,",
    2: "requiring a floating-point number with two decimal places and provide the final value, e.g., 1.23, 1.34, 1.45,",
}
_HINTS = {
    AnswerType.CHOICE: "and provide the correct option letter, e.g., A, B, C, D,",
    AnswerType.INTEGER: "requiring an integer answer and provide the final value, e.g., 1, 2, 3,",
    AnswerType.LIST: (
        "requiring a Python list as an answer and provide the final list, e.g., [1, 2, 3], [1.2, 1.3, 1.4],"
    ),
}


def question_text(item: Item) -> str:
    """Return the question with its unit and its options, as every prompt has it."""
    unit = f" (Unit: {item.unit})" if item.unit else ""
    choices = f"\nChoices:\n{lettered(item.labels, item.choices)}" if item.choices else ""
    # query.json has no white space at its end although a few questions and last options do.
    return f"{item.question}{unit}{choices}".rstrip()


def query(item: Item) -> Prompt:
    """Return the published zero-shot query: the hint for the answer's type, then the question."""
    is_float = item.answer_type is AnswerType.FLOAT
    hint = _FLOAT_HINTS[item.precision or 1] if is_float else _HINTS[item.answer_type]
    return Prompt(text=f"Hint: Please answer the question {hint} at the end.\nQuestion: {question_text(item)}")


# The authors' scorer: evaluation/calculate_score.py@53d5258.


def compare_official(item: Item, extracted: str) -> Verdict:
    """Return the verdict of the authors' normalisation and plain equality on a judge's extraction.

    A multiple-choice extraction always becomes an option, even an empty one: the letter of the first "(x)" in it, or
    itself where it is a letter, otherwise the option at the smallest edit distance, the first of equals. An integer is
    cut toward zero, a float rounded to the item's precision, a list compared as text. Options are compared by text,
    so either of two equal options will do. The stored verdicts that the authors published are older than the current
    cut: an extraction such as "5.0" counted as no integer then.
    """
    if item.gold is None:
        return _withheld(extracted)
    if item.answer_type is AnswerType.CHOICE:
        return _official_choice(item, extracted)
    if not extracted.strip():
        return Verdict(status=Status.NO_ANSWER, rule="empty")
    try:
        value = _normalised(item, extracted)
    except (ValueError, OverflowError):  # "five", "nan" as an integer, "1e999"
        return Verdict(status=Status.WRONG, extracted=extracted, rule=f"no-{item.answer_type.value}")
    return _settled(value == item.gold, value, item.answer_type.value)


def _official_choice(item: Item, extracted: str) -> Verdict:
    answer = extracted.strip()
    if letter := _IN_PARENTHESES.search(answer):
        answer = letter[1].upper()
    if answer in item.labels:
        index, rule = item.labels.index(answer), "choice-label"
    else:
        distances = [Levenshtein.distance(answer, choice) for choice in item.choices]
        index, rule = distances.index(min(distances)), "nearest-choice"
    gold = item.choices[item.labels.index(item.gold or "")]
    return _settled(item.choices[index] == gold, item.labels[index], rule)


def _normalised(item: Item, extracted: str) -> str:
    if item.answer_type is AnswerType.INTEGER:
        return str(int(float(extracted)))
    if item.answer_type is AnswerType.FLOAT:
        return str(round(float(extracted), item.precision))
    return extracted


# VLMEvalKit's scorer: dataset/utils/mathvista.py@e8e78f0.


def read_vlmevalkit(item: Item, response: Response) -> Verdict:
    """Return what VLMEvalKit decides before it would call its judge; `NO_ANSWER` is what the judge would read.

    An option that `can_infer` finds is final, also a wrong one. A free-form response decides only if the whole of it
    is a number equal to the gold: a bare wrong number goes to the judge. Lists are never decided here. The response is
    cut to its `<answer>` tag first, as VLMEvalKit does for VLAA-Thinker. (In VLMEvalKit a right "0" goes to the judge
    as well, since 0 is false; there it has nothing to read but 0.)
    """
    text = tagged_answer(response.text or "")
    if item.gold is None:
        return _withheld(text)
    if item.answer_type is AnswerType.CHOICE:
        label = can_infer(text, dict(zip(item.labels, item.choices, strict=True)))
        if label is not None:
            return _settled(label == item.gold, label, "prefetch/choice")
    elif _same_number(item, text):
        return _settled(True, text.strip(), f"prefetch/{item.answer_type.value}")
    return Verdict(status=Status.NO_ANSWER, rule="prefetch")


def compare_vlmevalkit(item: Item, extracted: str) -> Verdict:
    """Return VLMEvalKit's verdict on a judge's extraction (`post_check`).

    Stricter than the authors: "5.0" is no integer, a float is not rounded, and a list is always wrong, because
    VLMEvalKit compares the gold with the text "None" (its issue 1679; 2 of testmini's items).
    """
    if item.gold is None:
        return _withheld(extracted)
    if not extracted.strip():
        return Verdict(status=Status.NO_ANSWER, rule="empty")
    if item.answer_type is AnswerType.CHOICE:
        label = can_infer(extracted, dict(zip(item.labels, item.choices, strict=True)))
        return _settled(label == item.gold, label or extracted, "choice")
    return _settled(_same_number(item, extracted), extracted.strip(), item.answer_type.value)


def _same_number(item: Item, text: str) -> bool:
    gold = item.gold or ""
    try:
        if item.answer_type is AnswerType.INTEGER:
            return int(text) == int(gold)
        return item.answer_type is AnswerType.FLOAT and float(text) == float(gold)
    except ValueError:  # also more digits than int() takes
        return False


def _settled(correct: bool, extracted: str, rule: str) -> Verdict:
    return Verdict(status=Status.CORRECT if correct else Status.WRONG, extracted=extracted, rule=rule)


def _withheld(extracted: str) -> Verdict:
    return Verdict(status=Status.ERROR, extracted=extracted, rule="gold-withheld")


_HUB = "AI4Math/MathVista"
_CLOCK = "a clock read by completing a phrase: more than one option is grammatical"
_LETTERS_AS_TEXTS = "the options' texts are letters in another order than their labels: an answer (b) means two things"

TASK = Task(
    name="mathvista",
    title="MathVista",
    version=1,
    paper="arXiv:2310.02255",
    licence="CC BY-SA 4.0 for the authors' part; the images keep their owners' rights; for testing only, not training",
    splits={
        "testmini": Split(n_items=1000, hub=HubDataset(repo=_HUB, splits=("testmini",), image_column="decoded_image")),
        "test": Split(
            n_items=5141,
            hub=HubDataset(repo=_HUB, splits=("test",), image_column="decoded_image"),
            answers_public=False,
        ),
        "mini": mini("mathvista"),
    },
    default_split="testmini",
    read_folder=read_folder,
    to_item=to_item,
    prompts={
        "official": PromptStyle(version=1, render=query),
        "vlmevalkit": PromptStyle(version=1, render=query),
        "think": think(question_text),
    },
    scorers={
        "robust": ROBUST,
        "official": Scorer(version=1, read=None, compare=compare_official),
        "vlmevalkit": Scorer(version=1, read=read_vlmevalkit, compare=compare_vlmevalkit),
    },
    metrics={"accuracy": accuracy},
    headline="accuracy",
    breakdowns=dict.fromkeys(("task", "skill", "context", "grade", "answer_type", "question_type"), ("accuracy",)),
    bad_items={
        "1": "the gold is in centimetres, which the question does not say",
        "7": _CLOCK,
        "107": f"{_CLOCK}; the same question as 663",
        "168": _LETTERS_AS_TEXTS,
        "226": _CLOCK,
        "337": _CLOCK,
        "419": _CLOCK,
        "477": _CLOCK,
        "479": "56/22 rounds to 2.55, the gold is cut to 2.54",
        "531": _CLOCK,
        "587": "options A and D are the same (neither is the gold)",
        "663": f"{_CLOCK}; the same question as 107",
        "740": "options C and D are the same (neither is the gold)",
        "781": "options C and D are the same, and both are the gold: either letter is right, only C is counted",
        "849": _LETTERS_AS_TEXTS,
        "950": "the sign of the slope at 0 is disputed; the authors kept the label",
    },
)
