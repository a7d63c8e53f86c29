"""What the pytest plugin does once an option or a fixture asks for it."""

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness.errors import AhabenchError, UsageError
from ahabench.harness.gate.compare import compare
from ahabench.harness.gate.comparison import Comparison, MetricRow
from ahabench.harness.gate.guards import GUARDS
from ahabench.harness.gate.pairing import common_tasks
from ahabench.harness.gate.policy import Policy, parse_margin
from ahabench.harness.gate.report import Case, cases, sentence
from ahabench.harness.gate.sides import open_side
from ahabench.harness.registry import find_task
from ahabench.harness.runlog import METRICS

BASELINES = Path("baselines")


class Worse(Exception):
    """A guard or a row that failed; its text is the verdict."""


class AhabenchEval:
    """Compares runs as the options or a call say. Comparisons are made once for the same arguments.

    Args:
        config: of the session.
    """

    def __init__(self, config: pytest.Config) -> None:
        """Read nothing yet."""
        self._config = config
        self._compared = cache(self._compare)

    def compare(
        self,
        run: str | Path | None = None,
        baseline: str | Path | None = None,
        *,
        margin: float | str | None = None,
        tasks: Iterable[str] | None = None,
        metrics: Iterable[str] | None = None,
    ) -> Comparison:
        """Return the comparison of a run with a baseline; the test skips where neither options nor call name them.

        Args:
            run: the candidate; --ahabench-run if `None`.
            baseline: --ahabench-baseline if `None`.
            margin: points, or text as for `--margin`; the policy's if `None`.
            tasks: benchmarks; all of the baseline's if `None`.
            metrics: "TASK:METRIC" beside the headlines; the policy's if `None`.

        Raises:
            AhabenchError: as `compare.compare`.
        """
        sides = [str(given or self._option(name) or "") for name, given in (("baseline", baseline), ("run", run))]
        if not all(sides):
            pytest.skip("needs --ahabench-run and --ahabench-baseline")
        listed = [None if names is None else tuple(names) for names in (tasks, metrics)]
        return self._compared(*sides, None if margin is None else str(margin), *listed)

    def check(
        self,
        task: str,
        metric: str | None = None,
        *,
        margin: float | None = None,
        run: str | Path | None = None,
        baseline: str | Path | None = None,
    ) -> MetricRow:
        """Return the row of a benchmark that passed; fail the test, or skip it, as the policy says.

        Args:
            task: the benchmark.
            metric: its headline if `None`.
            margin: points; the policy's if `None`.
            run: as for `compare`.
            baseline: as for `compare`.
        """
        metric = metric or find_task(task).headline
        found = self.compare(run, baseline, margin=margin, tasks=[task], metrics=[f"{task}:{metric}"])
        if found.mismatches or found.missing:
            raise Worse("; ".join([*map(str, found.mismatches), *found.missing]))
        row = next(row for row in found.rows if row.metric == metric)
        case = next(case for case in cases(found) if (case.group, case.name) == (task, metric))
        _settle(case._replace(message=sentence(row)))
        return row

    def metrics(self, task: str, run: str | Path | None = None) -> dict[str, Any]:
        """Return the metrics.json that `ahabench score` wrote for a benchmark of a run.

        Raises:
            UsageError: there is none, or it is damaged.
        """
        folder = run or self._option("run")
        if folder is None:
            pytest.skip("needs --ahabench-run")
        path = Path(folder) / task / METRICS
        try:
            found: dict[str, Any] = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} cannot be read ({error}); run `ahabench score {folder}`") from error
        return found

    @property
    def policy(self) -> Policy:
        """The policy of --ahabench-policy, or the default."""
        path = self._option("policy")
        return Policy.read(Path(path)) if path else Policy()

    def _option(self, name: str) -> str | None:
        found: str | None = self._config.getoption(f"--ahabench-{name}")
        return found

    def _compare(
        self,
        baseline: str,
        run: str,
        margin: str | None,
        tasks: tuple[str, ...] | None,
        metrics: tuple[str, ...] | None,
    ) -> Comparison:
        demands = {
            "margin": parse_margin(margin) if margin is not None else None,
            "metrics": list(metrics) if metrics is not None else None,
        }
        data = self._option("data")
        return compare(
            open_side(baseline, baselines=BASELINES),
            open_side(run, baselines=BASELINES),
            self.policy.changed(demands),
            data=Path(data) if data else None,
            tasks=tasks,
            examples=0,
        )


class GateCollector(pytest.Collector):
    """The parent of the gate's tests."""

    def collect(self) -> list[pytest.Item]:
        """Return nothing: the plugin adds the tests itself."""
        return []


class GateItem(pytest.Item):
    """A guard, or a metric of a benchmark."""

    evaluation: AhabenchEval
    case: tuple[str, str]

    def runtest(self) -> None:
        """Pass, fail or skip as the comparison says."""
        found = self.evaluation.compare()
        group, name = self.case
        case = next((case for case in cases(found) if (case.group, case.name) == self.case), None)
        if case is None:
            pytest.skip(f"{group} {name} is not compared: a guard failed")
        _settle(case)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *args: Any, **options: Any) -> Any:
        """Return the verdict alone, without a traceback of ours."""
        if isinstance(excinfo.value, Worse | AhabenchError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, *args, **options)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return where the test is said to stand."""
        return self.path, None, self.nodeid


def gate_items(session: pytest.Session) -> list[pytest.Item]:
    """Return a test for each guard and each metric that the options' runs and policy name.

    Raises:
        pytest.UsageError: there is no run or no policy where an option says.
    """
    evaluation = AhabenchEval(session.config)
    try:
        named = _named(evaluation)
    except AhabenchError as error:
        raise pytest.UsageError(str(error)) from error
    parents: dict[str, GateCollector] = {}
    tests: list[pytest.Item] = []
    for group, name in named:
        if group not in parents:
            parents[group] = GateCollector.from_parent(session, name=group, nodeid=f"ahabench::{group}")
        test = GateItem.from_parent(parents[group], name=name)
        test.evaluation, test.case = evaluation, (group, name)
        test.add_marker(pytest.mark.ahabench)
        tests.append(test)
    return tests


def _named(evaluation: AhabenchEval) -> list[tuple[str, str]]:
    """Return group and name of each test, before anything is compared."""
    sides = [open_side(str(evaluation._option(name)), baselines=BASELINES) for name in ("baseline", "run")]
    rows = []
    for task in common_tasks(sides[0], sides[1], None):
        headline = find_task(task).headline
        others = [name.partition(":")[2] for name in evaluation.policy.metrics if name.partition(":")[0] == task]
        rows += [(task, metric) for metric in dict.fromkeys([headline, *others])]
    return [("guard", name) for name in GUARDS] + rows


def _settle(case: Case) -> None:
    if case.outcome == "failed":
        raise Worse(case.message)
    if case.outcome == "skipped":
        pytest.skip(case.message)
