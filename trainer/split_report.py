"""How a split is asked for, and how it is told."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ahabench.harness.report import note, printable
from ahabench.trainer.recipe_files import load_as, parse_as
from ahabench.trainer.split import RL, SFT, SplitConfig

SETTINGS = {".yaml", ".yml"}


def read_config(source: Path, given: Mapping[str, Any]) -> SplitConfig:
    """Return the settings of a YAML file, or the defaults for a file of records, under those that were given.

    Raises:
        UsageError: a key or a value is not what it should be.
    """
    if source.suffix in SETTINGS:
        values = load_as(SplitConfig, source).model_dump(exclude_unset=True)
    else:
        values = {"records": source}
    return parse_as(SplitConfig, {**values, **given}, name=str(source))


def print_split(report: Mapping[str, Any], out: Path) -> None:
    """Print the counts by source and how the rule agrees with the other one; then the two files."""
    rule, other, n = report["rule"], report["other_rule"], report["n"]
    rows = {**report["sources"], "all": {"records": n, "sft": report["sft"], "rl": report["rl"]}}
    width = max(len(printable(name)) for name in rows)
    print(printable(f"rule: {rule['title']}, from {rule['min_hits']} hit(s)"))
    print(f"{'source':<{width}}  {'records':>9}  {'SFT':>9}  {'RL':>9}  {'RL %':>6}")
    for name, row in rows.items():
        share = 100 * row["rl"] / row["records"]
        print(f"{printable(name):<{width}}  {row['records']:>9,}  {row['sft']:>9,}  {row['rl']:>9,}  {share:>6.1f}")
    kappa = "-" if other["kappa"] is None else f"{other['kappa']:.2f}"
    print(
        f"{other['n']:,} traces: {other['both']:,} reflect by both this rule and {other['name']}, "
        f"{other['only_rule']:,} by this one alone, {other['only_other']:,} by {other['name']} alone; Cohen's κ {kappa}"
    )
    if report["drawn_along"]:
        print(f"{report['drawn_along']:,} went to RL because another record of their {report['together']} did")
    if skipped := report["skipped"]["n"]:
        note(f"left out {skipped:,} bad records; the first: {report['skipped']['first'][0]}")
    if untyped := report["without_verifier_type"]:
        note(f"{untyped:,} RL records have no verifier_type and are of no known source; give verifier_types")
    print(printable(str(out / SFT)))
    print(printable(str(out / RL)))
