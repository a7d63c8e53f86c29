"""Pictures: what is drawn where, told apart from its neighbours, and the PNG around it."""

import io
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from ahabench.tasks.mini.picture import CELL, SIZE, Picture
from ahabench.tasks.mini.scene import BLANK, NUMERALS, SHAPES, Cell, Scene, sign

SYMBOLS = [
    *(Cell(kind, str(number)) for kind, numbers in NUMERALS.items() for number in numbers),
    *(Cell(tone, shape) for tone in ("dark", "light") for shape in SHAPES),
    *(sign(text) for text in "+-?"),
    BLANK,
]


def alone(cell: Cell, place: int = 0, style: int = 0) -> np.ndarray:
    cells = [BLANK] * 4
    cells[place] = cell
    one, two, three, four = cells
    return Picture((one, two, three, four), style).pixels().astype(int)


def ink(cell: Cell, place: int = 0, style: int = 0) -> np.ndarray:
    """Which pixels a symbol changes."""
    return np.asarray((alone(cell, place, style) != alone(BLANK, place, style)).any(axis=2))


def test_pillow_reads_back_the_pixels() -> None:
    scene: Scene = (SYMBOLS[3], SYMBOLS[12], SYMBOLS[18], SYMBOLS[23])
    picture = Picture(scene, 5)
    with Image.open(io.BytesIO(picture.read())) as image:
        image.verify()
    with Image.open(io.BytesIO(picture.read())) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (SIZE, SIZE))
        assert np.array_equal(np.asarray(image), picture.pixels())


@pytest.mark.parametrize("cell", SYMBOLS[:-1], ids=lambda cell: f"{cell.kind} {cell.value}")
@pytest.mark.parametrize("place", range(4))
def test_a_symbol_stays_in_its_cell_in_every_style(cell: Cell, place: int) -> None:
    row, column = divmod(place, 2)
    for style in range(25):
        inked = ink(cell, place, style)
        assert inked.sum() >= 24
        inked[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = False
        assert not inked.any()


def test_no_symbol_looks_like_another_wherever_both_stand() -> None:
    inked = {cell: ink(cell)[:CELL, :CELL] for cell in SYMBOLS}
    tones = {cell: cell.kind == "light" for cell in SYMBOLS}
    for one, other in combinations(SYMBOLS, 2):
        if tones[one] is tones[other]:
            shifts = ((down, right) for down in range(-4, 5) for right in range(-4, 5))
            assert min(int((inked[one] ^ np.roll(inked[other], shift, (0, 1))).sum()) for shift in shifts) >= 18


@pytest.mark.parametrize("number", range(1, 7))
def test_a_bar_is_four_pixels_high_for_each_unit_in_every_style(number: int) -> None:
    for style in range(10):
        rows = np.asarray(ink(Cell("bar", str(number)), style=style)[:CELL].any(axis=1))
        assert rows.sum() == 4 * number
        assert rows[-1]


@pytest.mark.parametrize("number", range(1, 7))
def test_a_die_has_its_number_of_separate_dots(number: int) -> None:
    inked = ink(Cell("dots", str(number)))
    assert pieces(inked) == number


def pieces(inked: np.ndarray) -> int:
    """How many connected regions there are."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(inked), strict=True)}
    found = 0
    while left:
        found += 1
        queue = [left.pop()]
        while queue:
            y, x = queue.pop()
            near = {(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)} & left
            left -= near
            queue.extend(near)
    return found


def test_the_ground_slopes_around_the_mean_of_clip() -> None:
    ground = alone(BLANK)
    # 255 x (0.481, 0.458, 0.408)
    assert np.abs(ground.mean(axis=(0, 1)) - (122.7, 116.7, 104.1)).max() < 10
    assert (np.diff(ground[0, :, 0]) >= 0).all()
    assert (np.diff(ground[:, 0, 0]) >= 0).all()
    assert ground[-1, -1, 0] - ground[0, 0, 0] > 60


def test_the_same_style_draws_the_same_bytes_and_another_others() -> None:
    scene: Scene = (SYMBOLS[3], SYMBOLS[12], SYMBOLS[18], SYMBOLS[23])
    assert Picture(scene, 1).read() == Picture(scene, 1).read()
    assert len({Picture(scene, style).read() for style in range(50)}) == 50
