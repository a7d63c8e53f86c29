"""The static site: a folder that opens from a disk or any host, asks nobody for anything, and reads without scripts."""

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ahabench.harness import registry
from ahabench.harness.disk import replace_file
from ahabench.harness.errors import AhabenchError
from ahabench.harness.report import printable
from ahabench.leaderboards import charts, exports
from ahabench.leaderboards.run_page import cell_of, run_values
from ahabench.leaderboards.runs import BoardRun, TaskScore
from ahabench.leaderboards.table import MEAN, SIX, Board, Row, Table, footnotes, half_width, name_of, parameters

SHORT = {
    "ik": "IK",
    "ig": "IG",
    "cm_strict": "CM strict",
    "cm_loose": "CM loose",
    "rm_strict": "RM strict",
    "rm_loose": "RM loose",
    "s1": "one step",
    "s2": "two steps",
    "s3": "three steps",
    "score_strict": "strict",
    "score_loose": "loose",
    "rr": "robustness",
    "concept_macro": "concepts",
}
"""Names for the heads of columns."""
OUTCOMES = frozenset({"ik", "ig", "cm_strict", "cm_loose", "rm_strict", "rm_loose"})
"""Those whose words stand below."""
METRIC_WORDS = {
    "accuracy": "accuracy",
    "average": "average over variants",
    "worst": "worst case: all variants right",
    "best": "best case: any variant right",
    "rr": "reasoning robustness: worst / average",
    "score_strict": "strict score",
    "score_loose": "loose score",
    "ik": "IK, insufficient knowledge",
    "ig": "IG, inadequate generalisation",
    "cm_strict": "CM, complete mastery (strict)",
    "cm_loose": "CM, complete mastery (loose)",
    "rm_strict": "RM, rote memorisation (strict)",
    "rm_loose": "RM, rote memorisation (loose)",
    "s1": "one-step accuracy",
    "s2": "two-step accuracy",
    "s3": "three-step accuracy",
    "concept_macro": "mean over concepts",
}


def write_site(board: Board, runs: Sequence[BoardRun], out: Path) -> list[Path]:
    """Write the site and the board in its other formats, and return the files.

    The bytes depend on the board and the runs alone. A run whose items were exported to ``items/<slug>`` in the same
    folder by `ahabench view` is linked there.

    Raises:
        UsageError: the disk is full or refuses.
    """
    pages: dict[str, str] = {
        "index.html": render("board.html.jinja", "", board=board, plots=_plots(board)),
        "about.html": render("about.html.jinja", "", board=board, six=_about_tasks()),
    }
    tasks = _tasks(runs)
    for task in tasks:
        pages[f"benchmarks/{task}.html"] = render(
            "benchmark.html.jinja", "../", **_benchmark(task, board, {run.slug: run for run in runs})
        )
    for run in runs:
        pages[f"runs/{run.slug}.html"] = render("run.html.jinja", "../", **run_values(run, out))
    written = exports.write_tables(board, out)
    for name, text in pages.items():
        path = out / name
        filled = text.replace(_NAV, _nav(tasks, "../" if "/" in name else ""))
        replace_file(path, [filled.encode("utf-8", "backslashreplace")])
        written.append(path)
    return written


_NAV = "<!--benchmarks-->"


def render(template: str, root: str, **values: Any) -> str:
    """Return a page of a template of this folder, with its style, script and content security policy.

    Args:
        template: its file name.
        root: the way from the page to the site's folder, "" or "../".
        values: what it shows; every string is escaped.
    """
    return str(_environment().get_template(template).render(root=root, **_assets(), **values))


@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("ahabench.leaderboards", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "score": exports.score,
        "half": half_width,
        "share": exports.share,
        "size": parameters,
        "printable": printable,
        "word": lambda name: METRIC_WORDS.get(name, name),
    }
    environment.globals |= {"bar": charts.bar, "MEAN": MEAN, "footnotes": footnotes}
    return environment


@cache
def _assets() -> dict[str, object]:
    folder = files("ahabench.leaderboards").joinpath("templates")
    style = folder.joinpath("board.css").read_text(encoding="utf-8")
    script = folder.joinpath("board.js").read_text(encoding="utf-8")
    # Ours, and digested as they stand: escaping would change them.
    return {
        "style": Markup(style),
        "script": Markup(script),
        "style_digest": _digest(style),
        "script_digest": _digest(script),
        "nav_slot": Markup(_NAV),
    }


def _digest(text: str) -> str:
    return b64encode(sha256(text.encode()).digest()).decode()


def _nav(tasks: Sequence[str], root: str) -> str:
    item = Markup('<a href="{root}benchmarks/{task}.html">{label}</a>')
    return "".join(item.format(root=root, task=task, label=name_of(task)) for task in tasks)


def _tasks(runs: Sequence[BoardRun]) -> list[str]:
    """Return the benchmarks that any run was scored on, in the order of the columns."""
    found = {task for run in runs for task, score in run.tasks.items() if score.metrics is not None}
    return [*(task for task in SIX if task in found), *sorted(found - SIX.keys())]


def _plots(board: Board) -> dict[str, list[tuple[str, str, Markup]]]:
    """Return the plots of each table: key, label and SVG of every column with at least two values."""
    found: dict[str, list[tuple[str, str, Markup]]] = {}
    for table in board.tables:
        found[table.id] = []
        for column in table.columns:
            known = [row for row in table.rows if row.cells[column.key].value is not None]
            if len(known) > 1:
                svg = charts.whiskers(table.rows, column.key, f"{column.label}, percent, with 95 % intervals")
                found[table.id].append((column.key, column.label, svg))
    return found


def _about_tasks() -> list[dict[str, str]]:
    rows = []
    for task, label in SIX.items():
        try:
            found = registry.find_task(task)
        except AhabenchError:
            continue
        number = found.paper.removeprefix("arXiv:")
        rows.append(
            {
                "label": label,
                "title": found.title,
                "paper": found.paper,
                "url": f"https://arxiv.org/abs/{number}",
                "headline": METRIC_WORDS.get(found.headline, found.headline),
                "split": f"{found.default_split}, {found.splits[found.default_split].n_items:,} items",
                "licence": found.licence,
            }
        )
    return rows


def _benchmark(task: str, board: Board, runs: Mapping[str, BoardRun]) -> dict[str, Any]:
    sections = []
    for table in board.tables:
        scored = [(row, score) for row in table.rows if (score := _score_of(row, task, runs)) is not None]
        if scored:
            sections.append(_section(table, task, scored))
    return {"task": task, "title": _title(task), "label": name_of(task), "sections": sections}


def _title(task: str) -> str:
    try:
        return registry.find_task(task).title
    except AhabenchError:
        return task


def _score_of(row: Row, task: str, runs: Mapping[str, BoardRun]) -> TaskScore | None:
    run = runs.get(row.slug)
    score = run.tasks.get(task) if run is not None else None
    return score if score is not None and score.metrics is not None else None


def _section(table: Table, task: str, scored: Sequence[tuple[Row, TaskScore]]) -> dict[str, Any]:
    """Return what a benchmark's page shows of one table: all metrics, then each breakdown, models as columns' rows."""
    column = next(column for column in table.columns if column.key == task)
    metrics = list(dict.fromkeys(name for _, score in scored if score.metrics for name in score.metrics.metrics))
    matrices = [
        {
            "title": "All metrics",
            "id": f"{table.id}-metrics",
            "counts": [],
            "columns": [SHORT.get(name, name) for name in metrics],
            "words": [(SHORT[name], METRIC_WORDS[name].partition(", ")[2]) for name in metrics if name in OUTCOMES],
            "rows": [
                (row, [cell_of(score.metrics.metrics.get(name)) for name in metrics])
                for row, score in scored
                if score.metrics
            ],
        }
    ]
    tags = list(dict.fromkeys(tag for _, score in scored if score.metrics for tag in score.metrics.breakdown))
    for tag in tags:
        names = list(dict.fromkeys(_names(scored, tag)))
        for name in names:
            matrices.append(_matrix(table, scored, tag, name, several=len(names) > 1))
    return {"table": table, "protocol": f"{column.protocol} · {table.protocol}", "matrices": matrices}


def _names(scored: Sequence[tuple[Row, TaskScore]], tag: str) -> Iterator[str]:
    for _, score in scored:
        if score.metrics is not None:
            for estimates in score.metrics.breakdown.get(tag, {}).values():
                yield from estimates


def _matrix(
    table: Table, scored: Sequence[tuple[Row, TaskScore]], tag: str, name: str, *, several: bool
) -> dict[str, Any]:
    parts = [(row, score.metrics.breakdown.get(tag, {})) for row, score in scored if score.metrics is not None]
    values = sorted({value for _, part in parts for value in part})
    counts = {value: max(part[value][name].n for _, part in parts if name in part.get(value, {})) for value in values}
    word = f": {METRIC_WORDS.get(name, name)}" if several else ""
    return {
        "title": f"By {tag.replace('_', ' ')}{word}",
        "id": f"{table.id}-{tag}-{name}",
        "columns": values,
        "counts": [counts[value] for value in values],
        "words": [],
        "rows": [(row, [cell_of(part.get(value, {}).get(name)) for value in values]) for row, part in parts],
    }
