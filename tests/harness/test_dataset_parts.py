"""Parts of a data set, and the raw files that it is made of."""

import json
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from ahabench.harness.dataset import read_json, read_jsonl, subset, without_images
from ahabench.harness.errors import DatasetError
from ahabench.harness.images import ImageFile
from ahabench.harness.types import AnswerType, Item


def item(name: str, *, group: str = "", subject: str | None = None, level: str = "1") -> Item:
    tags = {"subject": (subject,), "level": (level,)} if subject else {}
    return Item(id=name, question="?", gold="1", answer_type=AnswerType.INTEGER, group=group, tags=tags)


def ids(items: tuple[Item, ...] | list[Item]) -> list[str]:
    return [item.id for item in items]


SINGLE = [item(str(n), subject="algebra" if n % 5 else "topology") for n in range(200)]
"""160 of algebra, 40 of topology."""
GROUPED = [
    item(f"{seed}.{variant}", group=f"seed {seed}", subject=f"s{seed % 3}")
    for seed in range(30)
    for variant in range(10)
]
"""As DynaMath: ten variants of each of 30 seeds."""


# Subsets.


@pytest.mark.parametrize("limit", [1, 7, 20, 199])
def test_a_subset_of_single_items_has_as_many_as_were_asked_for(limit: int) -> None:
    assert len(subset(SINGLE, limit)) == limit


def test_a_limit_beyond_the_end_takes_everything() -> None:
    assert subset(SINGLE, 200) == subset(SINGLE, 10_000) == tuple(SINGLE)


@pytest.mark.parametrize("seed", range(10))
def test_a_subset_keeps_the_order_of_the_data(seed: int) -> None:
    names = ids(subset(SINGLE, 50, seed=seed))
    assert names == sorted(names, key=int)


@pytest.mark.parametrize("seed", range(20))
def test_a_subset_has_about_the_proportions_of_the_first_tag(seed: int) -> None:
    found = Counter(item.tags["subject"][0] for item in subset(SINGLE, 50, seed=seed))
    # 40 and 10, give or take one in each of the two at the cut.
    assert abs(found["algebra"] - 40) <= 2
    assert found["algebra"] + found["topology"] == 50


def test_only_the_first_tag_divides() -> None:
    rows = [item(str(n), subject="algebra", level=str(n % 7)) for n in range(70)]
    plain = [item(str(n), subject="algebra") for n in range(70)]
    assert ids(subset(rows, 20)) == ids(subset(plain, 20))


def test_items_without_tags_can_be_drawn_from() -> None:
    assert len(subset([item(str(n)) for n in range(30)], 12)) == 12


def test_the_same_seed_draws_the_same_items_and_another_seed_others() -> None:
    assert subset(SINGLE, 50, seed=3) == subset(SINGLE, 50, seed=3)
    assert len({tuple(ids(subset(SINGLE, 50, seed=seed))) for seed in range(10)}) == 10


def test_every_item_is_drawn_by_some_seed() -> None:
    drawn = {name for seed in range(60) for name in ids(subset(SINGLE, 50, seed=seed))}
    # Each is left out by 60 seeds with the chance 0.75^60 = 3e-8.
    assert len(drawn) == 200


@pytest.mark.parametrize("limit", [10, 55, 99, 100])
@pytest.mark.parametrize("seed", range(5))
def test_a_subset_takes_whole_clusters_and_no_more_than_asked_for(limit: int, seed: int) -> None:
    found = Counter(item.cluster for item in subset(GROUPED, limit, seed=seed))
    assert set(found.values()) == {10}
    assert len(found) == limit // 10


def test_one_whole_cluster_comes_even_where_the_limit_is_smaller() -> None:
    found = subset(GROUPED, 3)
    assert len(found) == 10
    assert len({item.cluster for item in found}) == 1


@pytest.mark.parametrize("seed", range(5))
def test_a_cluster_across_several_tag_values_stays_whole(seed: int) -> None:
    # As MathVerse: the versions of a problem differ in their first tag.
    rows = [item(f"{n}.{version}", group=f"p{n}", subject=version) for n in range(20) for version in ("text", "vision")]
    found = defaultdict(set)
    for chosen in subset(rows, 13, seed=seed):
        found[chosen.cluster].add(chosen.tags["subject"])
    assert all(len(versions) == 2 for versions in found.values())
    assert len(found) == 6


def test_a_small_cluster_still_fits_where_a_large_one_does_not() -> None:
    large = [item(f"large {n}", group="large") for n in range(8)]
    small = [item(f"small {n}") for n in range(4)]
    for seed in range(20):
        found = Counter(chosen.cluster == "large" for chosen in subset([*large, *small], 6, seed=seed))
        # Either the large one came first, which is allowed to pass the limit, or only small ones fit.
        assert found in ({True: 8}, {False: 4})


def test_items_without_images_keep_everything_else() -> None:
    whole = item("1", subject="algebra")
    assert without_images([replace(whole, images=(ImageFile(Path("a.png")),))]) == (whole,)


# Raw files.


def test_json_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"é": [1]}', encoding="utf-8")
    assert read_json(tmp_path / "a.json") == {"é": [1]}


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe"])
def test_a_file_that_is_no_json_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DatasetError, match=r"a\.json is not JSON"):
        read_json(tmp_path / "a.json")


def test_a_missing_json_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"a\.json is missing"):
        read_json(tmp_path / "a.json")


def test_jsonl_is_read_line_by_line_without_the_blank_ones(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n\n  \n{"a": 2}', encoding="utf-8")
    assert list(read_jsonl(tmp_path / "a.jsonl")) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("separator", ["\x85", "\u2028", "\u2029"])
def test_a_line_separator_inside_a_text_does_not_break_a_line(separator: str, tmp_path: Path) -> None:
    row = {"a": f"above{separator}below"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert list(read_jsonl(tmp_path / "a.jsonl")) == [row]


@pytest.mark.parametrize(("line", "why"), [("{", "is not JSON"), ("[1]", "is not a JSON object")])
def test_a_spoilt_line_is_named_by_its_number(line: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"a": 1}}\n\n{line}\n', encoding="utf-8")
    with pytest.raises(DatasetError, match=rf"a\.jsonl:3 {why}"):
        list(read_jsonl(tmp_path / "a.jsonl"))


def test_a_missing_jsonl_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"a\.jsonl is missing"):
        list(read_jsonl(tmp_path / "a.jsonl"))


def test_jsonl_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"a": "\xff"}\n')
    with pytest.raises(DatasetError, match=r"a\.jsonl"):
        list(read_jsonl(tmp_path / "a.jsonl"))


def test_json_nested_beyond_reason_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 200_000, encoding="utf-8")
    with pytest.raises(DatasetError, match=r"a\.json"):
        read_json(tmp_path / "a.json")
