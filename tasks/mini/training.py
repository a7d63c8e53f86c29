"""Training records in the schema of VLAA-Thinking (arXiv:2504.11468, section 2), for five kinds of reward.

The questions are those of the six benchmarks, in the words of their prompt style "think", and two kinds of which no
benchmark asks: boxes and descriptions. No scene of the test items occurs, with any question (`scene.side`), and none of
the fresh facts.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

from ahabench.harness.disk import replace_file
from ahabench.harness.types import Item, Task
from ahabench.tasks.mini.picture import SIZE, Picture
from ahabench.tasks.mini.problems import Maker, Problem
from ahabench.tasks.mini.scene import BLANK, PLACES, SHAPES, Cell, Scene, Side, numeral
from ahabench.tasks.mini.schemas import letter
from ahabench.tasks.mini.suite import MAKERS, draw_for_training

Record = Mapping[str, Any]
"""{"id", "image", "question", "gt", "caption", "ds_answer", "verifier_type", "meta"}."""

VERIFIERS = ("digit", "mcq", "math", "iou", "open_ended")
BOX_UNITS = {"normalised": 1.0, "pixel": float(SIZE), "0-1000": 1000.0}
"""The largest coordinate of a box in each unit; a picture has 56 x 56 pixels."""

_WITHOUT_BENCHMARK = 4
"""One record in four asks for a box or a description."""
_SIDES = {"left": (0, 2), "right": (1, 3), "top": (0, 1), "bottom": (2, 3)}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSample:
    """A training record, and what only its maker knows."""

    record: Record
    problem: Problem
    careful: str
    """A completion that reads the cells, works the answer out and is right."""
    hasty: str
    """A completion that answers at once by a shortcut, right now and then; it has no `<think>`."""


def train_records(n: int, seed: int = 0, *, box_units: str = "normalised") -> Iterator[Record]:
    """Yield the records of `train_samples`."""
    return (sample.record for sample in train_samples(n, seed=seed, box_units=box_units))


def train_samples(n: int, *, seed: int = 0, box_units: str = "normalised") -> Iterator[TrainSample]:
    """Yield n samples, no two with the same pixels and question; another seed may yield some of them again.

    A record's "image" is an image source, its "ds_answer" the careful completion, its "gt" text (an integer for
    "digit"). "meta" says the benchmark ("" for boxes and descriptions), family, level 1 to 3, the answer's type and,
    for a box, the unit of its corners [left, top, right, bottom].

    Args:
        n: how many.
        seed: of the draws.
        box_units: one of `BOX_UNITS`.

    Raises:
        ValueError: the unit of boxes is none of these.
    """
    if box_units not in BOX_UNITS:
        raise ValueError(f"box_units is {box_units!r}, wanted one of {', '.join(BOX_UNITS)}")
    rng = Random(f"train {seed}")
    tasks = {name: import_module(f"ahabench.tasks.{name}").TASK for name in MAKERS}
    seen: set[tuple[bytes, str]] = set()
    while len(seen) < n:
        name = f"mini-{seed}-{len(seen)}"
        if rng.randrange(_WITHOUT_BENCHMARK):
            sample = _of_benchmark(name, rng.choice(list(tasks.values())), rng)
        elif rng.random() < 0.5:
            sample = _of_box(name, rng, box_units)
        else:
            sample = _of_description(name, rng)
        content = (sample.record["image"].pixels().tobytes(), sample.record["question"])
        if content not in seen:
            seen.add(content)
            yield sample


def write_records(samples: Iterable[TrainSample], out: Path, *, lines: bool = False) -> Path:
    """Write a data set as users have one, images/*.png and train.json (an array) or train.jsonl; return that file.

    Raises:
        UsageError: the disk refuses.
    """
    folder = out / "images"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for sample in samples:
        record = sample.record
        path = folder / f"{record['id']}.png"
        path.write_bytes(record["image"].read())
        rows.append(json.dumps({**record, "image": f"images/{path.name}"}))
    target = out / ("train.jsonl" if lines else "train.json")
    text = "".join(f"{row}\n" for row in rows) if lines else "[\n" + ",\n".join(rows) + "\n]\n"
    replace_file(target, [text.encode("ascii")])
    return target


def careful(problem: Problem) -> str:
    """Return a right completion: every cell behind its place, the steps, for options the letter, then the answer.

    Such as "<think> first 3 second 6 third 1 fourth 6 . first 3 + third 1 = 4 .</think><answer> 4</answer>": a space
    before every word, as the reference model's tokenizer has it.
    """
    read = " ".join(f"{place} {cell.words}" for place, cell in zip(PLACES, problem.scene, strict=True))
    answer = _answer(problem, problem.answer)
    steps = [read, *problem.steps]
    if problem.options:
        steps[-1] += f" {answer}"
    return f"<think> {' . '.join(steps)} .</think><answer> {answer}</answer>"


def hasty(problem: Problem) -> str:
    """Return a completion that answers at once, by the problem's shortcut."""
    return f"<answer> {_answer(problem, problem.guess)}</answer>"


def _answer(problem: Problem, answer: str) -> str:
    return letter(problem, answer) if problem.options else answer


def _of_benchmark(name: str, task: Task, rng: Random) -> TrainSample:
    drawn = rng.choice(draw_for_training(task.name, rng))
    item = task.to_item(drawn.row)
    question = task.prompts["think"].render(item).text
    problem = drawn.problem
    return _sample(name, problem, drawn.picture, question, _verifier(problem, item), task.name, item.answer_type.value)


def _verifier(problem: Problem, item: Item) -> str:
    """Return the kind of reward; short texts are open-ended, as DocVQA's and VizWiz's are in the paper."""
    if problem.options:
        return "mcq"
    if not problem.answer[0].isdigit():
        return "open_ended"
    return "digit" if len(problem.answer) == 1 else "math"


def _of_box(name: str, rng: Random, units: str) -> TrainSample:
    problem = _train_side(_box, rng)
    scale = BOX_UNITS[units]

    def corners(answer: str) -> str:
        numbers = [float(number) * scale for number in answer.split()]
        return f"[{', '.join(str(number) if scale == 1 else str(round(number)) for number in numbers)}]"

    problem = replace(problem, answer=corners(problem.answer), guess=corners(problem.guess))
    sample = _sample(name, problem, Picture(problem.scene, rng.getrandbits(30)), problem.ask, "iou", "", "box")
    meta = {**sample.record["meta"], "box_units": units}
    return replace(sample, record={**sample.record, "meta": meta})


def _of_description(name: str, rng: Random) -> TrainSample:
    problem = _train_side(_description, rng)
    picture = Picture(problem.scene, rng.getrandbits(30))
    return _sample(name, problem, picture, problem.ask, "open_ended", "", "description")


def _train_side(maker: Maker, rng: Random) -> Problem:
    problem = maker(rng)
    while problem.side is not Side.TRAIN:
        problem = maker(rng)
    return problem


def _box(rng: Random) -> Problem:
    """Return "Where is the circle?" (level 1), "Where are the circles?" (2), side by side or one above the other."""
    shape, *others = rng.sample(SHAPES, 4)
    level = rng.choice((1, 2))
    places: tuple[int, ...] = (rng.randrange(4),) if level == 1 else _SIDES[rng.choice(list(_SIDES))]
    tone = rng.choice(("dark", "light"))
    cells = [Cell(tone, shape if place in places else rng.choice(others)) for place in range(4)]
    plural = "crosses" if shape == "cross" else f"{shape}s"
    return Problem(
        family="box",
        level=level,
        scene=(cells[0], cells[1], cells[2], cells[3]),
        ask=f"Where is the {shape}?" if level == 1 else f"Where are the {plural}?",
        answer=_corners(places),
        steps=(" ".join((shape, *(PLACES[place] for place in places))),),
        guess=_corners((0,) if level == 1 else (0, 1)),
    )


def _corners(places: tuple[int, ...]) -> str:
    rows, columns = zip(*(divmod(place, 2) for place in places), strict=True)
    return " ".join(str(edge / 2) for edge in (min(columns), min(rows), max(columns) + 1, max(rows) + 1))


def _description(rng: Random) -> Problem:
    """Return "What is in the picture?" with one to three symbols: "a circle and a 3"; the level is their number."""
    number = rng.randint(1, 3)
    places = sorted(rng.sample(range(4), number))
    cells = [BLANK] * 4
    for place in places:
        shape = Cell(rng.choice(("dark", "light")), rng.choice(SHAPES))
        cells[place] = rng.choice((shape, numeral(rng, rng.randint(0, 9))))
    named = [f"a {cells[place].words}" for place in places]
    return Problem(
        family="description",
        level=number,
        scene=(cells[0], cells[1], cells[2], cells[3]),
        ask="What is in the picture?",
        answer=" and ".join(named),
        steps=(" and ".join(named),),
        guess=named[0],
    )


def _sample(
    name: str, problem: Problem, picture: Picture, question: str, verifier: str, benchmark: str, answer_type: str
) -> TrainSample:
    gold = _answer(problem, problem.answer)
    record = {
        "id": name,
        "image": picture,
        "question": question,
        "gt": int(gold) if verifier == "digit" else gold,
        "ds_answer": careful(problem),
        "caption": caption(picture.scene),
        "verifier_type": verifier,
        "meta": {
            "benchmark": benchmark,
            "family": problem.family,
            "level": problem.level,
            "answer_type": answer_type,
        },
    }
    return TrainSample(record=record, problem=problem, careful=careful(problem), hasty=hasty(problem))


def caption(scene: Scene) -> str:
    """Return a full description of what the cells show, such as "first: 3; second: circle; third: blank; fourth: 5"."""
    return "; ".join(f"{place}: {cell.words}" for place, cell in zip(PLACES, scene, strict=True))
