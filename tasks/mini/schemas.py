"""Write a problem as a row of its benchmark: the keys of the official files, and the pictures under "images"."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from ahabench.tasks.mini.picture import SIZE, Picture
from ahabench.tasks.mini.problems import Problem
from ahabench.tasks.mini.scene import BLANK, PLACES, Scene, sign

Fields = Mapping[str, Any]

_LETTERS = "ABCDE"
_FIRST_WEMATH = 10_000
"""The official rows are 1 to 1740."""
_OFFICIAL_LOGICVISTA = 448
"""The official items are v1_0 to v1_447; an id here must have the same form and be another."""
_CONCEPTS = {
    "read": "Understanding Length (Using a Ruler)",
    "extreme": "Observing Figures",
    "add": "Understanding Line Segments, Lines, and Rays",
}
"""The concept of We-Math that each one-step family is nearest to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A problem as one row of a benchmark."""

    problem: Problem
    row: Fields
    group: str
    """What it was drawn together with."""

    @property
    def picture(self) -> Picture:
        """The picture of the row."""
        picture: Picture = self.row["images"][0]
        return picture


def letter(problem: Problem, answer: str | None = None) -> str:
    """Return the label of an option of the problem, or the labels of a set joined by ", "; the answer's by default.

    Raises:
        ValueError: it is none of the options.
    """
    parts = (problem.answer if answer is None else answer).split(", ")
    return ", ".join(_LETTERS[problem.options.index(part)] for part in parts)


def inline(problem: Problem) -> str:
    """Return the question with its options behind it in one line, as DynaMath and LogicVista write them."""
    listed = " ".join(f"({label}) {text}" for label, text in zip(_LETTERS, problem.options, strict=False))
    return f"{problem.ask} {listed}" if listed else problem.ask


def mathvista(number: int, problem: Problem, rng: Random) -> list[Drawn]:
    """Return one row of MathVista: options by their texts, integers, floats with one decimal."""
    is_float = "." in problem.answer
    kind = "text" if problem.options else "float" if is_float else "integer"
    has_shapes = any(cell.kind in ("dark", "light") for cell in problem.scene)
    row = {
        "pid": f"mini-vista-{number}",
        "question": problem.ask,
        "image": f"images/{number}.png",
        "choices": list(problem.options) or None,
        "unit": None,
        "precision": 1 if is_float else None,
        "answer": problem.answer,
        "question_type": "multi_choice" if problem.options else "free_form",
        "answer_type": kind,
        "metadata": {
            "split": "mini",
            "language": "english",
            "img_width": SIZE,
            "img_height": SIZE,
            "source": f"mini {problem.family}",
            "category": "general-vqa" if has_shapes else "math-targeted-vqa",
            "task": "figure question answering",
            "context": "abstract scene" if has_shapes else "bar chart",
            "grade": _grade(problem),
            "skills": ["logical reasoning" if has_shapes else "arithmetic reasoning"],
        },
    }
    return [_drawn(problem, row, f"mathvista {number}", rng)]


def mathvision(number: int, problem: Problem, rng: Random) -> list[Drawn]:
    """Return one row of MathVision: five options or a free answer."""
    subjects = {"sequence": "algebra", "kinds": "counting"}
    row = {
        "id": f"mini-vision-{number}",
        "question": f"{problem.ask}\n<image1>",
        "options": list(problem.options),
        "answer": letter(problem) if problem.options else problem.answer,
        "solution": None,
        "level": problem.level,
        "subject": subjects.get(problem.family, "logic"),
        "image": f"images/{number}.png",
    }
    return [_drawn(problem, row, f"mathvision {number}", rng)]


def mathverse(number: int, problem: Problem, rng: Random) -> list[Drawn]:
    """Return one problem in MathVerse's five versions, the text moving into the picture.

    Text Dominant says the numbers and shows them; Text Lite shows them only; Vision Intensive no longer says where they
    are; Vision Dominant shows what to do as well; Vision Only says nothing. The problem's two numbers stand in the
    first and the third cell.
    """
    (fact,) = problem.facts
    word = {"+": "plus", "-": "minus"}[fact.sign]
    said = f"The first is {fact.left} and the third is {fact.right}. "
    left, _, right, _ = problem.scene
    worded: Scene = (left, BLANK, right, BLANK)
    drawn: Scene = (left, sign(fact.sign), right, sign("?"))
    together = "What is one plus the other?" if fact.sign == "+" else "What is the largest minus the smallest?"
    whole = f"{said}What is the first {word} the third?"
    versions = {
        "Text Dominant": (whole, worded),
        "Text Lite": (f"What is the first {word} the third?", worded),
        "Vision Intensive": (together, worded),
        "Vision Dominant": ("What is the answer?", drawn),
        "Vision Only": ("", drawn),
    }
    rows = []
    for place, (version, (question, scene)) in enumerate(versions.items(), start=1):
        row = {
            "sample_index": f"mini-verse-{5 * (number - 1) + place}",
            "problem_index": f"mini-verse-{number}",
            "problem_version": version,
            "question": question,
            "question_for_eval": whole,
            "image": f"images_version_{place}/image_{number}.png",
            "answer": problem.answer,
            "question_type": "free-form",
            "metadata": {
                "split": "mini",
                "source": "mini",
                "subject": f"Arithmetic, level {problem.level}",
                "subfield": "fresh facts" if problem.fresh else "seen facts",
            },
        }
        one = replace(problem, ask=question, scene=scene)
        rows.append(_drawn(one, row, f"mathverse {number}", rng))
    return rows


def dynamath(seed: int, variants: Sequence[Problem], rng: Random) -> list[Drawn]:
    """Return the variants of one seed of DynaMath, numbered from 1: one program, other numbers."""
    rows = []
    for variant, problem in enumerate(variants, start=1):
        if problem.options:
            kind, answer = "multiple choice", letter(problem)
        else:
            kind, answer = ("float" if problem.answer[0].isdigit() else "text"), problem.answer
        question = inline(problem).replace(" (A) ", " Choices: (A) ", 1)
        row = {
            "id": f"mini-dyna-{seed}",
            "variant": variant,
            "question": question,
            "answer": answer,
            "image": f"image/image{seed}.png",
            "answer_type": kind,
            "subject": "statistics" if problem.family in ("extreme", "spread", "mean") else "arithmetic",
            "level": _grade(problem).replace("college", "undergraduate"),
        }
        rows.append(_drawn(problem, row, f"dynamath {seed}", rng))
    return rows


def wemath(number: int, first_row: int, problem: Problem, rng: Random) -> list[Drawn]:
    """Return a composite problem of We-Math after its two or three one-step problems, all about one picture.

    Args:
        number: the composite problem's, from 1.
        first_row: the number of its first row among all, from 1.
        problem: a sum, a difference or a spread (two steps), or a sum of three (three steps).
        rng: draws the options and the style.
    """
    parts = _parts(problem)
    group = f"{len(parts)}steps_{number}"
    picture = Picture(problem.scene, rng.getrandbits(30))
    keys = [*(str(place) for place in range(1, len(parts) + 1)), "multi"]
    rows = []
    for place, (key, part) in enumerate(zip(keys, [*parts, problem], strict=True)):
        concepts = [_CONCEPTS[one.family] for one in (parts if part is problem else [part])]
        part = _with_options(part, rng)
        row = {
            "ID": group,
            "split": "mini",
            "knowledge concept": "; ".join(dict.fromkeys(concepts)),
            "knowledge concept description": "Cells are read, numbers of cells added or taken from each other.",
            "question": part.ask,
            "option": "; ".join(f"{label}. {text}" for label, text in zip(_LETTERS, part.options, strict=False)),
            "answer": letter(part),
            "image_path": f"{len(parts)}steps/image/{number}-{place + 1}.png",
            "key": f"{len(parts)}steps_{key}",
            "question number": _FIRST_WEMATH + first_row + place,
            "images": (picture,),
        }
        rows.append(Drawn(problem=part, row=row, group=f"wemath {group}"))
    return rows


def logicvista(number: int, problem: Problem, rng: Random) -> list[Drawn]:
    """Return one row of LogicVista: a letter or a set of letters, the options in the text."""
    inductive = problem.family == "pattern"
    row = {
        "id": f"v1_{_OFFICIAL_LOGICVISTA + number}",
        "imagename": f"v1_{_OFFICIAL_LOGICVISTA + number}.png",
        "question": inline(problem),
        "answer": letter(problem),
        "reasoning": " . ".join(problem.steps),
        "imagesource": "mini",
        "sourcelink": "",
        "liscenced": "true",
        "skill": ["inductive" if inductive else "numerical" if problem.family == "extreme" else "deductive"],
        "broad_capability": ["diagram"],
        "specific_capability": ["sequence pattern" if inductive else "rule based pattern"],
    }
    return [_drawn(problem, row, f"logicvista {number}", rng)]


def _parts(problem: Problem) -> list[Problem]:
    """Return the one-step problems of a composite one: reading its numbers; of three, also the sum of the first two."""
    numbers = [int(cell.words) for cell in problem.scene]
    if problem.family == "spread":
        found = {"largest": max(numbers), "smallest": min(numbers)}
        return [_part(problem, f"What is the {word}?", number, f"{word} {number}", 2) for word, number in found.items()]
    named = [place for place in PLACES if f"the {place}" in problem.ask]
    reads = [
        _part(problem, f"What is the {place}?", numbers[PLACES.index(place)], f"{place} {number}", 1)
        for place, number in zip(PLACES, numbers, strict=True)
        if place in named
    ]
    if len(problem.facts) == 1:
        return reads
    fact, text = problem.facts[0], problem.steps[0]
    two = _part(problem, "What is the first plus the second?", fact.result, text, 2)
    return [reads[0], replace(two, family="add", facts=(fact,)), reads[2]]


def _part(problem: Problem, ask: str, number: int, way: str, level: int) -> Problem:
    family = "read" if level == 1 else "extreme"
    return replace(problem, family=family, level=level, ask=ask, answer=str(number), steps=(way,), facts=())


def _with_options(problem: Problem, rng: Random) -> Problem:
    """Return the problem with three neighbouring numbers in order and the authors' usual last option."""
    answer = int(problem.answer)
    low = answer - rng.randint(0, min(2, answer))
    options = (*(str(low + extra) for extra in range(3)), "No correct answer")
    return replace(problem, options=options, guess=rng.choice(options[:3]))


def _grade(problem: Problem) -> str:
    return {1: "elementary school", 2: "high school", 3: "college"}[problem.level]


def _drawn(problem: Problem, row: Fields, group: str, rng: Random) -> Drawn:
    picture = Picture(problem.scene, rng.getrandbits(30))
    return Drawn(problem=problem, row={**row, "images": (picture,)}, group=group)
