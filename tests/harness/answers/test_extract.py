import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahabench.harness.answers.extract import MAX_BOXES, MAX_CUES, Span, boxes, claimed_spans, marked_spans


def spans(text: str) -> list[Span]:
    return [*marked_spans(text), *claimed_spans(text)]


def found(text: str, extractor: str) -> list[str]:
    return [span.text for span in spans(text) if span.extractor == extractor]


@pytest.mark.parametrize(
    ("text", "contents"),
    [
        (r"\boxed{5}", ["5"]),
        (r"\boxed{\frac{1}{2}}", [r"\frac{1}{2}"]),
        (r"\boxed{A} then \boxed{B}", ["B", "A"]),
        (r"\boxed{}", []),
        (r"\boxed{ }", []),
        (r"\boxed {5}", ["5"]),
        (r"\fbox{5}", ["5"]),
        (r"\boxed 5", ["5"]),
        (r"\boxed{5", ["5"]),
        (r"\boxed{B} and \boxed{C", ["C", "B"]),
        ("no box", []),
    ],
)
def test_boxes_are_read_from_the_last(text: str, contents: list[str]):
    assert list(boxes(text)) == contents


def test_a_box_in_a_box_comes_before_the_one_around_it():
    assert list(boxes(r"\boxed{\boxed{27}}")) == ["27", r"\boxed{27}"]


def test_only_the_last_few_boxes_are_read():
    assert list(boxes("".join(rf"\boxed{{{n}}}" for n in range(50)))) == [str(49 - n) for n in range(MAX_BOXES)]


@pytest.mark.parametrize(
    ("text", "contents"),
    [
        ("<answer>B</answer>", ["B"]),
        ("<answer> B\n</answer>", ["B"]),
        ("<answer>A</answer><answer>B</answer>", ["B", "A"]),
        ("<answer>B", ["B"]),
        ("<ANSWER>B</ANSWER>", ["B"]),
        ("<answer></answer>", []),
        ("</answer>B<answer>", []),
    ],
)
def test_tags_are_read_from_the_last(text: str, contents: list[str]):
    assert found(text, "tag") == contents


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"short answer": "B"}', "B"),
        ('{"solution": "x", "short_answer": "5"}', "5"),
        ('{"answer": 5}', "5"),
        ('{"answer": [1, 2]}', "[1, 2]"),
        (r'{"short answer": "\frac{1}{2}"}', r"\frac{1}{2}"),
        (r'{"short answer": "\\frac{1}{2}"}', r"\frac{1}{2}"),
        ('{"short answer": "say \\"B\\""}', 'say "B"'),
        ('{"short answer": "B", }', "B"),
        ('{"short answer": "B"', "B"),
        ('{"Short Answer" : "B"}', "B"),
    ],
)
def test_the_short_answer_of_json_is_read(text: str, value: str):
    assert found(text, "json")[0] == value


@pytest.mark.parametrize("text", ['{"answer": null}', '{"answer": ""}', '{"answer": "B', "{}", '"answer"', "answer: B"])
def test_json_without_an_answer_says_nothing(text: str):
    assert found(text, "json") == []


def test_the_last_answer_of_json_comes_first():
    assert found('{"answer": "A"} {"answer": "B"}', "json") == ["B", "A"]


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("I looked. The answer is 7. Thank you.", "7"),
        ("I looked. The answer is B. dog\nThank you.", "B. dog"),
        ("The correct option is (C) because it is red.\nDone.", "(C) because it is red"),
        ("The answer to the question is 12 cm.\nDone.", "12 cm"),
        ("答案是 B\n完", "B"),
        ("The result follows. The final result is 2.5 m.\nDone.", "2.5 m"),
        ("The answer is\n\nB\n\nbecause", "B"),
    ],
)
def test_what_follows_a_cue_is_a_span_to_the_end_of_its_sentence(text: str, span: str):
    assert (found(text, "cue") + found(text, "final"))[0] == span


def test_the_last_cue_comes_first():
    assert found("The answer is 1.\nNo: the answer is 2.\nSo it is.", "cue") == ["2", "1"]


def test_a_condition_is_no_cue():
    assert found("If that were so, the answer is A.\nIt is not.", "cue") == []


def test_an_answer_on_the_last_line_is_final():
    assert found("It rises.\nAnswer: B", "final") == ["B"]
    assert found("It rises.\n**Answer:** B", "final") == ["B"]
    assert found("Answer: B\nIt rises.", "final") == []


def test_no_more_cues_are_tried_than_the_last_dozen():
    text = "".join(f"The answer is {n}.\n" for n in range(100)) + "End of it."
    assert found(text, "cue") == [str(99 - n) for n in range(MAX_CUES)]


@pytest.mark.parametrize("text", ["Option B is correct.", "B is the right answer.", "I see that (B) is true."])
def test_what_stands_before_a_verdict_is_a_span(text: str):
    assert any("B" in span for span in found(text, "verdict"))


@pytest.mark.parametrize("text", ["Neither B is correct.", "It is not B is correct.", "Ask if B is correct."])
def test_a_verdict_that_is_denied_is_none(text: str):
    assert found(text, "verdict") == []


def test_a_short_line_is_a_span_as_a_whole():
    assert found("  B  ", "whole") == ["B"]
    assert found("one\ntwo", "whole") == []


def test_reasoning_that_never_ended_has_only_marked_spans():
    text = "The answer is A. \\boxed{B} **C** <answer>D</answer>"
    assert [(span.extractor, span.text) for span in marked_spans(text)] == [("tag", "D"), ("boxed", "B")]


def test_a_tag_comes_before_a_box_before_json_before_a_cue():
    text = 'The answer is D.\n{"answer": "C"}\n\\boxed{B}\n<answer>A</answer>'
    order = [span.extractor for span in spans(text)]
    assert list(dict.fromkeys(order))[:4] == ["tag", "boxed", "json", "cue"]


# Each piece opens something that another piece may close, or not.
PIECES = st.sampled_from(
    [
        r"\boxed{",
        "}",
        "{",
        "<answer>",
        "</answer>",
        '"answer": ',
        '"',
        "\\",
        "[",
        "]",
        "**",
        "Answer:",
        "is",
        "\n",
        "B",
        " ",
    ]
)


@given(st.one_of(st.text(st.characters(codec=None, exclude_categories=())), st.lists(PIECES, max_size=30).map("".join)))
def test_spans_are_pieces_of_bounded_number(text: str):
    all_spans = spans(text)
    assert len(all_spans) <= 60
    assert all(span.text.strip() or span.extractor == "whole" for span in all_spans)
    assert set(marked_spans(text)) <= set(all_spans)
