"""Inline SVG: dots with whiskers, bars and curves. Sizes are attributes, because the page's policy allows no styles."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup, escape

from ahabench.leaderboards.table import Cell, Row

WIDTH, LEFT, RIGHT, LINE = 720, 230, 60, 22


class Point(NamedTuple):
    """One value of a curve."""

    x: float
    y: float


def whiskers(rows: Sequence[Row], key: str, title: str) -> Markup:
    """Return dots with their 95 % intervals, best first; a row without a value is left out and counted below.

    Args:
        rows: of one table.
        key: the column.
        title: said to screen readers.
    """
    known = sorted((row for row in rows if row.cells[key].value is not None), key=lambda row: -_value(row.cells[key]))
    top = max((_end(row.cells[key]) for row in known), default=1.0)
    step = next(step for step in (0.02, 0.05, 0.1, 0.2) if top / step <= 8)
    end = step * (int(top / step) + 1)
    height = LINE * len(known) + 30

    def at(value: float) -> str:
        return f"{LEFT + (WIDTH - LEFT - RIGHT) * max(0.0, min(value, end)) / end:.1f}"

    parts = []
    for number in range(round(end / step) + 1):
        x = at(number * step)
        parts.append(f'<line class="grid" x1="{x}" y1="4" x2="{x}" y2="{height - 24}"/>')
        parts.append(f'<text class="tick" x="{x}" y="{height - 8}">{100 * number * step:.0f}</text>')
    for place, row in enumerate(known):
        cell, y = row.cells[key], LINE * place + 16
        kind = "dot reported" if row.reported else "dot best" if cell.best else "dot"
        name = row.name if len(row.name) <= 34 else f"{row.name[:33]}…"
        parts.append(f'<text class="name" x="{LEFT - 12}" y="{y + 4}">{escape(name)}</text>')
        if cell.ci95 is not None:
            parts.append(f'<line class="whisker" x1="{at(cell.ci95[0])}" y1="{y}" x2="{at(cell.ci95[1])}" y2="{y}"/>')
        parts.append(f'<circle class="{kind}" cx="{at(_value(cell))}" cy="{y}" r="4.5"/>')
        parts.append(f'<text class="value" x="{WIDTH - 4}" y="{y + 4}">{100 * _value(cell):.1f}</text>')
    return _svg(parts, WIDTH, height, title)


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
    width, height, pad = 340, 150, 36
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
        f'<text class="value" x="{pad - 4}" y="{height - 22}">{low:.3g}</text>',
        f'<text class="value" x="{pad - 4}" y="20">{high:.3g}</text>',
        f'<polyline class="curve" points="{line}"/>',
        *(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in places if len(places) <= 40),
    ]
    return _svg(parts, width, height, title)


def curves(steps: Sequence[Mapping[str, float]], names: Sequence[str]) -> list[tuple[str, Markup]]:
    """Return a curve over "step" for each quantity that at least two steps have."""
    found = []
    for name in names:
        points = [Point(step["step"], step[name]) for step in steps if name in step]
        if len(points) >= 2 and all(a.x <= b.x for a, b in pairwise(points)):
            said = f"{name}: {points[0].y:.3g} at step {points[0].x:g}, {points[-1].y:.3g} at step {points[-1].x:g}"
            found.append((name, curve(points, said)))
    return found


def _svg(parts: Sequence[str], width: int, height: int, title: str) -> Markup:
    # Every text in the parts is escaped where it is put in.
    return Markup(
        f'<svg class="chart" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def _value(cell: Cell) -> float:
    return cell.value or 0.0


def _end(cell: Cell) -> float:
    return cell.ci95[1] if cell.ci95 else _value(cell)
