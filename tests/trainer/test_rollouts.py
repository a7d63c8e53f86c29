import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ahabench.harness.prompts import digest
from ahabench.harness.runlog import read_responses
from ahabench.harness.types import Prompt, Status
from ahabench.trainer.data import TrainItem, to_train_item
from ahabench.trainer.processes import SharedFailure
from ahabench.trainer.rewards import MixedReward, repetition_reward
from ahabench.trainer.rollouts import RewardFunction, RolloutLog

END = 9


def item(kind: str, gold: object, number: int = 1) -> TrainItem:
    meta = {"box_units": "normalised"}
    row = {"id": f"{kind}-{number}", "question": "What?", "gt": gold, "verifier_type": kind, "meta": meta}
    return to_train_item(row, where="test")


ITEMS = (item("digit", 4), item("digit", 7, 2), item("iou", "[0, 0, 0.5, 1]"), item("open_ended", "a bike"))


class Rollout:
    """Calls a reward function as TRL does, and keeps what it logs."""

    def __init__(self, folder: Path, reward: MixedReward | None = None) -> None:
        self.metrics: dict[str, float] = {}
        self.folder = folder
        self.function = RewardFunction(
            ITEMS,
            reward or MixedReward(),
            ends=frozenset({END}),
            system_prompt="Think.",
            log=RolloutLog(folder),
        )

    def __call__(self, *drawn: tuple[int, str], step: int = 0, ids: list[int] | None = None) -> list[float | None]:
        texts = [text for _, text in drawn]
        return self.function(
            prompts=[[]] * len(drawn),
            completions=[[{"role": "assistant", "content": text}] for text in texts],
            completion_ids=[ids or [1, 2, END]] * len(drawn),
            item_index=[index for index, _ in drawn],
            trainer_state=SimpleNamespace(global_step=step),
            log_metric=self.metrics.__setitem__,
            images=[None] * len(drawn),
        )

    def rows(self, file: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / file).read_text().splitlines()]


@pytest.fixture
def rollout(tmp_path: Path) -> Rollout:
    return Rollout(tmp_path / "rollouts")


def answer(text: str) -> str:
    return f"<answer>{text}</answer>"


def test_each_completion_gets_its_own_items_reward(rollout: Rollout) -> None:
    rewards = rollout((0, answer("4")), (1, answer("4")), (2, answer("[0, 0, 1, 1]")), (3, answer("a bike")))
    assert rewards == [1.0, 0.0, 0.5, None]


def test_each_item_that_was_drawn_is_written_once(rollout: Rollout) -> None:
    rollout((1, answer("4")), (1, answer("7")))
    rollout((1, answer("7")), (2, answer("[0, 0, 1, 1]")), step=3)
    assert rollout.rows("items.jsonl") == [
        {"item_id": "digit-2", "step": 0, "question": "What?", "gold": "7"},
        {"item_id": "iou-1", "step": 3, "question": "What?", "gold": "[0, 0, 0.5, 1]"},
    ]


def test_statistics_are_logged_by_kind(rollout: Rollout) -> None:
    # Item 0: rewards 1, 0. Item 1: 0, 0 and thus no signal. Item 2: 0.5 twice.
    drawn = [(0, "4"), (0, "5"), (1, "5"), (1, "5"), (2, "[0, 0, 1, 1]"), (2, "[0, 0, 1, 1]"), (3, "x"), (3, "y")]
    rollout(*[(index, answer(text)) for index, text in drawn])
    assert {name: value for name, value in rollout.metrics.items() if name.startswith("reward/")} == {
        "reward/digit/mean": pytest.approx(1 / 4),
        # Of 1, 0, 0, 0: the root of 1/4 * 3/4.
        "reward/digit/std": pytest.approx((3 / 16) ** 0.5),
        "reward/digit/no_signal": 1 / 2,
        "reward/digit/masked": 0.0,
        "reward/digit/n": 4.0,
        "reward/iou/mean": pytest.approx(0.5),
        "reward/iou/std": pytest.approx(0.0),
        "reward/iou/no_signal": 1.0,
        "reward/iou/masked": 0.0,
        "reward/iou/n": 2.0,
        "reward/open_ended/no_signal": 1.0,
        "reward/open_ended/masked": 1.0,
        "reward/open_ended/n": 2.0,
        # Of four groups, the first alone has two different rewards.
        "reward/no_signal": 3 / 4,
        "reward/answered": 1.0,
    }


def test_the_share_of_answers_counts_completions_without_one(rollout: Rollout) -> None:
    rollout((0, answer("4")), (0, "no tag"), (0, answer("4") * 2), (0, answer("5")))
    assert rollout.metrics["reward/answered"] == 1 / 2


def test_an_items_samples_are_numbered_through_the_run(rollout: Rollout) -> None:
    rollout((0, answer("4")), (0, answer("5")), (1, answer("7")))
    rollout((0, answer("4")), (1, answer("7")), step=3)
    keys = [(row["item_id"], row["sample_index"], row["step"]) for row in rollout.rows("responses.jsonl")]
    assert keys == [("digit-1", 0, 0), ("digit-1", 1, 0), ("digit-2", 0, 0), ("digit-1", 2, 3), ("digit-2", 1, 3)]


def test_the_harness_reads_the_responses(rollout: Rollout) -> None:
    rollout((0, answer("4")), (0, "\ud800 4"), (2, answer("\x00")))
    found = list(read_responses(rollout.folder / "responses.jsonl"))
    assert [(row.item_id, row.sample_index, row.text) for row in found] == [
        ("digit-1", 0, answer("4")),
        ("digit-1", 1, "\ud800 4"),
        ("iou-1", 0, answer("\x00")),
    ]
    assert {(row.finish_reason, row.completion_tokens) for row in found} == {("stop", 3)}


def test_a_response_row_holds_its_reward_and_its_prompts_digest(rollout: Rollout) -> None:
    rollout((0, answer("4")), step=2)
    assert rollout.rows("responses.jsonl") == [
        {
            "item_id": "digit-1",
            "sample_index": 0,
            "prompt_sha256": digest(Prompt(text="What?", system="Think."), 0),
            "response": answer("4"),
            "finish_reason": "stop",
            "completion_tokens": 3,
            "step": 2,
            "kind": "digit",
            "reward": 1.0,
            "official_correct": True,
        }
    ]


def test_a_verdict_row_holds_the_kind_and_what_was_read(rollout: Rollout) -> None:
    rollout((2, answer("[0, 0, 1, 1]")), step=2)
    assert rollout.rows("verdicts.jsonl") == [
        {
            "item_id": "iou-1",
            "sample_index": 0,
            "status": "correct",
            "extracted": "[0, 0, 1, 1]",
            "rule": "iou/0.5",
            "aha": {},
            "step": 2,
            "kind": "iou",
            "reward": 0.5,
        }
    ]


def test_an_open_response_carries_no_verdict_of_its_own(rollout: Rollout) -> None:
    rollout((3, answer("a bike")))
    assert rollout.rows("responses.jsonl")[0]["official_correct"] is None


def test_a_completion_cut_off_before_its_answer_is_truncated(rollout: Rollout) -> None:
    assert rollout((0, "<think>so"), ids=[1, 2, 3]) == [0.0]
    assert rollout.rows("verdicts.jsonl")[0]["status"] == Status.TRUNCATED
    assert rollout.rows("responses.jsonl")[0]["finish_reason"] == "length"


def test_a_truncated_completion_earns_no_extras(tmp_path: Path) -> None:
    rollout = Rollout(tmp_path, MixedReward(extras={"repetition": (repetition_reward(), 1.0)}))
    assert rollout((0, "<think>so"), ids=[1, 2, 3]) == [0.0]


def test_a_reward_that_is_not_finite_is_refused_by_item(tmp_path: Path) -> None:
    rollout = Rollout(tmp_path, MixedReward(extras={"odd": (lambda item, completion: float("nan"), 1.0)}))
    with pytest.raises(ValueError, match="of item 'digit-1' is nan"):
        rollout((0, answer("4")))


def test_processes_that_do_not_lead_write_nothing(tmp_path: Path) -> None:
    rollout = Rollout(tmp_path)
    rollout.function._log = None
    assert rollout((0, answer("4"))) == [1.0]
    assert list(tmp_path.iterdir()) == []


def test_rows_and_statistics_are_of_all_processes_and_by_the_one_with_the_log(tmp_path: Path) -> None:
    lead, other = Rollout(tmp_path), Rollout(tmp_path)
    other.function._log = None
    shared: list[Any] = []
    # Two processes in turn: the first's part is known when the second's call comes.
    other.function._gather = lambda rows: shared.extend(rows) or list(shared)
    lead.function._gather = lambda rows: [*rows, *shared]
    assert other((1, answer("4")), (1, answer("7"))) == [0.0, 1.0]
    assert other.metrics == {}
    assert lead((0, answer("4")), (0, answer("4"))) == [1.0, 1.0]
    assert [row["item_id"] for row in lead.rows("responses.jsonl")] == ["digit-1", "digit-1", "digit-2", "digit-2"]
    assert lead.metrics["reward/digit/n"] == 4.0
    assert lead.metrics["reward/digit/mean"] == 3 / 4
    # Of two groups, the first's rewards are the same.
    assert lead.metrics["reward/digit/no_signal"] == 1 / 2


def test_a_process_whose_reward_fails_stops_the_others(tmp_path: Path) -> None:
    rollout = Rollout(tmp_path)
    rollout.function._gather = lambda rows: [*rows, ([], "ZeroDivisionError: no judge today")]
    with pytest.raises(SharedFailure, match=r"^process 1: ZeroDivisionError: no judge today$"):
        rollout((0, answer("4")))
    assert list(tmp_path.iterdir()) == []


def test_a_process_whose_reward_fails_tells_the_others(tmp_path: Path) -> None:
    rollout = Rollout(tmp_path, MixedReward(extras={"odd": (lambda item, completion: float("nan"), 1.0)}))
    told: list[Any] = []
    rollout.function._gather = lambda rows: told.extend(rows) or [([], None), *rows]
    with pytest.raises(SharedFailure, match=r"^process 1: ValueError: the reward of .* is nan"):
        rollout((0, answer("4")))
    assert told == [([], "ValueError: the reward of a completion of item 'digit-1' is nan")]
