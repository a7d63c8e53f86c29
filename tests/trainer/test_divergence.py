from random import Random

import numpy as np
import pytest

from ahabench.harness.gate.difference import Totals
from ahabench.trainer.divergence import Group, compare, groups, pairs, trend


def totals(right: list[int]) -> Totals:
    return Totals(numerators=np.array([right], dtype=float), denominators=np.ones((1, len(right))))


RISING = [Group(step, 0.02 * step + 0.1 * (place % 3)) for step in range(20) for place in range(6)]
LEVEL_REWARD = [Group(step, 0.3 + 0.1 * (place % 3)) for step in range(20) for place in range(6)]
# 400 items: half are right. Later 60 of the right ones are lost, or won, or none.
BEFORE = totals([1] * 200 + [0] * 200)
FALLEN = totals([1] * 140 + [0] * 260)
RISEN = totals([1] * 260 + [0] * 140)


def finding(after: Totals, drawn: list[Group] = RISING, *, level: float = 0.01, margin: float = 0.02) -> str | None:
    found = compare((0, BEFORE), (20, after), drawn, level=level, margin=margin)
    assert found is not None
    return found.finding


def test_a_rising_reward_with_a_falling_benchmark_is_an_alarm() -> None:
    assert finding(FALLEN) == "falls"


def test_a_rising_reward_with_a_benchmark_that_surely_stays_is_an_alarm() -> None:
    assert finding(BEFORE) == "flat"


def test_a_rising_reward_with_a_rising_benchmark_is_none() -> None:
    assert finding(RISEN) is None


def test_a_falling_benchmark_without_a_rising_reward_is_none() -> None:
    assert finding(FALLEN, LEVEL_REWARD) is None


def test_too_few_items_to_rule_a_gain_out_are_no_finding() -> None:
    found = compare((0, totals([1, 0] * 5)), (20, totals([1, 0] * 5)), RISING, level=0.01, margin=0.02)
    assert found is not None
    assert found.benchmark.value == 0
    assert found.finding is None


def test_an_alarm_says_what_it_saw() -> None:
    found = compare((0, BEFORE), (20, FALLEN), RISING, level=0.01, margin=0.02)
    assert found is not None
    assert "from step 0 to 20 the reward rises" in found.message
    # 60 of 400 items.
    assert "the benchmark falls: -15.0 points" in found.message


def test_the_slope_is_that_of_least_squares() -> None:
    # Over steps 0, 1, 2 with rewards 0, 1, 5: cov = ((-1)(0 - 2) + 0 + 1 (5 - 2)) / 2 = 2.5, var = 1.
    found = trend([Group(0, 0.0), Group(1, 1.0), Group(2, 5.0)], since=0, step=3)
    assert found is not None
    assert found.slope == pytest.approx(2.5)


def test_only_rollouts_between_the_evaluations_count() -> None:
    late = [Group(step, 1.0 - 0.01 * step) for step in range(20, 40)]
    found = trend([*RISING, *late], since=0, step=20)
    assert found is not None
    assert found.n == len(RISING)


def test_two_steps_make_no_trend() -> None:
    assert trend([Group(0, 0.0), Group(4, 1.0)], since=0, step=8) is None


def test_a_group_is_the_mean_of_its_known_rewards() -> None:
    rows = [
        {"step": 0, "item_id": "a", "reward": 1.0},
        {"step": 0, "item_id": "a", "reward": 0.0},
        {"step": 0, "item_id": "a", "reward": None},
        {"step": 2, "item_id": "a", "reward": 1.0},
        {"step": 2, "item_id": "b", "reward": None},
    ]
    assert sorted(groups(rows)) == [Group(0, 0.5), Group(2, 1.0)]


def test_every_two_evaluations_are_a_pair() -> None:
    assert [pairs(n) for n in (1, 2, 8)] == [0, 1, 28]


def test_a_run_without_divergence_is_seldom_alarmed() -> None:
    """Noise alone: a level reward, a benchmark whose items change at random; 300 runs of 4 evaluations."""
    rng = Random(0)
    alarmed = 0
    for _ in range(300):
        sides = [(10 * n, totals([rng.random() < 0.5 for _ in range(60)])) for n in range(4)]
        drawn = [Group(step, rng.random()) for step in range(0, 30, 2) for _ in range(4)]
        found = [
            compare(sides[i], sides[j], drawn, level=0.05 / pairs(4), margin=0.02) for j in range(4) for i in range(j)
        ]
        alarmed += any(one is not None and one.finding for one in found)
    # At most 5 % are promised; it needs both tests, so there are fewer.
    assert alarmed <= 15
