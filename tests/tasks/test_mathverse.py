import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mathverse_records import row

from ahabench.harness.dataset import digest, load
from ahabench.harness.errors import DatasetError
from ahabench.harness.images import ImageFile
from ahabench.harness.types import AnswerType, Item
from ahabench.tasks.mathverse import TASK, UNSEEN_LABELS, VERSIONS, Options, parse_options, read_gold, to_item


def five_versions() -> list[dict[str, Any]]:
    """One made-up problem as testmini.json has it; only the first four versions show the question."""
    question = "Find x.\nChoices:\nA:4°\nB:6°"
    versions = ("Text Dominant", "Text Lite", "Vision Intensive", "Vision Dominant", "Vision Only")
    return [row(problem_version=name, question="" if name == "Vision Only" else question) for name in versions]


@pytest.fixture(scope="module")
def records(data: Path) -> dict[str, Any]:
    content = json.loads((data / "mathverse" / "testmini_text_only.json").read_text(encoding="utf-8"))
    return {record["problem_index"]: record for record in content}


# Items


def test_the_default_split_is_the_leaderboards_column() -> None:
    assert TASK.default_split == "vision_only"
    assert {name: split.n_items for name, split in TASK.splits.items()} == {
        "vision_only": 788,
        "text_dominant": 788,
        "text_lite": 788,
        "vision_intensive": 788,
        "vision_dominant": 788,
        "testmini": 3940,
        "text_only": 788,
        "mini": 120,
    }


def test_a_split_of_one_version_is_filtered_from_the_hubs_testmini() -> None:
    hub = TASK.splits["vision_dominant"].hub
    assert hub is not None
    assert (hub.repo, hub.config, hub.splits) == ("AI4Math/MathVerse", "testmini", ("testmini",))
    assert hub.where == {"problem_version": "Vision Dominant"}
    whole = TASK.splits["testmini"].hub
    assert whole is not None
    assert whole.where == {}


def test_the_title_is_not_bare() -> None:
    assert TASK.title != "MathVerse"


def test_the_text_only_split_has_the_published_composition(text_only: dict[str, Item]) -> None:
    assert Counter(item.tags["question_type"] for item in text_only.values()) == {
        ("multi-choice",): 436,
        ("free-form",): 352,
    }
    assert Counter(item.tags["subject"] for item in text_only.values()) == {
        ("Plane Geometry",): 510,
        ("Functions",): 159,
        ("Solid Geometry",): 119,
    }
    subfields = Counter((*item.tags["subject"], *item.tags["subfield"]) for item in text_only.values())
    assert subfields["Plane Geometry", "Angle"] == 193
    assert subfields["Functions", "Coordinate"] == 16
    assert len(subfields) == 12


def test_golds_have_the_counted_types(text_only: dict[str, Item]) -> None:
    # Of 436 multiple-choice items two want two letters. Of 352 others two are words: "even" and "Bugs Bunny".
    assert Counter(item.answer_type for item in text_only.values()) == {
        AnswerType.CHOICE: 434,
        AnswerType.CHOICES: 2,
        AnswerType.EXPRESSION: 350,
        AnswerType.TEXT: 2,
    }
    assert {problem for problem, item in text_only.items() if item.answer_type is AnswerType.TEXT} == {"504", "629"}


@pytest.mark.parametrize(
    ("problem", "gold", "published"),
    [
        ("339", "A", "090^\\circ T"),
        ("340", "A", "053 ^\\circ T"),
        ("429", "B", "False"),
        ("430", "A", "False"),
        ("440", "C, D", "C\nD"),
        ("517", "C", "(C)"),
        ("518", "C", "(C)"),
        ("521", "B", "(B)"),
        ("523", "B", "(B)"),
        ("555", "A, C", "A\nC"),
    ],
)
def test_a_gold_that_is_no_bare_letter_is_read_as_labels(
    text_only: dict[str, Item], vision_only: dict[str, Item], problem: str, gold: str, published: str
) -> None:
    for item in (text_only[problem], vision_only[problem]):
        assert item.gold == gold
        assert item.tags["published_gold"] == (published,)


def test_no_other_gold_differs_from_the_published_one(
    text_only: dict[str, Item], vision_only: dict[str, Item], records: dict[str, Any]
) -> None:
    for items in (text_only, vision_only):
        changed = {problem for problem, item in items.items() if item.gold != records[problem]["answer"]}
        assert changed == {"339", "340", "429", "430", "440", "517", "518", "521", "523", "555"}
        assert changed == {problem for problem, item in items.items() if "published_gold" in item.tags}


def test_every_multiple_choice_item_has_its_options(text_only: dict[str, Item]) -> None:
    sizes = Counter(len(item.choices) for item in text_only.values() if item.labels)
    # Counted as lines that begin with a letter and a colon or full stop below "Choices:" or "Choice:".
    assert sizes == {2: 21, 3: 12, 4: 366, 5: 30, 6: 7}
    for item in text_only.values():
        if item.labels:
            assert len(item.labels) == len(item.choices)
            assert set((item.gold or "").split(", ")) <= set(item.labels)
        else:
            assert item.tags["question_type"] == ("free-form",)


def test_a_number_that_strayed_below_the_last_option_belongs_to_none(text_only: dict[str, Item]) -> None:
    assert text_only["99"].choices == ("26°", "74°", "64°", "54°")
    assert text_only["124"].choices == ("2", "4", "6", "8")


def test_vision_only_shows_no_question_but_has_its_options(
    text_only: dict[str, Item], vision_only: dict[str, Item]
) -> None:
    assert {item.question for item in vision_only.values()} == {""}
    for problem, item in vision_only.items():
        other = text_only[problem]
        assert (item.choices, item.labels, item.gold) == (other.choices, other.labels, other.gold)


def test_ids_and_clusters_name_the_problem(text_only: dict[str, Item], vision_only: dict[str, Item]) -> None:
    assert (text_only["17"].id, text_only["17"].cluster) == ("17_Text Only", "17")
    assert (vision_only["17"].id, vision_only["17"].cluster) == ("17_Vision Only", "17")
    assert len(vision_only) == len(text_only) == 788


def test_vision_only_has_an_image_and_text_only_has_none(
    text_only: dict[str, Item], vision_only: dict[str, Item]
) -> None:
    assert all(item.images == () for item in text_only.values())
    (image,) = vision_only["17"].images
    assert isinstance(image, ImageFile)
    assert image.path.parts[-2:] == ("images_version_6", "image_17.png")


def test_every_known_defect_names_all_six_versions(text_only: dict[str, Item], vision_only: dict[str, Item]) -> None:
    problems = {item_id.split("_")[0] for item_id in TASK.bad_items}
    assert problems <= text_only.keys()
    assert TASK.bad_items.keys() == {f"{problem}_{version}" for problem in problems for version in VERSIONS.values()}
    listed = TASK.bad_items.keys()
    for items in (text_only, vision_only):
        assert {item.id for item in items.values() if "published_gold" in item.tags} <= listed
        doubled = {item.id for item in items.values() if len(set(item.choices)) < len(item.choices)}
        assert {item_id.split("_")[0] for item_id in doubled} == {"211", "242", "622"}
        assert doubled <= listed
        garbled = {item.id for item in items.values() if "掳" in (item.gold or "")}
        assert len(garbled) == 2
        assert garbled <= listed


# The official folder


def test_the_hubs_columns_give_the_same_items(
    data: Path, tmp_path: Path, vision_only: dict[str, Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    lines = (data / "mathverse" / "derived_vision_only_meta.jsonl").read_text(encoding="utf-8").splitlines()
    picture = datasets.Image().encode_example(np.zeros((1, 1, 3), dtype=np.uint8))
    rows = [json.loads(line) | {"image": picture} for line in lines]
    # Five versions in one table, as the hub has them; the four others must be left out.
    others = [record | {"problem_version": version} for version in list(VERSIONS.values())[1:5] for record in rows]
    table = datasets.Dataset.from_list(others + rows).cast_column("image", datasets.Image())
    (tmp_path / "hub" / "data").mkdir(parents=True)
    table.to_parquet(tmp_path / "hub" / "data" / "testmini-00000-of-00001.parquet")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    loaded = load(TASK, "vision_only", data=tmp_path / "hub")
    assert loaded.digest == digest(vision_only.values())
    assert loaded.items[0].images[0].read() == picture["bytes"]


def test_siblings_lend_vision_only_their_options(tmp_path: Path) -> None:
    (tmp_path / "testmini.json").write_text(json.dumps(five_versions()), encoding="utf-8")
    (item,) = map(to_item, TASK.read_folder(tmp_path, "vision_only"))
    assert (item.id, item.question, item.choices) == ("1000_Vision Only", "", ("4°", "6°"))
    assert len(list(TASK.read_folder(tmp_path, "testmini"))) == 5


def test_the_question_for_evaluation_comes_before_a_siblings(tmp_path: Path) -> None:
    versions = five_versions()
    versions[-1]["question_for_eval"] = "Find y.\nChoices:\nA:1\nB:2"
    (tmp_path / "testmini.json").write_text(json.dumps(versions), encoding="utf-8")
    (item,) = map(to_item, TASK.read_folder(tmp_path, "vision_only"))
    assert item.choices == ("1", "2")


def test_each_version_is_a_split(tmp_path: Path) -> None:
    (tmp_path / "testmini.json").write_text(json.dumps(five_versions()), encoding="utf-8")
    for name, version in VERSIONS.items():
        if name != "text_only":
            (item,) = map(to_item, TASK.read_folder(tmp_path, name))
            assert item.tags["version"] == (version,)


def test_the_real_file_comes_before_the_stand_in(tmp_path: Path) -> None:
    (tmp_path / "testmini.json").write_text(json.dumps(five_versions()), encoding="utf-8")
    stand_in = row(problem_version="Vision Only", question="", answer="A")
    (tmp_path / "derived_vision_only_meta.jsonl").write_text(json.dumps(stand_in) + "\n", encoding="utf-8")
    (item,) = map(to_item, TASK.read_folder(tmp_path, "vision_only"))
    assert item.gold == "B"


def test_the_stand_in_serves_no_other_split(tmp_path: Path) -> None:
    (tmp_path / "derived_vision_only_meta.jsonl").write_text(json.dumps(row()) + "\n", encoding="utf-8")
    for split in ("testmini", "text_dominant"):
        with pytest.raises(DatasetError, match=r"testmini\.json is missing"):
            list(TASK.read_folder(tmp_path, split))


def test_images_are_found_below_the_archives_folder_too(tmp_path: Path) -> None:
    (tmp_path / "testmini.json").write_text(json.dumps([row()]), encoding="utf-8")
    for folder in (tmp_path / "images_version_1-4", tmp_path / "images" / "images_version_1-4"):
        folder.mkdir(parents=True)
        (folder / "image_1000.png").write_bytes(folder.parent.name.encode())
        (item,) = map(to_item, TASK.read_folder(tmp_path, "text_dominant"))
        assert item.images[0].read() == folder.parent.name.encode()


@pytest.mark.parametrize("image", ["../../etc/passwd", "/etc/passwd"])
def test_an_image_outside_the_folder_is_refused(tmp_path: Path, image: str) -> None:
    (tmp_path / "testmini.json").write_text(json.dumps([row(image=image)]), encoding="utf-8")
    with pytest.raises(DatasetError, match="leaves the folder"):
        list(TASK.read_folder(tmp_path, "testmini"))


@pytest.mark.parametrize("content", ["{}", "[3]", '"x"', "["])
def test_a_file_of_another_layout_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "testmini.json").write_text(content, encoding="utf-8")
    with pytest.raises(DatasetError, match=r"testmini\.json"):
        list(TASK.read_folder(tmp_path, "testmini"))


@pytest.mark.parametrize("missing", ["answer", "question", "question_type", "metadata", "problem_index"])
def test_a_record_without_a_field_is_named(missing: str) -> None:
    record = row()
    del record[missing]
    with pytest.raises(DatasetError, match=f"'4996': {missing}"):
        to_item(record)


# Options and golds


def test_options_may_follow_a_colon_or_a_full_stop() -> None:
    assert parse_options("q\nChoices:\nA:4\nB:6") == Options(("A", "B"), ("4", "6"))
    assert parse_options("q\nChoice:\nA. True\nB. False") == Options(("A", "B"), ("True", "False"))
    assert parse_options("q\nChoices:\nA.$y$ up\nB.$y$: down. Yes") == Options(("A", "B"), ("$y$ up", "$y$: down. Yes"))


def test_a_question_without_options_has_none() -> None:
    assert parse_options("") == Options((), ())
    assert parse_options("A: first\nB: second") == Options((), ())
    assert parse_options("q\nChoices:\n") == Options((), ())


def test_labels_are_taken_in_their_order_only() -> None:
    assert parse_options("q\nChoices:\nB:x\nA:1\nC:y\nB:2\n\nC:3") == Options(("A", "B", "C"), ("1", "2", "3"))


OPTIONS = Options(("A", "B", "C"), ("4", "6", "6"))


@pytest.mark.parametrize(
    ("answer", "options", "gold", "answer_type"),
    [
        ("B", OPTIONS, "B", AnswerType.CHOICE),
        ("(B)", OPTIONS, "B", AnswerType.CHOICE),
        ("A\nC", OPTIONS, "A, C", AnswerType.CHOICES),
        ("4", OPTIONS, "A", AnswerType.CHOICE),
        (" 4 ", OPTIONS, "A", AnswerType.CHOICE),
        ("6", OPTIONS, "6", AnswerType.EXPRESSION),  # two options say so
        ("D", OPTIONS, "D", AnswerType.EXPRESSION),  # no such option
        ("D", Options(UNSEEN_LABELS, ()), "D", AnswerType.CHOICE),
        ("False", Options(UNSEEN_LABELS, ()), "False", AnswerType.TEXT),
        ("B", Options((), ()), "B", AnswerType.EXPRESSION),
        ("even", Options((), ()), "even", AnswerType.TEXT),
        ("Bugs Bunny", Options((), ()), "Bugs Bunny", AnswerType.TEXT),
        ("\\pi", Options((), ()), "\\pi", AnswerType.EXPRESSION),
        ("xy", Options((), ()), "xy", AnswerType.EXPRESSION),
        ("24 units", Options((), ()), "24 units", AnswerType.EXPRESSION),
        ("Area $=9$", Options((), ()), "Area $=9$", AnswerType.EXPRESSION),
        ("-4.9\n-4.9", Options((), ()), "-4.9\n-4.9", AnswerType.EXPRESSION),
    ],
)
def test_a_published_answer_becomes_a_typed_gold(
    answer: str, options: Options, gold: str, answer_type: AnswerType
) -> None:
    assert read_gold(answer, options) == (gold, answer_type)


def test_unseen_options_leave_six_labels() -> None:
    item = to_item(row(problem_version="Vision Only", question=""))
    assert (item.choices, item.labels, item.gold) == ((), ("A", "B", "C", "D", "E", "F"), "B")
    assert item.answer_type is AnswerType.CHOICE


@pytest.mark.parametrize("hostile", ["word " * 200_000, "(" * 500_000, "A\n" * 200_000, "\nChoices:\n" * 50_000])
def test_hostile_text_is_read_in_linear_time(hostile: str) -> None:
    started = time.process_time()
    item = to_item(row(question=hostile + "\nChoices:\nA:4", answer=hostile))
    TASK.scorers["official"].compare(item, hostile + "x")
    TASK.scorers["vlmevalkit"].compare(item, hostile + "x")
    assert time.process_time() - started < 2
