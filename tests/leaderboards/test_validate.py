"""What is found wrong with a submitted run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness.errors import UsageError
from ahabench.leaderboards.collect import collect
from ahabench.leaderboards.validate import validate

MakeRun = Callable[..., Path]
Edit = Callable[[Path, Callable[[Any], None]], None]


def problems(run: Path) -> str:
    (found,) = validate(run)
    assert not found.ok
    return "\n".join((*found.problems, *found.unchecked))


def change_lines(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))


def test_an_honest_run_is_taken(run: Path) -> None:
    (found,) = validate(run)
    assert found.as_row() == {
        "run": "a",
        "ok": True,
        "problems": [],
        "unchecked": [],
        "notes": [],
        "tasks": {"mathvista": "scores again to what is claimed"},
    }


def test_a_claimed_score_is_scored_again(run: Path, edit: Edit) -> None:
    edit(run / "mathvista" / "metrics.json", lambda metrics: metrics["metrics"]["accuracy"].update(value=0.9))
    assert problems(run) == "mathvista: metrics in metrics.json is not what the responses give"


def test_a_verdict_that_was_turned_is_found(run: Path) -> None:
    def turn(lines: list[str]) -> list[str]:
        return [line.replace('"no_answer"', '"correct"') for line in lines]

    path = run / "mathvista" / "verdicts.jsonl"
    wrong = path.read_text().count('"no_answer"')
    assert wrong
    change_lines(path, turn)
    assert f"{wrong} verdicts are not what the responses give" in problems(run)


def test_a_response_that_is_missing_is_found(run: Path) -> None:
    change_lines(run / "mathvista" / "responses.jsonl", lambda lines: lines[:-1])
    assert problems(run) == "mathvista: 1 responses are missing, the first is item mini-vista-120 sample 0"


def test_a_response_that_stands_twice_is_found(run: Path) -> None:
    change_lines(run / "mathvista" / "responses.jsonl", lambda lines: [*lines, lines[0]])
    assert "repeats item" in problems(run)


def test_other_items_are_found(run: Path, edit: Edit) -> None:
    edit(run / "run.json", lambda manifest: manifest["tasks"]["mathvista"].update(data_digest="f" * 64))
    assert "answered other items" in problems(run)


def test_another_version_of_the_scorer_is_found(run: Path, edit: Edit) -> None:
    edit(run / "mathvista" / "metrics.json", lambda metrics: metrics.update(scorer="robust@0"))
    assert "scored by robust@0" in problems(run)


def test_a_strange_file_is_found(run: Path) -> None:
    (run / "mathvista" / "weights.bin").touch()
    assert problems(run) == "mathvista/weights.bin is no file of a run"


def test_a_link_is_found(run: Path, tmp_path: Path) -> None:
    path = run / "mathvista" / "metrics.json"
    path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    assert "is a link" in problems(run)


@pytest.mark.parametrize("name", ["status", "model", "sampling"])
def test_a_manifest_that_says_too_little_is_found(run: Path, edit: Edit, name: str) -> None:
    edit(
        run / "run.json", lambda manifest: manifest.update({"status": "incomplete"} if name == "status" else {name: {}})
    )
    assert "run.json: " in problems(run)


def test_a_damaged_row_is_a_finding_and_no_traceback(run: Path) -> None:
    change_lines(run / "mathvista" / "responses.jsonl", lambda lines: [*lines[:-1], "{"])
    assert "is not JSON" in problems(run)


def test_an_unknown_key_of_a_card_is_found(run: Path) -> None:
    (run / "model.toml").write_text('name = "A"\nrank = 1\n')
    assert "rank" in problems(run)


def test_items_that_are_not_at_hand_leave_a_run_unchecked(
    run: Path, edit: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        from ahabench.harness.errors import DatasetError

        raise DatasetError("no hub here")

    monkeypatch.setattr("ahabench.harness.rescore.load", offline)
    (found,) = validate(run)
    assert (found.problems, len(found.unchecked), found.ok) == ([], 1, False)


def test_a_folder_of_runs_is_checked_run_by_run(run: Path, make_run: MakeRun) -> None:
    make_run("b", bool)
    assert [(found.run, found.ok) for found in validate(run.parent)] == [("a", True), ("b", False)]


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds none"):
        validate(tmp_path)


def test_a_folder_of_runs_may_hold_nothing_else(run: Path, tmp_path: Path) -> None:
    (run.parent / "b").mkdir()
    (run.parent / "c").symlink_to(tmp_path)
    (run.parent / "README.md").touch()
    found = {one.run: one.problems for one in validate(run.parent)}
    assert found["a"] == []
    assert "has no run.json" in found["b"][0]
    assert found["c"] == ["c is a link; a run is a folder of plain files"]
    assert found["README.md"] == ["README.md is no folder; a folder of runs holds nothing but runs"]


def test_a_hidden_run_is_refused_and_not_built(run: Path, make_run: MakeRun) -> None:
    make_run(".evil", bool)
    found = {one.run: one.problems for one in validate(run.parent)}
    assert found == {"a": [], ".evil": [".evil is hidden; a run is a folder that everybody sees"]}
    assert [one.slug for one in collect([run.parent])] == ["a"]


def rewrite(path: Path, number: int, **changes: object) -> None:
    """Change one row of a JSONL file."""
    lines = path.read_text().splitlines()
    lines[number] = json.dumps({**json.loads(lines[number]), **changes})
    path.write_text("\n".join(lines) + "\n")


def test_a_response_that_was_turned_is_found(run: Path) -> None:
    gold = json.loads((run / "mathvista" / "responses.jsonl").read_text().splitlines()[0])["response"]
    rewrite(run / "mathvista" / "responses.jsonl", 0, response=f"{gold} no")
    assert "mathvista: 1 verdicts are not what the responses give" in problems(run)


def test_aha_moments_that_nobody_said_are_found(run: Path) -> None:
    path = run / "mathvista" / "verdicts.jsonl"
    aha = json.loads(path.read_text().splitlines()[0])["aha"]
    rewrite(path, 0, aha={**aha, "moments": 7})
    assert "1 verdicts are not what the responses give, the first is item mini-vista-1 sample 0: aha" in problems(run)


def test_a_verdict_that_stands_twice_is_found(run: Path) -> None:
    change_lines(run / "mathvista" / "verdicts.jsonl", lambda lines: [*lines, lines[0]])
    assert problems(run).endswith("verdicts.jsonl:121 repeats item 'mini-vista-1', sample 0")


@pytest.mark.parametrize("index", [[1], None, "0", True])
def test_a_verdict_without_a_key_is_found(run: Path, index: object) -> None:
    # Boards do not count the status "error", and so do not look at its key.
    rewrite(run / "mathvista" / "verdicts.jsonl", 0, status="error", sample_index=index)
    assert "is no verdict" in problems(run)


@pytest.mark.parametrize("name", ["aha", "bounds", "rates", "tokens", "breakdown", "prompt", "n_items"])
def test_every_claim_is_checked(run: Path, edit: Edit, name: str) -> None:
    edit(run / "mathvista" / "metrics.json", lambda metrics: metrics.pop(name))
    assert name in problems(run)


def test_the_items_of_the_manifest_are_counted(run: Path, edit: Edit) -> None:
    edit(run / "run.json", lambda manifest: manifest["tasks"]["mathvista"].update(n_items=10**30))
    assert "there are 120" in problems(run)


def test_a_prompt_that_nobody_knows_is_found(run: Path, edit: Edit) -> None:
    edit(run / "run.json", lambda manifest: manifest["tasks"]["mathvista"]["prompt"].update(version=99))
    assert "asked in think@99; this ahabench has " in problems(run)


def test_a_folder_that_the_manifest_does_not_name_is_found(run: Path) -> None:
    (run / "wemath").mkdir()
    assert problems(run) == "wemath/ is no benchmark that run.json names"


def test_a_run_of_a_newer_ahabench_is_refused_in_one_line(run: Path, edit: Edit) -> None:
    edit(run / "run.json", lambda manifest: manifest.update(schema_version=2))
    assert problems(run).endswith("run.json has schema_version 2, this ahabench reads 1; upgrade ahabench")


@pytest.mark.parametrize("samples", [10**12, -1, 0])
def test_an_absurd_number_of_samples_costs_nothing(run: Path, edit: Edit, samples: int) -> None:
    edit(run / "run.json", lambda manifest: manifest["sampling"].update(samples=samples))
    assert problems(run) == f"run.json: sampling.samples is {samples:,}, wanted 1 to 1,024"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.json", "[" * 900_000),
        ("mathvista/metrics.json", '{"a":' * 100_000 + "1" + "}" * 100_000),
        ("mathvista/verdicts.jsonl", "[" * 900_000),
        ("mathvista/responses.jsonl", "[" * 900_000),
        ("model.toml", "name=" + "[" * 9_000),
    ],
)
def test_deep_nesting_is_a_finding_and_no_traceback(run: Path, name: str, text: str) -> None:
    (run / name).write_text(text)
    assert problems(run).count("\n") == 0


def test_more_responses_than_items_are_not_read_to_the_end(run: Path) -> None:
    rows = (f'{{"item_id": "mini-vista-1", "sample_index": {n}, "response": "x"}}\n' for n in range(1_000))
    (run / "mathvista" / "responses.jsonl").write_text("".join(rows))
    assert problems(run).endswith("has more than the 120 responses that its items have")


def test_a_submission_cannot_fill_the_screen(run: Path) -> None:
    for number in range(50):
        (run / f"{number}-{'x' * 200}").touch()
    (found,) = validate(run)
    assert (len(found.problems), found.problems[-1]) == (21, "and 30 more")


def test_what_is_quoted_is_shortened(run: Path, edit: Edit) -> None:
    edit(run / "run.json", lambda manifest: manifest["tasks"].update({"x" * 10_000: manifest["tasks"]["mathvista"]}))
    assert len(problems(run)) <= 401


def test_nothing_is_written(run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    validate(run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert json.loads((run / "run.json").read_text())["status"] == "complete"
