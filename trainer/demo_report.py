"""The last screen of the demo: what was measured, in the order in which a reader asks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ahabench.harness.report import percent


def print_demo(summary: Mapping[str, Any], out: Path, console: Console | None = None) -> None:
    """Print a summary of `demo.demo`; only here do its fractions become percent and points."""
    console = console or Console(highlight=False)
    console.print(
        f"The mini suite: {summary['heldout_items']:,} held-out items, {summary['shared_items']:,} of them seen in "
        "training. Greedy, think@1 · robust scorer. Accuracy in %:\n"
    )
    table = Table(box=None)
    table.add_column("benchmark")
    for name in ("base", "base, made to think", "after GRPO"):
        table.add_column(name, justify="right")
    for name, row in summary["tasks"].items():
        table.add_row(name, *(percent(row[side]) for side in ("before", "forced_mode", "after")))
    overall = [percent(summary[side]) for side in ("before", "forced_mode", "after")]
    table.add_row("all", *overall, style="bold")
    console.print(table)
    console.print()
    console.print(f"GRPO against the base: {_change(summary)}")
    console.print(f"GRPO against the base that is made to think: {_change(summary['beyond_forced_mode'])}")
    console.print(
        "The base was taught to answer hastily; the first difference holds what GRPO gained by choosing to think, the "
        "second what it learned beyond that. Both are about this tiny model, not about large ones."
    )
    console.print(_aha(summary["aha"]))
    console.print(
        f"\n{summary['seconds']:.0f} s. Everything is in {out}: summary.json, runs/, site/index.html", soft_wrap=True
    )


def _change(found: Mapping[str, Any]) -> str:
    low, high = found["ci95"]
    word = "better" if low > 0 else "worse" if high < 0 else "no difference shown"
    p = "p < 0.0001" if found["p"] < 1e-4 else f"p = {found['p']:.4f}"
    return f"{100 * found['difference']:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}], {p}: {word}."


def _aha(runs: Mapping[str, Mapping[str, Any]]) -> str:
    counts = " and ".join(
        f"{run['moments']:,} in {run['n']:,} responses {when}"
        for when, run in zip(("before", "after"), runs.values(), strict=True)
    )
    return f"Aha moments: {counts}."
