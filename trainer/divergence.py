"""The alarm of a training run: the reward rises, and a benchmark with the same verifier does not.

Two evaluations of the same items are compared, and the rollouts that were drawn between them:

    the reward rises       the slope of the groups' mean rewards over the steps is above 0: one-sided t test
    the benchmark falls    the paired difference, clustered by item, is below 0: one-sided t test
    the benchmark is flat  its upper one-sided bound is below `margin`: a gain of that size is ruled out

A reward that rises while the benchmark falls or is flat sets the alarm off. A benchmark that was not shown to gain,
for want of items, does not: that is no finding. Every evaluation is compared with every earlier one, so that a run
that turned is seen; each test takes `alpha` divided by the number of all such pairs of the run (Bonferroni), so a run
without divergence is alarmed with a chance of at most `alpha`.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal, NamedTuple

from ahabench.harness.gate.difference import Difference, Totals, paired_difference

Finding = Literal["falls", "flat"]


class Group(NamedTuple):
    """The completions of one prompt in one rollout."""

    step: int
    """Updates that the policy had had."""
    reward: float
    """Mean of the known rewards."""


class Trend(NamedTuple):
    """How the reward went over steps."""

    slope: float
    """Per optimiser step."""
    p: float
    """One-sided, against "it does not rise"."""
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """Two evaluations compared."""

    since: int
    """Step of the earlier one."""
    step: int
    reward: Trend | None
    """`None` where fewer than three steps had rollouts."""
    benchmark: Difference
    level: float
    """Of each test, after the division by the number of pairs."""
    finding: Finding | None
    """What set the alarm off."""

    @property
    def message(self) -> str:
        """One line about an alarm."""
        assert self.reward is not None
        low, high = self.benchmark.ci95
        return (
            f"alarm: from step {self.since} to {self.step} the reward rises ({self.reward.slope:+.4f} a step, p = "
            f"{self.reward.p:.2g}) and the benchmark {'falls' if self.finding == 'falls' else 'does not'}: "
            f"{100 * self.benchmark.value:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]; look at the rollouts "
            "for what the reward pays"
        )


def groups(rows: Iterable[Mapping[str, Any]]) -> list[Group]:
    """Return the groups of rollouts' rows (`trainer.rollouts`); rows without a reward are left out."""
    found: dict[tuple[int, str], list[float]] = defaultdict(list)
    for row in rows:
        if row["reward"] is not None:
            found[row["step"], row["item_id"]].append(row["reward"])
    return [Group(step, fmean(rewards)) for (step, _), rewards in found.items()]


def trend(drawn: Iterable[Group], *, since: int, step: int) -> Trend | None:
    """Return the trend of the groups drawn from `since` up to `step`, which is not in it."""
    from scipy.stats import linregress

    among = [group for group in drawn if since <= group.step < step]
    if len({group.step for group in among}) < 3:
        return None
    steps, rewards = [group.step for group in among], [group.reward for group in among]
    if len(set(rewards)) == 1:
        return Trend(0.0, 1.0, len(among))
    line = linregress(steps, rewards, alternative="greater")
    return Trend(float(line.slope), float(line.pvalue), len(among))


def pairs(evaluations: int) -> int:
    """Return how many pairs so many evaluations make."""
    return evaluations * (evaluations - 1) // 2


def compare(
    before: tuple[int, Totals],
    after: tuple[int, Totals],
    drawn: Iterable[Group],
    *,
    level: float,
    margin: float,
) -> Divergence | None:
    """Return what two evaluations and the rollouts between them say; `None` where the benchmark has too few items.

    Args:
        before: step and scores of the earlier evaluation.
        after: of the later one, over the same clusters.
        drawn: the groups of the run.
        level: of each one-sided test.
        margin: a gain on the benchmark that would matter, as a fraction.
    """
    (since, a), (step, b) = before, after
    benchmark = paired_difference(a, b, alpha=level)
    if benchmark is None:
        return None
    reward = trend(drawn, since=since, step=step)
    finding: Finding | None = None
    if reward is not None and reward.slope > 0 and reward.p < level:
        finding = "falls" if benchmark.p_worse < level else "flat" if benchmark.upper < margin else None
    return Divergence(since=since, step=step, reward=reward, benchmark=benchmark, level=level, finding=finding)
