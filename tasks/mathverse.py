"""MathVerse: 788 geometry and function problems in six versions that move information from the text to the picture.

Paper: arXiv:2403.14624. Official rules: github.com/ZrrSkywalker/MathVerse@937b090; leaderboard's: VLMEvalKit@e8e78f0.
Both of those leave the comparison to a judge model; what they do without one is exact string equality.
The versions of a problem stand or fall together, so the problem is the cluster.
A score without its split means little: the Open LMM Reasoning Leaderboard's column is vision_only.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from ahabench.harness.answers.robust import ROBUST
from ahabench.harness.dataset import read_json, read_jsonl
from ahabench.harness.errors import DatasetError
from ahabench.harness.images import ImageFile
from ahabench.harness.metrics import accuracy
from ahabench.harness.prompts import tagged_answer, think
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

VERSIONS: Mapping[str, str] = {
    "vision_only": "Vision Only",
    "text_dominant": "Text Dominant",
    "text_lite": "Text Lite",
    "vision_intensive": "Vision Intensive",
    "vision_dominant": "Vision Dominant",
    "text_only": "Text Only",
}
"""The data's `problem_version` of each split that has one version."""

UNSEEN_LABELS = ("A", "B", "C", "D", "E", "F")
"""The labels of a multiple-choice item whose options stand in the picture only; no item has more than six."""

_STAND_IN = "derived_vision_only_meta.jsonl"
_OPTIONS = re.compile(r"\nChoices?:[ \t]*\n")
_OPTION = re.compile(r"([A-Z])[:.](.*)")
_LETTER = re.compile(r"\(?([A-Z])\)?")
# "even", "Bugs Bunny": letters, and none of what a formula, a number or a unit would have.
_WORDS = re.compile(r"[^\W\d_]{3,}(?: [^\W\d_]+)*")


class _Metadata(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    subject: str
    subfield: str


class _Record(BaseModel):
    """A record of the official files; the hub adds `question_for_eval`, the question also where a picture has it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    problem_index: str
    problem_version: str
    question: str
    answer: str
    question_type: Literal["multi-choice", "free-form"]
    metadata: _Metadata
    question_for_eval: str | None = None


class Options(NamedTuple):
    """The options of a question, as long as each other; empty where it shows none."""

    labels: tuple[str, ...]
    texts: tuple[str, ...]


class Gold(NamedTuple):
    """A published answer as items hold it."""

    text: str
    answer_type: AnswerType


def read_folder(folder: Path, split: str) -> Iterator[Row]:
    """Yield the records of a split from `testmini.json` or `testmini_text_only.json`, in their order.

    A record without `question_for_eval` gets the question of its problem's Text Dominant version there. Where
    `testmini.json` is absent, vision_only is also read from `derived_vision_only_meta.jsonl`, a stand-in that somebody
    made from the text-only records: it has the same golds, enough to score recorded responses.
    Images are looked for under the folder itself and under its `images/`.

    Raises:
        DatasetError: a file is missing or not a list of records, or an image's path leaves the folder.
    """
    path = folder / ("testmini_text_only.json" if split == "text_only" else "testmini.json")
    if split == "vision_only" and not path.exists() and (folder / _STAND_IN).exists():
        path = folder / _STAND_IN
    records = list(read_jsonl(path)) if path.suffix == ".jsonl" else _records(path)
    whole = {
        str(record.get("problem_index")): record.get("question")
        for record in records
        if record.get("problem_version") == VERSIONS["text_dominant"]
    }
    for record in records:
        if split != "testmini" and record.get("problem_version") != VERSIONS[split]:
            continue
        question = record.get("question_for_eval") or whole.get(str(record.get("problem_index")))
        yield {**record, "question_for_eval": question, "images": _images(folder, record)}


def _records(path: Path) -> list[Row]:
    records = read_json(path)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DatasetError(f"{path} is not a list of records")
    return records


def _images(folder: Path, record: Row) -> tuple[ImageFile, ...]:
    image = record.get("image")
    if not image or not isinstance(image, str):
        return ()
    relative = PurePosixPath(image)
    if relative.is_absolute() or ".." in relative.parts:
        raise DatasetError(f"mathverse record {record.get('sample_index')!r}: image {image!r} leaves the folder")
    # The archive on the hub unpacks into images/, the paths in the records start below it.
    inner = folder / "images" / relative
    return (ImageFile(inner if inner.parent.is_dir() else folder / relative),)


def to_item(row: Row) -> Item:
    """Return the item of a record, with the id "{problem_index}_{problem_version}".

    `question` is what the prompt shows: empty for Vision Only, where the picture has it. The options are read from it
    or, where it has none, from `question_for_eval`.

    Raises:
        DatasetError: a field is missing or malformed.
    """
    try:
        record = _Record.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DatasetError(f"mathverse record {row.get('sample_index')!r}: {where}: {first['msg']}") from error
    options = Options((), ())
    if record.question_type == "multi-choice":
        options = parse_options(record.question)
        if not options.texts:
            options = parse_options(record.question_for_eval or "")
        if not options.texts:
            options = Options(UNSEEN_LABELS, ())
    gold = read_gold(record.answer, options)
    tags = {
        "version": (record.problem_version,),
        "subject": (record.metadata.subject,),
        "subfield": (record.metadata.subfield,),
        "question_type": (record.question_type,),
    }
    if gold.text != record.answer:
        tags["published_gold"] = (record.answer,)
    return Item(
        id=f"{record.problem_index}_{record.problem_version}",
        question=record.question,
        gold=gold.text,
        answer_type=gold.answer_type,
        images=() if record.problem_version == VERSIONS["text_only"] else tuple(row.get("images", ())),
        choices=options.texts,
        labels=options.labels,
        group=record.problem_index,
        tags=tags,
    )


def parse_options(question: str) -> Options:
    r"""Return the options below a line "Choices:" or "Choice:", written "A:text", "A.text" or "A. text".

    Every option is one line; a line that does not bear the next label belongs to none (99 and 124 end with a number
    that strayed in).

    >>> parse_options("Find x.\nChoices:\nA:4\nB:6")
    Options(labels=('A', 'B'), texts=('4', '6'))
    """
    start = _OPTIONS.search(question)
    labels: list[str] = []
    texts: list[str] = []
    for line in question[start.end() :].split("\n") if start else ():
        option = _OPTION.fullmatch(line)
        if option and ord(option[1]) == ord("A") + len(labels):
            labels.append(option[1])
            texts.append(option[2].strip())
    return Options(tuple(labels), tuple(texts))


def read_gold(answer: str, options: Options) -> Gold:
    r"""Return a published answer with its type.

    With options: a letter, perhaps in parentheses, is CHOICE; letters on a line each are CHOICES; an option's content
    is CHOICE, by its label. Everything else is TEXT where it consists of words, or EXPRESSION as it stands.

    >>> read_gold("A\nC", Options(("A", "B", "C"), ("4", "6", "8")))
    Gold(text='A, C', answer_type=<AnswerType.CHOICES: 'choices'>)
    """
    if options.labels:
        letters = [_LETTER.fullmatch(line.strip()) for line in answer.split("\n")]
        found = [letter[1] for letter in letters if letter and letter[1] in options.labels]
        if len(found) == len(letters):
            return Gold(", ".join(found), AnswerType.CHOICE if len(found) == 1 else AnswerType.CHOICES)
        if options.texts.count(answer.strip()) == 1:
            return Gold(options.labels[options.texts.index(answer.strip())], AnswerType.CHOICE)
    return Gold(answer, AnswerType.TEXT if _WORDS.fullmatch(answer) else AnswerType.EXPRESSION)


# Prompts: the data's own query_wo ("without reasoning", the primary score) and query_cot, by the rule that made them.


def query_wo(item: Item) -> Prompt:
    """Return the published query that asks for the answer directly: `query_wo`."""
    return _query(item, f"please directly answer the question and provide {_form(item)}.")


def query_cot(item: Item) -> Prompt:
    """Return the published query that asks for reasoning first: `query_cot`.

    For Vision Only, three of the four wordings are published ones; that of a multiple-choice item with reasoning
    follows their pattern.
    """
    asked = f"please first conduct reasoning, and then answer the question and provide {_form(item)}, at the end."
    return _query(item, asked)


def question_text(item: Item) -> str:
    """Return the question alone; for Vision Only, where the picture has it, the words that say so."""
    return item.question or "According to the question shown in the image, please answer the question."


def _form(item: Item) -> str:
    if item.tags["question_type"] == ("multi-choice",):
        return "the correct option letter, e.g., A, B, C, D"
    return "the final value, e.g., 1, 2.5, 300"


def _query(item: Item, asked: str) -> Prompt:
    if item.tags["version"] == (VERSIONS["vision_only"],):
        return Prompt(text=f"According to the question shown in the image, {asked}")
    return Prompt(text=f"{asked[0].upper()}{asked[1:]}\nQuestion: {item.question}")


# Scorers: what the authors (evaluation/score_answer_s2.py@937b090) and VLMEvalKit (dataset/utils/mathverse.py@e8e78f0)
# do without their judges.


def compare_official(item: Item, extracted: str) -> Verdict:
    """Return whether a judge's extraction equals the gold, character by character but for white space at the ends.

    This is the authors' `--quick_match`, which they call inaccurate: their own second step is another judge, so
    "2.0" for "2" is wrong here and right there. "null" is their extraction step's word for no answer. Where the
    published gold and the item's differ ("(C)" and "C"), either will do.
    """
    answer = extracted.strip()
    if not answer or answer.lower() == "null":
        return Verdict(status=Status.NO_ANSWER, rule="empty")
    return _exact(item, answer, "exact")


def read_vlmevalkit(item: Item, response: Response) -> Verdict:
    """Return CORRECT for a response that is the gold and nothing else; everything else is left to a judge.

    VLMEvalKit has one rule, exact equality, and applies it to its judge's extraction; a response that is the gold
    leaves such a judge nothing else to extract. The response is cut to its `<answer>` tag first, as VLMEvalKit does
    for VLAA-Thinker.
    """
    verdict = _exact(item, tagged_answer(response.text or "").strip(), "prefetch/exact")
    return verdict if verdict.correct else Verdict(status=Status.NO_ANSWER, rule="prefetch")


def compare_vlmevalkit(item: Item, extracted: str) -> Verdict:
    """Return VLMEvalKit's rule on a judge's extraction: exact equality. Its second judge is not asked."""
    answer = extracted.strip()
    return _exact(item, answer, "exact") if answer else Verdict(status=Status.NO_ANSWER, rule="empty")


def _exact(item: Item, answer: str, rule: str) -> Verdict:
    golds = {gold.strip() for gold in (item.gold or "", *item.tags.get("published_gold", ()))}
    return Verdict(status=Status.CORRECT if answer in golds else Status.WRONG, extracted=answer, rule=rule)


_CONTENT = "the published gold is an option's content, read here as its letter"
_TWO = "the question wants two letters"
_PARENTHESES = "the published gold is a letter in parentheses, read here without them"
_DEGREE = "the degree sign of the gold is garbled"
_EQUALS = "the gold begins with an equals sign and has no left side"

_BAD_PROBLEMS = {
    "99": "a stray number follows the last option",
    "124": "a stray number follows the last option",
    "211": "options B and C are the same (neither is the gold)",
    "242": "options A and B are the same (neither is the gold)",
    "334": _DEGREE,
    "339": _CONTENT,
    "340": _CONTENT,
    "357": _DEGREE,
    "429": _CONTENT,
    "430": _CONTENT,
    "440": _TWO,
    "459": "the gold is a whole sentence that begins with the instruction to complete it",
    "486": "the gold has an unbalanced \\right",
    "494": "the second piece of the gold begins at 3; the first ends at -3",
    "517": _PARENTHESES,
    "518": _PARENTHESES,
    "521": _PARENTHESES,
    "523": _PARENTHESES,
    "538": "the gold lost its \\frac: {8}{5}",
    "555": _TWO,
    "556": "the gold is the same number twice; the expressions that it answers are not in the text",
    "568": "the gold has a full stop outside its formula",
    "592": _EQUALS,
    "622": "options B and E are empty; the question asks for all that apply, the gold is one letter",
    "626": _EQUALS,
    "629": "the gold is a name, the text asks for an amount of water",
    "630": "the gold sets a function equal to a point",
}


def _bad_items() -> dict[str, str]:
    return {
        f"{problem}_{version}": reason for problem, reason in _BAD_PROBLEMS.items() for version in VERSIONS.values()
    }


def _split(version: str | None) -> Split:
    where = {} if version is None else {"problem_version": version}
    hub = HubDataset(repo="AI4Math/MathVerse", config="testmini", splits=("testmini",), where=where)
    return Split(n_items=788 if where else 3940, n_clusters=788, hub=hub)


def _splits() -> dict[str, Split]:
    splits = {name: _split(version) for name, version in VERSIONS.items() if name != "text_only"}
    text_only = HubDataset(repo="AI4Math/MathVerse", config="testmini_text_only", splits=("testmini_text_only",))
    return splits | {
        "testmini": _split(None),
        "text_only": Split(n_items=788, hub=text_only),
        "mini": mini("mathverse"),
    }


TASK = Task(
    name="mathverse",
    title="MathVerse, by problem version",
    version=1,
    paper="arXiv:2403.14624",
    licence="MIT",
    splits=_splits(),
    default_split="vision_only",
    read_folder=read_folder,
    to_item=to_item,
    prompts={
        "official": PromptStyle(version=1, render=query_wo),
        "official_cot": PromptStyle(version=1, render=query_cot),
        "vlmevalkit": PromptStyle(version=1, render=query_wo),
        "think": think(question_text),
    },
    scorers={
        "robust": ROBUST,
        "official": Scorer(version=1, read=None, compare=compare_official),
        "vlmevalkit": Scorer(version=1, read=read_vlmevalkit, compare=compare_vlmevalkit),
    },
    metrics={"accuracy": accuracy},
    headline="accuracy",
    breakdowns=dict.fromkeys(("version", "subject", "subfield"), ("accuracy",)),
    bad_items=_bad_items(),
)
