"""Loading a split from its three kinds of source, writing it out again, and drawing a part of it."""

import io
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ahabench.harness.dataset import (
    EXPORT_FILE,
    Dataset,
    digest,
    load,
    read_jsonl,
    without_images,
    write_export,
)
from ahabench.harness.errors import AhabenchError, DatasetError, UsageError
from ahabench.harness.images import ImageFile
from ahabench.harness.metrics import accuracy
from ahabench.harness.types import AnswerType, HubDataset, Item, Row, Split, Task

# A benchmark of six questions: on the hub in two parts and with another column name, in a folder as JSONL.

QUESTIONS: tuple[dict[str, Any], ...] = tuple(
    {
        "pid": str(number),
        "question": f"¿{number} · {number}?",
        "answer": f"{number * number}",
        "options": ["4", "9"] if number in (2, 3) else [],
        "subject": "even" if number % 2 == 0 else "odd",
    }
    for number in range(6)
)


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4 + number, 3), (40 * number, 0, 0)).save(file, "PNG")
    return file.getvalue()


def read_folder(folder: Path, split: str) -> Iterator[Row]:
    for row in read_jsonl(folder / f"{split}.jsonl"):
        yield {**row, "images": (ImageFile(folder / "images" / f"{row['pid']}.png"),)}


def to_item(row: Row) -> Item:
    options = tuple(row["options"])
    return Item(
        id=row["pid"],
        question=row["question"],
        gold=row["answer"],
        answer_type=AnswerType.FLOAT,
        images=row["images"],
        choices=options,
        labels=("A", "B")[: len(options)],
        precision=1,
        tolerance=0.05,
        unit="cm",
        group=row["subject"],
        tags={"subject": (row["subject"],), "level": ("1", "2")},
    )


HUB = HubDataset(repo="nobody/squares", splits=("test",), columns={"question_text": "question"})
TASK = Task(
    name="squares",
    title="Squares",
    version=1,
    paper="none",
    licence="CC0-1.0",
    splits={
        "test": Split(n_items=6, hub=HUB),
        "testmini": Split(n_items=3, hub=replace(HUB, where={"subject": "odd"})),
        "both": Split(n_items=6, hub=replace(HUB, splits=("first", "second"))),
        "private": Split(n_items=6, hub=None),
    },
    default_split="test",
    read_folder=read_folder,
    to_item=to_item,
    prompts={},
    scorers={},
    metrics={"accuracy": accuracy},
    headline="accuracy",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The official layout."""
    place = tmp_path / "official"
    (place / "images").mkdir(parents=True)
    for number, row in enumerate(QUESTIONS):
        (place / "images" / f"{row['pid']}.png").write_bytes(png(number))
    (place / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS), encoding="utf-8")
    return place


def write_parquet(file: Path, numbers: range) -> None:
    import datasets

    rows = [QUESTIONS[number] for number in numbers]
    columns: dict[str, Any] = {key: [row[key] for row in rows] for key in ("pid", "answer", "options", "subject")}
    columns["question_text"] = [row["question"] for row in rows]
    columns["image"] = [{"bytes": png(number), "path": None} for number in numbers]
    features = datasets.Features(
        {
            **{name: datasets.Value("string") for name in ("pid", "answer", "subject", "question_text")},
            "options": datasets.List(datasets.Value("string")),
            "image": datasets.Image(),
        }
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(columns, features=features).to_parquet(str(file))


@pytest.fixture
def hub_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the hub's repository, with the cache that `datasets` makes of it kept out of the home folder."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "hub copy"
    write_parquet(place / "data" / "test-00000-of-00001.parquet", range(6))
    return place


def pictures(items: tuple[Item, ...]) -> list[bytes]:
    return [image.read() for item in items for image in item.images]


# Sources.


def test_an_official_folder_is_read_by_the_tasks_own_reader(folder: Path) -> None:
    found = load(TASK, data=folder)
    assert (found.split, found.source, found.revision, found.protocol) == ("test", "folder", None, "squares test")
    assert [item.gold for item in found.items] == ["0", "1", "4", "9", "16", "25"]
    assert pictures(found.items) == [png(number) for number in range(6)]


def test_a_folder_of_folders_is_searched_for_the_tasks_name(folder: Path, tmp_path: Path) -> None:
    folder.rename(tmp_path / "squares")
    assert load(TASK, data=tmp_path).digest == load(TASK, data=tmp_path / "squares").digest


def test_a_copy_of_the_hubs_repository_gives_the_same_items_and_bytes_as_the_folder(
    folder: Path, hub_copy: Path
) -> None:
    official, copy = load(TASK, data=folder), load(TASK, data=hub_copy)
    assert (copy.source, copy.revision) == ("hub:nobody/squares", None)
    assert without_images(copy.items) == without_images(official.items)
    assert copy.digest == official.digest
    assert pictures(copy.items) == pictures(official.items)


def test_a_split_can_be_those_rows_of_the_hub_that_have_a_value(hub_copy: Path) -> None:
    found = load(TASK, "testmini", data=hub_copy)
    assert [item.id for item in found.items] == ["1", "3", "5"]
    # The picture is the row's, not that of its place among the kept ones.
    assert pictures(found.items) == [png(1), png(3), png(5)]


def test_a_split_can_be_several_of_the_hub_in_their_order(hub_copy: Path) -> None:
    write_parquet(hub_copy / "data" / "second-00000-of-00001.parquet", range(4, 6))
    write_parquet(hub_copy / "data" / "first-00000-of-00001.parquet", range(4))
    seen: list[str] = []

    def noting(row: Row) -> Item:
        seen.append(row["hub_split"])
        return to_item(row)

    found = load(replace(TASK, to_item=noting), "both", data=hub_copy)
    assert [item.id for item in found.items] == ["0", "1", "2", "3", "4", "5"]
    assert seen == ["first"] * 4 + ["second"] * 2
    assert pictures(found.items) == [png(number) for number in range(6)]


def test_a_missing_split_of_the_hub_is_named(hub_copy: Path) -> None:
    with pytest.raises(DatasetError, match="first"):
        load(TASK, "both", data=hub_copy)


def test_a_hub_that_cannot_be_reached_is_an_error_with_a_way_out() -> None:
    # The tests run with HF_HUB_OFFLINE=1.
    with pytest.raises(DatasetError, match=r"nobody/squares cannot be reached.*--data DIR"):
        load(TASK)


def test_a_split_that_is_not_on_the_hub_asks_for_its_folder() -> None:
    with pytest.raises(DatasetError, match=r"squares private is not on the hub.*--data DIR"):
        load(TASK, "private")


# What is checked.


def test_an_unknown_split_is_told_the_nearest_one() -> None:
    with pytest.raises(UsageError, match=r"'testmin'.*Did you mean 'testmini'"):
        load(TASK, "testmin")


def test_a_data_folder_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        load(TASK, data=tmp_path / "nowhere")


def test_a_missing_file_of_the_layout_is_named(folder: Path) -> None:
    (folder / "test.jsonl").unlink()
    with pytest.raises(DatasetError, match=r"test\.jsonl is missing"):
        load(TASK, data=folder)


@pytest.mark.parametrize("kept", [5, 7])
def test_another_number_of_items_than_declared_is_refused(folder: Path, kept: int) -> None:
    rows = [*QUESTIONS, {**QUESTIONS[0], "pid": "6"}][:kept]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(DatasetError, match=f"squares test has {kept} items here, the task declares 6"):
        load(TASK, data=folder)


def test_an_item_id_that_comes_twice_is_refused(folder: Path) -> None:
    rows = [*QUESTIONS[:5], QUESTIONS[2]]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(DatasetError, match="item id '2' twice"):
        load(TASK, data=folder)


def test_a_missing_image_is_an_error_only_when_it_is_read(folder: Path) -> None:
    (folder / "images" / "3.png").unlink()
    items = load(TASK, data=folder).items
    with pytest.raises(DatasetError, match=r"3\.png"):
        pictures(items)


# The digest.


@pytest.mark.parametrize(
    "change",
    [{"id": "x"}, {"question": "?"}, {"gold": None}, {"choices": ("9", "4")}, {"precision": 2}, {"tags": {}}],
)
def test_the_digest_moves_with_what_is_asked_and_expected(folder: Path, change: dict[str, Any]) -> None:
    items = load(TASK, data=folder).items
    assert digest([*items[:2], replace(items[2], **change), *items[3:]]) != digest(items)


def test_the_digest_moves_with_the_order_and_the_number(folder: Path) -> None:
    items = load(TASK, data=folder).items
    assert len({digest(items), digest(items[::-1]), digest(items[:5]), digest([])}) == 4


def test_the_digest_does_not_depend_on_images_or_on_the_order_of_tags(folder: Path) -> None:
    items = load(TASK, data=folder).items
    turned = [
        replace(item, images=(), tags={name: item.tags[name] for name in reversed(list(item.tags))}) for item in items
    ]
    assert digest(turned) == digest(items)


# Export.


@pytest.mark.parametrize("source", ["folder", "hub_copy"])
def test_an_export_gives_back_the_same_items_and_bytes(
    source: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    original = load(TASK, data=request.getfixturevalue(source))
    assert write_export(original, tmp_path / "out") == tmp_path / "out" / EXPORT_FILE
    again = load(TASK, data=tmp_path / "out")
    assert (again.source, again.digest) == ("export", original.digest)
    assert without_images(again.items) == without_images(original.items)
    assert pictures(again.items) == pictures(original.items)


def test_an_export_can_be_moved(folder: Path, tmp_path: Path) -> None:
    write_export(load(TASK, data=folder), tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    assert pictures(load(TASK, data=tmp_path / "elsewhere").items) == [png(number) for number in range(6)]


def test_an_export_does_not_overwrite_another(folder: Path, tmp_path: Path) -> None:
    found = load(TASK, data=folder)
    file = write_export(found, tmp_path / "out")
    before = file.read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        write_export(found, tmp_path / "out")
    assert file.read_bytes() == before


def exported(items: tuple[Item, ...], out: Path) -> Dataset:
    """Write items out and load them again."""
    task = replace(TASK, splits={"test": Split(n_items=len(items), hub=None)})
    dataset = Dataset(task=task, split="test", items=items, source="folder", revision=None, digest=digest(items))
    write_export(dataset, out)
    return load(task, data=out)


def plain(name: str, question: str = "?") -> Item:
    return Item(id=name, question=question, gold="1", answer_type=AnswerType.INTEGER)


def test_text_with_quotes_newlines_and_other_scripts_survives_an_export(tmp_path: Path) -> None:
    items = (plain("1", 'Say "x",\r\n\t\\frac{1}{2} 三角形 \U0001d54f \x00\x0b\x1c'), plain("2", ""))
    assert exported(items, tmp_path / "out").items == items


@pytest.mark.parametrize("separator", ["\x85", "\u2028", "\u2029"])
def test_line_separators_of_other_alphabets_survive_an_export(separator: str, tmp_path: Path) -> None:
    items = (plain("1", f"above{separator}below"),)
    assert exported(items, tmp_path / "out").items == items


def test_half_a_surrogate_pair_survives_an_export(tmp_path: Path) -> None:
    items = (plain("1", "broken \ud83d emoji"),)
    assert exported(items, tmp_path / "out").items == items


def test_an_item_id_with_a_slash_survives_an_export(folder: Path, tmp_path: Path) -> None:
    items = (replace(load(TASK, data=folder).items[0], id="algebra/1"),)
    assert pictures(exported(items, tmp_path / "out").items) == [png(0)]


def test_an_item_id_cannot_lead_out_of_the_folder(folder: Path, tmp_path: Path) -> None:
    items = (replace(load(TASK, data=folder).items[0], id="../../outside"),)
    with suppress(AhabenchError):
        exported(items, tmp_path / "out")
    assert not (tmp_path / "outside_0.img").exists()


@pytest.mark.parametrize("name", ["../secret.txt", "{root}/secret.txt"])
def test_an_export_cannot_name_files_outside_of_its_folder(name: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("private", encoding="utf-8")
    file = write_export(load(TASK, data=folder), tmp_path / "out")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    rows[0]["images"] = [name.format(root=tmp_path)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(DatasetError):
        pictures(load(TASK, data=tmp_path / "out").items)


def test_an_export_of_another_split_or_task_is_refused(folder: Path, tmp_path: Path) -> None:
    write_export(load(TASK, data=folder), tmp_path / "out")
    with pytest.raises(DatasetError, match="belongs to squares test, wanted squares private"):
        load(TASK, "private", data=tmp_path / "out")
    with pytest.raises(DatasetError, match="belongs to squares test, wanted cubes test"):
        load(replace(TASK, name="cubes"), data=tmp_path / "out")


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda row: "not JSON", id="no JSON"),
        pytest.param(lambda row: json.dumps([row]), id="a list"),
        pytest.param(lambda row: json.dumps({**row, "extra": 1}), id="unknown field"),
        pytest.param(lambda row: json.dumps({k: v for k, v in row.items() if k != "question"}), id="missing field"),
        pytest.param(lambda row: json.dumps({k: v for k, v in row.items() if k != "task"}), id="missing task"),
        pytest.param(lambda row: json.dumps({**row, "answer_type": "guess"}), id="unknown answer type"),
        pytest.param(lambda row: json.dumps({**row, "tags": ["a"]}), id="tags of another shape"),
        pytest.param(lambda row: json.dumps({**row, "images": None}), id="no images"),
    ],
)
def test_a_spoilt_line_of_an_export_is_named(spoil: Any, folder: Path, tmp_path: Path) -> None:
    file = write_export(load(TASK, data=folder), tmp_path / "out")
    lines = file.read_text(encoding="utf-8").split("\n")
    lines[2] = spoil(json.loads(lines[2]))
    file.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"items\.jsonl:3 "):
        load(TASK, data=tmp_path / "out")
