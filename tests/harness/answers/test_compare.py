import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahabench.harness.answers.compare import (
    elements,
    number,
    same_content,
    same_elements,
    same_integer,
    same_number,
    same_rounded,
    squeezed,
    within,
)
from ahabench.harness.answers.numbers import Quantity

SIGNS = st.text(st.sampled_from("0123456789.,-+/^_(){}[]\\ √π°%xyabAB=!|$*~"), max_size=12)
FORMS = st.sampled_from(
    [
        r"\frac{1}{2}",
        "0.5",
        "1/2",
        "½",
        r"\sqrt{2}",
        "√2",
        "2^{10}",
        "1024",
        "5 cm",
        "5",
        "dog",
        "The dog",
        "",
        " ",
        "(1,2)",
    ]
)
ANY = st.one_of(SIGNS, FORMS, st.text(st.characters(codec=None, exclude_categories=()), max_size=20))


@given(ANY, ANY)
def test_same_content_is_symmetric(first: str, second: str):
    assert same_content(first, second) == same_content(second, first)


@given(ANY)
def test_a_content_is_the_same_as_itself_unless_it_is_nothing(text: str):
    assert same_content(text, text) == (squeezed(text) != "" or number(text) is not None)


@given(ANY)
def test_squeezing_never_raises_and_leaves_no_blank(text: str):
    assert not any(character.isspace() for character in squeezed(text))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Dog", "dog."),
        (r"\text{dog}", "dog"),
        ("6 0°", r"60^\circ"),
        (r"\dfrac{1}{2}", r"\frac{1}{2}"),
        (r"\frac{1}{2}", "0.5"),
        ("1,200", "1200"),
        ("√3", r"\sqrt{3}"),
        ("2π", r"2\pi"),
        (r"$x+1$", "x + 1"),
    ],
)
def test_contents_that_differ_in_form_are_the_same(first: str, second: str):
    assert same_content(first, second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("dog", "dogs"),
        ("x+1", "x-1"),
        ("0.33", r"\frac{1}{3}"),
        ("", ""),
        ("2√3", "3√2"),
        ("-5", "5"),
        ("3!", "3"),
        ("12x", "12"),
        ("3a", "3b"),
        (".75", "75"),
    ],
)
def test_contents_that_differ_are_not_the_same(first: str, second: str):
    assert not same_content(first, second)


@pytest.mark.parametrize(
    ("value", "gold", "same"),
    [
        (7.0, "7", True),
        (7.9, "7", True),
        (-7.9, "-7", True),
        (6.9999, "7", False),
        (8, "7", False),
        (1e300, "7", False),
    ],
)
def test_an_integer_is_cut_toward_zero(value: float, gold: str, same: bool):
    assert same_integer(Quantity(value, 1), gold) is same


def test_a_fraction_is_not_cut():
    assert same_integer(Quantity(7.0, None), "7")
    assert not same_integer(Quantity(7.5, None), "7")


@pytest.mark.parametrize(
    ("value", "gold", "precision", "same"),
    [
        (3.14159, "3.14", 2, True),
        (3.146, "3.14", 2, False),
        (1.25, "1.2", 1, True),
        (1.35, "1.4", 1, True),
        (2, "2.0", 1, True),
    ],
)
def test_a_float_is_rounded_as_python_rounds(value: float, gold: str, precision: int, same: bool):
    # 1.25 is exact in binary and goes to the even 1.2; 1.35 is stored a little above itself.
    assert same_rounded(Quantity(value, None), gold, precision) is same


@pytest.mark.parametrize(
    ("value", "same"), [(2.5, True), (2.501, True), (2.499, True), (2.5011, False), (2.4989, False)]
)
def test_the_tolerance_itself_is_within(value: float, same: bool):
    assert within(Quantity(value, 4), 2.5, 0.001) is same


THIRD, ROOT = Quantity(1 / 3, None), Quantity(math.sqrt(12), None)


@pytest.mark.parametrize(
    ("said", "gold", "same"),
    [
        (Quantity(0.333, 3), THIRD, True),
        (Quantity(0.3333, 4), THIRD, True),
        (Quantity(0.33, 2), THIRD, False),
        (Quantity(0.334, 3), THIRD, False),
        (Quantity(3.46, 2), ROOT, True),
        (Quantity(3.5, 1), ROOT, False),
        (Quantity(3.47, 2), ROOT, False),
        (Quantity(1.5, 1), Quantity(1.5, None), True),
        (Quantity(3.464, 3), Quantity(3.46, 2), False),
    ],
)
def test_a_rounding_counts_for_a_number_without_an_end_only(said: Quantity, gold: Quantity, same: bool):
    assert same_number(said, gold) is same


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[1, 2]", ["1", "2"]),
        ("(1,2)", ["1", "2"]),
        (r"\{1, 2\}", ["1", "2"]),
        ("1, 2, 3", ["1", "2", "3"]),
        ("(1, (2, 3))", ["1", "(2, 3)"]),
        ("[1; 2]", ["1", "2"]),
        ("5", None),
        ("", None),
    ],
)
def test_the_elements_of_a_list_are_parted(text: str, parts: list[str] | None):
    assert elements(text) == parts


@given(st.lists(st.integers(), min_size=2, max_size=6))
def test_a_list_of_integers_is_parted_as_python_prints_it(numbers: list[int]):
    assert elements(str(numbers)) == [str(n) for n in numbers]
    assert elements(str(tuple(numbers))) == [str(n) for n in numbers]


def test_elements_are_compared_in_order_and_number():
    assert same_elements(["1/2", "2"], ["0.5", "2.0"])
    assert not same_elements(["2", "1"], ["1", "2"])
    assert not same_elements(["1", "2"], ["1", "2", "3"])


@given(ANY)
def test_parting_never_raises(text: str):
    parts = elements(text)
    # One part only where a bracket does not close: "(1, 2" has its comma inside.
    assert parts is None or parts
