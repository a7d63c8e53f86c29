"""The reference model's tokenizer: known words whole, digits single, everything else in bytes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahabench.harness import registry
from ahabench.harness.dataset import load
from ahabench.harness.prompts import VLAA_SYSTEM_PROMPT
from ahabench.trainer.reference import new_tokenizer
from ahabench.trainer.tokenizer import END, IMAGE, SPECIAL, TAGS, make_tokenizer

TEXTS = ["How many squares are there?", "first 3 second 12 . (A) yes"]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer(TEXTS)


@given(text=st.text(max_size=80))
def test_any_text_survives_a_round_trip(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text).input_ids) == text


@pytest.mark.parametrize("text", ["<think> 3 </think><answer> (B) 12.5</answer>\n", "日本 Ünï\t\r\n", "x<|im_end|>y"])
def test_tags_other_scripts_and_special_tokens_survive_a_round_trip(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_known_words_are_one_token_each_with_the_space_before_them(tokenizer: Any) -> None:
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("How many squares (A)").input_ids)
    assert pieces == ["How", "Ġmany", "Ġsquares", "Ġ(A)"]


def test_digits_stand_alone(tokenizer: Any) -> None:
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("1234 567").input_ids)
    assert pieces == ["1", "2", "3", "4", "Ġ5", "6", "7"]


def test_an_unknown_word_is_spelled_in_bytes(tokenizer: Any) -> None:
    # A space, five ASCII letters, and two bytes for the last one.
    assert len(tokenizer(" zebraé").input_ids) == 8


def test_the_system_prompt_is_one_token(tokenizer: Any) -> None:
    assert len(tokenizer(VLAA_SYSTEM_PROMPT).input_ids) == 1


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_is_one_token_that_stays_in_a_response(tokenizer: Any, tag: str) -> None:
    ids = tokenizer(f"a{tag}b").input_ids
    assert len(ids) == 3
    assert tokenizer.decode(ids, skip_special_tokens=True) == f"a{tag}b"


@pytest.mark.parametrize("token", SPECIAL)
def test_a_special_token_does_not_stay_in_a_response(tokenizer: Any, token: str) -> None:
    ids = tokenizer(f"a{token}b").input_ids
    assert len(ids) == 3
    assert tokenizer.decode(ids, skip_special_tokens=True) == "ab"


def test_the_order_of_the_texts_changes_no_id() -> None:
    assert make_tokenizer(TEXTS).get_vocab() == make_tokenizer(TEXTS[::-1]).get_vocab()


def test_the_most_frequent_pieces_are_kept() -> None:
    tokenizer = make_tokenizer(["aa bb cc", "bb cc", " bb cc"], max_words=2)
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("aa bb cc").input_ids)
    # " cc" stands in three texts, " bb" in two (once it opens a text), "aa" and "bb" in one.
    assert pieces == ["a", "a", "Ġbb", "Ġcc"]


def test_an_answer_ends_with_the_end_of_the_message(tokenizer: Any) -> None:
    assert tokenizer.eos_token == END
    assert tokenizer.pad_token not in (END, IMAGE)


@pytest.fixture(scope="module")
def reference_tokenizer() -> Any:
    return new_tokenizer()


@pytest.mark.parametrize("name", ["mathvista", "mathvision", "mathverse", "dynamath", "wemath", "logicvista"])
def test_no_question_of_the_built_in_suite_has_an_unknown_word(name: str, reference_tokenizer: Any) -> None:
    tokenizer = reference_tokenizer
    task = registry.find_task(name)
    render = task.prompts["think"].render
    for item in load(task, "mini").items:
        pieces = tokenizer.convert_ids_to_tokens(tokenizer(render(item).text).input_ids)
        letters = [piece for piece in pieces if len(piece) == 1 and piece.isalpha() and piece not in "ĊĠ"]
        assert letters == [], item.question
