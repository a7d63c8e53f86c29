"""Expected values are worked out by hand; those of latex2sympy2 1.9.1 come from running that library."""

import math
import time
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahabench.harness.answers.latex import MAX_BITS, evaluate, exact

NUMBERS = {
    "42": 42,
    "-7": -7,
    "+7": 7,
    "\u22125": -5,
    "\u20135": -5,
    "--5": 5,
    ".5": 0.5,
    "5.": 5,
    "007": 7,
    "1,234": 1234,
    "1,234.5": 1234.5,
    "1{,}234{,}567": 1234567,
    r"12\,345": 12345,
    "1.2e-3": 0.0012,
    "2E3": 2000,
    r"1.2 \times 10^{-3}": 0.0012,
    "1.5 x 10\u207b\u00b2": 0.015,
    "½": 0.5,
    "⅔": 2 / 3,
    "⅒": 0.1,
}
OPERATIONS = {
    "1+2*3": 7,
    "(1+2)*3": 9,
    "8-3-2": 3,
    "8/4/2": 1,
    "8/4*2": 4,
    r"2\cdot3\times 4": 24,
    "2·3": 6,
    "2\u00d73": 6,
    "3x4": 12,
    "7÷2": 3.5,
    r"7\div 2": 3.5,
    "3--2": 5,
    "3*-2": -6,
    "2^10": 1024,
    "2^{10}": 1024,
    "2**3": 8,
    "2^-1": 0.5,
    "2^{-1}": 0.5,
    "2^3^2": 512,
    "-2^2": -4,
    "(-2)^2": 4,
    "4^{0.5}": 2,
    "5²": 25,
    "10⁹": 10**9,
    "2⁻¹": 0.5,
    "(1+2)³": 27,
    "2\u00b2^3": 64,
    "3!": 6,
    "3!!": 720,
    "4!/2!": 12,
    "0!": 1,
    "0^0": 1,
}
LATEX = {
    r"\frac{1}{4}": 0.25,
    r"\dfrac{1}{4}": 0.25,
    r"\tfrac14": 0.25,
    r"\frac1{20}": 0.05,
    r"\frac{3}4": 0.75,
    r"\frac \pi 2": math.pi / 2,
    r"\frac{\frac{1}{2}}{4}": 0.125,
    r"\left(\frac{1}{2}\right)^2": 0.25,
    r"\sqrt{16}": 4,
    r"\sqrt 9": 3,
    r"\sqrt12": math.sqrt(12),
    r"\sqrt[3]{27}": 3,
    r"\sqrt[3]{-27}": -3,
    "√34": math.sqrt(34),
    "√(9+16)": 5,
    "√4/2": 1,
    "∛8": 2,
    "sqrt(16)": 4,
    r"\pi": math.pi,
    "π": math.pi,
    "3pi": 3 * math.pi,
    r"2\sqrt{3}": 2 * math.sqrt(3),
    r"3\pi\sqrt{4}": 6 * math.pi,
    r"2(3)(4)": 24,
    r"\frac{1}{2}\pi": math.pi / 2,
    r"1/2\pi": 1 / (2 * math.pi),
    r"\{3+4\}": 7,
    "[3+4]": 7,
    "$12$": 12,
    r"\(12\)": 12,
    r"\displaystyle\frac{1}{2}": 0.5,
    r"2\,\pi": 2 * math.pi,
    r"\frac{7^3}{2^{12}\cdot 13^2}": 343 / (4096 * 169),
}
MIXED = {
    r"1\frac{1}{2}": 1.5,
    r"-1\frac{1}{2}": -1.5,
    r"1\ \frac{1}{2}": 1.5,
    r"3\tfrac12": 3.5,
    "2½": 2.5,
    "1,234½": 1234.5,
    "1 1/2": 1.5,
    r"4\times 1\frac{1}{2}": 6,
    # Not a proper fraction of integers, so it multiplies.
    r"3\frac{5}{2}": 7.5,
    r"2\frac{\sqrt{9}}{2}": 3,
    r"\pi\frac{1}{2}": math.pi / 2,
    r"2^3\frac{1}{2}": 4,
    r"\sqrt9\frac{1}{2}": 1.5,
}
UNREADABLE = [
    *("", " ", "x", "e", "i", "B", "one", "12 cm", "12cm", r"12\text{ cm}", r"30^\circ", "30°", "50%", r"50\%"),
    *("2x", "3e", r"\pi r^2", r"\theta", r"\infty", "∞", "1:2", "1=1", "x=5", "1<2", "(1,2)", "1,2", "12,34", "1,2345"),
    *("0.(3)", "2 3", "1 000", "8.7.6", "5. 5", "1½½", r"1\frac123", "(3", "3)", "{3", "()"),
    *("+", "2+", "*2", "^2", "2^", "!"),
    *("1/0", "0^{-1}", "(-8)^{0.5}", r"\sqrt{-4}", r"\sqrt[0]{4}", "171!", "2.5!", "(-1)!", "(6!)!"),
    *("10^{400}", "10^{10^{10}}", "9^9^9^9", "1e999", r"\frac{1}", r"\frac{}{}", r"\sqrt", r"\sqrt[3]", r"\frac", "\\"),
]


@pytest.mark.parametrize(("text", "value"), [*NUMBERS.items(), *OPERATIONS.items(), *LATEX.items(), *MIXED.items()])
def test_an_expression_has_its_value(text: str, value: float | None) -> None:
    found = evaluate(text)
    assert found == (None if value is None else pytest.approx(value, rel=1e-12))


@pytest.mark.parametrize("text", UNREADABLE)
def test_what_is_no_number_is_unreadable(text: str) -> None:
    assert evaluate(text) is None


LATEX2SYMPY = {
    # From the left as far as it goes.
    "15.step 2: so": 15,
    "8}x": 8,
    "8)4(?": 8,
    r"8\\7": 8,
    r"\frac{3}{4}}.\end{align*": 0.75,
    "36triangles": 36,
    "8_1": 8,
    # Other meanings.
    "1:2": 0.5,
    "3:4:5": 0.15,
    "5-2-3-4-1": -5,
    r"3\frac{1}{2}": 1.5,
    "5 6": 30,
    "1 000": 0,
    "8.7.6": 5.22,
    "2^3^2": 64,
    "2^{3}!": 40320,
    r"8\%": 0.08,
    r"8\%7": 0.56,
    "[3][4]": 12,
    "[400,500]": 400500,
    "12345,678": 12345678,
    r"1/2\pi": 1 / (2 * math.pi),
    "$12$": 12,
    r"\sin{2}7": math.sin(14),
    r"\sin(2)7": 7 * math.sin(2),
    r"\sin2\cos3": math.sin(2) * math.cos(3),
    r"\sin2+1": math.sin(2) + 1,
    r"\arcsin\frac{4}{5}": math.asin(0.8),
    r"2^\pi": 2**math.pi,
    r"\pi e^2": math.pi * math.e**2,
    r"\sqrt[3]{8}": 2,
    r"\frac{3^{1008}-1}{3^{1009}}": 1 / 3,
    # Nothing.
    **dict.fromkeys([r"\frac12", r"\frac{3}2", r"\sqrt3", "2^-1", "2^(3)", r"\cfrac{1}{2}", "12cm", "8?", "8 square"]),
    **dict.fromkeys(["½", "2²", "√5", "π", "3pi", "72°", r"72^\circ", "3\u00d74", "50%", "2**3", "e", "1e5", "12,5"]),
    **dict.fromkeys(["{}3", "8-", "(3", r"\frac{1}{0}", r"\ln2", "|8|", r"8 \%", r"8\%\%", r"12\mathrm{~m}"]),
}


@pytest.mark.parametrize(("text", "value"), LATEX2SYMPY.items())
def test_latex2sympys_reading_is_kept_with_its_errors(text: str, value: float | None) -> None:
    found = evaluate(text, latex2sympy=True)
    assert found == (None if value is None else pytest.approx(value, rel=1e-12))


def test_latex2sympys_reading_ignores_what_stands_behind_a_long_text() -> None:
    assert evaluate("7. " + "so it goes " * 100, latex2sympy=True) == 7


def test_latex2sympys_reading_does_not_take_a_cut_number_for_a_whole_one() -> None:
    assert evaluate("1" * 501, latex2sympy=True) is None


def test_integers_stay_exact_beyond_doubles() -> None:
    assert exact("99999999999999999999") == 99999999999999999999
    assert exact("2^{200}+1") == 2**200 + 1


def test_an_integer_beyond_a_doubles_range_has_no_value_as_a_double() -> None:
    assert exact("10^{400}") == 10**400
    assert evaluate("10^{400}") is None


def test_an_integer_larger_than_the_bound_is_not_computed() -> None:
    assert exact(f"2^{{{MAX_BITS // 2 - 1}}}") == 2 ** (MAX_BITS // 2 - 1)
    assert exact(f"2^{{{MAX_BITS}}}") is None
    assert exact("(2^{8000})(2^{8000})(2^{8000})") is None


Rendered = tuple[str, Fraction]


@st.composite
def _combined(draw: st.DrawFn, children: st.SearchStrategy[Rendered]) -> Rendered:
    """A bracketed combination, so that no rule of precedence is needed to know the value.

    Without differences, in which doubles lose digits; those are for the next test.
    """
    (left, a), (right, b) = draw(children), draw(children)
    n = draw(st.integers(0, 3)) if a < 10**12 else 1
    shapes = {
        f"({left} + {right})": a + b,
        rf"{{{left} \times {{{right}}}}}": a * b,
        rf"\left(({left})({right})\right)": a * b,
        f"(({left})^{{{n}}})": a**n,
    }
    if b:
        shapes |= {f"({left}/{{{right}}})": a / b, rf"\frac{{{left}}}{{{right}}}": a / b}
    return draw(st.sampled_from(list(shapes.items())))


_LEAVES = st.one_of(
    st.integers(0, 99).map(lambda n: (str(n), Fraction(n))),
    st.integers(1, 9999).map(lambda n: (f"{n / 100:.2f}", Fraction(n, 100))),
    st.integers(1000, 999_999).map(lambda n: (f"{n:,}", Fraction(n))),
)


@given(st.recursive(_LEAVES, _combined, max_leaves=6).filter(lambda rendered: len(rendered[0]) <= 500))
def test_bracketed_expressions_have_the_value_of_exact_arithmetic(rendered: Rendered) -> None:
    text, value = rendered
    assert evaluate(text) == pytest.approx(float(value), rel=1e-12)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.data())
def test_products_bind_before_sums_and_both_run_from_the_left(numbers: list[int], data: st.DataObject) -> None:
    signs = [data.draw(st.sampled_from("+-*/")) for _ in pairwise(numbers)]
    text = str(numbers[0]) + "".join(f" {sign} {number}" for sign, number in zip(signs, numbers[1:], strict=True))
    total, term = Fraction(0), Fraction(numbers[0])
    for sign, number in zip(signs, numbers[1:], strict=True):
        if sign in "+-":
            total, term = total + term, Fraction(number if sign == "+" else -number)
        else:
            term = term * number if sign == "*" else term / number
    assert evaluate(text) == pytest.approx(float(total + term), rel=1e-9, abs=1e-9)


_COMMANDS = (r"\frac", r"\sqrt", r"\pi", r"\times", r"\{", r"\left", r"\sin", "tr", "\\")
_WORDS = st.sampled_from([*"0123456789.,+-*/^!()[]{}xe=%&_ π√½²⁻:", *_COMMANDS])


@given(st.one_of(st.lists(_WORDS, max_size=30).map("".join), st.text(max_size=60)), st.booleans())
def test_any_text_gives_a_finite_number_or_nothing(text: str, latex2sympy: bool) -> None:
    value = evaluate(text, latex2sympy=latex2sympy)
    assert value is None or math.isfinite(value)


HOSTILE = {
    "brackets": "(" * 500,
    "braces": "{" * 500,
    "signs": "-" * 499 + "1",
    "fractions": r"\frac" * 100,
    "roots": "√" * 499 + "2",
    "tower": "9" + "^9" * 249,
    "factorials": "9" + "!" * 499,
    "big products": "(9^9^3)" * 71,
    "big factorials": "170!" * 125,
    "thousands": "1,234" * 100,
    "mixed": "1 1/" * 125,
    "blanks": "1" + " " * 498 + "1",
    "long number": "1" * 500,
    "long text": "a" * 10_000_000,
    "long digits": "1" * 10_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("latex2sympy", [False, True])
def test_hostile_texts_cost_little(name: str, latex2sympy: bool) -> None:
    start = time.process_time()
    evaluate(HOSTILE[name], latex2sympy=latex2sympy)
    # Milliseconds are needed; the bound leaves room for a busy machine and is far below exponential time.
    assert time.process_time() - start < 0.5


def test_nesting_is_bounded_but_generous() -> None:
    assert evaluate("(" * 30 + "1" + ")" * 30) == 1
    assert evaluate("(" * 100 + "1" + ")" * 100) is None


def test_only_short_texts_are_read() -> None:
    assert evaluate("1" + " " * 499) == 1
    assert evaluate("1" + " " * 500) is None
