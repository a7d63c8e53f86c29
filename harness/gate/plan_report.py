"""A plan as a table and as a picture."""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ahabench.harness.gate.plan import PlanRow
from ahabench.harness.gate.power import POWER, smallest_difference
from ahabench.harness.report import printable

_COLUMNS = 80
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 440, 56, 24, 48, 56
_DASHES = ("", "7 4", "2 3", "10 3 2 3")


def print_plan(rows: Sequence[PlanRow], *, margin: float, alpha: float, power: float = POWER) -> None:
    """Print what each benchmark can show and what the margin takes, in 80 columns; a line a benchmark."""
    console = Console(width=_COLUMNS, highlight=False)
    discordances = list(dict.fromkeys(row.discordance for row in rows if not row.measured))
    by_name: dict[str, list[PlanRow]] = {}
    for row in rows:
        by_name.setdefault(_name(row), []).append(row)
    titles = [f"d {100 * value:g} %" for value in discordances] or ["at its d"]
    console.print(Text("Smallest difference that a comparison shows, in points", style="bold"))
    table = _table(["n", "clusters", "design\neffect"], titles)
    for name, some in by_name.items():
        first = some[0]
        values = [_points(row.smallest_difference) for row in some]
        n = f"{first.n:,} {first.unit}"
        table.add_row(Text(name), n, f"{first.clusters:,}", f"{first.design_effect:.2f}", *values)
    console.print(table)
    console.print()
    for what, name in (("to show", "n_to_show"), ("to pass", "n_to_pass")):
        console.print(Text(f"What a margin of {100 * margin:g} points takes {what}", style="bold"))
        table = _table(["counted in"], titles)
        for protocol, some in by_name.items():
            table.add_row(Text(protocol), some[0].unit, *(_count(getattr(row, name)) for row in some))
        console.print(table)
        console.print()
    for row in rows:
        if row.measured:
            console.print(
                Text(
                    f"  {printable(row.name)}: measured discordance {100 * row.discordance:.1f} %, "
                    f"correlation within clusters {row.correlation:.2f}"
                )
            )
    console.print(
        Text(
            "  d: discordance, the share of what n counts that one side alone gets right.\n"
            f"  Show: two-sided 5 %. Pass: one-sided {100 * alpha:g} %, where nothing changed. Power {100 * power:g} %."
        )
    )


def picture(rows: Sequence[PlanRow], *, margin: float, power: float = POWER) -> str:
    """Return an SVG: the smallest difference against the number of independent items, with each benchmark on it.

    A benchmark stands at its n divided by its design effect. Lines differ by dashes, not by colour.
    """
    axes = _Axes.of(rows, power)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        'font-family="sans-serif" font-size="12">',
        "<title>Smallest difference that a paired comparison shows, by independent items</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        *_grid(axes, margin, power),
        *(
            part
            for dashes, share in zip(_DASHES, axes.discordances, strict=False)
            for part in _curve(axes, share, dashes, power)
        ),
        *_marks(axes, rows),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


class _Axes(NamedTuple):
    """What the picture spans: items on a log scale, and fractions from 0."""

    low: float
    high: float
    top: float
    discordances: list[float]

    @classmethod
    def of(cls, rows: Sequence[PlanRow], power: float) -> "_Axes":
        discordances = list(dict.fromkeys(row.discordance for row in rows))[: len(_DASHES)]
        sizes = [row.n / row.design_effect for row in rows]
        low, high = min([50.0, *sizes]), max([5_000.0, *sizes])
        return cls(low, high, max(smallest_difference(low, d, power=power) or d for d in discordances), discordances)

    def x(self, n: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * math.log(n / self.low) / math.log(self.high / self.low)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / self.top


def _grid(axes: _Axes, margin: float, power: float) -> Iterator[str]:
    floor, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    for n in (50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000):
        if axes.low <= n <= axes.high:
            yield f'<path d="M{axes.x(n):.1f} {_TOP}V{floor}" stroke="#ddd"/>'
            yield f'<text x="{axes.x(n):.1f}" y="{floor + 16}" text-anchor="middle">{n:,}</text>'
    for points in range(0, math.floor(100 * axes.top) + 1, 2):
        height = axes.y(points / 100)
        yield f'<path d="M{_LEFT} {height:.1f}H{right}" stroke="#ddd"/>'
        yield f'<text x="{_LEFT - 6}" y="{height + 4:.1f}" text-anchor="end">{points}</text>'
    if margin <= axes.top:
        yield f'<path d="M{_LEFT} {axes.y(margin):.1f}H{right}" stroke="#b00" stroke-width="1.5"/>'
        yield f'<text x="{_LEFT + 6}" y="{axes.y(margin) - 4:.1f}" fill="#b00">margin</text>'
    yield f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 8}" text-anchor="middle">independent items (log scale)</text>'
    yield f'<text x="12" y="{_TOP - 28}">smallest difference shown with power {100 * power:g} %, points</text>'


def _curve(axes: _Axes, discordance: float, dashes: str, power: float) -> Iterator[str]:
    steps = [axes.low * (axes.high / axes.low) ** (step / 80) for step in range(81)]
    found = [(n, smallest_difference(n, discordance, power=power)) for n in steps]
    known = [(n, value) for n, value in found if value is not None]
    line = " ".join(f"{axes.x(n):.1f},{axes.y(value):.1f}" for n, value in known)
    yield f'<polyline points="{line}" fill="none" stroke="black" stroke-dasharray="{dashes}"/>'
    for n, value in known[:1]:
        text = f"discordance {100 * discordance:.3g} %"
        yield f'<text x="{axes.x(n) + 8:.1f}" y="{axes.y(value) - 2:.1f}">{text}</text>'


def _marks(axes: _Axes, rows: Sequence[PlanRow]) -> Iterator[str]:
    """Yield a point for each row, and a letter with a legend for each benchmark, above its highest point."""
    highest: dict[str, tuple[float, float]] = {}
    for row in rows:
        highest.setdefault(_name(row), (0.0, 0.0))
        if row.smallest_difference is None or row.discordance not in axes.discordances:
            continue
        x, y = axes.x(row.n / row.design_effect), axes.y(row.smallest_difference)
        shown = f"{_name(row)}, discordance {100 * row.discordance:.3g} %: {_points(row.smallest_difference)} points"
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#06c"><title>{escape(shown)}</title></circle>'
        highest[_name(row)] = max(highest[_name(row)], (row.smallest_difference, x))
    for place, (name, (value, x)) in enumerate(highest.items()):
        if value:
            yield f'<text x="{x:.1f}" y="{axes.y(value) - 7:.1f}" text-anchor="middle">{_letter(place)}</text>'
        label = escape(f"{_letter(place)}  {name}")
        yield f'<text x="{_WIDTH - 190}" y="{_TOP + 16 + 16 * place}">{label}</text>'


def _letter(place: int) -> str:
    return chr(ord("a") + place) if place < 26 else str(place)


def _table(numbers: Sequence[str], titles: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("benchmark", overflow="fold")
    for name in (*numbers, *titles):
        table.add_column(name, justify="right")
    return table


def _name(row: PlanRow) -> str:
    return printable(f"{row.name} {row.metric}")


def _points(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
