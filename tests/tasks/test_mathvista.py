import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ahabench.harness.dataset import digest, load
from ahabench.harness.errors import DatasetError
from ahabench.harness.images import ImageFile
from ahabench.harness.prompts import VLAA_SYSTEM_PROMPT
from ahabench.harness.types import AnswerType, Item
from ahabench.tasks.mathvista import TASK, to_item


def row(**changes: Any) -> dict[str, Any]:
    """A made-up record as the official files have them."""
    metadata = {
        "split": "testmini",
        "language": "english",
        "img_width": 10,
        "img_height": 10,
        "source": "Made up",
        "category": "general-vqa",
        "task": "figure question answering",
        "context": "bar chart",
        "grade": "college",
        "skills": ["arithmetic reasoning", "logical reasoning"],
    }
    base: dict[str, Any] = {
        "pid": "9001",
        "question": "How tall is it?",
        "image": "images/9001.jpg",
        "choices": None,
        "unit": None,
        "precision": None,
        "answer": "3",
        "question_type": "free_form",
        "answer_type": "integer",
        "metadata": metadata,
    }
    return base | changes


@pytest.fixture(scope="module")
def records(data: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((data / "mathvista" / "testmini.json").read_text(encoding="utf-8"))
    return content


# Items


def test_testmini_has_the_published_composition(items: dict[str, Item]) -> None:
    types = Counter((item.answer_type, item.precision, item.unit) for item in items.values())
    assert types == {
        (AnswerType.CHOICE, None, None): 540,
        (AnswerType.INTEGER, None, None): 368,
        (AnswerType.INTEGER, None, "years"): 49,
        (AnswerType.INTEGER, None, "g"): 1,
        (AnswerType.FLOAT, 1, None): 20,
        (AnswerType.FLOAT, 2, None): 20,
        (AnswerType.LIST, None, None): 2,
    }
    sizes = Counter(len(item.choices) for item in items.values() if item.answer_type is AnswerType.CHOICE)
    assert sizes == {2: 185, 3: 18, 4: 273, 5: 51, 6: 9, 7: 3, 8: 1}


def test_tags_carry_the_published_counts(items: dict[str, Item]) -> None:
    def counts(tag: str) -> Counter[str]:
        return Counter(value for item in items.values() for value in item.tags[tag])

    assert counts("task") == {
        "figure question answering": 269,
        "geometry problem solving": 208,
        "math word problem": 186,
        "textbook question answering": 158,
        "visual question answering": 179,
    }
    assert counts("skill")["arithmetic reasoning"] == 353
    assert counts("skill")["logical reasoning"] == 37
    assert len(counts("skill")) == 7
    assert len(counts("context")) == 16
    assert counts("grade")["not applicable"] == 381
    assert counts("language") == {"english": 936, "chinese": 62, "persian": 2}
    assert len(counts("source")) == 31
    assert counts("category") == {"math-targeted-vqa": 540, "general-vqa": 460}
    assert counts("question_type") == {"multi_choice": 540, "free_form": 460}
    assert counts("answer_type") == {"text": 540, "integer": 418, "float": 40, "list": 2}


def test_a_multiple_choice_gold_is_the_label_of_the_published_text(
    items: dict[str, Item], records: dict[str, Any]
) -> None:
    checked = 0
    for pid, record in records.items():
        if record["question_type"] == "multi_choice":
            index = ord(items[pid].gold or "?") - ord("A")
            assert record["choices"][index] == record["answer"]
            checked += 1
    assert checked == 540


def test_a_free_form_gold_is_published_as_it_stands(items: dict[str, Item], records: dict[str, Any]) -> None:
    free = [pid for pid, record in records.items() if record["question_type"] == "free_form"]
    assert len(free) == 460
    assert all(items[pid].gold == records[pid]["answer"] for pid in free)


def test_every_item_is_its_own_cluster_with_its_own_image(items: dict[str, Item]) -> None:
    assert len({item.cluster for item in items.values()}) == 1000
    (image,) = items["17"].images
    assert isinstance(image, ImageFile)
    assert image.path.parts[-2:] == ("images", "17.jpg")


def test_the_hubs_columns_give_the_same_items(
    data: Path, tmp_path: Path, items: dict[str, Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    records = json.loads((data / "mathvista" / "testmini.json").read_text(encoding="utf-8"))
    picture = datasets.Image().encode_example(np.zeros((1, 1, 3), dtype=np.uint8))
    # As the hub has them: the picture in a column of its own, and a column of numbers and nulls as floats.
    extra = {"decoded_image": picture, "query": ""}
    rows = [record | extra for record in records.values()]
    rows = [record | {"precision": record["precision"] and float(record["precision"])} for record in rows]
    table = datasets.Dataset.from_list(rows).cast_column("decoded_image", datasets.Image())
    assert table.features["precision"].dtype == "float64"
    (tmp_path / "hub" / "data").mkdir(parents=True)
    table.to_parquet(tmp_path / "hub" / "data" / "testmini-00000-of-00001.parquet")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    loaded = load(TASK, "testmini", data=tmp_path / "hub")
    assert loaded.digest == digest(items.values())
    assert loaded.items[0].images[0].read() == picture["bytes"]


def test_the_first_of_equal_options_is_the_gold() -> None:
    item = to_item(row(question_type="multi_choice", answer_type="text", choices=["5", "8", "8"], answer="8"))
    assert (item.labels, item.gold) == (("A", "B", "C"), "B")


def test_a_gold_that_is_no_option_is_an_error() -> None:
    with pytest.raises(DatasetError, match="none of the choices"):
        to_item(row(question_type="multi_choice", answer_type="text", choices=["5", "8"], answer="9"))


def test_the_hubs_float_precision_becomes_an_integer() -> None:
    item = to_item(row(answer_type="float", precision=2.0, answer="0.50"))
    assert item.precision == 2
    assert isinstance(item.precision, int)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer_type": "float", "precision": None}, "precision None"),
        ({"answer_type": "float", "precision": 1.5}, "precision"),
        ({"answer_type": "text"}, "'text' has no rule"),
        ({"question_type": "essay"}, "question_type"),
        ({"question_type": "multi_choice", "choices": None}, "0 choices"),
        ({"question_type": "multi_choice", "choices": ["only"], "answer": "only"}, "1 choices"),
        ({"question": None}, "question"),
        ({"metadata": None}, "metadata"),
        ({"answer": ""}, "testmini's answer is missing"),
    ],
)
def test_a_malformed_record_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        to_item(row(**changes))
    assert "9001" in str(caught.value)


def test_the_test_splits_answers_are_withheld(tmp_path: Path) -> None:
    hidden = row(answer="", metadata=row()["metadata"] | {"split": "test"})
    (tmp_path / "test.json").write_text(json.dumps({"9001": hidden}), encoding="utf-8")
    (item,) = map(to_item, TASK.read_folder(tmp_path, "test"))
    assert item.gold is None
    assert not TASK.splits["test"].answers_public
    assert TASK.splits["test"].n_items == 5141


@pytest.mark.parametrize("image", ["../../etc/passwd", "/etc/passwd", "images/../../x.jpg"])
def test_an_image_outside_the_folder_is_refused(tmp_path: Path, image: str) -> None:
    (tmp_path / "testmini.json").write_text(json.dumps({"9001": row(image=image)}), encoding="utf-8")
    with pytest.raises(DatasetError, match="inside the folder"):
        list(TASK.read_folder(tmp_path, "testmini"))


@pytest.mark.parametrize("content", ["[]", '{"1": 3}', '{"1": {"pid": "1"}}', "{"])
def test_a_file_of_another_layout_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "testmini.json").write_text(content, encoding="utf-8")
    with pytest.raises(DatasetError, match=r"testmini\.json"):
        list(TASK.read_folder(tmp_path, "testmini"))


def test_every_known_defect_names_an_item(items: dict[str, Item]) -> None:
    assert TASK.bad_items.keys() <= items.keys()
    doubled = {pid for pid, item in items.items() if len(set(item.choices)) < len(item.choices)}
    assert doubled == {"587", "740", "781"}
    assert doubled <= TASK.bad_items.keys()


# Prompts


@pytest.mark.parametrize("style", ["official", "vlmevalkit"])
def test_the_query_is_the_published_one_byte_for_byte(data: Path, items: dict[str, Item], style: str) -> None:
    published = json.loads((data / "mathvista" / "query.json").read_text(encoding="utf-8"))
    render = TASK.prompts[style].render
    wrong = [pid for pid, item in items.items() if render(item).text != published[pid]]
    assert wrong == []
    assert len(items) == 1000


def test_the_hints_of_the_whole_benchmark_are_the_five_that_we_write(data: Path) -> None:
    published = json.loads((data / "mathvista" / "query.json").read_text(encoding="utf-8"))
    samples = [
        row(question_type="multi_choice", answer_type="text", choices=["a", "b"], answer="a"),
        row(),
        row(answer_type="float", precision=1),
        row(answer_type="float", precision=2),
        row(answer_type="list", answer="[1]"),
    ]
    ours = {TASK.prompts["official"].render(to_item(sample)).text.split("\n")[0] for sample in samples}
    assert {query.split("\n")[0] for query in published.values()} == ours
    assert len(published) == 6141


def test_thinking_has_unit_and_options_but_no_hint() -> None:
    record = row(question_type="multi_choice", answer_type="text", choices=["yes", "no"], answer="no")
    item = to_item(record | {"question": "Is it tall?", "unit": "cm"})
    prompt = TASK.prompts["think"].render(item)
    assert prompt.text == "Is it tall? (Unit: cm)\nChoices:\n(A) yes\n(B) no"
    assert prompt.system == VLAA_SYSTEM_PROMPT


def test_images_stand_before_the_text_and_only_thinking_has_a_system_prompt(items: dict[str, Item]) -> None:
    prompts = {name: style.render(items["1"]) for name, style in TASK.prompts.items()}
    assert not any(prompt.image_last for prompt in prompts.values())
    assert {name for name, prompt in prompts.items() if prompt.system} == {"think"}
