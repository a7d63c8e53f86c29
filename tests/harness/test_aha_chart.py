"""Curves over training, on the page and in the terminal."""

import io
import json
import xml.etree.ElementTree as ElementTree

import pytest
from rich.console import Console

from ahabench.harness.aha import table
from ahabench.harness.aha.chart import HEIGHT, WIDTH, charts
from ahabench.harness.aha.curve import curve
from ahabench.harness.aha.page import page
from ahabench.harness.aha.summary import ReadResponse, read_all, summarise
from ahabench.harness.aha.told import Told

AHA = "So it is 5. Wait, I misread the axis. So it is 6."


def training(rewards: list[float | None], *, first: int = 0) -> list[ReadResponse]:
    """A run in which every second step reflects."""
    return read_all(
        [
            Told(item_id="a", sample_index=i, text=AHA if i % 2 else "5", step=first + 2 * i, reward=reward)
            for i, reward in enumerate(rewards)
        ]
    )


def test_a_curve_has_its_points_in_the_plot() -> None:
    found = charts(curve(training([0.0, 0.5, 1.0])) or {})
    reward, moment = found[0].lines[:2]
    # Steps 0, 2, 4 over the width; 0 at the bottom, 1 at the top.
    assert reward.points == f"0.0,{HEIGHT:.1f} {WIDTH / 2:.1f},{HEIGHT / 2:.1f} {WIDTH:.1f},0.0"
    assert moment.points == f"0.0,{HEIGHT:.1f} {WIDTH / 2:.1f},0.0 {WIDTH:.1f},{HEIGHT:.1f}"
    assert (found[0].top, found[0].first_step, found[0].last_step, reward.last) == ("1", 0, 4, "1")


def test_the_baseline_is_that_of_step_0_and_of_no_other() -> None:
    line = charts(curve(training([0.25, 1.0])) or {})[0].lines[0]
    assert line.baseline == pytest.approx(0.75 * HEIGHT)
    assert charts(curve(training([0.25, 1.0], first=2)) or {})[0].lines[0].baseline is None


def test_what_is_not_known_is_left_out_of_a_curve() -> None:
    line = charts(curve(training([0.0, None, 1.0])) or {})[0].lines[0]
    assert line.points.count(",") == 2


def test_a_single_step_has_no_chart() -> None:
    assert charts(curve(training([0.5])) or {}) == []


def test_published_rules_have_curves_and_correlations_too() -> None:
    found = curve(training([0.0, 1.0, 0.0, 1.0])) or {}
    assert [row["published"]["vlaa_training_plot"] for row in found["steps"]] == [0, 1, 0, 1]
    assert [row["classes"]["correction"] for row in found["steps"]] == [0, 1, 0, 1]
    # Both go up and down together.
    assert found["correlation"]["published/vlaa_training_plot"]["pearson"] == pytest.approx(1.0)
    assert found["correlation"]["published/oat_zero"]["pearson"] is None


def test_the_page_draws_the_curves_as_well_formed_svg() -> None:
    responses = training([0.0, 0.5, 1.0])
    html = page([("run <x>", {**summarise(responses), "training": curve(responses)}, responses)])
    drawings = ["<svg" + part.split("</svg>")[0] + "</svg>" for part in html.split("<svg")[1:]]
    parsed = [ElementTree.fromstring(drawing) for drawing in drawings]
    assert sum(len(drawing.findall("polyline")) for drawing in parsed) == 4 + 6 + 6
    assert "script" not in html


def test_few_steps_of_a_long_run_are_printed_with_both_ends() -> None:
    steps = [{"step": i} for i in range(392)]
    shown = [row["step"] for row in table.shown_steps(steps)]
    assert len(shown) == table.STEPS_SHOWN
    assert (shown[0], shown[-1]) == (0, 391)
    assert shown == sorted(set(shown))
    assert table.shown_steps(steps[:5]) == steps[:5]


def test_a_sparkline_goes_from_zero_to_the_highest() -> None:
    assert table.sparkline([0.0, 0.5, None, 1.0]) == "▁▅ █"
    assert table.sparkline([0.0, 0.0]) == "▁▁"


def test_a_long_training_run_fits_into_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    responses = training([i / 400 for i in range(392)])
    summary = {**summarise(responses), "training": curve(responses)}
    written = io.StringIO()
    # Wide enough to show what would be wrapped.
    monkeypatch.setattr("rich.console.Console", lambda **_: Console(file=written, width=200))
    table.print_run("runs/x", json.loads(json.dumps(summary)))
    lines = written.getvalue().splitlines()
    assert max(len(line.rstrip()) for line in lines if not line.startswith("the same")) <= 80
    assert sum(line.split()[:1] == ["782"] for line in lines) == 1
