import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahabench.harness.answers import options
from ahabench.harness.types import AnswerType, Item

PETS = Item(
    id="pets",
    question="Which animal is it?",
    gold="B",
    answer_type=AnswerType.CHOICE,
    choices=("cat", "dog", "emu", "fox"),
    labels=tuple("ABCD"),
)
NUMBERS = Item(
    id="numbers",
    question="How large is the angle?",
    gold="C",
    answer_type=AnswerType.CHOICE,
    choices=("30°", "45°", "60°", "none of the above"),
    labels=tuple("ABCD"),
)
PICTURE = Item(
    id="picture", question="Which figure?", gold="B, D", answer_type=AnswerType.CHOICES, labels=tuple("ABCDEFGHI")
)
ONE = Item(id="one", question="Which figure?", gold="E", answer_type=AnswerType.CHOICE, labels=tuple("ABCDE"))


@pytest.mark.parametrize(
    ("span", "labels"),
    [
        ("B", ("B",)),
        ("(b)", ("B",)),
        ("B.", ("B",)),
        ("option B", ("B",)),
        ("B. dog", ("B",)),
        ("B) dog", ("B",)),
        ("[B]", ("B",)),
        (r"\text{(B)}", ("B",)),
        ("dog", ("B",)),
        ("a dog", ("B",)),
        ("The dog", ("B",)),
        ("A dog", ("B",)),
        ("B. cat", ("B",)),
        ("B... no, C", ("C",)),
        ("E", None),
        ("horse", None),
        ("", None),
        ("*", None),
        ("Bob", None),
    ],
)
def test_a_span_claims_an_option(span: str, labels: tuple[str, ...] | None):
    assert options.in_span(span, PETS) == labels


@pytest.mark.parametrize(
    ("span", "labels"),
    [
        ("60", ("C",)),
        (r"60^\circ", ("C",)),
        ("60 degrees", ("C",)),
        ("60.0", ("C",)),
        ("None of these", ("D",)),
        ("none of the above", ("D",)),
        ("61", None),
        ("6", None),
    ],
)
def test_a_span_claims_an_option_by_its_value(span: str, labels: tuple[str, ...] | None):
    assert options.in_span(span, NUMBERS) == labels


@pytest.mark.parametrize(
    ("span", "labels"),
    [
        ("B, D", ("B", "D")),
        ("D and B", ("B", "D")),
        ("BD", ("B", "D")),
        ("(B), (D)", ("B", "D")),
        ("B & D", ("B", "D")),
        ("B/D", ("B", "D")),
        ("B; D", ("B", "D")),
        ("A, B, and I", ("A", "B", "I")),
        ("B", ("B",)),
    ],
)
def test_a_span_claims_a_set(span: str, labels: tuple[str, ...]):
    assert options.in_span(span, PICTURE) == labels


def test_joined_letters_are_no_answer_where_one_is_wanted():
    assert options.in_span("BD", ONE) is None


def test_a_listing_of_all_options_is_taken_out():
    assert "dog" not in options.without_listing("(A) cat (B) dog (C) emu (D) fox", PETS)
    assert options.without_listing("(A) cat (B) dog", PETS) == "(A) cat (B) dog"


def test_a_listing_leaves_what_stands_behind_it():
    left = options.without_listing("(A) cat (B) dog (C) emu (D) fox\nI take B.", PETS)
    assert "I take B." in left
    assert "emu" not in left


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("B\nIt has a tail.", ("B",)),
        ("(B) It has a tail.", ("B",)),
        ("A. no\nB. no\nC. yes", None),
        ("It has a tail.", None),
        ("", None),
    ],
)
def test_a_response_may_open_with_its_label(text: str, labels: tuple[str, ...] | None):
    assert options.leading(text, PETS) == labels


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("It barks. Therefore, I choose option B.", ("B",)),
        ("A is wrong. Hence it is (B).", ("B",)),
        ("It has feathers, so it must be the emu.", ("C",)),
        ("Nothing can be seen.", None),
        ("Between B and D, B is better.", ("B",)),
        ("The answer is not B.", None),
    ],
)
def test_prose_arrives_at_an_option(text: str, labels: tuple[str, ...] | None):
    assert options.in_prose(text, PETS) == labels


@given(count=st.integers(2, 9), data=st.data())
def test_every_label_of_the_items_alphabet_is_read_in_every_dress(count: int, data: st.DataObject):
    labels = tuple("ABCDEFGHI"[:count])
    item = Item(id="1", question="Which?", gold="A", answer_type=AnswerType.CHOICE, labels=labels)
    label = data.draw(st.sampled_from(labels))
    for dress in (
        "{}",
        "({})",
        "[{}]",
        "{}.",
        "{}:",
        "option {}",
        "Option ({})",
        r"\text{{{}}}",
        "**{}**",
        '"{}"',
        "${}$",
    ):
        assert options.in_span(dress.format(label), item) == (label,), dress


@given(count=st.integers(2, 8))
def test_a_letter_beyond_the_items_alphabet_is_not_read(count: int):
    alphabet = "ABCDEFGHI"
    item = Item(id="1", question="Which?", gold="A", answer_type=AnswerType.CHOICE, labels=tuple(alphabet[:count]))
    for dress in ("{}", "({})", "{}.", "option {}"):
        assert options.in_span(dress.format(alphabet[count]), item) is None


@given(st.sampled_from([PETS, NUMBERS, PICTURE, ONE]), st.text(st.characters(codec=None, exclude_categories=())))
def test_what_is_read_are_labels_of_the_item_in_their_order(item: Item, text: str):
    for found in (
        options.in_span(text, item),
        options.leading(text, item),
        options.in_prose(text, item),
        options.stated(text, item),
    ):
        assert found is None or (found and list(found) == [label for label in item.labels if label in found])
