"""The commands of this folder. Options are read here; the work is done by the modules they name."""

from pathlib import Path
from typing import Annotated

import typer

from ahabench.harness import report
from ahabench.harness.errors import UsageError

board = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Build a leaderboard of runs, or check a run for one."
)

Data = Annotated[
    Path | None,
    typer.Option(help="Folder with the official files; without it only what the runs and the built-in suite say."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


@board.command("build")
def build(
    out: Annotated[Path, typer.Option(help="Folder to write the site and the tables to.")],
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Run directories, or folders of such.", metavar="RUN...")
    ] = None,
    published: Annotated[bool, typer.Option("--published", help="Add what papers report, marked as such.")] = False,
    only: Annotated[
        str | None, typer.Option(help="Write no pages, only these: of json,csv,md,tex.", metavar="LIST")
    ] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Write index.html and leaderboard.md, .csv, .tex and .json: the same bytes for the same runs."""
    from ahabench.leaderboards.build import build_site, build_tables

    if not runs and not published:
        raise UsageError("give run directories, --published, or both")
    if only is None:
        made, first = build_site(runs or [], out, published=published, data=data), "index.html"
    else:
        formats = only.split(",")
        made = build_tables(runs or [], out, formats, published=published, data=data)
        first = f"leaderboard.{formats[0]}"
    if as_json:
        report.print_json({"out": str(out), "tables": len(made.tables), "rows": sum(len(t.rows) for t in made.tables)})
    else:
        print(out / first)


@board.command("validate")
def validate(
    folder: Annotated[Path, typer.Argument(help="A run directory, or a folder of such.", metavar="FOLDER")],
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Check a submitted run: files, digests, prompts, every item exactly once, and its scores by scoring it again.

    Exit codes: 0 all is well, 2 a run is wrong, 5 responses are missing or something could not be checked.
    """
    from ahabench.leaderboards.validate import validate as check

    found = check(folder, data=data)
    if as_json:
        report.print_json([one.as_row() for one in found])
    else:
        for one in found:
            print(report.printable(f"{one.run}: {'ok' if one.ok else 'not ok'}"))
            for line in (*one.problems, *one.unchecked, *one.notes):
                print(report.printable(f"  {line}"))
    if any(one.problems for one in found):
        raise typer.Exit(2)
    if any(one.unchecked for one in found):
        raise typer.Exit(5)


@board.command("strip")
def strip(
    run: Annotated[Path, typer.Argument(help="A scored run directory.", metavar="RUN")],
    out: Annotated[Path, typer.Option(help="Folder to write the stripped run to; new or empty.")],
) -> None:
    """Write a run without texts, folders and addresses: keys and numbers, of which the same board is built."""
    from ahabench.leaderboards.stripped import strip as write

    print(write(run, out))


def view(
    run: Annotated[Path, typer.Argument(help="A run directory.", metavar="RUN")],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write the browser to; SITE/items/RUN beside a board links it there.")
    ] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Show it at http://127.0.0.1:PORT until interrupted.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 7575,
    task: Annotated[str | None, typer.Option("--task", help="One benchmark of the run; default: all.")] = None,
    images: Annotated[bool, typer.Option(help="Copy the pictures in; a licence may forbid that.")] = True,
    against: Annotated[
        Path | None, typer.Option(help="Another run: adds the column flip, which is fixed, broken or same.")
    ] = None,
    data: Data = None,
) -> None:
    """Browse a run item by item in Inspect's viewer."""
    import tempfile
    from contextlib import ExitStack

    from ahabench.leaderboards.serving import server
    from ahabench.leaderboards.view import bundle, refuse_foreign, write_logs

    if out is None and not serve:
        raise UsageError("give --out DIR, or --serve")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        target = out or folder / "view"
        # Before the logs, which may take long.
        refuse_foreign(target)
        host = stack.enter_context(server(target, port)) if serve else None
        written = write_logs(run, folder / "logs", data=data, images=images, task=task, against=against)
        bundle(folder / "logs", target)
        if host is None:
            report.note(f"{len(written)} logs in {target}; a browser reads them from a static host, not from a file")
            print(target / "index.html")
        else:
            print(f"http://127.0.0.1:{host.server_address[1]}/", flush=True)
            host.serve_forever()
