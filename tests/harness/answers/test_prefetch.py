import json
import time
from pathlib import Path

import pytest

from ahabench.harness.answers.prefetch import can_infer

CHOICES = {"A": "12 cm", "B": "a square", "C": "7", "D": "none of these"}


@pytest.mark.parametrize(("release", "column"), [("2026-08", "head"), ("2025-04", "apr2025")])
def test_every_published_case_comes_out_as_in_vlmevalkit(metric_examples: Path, release: str, column: str):
    file = json.loads((metric_examples / "vlmevalkit_can_infer.json").read_text(encoding="utf-8"))
    assert len(file["cases"]) == 19
    for case in file["cases"]:
        found = can_infer(case["input"]["response"], file["choices"], release=release)
        assert found == case["expected"][column], case


@pytest.mark.parametrize("release", ["2026-08", "2025-04"])
@pytest.mark.parametrize("response", ["B", "(B)", "B.", "the option [B]!", "#B#", "{B}", "*B*: B"])
def test_one_label_alone_is_read_through_punctuation(response: str, release: str):
    assert can_infer(response, CHOICES, release=release) == "B"


@pytest.mark.parametrize("response", ["", "b", "<B>", "B-", "'B'", "AB", "A or B"])
def test_what_is_no_label_alone_is_not_read(response: str):
    assert can_infer(response, CHOICES) is None


def test_a_label_before_the_last_four_words_is_read_by_the_earlier_release_only():
    near, far = "B is my final choice", "B is what I would finally choose"
    # "B" is word 0; of five words 0 > 5 - 5 fails, so five words are already too many.
    assert can_infer("B is my choice", CHOICES) == "B"
    assert can_infer(near, CHOICES) is None
    assert can_infer(far, CHOICES, release="2025-04") == "B"


def test_the_first_place_of_a_label_counts_not_the_last():
    assert can_infer("B or so I think it is B", CHOICES) is None


def test_answer_is_settles_two_labels_in_the_later_release_only():
    response = "A is too small, hence the Answer is **B**"
    assert can_infer(response, CHOICES) == "B"
    assert can_infer(response, CHOICES, release="2025-04") is None


def test_answer_is_reads_nothing_beyond_d():
    choices = {**CHOICES, "E": "a cone"}
    assert can_infer("Not A, since the answer is E as drawn in the figure here", choices) is None


def test_answer_is_reads_no_letter_that_is_no_option():
    assert can_infer("the answer is D", {"A": "x1", "B": "x2"}) is None


@pytest.mark.parametrize("release", ["2026-08", "2025-04"])
def test_a_known_refusal_is_z_although_it_names_a_label(release: str):
    assert can_infer("Cannot determine the answer, maybe B", CHOICES, release=release) == "Z"


def test_z_alone_is_a_refusal_unless_a_label_is_there():
    assert can_infer("Z", CHOICES) == "Z"
    assert can_infer("Z B", CHOICES) == "B"


def test_a_failed_call_is_no_letter():
    assert can_infer("Failed to obtain answer via API. B", CHOICES) is None


def test_the_only_option_whose_text_is_repeated_is_read_without_case():
    assert can_infer("NONE OF THESE", CHOICES) == "D"
    assert can_infer("7 or a square", CHOICES) is None


def test_the_article_a_in_capitals_is_taken_for_the_label_as_there():
    assert can_infer("It must be A SQUARE", CHOICES) == "A"


def test_a_long_response_is_searched_for_texts_by_the_earlier_release_only():
    # The four texts have 5 + 8 + 1 + 13 = 27 characters; 54 are still short, 55 are long.
    short, long = "a square".ljust(54, "."), "a square".ljust(55, ".")
    assert can_infer(short, CHOICES) == "B"
    assert can_infer(long, CHOICES) is None
    assert can_infer(long, CHOICES, release="2025-04") == "B"


@pytest.mark.parametrize("piece", ["answer is ", "answer" + " " * 1000, "answer is " + "*" * 1000, "A B ", "correct "])
def test_a_hostile_megabyte_takes_linear_time(piece: str):
    text = piece * (1_000_000 // len(piece))
    started = time.process_time()
    can_infer(text, CHOICES)
    can_infer(text, CHOICES, release="2025-04")
    assert time.process_time() - started < 5
