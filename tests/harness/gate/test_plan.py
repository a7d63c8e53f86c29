"""The command that says what a comparison can show."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from ahabench.harness.dataset import load
from ahabench.harness.gate.plan import SMOKE_SET, design_of, published_sizes
from ahabench.harness.registry import find_task

Make = Callable[..., Path]
Run = Callable[..., Any]


def rows(ran: Any) -> list[dict[str, Any]]:
    assert ran.code == 0, ran.err
    found: list[dict[str, Any]] = json.loads(ran.out)
    return found


def test_the_headline_says_what_is_counted(ahabench: Run) -> None:
    found = {row["name"]: row for row in rows(ahabench("plan", "--suite", "mini", "--discordance", "0.2", "--json"))}
    sizes = {name: (row["n"], row["clusters"], row["design_effect"]) for name, row in found.items()}
    # MathVerse: 24 problems in five versions, 1 + 4 * 0.5; DynaMath counts seeds and We-Math problems.
    assert sizes["mathverse mini"] == (120, 24, 3.0)
    assert sizes["dynamath mini"] == (12, 12, 1.0)
    assert sizes["wemath mini"] == (36, 36, 1.0)
    assert sizes["logicvista mini"] == (120, 120, 1.0)


def test_any_number_of_items_can_be_planned_for(ahabench: Run) -> None:
    first, second, third = rows(ahabench("plan", "--items", "3940/788", "--correlation", 0, "--json"))
    found = [round(100 * row["smallest_difference"], 1) for row in (first, second, third)]
    assert found == [1.4, 2.0, 2.4]
    assert second["n_to_pass"] == 3092


def test_the_design_effect_multiplies_the_items(ahabench: Run) -> None:
    alone, clustered = rows(ahabench("plan", "--items", "3940,3940/788", "--discordance", "0.2", "--json"))
    assert clustered["design_effect"] == 3
    for name in ("n_to_show", "n_to_pass"):
        assert clustered[name] == pytest.approx(3 * alone[name], abs=3)


def test_discordance_and_correlation_are_measured_on_two_runs(mini_run: Make, ahabench: Run) -> None:
    # MathVerse's first problem, five versions of it, and one version of the second: 6 of 120 differ.
    a, b = mini_run("a", task="mathverse"), mini_run("b", range(6), task="mathverse")
    (row,) = rows(ahabench("plan", "--discordance-from", a, b, "--json"))
    assert row["measured"]
    assert row["discordance"] == pytest.approx(6 / 120)
    assert (row["n"], row["clusters"]) == (120, 24)


def test_clusters_that_cancel_out_are_planned_for(mini_run: Make, ahabench: Run) -> None:
    # Each problem has five versions, one after the other: the first is mended, the second breaks.
    a, b = mini_run("a", range(0, 120, 5), task="mathverse"), mini_run("b", range(1, 120, 5), task="mathverse")
    (row,) = rows(ahabench("plan", "--discordance-from", a, b, "--json"))
    assert row["correlation"] < -0.2
    assert row["design_effect"] == 0.01
    assert row["n_to_pass"] >= 1


def test_runs_that_differ_measure_nothing(mini_run: Make, ahabench: Run) -> None:
    ran = ahabench("plan", "--discordance-from", mini_run("a"), mini_run("b", system_prompt="Other."))
    assert (ran.code, ran.out) == (4, "")
    assert "system_prompt: 'Think.' in A, 'Other.' in B" in ran.error


def test_the_text_fits_80_columns(ahabench: Run) -> None:
    ran = ahabench("plan", "--suite", "mini")
    assert ran.code == 0, ran.err
    assert max(map(len, ran.out.splitlines())) <= 80
    assert "What a margin of 2 points takes to pass" in ran.out


def test_the_text_says_what_is_counted(ahabench: Run) -> None:
    lines = [line.split() for line in ahabench("plan", "--suite", "mini").out.splitlines()]
    counted = {name: [line[3] for line in lines if line[:1] == [name]] for name in ("mathverse", "dynamath", "wemath")}
    # Sizes first, then the tables of what a margin takes to show and to pass.
    assert counted == {
        "mathverse": ["120", "items", "items"],
        "dynamath": ["12", "clusters", "clusters"],
        "wemath": ["36", "clusters", "clusters"],
    }
    assert ["dynamath", "mini", "worst", "12", "clusters"] in [line[:5] for line in lines]


def test_the_picture_is_svg_with_a_point_for_each_row(ahabench: Run, tmp_path: Path) -> None:
    ran = ahabench("plan", "--items", 500, "--plot", tmp_path / "p.svg", "--json")
    root = ElementTree.parse(tmp_path / "p.svg").getroot()
    assert root.tag.endswith("svg")
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == len(rows(ran)) == 3


@pytest.mark.parametrize(
    "options",
    [("--discordance", "0"), ("--discordance", "x"), ("--power", "0.4"), ("--alpha", "0.6"), ("--margin", "-1")],
)
def test_numbers_out_of_range_are_refused(ahabench: Run, options: tuple[str, str]) -> None:
    ran = ahabench("plan", "--items", 100, f"{options[0]}={options[1]}")
    assert (ran.code, ran.out) == (2, "")
    assert options[0] in ran.error


def test_without_the_data_the_way_without_them_is_named(ahabench: Run, tmp_path: Path) -> None:
    ran = ahabench("plan", "--tasks", "mathvista", "--data", tmp_path)
    assert (ran.code, ran.out, ran.error.count("\n")) == (2, "", 1)
    assert "leave out --tasks" in ran.error


def test_the_published_sizes_need_no_data(ahabench: Run) -> None:
    ran = ahabench("plan", "--correlation", 0)
    assert ran.code == 0
    assert max(map(len, ran.out.splitlines())) <= 80
    # The size, the clusters, the design effect, and points at discordances of 10, 20 and 30 %: worked out by others.
    wanted = """
        100 items 100 1.00 8.8 12.4 15.2
        304 items 304 1.00 5.1 7.2 8.8
        447 items 447 1.00 4.2 5.9 7.2
        501 clusters 501 1.00 3.9 5.6 6.8
        788 items 788 1.00 3.2 4.5 5.5
        1,000 items 1,000 1.00 2.8 4.0 4.8
        1,740 items 525 1.00 2.1 3.0 3.7
        3,040 items 3,040 1.00 1.6 2.3 2.8
        3,940 items 788 1.00 1.4 2.0 2.4
        5,010 items 501 1.00 1.3 1.8 2.2
    """
    printed = [" ".join(line.split()) for line in ran.out.splitlines()]
    for row in filter(None, map(str.strip, wanted.splitlines())):
        assert [line for line in printed if line.endswith(row)], row


def test_the_published_sizes_are_those_of_the_benchmarks(data: Path) -> None:
    for size in published_sizes():
        if size == SMOKE_SET:
            continue
        name, split = size.name.split()
        task = find_task(name)
        left_out = task.scorers["robust"].excluded
        n_items = task.splits[split].n_items - len(left_out)
        # One version of each problem stands for its cluster: the official file of all five is in no test data.
        loaded = load(task, "vision_only" if name == "mathverse" else split, data=data)
        assert size.clusters == len({item.cluster for item in loaded.items if item.id not in left_out})
        assert size.n == (n_items if size.unit == "items" else size.clusters)
        assert size.unit == "items" or size.metric == task.headline


@pytest.mark.parametrize(
    ("items", "wanted"),
    [
        ("1", "no number of items"),
        ("5/6", "5/6"),
        ("10/", "10/"),
        ("many", "many"),
        ("9" * 40, "99"),
        ("100,,200", "''"),
    ],
)
def test_a_size_that_is_none_is_refused(ahabench: Run, items: str, wanted: str) -> None:
    ran = ahabench("plan", "--items", items)
    assert (ran.code, ran.out, ran.error.count("\n")) == (2, "", 1)
    assert wanted in ran.error


def test_two_things_to_plan_for_are_refused(ahabench: Run) -> None:
    ran = ahabench("plan", "--tasks", "mathvista", "--items", 100)
    assert (ran.code, ran.error) == (2, "error: a plan is for --tasks or for --items; give one of them\n")


@pytest.mark.parametrize("name", ["dynamath", "logicvista", "mathverse", "mathvision", "mathvista", "wemath"])
def test_a_task_declares_what_its_headline_counts(name: str) -> None:
    task = find_task(name)
    design = design_of(load(task, "mini"), correlation=0.5, discordances=[0.1])
    assert (design.unit == "clusters") == task.counts_clusters
