r"""MathVision (MATH-V): 3,040 competition problems with pictures, 16 subjects, 5 levels.

Paper: arXiv:2402.14804. Official rules and prompt: github.com/mathllm/MATH-V@a1f5cc3.
The leaderboard's rules: VLMEvalKit@e8e78f0. testmini's 304 items are a subset of test's, 19 of each subject.
Gold is kept as published, also where it is odd: "36/13" behind a form feed, a box around it, a unit glued to it.
The official rules are told here in our own code, without `eval`: `latex.exact` reads numbers as latex2sympy2 does.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ahabench.harness.answers.latex import MAX_CHARS, evaluate, exact
from ahabench.harness.answers.prefetch import can_infer
from ahabench.harness.answers.robust import ROBUST
from ahabench.harness.dataset import read_jsonl
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

_LABELS = ("A", "B", "C", "D", "E")


class _Record(BaseModel):
    """A record of the official files; the hub adds the decoded image."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str
    question: str
    options: tuple[str, ...]
    answer: str = Field(min_length=1)
    level: int = Field(ge=1, le=5)
    subject: str


def read_folder(folder: Path, split: str) -> Iterator[Row]:
    """Yield the records of `test.jsonl` or `testmini.jsonl`, with the image files under `images/`.

    Raises:
        DatasetError: the file is missing or not JSONL, or an image's path leaves the folder.
    """
    path = folder / f"{split}.jsonl"
    for record in read_jsonl(path):
        relative = PurePosixPath(str(record.get("image") or ".."))
        if relative.is_absolute() or ".." in relative.parts:
            raise DatasetError(
                f"{path}: record {record.get('id')!r} has the image {record.get('image')!r}, "
                "wanted a path inside the folder"
            )
        yield {**record, "images": (ImageFile(folder / relative),)}


def to_item(row: Row) -> Item:
    """Return the item of a record.

    Raises:
        DatasetError: a field is missing or malformed, or a multiple-choice answer is no letter from A to E.
    """
    try:
        record = _Record.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DatasetError(f"mathvision record {row.get('id')!r}: {where}: {first['msg']}") from error
    if record.options and len(record.options) != len(_LABELS):
        raise DatasetError(f"mathvision {record.id}: {len(record.options)} options, wanted none or 5")
    if record.options and record.answer not in _LABELS:
        raise DatasetError(f"mathvision {record.id}: the answer {record.answer!r} is no letter from A to E")
    return Item(
        id=record.id,
        question=record.question,
        gold=record.answer,
        answer_type=AnswerType.CHOICE if record.options else AnswerType.EXPRESSION,
        images=tuple(row.get("images", ())),
        choices=record.options,
        labels=_LABELS if record.options else (),
        tags={
            "subject": (record.subject,),
            "level": (str(record.level),),
            "subject_level": (f"{record.subject}, level {record.level}",),
            "question_type": ("multi_choice" if record.options else "free_form",),
        },
    )


# Prompts.


def question_text(item: Item) -> str:
    """Return the question and, on a line each, its options, unless these are only the letters of what the image shows.

    The tags such as "<image1>" stay: one image holds all the pictures of an item, and the authors kept the tags too.
    """
    shown = item.choices and item.choices != _LABELS
    return f"{item.question}\n{lettered(item.labels, item.choices)}" if shown else item.question


def official(item: Item) -> Prompt:
    """Return the authors' prompt for Qwen-VL and GPT-4 (models/Qwen-VL.py@a1f5cc3)."""
    instruction = (
        'Please solve the problem step by step and put your answer in one "\\boxed{}". '
        'If it is a multiple choice question, only one letter is allowed in the "\\boxed{}".'
    )
    return Prompt(text=f"{instruction}\n{question_text(item)}\n")


def hint_first(item: Item) -> Prompt:
    """Return the hint, the question and the options, as VLMEvalKit most likely asks.

    Its questions come ready-made in MathVision.tsv, which we have not seen. The examples that it shows its judge have
    this wording and this order; that the options stand on lines of their own, also where they are mere letters, is
    taken over from its MathVista.
    """
    if not item.choices:
        hint, options = "Please answer the question and provide the final answer at the end.", ""
    else:
        hint = "Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end."
        options = f"\nChoices:\n{lettered(item.labels, item.choices)}"
    return Prompt(text=f"Hint: {hint}\nQuestion: {item.question}{options}")


# The authors' scorer: evaluation/evaluate.py and utils.py@a1f5cc3, from a description of their rules.

_CUES = ("the final answer is", "the answer is", "the correct answer is", "the answer should be")
_MAX_NUMERAL = 400
"""Characters that may be one number; the authors have no limit."""
_RESPELLED = (
    *((" ", ""), ("\\,", ""), ("∞", "\\infty"), ("+\\infty", "\\infty"), ("\\\\", "\\"), ("\n", "")),
    *((word, "") for word in ("\\text", "\\mbox", "\\left", "\\right", "^{\\circ}", "^\\circ", "{m}^3", "m^3")),
    *((word, "") for word in ("{units}", "units", "{km}", "km", "\\!")),
    *(("\\\\", "\\"), ("tfrac", "frac"), ("dfrac", "frac"), ("\\$", ""), ("$", ""), ("\\%", "")),
    ("{.", "{0."),
)
"""Replaced one after the other; so "\\rightarrow" leaves "arrow"."""
_LETTER_IN_PARENTHESES = re.compile(r"\(([a-e])\)")
_LETTER_IN_BRACES = re.compile(r"\{([a-e])\}")
_RATIO = re.compile(r"(-?[1-9]\d*|0)/(-?[1-9]\d*|0)", re.ASCII)
_ROOT_OF_ONE_CHARACTER = re.compile(r"\\sqrt([^{])")


def extract_official(response: str) -> str:
    r"""Return what the authors' rules take for the answer, normalised: lower case, no spaces, no "$", no degree signs.

    It is a whole sentence where no rule finds anything shorter. Only a response is normalised so, gold and options are
    not: an option copied word for word can therefore be marked wrong. Agrees with the extractions that the authors
    published on all but 2 of 21,280 responses.

    >>> extract_official("Hence \\boxed{\\text{(B)}}."), extract_official("So the answer is 1/2")
    ('b', '\\frac{1}{2}')
    """
    text = _normalised(_boxed(_concluding(response.strip()).lower()))
    text = _LETTER_IN_BRACES.sub(r"\1", _LETTER_IN_PARENTHESES.sub(r"\1", text))
    return text.rstrip(".").lstrip(":").strip()


def _concluding(text: str) -> str:
    """Return the part of a response that the rules read."""
    for letter in _LABELS:
        if text.endswith((f" {letter}.", f" ({letter}).")) or text.startswith((f"{letter}\n", f"({letter})\n")):
            text = letter
    tail = text.rpartition("is ")[2].rstrip(".")
    if _is_number(tail):
        text = tail
    boxes = text.count("oxed{")
    if boxes > 1:
        return "\\boxed{" + text.rpartition("oxed{")[2]
    if boxes == 0:
        for cue in _CUES:
            for spelled in (cue, cue.replace("the", "The")):
                _, found, after = text.rpartition(spelled)
                text = after.strip()
                if found:
                    text = text.partition("\n")[0].partition(". ")[0]
    return text


def _is_number(text: str) -> bool:
    if len(text) > _MAX_NUMERAL:
        return False
    try:
        float(text.replace(",", ""))
    except ValueError:
        return False
    return True


def _boxed(text: str) -> str:
    """Return what stands in the box, up to the text's last brace; the whole text if there is no box."""
    text = text.replace("{}", "")
    start, end = text.find("oxed{"), text.rfind("}")
    if start >= 0 and start + len("oxed{") <= end:
        text = text[start + len("oxed{") : end]
    closing, opening = text.find("}"), text.find("{")
    return text[:closing] if closing >= 0 and not 0 <= opening < closing else text


def _normalised(text: str) -> str:
    text = text.rpartition("=")[2].rpartition("\\approx")[2]
    for old, new in _RESPELLED:
        text = text.replace(old, new)
    if text.startswith("."):
        text = "0" + text
    text = _ROOT_OF_ONE_CHARACTER.sub(r"\\sqrt{\1}", text)
    if text == "0.5":
        return "\\frac{1}{2}"
    ratio = _RATIO.fullmatch(text)
    return f"\\frac{{{ratio[1]}}}{{{ratio[2]}}}" if ratio else text


def read_official(item: Item, response: Response) -> Verdict:
    """Return the authors' verdict; they read every response, so only an empty one has no answer."""
    return compare_official(item, extract_official(response.text or ""))


def compare_official(item: Item, extracted: str) -> Verdict:
    r"""Return the verdict of the authors' equality on an extraction: right if equal to the letter or the option's text.

    Equal are, in lower case: equal texts; lists in round or square brackets whose members are equal numbers; numbers
    equal at two decimals. Numbers are read as latex2sympy2 1.9.1 reads them: "5-2-3-4-1" is -5, "1:2" is 0.5,
    "2\frac{1}{2}" and "1.step 2" are 1, "\frac12" and "12 cm" are none, and whatever is below 0.005 is 0.
    """
    if not extracted.strip():
        return Verdict(status=Status.NO_ANSWER, rule="official/empty")
    gold = item.gold or ""
    if item.answer_type is AnswerType.CHOICE:
        if extracted.strip().lower() == gold.lower():
            return Verdict(status=Status.CORRECT, extracted=extracted, rule="official/letter")
        gold = item.choices[item.labels.index(gold)]
    rule = _equality(gold.lower(), extracted.lower())
    status = Status.CORRECT if rule else Status.WRONG
    return Verdict(status=status, extracted=extracted, rule=f"official/{rule or 'unequal'}")


def _equality(gold: str, answer: str) -> str | None:
    """Return the name of the first rule by which both are equal, or `None`."""
    if not gold.strip():
        return None
    if gold.strip() == answer.strip():
        return "text"
    members = _members(gold)
    if members is not None and members == _members(answer):
        return "list"
    number, other = exact(gold, latex2sympy=True), exact(answer, latex2sympy=True)
    if number is None or other is None:
        return None
    return "number" if round(number, 2) == round(other, 2) else None


def _members(text: str) -> tuple[str | float, ...] | None:
    """Return a list's bracket and its members, numbers at two decimals; `None` where one is not a number."""
    parts = text[1:-1].split(",")
    if not 2 <= len(parts) <= len(text) <= MAX_CHARS or text[0] + text[-1] not in ("()", "[]"):
        return None
    members: list[str | float] = [text[0]]
    for part in parts:
        if "infty" in part or part in ("a", "-a"):
            members.append(part)
            continue
        number = exact(part, latex2sympy=True)
        if number is None:
            return None
        members.append(round(number, 2))
    return tuple(members)


# VLMEvalKit's scorer: dataset/utils/mathv.py@e8e78f0.


def read_vlmevalkit(item: Item, response: Response) -> Verdict:
    """Return what VLMEvalKit decides before it would call its judge; `NO_ANSWER` is what the judge would read.

    An option that `can_infer` finds is final, also a wrong one. A free-form response decides only if the whole of it
    equals the gold: a bare wrong number goes to the judge. The response is cut to its `<answer>` tag first, as
    VLMEvalKit does for VLAA-Thinker.
    """
    text = tagged_answer(response.text or "")
    if item.answer_type is AnswerType.CHOICE:
        label = _inferred(item, text)
        if label is not None:
            return _settled(label == item.gold, label, "prefetch/choice")
    elif _same_value(item.gold or "", text):
        return _settled(True, text.strip(), "prefetch/value")
    return Verdict(status=Status.NO_ANSWER, rule="prefetch")


def compare_vlmevalkit(item: Item, extracted: str) -> Verdict:
    """Return VLMEvalKit's verdict on a judge's extraction (`post_check`)."""
    if not extracted.strip():
        return Verdict(status=Status.NO_ANSWER, rule="empty")
    if item.answer_type is AnswerType.CHOICE:
        label = _inferred(item, extracted)
        return _settled(label == item.gold, label or extracted, "choice")
    return _settled(_same_value(item.gold or "", extracted), extracted.strip(), "value")


def _inferred(item: Item, text: str) -> str | None:
    return can_infer(text, dict(zip(item.labels, item.choices, strict=True)))


def _same_value(gold: str, text: str) -> bool:
    """Return whether both are the same text or number. VLMEvalKit runs `eval` and a symbolic parser; we do neither."""
    if gold.strip().lower() == text.strip().lower():
        return True
    number, other = evaluate(gold), evaluate(text)
    return number is not None and other is not None and abs(number - other) < 1e-6


def _settled(correct: bool, extracted: str, rule: str) -> Verdict:
    return Verdict(status=Status.CORRECT if correct else Status.WRONG, extracted=extracted, rule=rule)


def _hub(split: str) -> HubDataset:
    return HubDataset(repo="MathLLMs/MathVision", splits=(split,), image_column="decoded_image")


_OTHER_LETTERS = "options' texts are letters, not all under their own label: an answer such as (D) means two things"
_BOX_IN_GOLD = "the gold has a box around it, which a response's answer has not"
_UNIT_IN_GOLD = "a unit in braces is glued to the gold"
_LETTER_GOLD = "free-form, but the gold is the letter of a picture"

TASK = Task(
    name="mathvision",
    title="MathVision",
    version=1,
    paper="arXiv:2402.14804",
    licence="MIT by the repository's file; the problems come from competitions, whose owners keep their rights",
    splits={
        "test": Split(n_items=3040, hub=_hub("test")),
        "testmini": Split(n_items=304, hub=_hub("testmini")),
        "mini": mini("mathvision"),
    },
    default_split="test",
    read_folder=read_folder,
    to_item=to_item,
    prompts={
        "official": PromptStyle(version=1, render=official),
        "vlmevalkit": PromptStyle(version=1, render=hint_first),
        "think": think(question_text),
    },
    scorers={
        "robust": ROBUST,
        "official": Scorer(version=1, read=read_official, compare=compare_official),
        "vlmevalkit": Scorer(version=1, read=read_vlmevalkit, compare=compare_vlmevalkit),
    },
    metrics={"accuracy": accuracy},
    headline="accuracy",
    breakdowns=dict.fromkeys(("subject", "level", "subject_level", "question_type"), ("accuracy",)),
    bad_items={
        "59": _LETTER_GOLD,
        "434": _LETTER_GOLD,
        "468": 'the options\' texts are "A)" to "E)"',
        "654": _OTHER_LETTERS,
        "742": _OTHER_LETTERS,
        "941": _OTHER_LETTERS,
        "1843": "options C and D are the same (neither is the gold)",
        "1893": f"options B and C are the same (neither is the gold); {_OTHER_LETTERS}",
        "2521": "the gold ends in a space",
        "2825": "the gold, 343/692224, is below what two decimals show: the official scorer takes any 0 for it",
        "2828": _BOX_IN_GOLD,
        "2830": 'the gold is damaged: a form feed and "rac{36}{13}" for a fraction',
        "2833": _BOX_IN_GOLD,
        "2875": _BOX_IN_GOLD,
        "2877": _BOX_IN_GOLD,
        "2925": "the gold is not computed: 45^2 for 2025",
        "2947": _UNIT_IN_GOLD,
        "3007": _UNIT_IN_GOLD,
        "3008": _UNIT_IN_GOLD,
    },
)
