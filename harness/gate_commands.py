"""The commands of the gate: compare two runs, plan how many items that takes, keep baselines."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ahabench.harness import report
from ahabench.harness.commands import AsJson, Data
from ahabench.harness.errors import DatasetError, UsageError

if TYPE_CHECKING:
    from ahabench.harness.gate.plan import Design

Baselines = Annotated[Path, typer.Option(help="Folder in which baselines are kept.")]
BASELINES = Path("baselines")
SIDE = "A run; a folder of runs that differ in their seeds; several, with commas; or baseline:NAME."


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help=f"The baseline. {SIDE}")],
    second: Annotated[str, typer.Argument(metavar="B", help="The candidate, likewise.")],
    margin: Annotated[
        str | None, typer.Option(help="Largest accepted drop in points: 2, or mathvista=2,*=3. Default: 2.")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="YAML file with margins and the rest; flags go before it.")
    ] = None,
    alpha: Annotated[float | None, typer.Option(help="One-sided level of the gate. Default: 0.05.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Benchmarks to compare, with commas; default: all of A.")] = None,
    metric: Annotated[
        list[str] | None, typer.Option(metavar="TASK:NAME", help="Compare this metric too; repeatable.")
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(metavar="FIELD", help="Accept that the runs differ in this; repeatable.")
    ] = None,
    allow_missing: Annotated[
        bool | None, typer.Option(help="Compare the items that both sides answered in full. Default: no.")
    ] = None,
    fail_on_drop: Annotated[
        bool | None, typer.Option(help="Also fail on a significant drop within the margin. Default: no.")
    ] = None,
    scorer: Annotated[
        str | None, typer.Option(help="Score both sides with it, in memory; default: the one they were scored with.")
    ] = None,
    data: Data = None,
    baselines: Baselines = BASELINES,
    flips: Annotated[int, typer.Option(min=0, help="Print so many flips of each kind with both responses.")] = 0,
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit file.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown, for a pull request or a summary.")] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a page with the flips side by side to DIR/index.html.")
    ] = None,
    images: Annotated[bool, typer.Option(help="With --html: copy the pictures in; a licence may forbid that.")] = True,
    as_json: AsJson = False,
) -> None:
    """Tell whether B is worse than A by more than a margin: paired, clustered; pass, fail or inconclusive."""
    from ahabench.harness import extensions
    from ahabench.harness.gate.compare import compare as run_comparison
    from ahabench.harness.gate.policy import Policy, parse_margin
    from ahabench.harness.gate.report import EXAMPLES, print_comparison, write_junit, write_markdown
    from ahabench.harness.gate.sides import open_side

    demands = Policy.read(policy) if policy is not None else Policy()
    demands = demands.changed(
        {
            "margin": parse_margin(margin) if margin is not None else None,
            "alpha": alpha,
            "metrics": metric,
            "allow": [*demands.allow, *allow] if allow else None,
            "allow_missing": allow_missing,
            "on_significant_drop": None if fail_on_drop is None else "fail" if fail_on_drop else "pass",
        }
    )
    found = run_comparison(
        open_side(first, baselines=baselines),
        open_side(second, baselines=baselines),
        demands,
        data=data,
        tasks=[name.strip() for name in tasks.split(",")] if tasks is not None else None,
        scorer=scorer,
        examples=None if html is not None else max(flips, EXAMPLES if markdown is not None else 0),
    )
    if junit is not None:
        write_junit(found, junit)
    if markdown is not None:
        write_markdown(found, markdown)
    if html is not None:
        extensions.load("ahabench.pages", "compare")(found, html, data=data, images=images)
    # Whoever stops reading must not turn a verdict into a pass; rich then ends with SystemExit.
    with suppress(BrokenPipeError, SystemExit):
        if as_json:
            report.print_json(found.as_json())
        else:
            print_comparison(found, examples=flips)
    if found.exit_code:
        raise typer.Exit(found.exit_code)


def plan(
    tasks: Annotated[str | None, typer.Option(help="all, or mathvista,mathvision:testmini.")] = None,
    suite: Annotated[str, typer.Option(help="full, or mini: the small benchmarks that are drawn here.")] = "full",
    items: Annotated[
        str | None, typer.Option(metavar="N[/CLUSTERS],...", help="Plan for so many items of anything instead.")
    ] = None,
    margin: Annotated[float, typer.Option(help="Points.")] = 2.0,
    discordance: Annotated[str, typer.Option(help="Shares of items that one side alone gets right.")] = "0.1,0.2,0.3",
    correlation: Annotated[
        float, typer.Option(help="Of two items' differences within a cluster (intra-cluster correlation).")
    ] = 0.5,
    discordance_from: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="A B", help="Measure discordance and correlation on two runs (or baseline:NAME)."),
    ] = None,
    alpha: Annotated[float, typer.Option(help="One-sided level of the gate.")] = 0.05,
    power: Annotated[float, typer.Option(help="Chance of showing what is there, and of passing.")] = 0.8,
    data: Data = None,
    baselines: Baselines = BASELINES,
    plot: Annotated[Path | None, typer.Option(help="Write a picture: an SVG file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tell what difference each benchmark can show, and how many items a margin takes.

    Without --tasks, --items or runs, for the benchmarks' published sizes, which takes no data.
    """
    from ahabench.harness.disk import replace_file
    from ahabench.harness.gate.plan import plan_rows
    from ahabench.harness.gate.plan_report import picture, print_plan

    for name, value, most in (
        ("--margin", margin / 100, 1.0),
        ("--alpha", alpha, 0.5),
        ("--correlation", correlation, 1),
    ):
        if not 0 <= value <= most or (value == 0 and name != "--correlation"):
            raise UsageError(f"{name} {value:g} is out of range")
    if not 0.5 < power < 1:
        raise UsageError(f"--power {power:g} is out of range, wanted between 0.5 and 1")
    named = [name for name, given in (("--tasks", tasks), ("--items", items), ("runs", discordance_from)) if given]
    if len(named) > 1:
        raise UsageError(f"a plan is for {' or for '.join(named)}; give one of them")
    if discordance_from is not None:
        designs = _measured(discordance_from, baselines, data)
    else:
        designs = _assumed(tasks, suite, items, data, correlation, _fractions(discordance))
    rows = plan_rows(designs, margin=margin / 100, alpha=alpha, power=power)
    if plot is not None:
        replace_file(plot, [picture(rows, margin=margin / 100, power=power).encode()])
    if as_json:
        report.print_json([row.as_row() for row in rows])
    else:
        print_plan(rows, margin=margin / 100, alpha=alpha, power=power)


def _measured(runs: tuple[str, str], baselines: Path, data: Path | None) -> "list[Design]":
    from ahabench.harness.gate.plan import measured_designs
    from ahabench.harness.gate.policy import Policy
    from ahabench.harness.gate.sides import open_side

    a, b = (open_side(side, baselines=baselines) for side in runs)
    return measured_designs(a, b, Policy(allow_missing=True), data)


def _assumed(
    tasks: str | None, suite: str, items: str | None, data: Path | None, correlation: float, shares: Sequence[float]
) -> "list[Design]":
    from ahabench.harness import registry
    from ahabench.harness.dataset import load
    from ahabench.harness.gate.plan import design_of, design_of_size, parse_sizes, published_sizes

    if items is not None or (tasks is None and data is None and suite == registry.SUITES[0]):
        sizes = published_sizes() if items is None else parse_sizes(items)
        return [design_of_size(size, correlation=correlation, discordances=shares) for size in sizes]
    try:
        loaded = [load(task, split, data=data) for task, split in registry.parse_tasks(tasks or "all", suite=suite)]
    except DatasetError as error:
        raise DatasetError(f"{error}, or leave out --tasks: the published sizes take no data") from error
    return [design_of(one, correlation=correlation, discordances=shares) for one in loaded]


def _fractions(text: str) -> list[float]:
    found = []
    for part in text.split(","):
        try:
            value = float(part)
        except ValueError:
            value = 0.0
        if not 0 < value <= 1:
            raise UsageError(f"--discordance {text!r}: wanted fractions above 0 and at most 1, such as 0.1,0.2")
        found.append(value)
    return found


baseline = typer.Typer(add_completion=False, no_args_is_help=True, help="Keep named runs to compare with.")


@baseline.command("set")
def baseline_set(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run; a folder of seeds; or several, with commas.")],
    name: Annotated[str, typer.Option(help="What to call it, such as main.")],
    baselines: Baselines = BASELINES,
    replace: Annotated[bool, typer.Option(help="Take the place of the baseline of that name.")] = False,
    as_json: AsJson = False,
) -> None:
    """Copy a run, responses included, and remember the digests of its files."""
    from ahabench.harness.gate.baselines import set_baseline
    from ahabench.harness.gate.sides import open_side

    made = set_baseline(open_side(run, baselines=baselines), name, baselines, replace=replace)
    if as_json:
        report.print_json({"name": made.name, "digest": made.digest, "files": made.files})
    else:
        print(report.printable(f"{baselines / name}  {made.digest}"))


@baseline.command("list")
def baseline_list(baselines: Baselines = BASELINES, as_json: AsJson = False) -> None:
    """List the baselines with their digests."""
    from ahabench.harness.gate.baselines import list_baselines

    found = list_baselines(baselines)
    if as_json:
        report.print_json([{"name": one.name, "digest": one.digest, "files": one.files} for one in found])
        return
    for one in found:
        print(report.printable(f"{one.name}  {one.digest}"))


@baseline.command("verify")
def baseline_verify(
    name: Annotated[str, typer.Argument(help="The baseline.")],
    baselines: Baselines = BASELINES,
    as_json: AsJson = False,
) -> None:
    """Check that a baseline's manifests and responses are those that it was made of."""
    from ahabench.harness.gate.baselines import verify_baseline

    found = verify_baseline(name, baselines)
    if as_json:
        report.print_json({"name": name, "digest": found.baseline.digest, "faults": list(found.faults)})
    elif not found.faults:
        print(report.printable(f"{name}  {found.baseline.digest}  as it was made"))
    if found.faults:
        raise UsageError(f"the baseline {name!r} is not as it was made: {'; '.join(found.faults)}")
