"""The gate as tests: `pytest --ahabench-run runs/pr --ahabench-baseline runs/main`.

Every guard and every benchmark's metric is a test, marked `ahabench`, after those of the repository at hand. Plain runs
of pytest load this module and nothing more: what it needs is imported when an option or the fixture asks for it.
"""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ahabench.harness.gate.pytest_items import AhabenchEval

OPTIONS = {
    "run": "run (or folder of seeds, or baseline:NAME) to test against --ahabench-baseline",
    "baseline": "run that --ahabench-run must not be worse than",
    "policy": "YAML file with margins, as for `ahabench compare --policy`",
    "data": "folder with the benchmarks' data, as for `ahabench eval --data`",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    group = parser.getgroup("ahabench", "a training run against its baseline")
    for name, text in OPTIONS.items():
        group.addoption(f"--ahabench-{name}", metavar="PATH", default=None, help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, and refuse half of what a comparison needs."""
    config.addinivalue_line("markers", "ahabench: a test of a run against its baseline")
    run, baseline = (config.getoption(f"--ahabench-{name}") for name in ("run", "baseline"))
    if (run is None) != (baseline is None):
        raise pytest.UsageError("--ahabench-run and --ahabench-baseline go together")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add the gate's tests, before others select by mark or keyword."""
    if config.getoption("--ahabench-run") is None:
        return
    from ahabench.harness.gate.pytest_items import gate_items

    items += gate_items(session)


@pytest.fixture(scope="session")
def ahabench_eval(pytestconfig: pytest.Config) -> "AhabenchEval":
    """Compare runs in a test of your own; paths are those of the options unless a call names others.

    `ahabench_eval.check("mathvista", margin=2)` passes, fails or skips as the gate does, and returns the row;
    `ahabench_eval.compare("runs/pr", "runs/main")` returns the whole comparison;
    `ahabench_eval.metrics("mathvista")["metrics"]["accuracy"]["value"]` is what `ahabench score` wrote.
    """
    from ahabench.harness.gate.pytest_items import AhabenchEval

    return AhabenchEval(pytestconfig)
