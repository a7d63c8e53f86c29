"""A comparison as text, Markdown and JUnit."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

Make = Callable[..., Path]
Run = Callable[..., Any]
HOSTILE = "``` </details> <script>alert(1)</script> @all | \x1b[31mred\x00 ````"


@pytest.fixture
def two(mini_run: Make) -> tuple[Path, Path]:
    """A drop that fails, one that cannot be told, and a pass; with notes of every kind."""
    a = mini_run("a", tasks={"mathvista": [], "logicvista": [0], "dynamath": []})
    b = mini_run("b", tasks={"mathvista": range(40), "logicvista": range(4), "dynamath": []}, finish={1: "length"})
    return a, b


@pytest.mark.parametrize(
    ("flags", "code"), [((), 0), (("--no-allow-missing",), 5)], ids=["as the file says", "the flag wins"]
)
def test_a_flag_turns_off_what_the_file_allows(
    mini_run: Make, ahabench: Run, tmp_path: Path, flags: tuple[str, ...], code: int
) -> None:
    (tmp_path / "policy.yaml").write_text("margin: 3\nallow_missing: true\n")
    sides = mini_run("a"), mini_run("b", texts={5: None})
    assert ahabench("compare", *sides, "--policy", tmp_path / "policy.yaml", *flags).code == code


@pytest.mark.parametrize(
    ("file", "flags", "code"),
    [("fail", (), 1), ("fail", ("--no-fail-on-drop",), 0), ("pass", (), 0), ("pass", ("--fail-on-drop",), 1)],
)
def test_a_flag_wins_over_what_the_file_says_of_drops(
    mini_run: Make, ahabench: Run, tmp_path: Path, file: str, flags: tuple[str, ...], code: int
) -> None:
    # Eight broken of 120, none fixed: p 1/256, within a margin of 20.
    (tmp_path / "policy.yaml").write_text(f"margin: 20\non_significant_drop: {file}\n")
    sides = mini_run("a"), mini_run("b", range(8))
    assert ahabench("compare", *sides, "--policy", tmp_path / "policy.yaml", *flags).code == code


def test_a_misspelt_benchmark_of_a_margin_ends_with_2(mini_run: Make, ahabench: Run) -> None:
    ran = ahabench("compare", mini_run("a"), mini_run("b"), "--margin", "mathvsta=20,*=50")
    assert (ran.code, ran.out) == (2, "")
    assert ran.error.startswith("error: unknown benchmark of a margin or metric 'mathvsta'. Did you mean 'mathvista'?")
    assert ran.error.count("\n") == 1


@pytest.mark.parametrize(
    ("wrong", "code"), [((), 0), (range(40), 1), (range(3), 3)], ids=["pass", "regression", "inconclusive"]
)
def test_the_exit_code_says_the_verdict(mini_run: Make, ahabench: Run, wrong: Any, code: int) -> None:
    assert ahabench("compare", mini_run("a"), mini_run("b", wrong), "--margin", 3).code == code


def test_the_exit_code_of_runs_that_differ_is_4(mini_run: Make, ahabench: Run) -> None:
    ran = ahabench("compare", mini_run("a"), mini_run("b", system_prompt="Other."))
    assert ran.code == 4
    line = next(line for line in ran.out.splitlines() if line.startswith("system_prompt"))
    assert line.split() == ["system_prompt", "'Think.'", "'Other.'"]


def test_the_flags_that_accept_a_difference_are_printed_and_work(mini_run: Make, ahabench: Run) -> None:
    a, b = mini_run("a"), mini_run("b", system_prompt="Other.", engine={"version": "0.33.0"})
    line = next(line for line in ahabench("compare", a, b).out.splitlines() if line.startswith("To compare"))
    flags = line.partition(": ")[2].split()
    assert sorted(flags) == ["--allow", "--allow", "engine.version", "system_prompt"]
    assert ahabench("compare", a, b, *flags, "--margin", 3).code == 0


def test_the_last_line_names_the_rows_that_it_is_about(two: tuple[Path, Path], ahabench: Run) -> None:
    out = ahabench("compare", *two).out
    assert out.splitlines()[-1].startswith(
        "FAIL: B is worse than the margin allows on mathvista accuracy (exit code 1)"
    )


def test_the_exit_code_of_a_run_with_holes_is_5(mini_run: Make, ahabench: Run) -> None:
    assert ahabench("compare", mini_run("a"), mini_run("b", texts={5: None})).code == 5


def test_a_wrong_flag_ends_with_2(mini_run: Make, ahabench: Run) -> None:
    ran = ahabench("compare", mini_run("a"), mini_run("b"), "--margin", "much")
    assert (ran.code, ran.out) == (2, "")
    assert ran.error == "error: --margin 'much': 'much' is no number of points\n"


def test_the_text_fits_80_columns(two: tuple[Path, Path], ahabench: Run) -> None:
    ran = ahabench("compare", *two, "--flips", 3, "--metric", "dynamath:average")
    assert ran.code == 1
    assert max(map(len, ran.out.splitlines())) <= 80
    rows = [line.split() for line in ran.out.splitlines()]
    assert ["mathvista", "accuracy", "100.0", "66.7", "-33.3"] in [row[:5] for row in rows]
    assert rows[-1][0] == "FAIL:"


def test_flips_are_printed_where_they_are_asked_for(two: tuple[Path, Path], ahabench: Run) -> None:
    assert "I cannot tell." not in ahabench("compare", *two).out
    ran = ahabench("compare", *two, "--flips", 2)
    # Two broken items of each of the two benchmarks that have some; of these, B was cut off on the second of mathvista.
    assert ran.out.count("read None: I cannot tell.") == 4


def test_json_is_alone_on_stdout(two: tuple[Path, Path], ahabench: Run) -> None:
    ran = ahabench("compare", *two, "--json")
    found = json.loads(ran.out)
    assert (ran.code, found["verdict"], found["exit_code"]) == (1, "FAIL", 1)
    assert [row["verdict"] for row in found["rows"]] == ["FAIL", "INCONCLUSIVE", "INCONCLUSIVE"]
    assert found["rows"][0]["margin"] == 0.02


def test_json_of_runs_that_differ_names_the_fields(mini_run: Make, ahabench: Run) -> None:
    found = json.loads(ahabench("compare", mini_run("a"), mini_run("b", system_prompt="Other."), "--json").out)
    assert (found["verdict"], found["rows"]) == ("NOT_COMPARABLE", [])
    assert found["differing"] == [
        {"guard": "prompt", "field": "system_prompt", "task": None, "a": "Think.", "b": "Other.", "allowed": False}
    ]


def junit(path: Path) -> dict[str, tuple[str, str]]:
    """The outcome and message of each test by its full name, and a check of the totals."""
    root = ElementTree.parse(path).getroot()
    found = {}
    for case in root.iter("testcase"):
        inner = {child.tag: child.get("message", "") for child in case}
        outcome = next((tag for tag in ("failure", "skipped") if tag in inner), "passed")
        found[f"{case.get('classname')}.{case.get('name')}"] = (outcome, inner.get(outcome, ""))
    outcomes = [outcome for outcome, _ in found.values()]
    for element in (root, *root.iter("testsuite")):
        assert int(element.get("tests", "")) == len(found)
        assert int(element.get("failures", "")) == outcomes.count("failure")
    (suite,) = root
    assert int(suite.get("skipped", "")) == outcomes.count("skipped")
    # What junit-10.xsd of Jenkins' xUnit plugin lets stand there.
    assert root.keys() == ["name", "tests", "failures", "errors"]
    assert suite.keys() == [*root.keys(), "skipped"]
    return found


def test_junit_has_a_test_for_each_guard_and_row(two: tuple[Path, Path], ahabench: Run, tmp_path: Path) -> None:
    ahabench("compare", *two, "--junit", tmp_path / "out" / "j.xml")
    found = junit(tmp_path / "out" / "j.xml")
    assert sum(name.startswith("ahabench.guard.") for name in found) == 10
    assert found["ahabench.guard.engine"] == ("passed", "")
    outcome, message = found["ahabench.mathvista.accuracy"]
    assert outcome == "failure"
    assert message.startswith("FAIL: mathvista accuracy 100.0 -> 66.7, -33.3 points [")
    assert found["ahabench.logicvista.accuracy"][0] == "skipped"


def test_doubt_fails_in_junit_where_the_policy_says_so(mini_run: Make, ahabench: Run, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("inconclusive: fail\n")
    options = ("--junit", tmp_path / "j.xml", "--policy", policy)
    assert ahabench("compare", mini_run("a"), mini_run("b", range(3)), *options).code == 3
    assert junit(tmp_path / "j.xml")["ahabench.mathvista.accuracy"][0] == "failure"


def test_a_guard_that_fails_is_the_failure_in_junit(mini_run: Make, ahabench: Run, tmp_path: Path) -> None:
    ahabench("compare", mini_run("a"), mini_run("b", system_prompt="\x00Other"), "--junit", tmp_path / "j.xml")
    found = junit(tmp_path / "j.xml")
    assert found["ahabench.guard.prompt"][0] == "failure"
    assert "system_prompt: 'Think.' in A" in found["ahabench.guard.prompt"][1]
    assert not any(name.startswith("ahabench.mathvista") for name in found)


def test_markdown_has_the_table_and_the_flips(two: tuple[Path, Path], ahabench: Run, tmp_path: Path) -> None:
    ahabench("compare", *two, "--markdown", tmp_path / "m.md")
    text = (tmp_path / "m.md").read_text()
    assert text.startswith("### ahabench: FAIL\n")
    assert "| mathvista accuracy | 100.0 | 66.7 | -33.3 |" in text
    assert text.count("**broken**") == 5 + 3
    assert text.count("<details>") == text.count("</details>") == 3


def test_markdown_of_runs_that_differ_shows_both_values(mini_run: Make, ahabench: Run, tmp_path: Path) -> None:
    ahabench("compare", mini_run("a"), mini_run("b", system_prompt="O|her"), "--markdown", tmp_path / "m.md")
    assert "| system&#95;prompt | &#39;Think&#46;&#39; | &#39;O&#124;her&#39; |" in (tmp_path / "m.md").read_text()


def test_a_response_cannot_leave_its_block_in_markdown(mini_run: Make, ahabench: Run, tmp_path: Path) -> None:
    a, b = mini_run("a"), mini_run("b", texts={0: HOSTILE})
    ahabench("compare", a, b, "--markdown", tmp_path / "m.md")
    lines = (tmp_path / "m.md").read_text().splitlines()
    (place,) = (number for number, line in enumerate(lines) if "<script>" in line)
    # Its longest run of backticks has four.
    assert (lines[place - 1], lines[place + 1]) == ("`````text", "`````")
    assert "\x1b" not in lines[place]
    assert "\x00" not in lines[place]


def test_a_response_cannot_steer_the_terminal(mini_run: Make, ahabench: Run) -> None:
    ran = ahabench("compare", mini_run("a"), mini_run("b", texts={0: HOSTILE}), "--flips", 1)
    assert "\x1b" not in ran.out
    assert r"\x1b[31mred\x00" in ran.out


def test_a_long_response_is_cut_to_its_end_in_markdown(mini_run: Make, ahabench: Run, tmp_path: Path) -> None:
    b = mini_run("b", texts={0: "x" * 100_000 + " the end"})
    ahabench("compare", mini_run("a"), b, "--markdown", tmp_path / "m.md")
    text = (tmp_path / "m.md").read_text()
    assert " the end\n" in text
    assert len(text) < 10_000


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_a_reader_that_goes_away_turns_no_verdict_into_a_pass(mini_run: Make, options: tuple[str, ...]) -> None:
    script = str(Path(sys.executable).with_name("ahabench"))
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [script, "compare", str(mini_run("a")), str(mini_run("b", range(60))), "--margin", "2", *options],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")
