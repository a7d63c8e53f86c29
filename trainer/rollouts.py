"""Rollouts: TRL's completions judged by the mixed reward, and kept as a run's responses and verdicts.

    responses.jsonl   harness.runlog's rows, plus "step", "kind", "reward" and "official_correct" (or null)
    verdicts.jsonl    harness.score's rows, plus "step", "kind" and "reward"
    items.jsonl       "item_id", "step", "question" and "gold" of each item that was drawn, once

"step" is the number of updates that the policy had had: the rows of step 0 are the untrained model's. An item's samples
are numbered through the run, in the order in which they were drawn, so a key (item_id, sample_index) never comes twice.
`ahabench score` replaces the verdicts by those of its scorer; the rewards stay with the responses.
"""

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from ahabench.harness.dataset import read_jsonl
from ahabench.harness.disk import refusals, write_all
from ahabench.harness.errors import AhabenchError
from ahabench.harness.prompts import digest
from ahabench.harness.runlog import RESPONSES, VERDICTS
from ahabench.harness.score import Judged
from ahabench.harness.types import Prompt, Status
from ahabench.trainer.calibration import Calibration
from ahabench.trainer.data import Kind, TrainItem
from ahabench.trainer.measures import measures
from ahabench.trainer.processes import SharedFailure
from ahabench.trainer.rewards import MixedReward, Outcome
from ahabench.trainer.run_folder import ITEMS

Gather = Callable[[list[Any]], list[Any]]
"""Returns every process's list, joined in the order of processes, to all of them."""


class RolloutLog:
    """Appends rollouts to a folder, a batch at a time, each on the disk before the call returns.

    Args:
        folder: made if need be; where it holds rollouts already, these follow them.

    Raises:
        UsageError: the disk is full or refuses.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with refusals(folder):
            folder.mkdir(parents=True, exist_ok=True)
        before = folder / RESPONSES
        self._drawn = Counter(str(row["item_id"]) for row in read_jsonl(before)) if before.exists() else Counter[str]()

    def numbered(self, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows with their "sample_index", the next of each item's."""
        numbered = []
        for row in rows:
            item_id = row["item_id"]
            numbered.append({"item_id": item_id, "sample_index": self._drawn[item_id], **row})
            self._drawn[item_id] += 1
        return numbered

    def append(self, file: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows at the end of a file and wait until they are on the disk."""
        path = self._folder / file
        lines = b"".join(json.dumps(row, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n" for row in rows)
        with refusals(path):
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                write_all(descriptor, lines)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


class RewardFunction:
    """The mixed reward as TRL calls it: a batch of completions in, a reward or `None` for each out.

    Args:
        items: the training items; a column "item_index" of the data set says which is a completion's.
        reward: decides.
        ends: ids of the tokens that end a completion; one without them was cut off.
        system_prompt: what the policy was asked under, for the prompts' digests.
        log: where the rollouts go; `None` on every process but the first.
        gather: how to collect from all processes.
    """

    __name__ = "mixed"

    def __init__(
        self,
        items: Sequence[TrainItem],
        reward: MixedReward,
        *,
        ends: frozenset[int],
        system_prompt: str | None,
        log: RolloutLog | None,
        gather: Gather = list,
    ) -> None:
        self._items = items
        self._reward = reward
        self._ends = ends
        self._system_prompt = system_prompt
        self._log = log
        self._gather = gather
        self._calibration = Calibration(reward.scorer) if reward.scorer is not None else None

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        item_index: Sequence[int],
        trainer_state: Any,
        log_metric: Callable[[str, float], None],
        **columns: Any,
    ) -> list[float | None]:
        """Return the reward of each completion, after writing the rollouts and logging each kind's statistics.

        What is written and logged is of all processes, by the one with the log.

        Raises:
            ValueError: a reward is not finite.
            SharedFailure: the same in one process of several, or whatever else stopped its rewards.
        """
        texts = [completion[-1]["content"] for completion in completions]
        rows: list[dict[str, Any]] = []
        mine: dict[str, float] = {}
        failure: Exception | None = None
        try:
            rows = self._judged(item_index, texts, completion_ids, step=int(trainer_state.global_step))
            if self._calibration is not None:
                items = [self._items[index] for index in item_index]
                mine = self._calibration.see(items, [row["outcome"] for row in rows])
        except Exception as error:
            # Whatever it is, the other processes must hear of it: they would wait for this one's rows.
            failure = error
        together = self._together(rows, failure)
        if self._log is not None:
            self._write(together)
            mine = self._measured(together) | mine
        # TRL takes the mean of those processes that log a name.
        for name, number in mine.items():
            log_metric(name, number)
        return [row["reward"] for row in rows]

    def _together(self, rows: list[dict[str, Any]], failure: Exception | None) -> list[dict[str, Any]]:
        """Return every process's rows; where one has failed, fail in all of them."""
        parts: list[tuple[list[dict[str, Any]], str | None]]
        parts = self._gather([(rows, None if failure is None else _in_words(failure))])
        if failure is not None and len(parts) == 1:
            raise failure
        for process, (_, why) in enumerate(parts):
            if why is not None:
                raise SharedFailure(f"process {process}: {why}") from failure
        return [row for part, _ in parts for row in part]

    def _judged(
        self, item_index: Sequence[int], texts: Sequence[str], completion_ids: Sequence[Sequence[int]], *, step: int
    ) -> list[dict[str, Any]]:
        """Return a row for each completion, with its item's index and the whole outcome."""
        items = [self._items[index] for index in item_index]
        finish = ["stop" if ids and ids[-1] in self._ends else "length" for ids in completion_ids]
        outcomes = [
            _cut_off(outcome, reason) for outcome, reason in zip(self._reward.judge(items, texts), finish, strict=True)
        ]
        rewards = [self._reward.total(*judged) for judged in zip(items, texts, outcomes, strict=True)]
        for item, value in zip(items, rewards, strict=True):
            if value is not None and not math.isfinite(value):
                raise ValueError(f"the reward of a completion of item {item.item.id!r} is {value}")
        return [
            {
                "item_index": index,
                "item_id": item.item.id,
                "prompt_sha256": self._prompt_sha256(item),
                "response": text,
                "finish_reason": reason,
                "completion_tokens": len(ids),
                "outcome": outcome,
                "step": step,
                "kind": item.kind.value,
                "reward": value,
            }
            for index, item, text, reason, ids, outcome, value in zip(
                item_index, items, texts, finish, completion_ids, outcomes, rewards, strict=True
            )
        ]

    def _measured(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return what is logged about a rollout."""
        items = [self._items[row["item_index"]] for row in rows]
        texts, finish, lengths, rewards, outcomes = (
            [row[key] for row in rows]
            for key in ("response", "finish_reason", "completion_tokens", "reward", "outcome")
        )
        return statistics(items, rewards, outcomes) | measures(items, texts, finish, lengths)

    def _write(self, rows: list[dict[str, Any]]) -> None:
        assert self._log is not None, "this process writes"
        rows = self._log.numbered(rows)
        self._log.append(ITEMS, [self._item_row(row) for row in rows if row["sample_index"] == 0])
        self._log.append(RESPONSES, [_response_row(row) for row in rows])
        self._log.append(VERDICTS, [_verdict_row(row) for row in rows])

    def _item_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        item = self._items[row["item_index"]]
        return {"item_id": row["item_id"], "step": row["step"], "question": item.item.question, "gold": item.gold}

    def _prompt_sha256(self, item: TrainItem) -> str:
        return digest(Prompt(text=item.item.question, system=self._system_prompt), len(item.item.images))


def statistics(
    items: Sequence[TrainItem], rewards: Sequence[float | None], outcomes: Sequence[Outcome]
) -> dict[str, float]:
    """Return what is logged about a rollout: of each kind in it, and the share of extractable answers.

    Returns:
        For each kind "reward/<kind>/mean", "/std" (population), "/no_signal" (share of its groups, the completions of
        one item, in which no two known rewards differ), "/masked" (share of completions without a reward) and "/n";
        "reward/no_signal" of all groups; and "reward/answered". Mean and std are left out where no reward of the kind
        is known.
    """
    known: dict[Kind, list[float]] = defaultdict(list)
    groups: dict[Kind, dict[str, set[float]]] = defaultdict(lambda: defaultdict(set))
    totals: Counter[Kind] = Counter()
    for item, reward in zip(items, rewards, strict=True):
        totals[item.kind] += 1
        values = groups[item.kind][item.item.id]
        if reward is not None:
            known[item.kind].append(reward)
            values.add(reward)
    found: dict[str, float] = {}
    silent: list[bool] = []
    for kind, total in totals.items():
        if known[kind]:
            found |= {f"reward/{kind}/mean": fmean(known[kind]), f"reward/{kind}/std": pstdev(known[kind])}
        flat = [len(values) < 2 for values in groups[kind].values()]
        found |= {f"reward/{kind}/no_signal": fmean(flat), f"reward/{kind}/masked": 1 - len(known[kind]) / total}
        found[f"reward/{kind}/n"] = float(total)
        silent += flat
    unread = {Status.NO_ANSWER, Status.TRUNCATED}
    answered = [outcome.verdict.status not in unread for outcome in outcomes]
    return found | {"reward/no_signal": fmean(silent), "reward/answered": fmean(answered)}


def _in_words(error: Exception) -> str:
    return str(error) if isinstance(error, AhabenchError) else f"{type(error).__name__}: {error}"


def _cut_off(outcome: Outcome, finish_reason: str) -> Outcome:
    if outcome.verdict.status is Status.NO_ANSWER and finish_reason == "length":
        return replace(outcome, verdict=replace(outcome.verdict, status=Status.TRUNCATED))
    return outcome


def _response_row(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in row.items() if key not in {"item_index", "outcome"}}
    judgeable = row["kind"] != Kind.OPEN_ENDED and row["outcome"].verdict.status is not Status.ERROR
    return kept | {"official_correct": row["outcome"].verdict.correct if judgeable else None}


def _verdict_row(row: Mapping[str, Any]) -> dict[str, Any]:
    judged = Judged(
        item_id=row["item_id"],
        sample_index=row["sample_index"],
        verdict=row["outcome"].verdict,
        finish_reason=row["finish_reason"],
    )
    return judged.as_row() | {key: row[key] for key in ("step", "kind", "reward")}
