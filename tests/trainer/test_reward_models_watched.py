"""Reward models that fail, stall or talk nonsense: what is masked, what is asked once, and what stops a run."""

import threading
import time
from collections.abc import Callable, Sequence

import pytest
from claims import claim

from ahabench.trainer.reward_models import Failure, InProcess, RewardModelError, WatchedScorer
from ahabench.trainer.rewards import Claim, MixedReward


class Paced:
    """A model of somebody's that takes its time over some answers, and says where its weights are."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.where = ["cpu"]
        self.batches: list[int] = []

    def scores(self, claims: Sequence[Claim]) -> list[float]:
        self.batches.append(len(claims))
        if any(each.answer == "slow" for each in claims):
            self.go.wait(60)
        if any(each.answer == "bad" for each in claims):
            raise RuntimeError("no such thing")
        return [float(len(each.answer)) for each in claims]

    def move(self, device: str) -> None:
        self.where.append(device)


def test_a_model_leaves_its_device_after_every_call() -> None:
    model = Paced()
    source = InProcess(model, batch=2, timeout_s=10, offload=True, device="cuda:0")
    assert source.ask([claim("a"), claim("ab"), claim("abc")]) == [1.0, 2.0, 3.0]
    assert model.batches == [2, 1]
    assert model.where == ["cpu", "cuda:0", "cpu"]


def test_a_model_that_may_stay_stays() -> None:
    model = Paced()
    InProcess(model, batch=2, timeout_s=10, offload=False, device="cuda:0").ask([claim("a")])
    assert model.where == ["cpu", "cuda:0"]


def test_a_batch_that_raises_is_repeated_one_by_one() -> None:
    model = Paced()
    source = InProcess(model, batch=4, timeout_s=10, offload=False, device="cpu")
    found = source.ask([claim("a"), claim("bad"), claim("abc")])
    assert found == [1.0, Failure("RuntimeError: no such thing"), 3.0]
    assert model.batches == [3, 1, 1, 1]


def test_a_time_limit_masks_the_rest_of_the_call_and_no_later_one() -> None:
    model = Paced()
    source = InProcess(model, batch=1, timeout_s=1, offload=True, device="cpu")
    started = time.monotonic()
    found = source.ask([claim("a"), claim("slow"), *[claim("ab")] * 20])
    assert time.monotonic() - started < 15  # each on its own, they would take 21 s
    assert found[0] == 1.0
    assert found[1] == Failure("no score within 1 s")
    assert set(found[2:]) == {Failure("the model is still at work on an earlier batch")}
    model.go.set()
    deadline = time.monotonic() + 60
    while isinstance((again := source.ask([claim("ab")]))[0], Failure) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert again == [2.0]


class Listed:
    """A source that says what it is told to, and remembers what it was asked."""

    def __init__(self, says: Callable[[Claim], float | Failure]) -> None:
        self.says = says
        self.asked: list[str] = []

    def ask(self, claims: Sequence[Claim]) -> list[float | Failure]:
        self.asked += [each.answer for each in claims]
        return [self.says(each) for each in claims]


def test_equal_claims_are_asked_once_and_references_once_in_a_run() -> None:
    source = Listed(lambda each: float(len(each.answer)))
    scorer = WatchedScorer(source, max_failures=0, window=10)
    gold = claim("a red bus")
    assert scorer.score([claim("no"), claim("no"), gold, gold]) == [2.0, 2.0, 9.0, 9.0]
    assert scorer.score([claim("no"), gold]) == [2.0, 9.0]
    assert source.asked == ["no", "a red bus", "no"]


@pytest.mark.parametrize("strange", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_no_number_is_masked(strange: float) -> None:
    scorer = WatchedScorer(Listed(lambda each: strange), max_failures=1, window=10)
    assert scorer.score([claim("no")]) == [None]


def test_too_many_failures_among_the_last_stop_the_run() -> None:
    source = Listed(lambda each: Failure("down") if each.answer.startswith("bad") else 1.0)
    scorer = WatchedScorer(source, max_failures=0.2, window=10)
    # Two of ten are borne, and forgotten when ten others have come.
    assert scorer.score([claim("bad 1"), claim("bad 2"), claim("ok")]) == [None, None, 1.0]
    assert scorer.score([claim(f"good {n}") for n in range(10)]) == [1.0] * 10
    scorer.score([claim("bad 3"), claim("bad 4")])
    with pytest.raises(
        RewardModelError, match=r"3 of the last 10 answers .* wanted at most 2 in 10; the last: down"
    ) as e:
        scorer.score([claim("bad 5")])
    assert e.value.exit_code == 5


def test_a_masked_answer_has_no_reward_rather_than_0() -> None:
    scorer = WatchedScorer(Listed(lambda each: Failure("down")), max_failures=1, window=10)
    outcome = MixedReward(scorer=scorer).judge([claim("no").item], ["<answer>no</answer>"])[0]
    assert outcome.reward is None
