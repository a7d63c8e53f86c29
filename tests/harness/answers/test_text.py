import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahabench.harness.answers.text import (
    WINDOW,
    answer_part,
    clean,
    own_words,
    sentences,
    unmarked,
    unwrapped,
    window,
    without_echo,
)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("\uff22：\uff11\uff12\uff05\uff08\uff58\uff09", "B:12%(x)"),
        ("“B”", '"B"'),
        ("−3", "-3"),
        ("1\u20092", "1 2"),
        ("B\x00\u200b\ufeff", "B"),
        ("<|im_start|>B<|im_end|></s>", "B"),
        ("a < b", "a < b"),
    ],
)
def test_characters_are_cleaned(text: str, plain: str):
    # A full-width colon becomes one with a blank behind it or none; both read alike.
    assert clean(text).replace(": ", ":") == plain


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_no_nul_and_no_chinese_full_stop_is_left(text: str):
    assert "\x00" not in clean(text)
    assert "。" not in clean(text)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("<think>why</think> B", (" B", True)),
        ("<think>a</think> B </think> C", (" C", True)),
        ("<think>the answer is B</think>\n", ("<think>the answer is B</think>\n", True)),
        ("<think>the answer is B", ("<think>the answer is B", False)),
        ("no tags", ("no tags", True)),
        ("why</think>B", ("B", True)),
    ],
)
def test_the_part_behind_the_reasoning_answers(text: str, part: tuple[str, bool]):
    assert answer_part(text) == part


def test_a_text_of_two_windows_is_kept_and_a_longer_one_keeps_its_ends():
    whole = "a" * WINDOW + "b" * WINDOW
    assert window(whole) == whole
    cut = window("a" * WINDOW + "x" + "b" * WINDOW)
    assert (cut[:WINDOW], cut[-WINDOW:]) == ("a" * WINDOW, "b" * WINDOW)
    assert "x" not in cut


def test_markup_is_taken_off():
    assert unmarked("## Answer\n**B** and `x` __y__").split() == ["Answer", "B", "and", "x", "y"]


@pytest.mark.parametrize(
    ("latex", "plain"),
    [
        (r"\text{(B)}\ $5$", "(B) 5"),
        (r"\textbf{\text{B}}", "B"),
        (r"\left( 1,\, 2 \right)", "( 1, 2 )"),
        (r"\(x\)", "x"),
        (r"\mathrm{cm}", "cm"),
        (r"\frac{1}{2}", r"\frac{1}{2}"),
        (r"\textcolor", r"\textcolor"),
    ],
)
def test_latex_loses_its_dress(latex: str, plain: str):
    assert unwrapped(latex).split() == plain.split()


@pytest.mark.parametrize(
    "heading", ["Question: x", "**Question:** x", "### Question 2: x", "Q: x", "Human: x", "问题: x"]
)
def test_what_stands_behind_an_invented_question_is_cut(heading: str):
    assert own_words(f"The answer is B.\n\n{heading}\nThe answer is D.").strip() == "The answer is B."


@pytest.mark.parametrize("text", ["Question: what?\nB", "no heading", "A Question: mark", "Questionable: yes"])
def test_words_of_its_own_are_kept(text: str):
    assert own_words(text) == text


@pytest.mark.parametrize(
    "function", [own_words, unmarked, clean, unwrapped, sentences], ids=lambda function: function.__name__
)
@pytest.mark.parametrize("piece", ["\n", " \n", "\n#", "#", "*", " ", "\\text{", "~", "Q", ". "])
def test_ten_times_the_text_does_not_take_a_hundred_times_as_long(function, piece: str):
    def seconds(size: int) -> float:
        text = "x" + piece * (size // len(piece)) + "x"
        started = time.process_time()
        function(text)
        return time.process_time() - started

    small = min(seconds(2_000) for _ in range(3))
    # Ten times is 10 if linear and 100 if quadratic; times below 20 ms say nothing about either.
    assert seconds(20_000) < max(0.02, 40 * small)


def test_an_echo_of_the_question_is_taken_out():
    question = "Which animal is the smallest one?"
    rest = without_echo("which ANIMAL is the smallest one? The dog.", question)
    assert "smallest" not in rest
    assert "The dog" in rest


@pytest.mark.parametrize(
    ("text", "question"), [("How many? 5", "How many?"), ("Of course it is B.", "Which one is the best of all?")]
)
def test_what_is_no_echo_is_kept(text: str, question: str):
    assert without_echo(text, question) == text


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("It is 5. So B.", ["It is 5.", "So B."]),
        ("It is 2.5 cm. Yes!", ["It is 2.5 cm.", "Yes!"]),
        ("one\n\ntwo", ["one", "two"]),
        ("", []),
        ("Dr. A. Smith", ["Dr.", "A. Smith"]),
    ],
)
def test_prose_is_cut_into_sentences(text: str, parts: list[str]):
    assert sentences(text) == parts


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_sentences_hold_all_that_is_not_blank(text: str):
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())
