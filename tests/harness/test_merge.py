"""Shards joined: each response once, what is missing by name, and what contradicts itself refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_rows import RIGHT, write

from ahabench.harness.errors import IncomparableRunsError, UsageError
from ahabench.harness.manifest import EngineRecord, Manifest, read_manifest, write_manifest
from ahabench.harness.merge import merge

Run = Callable[..., Any]


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "toy" / "responses.jsonl").read_text().splitlines()]


def said(run: Path) -> dict[str, str | None]:
    return {row["item_id"]: row["response"] for row in rows(run)}


def bytes_of(folder: Path) -> dict[str, bytes]:
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture
def shard(ahabench: Run, toy: Path, tmp_path: Path) -> Run:
    """Answers a shard of the toy benchmark from a recording: (index, count, answers=RIGHT, **flags) -> how it ended."""

    def answer(index: int, count: int, answers: dict[str, str] = RIGHT, *flags: object, out: str = "run") -> Any:
        engine = f"replay:{write(tmp_path / 'said.jsonl', answers)}"
        command = ("eval", "m", "--tasks", "toy", "--engine", engine, "--data", toy, "--out", tmp_path / out)
        return ahabench(*command, "--shard", f"{index}/{count}", *flags)

    return answer


@pytest.fixture
def run(shard: Run, tmp_path: Path) -> Path:
    """A run directory with three finished shards."""
    for index in (1, 2, 3):
        assert shard(index, 3).code == 0
    return tmp_path / "run"


def change(run: Path, **fields: object) -> None:
    write_manifest(run, Manifest.model_validate(read_manifest(run).model_dump() | fields))


# From shards to a score.


def test_a_shard_is_not_scored_and_says_what_comes_next(shard: Run, tmp_path: Path) -> None:
    done = shard(2, 3, RIGHT, "--json")
    assert (done.code, json.loads(done.out)) == (0, [])
    folder = tmp_path / "run" / "shard-2-of-3"
    assert f"{folder} is complete; when all 3 shards are: ahabench merge {tmp_path / 'run'}" in done.err
    assert sorted(path.name for path in (folder / "toy").iterdir() if path.name[0] != ".") == ["responses.jsonl"]
    manifest = read_manifest(folder)
    assert manifest.shard is not None
    assert (manifest.shard.index, manifest.shard.count, manifest.tasks["toy"].n_items) == (2, 3, 2)


def test_shards_together_hold_every_item_once(run: Path) -> None:
    parts = [said(run / f"shard-{index}-of-3") for index in (1, 2, 3)]
    assert [len(part) for part in parts] == [2, 2, 2]
    assert {key: text for part in parts for key, text in part.items()} == RIGHT


def test_a_merged_run_scores_as_a_run_that_was_never_divided(
    ahabench: Run, toy: Path, run: Path, tmp_path: Path
) -> None:
    engine = f"replay:{write(tmp_path / 'said.jsonl', RIGHT)}"
    whole = ahabench(
        "eval", "m", "--tasks", "toy", "--engine", engine, "--data", toy, "--out", tmp_path / "whole", "--json"
    )
    done = ahabench("merge", run, "--data", toy)
    assert (done.code, done.out) == (0, f"toy: 6 responses\n{run}\n")
    assert rows(run) == rows(tmp_path / "whole")
    assert ahabench("score", run, "--data", toy, "--json").out == whole.out
    merged, undivided = read_manifest(run), read_manifest(tmp_path / "whole")
    assert merged.merged == ["shard-1-of-3", "shard-2-of-3", "shard-3-of-3"]
    assert merged.model_copy(update={"merged": []}) == undivided


def test_merging_again_changes_no_byte(ahabench: Run, toy: Path, run: Path) -> None:
    merge(run, data=toy)
    ahabench("score", run, "--data", toy)
    before = bytes_of(run)
    merge(run, data=toy)
    assert bytes_of(run) == before


def test_a_merge_leaves_the_shards_alone(toy: Path, run: Path, tmp_path: Path) -> None:
    before = bytes_of(run)
    merge(run, out=tmp_path / "joined", data=toy)
    assert bytes_of(run) == before
    assert said(tmp_path / "joined") == RIGHT


def test_what_was_merged_outlives_its_shards(toy: Path, run: Path) -> None:
    merge(run, data=toy)
    for name in ("shard-1-of-3", "shard-2-of-3"):
        shutil.rmtree(run / name)
    assert not merge(run, data=toy).missing["toy"]
    assert said(run) == RIGHT
    assert read_manifest(run).merged == ["shard-1-of-3", "shard-2-of-3", "shard-3-of-3"]


def test_a_shard_alone_is_refused_a_score(ahabench: Run, toy: Path, run: Path) -> None:
    done = ahabench("score", run / "shard-1-of-3", "--data", toy)
    assert done.code == 2
    assert f"is shard 1 of 3 and has no score of its own; join the shards with `ahabench merge {run}`" in done.error


def test_more_shards_than_clusters_leave_some_empty_and_nothing_missing(shard: Run, toy: Path, tmp_path: Path) -> None:
    for index in range(1, 6):
        assert shard(index, 5).code == 0
    assert sum(read_manifest(tmp_path / "run" / f"shard-{i}-of-5").tasks["toy"].n_items == 0 for i in range(1, 6)) == 2
    assert not merge(tmp_path / "run", data=toy).missing["toy"]


def test_shards_divide_a_limited_run(shard: Run, ahabench: Run, toy: Path, tmp_path: Path) -> None:
    for index in (1, 2):
        assert shard(index, 2, RIGHT, "--limit", 4).code == 0
    assert ahabench("merge", tmp_path / "run", "--data", toy).code == 0
    (row,) = json.loads(ahabench("score", tmp_path / "run", "--data", toy, "--json").out)
    assert (row["n_items"], row["missing"]) == (4, 0)


# What is missing.


def test_a_shard_that_is_not_there_is_named_with_its_items(ahabench: Run, toy: Path, run: Path) -> None:
    lost = said(run / "shard-2-of-3")
    shutil.rmtree(run / "shard-2-of-3")
    done = ahabench("merge", run, "--data", toy, "--json")
    assert done.code == 5
    first, second = sorted(lost)
    assert f"2 of 6 responses are missing, the first are toy item {first} sample 0, toy item {second}" in done.err
    assert "They belong to shard-2-of-3 (2): run these shards, then merge again" in done.err
    row = json.loads(done.out)
    assert (row["complete"], row["tasks"]["toy"]) == (False, {"n_responses": 4, "missing": 2})
    assert read_manifest(run).status == "incomplete"
    assert len(rows(run)) == 4


def test_a_shard_with_failures_is_incomplete_and_done_later(shard: Run, ahabench: Run, toy: Path, run: Path) -> None:
    shutil.rmtree(run / "shard-3-of-3")
    first = shard(3, 3, {})
    assert first.code == 5
    assert "shard-3-of-3 is incomplete; run the same command again" in first.err
    assert ahabench("merge", run, "--data", toy).code == 5
    assert sum(row["response"] is None for row in rows(run)) == 2
    assert shard(3, 3).code == 0
    assert ahabench("merge", run, "--data", toy).code == 0
    assert said(run) == RIGHT


def test_a_merged_run_with_holes_goes_on_undivided(ahabench: Run, toy: Path, run: Path, tmp_path: Path) -> None:
    shutil.rmtree(run / "shard-2-of-3")
    merge(run, data=toy)
    engine = f"replay:{write(tmp_path / 'said.jsonl', RIGHT)}"
    done = ahabench("eval", "m", "--tasks", "toy", "--engine", engine, "--data", toy, "--out", run)
    assert done.code == 0, done.err
    assert "2 of 6 responses to generate" in done.err
    assert said(run) == RIGHT


def test_a_task_that_only_some_shards_were_asked_is_merged_with_what_is_missing(toy: Path, run: Path) -> None:
    shutil.rmtree(run / "shard-1-of-3" / "toy")
    change(run / "shard-1-of-3", tasks={})
    merged = merge(run, data=toy)
    assert (merged.n_responses, merged.lacking) == ({"toy": 4}, {"shard-1-of-3": 2})
    assert list(read_manifest(run).tasks) == ["toy"]


def test_new_responses_take_stale_scores_away(ahabench: Run, toy: Path, run: Path, tmp_path: Path) -> None:
    kept = tmp_path / "shard-2-of-3"
    (run / "shard-2-of-3").rename(kept)
    merge(run, data=toy)
    ahabench("score", run, "--data", toy, "--allow-missing")
    assert (run / "toy" / "metrics.json").exists()
    kept.rename(run / "shard-2-of-3")
    merge(run, data=toy)
    assert not (run / "toy" / "metrics.json").exists()
    assert not (run / "toy" / "verdicts.jsonl").exists()


def test_a_last_line_that_a_kill_tore_is_missing_and_no_damage(toy: Path, run: Path) -> None:
    log = run / "shard-1-of-3" / "toy" / "responses.jsonl"
    torn = log.read_bytes()[:-10]
    log.write_bytes(torn)
    assert len(merge(run, data=toy).missing["toy"]) == 1
    assert log.read_bytes() == torn


# What contradicts itself.


def test_equal_rows_in_two_shards_are_kept_once(toy: Path, run: Path) -> None:
    shutil.copytree(run / "shard-1-of-3", run / "shard-1-of-4")
    assert not merge(run, data=toy).missing["toy"]
    assert len(rows(run)) == 6


def test_rows_that_differ_are_refused_by_item_and_files_and_nothing_is_written(toy: Path, run: Path) -> None:
    copy = shutil.copytree(run / "shard-1-of-3", run / "shard-1-of-4") / "toy" / "responses.jsonl"
    lines = [json.loads(line) for line in copy.read_text().splitlines()]
    lines[1]["response"] += "0"
    copy.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UsageError, match=rf"item '{lines[1]['item_id']}', sample 0, stands in .*shard-1-of-3.* differ"):
        merge(run, data=toy)
    assert not (run / "run.json").exists()
    assert not (run / "toy").exists()


def test_a_text_takes_the_place_of_an_error_in_whatever_order(toy: Path, run: Path) -> None:
    for other in ("shard-1-of-2", "shard-1-of-4"):
        copy = shutil.copytree(run / "shard-1-of-3", run / other) / "toy" / "responses.jsonl"
        lines = [json.loads(line) | {"response": None, "error": "gone"} for line in copy.read_text().splitlines()]
        copy.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert not merge(run, data=toy).missing["toy"]
    assert said(run) == RIGHT


def test_a_row_that_belongs_to_no_item_is_refused(toy: Path, run: Path) -> None:
    with (run / "shard-1-of-3" / "toy" / "responses.jsonl").open("a") as log:
        log.write(json.dumps({"item_id": "z9", "response": "?"}) + "\n")
    with pytest.raises(UsageError, match=r"responses\.jsonl:3 answers item 'z9', sample 0, which the run has not"):
        merge(run, data=toy)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"model": {"name": "other"}}, "model.name 'm', .* with 'other'"),
        ({"sampling": {"samples": 1, "temperature": 0.7}}, "sampling.temperature None, .* with 0.7"),
        ({"system_prompt": "Think."}, "system_prompt '', .* with 'Think.'"),
        ({"engine": {"name": "vllm"}}, "engine 'replay', .* with 'vllm'"),
    ],
)
def test_shards_of_two_runs_are_refused_by_the_field_that_differs(
    toy: Path, run: Path, fields: dict[str, Any], field: str
) -> None:
    change(run / "shard-3-of-3", **fields)
    with pytest.raises(IncomparableRunsError, match=f"shard-1-of-3 was made with {field}"):
        merge(run, data=toy)


def test_shards_that_answered_other_data_are_refused(toy: Path, run: Path) -> None:
    tasks = read_manifest(run / "shard-1-of-3").model_dump()["tasks"]
    tasks["toy"]["data_digest"] = "ff"
    change(run / "shard-3-of-3", tasks=tasks)
    with pytest.raises(IncomparableRunsError, match="toy data_digest"):
        merge(run, data=toy)


def test_two_versions_of_an_engine_are_joined_only_where_that_is_allowed(ahabench: Run, toy: Path, run: Path) -> None:
    version = read_manifest(run / "shard-1-of-3").engine.version
    newer = EngineRecord(name="replay", version="99.0")
    change(run / "shard-3-of-3", engine=newer.model_dump())
    done = ahabench("merge", run, "--data", toy)
    assert done.code == 4
    assert f"replay version '{version}', {run}/shard-3-of-3 with '99.0'" in done.err
    assert ahabench("merge", run, "--data", toy, "--allow-mixed").code == 0
    manifest = read_manifest(run)
    assert (manifest.engine.version, manifest.mixed_engines) == (version, [newer])


# Where nothing must be lost.


def test_a_run_without_shards_is_refused(toy: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(UsageError, match="holds no shards"):
        merge(tmp_path / "run", data=toy)


def test_a_run_of_its_own_is_not_replaced(ahabench: Run, toy: Path, run: Path, tmp_path: Path) -> None:
    engine = f"replay:{write(tmp_path / 'said.jsonl', RIGHT)}"
    other = tmp_path / "other"
    ahabench("eval", "m", "--tasks", "toy", "--engine", engine, "--data", toy, "--out", other)
    before = bytes_of(other)
    with pytest.raises(UsageError, match="is a run of its own, which a merge would replace; give another --out"):
        merge(run, out=other, data=toy)
    assert bytes_of(other) == before


def test_responses_without_a_manifest_are_not_replaced(toy: Path, run: Path) -> None:
    (run / "toy").mkdir()
    (run / "toy" / "responses.jsonl").write_text("precious\n")
    with pytest.raises(UsageError, match=r"holds toy/responses\.jsonl but no run\.json"):
        merge(run, data=toy)
    assert (run / "toy" / "responses.jsonl").read_text() == "precious\n"


def test_a_second_shard_with_another_setting_is_refused_before_it_is_generated(shard: Run, tmp_path: Path) -> None:
    assert shard(1, 3).code == 0
    done = shard(2, 3, RIGHT, "--system-prompt", "Think.")
    assert done.code == 2
    assert "shard-1-of-3 was made with system_prompt '', this command has 'Think.'" in done.error
    assert not (tmp_path / "run" / "shard-2-of-3" / "toy").exists()


@pytest.mark.parametrize("text", ["0/3", "4/3", "x"])
def test_a_shard_that_there_is_not_is_refused_at_once(ahabench: Run, toy: Path, tmp_path: Path, text: str) -> None:
    done = ahabench(
        "eval", "m", "--tasks", "toy", "--data", toy, "--out", tmp_path / "run", "--shard", text, "--engine", "replay:x"
    )
    assert done.code == 2
    assert text in done.error
    assert not (tmp_path / "run").exists()
