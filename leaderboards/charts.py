"""Inline SVG: dots with whiskers, bars and curves. Sizes are attributes, because the page's policy allows no styles."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup, escape

from ahabench.harness.report import printable
from ahabench.leaderboards.table import Cell, Row

LINE = 24
"""Pixels from one row of a plot to the next; the stylesheet gives the names beside it the same height."""
CURVES = {
    "reward": "reward, mean",
    "reward_mean": "reward, mean",
    "accuracy": "accuracy",
    "reward/answered": "completions with one answer, share",
    "aha/with_moment": "completions with an aha moment, share",
    "aha/per_1000_tokens": "aha moments per 1,000 tokens",
    "completion_length": "tokens per completion, mean",
    "completions/mean_length": "tokens per completion, mean",
    "completions/clipped_ratio": "completions cut off, share",
    "loss": "loss",
    "kl": "KL to the first policy",
    "beta": "KL coefficient",
    "entropy": "entropy",
    "grad_norm": "norm of the gradient",
    "learning_rate": "learning rate",
}
"""What a training log may hold that is worth a curve, in the order of showing, and the words for it."""
FIRST = "baseline/"
"""Before the name of what a training log says of the model before its first step."""


class Point(NamedTuple):
    """One value of a curve."""

    x: float
    y: float


def whiskers(rows: Sequence[Row], key: str, title: str) -> Markup:
    """Return dots with their 95 % intervals, best first, between names and values; rows without a value are left out.

    Places are shares of the width, so that the plot is as wide as the page lets it be.

    Args:
        rows: of one table.
        key: the column.
        title: said to screen readers, with every value after it.
    """
    known = sorted((row for row in rows if row.cells[key].value is not None), key=lambda row: -_value(row.cells[key]))
    top = max((_end(row.cells[key]) for row in known), default=1.0)
    step = next(step for step in (0.02, 0.05, 0.1, 0.2) if top / step <= 8)
    # The last line of the grid is the first at or above the top, and never above 100 %.
    end = step * max(1, math.ceil(top / step - 1e-9))
    bottom = LINE * len(known)

    def at(value: float) -> str:
        return f"{100 * max(0.0, min(value, end)) / end:.2f}%"

    parts = []
    lines = round(end / step)
    for number in range(lines + 1):
        x, unit = at(number * step), "" if number < lines else " %"
        parts.append(f'<line class="grid" x1="{x}" y1="0" x2="{x}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{x}" y="{bottom + 15}">{100 * number * step:.0f}{unit}</text>')
    for place, row in enumerate(known):
        cell, y = row.cells[key], LINE * place + LINE // 2
        kind = "dot reported" if row.reported else "dot best" if cell.best else "dot"
        if cell.ci95 is not None:
            parts.append(f'<line class="whisker" x1="{at(cell.ci95[0])}" y1="{y}" x2="{at(cell.ci95[1])}" y2="{y}"/>')
        parts.append(f'<circle class="{kind}" cx="{at(_value(cell))}" cy="{y}" r="4.5"/>')
    names = "".join(f"<li>{escape(printable(row.name))}</li>" for row in known)
    values = "".join(f"<li>{100 * _value(row.cells[key]):.1f}</li>" for row in known)
    drawn = _svg(parts, f'width="100%" height="{bottom + 20}"', title, "; ".join(_said(row, key) for row in known))
    return Markup('<div class="dots"><ol aria-hidden="true">{}</ol>{}<ol aria-hidden="true">{}</ol></div>').format(
        Markup(names), drawn, Markup(values)
    )


def bar(value: float | None, ci95: Sequence[float] | None) -> Markup:
    """Return a small bar of a share with its interval, to stand under a number that says the same."""
    if value is None:
        return Markup("")
    parts = [
        '<rect class="track" width="100" height="4" rx="2"/>',
        f'<rect class="fill" width="{100 * max(0.0, min(1.0, value)):.1f}" height="4" rx="2"/>',
    ]
    if ci95 is not None:
        low, high = (100 * max(0.0, min(1.0, end)) for end in ci95)
        parts.append(f'<line class="whisker" x1="{low:.1f}" y1="2" x2="{high:.1f}" y2="2"/>')
    # Everything here comes from numbers.
    return Markup(
        f'<svg class="bar" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">{"".join(parts)}</svg>'
    )


def curve(points: Sequence[Point], title: str) -> Markup:
    """Return a curve with its first and last value, over at least two points."""
    width, height, pad = 340, 150, 54
    xs, ys = [point.x for point in points], [point.y for point in points]
    low, high = min(ys), max(ys)
    spread_x, spread_y = (max(xs) - min(xs)) or 1.0, (high - low) or 1.0
    places = [
        (
            pad + (width - pad - 10) * (point.x - min(xs)) / spread_x,
            height - 24 - (height - 40) * (point.y - low) / spread_y,
        )
        for point in points
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts = [
        f'<line class="grid" x1="{pad}" y1="{height - 24}" x2="{width - 10}" y2="{height - 24}"/>',
        f'<text class="tick" x="{pad}" y="{height - 8}">{min(xs):g}</text>',
        f'<text class="tick" x="{width - 14}" y="{height - 8}">{max(xs):g}</text>',
        f'<text class="value" x="{pad - 6}" y="{height - 20}">{low:.3g}</text>',
        *([f'<text class="value" x="{pad - 6}" y="20">{high:.3g}</text>'] if high > low else []),
        f'<polyline class="curve" points="{line}"/>',
        *(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in places if len(places) <= 40),
    ]
    said = f"{ys[0]:.3g} at step {xs[0]:g}, {ys[-1]:.3g} at step {xs[-1]:g}, between {low:.3g} and {high:.3g}"
    return _svg(parts, f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"', title, said)


def curves(steps: Sequence[Mapping[str, float]]) -> list[tuple[str, Markup]]:
    """Return a curve over "step" for each of `CURVES` that at least two steps have; the first may be the baseline's."""
    found = []
    for name, words in CURVES.items():
        values = [(step["step"], step.get(name, step.get(f"{FIRST}{name}"))) for step in steps]
        points = [Point(at, value) for at, value in values if value is not None]
        if len(points) >= 2 and all(a.x <= b.x for a, b in pairwise(points)):
            found.append((words, curve(points, words)))
    return found


def _svg(parts: Sequence[str], size: str, title: str, described: str) -> Markup:
    # Every text in the parts is escaped where it is put in.
    return Markup(
        f'<svg class="chart" {size} role="img"><title>{escape(title)}</title><desc>{escape(described)}</desc>'
        f"{''.join(parts)}</svg>"
    )


def _said(row: Row, key: str) -> str:
    cell = row.cells[key]
    interval = f" ({100 * cell.ci95[0]:.1f} to {100 * cell.ci95[1]:.1f})" if cell.ci95 else ""
    return f"{printable(row.name)} {100 * _value(cell):.1f}{interval}"


def _value(cell: Cell) -> float:
    return cell.value or 0.0


def _end(cell: Cell) -> float:
    return cell.ci95[1] if cell.ci95 else _value(cell)
