"""The test items of the built-in suite: which problems stand in which benchmark, drawn from a fixed seed.

What the split tests: reading scenes that training never shows, with any question, and combining what was read. It does
not test new words, new symbols or new families: all of them occur in training. One in eight sums and differences is
fresh: it never occurs in training, in that order. Six of MathVerse's 24 problems need one, all other items need none;
their sums and differences of two digits do occur in training, about other pictures.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from random import Random

from ahabench.harness.types import Row, Split
from ahabench.tasks.mini import problems as make
from ahabench.tasks.mini import schemas
from ahabench.tasks.mini.problems import Maker, Problem
from ahabench.tasks.mini.scene import BLANK, Fact, Side, numeral
from ahabench.tasks.mini.schemas import Drawn

N_ITEMS = 120
"""Items of each benchmark."""
N_VARIANTS = 10
_SEED = 2504
_MAX_DRAWS = 20_000


def arithmetic(rng: Random, level: int) -> Problem:
    """Return MathVerse's problem: the first cell plus or minus the third, nothing else in the picture.

    Level 1: both numbers up to 3; level 2: a result below 10; level 3: from 10 on.
    """
    top = 3 if level == 1 else 9
    fact = Fact(rng.randint(0, top), "+" if level == 3 else rng.choice("+-"), rng.randint(0, top))
    if fact.result < 0 or (level == 3) != (fact.result > 9) or (level == 2 and max(fact.left, fact.right) < 4):
        return arithmetic(rng, level)
    word = {"+": "plus", "-": "minus"}[fact.sign]
    return Problem(
        family="add" if fact.sign == "+" else "subtract",
        level=level,
        scene=(numeral(rng, fact.left), BLANK, numeral(rng, fact.right), BLANK),
        ask=f"What is the first {word} the third?",
        answer=str(fact.result),
        steps=(make.step(fact, "first", "third"),),
        facts=(fact,),
        guess="11" if level == 3 else "6" if fact.sign == "+" else "2",
    )


_add2, _add3 = partial(make.add, level=2), partial(make.add, level=3)

MAKERS: Mapping[str, tuple[Maker, ...]] = {
    "mathvista": (
        *(make.read_cell,) * 4,
        *(_add2, make.subtract, make.count, make.extreme),
        *(_add3, make.add_three, make.mean, make.mean),
    ),
    "mathvision": (
        *(partial(make.odd_one, level=1), partial(make.sequence, level=1)),
        *(partial(make.odd_one, level=2), partial(make.sequence, level=2)),
        *(partial(make.odd_one, level=3), partial(make.sequence, level=3)),
        *(make.read_cell, partial(make.sequence, level=2), make.kinds),
    ),
    "mathverse": tuple(partial(arithmetic, level=level) for level in (1, 2, 3)),
    "dynamath": (
        *(make.read_cell, make.name_shape, partial(make.larger, level=1), partial(make.sequence, level=1)),
        *(_add2, make.subtract, make.count, partial(make.larger, level=2)),
        *(_add3, make.add_three, make.spread, make.mean),
    ),
    "wemath": (_add2, make.spread, make.add_three, make.subtract, make.spread, make.add_three),
    "logicvista": (
        *(partial(make.pattern, level=1), partial(make.members, level=1)),
        *(partial(make.pattern, level=2), partial(make.members, level=2)),
        *(partial(make.pattern, level=3), partial(make.extreme, level=3)),
    ),
}
"""What each benchmark draws from, by turns; in DynaMath each is one seed, in We-Math one composite problem."""


def mini(task: str) -> Split:
    """Return a benchmark's built-in split, for its task's declaration.

    Args:
        task: one of the six names.
    """
    return Split(n_items=N_ITEMS, hub=None, rows=partial(rows, task))


def rows(task: str) -> Iterator[Row]:
    """Yield a benchmark's 120 rows, in the keys of its official files."""
    return (drawn.row for drawn in held_out(task))


def held_out(task: str) -> Iterator[Drawn]:
    """Yield the rows with the problems behind them; always the same ones."""
    rng = Random(f"{task} {_SEED}")
    found = _Unseen(rng)
    return _TESTS[task](found, rng)


class _Unseen:
    """Draws problems of the test side, no two with the same content."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._seen: set[tuple[object, ...]] = set()

    def draw(self, maker: Maker, *, fresh: bool = False, like: Problem | None = None) -> Problem:
        """Return a problem that was not drawn yet; `like` asks for the same question."""
        for _ in range(_MAX_DRAWS):
            problem = maker(self._rng)
            content = (problem.scene, problem.ask)
            if problem.side is not Side.TEST or problem.fresh is not fresh or content in self._seen:
                continue
            if like is not None and problem.ask != like.ask:
                continue
            self._seen.add(content)
            return problem
        raise RuntimeError(f"no unseen problem in {_MAX_DRAWS:,} draws of {maker}")


def _singles(
    schema: Callable[[int, Problem, Random], list[Drawn]], task: str
) -> Callable[[_Unseen, Random], Iterator[Drawn]]:
    def draw(unseen: _Unseen, rng: Random) -> Iterator[Drawn]:
        makers = MAKERS[task]
        for number in range(1, N_ITEMS + 1):
            yield from schema(number, unseen.draw(makers[number % len(makers)]), rng)

    return draw


def _mathverse(unseen: _Unseen, rng: Random) -> Iterator[Drawn]:
    makers = MAKERS["mathverse"]
    for number in range(1, N_ITEMS // 5 + 1):
        # Hardly a sum of numbers up to 3 is fresh, so these come from levels 2 and 3.
        fresh = number % 3 != 0 and number % 8 in (1, 2, 5)
        problem = unseen.draw(makers[number % 3], fresh=fresh)
        yield from schemas.mathverse(number, problem, rng)


def _dynamath(unseen: _Unseen, rng: Random) -> Iterator[Drawn]:
    for seed, maker in enumerate(MAKERS["dynamath"], start=1):
        first = unseen.draw(maker)
        rest = [unseen.draw(maker, like=first) for _ in range(N_VARIANTS - 1)]
        yield from schemas.dynamath(seed, [first, *rest], rng)


def _wemath(unseen: _Unseen, rng: Random) -> Iterator[Drawn]:
    makers = MAKERS["wemath"]
    row = 1
    for number in range(1, 37):  # 24 problems of three rows, 12 of four
        rows = schemas.wemath(number, row, unseen.draw(makers[number % len(makers)]), rng)
        row += len(rows)
        yield from rows


_TESTS: Mapping[str, Callable[[_Unseen, Random], Iterator[Drawn]]] = {
    "mathvista": _singles(schemas.mathvista, "mathvista"),
    "mathvision": _singles(schemas.mathvision, "mathvision"),
    "mathverse": _mathverse,
    "dynamath": _dynamath,
    "wemath": _wemath,
    "logicvista": _singles(schemas.logicvista, "logicvista"),
}


def digest(rows: Iterable[Drawn]) -> str:
    """Return the SHA-256, hexadecimal, of what rows ask, expect and show, pixel by pixel, in their order."""
    sha = hashlib.sha256()
    for drawn in rows:
        texts = {name: value for name, value in drawn.row.items() if name != "images"}
        sha.update(json.dumps(texts, sort_keys=True).encode("ascii"))
        sha.update(drawn.picture.pixels().tobytes())
    return sha.hexdigest()


def draw_for_training(task: str, rng: Random) -> Sequence[Drawn]:
    """Return one freshly drawn problem of the training side, as all the rows that it has in its benchmark.

    A DynaMath seed comes with one variant: the others would be its near-copies.
    """
    maker = rng.choice(MAKERS[task])
    problem = maker(rng)
    while problem.side is not Side.TRAIN:
        problem = maker(rng)
    if task == "dynamath":
        return schemas.dynamath(1, [problem], rng)
    if task == "wemath":
        return schemas.wemath(1, 1, problem, rng)
    schema = {
        "mathvista": schemas.mathvista,
        "mathvision": schemas.mathvision,
        "mathverse": schemas.mathverse,
        "logicvista": schemas.logicvista,
    }[task]
    return schema(1, problem, rng)
