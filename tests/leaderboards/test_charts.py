"""Plots: places, text alternatives, and what is escaped."""

import re

from ahabench.leaderboards.charts import curve, curves, whiskers
from ahabench.leaderboards.table import Cell, Row


def row(name: str, value: float | None, ci95: tuple[float, float] | None = None) -> Row:
    return Row(
        slug=name,
        name=name,
        reported=False,
        parameters_b=None,
        parameters_guessed=False,
        group="size not known",
        base=None,
        date=None,
        url=None,
        cells={"x": Cell(value=value, ci95=ci95)},
    )


def test_a_dot_stands_at_its_share_of_the_axis() -> None:
    # The axis ends at 0.6, the highest end of an interval: 0.4, 0.5 and 0.6 stand at two, five sixths and the end.
    drawn = whiskers([row("a", 0.5, (0.4, 0.6)), row("b", 0.3)], "x", "X")
    assert re.findall(r'cx="([\d.]+%)"', drawn) == ["83.33%", "50.00%"]
    assert 'class="whisker" x1="66.67%" y1="12" x2="100.00%"' in drawn
    assert re.findall(r'class="tick"[^>]*>([^<]+)<', drawn) == ["0", "10", "20", "30", "40", "50", "60 %"]


def test_a_plot_says_its_values() -> None:
    drawn = whiskers([row("b", 0.25), row("a", 0.5, (0.4, 0.6)), row("c", None)], "x", "Accuracy")
    assert "<title>Accuracy</title><desc>a 50.0 (40.0 to 60.0); b 25.0</desc>" in drawn


def test_a_plot_of_zeros_has_an_axis() -> None:
    assert 'cx="0.00%"' in whiskers([row("a", 0.0)], "x", "X")


def test_names_are_text() -> None:
    drawn = whiskers([row("</svg><script>", 0.5), row("\u202egnp.exe", 0.4)], "x", "<b>")
    assert "<script>" not in drawn
    assert "<b>" not in drawn
    assert "\u202e" not in drawn


def test_the_model_before_training_is_the_first_point() -> None:
    ((words, drawn),) = curves([{"step": 0, "baseline/kl": 1.0}, {"step": 2, "kl": 3.0}, {"step": 4, "kl": 2.0}])
    assert words == "KL to the first policy"
    assert "1 at step 0, 2 at step 4, between 1 and 3" in drawn


def test_one_point_is_no_curve() -> None:
    assert curves([{"step": 1, "kl": 1.0}, {"step": 2, "loss": 1.0}]) == []


def test_steps_that_go_back_are_no_curve() -> None:
    assert curves([{"step": 2, "kl": 1.0}, {"step": 1, "kl": 2.0}]) == []


def test_a_flat_curve_has_one_number() -> None:
    from ahabench.leaderboards.charts import Point

    drawn = curve([Point(0, 5.0), Point(1, 5.0)], "x")
    assert re.findall(r'class="value"[^>]*>([^<]+)<', drawn) == ["5"]
