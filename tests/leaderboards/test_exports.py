"""The board in other formats, whatever names contain."""

import csv
import io
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from ahabench.leaderboards.build import build_board
from ahabench.leaderboards.collect import collect
from ahabench.leaderboards.exports import to_csv, to_json, to_markdown
from ahabench.leaderboards.latex import to_latex
from ahabench.leaderboards.reported import read_published
from ahabench.leaderboards.table import Board

MakeRun = Callable[..., Path]


@pytest.fixture
def board(make_run: MakeRun) -> Board:
    first = make_run("a", lambda number: number < 60, model="=1+1|<b>_x_\\")
    second = make_run("b", lambda number: number < 59, model='[1pt]* 100% & ~more~ $x^2$ {} "so"')
    return build_board(collect([first, second]), read_published())


def test_json_has_fractions_and_marks(board: Board) -> None:
    rows = json.loads(to_json(board))["tables"][0]["rows"]
    assert [(row["cells"]["mathvista"]["value"], row["cells"]["mathvista"]["tied"]) for row in rows] == [
        (0.5, False),
        (59 / 120, True),
    ]


def test_a_cell_of_csv_is_no_formula(board: Board) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(board))))
    assert rows[0]["model"] == "'=1+1|<b>_x_\\"
    assert not [value for row in rows for value in row.values() if value.startswith(("=", "+", "@"))]


def test_a_data_frame_has_numbers_and_truth_values(board: Board) -> None:
    frame = pd.read_csv(io.StringIO(to_csv(board)))
    numbers = ["value", "ci95_low", "ci95_high", "n", "p_holm", "aha", "length_limited", "no_answer"]
    assert {str(frame[name].dtype) for name in numbers} == {"float64"}
    assert {str(frame[name].dtype) for name in ("reported", "best", "tied")} == {"bool"}


def test_a_missing_value_of_csv_is_empty(board: Board) -> None:
    rows = [row for row in csv.DictReader(io.StringIO(to_csv(board))) if row["column"] == "wemath"]
    assert (rows[0]["value"], rows[0]["why_missing"]) == ("", "not run")


def test_names_do_not_break_a_markdown_table(board: Board) -> None:
    line = next(line for line in to_markdown(board).splitlines() if "1\\+1" in line)
    assert line.startswith("| =1\\+1\\|\\<b\\>\\_x\\_\\\\ |")
    # 12 columns: name, size, mean, six benchmarks, three rates; no row says a base or a date.
    assert line.replace("\\|", "").count("|") == 13


@pytest.mark.parametrize("end", ["\n", "\r", "\u2028", "\u202e"])
def test_a_name_is_one_line_of_markdown_and_reads_from_left_to_right(make_run: MakeRun, end: str) -> None:
    text = to_markdown(build_board(collect([make_run("a", bool, model=f"one{end}two")])))
    (line,) = [line for line in text.splitlines() if "one" in line and "two" in line]
    assert end not in line


def test_markdown_says_of_which_split_the_columns_are(board: Board) -> None:
    assert "Splits: MathVista mini \\(n 120\\)." in to_markdown(board).splitlines()


def test_markdown_marks_the_best_and_what_is_not_told_apart(board: Board) -> None:
    text = to_markdown(board)
    assert "| **50.0 ±9.1** |" in text
    assert "| 49.2 ±9.1 ≈ |" in text


def test_latex_escapes_what_it_would_obey(board: Board) -> None:
    assert r"100\% \& \textasciitilde{}more\textasciitilde{} \$x\textasciicircum{}2\$ \{\}" in to_latex(board)


def test_latex_begins_no_row_with_what_a_line_end_takes_for_its_argument(board: Board) -> None:
    assert r"{[}1pt]{*} 100\% " in to_latex(board)


def test_latex_has_a_rule_above_and_below_every_table(board: Board) -> None:
    text = to_latex(board)
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == len(board.tables)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX on this machine")
@pytest.mark.parametrize("encoding", ["OT1", "T1"])
def test_latex_compiles_with_the_two_packages_that_it_names(board: Board, tmp_path: Path, encoding: str) -> None:
    (tmp_path / "x.tex").write_text(
        f"\\documentclass{{article}}\\usepackage[{encoding}]{{fontenc}}\\usepackage{{booktabs,graphicx}}"
        f"\\begin{{document}}\n{to_latex(board)}\\end{{document}}"
    )
    done = subprocess.run(["pdflatex", "-halt-on-error", "x.tex"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_same_board_gives_the_same_bytes(make_run: MakeRun) -> None:
    runs = [make_run("a", lambda number: number < 60), make_run("b", lambda number: number < 30)]
    first, second = (build_board(collect(runs), read_published()) for _ in range(2))
    for write in (to_json, to_csv, to_markdown, to_latex):
        assert write(first) == write(second)
