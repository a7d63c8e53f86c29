"""Whether the open-ended scorer knows right from wrong, on items where a rule does.

The paper trusts its reward model on what no rule decides. Here the same scorer also ranks answers that a rule has
judged: AUC is the chance that a right answer scores above a wrong one to the same question, 0.5 by guessing.
"""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from ahabench.harness.report import note
from ahabench.harness.stats import clustered_mean
from ahabench.harness.types import Estimate, Status
from ahabench.trainer.data import Kind, TrainItem
from ahabench.trainer.rewards import AnswerScorer, Claim, Outcome

DECIDED = frozenset({Kind.DIGIT, Kind.MCQ, Kind.MATH})
FEWEST = 20
"""Groups with right and wrong answers below which nothing is said."""


class Calibration:
    """Follows the scorer through a run, and warns once where its ranking is no better than chance explains.

    Args:
        scorer: the open-ended reward's.
        per_rollout: the most answers that are scored for this, of each rollout and process.
    """

    def __init__(self, scorer: AnswerScorer, *, per_rollout: int = 32) -> None:
        self._scorer = scorer
        self._most = per_rollout
        self._aucs: list[float] = []
        self._ids: list[str] = []
        self._warned = False

    def see(self, items: Sequence[TrainItem], outcomes: Sequence[Outcome]) -> dict[str, float]:
        """Return "calibration/auc", the mean over this rollout's groups, and "calibration/groups", how many it is of.

        A group are the answers to one item of which a rule found some right and some wrong; `{}` without any.
        """
        chosen = self._chosen(items, outcomes)
        if not chosen:
            return {}
        claims = [Claim(item=item, answer=answer) for item, answers in chosen for answer, _ in answers]
        scores = iter(self._scorer.score(claims))
        found: list[float] = []
        for item, answers in chosen:
            scored = [(next(scores), right) for _, right in answers]
            value = auc(
                [score for score, right in scored if right and score is not None],
                [score for score, right in scored if not right and score is not None],
            )
            if value is not None:
                found.append(value)
                self._ids.append(item.item.id)
        self._aucs += found
        self._warn()
        return {"calibration/auc": fmean(found), "calibration/groups": float(len(found))} if found else {}

    def estimate(self) -> Estimate:
        """Return the mean AUC over the run's groups, in [0, 1], clustered by item."""
        return clustered_mean(self._aucs, self._ids)

    def _chosen(
        self, items: Sequence[TrainItem], outcomes: Sequence[Outcome]
    ) -> list[tuple[TrainItem, list[tuple[str, bool]]]]:
        groups: dict[str, list[tuple[str, bool]]] = defaultdict(list)
        asked: dict[str, TrainItem] = {}
        for item, outcome in zip(items, outcomes, strict=True):
            verdict = outcome.verdict
            if item.kind in DECIDED and verdict.extracted and verdict.status in {Status.CORRECT, Status.WRONG}:
                asked[item.item.id] = item
                groups[item.item.id].append((verdict.extracted, verdict.correct))
        chosen, n = [], 0
        for key, answers in groups.items():
            if len({right for _, right in answers}) == 2 and n + len(answers) <= self._most:
                chosen.append((asked[key], answers))
                n += len(answers)
        return chosen

    def _warn(self) -> None:
        found = self.estimate()
        if self._warned or found.n < FEWEST or found.ci95 is None or found.ci95[0] > 0.5:
            return
        self._warned = True
        low, high = found.ci95
        note(
            f"warning: on {found.n} items that a rule decides, the open-ended scorer ranks right above wrong answers "
            f"with an AUC of {found.value:.2f} [{low:.2f}, {high:.2f}]: not shown to be better than chance. Its reward "
            "for open-ended items may teach anything; take another reward_model, or leave them out with kinds=[...]"
        )


def auc(right: Sequence[float], wrong: Sequence[float]) -> float | None:
    """Return the share of pairs in which the right one scores higher, ties as half; `None` without a pair.

    >>> auc([2.0, 1.0], [1.0, 0.0])  # 2 > 1, 2 > 0, 1 = 1, 1 > 0
    0.875
    """
    pairs = [(a > b) + 0.5 * (a == b) for a in right for b in wrong]
    return fmean(pairs) if pairs else None
