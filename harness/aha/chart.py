"""Curves over training as points of an SVG: only numbers and our own words reach the page."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ahabench.harness.aha.lexicon import MomentClass, published_rules

WIDTH, HEIGHT = 640, 220
"""Of the plot without its labels, in the SVG's own units."""
MOST_POINTS = 400
"""Steps that are drawn; of more, every so many."""

Values = Sequence[float | None]


class Line(NamedTuple):
    """One curve."""

    label: str
    mark: str
    """The class that colours it."""
    points: str
    """As a `polyline` wants them."""
    baseline: float | None
    """The height of its value at step 0."""
    last: str
    """Its last value, in words."""


class Chart(NamedTuple):
    """Curves with one scale."""

    title: str
    lines: list[Line]
    top: str
    """What the upper end of the scale stands for; the lower is 0."""
    first_step: int
    last_step: int


def charts(training: Mapping[str, Any]) -> list[Chart]:
    """Return the charts of a training run: the outcome, moments by class, and what the published rules make of it."""
    steps: Sequence[Mapping[str, Any]] = training["steps"]
    if len(steps) < 2:
        return []
    outcome: list[tuple[str, str, Values]] = [
        ("reward", "reward", [row["reward"] for row in steps]),
        ("responses with a moment", "moment", [row["with_moment"] for row in steps]),
        ("responses with a loop", "loops", [row["with_loop"] for row in steps]),
        ("responses cut off", "cut", [row["truncated"] for row in steps]),
    ]
    kinds: list[tuple[str, str, Values]] = [
        (kind.value.replace("_", " "), kind.value, [row["classes"][kind.value] for row in steps])
        for kind in MomentClass
        if kind is not MomentClass.UNCERTAINTY
    ]
    rules: list[tuple[str, str, Values]] = [
        (rule.title, f"rule{place}", [row["published"][rule.name] for row in steps])
        for place, rule in enumerate(published_rules())
    ]
    places = [row["step"] for row in steps]
    return [
        _chart("Reward, and shares of responses", outcome, places),
        _chart("Moments per response, by class", kinds, places),
        _chart("Share of responses in which a published rule fires", rules, places),
    ]


def _chart(title: str, lines: Sequence[tuple[str, str, Values]], places: Sequence[int]) -> Chart:
    known = [value for _, _, values in lines for value in values if value is not None and math.isfinite(value)]
    top = _round_up(max(known, default=0.0))
    return Chart(
        title=title,
        lines=[_line(*line, places, top) for line in lines],
        top=f"{top:g}",
        first_step=places[0],
        last_step=places[-1],
    )


def _line(label: str, mark: str, values: Values, places: Sequence[int], top: float) -> Line:
    span = places[-1] - places[0]
    stride = -(-len(places) // MOST_POINTS)
    shown = sorted({*range(0, len(places), stride), len(places) - 1})
    drawn = [
        (WIDTH * (places[i] - places[0]) / span, _height(value, top))
        for i in shown
        if (value := values[i]) is not None and math.isfinite(value)
    ]
    first, last = values[0], next((value for value in reversed(values) if value is not None), None)
    return Line(
        label=label,
        mark=mark,
        points=" ".join(f"{x:.1f},{y:.1f}" for x, y in drawn),
        baseline=None if places[0] != 0 or first is None else round(_height(first, top), 1),
        last="-" if last is None else f"{last:.3g}",
    )


def _height(value: float, top: float) -> float:
    return HEIGHT * (1 - min(max(value, 0.0), top) / top)


def _round_up(value: float) -> float:
    """Return the next of 1, 2, 5 times a power of ten; 1 for nothing."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if value <= step * power * (1 + 1e-9))
