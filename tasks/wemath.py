"""We-Math testmini: 525 composite problems, each with its two or three one-step sub-problems (1,740 questions).

Paper: arXiv:2407.01284. Reference: github.com/We-Math/We-Math@a57a0e8 (evaluation/four_dimensional_metrics.py,
accuracy.py); VLMEvalKit@e8e78f0.
Differs from them: a problem with a missing row is refused, where both count what is missing as full credit.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ahabench.harness.answers.prefetch import REFUSED, can_infer
from ahabench.harness.answers.robust import ROBUST
from ahabench.harness.dataset import read_json
from ahabench.harness.errors import DatasetError, IncompleteRunError
from ahabench.harness.images import ImageFile
from ahabench.harness.metrics import clusters
from ahabench.harness.prompts import lettered, tagged_answer, think
from ahabench.harness.stats import clustered_mean, clustered_ratio
from ahabench.harness.types import (
    AnswerType,
    Estimate,
    HubDataset,
    Item,
    Metric,
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

DOMAINS: Mapping[str, tuple[str, ...]] = {
    domain: tuple(concepts.split("; "))
    for domain, concepts in {
        "Understanding and Conversion of Units": (
            "Conversion Rates and Calculations Between Area Units; Conversion Rates and Calculations Between Volume "
            "Units (Including Liters and Milliliters); Conversion Rates and Calculations Between Length Units"
        ),
        "Angles and Length": "Understanding Angles (Using a Protractor); Understanding Length (Using a Ruler)",
        "Calculation of Plane Figures": (
            "Sum of Interior Angles of Other Polygons; Sum of Interior Angles of Triangles; Calculation and "
            "Comparison of Angles; Area of Parallelograms; Area of Triangles; Area of Sectors; Area of Trapezoids; "
            "Area of Circles; Area of Rectangles; Area of Squares; Perimeter of Parallelograms; Perimeter of "
            "Triangles; Perimeter of Trapezoids; Circumference of Circles; Perimeter of Rectangles; Perimeter of "
            "Squares"
        ),
        "Understanding of Plane Figures": (
            "Properties and Understanding of Parallelograms; Properties and Understanding of Triangles; Properties "
            "and Understanding of Trapezoids; Properties and Understanding of Rectangles; Properties and "
            "Understanding of Squares; Understanding Triangular Rulers; Understanding and Representing Angles; "
            "Distance Between Two Points; Understanding Line Segments, Lines, and Rays; perpendicularity; Parallel; "
            "Understanding Sectors; Understanding Circles; Observing Figures"
        ),
        "Calculation of Solid Figures": (
            "Surface Area of Cylinders; Surface Area of Rectangular Cuboids; Surface Area of Cubes; Volume and "
            "Capacity of Cylinders; Volume and Capacity of Cones; Volume and Capacity of Rectangular Cuboids; Volume "
            "and Capacity of Cubes"
        ),
        "Understanding of Solid Figures": (
            "Expanded View of Cylinders; Expanded View of Rectangular Cuboids; Expanded View of Cubes; Properties of "
            "Cylinders; Properties of Cones; Properties and Understanding of Rectangular Cuboids; Properties and "
            "Understanding of Cubes; Observing Objects"
        ),
        "Basic Transformations of Figures": "Axial Symmetry; Translation; Rotation",
        "Cutting and Combining of Figures": (
            "Combining and Dividing Solids; Division of Plane Figures; Combining Plane Figures; Tessellation of "
            "Figures; Folding Problems of Figures"
        ),
        "Direction": (
            "Southeast, Southwest, Northeast, Northwest Directions; Cardinal Directions (East, South, West, North)"
        ),
        "Position": "Front-Back Position; Up-Down Position; Left-Right Position",
        "Route Map": (
            "Determining the Positions of Objects Based on Direction, Angle, and Distance; Describing Simple Routes "
            "Based on Direction and Distance"
        ),
        "Correspondence of Coordinates and Positions": (
            "Representing Positions Using Ordered Pairs; Finding Positions Based on Ordered Pairs"
        ),
    }.items()
}
"""The 12 domains that the paper reports, with their leaf concepts, 67 in all (data/knowledge_structure_nodes.json)."""

_DOMAIN_OF = {concept: domain for domain, concepts in DOMAINS.items() for concept in concepts}
_KEY = re.compile(r"([23])steps_([123]|multi)")
_STEP = {"2steps_multi": "two-step", "3steps_multi": "three-step"}
# A stray ";C.;" inside an option's text is no label: a label has a text.
_OPTION = re.compile(r"(^|;\s*|\s)([A-H])[.．](?!\s*;)")  # noqa: RUF001 (item 59 has a full-width stop)


def read_folder(folder: Path, split: str) -> Iterator[Row]:
    """Yield the rows of `data/testmini.json` (or `testmini.json`) with their pictures.

    Raises:
        DatasetError: the file is missing, or is no list of objects.
    """
    base = folder / "data" if (folder / "data").is_dir() else folder
    path = base / f"{split}.json"
    records = read_json(path)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DatasetError(f"{path} is no list of objects; is --data the official folder of We-Math?")
    for record in records:
        image = Path(str(record.get("image_path")))
        if image.is_absolute() or ".." in image.parts:
            raise DatasetError(f"{path}: image path {str(image)!r} leads out of the folder")
        yield record | {"images": (ImageFile(base / image),)}


def to_item(row: Row) -> Item:
    """Return one question in the group of its composite problem.

    Its tag "option" keeps the options as published, since the official prompt shows them so.

    Raises:
        DatasetError: the row lacks a column, its key or concept is unknown, or its gold is none of its options.
    """
    try:
        number, key, gold = str(row["question number"]), str(row["key"]), str(row["answer"]).strip()
        concepts = _concepts(str(row["knowledge concept"]))
        domains = tuple(dict.fromkeys(_DOMAIN_OF[concept] for concept in concepts))
        question, option, group = str(row["question"]), str(row["option"]), str(row["ID"])
    except KeyError as error:
        raise DatasetError(f"wemath {row.get('question number')!r}: {error} is missing or unknown") from error
    labels, choices = options(option)
    if not _KEY.fullmatch(key) or gold not in labels:
        raise DatasetError(f"wemath {number}: key {key!r} with gold {gold!r} of {labels}; is this We-Math's testmini?")
    return Item(
        id=number,
        question=question,
        gold=gold,
        answer_type=AnswerType.CHOICE,
        images=row["images"],
        choices=choices,
        labels=labels,
        group=group,
        tags={
            "step": (_STEP.get(key, "one-step"),),
            "domain": domains,
            "concept": concepts,
            "key": (key,),
            "option": (option,),
        },
    )


def _concepts(text: str) -> tuple[str, ...]:
    """Return the concepts of a row: one, or those of a composite problem joined by ";"."""
    return tuple(part.strip() for part in text.split(";") if part.strip())


def options(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the labels and texts of an option string such as "A. 3;B. 4; C. No correct answer".

    Labels come in order. One may be skipped after a semicolon (problem 2steps_94 goes A, B, C, F); a space alone
    before a label is enough for the next one in order ("A. 4 B. 3 C. 2 ;D. 1"), for twelve strings lack a semicolon or
    have one too many.
    """
    found: list[re.Match[str]] = []
    wanted = "A"
    for match in _OPTION.finditer(text):
        if match[2] == wanted or (match[2] > wanted and match[1].startswith(";")):
            found.append(match)
            wanted = chr(ord(match[2]) + 1)
    ends = [*(match.start() for match in found[1:]), len(text)]
    texts = tuple(text[match.end() : end].strip(" ;\n\t") for match, end in zip(found, ends, strict=False))
    return tuple(match[2] for match in found), texts


_REQUEST = (
    "Now, we require you to solve a multiple-choice math question. "
    "Please briefly describe your thought process and provide the final answer(option)."
)


def _official_prompt(item: Item) -> Prompt:
    return Prompt(
        text=f"{_REQUEST}\nQuestion: {item.question}\nOption: {item.tags['option'][0]}\n"
        "Regarding the format, please answer following the template below, and be sure to include two <> symbols:\n"
        "<Thought process>: <<your thought process>> <Answer>: <<your option>>"
    )


def _kit_prompt(item: Item) -> Prompt:
    """VLMEvalKit's "WeMath", not "WeMath_COT". Its hint is in a file that we have not seen: taken to be the request."""
    listed = "".join(f"{label}. {choice}\n" for label, choice in zip(item.labels, item.choices, strict=True))
    return Prompt(text=f"Hint: {_REQUEST}\nQuestion: {item.question}\nOptions:\n{listed}")


def _plain(item: Item) -> str:
    return f"{item.question}\n{lettered(item.labels, item.choices)}"


def read_official(item: Item, response: Response) -> Verdict:
    """Return the verdict of the authors' string rule: what follows the last "Answer", first character, A to H.

    Of that rest the characters > < : and . are deleted; case matters; anything else in front is no answer.
    """
    return _settle_official(item, response.text or "", "after Answer")


def compare_official(item: Item, extracted: str) -> Verdict:
    """Return the verdict of the same rule on an answer that somebody else read."""
    return _settle_official(item, extracted, "extraction")


def _settle_official(item: Item, text: str, place: str) -> Verdict:
    rest = text.rpartition("Answer")[2].strip()
    letter = re.sub("[><:.]", "", rest).strip()[:1]
    if not letter or letter not in "ABCDEFGH":
        return Verdict(status=Status.NO_ANSWER, rule=f"{place}/no letter")
    status = Status.CORRECT if letter == item.gold else Status.WRONG
    return Verdict(status=status, extracted=letter, rule=f"{place}/letter")


def read_vlmevalkit(item: Item, response: Response) -> Verdict:
    """Return the verdict of VLMEvalKit's prefetch; NO_ANSWER where it would ask its judge, and then draw an option."""
    return _settle_kit(item, tagged_answer(response.text or ""), "prefetch")


def compare_vlmevalkit(item: Item, extracted: str) -> Verdict:
    """Return the verdict on its judge's reply, read by the same prefetch."""
    return _settle_kit(item, extracted, "extraction")


def _settle_kit(item: Item, text: str, place: str) -> Verdict:
    label = can_infer(text, dict(zip(item.labels, item.choices, strict=True)))
    if label is None:
        return Verdict(status=Status.NO_ANSWER, rule=f"{place}/judge wanted")
    status = Status.CORRECT if label == item.gold else Status.WRONG
    return Verdict(status=status, extracted=label, rule=f"{place}/{'refused' if label == REFUSED else 'letter'}")


_OUTCOMES = frozenset({"IK", "IG", "CM", "RM"})
_COMPOSITE_RIGHT = frozenset({"CM", "RM"})
_SCORE = {"CM": 1.0, "IG": 0.5}
"""The paper's weights of a problem in its score; the other outcomes weigh nothing."""


def outcome(steps: Sequence[bool], multi: bool, *, loose: bool = False) -> str:
    """Return what a composite problem shows of a model: "IK", "IG", "CM" or "RM".

    Insufficient knowledge: a one-step answer and the composite one are wrong. Inadequate generalization: only the
    composite one is. Complete mastery: all are right; loosely, the composite one and at least one one-step answer.
    Rote memorization: the composite answer is right without mastery.

    Args:
        steps: whether each one-step answer is right.
        multi: whether the composite answer is.
        loose: whether one right step is enough for mastery.
    """
    if not multi:
        return "IG" if all(steps) else "IK"
    return "CM" if (any(steps) if loose else all(steps)) else "RM"


def over_problems(weights: Mapping[str, float], *, among: frozenset[str] = _OUTCOMES, loose: bool = False) -> Metric:
    """Return the metric that adds the weights of the problems' outcomes and divides by the count of those in `among`.

    Several samples: a problem's outcome is taken within each sample index; numerator and denominator are averaged over
    the samples before they are divided. 0 / 0 has no value. The metric raises IncompleteRunError where a problem lacks
    a row, since a missing row must not pass for a right or a wrong one.
    """

    def metric(results: Sequence[Result]) -> Estimate:
        problems = _problems(results)
        outcomes = [_outcomes(rows, loose=loose) for rows in problems.values()]
        numerators = [sum(weights.get(name, 0.0) for name in names) / len(names) for names in outcomes]
        denominators = [sum(name in among for name in names) / len(names) for names in outcomes]
        return clustered_ratio(numerators, denominators, list(problems))

    return metric


def step_accuracy(step: str) -> Metric:
    """Return the metric for the share of right answers among the rows of a step, such as "one-step"."""

    def metric(results: Sequence[Result]) -> Estimate:
        rows = [result for result in results if step in result.item.tags["step"]]
        return clustered_mean([row.mean for row in rows], clusters(rows))

    return metric


def concept_macro(results: Sequence[Result]) -> Estimate:
    """Return the mean of the concepts' accuracies over the one-step rows; within a domain, the paper's score of it.

    The error takes the number of rows of each concept as fixed.
    """
    rows = [result for result in results if "one-step" in result.item.tags["step"]]
    sizes: dict[str, int] = {}
    for row in rows:
        concept = row.item.tags["concept"][0]
        sizes[concept] = sizes.get(concept, 0) + 1
    weights = [1 / sizes[row.item.tags["concept"][0]] for row in rows]
    right = [weight * row.mean for weight, row in zip(weights, rows, strict=True)]
    return clustered_ratio(right, weights, clusters(rows))


def _problems(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Return the rows of each composite problem, its one-step rows in order and then the last one."""
    problems: dict[str, list[Result]] = {}
    for result in results:
        problems.setdefault(result.item.cluster, []).append(result)
    for name, rows in problems.items():
        rows.sort(key=lambda row: row.item.tags["key"][0])  # "multi" comes after the digits
        keys = [row.item.tags["key"][0] for row in rows]
        steps = keys[0][0]
        wanted = [f"{steps}steps_{number}" for number in range(1, int(steps) + 1)] + [f"{steps}steps_multi"]
        if keys != wanted:
            raise IncompleteRunError(
                f"wemath problem {name} has the rows {keys}, wanted {wanted}: its metrics would count what is missing "
                "as mastered. Generate the rest, or give whole problems."
            )
        if len({len(row.scores) for row in rows}) > 1:
            raise IncompleteRunError(f"wemath problem {name} has not the same number of samples of every row")
    return problems


def _outcomes(rows: Sequence[Result], *, loose: bool) -> list[str]:
    """Return a problem's outcome in each sample."""
    samples = zip(*(row.scores for row in rows), strict=True)
    return [outcome([score == 1 for score in scores[:-1]], scores[-1] == 1, loose=loose) for scores in samples]


_STRAY = "a semicolon too many in the option string: options must not be split on it"
_MISSING = "a semicolon too few in the option string: options must not be split on it"
_TWICE = "two options are the same text"

TASK = Task(
    name="wemath",
    title="We-Math",
    version=1,
    paper="arXiv:2407.01284",
    licence="CC BY-NC 4.0",
    splits={
        "testmini": Split(
            n_items=1740,
            n_clusters=525,
            hub=HubDataset(repo="We-Math/We-Math", splits=("testmini",), image_column="image_path"),
        ),
        "mini": mini("wemath"),
    },
    default_split="testmini",
    read_folder=read_folder,
    to_item=to_item,
    prompts={
        "official": PromptStyle(version=1, render=_official_prompt),
        "vlmevalkit": PromptStyle(version=1, render=_kit_prompt),
        "think": think(_plain),
    },
    scorers={
        "robust": ROBUST,
        "official": Scorer(version=1, read=read_official, compare=compare_official),
        "vlmevalkit": Scorer(version=1, read=read_vlmevalkit, compare=compare_vlmevalkit),
    },
    metrics={
        "score_strict": over_problems(_SCORE),
        "score_loose": over_problems(_SCORE, loose=True),
        "ik": over_problems({"IK": 1}),
        "ig": over_problems({"IG": 1}),
        "cm_strict": over_problems({"CM": 1}),
        "rm_strict": over_problems({"RM": 1}, among=_COMPOSITE_RIGHT),
        "cm_loose": over_problems({"CM": 1}, loose=True),
        "rm_loose": over_problems({"RM": 1}, among=_COMPOSITE_RIGHT, loose=True),
        "s1": step_accuracy("one-step"),
        "s2": step_accuracy("two-step"),
        "s3": step_accuracy("three-step"),
        "concept_macro": concept_macro,
    },
    headline="score_strict",
    counts_clusters=True,
    breakdowns={"domain": ("concept_macro",)},
    bad_items={
        **dict.fromkeys(("101", "102", "768", "817", "822", "1371", "1566", "1731"), _STRAY),
        **dict.fromkeys(("1118", "1127", "1287"), _MISSING),
        "94": f"{_STRAY}; the last label is F instead of D",
        "43": f"{_TWICE} (C and D), neither is the gold",
        "313": f"{_TWICE} (B and D), the gold is B",
        "673": f"{_TWICE} (B and C), the gold is B",
        "860": f"{_TWICE} (B and D), neither is the gold",
        "1371": f"{_TWICE} (B and C), neither is the gold; {_STRAY}",
    },
)
