"""Named runs that are kept with their digests."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness.errors import IncompleteRunError, UsageError
from ahabench.harness.gate.baselines import list_baselines, set_baseline, verify_baseline
from ahabench.harness.gate.sides import open_side

Make = Callable[..., Path]
Run = Callable[..., Any]


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "baselines"


def keep(run: object, kept: Path, name: str = "main", **options: Any) -> Any:
    return set_baseline(open_side(str(run), baselines=kept), name, kept, **options)


def test_a_baseline_is_a_copy_with_the_digests_of_its_files(mini_run: Make, kept: Path) -> None:
    run = mini_run("a", range(5))
    made = keep(run, kept)
    copied = (kept / "main" / "a" / "mathvista" / "responses.jsonl").read_bytes()
    assert copied == (run / "mathvista" / "responses.jsonl").read_bytes()
    assert made.files["a/mathvista/responses.jsonl"] == hashlib.sha256(copied).hexdigest()
    assert sorted(made.files) == ["a/mathvista/responses.jsonl", "a/run.json"]
    assert (kept / "main" / "a" / "mathvista" / "metrics.json").exists()


def test_equal_runs_make_equal_digests_under_any_name(mini_run: Make, kept: Path) -> None:
    run = mini_run("a")
    assert keep(run, kept, "one").digest == keep(run, kept, "two").digest
    assert [one.name for one in list_baselines(kept)] == ["one", "two"]


def test_an_untouched_baseline_verifies(mini_run: Make, kept: Path) -> None:
    keep(mini_run("a"), kept)
    assert verify_baseline("main", kept).faults == ()


def test_verdicts_may_be_made_again(mini_run: Make, kept: Path) -> None:
    keep(mini_run("a"), kept)
    (kept / "main" / "a" / "mathvista" / "verdicts.jsonl").write_text("")
    assert verify_baseline("main", kept).faults == ()


def test_what_became_of_its_files_is_said(mini_run: Make, kept: Path) -> None:
    keep(mini_run("a", tasks={"mathvista": [], "logicvista": []}), kept)
    folder = kept / "main" / "a"
    (folder / "mathvista" / "responses.jsonl").unlink()
    with (folder / "logicvista" / "responses.jsonl").open("a") as file:
        file.write("\n")
    (folder / "wemath").mkdir()
    (folder / "wemath" / "responses.jsonl").touch()
    assert verify_baseline("main", kept).faults == (
        "a/mathvista/responses.jsonl is missing",
        "a/logicvista/responses.jsonl was changed",
        "a/wemath/responses.jsonl was added",
    )


def test_a_name_that_is_taken_is_kept_unless_told(mini_run: Make, kept: Path) -> None:
    first = keep(mini_run("a"), kept)
    with pytest.raises(UsageError, match=r"already; --replace takes its place"):
        keep(mini_run("b", [0]), kept)
    assert verify_baseline("main", kept).baseline == first
    assert keep(mini_run("c", [1]), kept, replace=True) == verify_baseline("main", kept).baseline
    assert not (kept / "main" / "a").exists()


def test_a_copy_that_fails_leaves_the_old_baseline(mini_run: Make, kept: Path) -> None:
    first = keep(mini_run("a"), kept)
    broken = mini_run("b")
    (broken / "mathvista" / "responses.jsonl").unlink()
    with pytest.raises(UsageError):
        keep(broken, kept, replace=True)
    assert [path.name for path in kept.iterdir()] == ["main"]
    assert verify_baseline("main", kept).baseline == first


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", ".hidden", "a b", "x" * 200])
def test_a_name_that_is_no_file_name_is_refused(mini_run: Make, kept: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is no name for a baseline"):
        keep(mini_run("a"), kept, name)


def test_an_incomplete_run_is_no_baseline(mini_run: Make, kept: Path) -> None:
    with pytest.raises(IncompleteRunError, match="is incomplete"):
        keep(mini_run("a", status="incomplete"), kept)


def test_an_unknown_baseline_is_an_error(mini_run: Make, kept: Path) -> None:
    keep(mini_run("a"), kept)
    with pytest.raises(UsageError, match=r"unknown baseline in .* 'mian'. Did you mean 'main'"):
        verify_baseline("mian", kept)


def test_a_damaged_file_of_digests_is_an_error(mini_run: Make, kept: Path) -> None:
    keep(mini_run("a"), kept)
    (kept / "main" / "baseline.json").write_text('{"name": "main"}')
    with pytest.raises(UsageError, match=r"baseline.json is damaged .*; set the baseline again"):
        list_baselines(kept)


def test_the_commands_keep_list_verify_and_compare(mini_run: Make, ahabench: Run, kept: Path) -> None:
    one, two = mini_run("a", [0]), mini_run("b", [0], sampling={"seed": 1})
    where = ("--baselines", kept)
    assert ahabench("baseline", "set", f"{one},{two}", "--name", "main", *where).code == 0
    (listed,) = json.loads(ahabench("baseline", "list", *where, "--json").out)
    assert (listed["name"], len(listed["files"])) == ("main", 4)
    assert ahabench("baseline", "verify", "main", *where).out == f"main  {listed['digest']}  as it was made\n"
    found = json.loads(ahabench("compare", "baseline:main", mini_run("c", [0]), *where, "--json").out)
    assert [Path(run).name for run in found["a"]] == ["a", "b"]
    assert found["rows"][0]["difference"] == 0


def test_verify_ends_with_2_where_something_changed(mini_run: Make, ahabench: Run, kept: Path) -> None:
    keep(mini_run("a"), kept)
    (kept / "main" / "a" / "run.json").write_text("{}")
    ran = ahabench("baseline", "verify", "main", "--baselines", kept)
    assert (ran.code, ran.error) == (2, "error: the baseline 'main' is not as it was made: a/run.json was changed\n")


def test_a_baseline_that_was_changed_is_not_compared_with(mini_run: Make, ahabench: Run, kept: Path) -> None:
    keep(mini_run("a"), kept)
    responses = kept / "main" / "a" / "mathvista" / "responses.jsonl"
    responses.write_text("".join(responses.read_text().splitlines(keepends=True)[::-1]))
    ran = ahabench("compare", "baseline:main", mini_run("b", range(24)), "--baselines", kept)
    why = "the baseline 'main' is not as it was made: a/mathvista/responses.jsonl was changed"
    assert (ran.code, ran.out, ran.error) == (2, "", f"error: {why}\n")


def test_another_baseline_that_is_damaged_does_no_harm(mini_run: Make, ahabench: Run, kept: Path) -> None:
    run = mini_run("a")
    keep(run, kept)
    keep(run, kept, "old")
    (kept / "old" / "baseline.json").write_text("{}")
    assert ahabench("compare", "baseline:main", run, "--margin", 3, "--baselines", kept).code == 0


def test_an_unknown_baseline_is_not_compared_with(mini_run: Make, ahabench: Run, kept: Path) -> None:
    keep(mini_run("a"), kept)
    ran = ahabench("compare", "baseline:mian", mini_run("b"), "--baselines", kept)
    assert (ran.code, "Did you mean 'main'?" in ran.error) == (2, True)


def test_where_there_is_no_baseline_the_way_to_one_is_named(mini_run: Make, ahabench: Run, kept: Path) -> None:
    ran = ahabench("compare", "baseline:main", mini_run("b"), "--baselines", kept)
    assert (ran.code, "holds no baseline 'main', nor any; make one with `ahabench baseline set`" in ran.error) == (
        2,
        True,
    )


def test_a_baseline_of_an_older_scorer_is_scored_anew(mini_run: Make, ahabench: Run, kept: Path) -> None:
    run = mini_run("a", range(12))
    metrics = run / "mathvista" / "metrics.json"
    metrics.write_text(metrics.read_text().replace('"robust@', '"robust@0'))
    verdicts = run / "mathvista" / "verdicts.jsonl"
    verdicts.write_text(verdicts.read_text().replace('"correct"', '"wrong"'))
    keep(run, kept)
    ran = ahabench("compare", "baseline:main", mini_run("b", range(12)), "--margin", 3, "--baselines", kept, "--json")
    row = json.loads(ran.out)["rows"][0]
    assert (row["a"], row["b"], row["verdict"]) == (0.9, 0.9, "PASS")
    assert "scored by robust@0" in ran.err
    assert verify_baseline("main", kept).faults == ()
