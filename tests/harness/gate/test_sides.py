"""A side's verdicts and its runs: older scorers, several seeds, several samples of an item."""

import hashlib
import json
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness import rescore
from ahabench.harness.errors import IncomparableRunsError, UsageError
from ahabench.harness.gate.comparison import Comparison, Outcome
from ahabench.harness.manifest import Manifest, read_manifest, write_manifest
from ahabench.harness.runlog import METRICS, RESPONSES, VERDICTS

Make = Callable[..., Path]
Compared = Callable[..., Comparison]
Change = Callable[..., None]


def only_row(found: Comparison) -> dict[str, Any]:
    (row,) = found.rows
    return row.as_row()


def recorded(run: Path) -> str:
    found: str = json.loads((run / "mathvista" / METRICS).read_text())["scorer"]
    return found


def test_verdicts_of_another_version_are_made_again_in_memory(
    compared: Compared, mini_run: Make, change_verdicts: Change, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = mini_run("a", range(10)), mini_run("b", range(10))
    change_verdicts(a, "robust@0", status="wrong")
    before = (a / "mathvista" / VERDICTS).read_bytes()
    row = only_row(compared(a, b))
    assert (row["a"], row["difference"]) == (110 / 120, 0)
    assert (a / "mathvista" / VERDICTS).read_bytes() == before
    assert "is scored by robust@0; scored with robust@" in capsys.readouterr().err


def test_a_run_without_verdicts_is_scored_in_memory(
    compared: Compared, mini_run: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    row = only_row(compared(mini_run("a", range(10), score=False), mini_run("b", range(10))))
    assert (row["a"], row["b"]) == (110 / 120, 110 / 120)
    assert "without current verdicts" in capsys.readouterr().err


def test_verdicts_that_do_not_cover_the_responses_are_made_again(compared: Compared, mini_run: Make) -> None:
    a, b = mini_run("a"), mini_run("b")
    path = a / "mathvista" / VERDICTS
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:100]))
    assert only_row(compared(a, b))["a"] == 1


def test_verdicts_that_cover_the_responses_are_taken(
    compared: Compared, mini_run: Make, change_verdicts: Change, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = mini_run("a"), mini_run("b")
    change_verdicts(a, recorded(a), status="wrong")
    assert only_row(compared(a, b))["a"] == 0
    assert capsys.readouterr().err == ""


def rewrite(run: Path, place: int, text: str, task: str = "mathvista") -> None:
    """Give another response to an item, as a run that was made again would have it."""
    path = run / task / RESPONSES
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[place]["response"] = text
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_metrics_say_what_they_were_made_of(mini_run: Make) -> None:
    folder = mini_run("a") / "mathvista"
    lines = sorted(
        hashlib.sha256(line).digest() for line in (folder / RESPONSES).read_bytes().splitlines(keepends=True)
    )
    metrics = json.loads((folder / METRICS).read_text())
    assert metrics["responses_sha256"] == hashlib.sha256(b"".join(lines)).hexdigest()
    assert metrics["verdicts_sha256"] == hashlib.sha256((folder / VERDICTS).read_bytes()).hexdigest()


def test_verdicts_on_other_responses_are_made_again(
    compared: Compared, mini_run: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = mini_run("a"), mini_run("b")
    rewrite(b, 0, "I cannot tell.")
    assert only_row(compared(a, b))["broken"] == 1
    assert "has verdicts that are not known to be of these responses" in capsys.readouterr().err


def forget(run: Path) -> None:
    """Make the metrics those of an ahabench that did not say what they were made of."""
    path = run / "mathvista" / METRICS
    row = json.loads(path.read_text())
    del row["responses_sha256"], row["verdicts_sha256"]
    path.write_text(json.dumps(row))


def test_verdicts_that_do_not_say_of_which_responses_they_are_are_made_again(
    compared: Compared, mini_run: Make, change_verdicts: Change
) -> None:
    a, b = mini_run("a"), mini_run("b")
    change_verdicts(a, recorded(a), status="wrong")
    forget(a)
    assert only_row(compared(a, b))["a"] == 1


def test_a_scoring_that_was_interrupted_between_its_files_is_not_taken_for_another(
    compared: Compared, mini_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = mini_run("a"), mini_run("b", texts={0: "2 or 3"})

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = only_row(compared(a, b))
    monkeypatch.setattr(rescore, "write_metrics", interrupted)
    for run in (a, b):
        with pytest.raises(KeyboardInterrupt):
            rescore.score_run(run, scorer="vlmevalkit", data=None)
        assert recorded(run).startswith("robust@")
    assert only_row(compared(a, b)) == before


def test_two_scorers_are_not_compared_unless_one_is_chosen(
    compared: Compared, mini_run: Make, change_verdicts: Change
) -> None:
    a, b = mini_run("a"), mini_run("b")
    change_verdicts(a, "vlmevalkit@1", status="wrong")
    found = compared(a, b)
    assert [guard.guard for guard in found.mismatches] == ["scorer"]
    chosen = compared(a, b, scorer="robust")
    assert (chosen.outcome, only_row(chosen)["a"]) == (Outcome.PASS, 1)


def with_judge(run: Path) -> Path:
    judge = {"judge": {"model": "j", "url": "http://j/v1", "prompt_version": 1}}
    write_manifest(run, Manifest.model_validate(read_manifest(run).model_dump() | judge))
    return run


def test_a_judges_old_verdicts_are_not_made_again_without_it(
    compared: Compared, mini_run: Make, change_verdicts: Change
) -> None:
    a, b = with_judge(mini_run("a")), with_judge(mini_run("b"))
    change_verdicts(a, "robust@0", status="wrong")
    with pytest.raises(IncomparableRunsError, match="are by robust@0 and a judge, wanted robust@"):
        compared(a, b)


def test_a_judges_verdicts_on_other_responses_are_refused(compared: Compared, mini_run: Make) -> None:
    a, b = with_judge(mini_run("a")), with_judge(mini_run("b"))
    rewrite(b, 0, "I cannot tell.")
    with pytest.raises(
        IncomparableRunsError, match=r"are by robust@\d+, on other responses, and a judge, wanted robust@"
    ):
        compared(a, b)


def test_a_judges_verdicts_of_an_older_ahabench_are_taken(
    compared: Compared, mini_run: Make, change_verdicts: Change
) -> None:
    a, b = with_judge(mini_run("a")), with_judge(mini_run("b"))
    change_verdicts(a, recorded(a), status="wrong")
    forget(a)
    assert only_row(compared(a, b))["a"] == 0


def test_damaged_verdicts_are_an_error(compared: Compared, mini_run: Make) -> None:
    a, b = mini_run("a"), mini_run("b")
    (a / "mathvista" / VERDICTS).write_text("{}\n")
    with pytest.raises(UsageError, match=r"verdicts.jsonl is damaged .*; delete it and run `ahabench score` again"):
        compared(a, b)


def test_several_runs_of_a_side_are_its_seeds(compared: Compared, mini_run: Make) -> None:
    for number, wrong in enumerate((10, 20, 30)):
        mini_run(f"seeds/{number}", range(wrong), sampling={"seed": number})
    a, folder = mini_run("a"), mini_run("seeds/0", range(10)).parent
    row = only_row(compared(a, folder))
    # The mean of 110, 100 and 90 of 120; the spread between runs is far beyond luck.
    assert row["b"] == pytest.approx(100 / 120)
    assert 0 < row["stderr_runs"] < row["stderr"]
    assert any("the choice of runs makes" in text for text in row["notes"])
    assert row["test"] == "clustered t"


def test_several_runs_are_given_with_commas(compared: Compared, mini_run: Make) -> None:
    a, b, c = mini_run("a"), mini_run("b", [0]), mini_run("c", [1])
    found = compared(a, f"{b},{c}")
    assert (found.a, found.b) == ((str(a),), (str(b), str(c)))
    assert only_row(found)["b"] == pytest.approx(119 / 120)


def test_no_number_of_items_makes_up_for_too_few_runs(compared: Compared, mini_run: Make) -> None:
    a = f"{mini_run('a1')},{mini_run('a2', range(30))}"
    b = f"{mini_run('b1')},{mini_run('b2', range(36))}"
    row = only_row(compared(a, b))
    assert (row["verdict"], row["n_needed"]) == ("INCONCLUSIVE", None)
    assert "no number of items would decide: the runs of a side differ too much; add runs" in row["notes"]


def test_runs_of_one_side_must_be_alike_too(compared: Compared, mini_run: Make) -> None:
    a, b = mini_run("a"), mini_run("b")
    c = mini_run("c", engine={"version": "0.33.0"})
    assert compared(f"{a},{c}", b).outcome is Outcome.NOT_COMPARABLE


def test_copies_of_one_run_are_said_to_be_copies(compared: Compared, mini_run: Make) -> None:
    a, b = mini_run("a"), mini_run("b")
    copy = shutil.copytree(b, b.parent / "copy")
    assert any("runs of B share weights and sampling seed" in text for text in compared(a, f"{b},{copy}").notes)


def test_a_run_given_twice_is_refused(compared: Compared, mini_run: Make) -> None:
    a, b = mini_run("a"), mini_run("b")
    with pytest.raises(UsageError, match="names a run twice"):
        compared(f"{a},{a}", b)


@pytest.mark.parametrize("text", ["", " ", "{a},", "{a},,{b}"])
def test_a_side_that_is_empty_is_not_the_folder_at_hand(
    compared: Compared, mini_run: Make, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    a, b = mini_run("a"), mini_run("b")
    # As in a job whose variable is not set.
    monkeypatch.chdir(a.parent)
    with pytest.raises(UsageError, match="names no run where it is empty"):
        compared(a, text.format(a=a, b=b))


def test_a_shard_is_refused(compared: Compared, mini_run: Make) -> None:
    shard = mini_run("b", shard={"index": 1, "count": 2}, score=False)
    with pytest.raises(UsageError, match="is shard 1 of 2; join the shards"):
        compared(mini_run("a"), shard)


def test_a_folder_without_runs_is_refused(compared: Compared, mini_run: Make, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="is no run and holds none"):
        compared(mini_run("a"), tmp_path / "empty")


def test_several_samples_are_averaged_within_their_item_and_said(compared: Compared, mini_run: Make) -> None:
    a = mini_run("a", samples=4)
    b = mini_run("b", [(0, 0), (0, 1), (1, 0), *((2, sample) for sample in range(4))], samples=4)
    row = only_row(compared(a, b))
    assert row["difference"] == pytest.approx(-(0.5 + 0.25 + 1) / 120)
    # The standard error of a mean of 120 item means: -0.5, -0.25, -1 and 117 times 0.
    differences = [-0.5, -0.25, -1, *[0.0] * 117]
    assert row["stderr"] == pytest.approx(statistics.stdev(differences) / 120**0.5)
    # Item 2 alone is wrong in more than half of its samples; item 0 is right in just half, which is not more.
    assert (row["n"], row["samples"], row["broken"], row["test"]) == (120, 4, 2, "clustered t")
    assert "4 responses to an item: each item counts once, and their spread is part of the interval" in row["notes"]


def test_a_metric_of_several_samples_can_be_compared(compared: Compared, mini_run: Make) -> None:
    a, b = mini_run("a", samples=4), mini_run("b", [(0, 0)], samples=4)
    found = compared(a, b, metrics=["mathvista:pass@4"])
    assert [(row.metric, row.found and row.found.value) for row in found.rows] == [
        ("accuracy", pytest.approx(-1 / 480)),
        ("pass@4", 0),
    ]


def test_other_numbers_of_samples_are_not_compared(compared: Compared, mini_run: Make) -> None:
    found = compared(mini_run("a", samples=2), mini_run("b", samples=4))
    assert [guard.field for guard in found.mismatches] == ["sampling.samples"]
