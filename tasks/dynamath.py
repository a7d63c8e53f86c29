"""DynaMath: 501 seed questions in 10 variants each, for how far an answer survives a change of the numbers.

Paper: arXiv:2411.00836. Reference: github.com/DynaMath/DynaMath@598c3c3 (evaluation/opensource_json_eval.py);
VLMEvalKit@e8e78f0 (vlmeval/dataset/dynamath.py).
Differs from both: a run with a missing variant has no worst case, where VLMEvalKit would take the rest for all.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ahabench.harness.answers.robust import ROBUST
from ahabench.harness.dataset import read_json
from ahabench.harness.errors import DatasetError, IncompleteRunError
from ahabench.harness.images import ImageFile
from ahabench.harness.metrics import accuracy
from ahabench.harness.prompts import tagged_answer, think
from ahabench.harness.stats import clustered_mean, clustered_ratio
from ahabench.harness.types import (
    AnswerType,
    Estimate,
    HubDataset,
    Item,
    Prompt,
    PromptStyle,
    Response,
    Result,
    Row,
    Scorer,
    Split,
    Status,
    Task,
    Verdict,
)
from ahabench.tasks.mini.suite import mini

N_VARIANTS = 10
"""Variants of a seed in the released sample; the metrics are defined on all of them."""
TOLERANCE = 0.001
"""Largest absolute error of a right number (the authors' GPT-4o few-shot script alone takes 0.05)."""

_TYPES = {"float": AnswerType.FLOAT, "multiple choice": AnswerType.CHOICE, "text": AnswerType.TEXT}
_IN_BRACKETS = re.compile(r"\(([A-F])\)")
_AT_LINE_START = re.compile(r"^([A-F])[.:] ", re.MULTILINE)
_KIT_LETTERS = "ABCDE"


def read_folder(folder: Path, split: str) -> Iterator[Row]:
    """Yield the rows of `10trials/trial{1..10}/dataset.json`, each with its seed as "id" and its trial as "variant".

    Raises:
        DatasetError: a file is missing, or is no object of objects.
    """
    clone = folder / "samples and result"
    base = (clone if clone.is_dir() else folder) / "10trials"
    for variant in range(1, N_VARIANTS + 1):
        path = base / f"trial{variant}" / "dataset.json"
        records = read_json(path)
        if not isinstance(records, dict) or not all(isinstance(record, dict) for record in records.values()):
            raise DatasetError(f"{path} is no object of objects; is --data the official folder of DynaMath?")
        for seed, record in records.items():
            image = path.parent / "image" / Path(str(record.get("image"))).name
            yield record | {"id": seed, "variant": variant, "images": (ImageFile(image),)}


def to_item(row: Row) -> Item:
    """Return one variant of a seed: the item "{seed}_v{variant}" in the group of its seed.

    Raises:
        DatasetError: the row lacks a column, its answer type is unknown, or its gold is none of its options.
    """
    try:
        seed, question, gold = str(row["id"]), str(row["question"]), str(row["answer"])
        answer_type = _TYPES[row["answer_type"]]
        tags = {"subject": (str(row["subject"]),), "level": (str(row["level"]),)}
        variant = int(row["variant"] if "variant" in row else row["hub_split"].removeprefix("sample_variant"))
        if answer_type is AnswerType.FLOAT:
            float(gold)
    except (KeyError, ValueError) as error:
        raise DatasetError(
            f"dynamath seed {row.get('id')!r}: {error} is missing or unknown; is it DynaMath's?"
        ) from error
    labels, choices = _options(question) if answer_type is AnswerType.CHOICE else ((), ())
    if answer_type is AnswerType.CHOICE and gold not in labels:
        raise DatasetError(f"dynamath {seed}_v{variant}: gold {gold!r} is none of the options {labels} in the question")
    return Item(
        id=f"{seed}_v{variant}",
        question=question,
        gold=gold,
        answer_type=answer_type,
        images=row["images"],
        choices=choices,
        labels=labels,
        tolerance=TOLERANCE if answer_type is AnswerType.FLOAT else None,
        group=seed,
        tags=tags,
    )


def _options(question: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the labels and texts of the options inside a question; no texts where one of them is empty."""
    for pattern in (_IN_BRACKETS, _AT_LINE_START):
        pieces = pattern.split(question)
        labels, texts = tuple(pieces[1::2]), tuple(text.strip() for text in pieces[2::2])
        if len(labels) > 1:
            return labels, texts if all(texts) else ()
    return (), ()


_EXAMPLE = """{
    "solution": "[Detailed step-by-step explanation]",
    "short answer": "[Concise Answer]"
}"""
_OFFICIAL_GUIDE = """
## Answer Instruction Please provide an answer to the question outlined above. Your response should adhere \n\
to the following JSON format, which includes two keys: 'solution' and 'short answer'. The 'solution' key can contain \n\
detailed steps needed to solve the question, and the 'short answer' key should provide a concise response. \
If the problem is a multiple choice problem, just provide the corresponing choice option, \n\
such as 'A', 'B', 'C', or 'D'. If the answer is a numerical value, format it as a three-digit floating-point number.

Example of expected JSON response format:

"""
_KIT_GUIDE = """
## Answer Instruction Please provide an answer to the question outlined above. Your response should adhere \
to the following JSON format, which includes two keys: 'solution' and 'short answer'. The 'solution' key can contain \
detailed steps needed to solve the question, and the 'short answer' key should provide a concise response. """
_KIT_INSTRUCTIONS = {
    AnswerType.CHOICE: (
        "Provide the corresponing choice option in the 'short answer' key, such as 'A', 'B', 'C', or 'D'."
    ),
    AnswerType.FLOAT: (
        "Format the answer as a three-digit floating-point number and provide it in the 'short answer' key."
    ),
    AnswerType.TEXT: "Float numbers in the answer should be formatted as three-digit floating-point numbers.",
}


def _official_prompt(item: Item) -> Prompt:
    """The open-source models' prompt, without its "<IMAGE_TOKEN>": that stands for the image, which comes first."""
    hint = "Please answer in a floating-point number." if item.answer_type is AnswerType.FLOAT else ""
    return Prompt(text=f"## Question\n{item.question}{hint}{_OFFICIAL_GUIDE}{_EXAMPLE}")


def _kit_prompt(item: Item) -> Prompt:
    instruction = _KIT_INSTRUCTIONS[item.answer_type]
    guide = f"{_KIT_GUIDE}{instruction}\n\nExample of expected JSON response format:\n\n"
    return Prompt(text=f"## Question\n {item.question}{guide}{_EXAMPLE}")


class _Said(NamedTuple):
    """A short answer and where it stood."""

    place: str
    answer: str | None


def read_official(item: Item, response: Response) -> Verdict:
    """Return the verdict of the authors' script for open-source models: rules only, no judge.

    The short answer is that of the JSON object between the outermost braces, or where that is no JSON the last line
    without its last character. A number counts within 0.001, a letter where it is among the first three characters,
    a text where it contains the gold, case included.
    """
    said = _official_answer(response.text or "")
    return _settle_official(item, said)


def compare_official(item: Item, extracted: str) -> Verdict:
    """Return the verdict of the same rules on a short answer that somebody else read."""
    return _settle_official(item, _Said("extraction", extracted))


def read_vlmevalkit(item: Item, response: Response) -> Verdict:
    """Return VLMEvalKit's verdict where its rules reach one, NO_ANSWER where it would ask its judge.

    The JSON short answer, if it is a string that can be parsed; otherwise the whole response. A text is right where it
    is *part of* the gold, the reverse of the authors' rule.
    """
    text = tagged_answer(response.text or "")
    body = (_braced(text) or text).replace("\\", "")
    said = _Said("json", _kit_parse(_json_string(body), item.answer_type))
    if said.answer is None:
        said = _Said("whole", _kit_parse(body, item.answer_type))
    return _settle_kit(item, said)


def compare_vlmevalkit(item: Item, extracted: str) -> Verdict:
    """Return VLMEvalKit's verdict on its judge's reply; NO_ANSWER where the reply cannot be parsed.

    For an unreadable reply VLMEvalKit falls back on the response's first three characters, which are not known here.
    """
    return _settle_kit(item, _Said("extraction", _kit_parse(extracted, item.answer_type)))


def _braced(text: str) -> str | None:
    """Return what stands between the outermost braces, them included."""
    start, end = text.find("{"), text.rfind("}")
    return text[start : end + 1] if 0 <= start < end else None


def _official_answer(text: str) -> _Said:
    braced = _braced(text)
    # As in the script: backslashes go only where there are braces, so an escaped quote there breaks the JSON.
    body = text if braced is None else braced.replace("\\", "")
    try:
        parsed = json.loads(body, strict=False)
    except (ValueError, RecursionError):
        return _Said("last line", body.rpartition("\n")[2][:-1])
    try:
        answer = parsed.get("short answer") if isinstance(parsed, dict) else None
        return _Said("json", None if answer is None else str(answer))
    except (ValueError, RecursionError):
        return _Said("json", None)


def _settle_official(item: Item, said: _Said) -> Verdict:
    gold, answer = item.gold or "", said.answer
    if not answer:
        return Verdict(status=Status.NO_ANSWER, rule=f"{said.place}/nothing")
    if item.answer_type is AnswerType.FLOAT:
        rule, right = "number", _near(_number(answer), gold)
    elif item.answer_type is AnswerType.CHOICE:
        rule, right = "letter", gold in answer[:3]
    else:
        rule, right = "contains", gold in answer
    status = Status.CORRECT if right else Status.WRONG
    return Verdict(status=status, extracted=answer, rule=f"{said.place}/{rule}")


def _json_string(body: str) -> str | None:
    try:
        parsed = json.loads(body, strict=False)
    except (ValueError, RecursionError):
        return None
    answer = parsed.get("short answer") if isinstance(parsed, dict) else None
    return answer if isinstance(answer, str) else None


def _kit_parse(answer: str | None, answer_type: AnswerType) -> str | None:
    """Return the answer as its type wants it, `None` where VLMEvalKit gives up on it."""
    if answer is None or answer_type is AnswerType.TEXT:
        return answer
    if answer_type is AnswerType.FLOAT:
        number = _number(answer)
        return None if number is None else repr(number)
    if len(answer) == 1:
        return answer.upper()
    upper = answer.upper()
    named = [letter for letter in _KIT_LETTERS if letter in upper]
    return named[0] if len(named) == 1 else None


def _settle_kit(item: Item, said: _Said) -> Verdict:
    gold, answer = item.gold or "", said.answer
    if answer is None:
        return Verdict(status=Status.NO_ANSWER, rule=f"{said.place}/judge wanted")
    if item.answer_type is AnswerType.FLOAT:
        rule, right = "number", _near(float(answer), gold)
    elif item.answer_type is AnswerType.CHOICE:
        rule, right = "letter", answer == gold
    else:
        rule, right = "part of gold", answer.lower() in gold.lower()
    status = Status.CORRECT if right else Status.WRONG
    return Verdict(status=status, extracted=answer, rule=f"{said.place}/{rule}")


def _number(answer: str) -> float | None:
    """Return the number up to the first space, a number before π times π; `None` for anything else, such as "2/3"."""
    head, pi, _ = answer.partition(" ")[0].partition("π")
    try:
        return float(head) * (math.pi if pi else 1.0)
    except ValueError:
        return None


def _near(number: float | None, gold: str) -> bool:
    return number is not None and abs(number - float(gold)) <= TOLERANCE


def worst(results: Sequence[Result]) -> Estimate:
    """Return the share of seeds that are right in all ten variants (the paper's worst-case accuracy).

    With several samples per item the worst variant is taken within each sample index, then averaged over them.

    Raises:
        IncompleteRunError: a seed lacks a variant, or has more samples of one than of another.
    """
    seeds = _seeds(results)
    return clustered_mean([_over_samples(min, seed) for seed in seeds.values()], list(seeds))


def best(results: Sequence[Result]) -> Estimate:
    """Return the share of seeds that are right in at least one variant; otherwise as `worst`."""
    seeds = _seeds(results)
    return clustered_mean([_over_samples(max, seed) for seed in seeds.values()], list(seeds))


def reasoning_robustness(results: Sequence[Result]) -> Estimate:
    """Return worst-case over average-case accuracy (the paper's RR); undefined where nothing is right.

    Raises:
        IncompleteRunError: as `worst`.
    """
    seeds = _seeds(results)
    lowest = [_over_samples(min, seed) for seed in seeds.values()]
    averages = [sum(result.mean for result in seed) / N_VARIANTS for seed in seeds.values()]
    return clustered_ratio(lowest, averages, list(seeds))


def _seeds(results: Sequence[Result]) -> dict[str, list[Result]]:
    seeds: dict[str, list[Result]] = {}
    for result in results:
        seeds.setdefault(result.item.cluster, []).append(result)
    for seed, variants in seeds.items():
        missing = {f"{seed}_v{v}" for v in range(1, N_VARIANTS + 1)} - {result.item.id for result in variants}
        if missing or len(variants) != N_VARIANTS:
            raise IncompleteRunError(
                f"dynamath seed {seed} has {len(variants)} of its {N_VARIANTS} variants, without {sorted(missing)}; "
                "worst, best and rr need all of them. Generate the rest, or give whole seeds."
            )
        if len({len(result.scores) for result in variants}) > 1:
            raise IncompleteRunError(f"dynamath seed {seed} has not the same number of samples of every variant")
    return seeds


def _over_samples(pick: Callable[[Iterable[float]], float], variants: Sequence[Result]) -> float:
    extremes = [pick(scores) for scores in zip(*(result.scores for result in variants), strict=True)]
    return sum(extremes) / len(extremes)


_NO_TEXT = "option (D) has no text: the picture's point D is meant"
_SIX = "six options (A to F), where the prompts speak of A to D and VLMEvalKit reads an F only alone"
_SAME = "several options are the same equation, the gold among them"
_EVERY = range(1, N_VARIANTS + 1)
_DEFECTS = {
    "139": (_EVERY, _NO_TEXT),
    "140": (_EVERY, _NO_TEXT),
    "298": ((1, 2, 3, 4, 5, 6, 8, 10), _SAME),
    "452": (_EVERY, _SIX),
    "455": (_EVERY, _SIX),
}
"""By seed: which variants, and what is wrong."""

TASK = Task(
    name="dynamath",
    title="DynaMath",
    version=1,
    paper="arXiv:2411.00836",
    licence="Apache-2.0 on the hub, an MIT badge on GitHub",
    splits={
        "sample": Split(
            n_items=5010,
            n_clusters=501,
            hub=HubDataset(
                repo="DynaMath/DynaMath_Sample",
                splits=tuple(f"sample_variant{v}" for v in range(1, N_VARIANTS + 1)),
                columns={"ground_truth": "answer", "knowledge_level": "level"},
                image_column="decoded_image",
            ),
        ),
        "mini": mini("dynamath"),
    },
    default_split="sample",
    read_folder=read_folder,
    to_item=to_item,
    prompts={
        "official": PromptStyle(version=1, render=_official_prompt),
        "vlmevalkit": PromptStyle(version=1, render=_kit_prompt),
        "think": think(lambda item: item.question),
    },
    scorers={
        "robust": ROBUST,
        "official": Scorer(version=1, read=read_official, compare=compare_official),
        "vlmevalkit": Scorer(version=1, read=read_vlmevalkit, compare=compare_vlmevalkit),
    },
    metrics={"average": accuracy, "worst": worst, "best": best, "rr": reasoning_robustness},
    headline="worst",
    counts_clusters=True,
    breakdowns={"subject": ("average", "worst"), "level": ("average", "worst")},
    bad_items={f"{seed}_v{v}": why for seed, (variants, why) in _DEFECTS.items() for v in variants},
)
