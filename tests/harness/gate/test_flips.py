"""What changed item by item, and what moved beside the score."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ahabench.harness.gate.comparison import Comparison, Outcome

Make = Callable[..., Path]
Compared = Callable[..., Comparison]


def only_row(found: Comparison) -> dict[str, Any]:
    (row,) = found.rows
    return row.as_row()


def test_flips_have_both_responses(compared: Compared, mini_run: Make) -> None:
    found = compared(mini_run("a", [0]), mini_run("b", [1]))
    fixed, broken = found.tasks[0].flips
    assert (fixed.kind, broken.kind) == ("fixed", "broken")
    assert (fixed.a.status, fixed.b.status, fixed.b.extracted) == ("no_answer", "correct", fixed.gold)
    assert (broken.a.status, broken.b.text) == ("correct", "I cannot tell.")
    assert found.as_json()["flips"] == {"mathvista": {"fixed": [fixed.item_id], "broken": [broken.item_id]}}


def test_categories_count_the_flips_of_each_value(compared: Compared, mini_run: Make) -> None:
    found = compared(mini_run("a", range(0, 120, 3)), mini_run("b", range(0, 120, 4)))
    # Wrong in A alone: multiples of 3 but not of 4; in B alone: of 4 but not of 3.
    assert sum(flip.kind == "fixed" for flip in found.tasks[0].flips) == 30
    assert sum(flip.kind == "broken" for flip in found.tasks[0].flips) == 20
    by_tag = [one for one in found.tasks[0].categories if one.tag == "question_type"]
    assert (sum(one.fixed for one in by_tag), sum(one.broken for one in by_tag)) == (30, 20)
    assert sum(one.n for one in by_tag) <= 120


def test_a_score_that_moved_with_truncation_says_so(compared: Compared, mini_run: Make) -> None:
    cut = dict.fromkeys(range(24), "length")
    found = compared(mini_run("a"), mini_run("b", range(30), finish=cut))
    (note,) = only_row(found)["notes"]
    # 30 of 120 broken, 24 of them where B alone was cut off.
    assert note == (
        "truncation moved by +20.0 points; of the -25.0 points, -20.0 come from items whose truncation moved"
    )


def test_shifts_are_shown_and_decide_nothing(compared: Compared, mini_run: Make) -> None:
    found = compared(mini_run("a"), mini_run("b", finish=dict.fromkeys(range(60), "length"), tokens=30))
    shifts = {shift.name: (shift.a, shift.b) for shift in found.tasks[0].shifts}
    assert shifts == {"truncated": (0, 0.5), "no_answer": (0, 0), "tokens": (10, 30), "aha": (0, 0)}
    assert found.outcome is Outcome.PASS


def test_aha_shifts_are_known_where_both_sides_have_counts_by_one_lexicon(
    compared: Compared, mini_run: Make, change_verdicts: Callable[..., None]
) -> None:
    a, b = mini_run("a"), mini_run("b")
    change_verdicts(a, aha={"lexicon": "1", "moments": 0})
    change_verdicts(b, aha={"lexicon": "1", "moments": 2})
    found = {shift.name: (shift.a, shift.b) for shift in compared(a, b).tasks[0].shifts}
    assert found["aha"] == (0, 1)
    change_verdicts(b, aha={"lexicon": "2", "moments": 2})
    assert "aha" not in {shift.name for shift in compared(a, b).tasks[0].shifts}
