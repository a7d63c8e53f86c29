import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahabench.harness.answers.numbers import in_prose, in_span, mentions, quantity
from ahabench.harness.answers.text import clean


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("-7", -7),
        ("7.25", 7.25),
        (".25", 0.25),
        ("-.25", -0.25),
        ("1,234,567.5", 1234567.5),
        ("1{,}234", 1234),
        ("seven", 7),
        ("Twenty", 20),
        ("1/4", 0.25),
        ("1 1/2", 1.5),
        ("1½", 1.5),
        (r"\frac{3}{4}", 0.75),
        (r"1\frac{1}{2}", 1.5),
        ("2^10", 1024),
        (r"3 \times 10^{4}", 30000),
        ("3e4", 30000),
        (r"2\sqrt{3}", 2 * math.sqrt(3)),
        ("12π", 12 * math.pi),
        ("45°", 45),
        (r"45^\circ", 45),
        ("45 degrees", 45),
        ("5 cm", 5),
        (r"5\text{ cm}^2", 5),
        ("5 km/h", 5),
        ("5 square meters", 5),
        ("$5.20", 5.2),
        ("€5", 5),
        ("about 5", 5),
        ("≈ 5", 5),
        ("x = 5", 5),
        (r"AB = \sqrt{3} \approx 1.73", 1.73),
        ("**5**", 5),
        ("5.", 5),
        ("4!", 24),
    ],
)
def test_a_text_that_is_a_number_has_its_value(text: str, value: float):
    found = quantity(text)
    assert found is not None, text
    assert math.isclose(found.value, value, rel_tol=1e-2 if "approx" in text else 1e-12)


@pytest.mark.parametrize(
    "text", ["", "cat", "1/0", "x", "1, 2", "(1, 2)", "5 and 6", "1 2", "9" * 301, "10^{400}", "nan", "inf", "--", "."]
)
def test_a_text_that_is_no_number_has_none(text: str):
    assert quantity(text) is None


@pytest.mark.parametrize(
    ("text", "decimals"), [("5", 0), ("5.0", 1), ("5.125", 3), ("1,000.50", 2), ("1/2", None), ("√2", None)]
)
def test_the_decimals_are_those_that_were_written(text: str, decimals: int | None):
    found = quantity(text)
    assert found is not None
    assert found.decimals == decimals


def test_a_percent_sign_is_remembered_and_the_number_kept():
    for text in ("50%", r"50\%", "50 percent"):
        found = quantity(text)
        assert found is not None
        assert (found.value, found.percent) == (50, True)


@given(st.integers(-(10**15), 10**15))
def test_every_integer_is_read_with_and_without_separators(number: int):
    for text in (str(number), f"{number:,}"):
        found = quantity(text)
        assert found is not None
        assert found.value == number


@given(st.decimals(min_value=-99999, max_value=99999, places=3))
def test_every_decimal_is_read(number: object):
    found = quantity(str(number))
    assert found is not None
    assert math.isclose(found.value, float(str(number)), rel_tol=1e-12, abs_tol=1e-12)
    assert found.decimals == 3


@pytest.mark.parametrize(
    ("span", "value"),
    [("7 red cubes", 7), ("about 7 of them", 7), ("the length is 7", 7), ("7 (since 9 - 2 = 7)", 7), ("9 - 2 = 7", 7)],
)
def test_a_span_claims_its_number(span: str, value: float):
    found = in_span(span)
    assert found is not None
    assert found.value == value


def test_a_span_without_a_number_claims_none():
    assert in_span("the red cube") is None

    assert in_span("the red one") is None


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("5 apples and 7 pears", [5, 7]),
        ("from 1,000 to 2,500.5", [1000, 2500.5]),
        ("two of three", [2, 3]),
        ("x2 and v1.2.3", []),
        ("-5 degrees", [-5]),
        ("1/2 of it", [0.5]),
        (clean("共有12个"), [12]),
    ],
)
def test_the_numbers_of_prose_are_found_in_order(text: str, values: list[float]):
    assert [mention.quantity.value for mention in mentions(text)] == values


def test_a_mention_knows_its_place():
    text = "There are 12 cats."
    (mention,) = mentions(text)
    assert text[mention.start : mention.end].strip() == "12"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5 plus 7 makes 12. Therefore, the total is 12.", 12),
        ("We see 5 cats. We see 7 dogs. So there are 12 animals.", 12),
        ("The area is 3 × 4 = 12 square units.", 12),
        ("I cannot determine it from 5 values.", None),
        ("No numbers here.", None),
    ],
)
def test_prose_arrives_at_a_number(text: str, value: float | None):
    found = in_prose(text)
    assert (None if found is None else found.value) == value


def test_a_question_for_a_year_is_answered_by_a_year():
    found = in_prose("Sales of 35 units were seen in 2008.", "In which year were sales highest?")
    assert found is not None
    assert found.value == 2008


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_reading_a_number_never_raises_and_gives_a_finite_one(text: str):
    for found in (quantity(text), in_span(text), in_prose(text, text)):
        assert found is None or math.isfinite(found.value)
