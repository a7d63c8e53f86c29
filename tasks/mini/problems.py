"""Make problems: what four cells show, what is asked about them, the way to the answer, and a shortcut that misses it.

Every maker takes a seeded generator and returns a problem of any side; whoever wants one side draws until it fits.
Numbers stay small, words few: a model of a million parameters has to learn all of this in about a minute.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from ahabench.tasks.mini.scene import PLACES, SHAPES, Cell, Fact, Scene, Side, numeral, side, sign


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One question about a scene, in no benchmark's schema yet."""

    family: str
    level: int
    """1: one cell or one small step; 2: one operation, a result below 10; 3: more of either."""
    scene: Scene
    ask: str
    answer: str
    """In words or digits; members of a set joined by ", "."""
    options: tuple[str, ...] = ()
    """What one can choose from; empty where the answer is free."""
    steps: tuple[str, ...] = ()
    """The way from what the cells show to the answer, with the place of what is taken from a cell."""
    facts: tuple[Fact, ...] = ()
    """The sums and differences on that way."""
    guess: str
    """What a hasty reader answers without looking at all that matters; right now and then."""

    @property
    def side(self) -> Side | None:
        """The split that it may stand in; `None`: in neither (a fresh fact in a scene for training)."""
        found = side(self.scene)
        return None if found is Side.TRAIN and self.fresh else found

    @property
    def fresh(self) -> bool:
        """Whether it takes a sum or difference that training never shows."""
        return any(fact.fresh for fact in self.facts)


Maker = Callable[[Random], Problem]


def read_cell(rng: Random) -> Problem:
    """Return "What is the third?" about four numbers, level 1. The shortcut reads the first."""
    scene = _numbers(rng, [rng.randint(0, 9) for _ in PLACES])
    place = rng.randrange(4)
    return Problem(
        family="read",
        level=1,
        scene=scene,
        ask=f"What is the {PLACES[place]}?",
        answer=scene[place].words,
        steps=(f"{PLACES[place]} {scene[place].words}",),
        guess=scene[0].words,
    )


def name_shape(rng: Random) -> Problem:
    """Return "What shape is the third?" about four shapes, level 1."""
    scene = _shapes(rng, [rng.choice(SHAPES) for _ in PLACES])
    place = rng.randrange(4)
    return Problem(
        family="shape",
        level=1,
        scene=scene,
        ask=f"What shape is the {PLACES[place]}?",
        answer=scene[place].words,
        steps=(f"{PLACES[place]} {scene[place].words}",),
        guess=scene[0].words,
    )


def add(rng: Random, level: int) -> Problem:
    """Return "What is the first plus the third?": the sum below 10 (level 2) or from 10 on (level 3)."""
    left, right = (rng.randint(0, 9) for _ in range(2))
    while (left + right > 9) != (level == 3):
        left, right = (rng.randint(0, 9) for _ in range(2))
    return _operation(rng, Fact(left, "+", right), "plus", level)


def subtract(rng: Random) -> Problem:
    """Return "What is the first minus the third?", never below 0, level 2."""
    right, left = sorted(rng.randint(0, 9) for _ in range(2))
    return _operation(rng, Fact(left, "-", right), "minus", 2)


def _operation(rng: Random, fact: Fact, word: str, level: int) -> Problem:
    values = [rng.randint(0, 9) for _ in PLACES]
    one, other = sorted(rng.sample(range(4), 2))
    values[one], values[other] = fact.left, fact.right
    return Problem(
        family="add" if fact.sign == "+" else "subtract",
        level=level,
        scene=_numbers(rng, values),
        ask=f"What is the {PLACES[one]} {word} the {PLACES[other]}?",
        answer=str(fact.result),
        steps=(step(fact, PLACES[one], PLACES[other]),),
        facts=(fact,),
        guess="11" if level == 3 else "6" if fact.sign == "+" else "2",
    )


def add_three(rng: Random) -> Problem:
    """Return "What is the first plus the second plus the third?", at most 18, level 3."""
    values = [rng.randint(0, 6) for _ in PLACES]
    first = Fact(values[0], "+", values[1])
    second = Fact(first.result, "+", values[2])
    return Problem(
        family="add_three",
        level=3,
        scene=_numbers(rng, values),
        ask="What is the first plus the second plus the third?",
        answer=str(second.result),
        steps=(step(first, "first", "second"), step(second, right="third")),
        facts=(first, second),
        guess=str(first.result),
    )


def mean(rng: Random) -> Problem:
    """Return "What is the mean of the first and the second?", in halves with one decimal, level 3."""
    values = [rng.randint(0, 9) for _ in PLACES]
    fact = Fact(values[0], "+", values[1])
    half = f"{fact.result // 2}.{5 * (fact.result % 2)}"
    return Problem(
        family="mean",
        level=3,
        scene=_numbers(rng, values),
        ask="What is the mean of the first and the second?",
        answer=half,
        steps=(step(fact, "first", "second"), f"{fact.result} / 2 = {half}"),
        facts=(fact,),
        guess="4.5",
    )


def spread(rng: Random) -> Problem:
    """Return "What is the largest minus the smallest?" about four numbers, level 3."""
    values = [rng.randint(0, 9) for _ in PLACES]
    fact = Fact(max(values), "-", min(values))
    return Problem(
        family="spread",
        level=3,
        scene=_numbers(rng, values),
        ask="What is the largest minus the smallest?",
        answer=str(fact.result),
        steps=(step(fact, "largest", "smallest"),),
        facts=(fact,),
        guess=str(values[0]),
    )


def extreme(rng: Random, level: int = 2) -> Problem:
    """Return "Which is the largest?" (level 2: of digits, 3: of numbers in any form), by place."""
    values = rng.sample(range(10), 4)
    word, best = rng.choice((("largest", max(values)), ("smallest", min(values))))
    kind = "digit" if level == 2 else None
    return Problem(
        family="extreme",
        level=level,
        scene=_numbers(rng, values, kind),
        ask=f"Which is the {word}?",
        answer=PLACES[values.index(best)],
        options=PLACES,
        steps=(f"{word} {best} {PLACES[values.index(best)]}",),
        guess="first",
    )


def larger(rng: Random, level: int = 1) -> Problem:
    """Return "Is the first larger than the second?" (level 1) or the third than the fourth (level 2), yes or no."""
    values = rng.sample(range(10), 4)
    one, other = (0, 1) if level == 1 else (2, 3)
    answer = "yes" if values[one] > values[other] else "no"
    return Problem(
        family="larger",
        level=level,
        scene=_numbers(rng, values, "digit" if level == 1 else None),
        ask=f"Is the {PLACES[one]} larger than the {PLACES[other]}?",
        answer=answer,
        options=("yes", "no"),
        steps=(f"{PLACES[one]} {values[one]} {PLACES[other]} {values[other]} {answer}",),
        guess="yes",
    )


def count(rng: Random, level: int = 2) -> Problem:
    """Return "How many circles are there?" among shapes (level 2) or shapes in two tones (level 3): 1 to 4."""
    shape = rng.choice(SHAPES)
    others = [name for name in SHAPES if name != shape]
    number = rng.randint(1, 4)
    shown = [shape] * number + [rng.choice(others) for _ in range(4 - number)]
    rng.shuffle(shown)
    plural = "crosses" if shape == "cross" else f"{shape}s"
    places = [place for place, name in zip(PLACES, shown, strict=True) if name == shape]
    return Problem(
        family="count",
        level=level,
        scene=_shapes(rng, shown, tones=("dark",) if level == 2 else ("dark", "light")),
        ask=f"How many {plural} are there?",
        answer=str(number),
        options=("1", "2", "3", "4"),
        steps=(f"{shape} {' '.join(places)} = {number}",),
        guess="2",
    )


def kinds(rng: Random) -> Problem:
    """Return "How many different shapes are there?" among four, level 3: 1 to 4."""
    shown = [rng.choice(SHAPES) for _ in PLACES]
    distinct = list(dict.fromkeys(shown))
    return Problem(
        family="kinds",
        level=3,
        scene=_shapes(rng, shown, tones=("dark", "light")),
        ask="How many different shapes are there?",
        answer=str(len(distinct)),
        steps=(f"{' '.join(distinct)} = {len(distinct)}",),
        guess="3",
    )


def odd_one(rng: Random, level: int) -> Problem:
    """Return "Which one is different?": a shape (level 1), a tone or a digit (2), a number in any form (3).

    One in five pictures has no such cell.
    """
    if level == 1:
        tone = rng.choice(("dark", "light"))
        common, odd = (Cell(tone, name) for name in rng.sample(SHAPES, 2))
        cells = [common] * 4
    elif level == 2 and rng.random() < 0.25:
        shape = rng.choice(SHAPES)
        common, odd = (Cell(tone, shape) for tone in rng.sample(("dark", "light"), 2))
        cells = [common] * 4
    else:
        kind, numbers = (None, range(1, 7)) if level == 3 else ("digit", range(10))
        usual, unusual = rng.sample(numbers, 2)
        cells = [numeral(rng, usual, kind) for _ in PLACES]
        odd = numeral(rng, unusual, kind)
    place = rng.randrange(5)
    if place < 4:
        cells[place] = odd
    return Problem(
        family="odd_one",
        level=level,
        scene=_scene(cells),
        ask="Which one is different?",
        answer=(*PLACES, "none")[place],
        options=(*PLACES, "none"),
        steps=(f"{odd.words} {PLACES[place]}" if place < 4 else "none",),
        guess="first",
    )


def sequence(rng: Random, level: int) -> Problem:
    """Return "Which number is next?": steps of 1 (level 1), of -1 and ±2 (level 2), of ±3 and 4 (level 3)."""
    jump = rng.choice({1: (1,), 2: (-1, 2, -2), 3: (3, -3, 4)}[level])
    starts = [start for start in range(10) if 0 <= start + 2 * jump <= 9 and start + 3 * jump >= 0]
    start = rng.choice(starts)
    shown = [start, start + jump, start + 2 * jump]
    fact = Fact(shown[-1], "+" if jump > 0 else "-", abs(jump))
    return Problem(
        family="sequence",
        level=level,
        scene=_scene([*(numeral(rng, value) for value in shown), sign("?")]),
        ask="Which number is next?",
        answer=str(fact.result),
        steps=(step(fact, "third"),),
        facts=(fact,),
        guess=str(shown[-1]),
    )


def pattern(rng: Random, level: int) -> Problem:
    """Return "Which one is missing?": shapes (level 1), numbers or shapes in two tones (2), numbers that grow (3).

    Each row repeats itself, or each column; at level 3 both rows grow by the same step.
    """
    if level == 3:
        jump = rng.randint(1, 3)
        top, bottom = rng.sample(range(10 - jump), 2)
        return _number_pattern(rng, [top, top + jump, bottom], (Fact(bottom, "+", jump),))
    if level == 2 and rng.random() < 0.75:
        a, b = rng.sample(range(10), 2)
        return _number_pattern(rng, rng.choice(([a, a, b], [a, b, a])), ())
    shape, other = rng.sample(SHAPES, 2)
    options: tuple[str, ...] = SHAPES
    if level == 1:
        names = rng.choice(((shape, shape, other), (shape, other, shape)))
        cells = [Cell(rng.choice(("dark", "light")), name) for name in names]
        answer = other
    else:
        tone, contrast = rng.sample(("dark", "light"), 2)
        near = [Cell(contrast, shape), Cell(tone, other)]
        rng.shuffle(near)
        cells = [Cell(tone, shape), *near]
        answer = Cell(contrast, other).words
        options = tuple(Cell(shade, name).words for shade in ("dark", "light") for name in sorted((shape, other)))
    return Problem(
        family="pattern",
        level=level,
        scene=_scene([*cells, sign("?")]),
        ask="Which one is missing?",
        answer=answer,
        options=options,
        steps=(answer,),
        guess=options[0],
    )


def _number_pattern(rng: Random, shown: list[int], facts: tuple[Fact, ...]) -> Problem:
    """Return a pattern of numbers: one that grows by a fact, or the last of `shown` or the middle one repeated."""
    repeated = shown[2] if shown[0] == shown[1] else shown[1]
    missing = facts[0].result if facts else repeated
    low = missing - rng.randint(0, min(3, missing))
    options = tuple(str(low + extra) for extra in range(4))
    return Problem(
        family="pattern",
        level=3 if facts else 2,
        scene=_scene([*(numeral(rng, value) for value in shown), sign("?")]),
        ask="Which one is missing?",
        answer=str(missing),
        options=options,
        steps=tuple(step(fact, "third") for fact in facts) or (str(missing),),
        facts=facts,
        guess=options[0],
    )


def members(rng: Random, level: int) -> Problem:
    """Return "Which have a circle?" (level 1) or "Which are larger than 4?" (level 2): two or three places."""
    chosen = sorted(rng.sample(range(4), rng.choice((2, 2, 3))))
    if level == 1:
        shape = rng.choice(SHAPES)
        others = [name for name in SHAPES if name != shape]
        scene = _shapes(rng, [shape if place in chosen else rng.choice(others) for place in range(4)])
        ask = f"Which have a {shape}?"
    else:
        limit = rng.randint(3, 6)
        values = [rng.randint(limit + 1, 9) if place in chosen else rng.randint(0, limit) for place in range(4)]
        scene = _numbers(rng, values)
        ask = f"Which are larger than {limit}?"
    return Problem(
        family="members",
        level=level,
        scene=scene,
        ask=ask,
        answer=", ".join(PLACES[place] for place in chosen),
        options=PLACES,
        steps=(" ".join(PLACES[place] for place in chosen),),
        guess="first, second",
    )


def step(fact: Fact, left: str = "", right: str = "") -> str:
    """Return a sum or difference written out, such as "first 3 + third 5 = 8".

    Args:
        fact: the sum or difference.
        left: the place of the first number; empty where it is in no cell.
        right: the place of the second.
    """
    return f"{left} {fact.left} {fact.sign} {right} {fact.right} = {fact.result}".replace("  ", " ").strip()


def _numbers(rng: Random, values: list[int], kind: str | None = None) -> Scene:
    return _scene([numeral(rng, value, kind) for value in values])


def _shapes(rng: Random, names: list[str], tones: tuple[str, ...] = ("dark",)) -> Scene:
    return _scene([Cell(rng.choice(tones), name) for name in names])


def _scene(cells: list[Cell]) -> Scene:
    one, two, three, four = cells
    return one, two, three, four
