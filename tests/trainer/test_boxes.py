import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahabench.trainer.boxes import Box, BoxUnits, convert, iou, read_box

NORMALISED, PIXEL, THOUSAND = BoxUnits.NORMALISED, BoxUnits.PIXEL, BoxUnits.THOUSAND


def test_overlap_is_the_intersection_over_the_union() -> None:
    # Two 2 x 2 squares that share a 1 x 1 corner: 1 / (4 + 4 - 1).
    assert iou(Box(0, 0, 2, 2), Box(1, 1, 3, 3)) == pytest.approx(1 / 7)


def test_a_box_inside_another_overlaps_by_the_ratio_of_areas() -> None:
    assert iou(Box(0, 0, 4, 4), Box(1, 1, 3, 3)) == pytest.approx(4 / 16)


@pytest.mark.parametrize("other", [Box(2, 0, 3, 2), Box(5, 5, 6, 6), Box(0, 2, 2, 4)])
def test_boxes_that_only_touch_or_stand_apart_do_not_overlap(other: Box) -> None:
    assert iou(Box(0, 0, 2, 2), other) == 0


corners = st.tuples(*[st.integers(0, 40)] * 4).filter(lambda c: c[0] != c[2] and c[1] != c[3])


def box_of(c: tuple[int, int, int, int]) -> Box:
    return Box(min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))


@given(corners, corners)
def test_overlap_equals_counting_the_unit_squares(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    def squares(box: Box) -> set[tuple[int, int]]:
        return {(x, y) for x in range(int(box.x1), int(box.x2)) for y in range(int(box.y1), int(box.y2))}

    one, two = box_of(first), box_of(second)  # type: ignore[arg-type]
    shared, both = squares(one) & squares(two), squares(one) | squares(two)
    assert iou(one, two) == pytest.approx(len(shared) / len(both))


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("[0.1, 0.2, 0.7, 0.5]", NORMALISED),
        ("The box is (0.1,0.2, 0.7 ,0.5).", NORMALISED),
        ("[100, 200, 700, 500]", THOUSAND),
        ('{"bbox_2d": [100, 200, 700, 500]}', PIXEL),
    ],
)
def test_a_box_is_read_in_its_declared_units(text: str, units: BoxUnits) -> None:
    scale = 1 if units is NORMALISED else 1000
    assert read_box(text, units) == pytest.approx((0.1 * scale, 0.2 * scale, 0.7 * scale, 0.5 * scale))


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("[100, 200, 700, 500]", NORMALISED),  # pixels under a declaration of fractions
        ("[0.1, 0.2, 1.2, 0.5]", NORMALISED),
        ("[-0.1, 0.2, 0.7, 0.5]", NORMALISED),
        ("[100, 200, 1700, 500]", THOUSAND),
        ("[0.7, 0.2, 0.1, 0.5]", NORMALISED),  # right of its own right side
        ("[0.1, 0.2, 0.1, 0.5]", NORMALISED),  # no width
        ("[0.1, 0.2, 0.7]", NORMALISED),
        ("[0.1, 0.2, 0.7, 0.5, 0.9]", NORMALISED),
        ("[0, 0, 1, 1] or [0, 0, 0.5, 0.5]", NORMALISED),
        ("[0.1, 0.2, nan, 0.5]", NORMALISED),
        ("[0.1, 0.2, 1e999, 0.5]", NORMALISED),
        ("", NORMALISED),
    ],
)
def test_what_is_no_box_in_its_units_is_none(text: str, units: BoxUnits) -> None:
    assert read_box(text, units) is None


def test_a_pixel_box_may_not_leave_an_image_of_known_size() -> None:
    assert read_box("[0, 0, 640, 480]", PIXEL, (640, 480)) == Box(0, 0, 640, 480)
    assert read_box("[0, 0, 641, 480]", PIXEL, (640, 480)) is None


def test_the_same_box_said_twice_is_one_box() -> None:
    assert read_box("[0, 0, 1, 1], that is [0, 0, 1.0, 1]", NORMALISED) == Box(0, 0, 1, 1)


def test_units_convert_by_the_image_size() -> None:
    pixels = Box(64, 120, 320, 240)
    assert convert(pixels, PIXEL, NORMALISED, (640, 480)) == pytest.approx((0.1, 0.25, 0.5, 0.5))
    assert convert(pixels, PIXEL, THOUSAND, (640, 480)) == pytest.approx((100, 250, 500, 500))
    assert convert(Box(0.1, 0.25, 0.5, 0.5), NORMALISED, PIXEL, (640, 480)) == pytest.approx(pixels)
    assert convert(Box(0.1, 0.25, 0.5, 0.5), NORMALISED, THOUSAND, None) == pytest.approx((100, 250, 500, 500))


def test_pixels_do_not_convert_without_the_image_size() -> None:
    with pytest.raises(ValueError, match="image's size"):
        convert(Box(0, 0, 5, 5), PIXEL, NORMALISED, None)


def test_reading_a_box_is_fast_on_hostile_text() -> None:
    # 400,000 characters; a reader that backtracks would not come back.
    assert read_box("[1,1,1," * 50_000 + "9" * 50_000, NORMALISED) is None
