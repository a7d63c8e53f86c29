import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ahabench.harness.errors import TrainingError, UsageError
from ahabench.trainer import grpo
from ahabench.trainer.base_model import open_model
from ahabench.trainer.grpo import FAILED_BATCH, LOG, RewardedTrainer, banned_tokens, messages
from ahabench.trainer.grpo_run import load_items
from ahabench.trainer.kl import KLController
from ahabench.trainer.recipe import parse_recipe

TrainerOf = Callable[..., Any]


def logged(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / LOG).read_text().splitlines()]


def steps(out: Path) -> list[dict[str, Any]]:
    return [row for row in logged(out) if "loss" in row]


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], *, only: str = "") -> bool:
    return all(torch.equal(first[name], second[name]) for name in first if only in name)


def test_training_raises_the_reward(trainer_of: TrainerOf, tmp_path: Path) -> None:
    batches = {"prompts_per_rollout": 8, "train_batch": 32, "micro_batch": 32}
    trainer_of(max_steps=5, learning_rate=3e-3, temperature=1.0, kl=None, **batches).train()
    rewards = [row["reward"] for row in steps(tmp_path / "out") if "reward" in row]
    assert rewards[-1] > rewards[0] + 0.3


def test_step_0_is_the_untrained_model(trainer_of: TrainerOf, tmp_path: Path) -> None:
    trainer_of(max_steps=2).train()
    first, second, *_ = logged(tmp_path / "out")
    assert (first["step"], second["step"]) == (0, 1)
    assert first["baseline/reward"] == second["reward"]
    assert first["baseline/completions/mean_length"] == second["completions/mean_length"]


def test_two_runs_with_one_seed_are_the_same(trainer_of: TrainerOf, tmp_path: Path) -> None:
    for name in ("one", "two"):
        trainer_of(out=tmp_path / name).train()
    one, two = (
        [(row["loss"], row["grad_norm"], row["kl"], row["beta"]) for row in steps(tmp_path / name)]
        for name in ("one", "two")
    )
    assert one == two


def test_the_kl_coefficient_follows_the_logged_kl(trainer_of: TrainerOf, tmp_path: Path) -> None:
    trainer_of(max_steps=6).train()
    rows = steps(tmp_path / "out")
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-6)
    coefficient = 0.01
    for row in rows:
        assert row["beta"] == pytest.approx(coefficient)
        error = min(0.2, max(-0.2, row["kl"] / 0.001 - 1))
        coefficient *= 1 + error * 8 / 100  # 8 completions a step, horizon 100
    assert len({row["beta"] for row in rows}) == 6


def test_the_kl_coefficient_is_in_the_checkpoint(trainer_of: TrainerOf, tmp_path: Path) -> None:
    trainer = trainer_of(max_steps=3, save_steps=2)
    trainer.train()
    saved = json.loads((tmp_path / "out" / "checkpoint-2" / "trainer_state.json").read_text())
    attributes = saved["stateful_callbacks"]["KLController"]["attributes"]
    # What step 3 was made with.
    assert attributes["coefficient"] == pytest.approx(steps(tmp_path / "out")[2]["beta"])


def test_a_resumed_trainer_takes_the_restored_coefficient(trainer_of: TrainerOf, tmp_path: Path) -> None:
    trainer_of(max_steps=2, save_steps=2, out=tmp_path / "first").train()
    resumed = trainer_of(max_steps=3, out=tmp_path / "second")
    original = resumed.controller
    resumed.train(resume_from_checkpoint=str(tmp_path / "first" / "checkpoint-2"))
    saved = json.loads((tmp_path / "first" / "checkpoint-2" / "trainer_state.json").read_text())
    (row,) = steps(tmp_path / "second")
    coefficient = saved["stateful_callbacks"]["KLController"]["attributes"]["coefficient"]
    assert row["beta"] == pytest.approx(coefficient) != 0.01
    assert resumed.controller is not original


def test_without_a_kl_term_there_is_no_reference_model(trainer_of: TrainerOf, tmp_path: Path) -> None:
    trainer = trainer_of(kl=None, max_steps=1)
    trainer.train()
    assert trainer.ref_model is None
    assert not any(isinstance(callback, KLController) for callback in trainer.callback_handler.callbacks)
    assert steps(tmp_path / "out")[0]["beta"] == 0.0


def test_the_reference_model_stays_as_it_was(trainer_of: TrainerOf) -> None:
    trainer = trainer_of(max_steps=2)
    before = weights(trainer.ref_model)
    assert equal(before, weights(trainer.model))
    trainer.train()
    assert equal(before, weights(trainer.ref_model))
    assert not equal(before, weights(trainer.model))


def test_a_frozen_vision_tower_does_not_move(trainer_of: TrainerOf) -> None:
    trainer = trainer_of(freeze_vision=True, max_steps=2)
    before = weights(trainer.model)
    trainer.train()
    after = weights(trainer.model)
    assert equal(before, after, only="visual")
    assert not equal(before, after, only="language_model")


def test_low_rank_adapters_train_alone(trainer_of: TrainerOf) -> None:
    trainer = trainer_of(lora={"rank": 4, "alpha": 8}, max_steps=2)
    trainable = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    before = weights(trainer.model)
    trainer.train()
    after = weights(trainer.model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert trainable
    assert moved
    assert all("lora_" in name and "visual" not in name for name in trainable)
    assert moved <= trainable


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "dapo"])
def test_every_loss_moves_the_policy(loss: str, trainer_of: TrainerOf) -> None:
    trainer = trainer_of(loss=loss, max_steps=1)
    assert trainer.args.scale_rewards == ("none" if loss == "dr_grpo" else "group")
    before = weights(trainer.model)
    trainer.train()
    assert not equal(before, weights(trainer.model))


def test_image_and_unused_tokens_are_never_generated(trainer_of: TrainerOf, settings: dict[str, Any]) -> None:
    drawn: list[int] = []

    def keep(completion_ids: list[list[int]], **columns: Any) -> list[float | None]:
        drawn.extend(token for ids in completion_ids for token in ids)
        return [float(len(set(ids))) for ids in completion_ids]

    # So hot that every token is about as likely as any other: 8 steps x 32 tokens x 8 of about 285.
    trainer = trainer_of(keep, temperature=1e4, max_new_tokens=64, max_steps=8)
    trainer.train()
    config = trainer.model.config
    banned = set(banned_tokens(config, trainer.processing_class.tokenizer))
    assert {config.image_token_id, config.video_token_id, config.vision_start_token_id} <= banned
    assert len(set(drawn)) > 150
    assert not banned & set(drawn)


def test_the_prompt_is_what_an_evaluation_asks(settings: dict[str, Any], tmp_path: Path) -> None:
    from trl.data_utils import prepare_multimodal_messages

    from ahabench.harness.engines.chat import Chat
    from ahabench.harness.types import Prompt

    recipe = parse_recipe(settings, name="test")
    front, item = open_model(recipe, tmp_path), load_items(recipe).items[0]
    row = grpo.prompt_dataset(load_items(recipe).items, recipe.system_prompt)[0]
    conversation = prepare_multimodal_messages(row["prompt"], images=row["images"])
    trained = front.processor.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    asked = Prompt(text=item.item.question, system=recipe.system_prompt)
    assert trained == Chat(front.processor, images=True).render(asked, 1)


def test_messages_have_no_system_turn_without_a_system_prompt(settings: dict[str, Any]) -> None:
    item = load_items(parse_recipe(settings, name="test")).items[0]
    assert messages(item, None) == [{"role": "user", "content": "How many squares?"}]


def test_pixel_limits_reach_the_processor(settings: dict[str, Any], tmp_path: Path) -> None:
    recipe = parse_recipe(settings | {"min_pixels": 112 * 112, "max_pixels": 112 * 112}, name="test")
    assert open_model(recipe, tmp_path).pixels == (112 * 112, 112 * 112)


def test_batches_must_divide_among_the_processes(settings: dict[str, Any], tmp_path: Path, monkeypatch: Any) -> None:
    from accelerate import PartialState

    monkeypatch.setattr(PartialState(), "num_processes", 3)
    with pytest.raises(UsageError, match=r"wanted a multiple of micro_batch x processes = 8 x 3"):
        grpo.arguments(parse_recipe(settings, name="test"), tmp_path, banned=())


def test_the_papers_arithmetic_reaches_trl(settings: dict[str, Any], tmp_path: Path) -> None:
    batches = {"prompts_per_rollout": 512, "train_batch": 256, "micro_batch": 4, "group_size": 4}
    args = grpo.arguments(parse_recipe(settings | batches, name="test"), tmp_path, banned=())
    assert args.gradient_accumulation_steps * args.per_device_train_batch_size == 256
    assert args.generation_batch_size == 2048
    # Micro-batches of a rollout: eight optimiser steps of 64.
    assert args.steps_per_generation == 8 * 64


def stopped(trainer: RewardedTrainer) -> TrainingError:
    with pytest.raises(TrainingError) as error:
        trainer.train()
    return error.value


def test_a_reward_that_raises_stops_with_the_batch_named(trainer_of: TrainerOf, tmp_path: Path) -> None:
    def broken(completion_ids: Any, **columns: Any) -> list[float | None]:
        raise ZeroDivisionError("no judge today")

    error = stopped(trainer_of(broken))
    batch = json.loads((tmp_path / "out" / FAILED_BATCH).read_text())
    assert "ZeroDivisionError: no judge today" in str(error)
    assert len(batch["item_ids"]) == 4
    assert repr(batch["item_ids"][0]) in str(error)


def test_a_gradient_that_is_not_finite_stops_before_the_weights_move(trainer_of: TrainerOf) -> None:
    trainer = trainer_of()
    before = weights(trainer.model)
    trainer.model.lm_head.weight.register_hook(lambda gradient: gradient * math.nan)
    assert "the gradient's norm is nan" in str(stopped(trainer))
    assert equal(before, weights(trainer.model))


def test_a_loss_that_is_not_finite_stops(trainer_of: TrainerOf) -> None:
    trainer = trainer_of()
    trainer.controller.coefficient = math.nan
    assert "the loss is nan" in str(stopped(trainer))


@pytest.mark.parametrize("constant", [0.0, 1.0, None])
def test_an_epoch_without_signal_stops(constant: float | None, trainer_of: TrainerOf) -> None:
    trainer = trainer_of(lambda completion_ids, **columns: [constant] * len(completion_ids), max_steps=2)
    assert "no group had two different rewards" in str(stopped(trainer))


def test_an_image_token_too_many_stops(trainer_of: TrainerOf, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of()
    # Somebody's data set may hold what the loader of records refuses.
    bad = [{"role": "user", "content": "What is <|image_pad|>?"}]
    monkeypatch.setattr(grpo, "messages", lambda item, system_prompt: bad)
    error = str(stopped(trainer))
    assert "mini" not in error
    assert "mage" in error
    assert "tokens" in error


def test_a_masked_completion_does_not_move_its_group(trainer_of: TrainerOf) -> None:
    seen: list[torch.Tensor] = []
    rewards = [1.0, 0.0, None, 1.0] * 4

    trainer = trainer_of(lambda completion_ids, **columns: rewards, max_steps=1)
    score = trainer._generate_and_score_completions
    trainer._generate_and_score_completions = lambda inputs: seen.append(out := score(inputs)) or out
    trainer.train()
    advantages = seen[0]["advantages"][:4].tolist()
    # Mean 2/3 and sample deviation sqrt(1/3) of the three known: +-0.577 and -1.155.
    assert advantages == pytest.approx([0.5773, -1.1545, 0.0, 0.5773], abs=1e-3)
