"""LogicVista: 448 multiple-choice questions on logical reasoning in visual contexts.

Paper: arXiv:2407.04973. Reference: github.com/Yijia-Xiao/LogicVista@e5795f1; VLMEvalKit@e8e78f0.
Both sets of published rules let a judge model read the answer, so "official" and "vlmevalkit" only compare.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from ahabench.harness.answers.robust import ROBUST
from ahabench.harness.dataset import read_json
from ahabench.harness.errors import DatasetError
from ahabench.harness.images import ImageFile
from ahabench.harness.metrics import accuracy
from ahabench.harness.prompts import think
from ahabench.harness.types import (
    AnswerType,
    HubDataset,
    Item,
    Prompt,
    PromptStyle,
    Row,
    Scorer,
    Split,
    Status,
    Task,
    Verdict,
)
from ahabench.tasks.mini.suite import mini

NOT_ANNOTATED = frozenset({"v1_382"})
"""Left out by all but the authors: every number of the Open LMM Reasoning Leaderboard is a multiple of 1/447."""

_TAGS = ("skill", "broad_capability", "specific_capability")
_UNSAID_LABELS = ("A", "B", "C", "D", "E")
_IN_BRACKETS = re.compile(r"\(([A-I])\)")
_BEFORE_BRACKET = re.compile(r"(?<!\S)([A-I])\)\s")
_LISTED = re.compile(r"\bA,\s*B\b(?:,?\s*(?:(?:and|or)\s+)?[C-I]\b)*")
_RANGE = re.compile(r"\bA(?:-| to )([B-I])\b")
_NUMBERED = re.compile(r"\bSelect from 1-([2-9])\b")


def read_folder(folder: Path, split: str) -> Iterator[Row]:
    """Yield the rows of `data/dataset.json` (or `dataset.json`), each with its key under "id" and its picture.

    Raises:
        DatasetError: the file is missing, or is no object of objects.
    """
    base = folder / "data" if (folder / "data").is_dir() else folder
    path = base / "dataset.json"
    records = read_json(path)
    if not isinstance(records, dict) or not all(isinstance(record, dict) for record in records.values()):
        raise DatasetError(f"{path} is no object of objects; is --data the official folder of LogicVista?")
    for key, record in records.items():
        name = Path(str(record.get("imagename") or f"{key}.png")).name
        yield record | {"id": key, "images": (ImageFile(base / "images" / name),)}


def to_item(row: Row) -> Item:
    """Return one question; its labels are those that its text names, A to E where it names none.

    Raises:
        DatasetError: the row has no question, no answer, or nothing that names it.
    """
    item_id = _item_id(row)
    if "question" not in row or "answer" not in row:
        raise DatasetError(
            f"logicvista {item_id}: columns {sorted(row)}, wanted question and answer; is it LogicVista?"
        )
    question, gold = str(row["question"] or ""), str(row["answer"] or "").strip()
    labels, choices = _options(question)
    return Item(
        id=item_id,
        question=question,
        gold=gold,
        answer_type=AnswerType.CHOICES if ", " in gold else AnswerType.CHOICE,
        images=row["images"],
        choices=choices,
        labels=labels,
        tags={name: _values(row.get(name)) for name in _TAGS},
    )


def compare_official(item: Item, extracted: str) -> Verdict:
    """Return whether the letters of a judge's extraction are exactly the gold's, duplicates included.

    Source: eval/extract_accuracy.py@e5795f1: lower case, sorted, lists equal. "ZZZZZ" is its judge's word for none.

    Args:
        item: the question; where its gold is empty (v1_382), only an empty extraction is right, as there.
        extracted: letters joined by ", ".
    """
    letters = sorted(extracted.lower().split(", "))
    if letters == sorted((item.gold or "").lower().split(", ")):
        return Verdict(status=Status.CORRECT, extracted=extracted, rule="judge/letter-list")
    status = Status.NO_ANSWER if letters in (["zzzzz"], [""]) else Status.WRONG
    return Verdict(status=status, extracted=extracted, rule="judge/letter-list")


def compare_vlmevalkit(item: Item, extracted: str) -> Verdict:
    """Return whether an extraction has exactly the gold's letters, in any order.

    Source: vlmeval/dataset/utils/logicvista.py@e8e78f0. There a judge's reply counts only where it is nothing but
    capital letters ("BD"), and is asked for again otherwise; an extraction made elsewhere ("b, d") is brought into that
    form first. "Z" and the official "zzzzz" say that there is no answer. Digits are never accepted: v1_20 can never be
    right.
    """
    reply = re.sub(r"[\s,]+", "", extracted).upper()
    if not reply.isalpha() or set(reply) == {"Z"}:
        return Verdict(status=Status.NO_ANSWER, extracted=extracted, rule="judge/refused")
    right = sorted(reply) == sorted((item.gold or "").replace(", ", ""))
    return Verdict(status=Status.CORRECT if right else Status.WRONG, extracted=reply, rule="judge/letters")


_OFFICIAL_PROMPT = (
    "\nYour response should only contain letters/numbers, do not add extra explaination. "
    "These are some examples of how to format your output:\n"
    "question: what is 1 + 9? A) 4 B) 123 C) 10 D) 3\nanswer: C\n\n"
    "question: What is the next logical choice based on the image? Select from A-D\nanswer: A\n\n"
    "question: Which of the boxes comes next in the sequence? Select from A, B, C, D, and E. "
    "(A) A (B) B (C) C (D) D (E) E \nanswer: B\n\n"
    "Now answer the following in the same style based off the provided image:\nquestion: "
)


def _official_prompt(item: Item) -> Prompt:
    """The authors publish no prompt; this one stands in their LLaVA-NeXT answers (eval/answers@e5795f1)."""
    return Prompt(text=f"{_OFFICIAL_PROMPT}{item.question}\nanswer: ")


def _question(item: Item) -> str:
    return item.question


def _item_id(row: Row) -> str:
    """Return "v1_N": the official files' key. Copies on the hub may name the row, number it, or name its picture."""
    for column in ("id", "index", "imagename"):
        name = str(row.get(column, "")).removesuffix(".png")
        if re.fullmatch(r"(?:v1_)?[0-9]{1,3}", name):
            return f"v1_{int(name.removeprefix('v1_'))}"
    raise DatasetError(
        f"logicvista: a row with columns {sorted(row)} has no id, index or imagename such as v1_0; "
        "give the official folder with --data DIR, or pin another --revision"
    )


def _values(cell: object) -> tuple[str, ...]:
    """Return a tag's values: the official files hold lists of one, copies may hold the text alone."""
    if isinstance(cell, str):
        return (cell,)
    return tuple(map(str, cell)) if isinstance(cell, Iterable) else ()


def _options(question: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the labels, and the options' texts where the question spells them out."""
    for pattern in (_IN_BRACKETS, _BEFORE_BRACKET):
        if run := _last_run(pattern, question):
            texts = tuple(text for _, text in run)
            return tuple(label for label, _ in run), texts if all(texts) else ()
    if listed := _LISTED.search(question):
        return tuple(re.findall(r"\b[A-I]\b", listed[0])), ()
    if span := _RANGE.search(question):
        return tuple("ABCDEFGHI"[: ord(span[1]) - ord("A") + 1]), ()
    if numbered := _NUMBERED.search(question):
        return tuple("123456789"[: int(numbered[1])]), ()
    return _UNSAID_LABELS, ()


def _last_run(pattern: re.Pattern[str], question: str) -> list[tuple[str, str]]:
    """Return (label, text) of the last run A, B, C, ...: an earlier one only announces the labels."""
    pieces = pattern.split(question)
    labels, texts = pieces[1::2], pieces[2::2]
    if "A" not in labels:
        return []
    start = len(labels) - 1 - labels[::-1].index("A")
    run = [(label, text.strip().removesuffix(",")) for label, text in zip(labels, texts, strict=True)][start:]
    in_order = [label for label, _ in run] == list("ABCDEFGHI")[: len(run)]
    return run if in_order and len(run) > 1 else []


_IGNORED_BY_OFFICIAL = 'the authors\' script turns a lone letter beyond E into "no answer", so the gold itself scores 0'

TASK = Task(
    name="logicvista",
    title="LogicVista",
    version=1,
    paper="arXiv:2407.04973",
    licence="Apache-2.0; the pictures are from commercial aptitude-test sites: treat them as for research only",
    splits={
        "test": Split(n_items=448, hub=HubDataset(repo="lscpku/LogicVista", splits=("test",))),
        "mini": mini("logicvista"),
    },
    default_split="test",
    read_folder=read_folder,
    to_item=to_item,
    prompts={
        "official": PromptStyle(version=1, render=_official_prompt),
        "vlmevalkit": PromptStyle(version=1, render=lambda item: Prompt(text=item.question)),
        "think": think(_question),
    },
    scorers={
        "robust": replace(ROBUST, excluded=NOT_ANNOTATED),
        "official": Scorer(version=1, read=None, compare=compare_official),
        "vlmevalkit": Scorer(version=1, read=None, compare=compare_vlmevalkit, excluded=NOT_ANNOTATED),
    },
    metrics={"accuracy": accuracy},
    headline="accuracy",
    breakdowns=dict.fromkeys(_TAGS, ("accuracy",)),
    bad_items={
        "v1_382": "neither question nor answer: robust and vlmevalkit leave it out (n = 447), official counts it",
        "v1_20": "the gold is the number 3; VLMEvalKit takes letters only, so it can never be right there",
        "v1_190": "the question and the picture number the options 1 to 5, the gold is the letter B",
        "v1_4": _IGNORED_BY_OFFICIAL,
        "v1_21": _IGNORED_BY_OFFICIAL,
    },
)
