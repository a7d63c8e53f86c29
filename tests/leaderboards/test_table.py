"""What stands in cells: means, gaps, marks and footnotes."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ahabench.leaderboards.build import build_board, mean_interval
from ahabench.leaderboards.collect import collect
from ahabench.leaderboards.exports import to_markdown
from ahabench.leaderboards.reported import misprinted, read_published
from ahabench.leaderboards.table import MEAN, SIX, Board, Cell, footnotes, size_group

MakeRun = Callable[..., Path]
Edit = Callable[[Path, Callable[[Any], None]], None]


def board(*runs: Path) -> Board:
    return build_board(collect(runs))


def cell(made: Board, name: str, column: str = "mathvista") -> Cell:
    return next(row for table in made.tables for row in table.rows if row.name == f"org/{name}").cells[column]


def test_the_mean_is_that_of_the_six(make_run: MakeRun) -> None:
    made = board(make_run("a", lambda number: number % 3 > 0, tasks=tuple(SIX)))
    values = [cell(made, "a", task).value for task in SIX]
    assert cell(made, "a", MEAN).value == pytest.approx(math.fsum(value or 0.0 for value in values) / 6)


def test_the_head_of_a_column_counts_what_its_numbers_are_shares_of(make_run: MakeRun) -> None:
    made = board(make_run("a", bool, tasks=tuple(SIX)[:5]))
    counted = {column.key: column.n for column in made.tables[0].columns}
    # 120 items each; DynaMath's are ten variants of twelve seeds, of which the worst case is a share.
    assert (counted["mathvista"], counted["dynamath"], counted["logicvista"]) == (120, 12, None)


def test_a_benchmark_that_was_not_run_is_no_zero_and_leaves_no_mean(make_run: MakeRun) -> None:
    made = board(make_run("a", bool, tasks=tuple(SIX)[:5]))
    assert (cell(made, "a", "logicvista").value, cell(made, "a", "logicvista").gap) == (None, "not run")
    assert (cell(made, "a", MEAN).value, cell(made, "a", MEAN).gap) == (None, "5 of 6 benchmarks")


def test_a_score_over_a_part_of_the_responses_is_not_shown(make_run: MakeRun, edit: Edit) -> None:
    run = make_run("a", bool)
    edit(run / "mathvista" / "metrics.json", lambda metrics: metrics.update(missing=3))
    assert cell(board(run), "a") == Cell(gap="3 responses missing")


def test_a_run_without_metrics_is_a_row_without_numbers(make_run: MakeRun) -> None:
    run = make_run("a", bool)
    (run / "mathvista" / "metrics.json").unlink()
    assert cell(board(run), "a").gap == "not scored"


def test_a_table_of_runs_that_are_not_scored_says_so(make_run: MakeRun) -> None:
    run = make_run("a", bool)
    (run / "mathvista" / "metrics.json").unlink()
    assert [table.title for table in board(run).tables] == ["Runs without scores"]


def test_tables_of_one_title_say_what_they_differ_in(make_run: MakeRun) -> None:
    made = board(make_run("a", bool), make_run("b", bool, style="official"))
    assert sorted(table.title for table in made.tables) == [
        "Built-in mini suite: prompt official@1",
        "Built-in mini suite: prompt think@1",
    ]


def test_one_item_of_120_does_not_tell_two_runs_apart(make_run: MakeRun) -> None:
    made = board(make_run("a", lambda n: n < 60), make_run("b", lambda n: n < 59))
    assert (cell(made, "a").best, cell(made, "b").best, cell(made, "b").tied) == (True, False, True)


def test_the_test_is_paired(make_run: MakeRun) -> None:
    # 60 against 45 of 120, all of the 45 among the 60: 15 items one way, none the other (p = 2 / 2**15), though the
    # intervals 50 ± 9.1 and 37.5 ± 8.8 overlap.
    made = board(make_run("a", lambda n: n < 60), make_run("b", lambda n: n < 45))
    first, second = cell(made, "a"), cell(made, "b")
    assert first.ci95 is not None
    assert second.ci95 is not None
    assert first.ci95[0] < second.ci95[1]
    assert (second.tied, second.paired) == (False, True)


def test_without_verdicts_the_test_is_not_paired_and_the_board_says_so(make_run: MakeRun) -> None:
    runs = [make_run("a", lambda n: n < 60), make_run("b", lambda n: n < 45)]
    (runs[1] / "mathvista" / "verdicts.jsonl").unlink()
    made = board(*runs)
    second = cell(made, "b")
    # 50 and 37.5 % of 120, each with its own error: sqrt(.5 * .5 / 119) = .0458, sqrt(.375 * .625 / 119) = .0444, so
    # z = .125 / .0638 = 1.96 and p = 0.05007: not told apart, though the paired test of the same runs tells them apart.
    assert second.p_holm == pytest.approx(math.erfc(0.125 / math.sqrt((0.25 + 0.234375) / 119) / math.sqrt(2)))
    assert (second.tied, second.paired) == (True, False)
    note = made.tables[0].note
    assert note is not None
    assert note.startswith("Not paired: MathVista. ")
    assert note in to_markdown(made).replace("\\", "")


def test_a_row_without_an_error_is_not_said_to_differ(make_run: MakeRun, edit: Edit) -> None:
    runs = [make_run("a", lambda n: n < 60), make_run("b", lambda n: n < 45)]
    (runs[1] / "mathvista" / "verdicts.jsonl").unlink()
    edit(runs[1] / "mathvista" / "metrics.json", lambda metrics: metrics["metrics"]["accuracy"].update(stderr=None))
    made = board(*runs)
    assert (cell(made, "b").tied, cell(made, "b").p_holm) == (False, None)
    assert made.tables[0].note == "Not tested: MathVista. A row there has no standard error, and may be a tie."


def test_paired_tables_have_no_note(make_run: MakeRun) -> None:
    assert board(make_run("a", lambda n: n < 60), make_run("b", lambda n: n < 45)).tables[0].note is None


def test_the_same_scores_on_other_items_are_equally_best(make_run: MakeRun) -> None:
    runs = [make_run("a", lambda n: n < 60), make_run("b", lambda n: n >= 60), make_run("c", lambda n: n < 10)]
    made = board(*runs)
    assert [cell(made, name).best for name in "abc"] == [True, True, False]


def test_nothing_is_best_where_all_are_equal(make_run: MakeRun) -> None:
    made = board(make_run("a", bool), make_run("b", bool))
    assert [cell(made, name).best for name in "ab"] == [False, False]


def test_clusters_are_paired_as_wholes(make_run: MakeRun) -> None:
    # DynaMath's worst case counts a seed only if all ten variants are right: one wrong variant each costs all of them.
    runs = [
        make_run("a", lambda n: True, tasks=("dynamath",)),
        make_run("b", lambda n: n % 10 > 0, tasks=("dynamath",)),
    ]
    made = board(*runs)
    assert (cell(made, "a", "dynamath").value, cell(made, "b", "dynamath").value) == (1.0, 0.0)
    assert (cell(made, "b", "dynamath").tied, cell(made, "b", "dynamath").paired) == (False, True)


def test_another_size_group_has_its_own_best(make_run: MakeRun) -> None:
    small = [make_run("s1-1B", lambda n: n < 20), make_run("s2-1B", lambda n: n < 5)]
    large = [make_run("l1-7B", lambda n: n < 90), make_run("l2-7B", lambda n: n < 40)]
    made = board(*small, *large)
    assert [cell(made, name).best for name in ("s1-1B", "s2-1B", "l1-7B", "l2-7B")] == [True, False, True, False]


@pytest.mark.parametrize(
    ("size", "group"),
    [(0.1, "≤4B"), (4.4, "≤4B"), (4.5, "≤8B"), (8.29, "≤8B"), (13.0, "≤16B"), (72.0, ">40B"), (None, "size not known")],
)
def test_sizes_are_grouped_by_whole_billions(size: float | None, group: str) -> None:
    assert size_group(size) == group


def test_the_interval_of_a_mean_keeps_its_parts_asymmetry() -> None:
    # Lower arms 0.0 and 0.3, upper arms 0.4 and 0.3: sqrt(0.3**2) / 2 = 0.15 and sqrt(0.16 + 0.09) / 2 = 0.25.
    parts = [Cell(value=0.0, ci95=(0.0, 0.4)), Cell(value=0.5, ci95=(0.2, 0.8))]
    assert mean_interval(parts) == pytest.approx((0.25 - 0.15, 0.25 + 0.25))


def test_a_difference_in_sampling_is_a_chip(make_run: MakeRun) -> None:
    made = board(make_run("a", bool), make_run("b", bool, temperature=0.7))
    assert [row.chips for row in made.tables[0].rows] == [("temperature 0.0",), ("temperature 0.7",)]


def test_the_share_of_responses_that_were_cut_off_is_shown(make_run: MakeRun) -> None:
    made = board(make_run("a", bool, finish="length"))
    assert made.tables[0].rows[0].length_limited == 1.0


def test_four_printed_means_are_wrong_in_the_tables_of_the_paper() -> None:
    # Table 4: 123.8 / 6 = 20.63 and 181.8 / 6 = 30.30; Table 3: the latter again, and 150.4 / 6 = 25.07.
    wrong = {
        (table.id, row.name): row.mean
        for table in read_published()
        for row in table.rows
        if misprinted(row, tuple(row.scores))
    }
    assert wrong == {
        ("vlaa-thinker-main", "VLAA-Thinker-Qwen2-2B"): 20.3,
        ("vlaa-thinker-main", "VLAA-Thinker-Qwen2-7B-Zero"): 30.7,
        ("vlaa-thinker-sft-grpo", "Qwen2-VL-7B-Base + GRPO"): 30.7,
        ("vlaa-thinker-sft-grpo", "Qwen2-VL-7B-Base + SFT 25K + GRPO"): 25.7,
    }


def test_a_wrong_mean_is_recomputed_and_footnoted() -> None:
    made = build_board([], read_published())
    row = next(row for row in made.tables[0].rows if row.name == "VLAA-Thinker-Qwen2-2B")
    assert row.cells[MEAN].value == pytest.approx(1.238 / 6)
    assert row.cells[MEAN].footnote == "recomputed from the row's scores; Table 4 prints 20.3"


def test_reported_rows_say_so_and_are_never_marked() -> None:
    made = build_board([], read_published())
    for table in made.tables:
        assert table.source
        for row in table.rows:
            assert row.reported
            assert "reported, not run here" in row.chips
            assert not any(one.best or one.tied or one.ci95 for one in row.cells.values())


def test_what_a_source_says_of_its_rows_stands_in_footnotes() -> None:
    table = next(table for table in build_board([], read_published()).tables if table.id == "vlaa-thinker-sft")
    assert footnotes(table) == [
        "before SFT, from Table 4",
        "computed from Table 4 and the relative changes of Figure 3",
    ]


def test_every_reported_table_names_its_source_and_place() -> None:
    for one in read_published():
        assert re.match(r"https?://", one.source.url)
        assert re.match(r"(Table|Figure) \d", one.source.place)
        assert one.source.page
