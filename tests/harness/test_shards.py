"""Which items are whose: every item once, whole clusters, whatever the order; and what may stand beside a shard."""

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahabench.harness.errors import UsageError
from ahabench.harness.manifest import Manifest, write_manifest
from ahabench.harness.shards import Shard, check_whole, parse_shard, shard_folder, shard_folders, shard_items
from ahabench.harness.types import AnswerType, Item


def items(clusters: list[int]) -> list[Item]:
    """Make clusters of these sizes."""
    return [
        Item(id=f"{cluster}.{n}", question="?", gold="1", answer_type=AnswerType.INTEGER, group=f"c{cluster}")
        for cluster, size in enumerate(clusters)
        for n in range(size)
    ]


def ids(part: tuple[Item, ...]) -> list[str]:
    return [item.id for item in part]


@given(st.lists(st.integers(1, 6), max_size=30), st.integers(1, 9), st.randoms(use_true_random=False))
def test_every_item_is_in_one_shard_with_its_cluster_whatever_the_order(
    sizes: list[int], count: int, dice: random.Random
) -> None:
    whole = items(sizes)
    parts = [shard_items(whole, Shard(index, count)) for index in range(1, count + 1)]
    assert sorted(id for part in parts for id in ids(part)) == sorted(item.id for item in whole)
    homes = Counter(group for part in parts for group in {item.group for item in part})
    assert set(homes.values()) <= {1}
    shuffled = dice.sample(whole, len(whole))
    for index, part in enumerate(parts, start=1):
        assert sorted(ids(shard_items(shuffled, Shard(index, count)))) == sorted(ids(part))


@given(st.lists(st.integers(1, 6), min_size=1, max_size=30), st.integers(1, 9))
def test_shards_differ_by_the_largest_cluster_at_most(sizes: list[int], count: int) -> None:
    loads = [len(shard_items(items(sizes), Shard(index, count))) for index in range(1, count + 1)]
    assert max(loads) - min(loads) <= max(sizes)


def test_a_shard_keeps_the_order_of_the_data() -> None:
    whole = items([1] * 20)
    part = shard_items(whole, Shard(2, 3))
    assert list(part) == [item for item in whole if item in part]


def test_neighbours_in_the_data_are_spread() -> None:
    # A data set often ends with its hardest kind: no shard may get that end whole.
    whole = items([1] * 100)
    tail = {item.id for item in whole[-20:]}
    assert all(tail & set(ids(shard_items(whole, Shard(index, 4)))) for index in (1, 2, 3, 4))


@pytest.mark.parametrize(("text", "shard"), [("1/8", Shard(1, 8)), ("8/8", Shard(8, 8)), (" 1/1 ", Shard(1, 1))])
def test_a_shard_is_counted_from_one(text: str, shard: Shard) -> None:
    assert parse_shard(text) == shard


@pytest.mark.parametrize("text", ["0/8", "9/8", "1/0", "0/0", "1/10000"])
def test_a_shard_out_of_range_is_refused_with_the_range(text: str) -> None:
    with pytest.raises(UsageError, match=f"there is no shard {text}; shards of N are 1/N to N/N"):
        parse_shard(text)


@pytest.mark.parametrize("text", ["", "3", "3/", "a/b", "-1/8", "1.5/8", "3 of 8", "1/8/2", "१/८", "1" * 5000 + "/8"])
def test_what_is_no_shard_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="such as 3/8"):
        parse_shard(text)


def run(folder: Path, **fields: object) -> Path:
    write_manifest(folder, Manifest.model_validate({"status": "incomplete", **fields}))
    return folder


def test_shards_are_found_by_their_folders_in_order(tmp_path: Path) -> None:
    for name in ("shard-10-of-12", "shard-2-of-12", "shard-1-of-3", "shard-4-of-3", "shard-0-of-3", "sharp-1-of-3"):
        run(tmp_path / name)
    (tmp_path / "shard-1-of-12").mkdir()
    assert shard_folders(tmp_path) == [
        (Shard(1, 3), tmp_path / "shard-1-of-3"),
        (Shard(2, 12), tmp_path / "shard-2-of-12"),
        (Shard(10, 12), tmp_path / "shard-10-of-12"),
    ]


def test_another_division_of_the_same_run_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "shard-1-of-8")
    assert shard_folder(tmp_path, Shard(2, 8)) == tmp_path / "shard-2-of-8"
    with pytest.raises(UsageError, match=r"divided into 8 shards, this command has --shard 1/4; go on with 1/8 to 8/8"):
        shard_folder(tmp_path, Shard(1, 4))


def test_a_run_begun_whole_is_not_divided_and_one_begun_in_shards_not_made_whole(tmp_path: Path) -> None:
    whole, divided = run(tmp_path / "whole"), tmp_path / "divided"
    run(divided / "shard-1-of-8")
    with pytest.raises(UsageError, match="was begun without --shard"):
        shard_folder(whole, Shard(1, 8))
    with pytest.raises(UsageError, match="holds 1 of 8 shards, such as shard-1-of-8; go on with --shard"):
        check_whole(divided)
    check_whole(whole)


def test_a_merged_run_goes_on_either_way(tmp_path: Path) -> None:
    run(tmp_path, merged=["shard-1-of-8"])
    run(tmp_path / "shard-1-of-8")
    check_whole(tmp_path)
    assert shard_folder(tmp_path, Shard(2, 8)) == tmp_path / "shard-2-of-8"
