"""What a comparison found: values to print, to write as JSON, and to lay out as a page. Fractions throughout."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ahabench.harness.gate.difference import Difference
from ahabench.harness.gate.guards import Guard
from ahabench.harness.gate.policy import Policy


class Outcome(StrEnum):
    """What the gate says."""

    PASS = "PASS"
    """The drop is smaller than the margin, with confidence 1 - alpha."""
    FAIL = "FAIL"
    """The drop is larger than the margin, with confidence 1 - alpha."""
    INCONCLUSIVE = "INCONCLUSIVE"
    """The data do not say which."""
    NOT_COMPARABLE = "NOT_COMPARABLE"
    INCOMPLETE = "INCOMPLETE"


EXIT_CODES: Mapping[Outcome, int] = {
    Outcome.PASS: 0,
    Outcome.FAIL: 1,
    Outcome.INCONCLUSIVE: 3,
    Outcome.NOT_COMPARABLE: 4,
    Outcome.INCOMPLETE: 5,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """How something beside the score moved. It never decides."""

    name: str
    """"truncated", "no_answer" or "aha" (shares of responses), or "tokens" (of a response)."""
    a: float
    b: float
    difference: float
    ci95: tuple[float, float] | None
    p: float | None
    """Two-sided, from the paired clustered t."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """Flips among the items that have one value of a tag."""

    tag: str
    value: str
    n: int
    fixed: int
    broken: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One response of a side to an item that flipped."""

    run: str
    sample_index: int
    text: str | None
    """`None` where `compare` was not asked for it, or the run holds verdicts alone."""
    extracted: str | None
    status: str
    rule: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """An item that one side answers right and the other does not, by more than half of each side's responses."""

    item_id: str
    kind: str
    """"fixed" where B is right, "broken" where A is."""
    question: str
    gold: str | None
    tags: Mapping[str, tuple[str, ...]]
    a: Said
    b: Said


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRow:
    """The comparison of one metric of one benchmark. A is the baseline."""

    task: str
    split: str
    metric: str
    headline: bool
    prompt: str
    scorer: str
    found: Difference | None
    """`None` where the metric has no value on a side, or there are fewer than two clusters."""
    margin: float
    verdict: Outcome
    p: float | None
    """Two-sided, by `test`."""
    p_worse: float | None
    """One-sided, for "B is worse"."""
    p_holm: float | None
    """`p_worse` adjusted for the number of rows."""
    test: str
    """"exact McNemar" where each cluster is one item with one response a side, else "clustered t"."""
    n: int
    """Items, or clusters where the metric counts those."""
    unit: str
    """What `n` counts: "items" or "clusters"."""
    clusters: int
    fixed: int
    """Items, whatever the metric counts."""
    broken: int
    n_needed: int | None
    """What would decide, in the unit of `n`; `None` where it is decided, or no number would."""
    interval: str
    """How the interval was made."""
    samples: int
    """Responses to an item in each run."""
    dropped: bool = False
    """Whether it fails for being significant, within the margin or not decided by it, because the policy says so."""
    notes: tuple[str, ...] = ()

    def as_row(self) -> dict[str, Any]:
        """Return it as JSON has it, the keys that the gate is about first."""
        found = self.found
        return {
            "task": self.task,
            "metric": self.metric,
            "a": found and found.a,
            "b": found and found.b,
            "difference": found and found.value,
            "ci95": found and list(found.ci95),
            "margin": self.margin,
            "verdict": self.verdict.value,
            "p": self.p,
            "n": self.n,
            "clusters": self.clusters,
            "fixed": self.fixed,
            "broken": self.broken,
            "n_needed": self.n_needed,
            "split": self.split,
            "prompt": self.prompt,
            "scorer": self.scorer,
            "stderr": found and found.stderr,
            "stderr_runs": found and found.stderr_runs,
            "lower": found and found.lower,
            "upper": found and found.upper,
            "p_worse": self.p_worse,
            "p_holm": self.p_holm,
            "test": self.test,
            "interval": self.interval,
            "samples": self.samples,
            "unit": self.unit,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskComparison:
    """All that was found on one benchmark."""

    task: str
    split: str
    rows: tuple[MetricRow, ...]
    """The headline first."""
    shifts: tuple[Shift, ...]
    categories: tuple[Category, ...]
    flips: tuple[Flip, ...]
    """In the order of the data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two sides compared, or why they are not."""

    a: tuple[str, ...]
    """The baseline's runs."""
    b: tuple[str, ...]
    policy: Policy
    guards: tuple[Guard, ...]
    missing: tuple[str, ...]
    """What responses a run lacks, a phrase each, where that is not allowed."""
    tasks: tuple[TaskComparison, ...]
    notes: tuple[str, ...]

    @property
    def rows(self) -> tuple[MetricRow, ...]:
        """Every row, in order."""
        return tuple(row for task in self.tasks for row in task.rows)

    @property
    def mismatches(self) -> tuple[Guard, ...]:
        """The guards that speak against comparing."""
        return tuple(guard for guard in self.guards if not guard.passed)

    @property
    def outcome(self) -> Outcome:
        """The worst of the rows; or why there are none."""
        if self.mismatches:
            return Outcome.NOT_COMPARABLE
        if self.missing:
            return Outcome.INCOMPLETE
        found = {row.verdict for row in self.rows}
        return next((one for one in (Outcome.FAIL, Outcome.INCONCLUSIVE) if one in found), Outcome.PASS)

    @property
    def exit_code(self) -> int:
        """As the command ends."""
        return EXIT_CODES[self.outcome]

    @property
    def worse(self) -> tuple[MetricRow, ...]:
        """The rows that got worse at all, whatever the margin: significant at alpha after Holm's correction."""
        return tuple(row for row in self.rows if row.p_holm is not None and row.p_holm < self.policy.alpha)

    def as_json(self) -> dict[str, Any]:
        """Return what `compare --json` prints."""
        return {
            "verdict": self.outcome.value,
            "exit_code": self.exit_code,
            "rows": [row.as_row() for row in self.rows],
            "alpha": self.policy.alpha,
            "worse": [f"{row.task}:{row.metric}" for row in self.worse],
            "a": list(self.a),
            "b": list(self.b),
            "differing": [
                {
                    "guard": one.guard,
                    "field": one.field,
                    "task": one.task,
                    "a": one.a,
                    "b": one.b,
                    "allowed": one.allowed,
                }
                for one in self.guards
                if not one.same
            ],
            "missing": list(self.missing),
            "shifts": [
                {
                    "task": task.task,
                    "name": shift.name,
                    "a": shift.a,
                    "b": shift.b,
                    "difference": shift.difference,
                    "ci95": None if shift.ci95 is None else list(shift.ci95),
                    "p": shift.p,
                }
                for task in self.tasks
                for shift in task.shifts
            ],
            "flips": {task.task: {kind: _ids(task.flips, kind) for kind in ("fixed", "broken")} for task in self.tasks},
            "notes": list(self.notes),
        }


def _ids(flips: Sequence[Flip], kind: str) -> list[str]:
    return [flip.item_id for flip in flips if flip.kind == kind]
