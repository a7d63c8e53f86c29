"""The committed board of what was run here: rebuilt from the committed runs, paired, and free of texts and places."""

import json
import re
from pathlib import Path

import pytest

from ahabench.harness import registry
from ahabench.harness.dataset import load
from ahabench.leaderboards.build import build_tables

HERE = Path(__file__).parents[2] / "leaderboards" / "published" / "here"
AGAIN = "ahabench board build leaderboards/published/here --only md,csv,json --out leaderboards/published/here"


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("here")
    build_tables([HERE], out, ["md", "csv", "json"])
    return out


def test_the_table_is_that_of_the_committed_runs_byte_for_byte(rebuilt: Path) -> None:
    assert (HERE / "leaderboard.md").read_bytes() == (rebuilt / "leaderboard.md").read_bytes(), AGAIN


def test_the_numbers_are_those_of_the_committed_runs(rebuilt: Path) -> None:
    # Not the bytes: the last digit of a p-value is a matter of the platform's mathematics.
    first, second = (json.loads((folder / "leaderboard.json").read_text()) for folder in (HERE, rebuilt))
    assert leaves(first) == [
        (way, pytest.approx(value, rel=1e-9) if isinstance(value, float) else value) for way, value in leaves(second)
    ], AGAIN


def test_the_lines_of_csv_are_those_of_the_committed_runs(rebuilt: Path) -> None:
    first, second = ((folder / "leaderboard.csv").read_text() for folder in (HERE, rebuilt))
    digits = re.compile(r"(?<=\.\d{9})\d+(e-\d+)?")
    assert digits.sub("", first) == digits.sub("", second), AGAIN


def leaves(value: object, way: str = "") -> list[tuple[str, object]]:
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in leaves(inner, f"{way}.{key}")]
    if isinstance(value, list):
        return [leaf for at, inner in enumerate(value) for leaf in leaves(inner, f"{way}[{at}]")]
    return [(way, value)]


def test_every_mark_is_a_paired_test() -> None:
    tables = json.loads((HERE / "leaderboard.json").read_text())["tables"]
    mini = next(table for table in tables if table["title"] == "Built-in mini suite")
    cells = [(row["name"], key, cell) for row in mini["rows"] for key, cell in row["cells"].items()]
    tested = [cell for _, _, cell in cells if cell["p_holm"] is not None]
    # Three rows, seven columns with a best each: two tests in each.
    assert len(tested) == 14
    assert all(cell["paired"] for cell in tested)
    assert mini["note"] is None


def test_no_text_and_no_place_is_committed() -> None:
    files = sorted(path for path in HERE.rglob("*") if path.is_file())
    assert len(files) > 40
    assert {path.name for path in files} <= {
        *("run.json", "model.toml", "metrics.json", "verdicts.jsonl", "log.jsonl"),
        *("leaderboard.md", "leaderboard.csv", "leaderboard.json"),
    }
    for path in files:
        assert not re.search(r"(?<![<\w])/(?!think>|answer>)\w+/|[A-Z]:\\\\|file:", path.read_text()), path
    for path in HERE.rglob("verdicts.jsonl"):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            assert set(row) == {"item_id", "sample_index", "status", "aha"}
            assert set(row["aha"]) == {"moments"}


@pytest.mark.parametrize("task", ["mathvista", "mathvision", "mathverse", "dynamath", "wemath", "logicvista"])
def test_the_mini_suite_is_still_the_one_that_was_answered(task: str) -> None:
    manifest = json.loads((HERE / "reference-base" / "run.json").read_text())
    digest = load(registry.find_task(task), registry.MINI).digest
    assert manifest["tasks"][task]["data_digest"] == digest, f"run the demo again, strip its runs, and: {AGAIN}"
