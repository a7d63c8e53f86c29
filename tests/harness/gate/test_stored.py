"""Runs that hold verdicts alone, as `ahabench board strip` leaves them, and verdicts that are damaged."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness.errors import IncomparableRunsError, UsageError
from ahabench.harness.gate.comparison import Comparison
from ahabench.harness.runlog import METRICS, RESPONSES, VERDICTS

Make = Callable[..., Path]
Compared = Callable[..., Comparison]
Run = Callable[..., Any]
Strip = Callable[[Path], Path]
CLUSTERED = {"mathvista": range(9), "dynamath": [0, 1], "wemath": [0, 4, 5], "mathverse": range(30)}
OTHERS = {"mathvista": range(5, 20), "dynamath": range(0, 120, 9), "wemath": [4, 9], "mathverse": range(8)}


@pytest.fixture
def strip(ahabench: Run, tmp_path: Path) -> Strip:
    def stripped(run: Path) -> Path:
        out = tmp_path / f"stripped-{run.name}"
        assert ahabench("board", "strip", run, "--out", out).code == 0
        return out

    return stripped


def rows(found: Comparison) -> list[dict[str, Any]]:
    return [row.as_row() for row in found.rows]


def change(path: Path, line: int, text: str) -> None:
    lines = path.read_text().splitlines(keepends=True)
    lines[line - 1] = text
    path.write_text("".join(lines))


def test_stripped_runs_compare_as_the_runs_do(compared: Compared, mini_run: Make, strip: Strip) -> None:
    a, b = mini_run("a", tasks=CLUSTERED), mini_run("b", tasks=OTHERS)
    whole = compared(a, b, metrics=["dynamath:average"])
    assert all(row.found and row.found.value for row in whole.rows)
    bare_a, bare_b = strip(a), strip(b)
    for sides in ((bare_a, b), (a, bare_b), (bare_a, bare_b)):
        found = compared(*sides, metrics=["dynamath:average"])
        assert rows(found) == rows(whole)
        assert [task.categories for task in found.tasks] == [task.categories for task in whole.tasks]
        assert found.as_json()["flips"] == whole.as_json()["flips"]
        stripped = [side for side in sides if "stripped" in side.name]
        notes = [text for text in found.notes if "holds no responses" in text]
        assert [text.split()[0] for text in notes] == list(map(str, stripped))


def test_aha_moments_of_stripped_runs_are_of_the_lexicon_that_their_metrics_name(
    compared: Compared, mini_run: Make, strip: Strip
) -> None:
    a = mini_run("a")
    b = mini_run("b", texts={0: "It is 3. Wait, let me check that again. <answer>4</answer>"})
    wanted = {shift.name: shift.b for shift in compared(a, b).tasks[0].shifts}["aha"]
    stripped = strip(b)
    assert {shift.name: shift.b for shift in compared(a, stripped).tasks[0].shifts}["aha"] == wanted == 1 / 120
    metrics = json.loads((stripped / "mathvista" / METRICS).read_text())
    metrics["aha"]["lexicon"] = "another"
    (stripped / "mathvista" / METRICS).write_text(json.dumps(metrics))
    assert "aha" not in {shift.name for shift in compared(a, stripped).tasks[0].shifts}


def test_truncation_is_counted_alike_on_both_sides(compared: Compared, mini_run: Make, strip: Strip) -> None:
    # All of them ended at the limit, and all but the first two with an answer all the same.
    ended = dict.fromkeys(range(10), "length")
    a, b = mini_run("a", range(2), finish=ended), mini_run("b", range(2), finish=ended)
    for sides, share in (((a, b), 10 / 120), ((strip(a), b), 2 / 120)):
        (shift,) = (shift for shift in compared(*sides).tasks[0].shifts if shift.name == "truncated")
        assert (shift.a, shift.b) == (share, share)


def test_flips_of_stripped_runs_are_printed_without_texts(
    mini_run: Make, ahabench: Run, strip: Strip, tmp_path: Path
) -> None:
    sides = strip(mini_run("a")), strip(mini_run("b", range(40)))
    ran = ahabench("compare", *sides, "--flips", 1, "--markdown", tmp_path / "m.md", "--html", tmp_path / "page")
    assert ran.code == 1
    lines = ran.out.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("  broken: item"))
    assert lines[place + 1 : place + 3] == ["    A correct", "    B no_answer"]
    text = (tmp_path / "m.md").read_text()
    assert "A: correct\n\nB: no&#95;answer\n\n" in text
    assert "```" not in text
    assert (tmp_path / "page" / "index.html").exists()


def test_a_stripped_run_of_another_scorer_is_not_compared(
    compared: Compared, mini_run: Make, change_verdicts: Callable[..., None], strip: Strip
) -> None:
    a, b = mini_run("a"), mini_run("b")
    with pytest.raises(IncomparableRunsError, match=r"by robust@\d+, wanted vlmevalkit@\d+, .* holds no responses"):
        compared(strip(a), b, scorer="vlmevalkit")
    change_verdicts(b, "robust@0")
    with pytest.raises(IncomparableRunsError, match=r"by robust@0, wanted robust@[1-9]\d*, .* holds no responses"):
        compared(a, strip(b))


def test_a_vote_among_answers_needs_answers(compared: Compared, mini_run: Make, strip: Strip) -> None:
    a, b = mini_run("a", samples=4), mini_run("b", [(0, 0)], samples=4)
    stripped = strip(b)
    assert len(compared(a, stripped, metrics=["mathvista:pass@4"]).rows) == 2
    with pytest.raises(UsageError, match=r"maj@4 is a vote among answers, and .*stripped-b holds verdicts alone"):
        compared(a, stripped, metrics=["mathvista:maj@4"])


def test_verdicts_alone_must_come_to_the_headline_beside_them(compared: Compared, mini_run: Make, strip: Strip) -> None:
    a, b = mini_run("a"), strip(mini_run("b"))
    change(b / "mathvista" / VERDICTS, 5, '{"item_id": "mini-vista-5", "sample_index": 0, "status": "wrong"}\n')
    with pytest.raises(UsageError, match=r"comes to accuracy 0\.99\d*, and metrics\.json beside it says 1\.0"):
        compared(a, b)


@pytest.mark.parametrize(
    ("headline", "why"),
    [("NaN", "metrics.json beside it says nan"), ("{}", "metrics.json is damaged"), ('"x"', "metrics.json is damaged")],
)
def test_a_headline_that_is_no_number_proves_nothing(
    compared: Compared, mini_run: Make, strip: Strip, headline: str, why: str
) -> None:
    a, b = mini_run("a"), strip(mini_run("b"))
    path = b / "mathvista" / METRICS
    path.write_text(path.read_text().replace('"value": 1.0', f'"value": {headline}'))
    with pytest.raises(UsageError, match=why):
        compared(a, b)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{}\n", "line 2: no 'status'"),
        ('{"item_id": "mini-vista-2", "status": "correct"}\n', "line 2: no 'sample_index'"),
        ('{"item_id": "x", "sample_index": 1e999, "status": "correct"}\n', "line 2: cannot convert float infinity"),
        ('{"item_id": "x", "sample_index": NaN, "status": "correct"}\n', "line 2: cannot convert float NaN"),
        ('{"item_id": "mini-vista-1", "sample_index": 0, "status": "correct"}\n', "1 rows repeat another's item"),
        ('{"item_id": "mini-vi', "line 2: "),
        ("\n", "line 2: "),
        ("[" * 100_000 + "\n", "line 2: "),
    ],
)
def test_the_advice_on_damaged_verdicts_costs_no_only_copy(
    compared: Compared, mini_run: Make, strip: Strip, line: str, why: str
) -> None:
    a, b = mini_run("a"), mini_run("b")
    alone = strip(b)
    for run, advice in ((b, "delete it and run `ahabench score` again"), (alone, "take the run anew")):
        change(run / "mathvista" / VERDICTS, 2, line)
        with pytest.raises(UsageError) as refused:
            compared(a, run)
        assert why in str(refused.value)
        assert advice in str(refused.value)
    assert "delete" not in str(refused.value)


def test_a_baseline_is_made_of_responses(mini_run: Make, ahabench: Run, strip: Strip, tmp_path: Path) -> None:
    run = strip(mini_run("a"))
    ran = ahabench("baseline", "set", run, "--name", "main", "--baselines", tmp_path / "kept")
    assert (ran.code, ran.out) == (2, "")
    assert "holds no responses to mathvista" in ran.error
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_run_without_responses_and_verdicts_is_refused(compared: Compared, mini_run: Make) -> None:
    a, b = mini_run("a"), mini_run("b", score=False)
    (b / "mathvista" / RESPONSES).unlink()
    with pytest.raises(UsageError, match=r"responses\.jsonl cannot be read: No such file"):
        compared(a, b)
