import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahabench.harness.answers.words import is_statement, same_words


@pytest.mark.parametrize(
    ("said", "gold"),
    [
        ("March", "march"),
        ("Mar", "March"),
        ("March", "mar"),
        ("Sept", "September"),
        ("Tues", "Tuesday"),
        ("the red line", "red"),
        ("It is red.", "red"),
        ("**Red**", "red"),
        (r"\text{red}", "red"),
        ("an isosceles triangle", "Isosceles Triangle"),
        ("in March", "March"),
        ("[red, blue]", "[Red, Blue]"),
        ("odd function", "odd"),
    ],
)
def test_words_say_the_gold(said: str, gold: str):
    assert same_words(said, gold)


@pytest.mark.parametrize(
    ("said", "gold"),
    [
        ("May", "March"),
        ("not red", "red"),
        ("reddish", "red"),
        ("March or May", "March"),
        ("", "red"),
        ("red", ""),
        ("triangle", "isosceles triangle"),
        ("scalene triangle", "isosceles triangle"),
        ("blue " * 40 + "red", "red"),
        ("odd", "even"),
        ("7 cats", "8"),
        ("[red, blue]", "[blue, red]"),
        ("x^2+1", "x^2-1"),
        ("b-a", "a-b"),
        ("x>3", "x<3"),
        ("n+1", "n"),
        (r"\frac{b}{a}", r"\frac{a}{b}"),
        ("e^{-2x}", "e^{2x}"),
        ("2x-3", "2x+3"),
        ("x", "-x"),
    ],
)
def test_words_do_not_say_the_gold(said: str, gold: str):
    assert not same_words(said, gold)


@given(st.from_regex(r"[a-z]{3,9}( [a-z]{3,9}){0,2}", fullmatch=True))
def test_words_say_themselves_in_any_case(text: str):
    assert same_words(text.upper(), text)
    assert same_words(f" {text}. ", text)


@pytest.mark.parametrize("text", ["March", "isosceles triangle", "It's red, or so."])
def test_words_are_a_statement(text: str):
    assert is_statement(text)


@pytest.mark.parametrize("text", ["x+1", "5 cm", r"\frac{1}{2}", "", "2x"])
def test_a_formula_is_no_statement(text: str):
    assert not is_statement(text)


@given(
    st.text(st.characters(codec=None, exclude_categories=())), st.text(st.characters(codec=None, exclude_categories=()))
)
def test_comparing_words_never_raises(said: str, gold: str):
    assert same_words(said, gold) in {True, False}
    assert is_statement(said) in {True, False}
