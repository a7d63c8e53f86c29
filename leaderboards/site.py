"""The static site: a folder that opens from a disk or any host, asks nobody for anything, and reads without scripts."""

from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ahabench.harness.accounting import MUCH_TRUNCATION
from ahabench.harness.disk import replace_file
from ahabench.harness.report import printable
from ahabench.leaderboards import charts, exports
from ahabench.leaderboards.benchmark_page import METRIC_WORDS, about, benchmark_values
from ahabench.leaderboards.run_page import run_values
from ahabench.leaderboards.runs import BoardRun
from ahabench.leaderboards.table import (
    MEAN,
    SIX,
    UNSPLIT,
    Board,
    footnotes,
    half_width,
    name_of,
    parameters,
)


def write_site(board: Board, runs: Sequence[BoardRun], out: Path) -> list[Path]:
    """Write the site and the board in its other formats, and return the files.

    The bytes depend on the board and the runs alone. A run whose items were exported to ``items/<slug>`` in the same
    folder by `ahabench view` is linked there.

    Raises:
        UsageError: the disk is full or refuses.
    """
    six = list(filter(None, map(about, SIX)))
    numbers = sha256(exports.to_json(board).encode()).hexdigest()
    pages: dict[str, str] = {
        "index.html": render("board.html.jinja", "", board=board, plots=_plots(board)),
        "about.html": render("about.html.jinja", "", version=version("ahabench"), digest=numbers, six=six),
    }
    tasks = _tasks(runs)
    for task in tasks:
        pages[f"benchmarks/{task}.html"] = render(
            "benchmark.html.jinja", "../", **benchmark_values(task, board, {run.slug: run for run in runs})
        )
    for run in runs:
        pages[f"runs/{run.slug}.html"] = render("run.html.jinja", "../", **run_values(run, out))
    written = exports.write_tables(board, out)
    for name, text in pages.items():
        path = out / name
        filled = text.replace(_NAV, _nav(tasks, name))
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
        "lines": lambda text: "\n".join(map(printable, text.expandtabs(4).split("\n"))),
        "name_of": name_of,
        "word": lambda name: METRIC_WORDS.get(name, name),
    }
    environment.globals |= {
        "bar": charts.bar,
        "footnotes": footnotes,
        "MEAN": MEAN,
        "UNSPLIT": UNSPLIT,
        "MUCH_TRUNCATION": MUCH_TRUNCATION,
    }
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


def _nav(tasks: Sequence[str], here: str) -> str:
    """Return the links to the site's pages, as they stand on the page of that name."""
    pages = {
        "index.html": "Board",
        **{f"benchmarks/{task}.html": name_of(task) for task in tasks},
        "about.html": "About",
    }
    link = Markup('<a href="{}{}"{}>{}</a>')
    root, current = "../" if "/" in here else "", Markup(' aria-current="page"')
    return "".join(link.format(root, page, current if page == here else "", label) for page, label in pages.items())


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
