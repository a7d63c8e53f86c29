"""Rows of other tools' logs to items."""

import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness import registry
from ahabench.harness.dataset import Dataset, load
from ahabench.harness.errors import UsageError
from ahabench.harness.imports.logs import LogRow, Said
from ahabench.harness.imports.matching import item_ids
from ahabench.harness.types import AnswerType, Item


def item(name: str, question: str, gold: str | None, **more: Any) -> Item:
    return Item(id=name, question=question, gold=gold, answer_type=AnswerType.TEXT, **more)


def dataset(items: Sequence[Item], task: str = "mathvision") -> Dataset:
    found = registry.find_task(task)
    return Dataset(task=found, split="test", items=tuple(items), source="folder", revision=None, digest="")


def row(number: int | None = None, question: str | None = None, gold: str | None = None, **fields: str) -> LogRow:
    golds = (gold,) if gold is not None else ()
    place = f"log:{number}"
    return LogRow(place=place, number=number, fields=fields, question=question, golds=golds, said=(Said(text="x"),))


def same_questions(n: int) -> list[Item]:
    """Items that nothing but their order and their answers tell apart, and not all of them by these."""
    return [item(f"q{place}", "What is shown?", "AB"[place % 2]) for place in range(n)]


def test_a_row_that_names_its_item_is_believed() -> None:
    assert item_ids(dataset([item("7", "Why?", "A")]), [row(0, "Quite\n another: Why?", "A", id="7")]) == ["7"]


def test_a_name_with_another_question_and_another_answer_is_refused() -> None:
    with pytest.raises(UsageError, match=r"1 of 1 rows cannot be mapped .* log:0: item '7' has another question"):
        item_ids(dataset([item("7", "Why?", "A")]), [row(0, "How?", "B", id="7")])


def test_a_name_that_is_no_items_is_refused() -> None:
    with pytest.raises(UsageError, match=r"1 of 2 rows .* the first is log:1: it names none"):
        item_ids(dataset([item("7", "Why?", "A")]), [row(0, "Why?", "A", id="7"), row(1, "Why?", "A", id="8")])


@pytest.mark.parametrize(
    ("task", "fields", "name"),
    [
        ("dynamath", {"qid": "12", "varid": "3"}, "12_v3"),
        ("mathverse", {"problem_index": "12", "problem_version": "Vision Only"}, "12_Vision Only"),
        ("mathvista", {"pid": "12"}, "12"),
        ("wemath", {"question number": "12"}, "12"),
        ("wemath", {"ID": "2steps_1", "key": "2steps_multi"}, "12"),
        ("logicvista", {"item_id": "12"}, "12"),
    ],
)
def test_each_benchmarks_own_names_are_known(task: str, fields: dict[str, str], name: str) -> None:
    found = item(name, "Why?", "A", group="2steps_1", tags={"key": ("2steps_multi",)})
    other = item("other", "Why?", "A", group="2steps_1", tags={"key": ("2steps_1",)})
    assert item_ids(dataset([other, found], task), [row(0, "Why?", "A", **fields)]) == [name]


def test_a_row_is_found_by_a_question_that_only_one_item_has() -> None:
    items = [item("a", "Why?", "A"), item("b", "How?", "A")]
    assert item_ids(dataset(items), [row(None, "Hint: think.\nQuestion:  How?", "A")]) == ["b"]


def test_the_answer_tells_items_with_one_question_apart() -> None:
    items = [item("a", "How many?", "3"), item("b", "How many?", "4")]
    # A table may hold a number where the answer was text.
    assert item_ids(dataset(items), [row(None, "How many?", "4.0")]) == ["b"]


def test_an_option_may_be_given_by_its_text_or_its_letter() -> None:
    found = item("a", "Which?", "B", labels=("A", "B"), choices=("one km", "two km"))
    assert item_ids(dataset([found]), [row(None, "Which?", "two km")]) == ["a"]
    assert item_ids(dataset([found]), [row(None, "Which?", "b")]) == ["a"]


def test_marks_for_images_and_white_space_do_not_count() -> None:
    found = item("a", "See <image1> and\n say why", "1")
    assert item_ids(dataset([found]), [row(None, "See and say  why", "1")]) == ["a"]


def test_rows_that_two_items_fit_are_refused_with_their_number_and_the_first() -> None:
    with pytest.raises(UsageError) as raised:
        item_ids(dataset(same_questions(5)), [row(None, "What is shown?", "A"), row(None, "What is shown?", "B")])
    assert "2 of 2 rows cannot be mapped to items of mathvision test with certainty" in str(raised.value)
    assert "the first is log:None: 3 items have its question and answer (q0, q2, q4)" in str(raised.value)


def test_a_whole_log_in_our_order_needs_no_unique_question() -> None:
    items = same_questions(6)
    rows = [row(place, "What is shown?", "AB"[place % 2]) for place in range(6)]
    assert item_ids(dataset(items), rows[::-1]) == [f"q{place}" for place in reversed(range(6))]


def test_numbers_may_begin_with_one() -> None:
    rows = [row(place + 1, "What is shown?", "AB"[place % 2]) for place in range(6)]
    assert item_ids(dataset(same_questions(6)), rows) == [f"q{place}" for place in range(6)]


def test_items_without_an_answer_may_be_left_out_of_the_numbers() -> None:
    items = same_questions(6)
    items.insert(2, item("void", "", ""))
    rows = [row(place, "What is shown?", "AB"[place % 2]) for place in range(6)]
    assert item_ids(dataset(items), rows) == [f"q{place}" for place in range(6)]


def test_one_row_that_disagrees_disproves_an_order() -> None:
    rows = [row(place, "What is shown?", "AB"[place % 2]) for place in range(6)]
    rows[3] = row(3, "What is shown?", "A")
    with pytest.raises(UsageError, match="6 of 6 rows cannot be mapped"):
        item_ids(dataset(same_questions(6)), rows)


def test_a_part_of_a_log_proves_its_order_by_rows_that_fit_nothing_else() -> None:
    items = [*(item(f"u{n}", f"unique {n}?", "A") for n in range(10)), *same_questions(6)]
    rows = [row(n, f"unique {n}?", "A") for n in range(10)] + [row(12, "What is shown?", "A")]
    assert item_ids(dataset(items), rows)[-1] == "q2"
    with pytest.raises(UsageError, match="1 of 10 rows"):
        item_ids(dataset(items), rows[1:])


def test_an_order_without_anything_to_compare_is_not_proven() -> None:
    with pytest.raises(UsageError, match="3 of 3 rows"):
        item_ids(dataset(same_questions(3)), [row(place) for place in range(3)])


def test_answers_alone_prove_the_order_of_a_whole_log() -> None:
    # MathVerse, Vision Only: the question stands in the picture.
    items = [item(f"{n}_Vision Only", "", gold) for n, gold in enumerate("ABDC")]
    rows = [row(n, "According to the question shown in the image, ...", gold) for n, gold in enumerate("ABDC")]
    assert item_ids(dataset(items, "mathverse"), rows) == [found.id for found in items]
    with pytest.raises(UsageError, match="3 of 3 rows"):
        item_ids(dataset(items, "mathverse"), rows[:3])


def test_two_rows_of_one_item_are_refused() -> None:
    with pytest.raises(UsageError, match="log:1 answers item '7', as log:0 does"):
        item_ids(dataset([item("7", "Why?", "A")]), [row(0, "Why?", "A", id="7"), row(1, "Why?", "A", id="7")])


@pytest.mark.parametrize("name", ["mathvision:test", "mathvista:testmini"])
def test_a_shuffled_log_of_real_questions_is_mapped_rightly_or_refused(data: Path, name: str) -> None:
    found, split = registry.parse_tasks(name)[0]
    loaded = load(found, split, data=data)
    shuffled = random.Random(0).sample(loaded.items, len(loaded.items))
    rows = [row(n, f"Hint: answer.\n{one.question}", one.gold) for n, one in enumerate(shuffled)]
    alone = [(one, asked) for one, asked in zip(shuffled, rows, strict=True) if stands_alone(loaded, asked)]
    # Most questions, with their answers, are one item's; the rest must not be guessed.
    assert 0.5 * len(rows) < len(alone) < len(rows)
    with pytest.raises(UsageError, match=f"^{len(rows) - len(alone):,} of {len(rows):,} rows cannot be mapped"):
        item_ids(loaded, rows)
    assert item_ids(loaded, [asked for _, asked in alone]) == [one.id for one, _ in alone]


def stands_alone(loaded: Dataset, asked: LogRow) -> bool:
    """Whether only one item's question stands in a row's text with its answer, found the slow way."""
    text = words(asked.question or "")
    fitting = [one for one in loaded.items if one.gold == asked.golds[0] and words(one.question)]
    return sum(words(one.question) in text for one in fitting) == 1


def words(text: str) -> str:
    # MathVision 528 asks nothing but "<image1>".
    return " ".join(re.sub("<image[0-9]*>", " ", text).split())
