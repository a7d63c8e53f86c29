"""The mixed reward of VLAA-Thinking (arXiv:2504.11468, section 4.1): five kinds, one of them per training item.

    digit, mcq, math   1 if the benchmarks' own scorer (`harness.answers.robust`) accepts the answer, else 0
    iou                intersection over union with the gold box
    open_ended         1 - exp(-beta (S(answer) - S(gold))) where the answer scores above the gold, else 0

A completion without one extractable answer pays 0 whatever its kind: that is the paper's implicit format reward, which
supersedes all others. Every reward is in [0, 1]. `None` masks a completion out of its group: it belongs to another
reward, or nobody could tell (computer algebra gave up, a scorer did not answer). Nothing that failed becomes a 0.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ahabench.harness.answers import robust
from ahabench.harness.types import Response, Status, Verdict
from ahabench.trainer.boxes import convert, iou, read_box
from ahabench.trainer.data import Kind, TrainItem

BETA = 0.2
"""Smoothing of the open-ended reward. The paper names none; Muhtar et al., whose formula it is, use 0.2
(arXiv:2503.00743, NJU-LHRS/ScoreRS)."""

BOX_HIT = 0.5
"""IoU from which a box counts as correct in a verdict, as detection benchmarks do. The reward is the IoU itself."""

_OPEN, _CLOSE = "<answer>", "</answer>"


class Reward(Protocol):
    """What one completion of one item earns."""

    def __call__(self, item: TrainItem, completion: str) -> float | None:
        """Return a number in [0, 1], or `None` where it is not for this reward to say."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """An answer to be scored for an item."""

    item: TrainItem
    answer: str


class AnswerScorer(Protocol):
    """The S of the open-ended reward: how good an answer is, on a scale of its own."""

    def score(self, claims: Sequence[Claim]) -> list[float | None]:
        """Return one number per claim, higher is better; `None` where a claim could not be scored."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A reward with the verdict that explains it."""

    reward: float | None
    verdict: Verdict


def only_answer(completion: str) -> str | None:
    """Return what stands in the one `<answer>` tag, stripped; `None` where there is none, several, or nothing in it.

    VLAA-Thinking's own evaluation takes the match of `<answer>(.*?)</answer>` where there is exactly one (VLMEvalKit,
    vlm/vlaa_thinker.py@e8e78f0). Here a second opening tag inside it is also a second answer.

    >>> only_answer("<think>2 + 2</think><answer> 4 </answer>")
    '4'
    >>> only_answer("<answer>4</answer> or <answer>5</answer>") is None
    True
    """
    if completion.count(_OPEN) != 1 or completion.count(_CLOSE) != 1:
        return None
    start, end = completion.find(_OPEN) + len(_OPEN), completion.find(_CLOSE)
    return completion[start:end].strip() or None if start <= end else None


class MixedReward:
    """The reward of each item's own kind, plus weighted extras where they are asked for.

    Args:
        scorer: decides open-ended items, which are masked without one.
        beta: smoothing of the open-ended reward, above 0.
        kinds: the kinds that are rewarded; items of others are masked, as in the paper's ablation (Table 5).
        extras: further rewards with their weights; one that returns `None` adds nothing. They too need an extractable
            answer, and are only added where the kind's own reward is known, so that a group compares like with like.
    """

    def __init__(
        self,
        *,
        scorer: AnswerScorer | None = None,
        beta: float = BETA,
        kinds: frozenset[Kind] = frozenset(Kind),
        extras: Mapping[str, tuple[Reward, float]] | None = None,
    ) -> None:
        if not (math.isfinite(beta) and beta > 0):
            raise ValueError(f"beta is {beta}, wanted a number above 0")
        self._scorer = scorer
        self._beta = beta
        self._kinds = kinds
        self._extras = dict(extras or {})

    @property
    def scorer(self) -> AnswerScorer | None:
        """What decides open-ended items."""
        return self._scorer

    def __call__(self, item: TrainItem, completion: str) -> float | None:
        """Return the reward of one completion, extras included."""
        return self.total(item, completion, self.judge([item], [completion])[0])

    def judge(self, items: Sequence[TrainItem], completions: Sequence[str]) -> list[Outcome]:
        """Return the outcome of each completion by its item's kind alone, the open-ended ones scored in one batch."""
        outcomes: list[Outcome | None] = []
        open_claims: dict[int, Claim] = {}
        for index, (item, completion) in enumerate(zip(items, completions, strict=True)):
            answer = only_answer(completion)
            if item.kind not in self._kinds:
                outcomes.append(_masked("not-rewarded"))
            elif answer is None:
                outcomes.append(_outcome(0.0, Status.NO_ANSWER, None, "no single answer tag"))
            elif item.kind is Kind.OPEN_ENDED:
                open_claims[index] = Claim(item=item, answer=answer)
                outcomes.append(None)
            else:
                outcomes.append(judge_box(item, answer) if item.kind is Kind.IOU else _by_rules(item, answer))
        for index, outcome in zip(open_claims, self._by_scores(list(open_claims.values())), strict=True):
            outcomes[index] = outcome
        return [outcome for outcome in outcomes if outcome is not None]

    def total(self, item: TrainItem, completion: str, outcome: Outcome) -> float | None:
        """Return an outcome's reward with the extras added."""
        if outcome.reward is None:
            return None
        if outcome.verdict.status in {Status.NO_ANSWER, Status.TRUNCATED}:
            return outcome.reward
        extras = [(reward(item, completion), weight) for reward, weight in self._extras.values()]
        return outcome.reward + sum(weight * value for value, weight in extras if value is not None)

    def _by_scores(self, claims: Sequence[Claim]) -> list[Outcome]:
        if not claims:
            return []
        if self._scorer is None:
            return [_masked("no-scorer", claim.answer) for claim in claims]
        golds = [Claim(item=claim.item, answer=claim.item.gold) for claim in claims]
        scores = self._scorer.score([*claims, *golds])
        return [
            self._above_gold(claim, score, gold)
            for claim, score, gold in zip(claims, scores[: len(claims)], scores[len(claims) :], strict=True)
        ]

    def _above_gold(self, claim: Claim, score: float | None, gold: float | None) -> Outcome:
        if score is None or gold is None or not math.isfinite(score - gold):
            return _masked("unscored", claim.answer)
        reward = relative_reward(score - gold, self._beta)
        status = Status.CORRECT if reward > 0 else Status.WRONG
        return _outcome(reward, status, claim.answer, f"open_ended/{score - gold:+.4g}")


def relative_reward(margin: float, beta: float = BETA) -> float:
    """Return 1 - exp(-beta * margin) for a margin above 0, else 0 (arXiv:2504.11468, section 4.1).

    Args:
        margin: the score of the answer less that of the reference.
        beta: smoothing, above 0.

    >>> round(relative_reward(5.0), 4)  # 1 - 1/e
    0.6321
    """
    return -math.expm1(-beta * margin) if margin > 0 else 0.0


def length_reward(count_tokens: Callable[[str], int], *, free_tokens: int, max_tokens: int) -> Reward:
    """Return the reward that is 1 up to `free_tokens`, 0 from `max_tokens`, and falls linearly between.

    The ramp is that of DAPO's soft overlong punishment (arXiv:2503.14476, equation 13), moved from [-1, 0] to [0, 1].

    Raises:
        ValueError: `max_tokens` is not above `free_tokens`.
    """
    if max_tokens <= free_tokens:
        raise ValueError(f"max_tokens is {max_tokens}, wanted more than free_tokens, {free_tokens}")

    def reward(item: TrainItem, completion: str) -> float | None:
        spare = max_tokens - count_tokens(completion)
        return min(1.0, max(0.0, spare / (max_tokens - free_tokens)))

    return reward


def repetition_reward(n: int = 4) -> Reward:
    """Return the reward that is 1 less the share of a completion's word n-grams that it has written before."""

    def reward(item: TrainItem, completion: str) -> float | None:
        words = completion.split()
        grams = list(zip(*(words[offset:] for offset in range(n)), strict=False))
        return len(set(grams)) / len(grams) if grams else 1.0

    return reward


def _by_rules(item: TrainItem, answer: str) -> Outcome:
    # Read as a benchmark reads a response of this answer alone: nothing is paid that would not be scored as right.
    response = Response(item_id=item.item.id, text=f"{_OPEN}{answer}{_CLOSE}", finish_reason="stop")
    verdict = robust.read(item.item, response)
    # A verifier that gave up knows nothing; a 0 would teach that the answer was wrong.
    reward = None if verdict.status in {Status.TIMEOUT, Status.ERROR} else float(verdict.correct)
    rule = verdict.rule.removeprefix("tag/")
    return _outcome(reward, verdict.status, verdict.extracted, f"{item.kind}/{rule}")


def judge_box(item: TrainItem, answer: str) -> Outcome:
    """Return the overlap of an answer's only box with the gold; correct from `BOX_HIT`."""
    declared = item.boxes
    assert declared is not None, "a box item declares its units"
    gold = read_box(item.gold, declared.gold, declared.image_size)
    assert gold is not None, "the gold box was read when the item was loaded"
    box = read_box(answer, declared.answer, declared.image_size)
    if box is None:
        return _outcome(0.0, Status.WRONG, answer, f"iou/no {declared.answer} box")
    overlap = iou(convert(box, declared.answer, declared.gold, declared.image_size), gold)
    status = Status.CORRECT if overlap >= BOX_HIT else Status.WRONG
    return _outcome(overlap, status, answer, f"iou/{overlap:.4g}")


def _masked(why: str, extracted: str | None = None) -> Outcome:
    return _outcome(None, Status.ERROR, extracted, why)


def _outcome(reward: float | None, status: Status, extracted: str | None, rule: str) -> Outcome:
    return Outcome(reward=reward, verdict=Verdict(status=status, extracted=extracted, rule=rule))
