"""The table of rates at the end of a run that measured them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from ahabench.harness.stats import cohen_kappa

REFERENCES = ("math-verify", "lmms-eval")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How fast a scorer was, and how often it said what the published verdicts say."""

    n: int
    wall_s: float
    cpu_s: float
    """User and system time of all its processes."""
    verdicts: Sequence[tuple[bool, bool]]
    """Ours and the published one, on the sample that every scorer judges; empty where only counts are known."""
    agreement: float
    """On everything that it judged."""

    @property
    def per_second(self) -> float:
        return self.n / self.wall_s

    @property
    def per_core_second(self) -> float:
        return self.n / self.cpu_s


RATES = pytest.StashKey[dict[str, Rate]]()


@pytest.fixture
def record(pytestconfig: pytest.Config) -> Callable[..., None]:
    """Keeps a scorer's `Rate`, given by its fields, for the table at the end of the session."""
    rates = pytestconfig.stash.setdefault(RATES, {})

    def keep(scorer: str, **fields: Any) -> None:
        rates[scorer] = Rate(**fields)

    return keep


ENGINE_RATES = pytest.StashKey[dict[str, dict[str, Any]]]()
GOALS = (
    ("transformers", "lmms-eval:qwen2_5_vl", "goal: 3 times as fast"),
    ("transformers", "lmms-eval:qwen2_5_vl*8", "its adapter with batches of 8"),
    ("vllm", "lmms-eval:vllm", "goal: no slower"),
    ("vllm", "bare", "goal: at least 0.95"),
)


@pytest.fixture
def record_engine(pytestconfig: pytest.Config) -> Callable[[str, dict[str, Any]], None]:
    """Keeps what an engine took, for the table at the end of the session."""
    rates = pytestconfig.stash.setdefault(ENGINE_RATES, {})

    def keep(engine: str, row: dict[str, Any]) -> None:
        rates[engine] = row

    return keep


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """What something took, and what a reference took that was measured beside it: seconds per call."""

    reference: str
    ours_s: float
    reference_s: float
    limit: float | None
    """The ratio that may not be passed; `None` where the test asserts something else."""

    @property
    def value(self) -> float:
        return self.ours_s / self.reference_s


RATIOS = pytest.StashKey[dict[str, Ratio]]()


@pytest.fixture
def record_ratio(pytestconfig: pytest.Config) -> Callable[..., Ratio]:
    """Keeps a `Ratio`, given by its fields, for the table at the end of the session, and returns it."""
    ratios = pytestconfig.stash.setdefault(RATIOS, {})

    def keep(name: str, **fields: Any) -> Ratio:
        ratios[name] = Ratio(**fields)
        return ratios[name]

    return keep


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if ratios := config.stash.get(RATIOS, {}):
        _print_ratios(terminalreporter, ratios)
    if rates := config.stash.get(RATES, {}):
        _print_scorers(terminalreporter, rates)
    if engines := config.stash.get(ENGINE_RATES, {}):
        _print_engines(terminalreporter, engines)


def _print_ratios(out: pytest.TerminalReporter, ratios: dict[str, Ratio]) -> None:
    out.section("as multiples of a reference in the same run")
    out.line(f"{'CPU seconds of':26}{'ours':>6}{'reference':>11}{'ratio':>7}{'limit':>6}  reference")
    for name, row in ratios.items():
        limit = "-" if row.limit is None else f"{row.limit:g}"
        out.line(f"{name:26}{row.ours_s:>6.2g}{row.reference_s:>11.2g}{row.value:>7.2f}{limit:>6}  {row.reference}")


def _print_engines(out: pytest.TerminalReporter, rates: dict[str, dict[str, Any]]) -> None:
    out.section("64 questions with images: how long each engine took")
    out.line(f"{'':26}{'wall s':>8}{'CPU s':>8}{'tokens':>8}{'tokens/s':>10}{'/CPU s':>8}")
    for name, row in rates.items():
        wall, cpu, tokens = row["wall_s"], row["cpu_s"], row["tokens"]
        out.line(f"{name:26}{wall:>8.1f}{cpu:>8.1f}{tokens:>8}{tokens / wall:>10.1f}{tokens / cpu:>8.1f}")
    for name, other, goal in GOALS:
        if name in rates and other in rates:
            wall, cpu = (
                (rates[name]["tokens"] / rates[name][unit]) / (rates[other]["tokens"] / rates[other][unit])
                for unit in ("wall_s", "cpu_s")
            )
            out.line(f"{name} / {other}: {wall:.2f} times as fast, {cpu:.2f} times per CPU second ({goal})")


def _print_scorers(out: pytest.TerminalReporter, rates: dict[str, Rate]) -> None:
    out.section("MathVision: responses per second, and agreement with the published verdicts")
    out.line(
        f"{'':26}{'n':>7}{'wall s':>8}{'CPU s':>8}{'/s':>8}{'/s and core':>13}"
        f"{'agree %':>9}{'on sample':>11}{'kappa':>7}"
    )
    for name, rate in rates.items():
        out.line(
            f"{name:26}{rate.n:>7}{rate.wall_s:>8.2f}{rate.cpu_s:>8.2f}{rate.per_second:>8.0f}"
            f"{rate.per_core_second:>13.0f}{100 * rate.agreement:>9.2f}{_on_sample(rate):>18}"
        )
    for reference in REFERENCES:
        if reference not in rates:
            out.line(f"{reference}: not measured")
            continue
        for name, rate in rates.items():
            if name not in REFERENCES:
                wall = rate.per_second / rates[reference].per_second
                core = rate.per_core_second / rates[reference].per_core_second
                out.line(f"{name} / {reference}: {wall:.1f} times as fast, {core:.1f} times core for core")


def _on_sample(rate: Rate) -> str:
    if not rate.verdicts:
        return f"{'-':>11}{'-':>7}"
    ours, theirs = zip(*rate.verdicts, strict=True)
    share = sum(a == b for a, b in rate.verdicts) / len(rate.verdicts)
    kappa = cohen_kappa(ours, theirs)
    return f"{100 * share:>11.2f}{'-' if kappa is None else f'{kappa:.3f}':>7}"
