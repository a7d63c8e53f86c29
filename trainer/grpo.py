"""GRPO with the mixed reward, on TRL's `GRPOTrainer`.

TRL does what it does well: rollouts, group-normalised advantages, the clipped loss, the k3 KL to the frozen first
policy, LoRA, processes, checkpoints. What stands here: a recipe's translation into its settings, the moving KL
coefficient, and a stop with a message where TRL would go on training on nothing.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.trainer.grpo_config import GRPOConfig

from ahabench.harness.disk import replace_file
from ahabench.harness.errors import AhabenchError, TrainingError, UsageError
from ahabench.harness.images import decode
from ahabench.harness.report import note
from ahabench.trainer.data import TrainItem
from ahabench.trainer.kl import KLController
from ahabench.trainer.processes import OneProcessError, SharedFailure
from ahabench.trainer.recipe import Recipe
from ahabench.trainer.rewards import MixedReward, Reward, length_reward, repetition_reward
from ahabench.trainer.run_folder import LOG as LOG
from ahabench.trainer.shared_prompt import SharedPromptTrainer
from ahabench.trainer.trl_settings import shared_settings
from ahabench.trainer.vllm_rollouts import SamePrompts
from ahabench.trainer.vllm_settings import trl_rollouts

STEP_0 = ("reward", "completions/", "frac_reward", "aha/", "calibration/", "length/", "repetition", "truncated/")
"""How the names begin whose values of the first rollout are logged as step 0's."""
FAILED_BATCH = "failed-batch.json"
"""The step, the items and the error of the batch that stopped a run."""
LOW_FORMAT_RATE = 0.05
"""Share of completions in the asked form below which a base does not count as aligned."""
ALIGNED = "The method starts from an aligned model, one that follows its system prompt (arXiv:2504.11468, section 4)"
DECODED = 64
"""Items whose decoded images are kept, so that a group's completions share them."""


class RewardedTrainer(SharedPromptTrainer):
    """TRL's trainer with a moving KL coefficient and checks of every batch.

    A batch that cannot be trained on raises `TrainingError`, which names its step and items; so do a loss or a gradient
    that is not finite, before the optimiser has moved, and an epoch in which no group had two different rewards.
    """

    def __init__(self, *args: Any, item_ids: Sequence[str], **kwargs: Any) -> None:
        """Take the ids behind the column "item_index"; the rest is TRL's."""
        self._item_ids = item_ids
        self._rollout: list[str] = []
        self._baseline_logged = False
        super().__init__(*args, **kwargs)
        self.add_callback(_SignalWatch(self))
        if self.use_vllm:
            token = getattr(self.accelerator.unwrap_model(self.model).config, "image_token_id", None)
            rollouts: Any = SamePrompts(self.vllm_generation, token)
            self.vllm_generation = rollouts

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return TRL's loss under the coefficient that the controller now has."""
        if self.beta:
            self.beta = self.controller.coefficient
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        # Of all processes, since one that stopped alone would leave the others waiting for its gradients.
        losses = self.accelerator.gather(loss.detach().reshape(1))
        if not torch.isfinite(losses).all():
            raise self.failure(f"the loss is {losses[~torch.isfinite(losses)][0].item()}")
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log a step with the coefficient that was in force."""
        if "loss" in logs:
            logs["beta"] = self.beta
        super().log(logs, start_time)

    @property
    def controller(self) -> KLController:
        """The controller, which a restored one may have replaced."""
        return next(callback for callback in self.callback_handler.callbacks if isinstance(callback, KLController))

    def failure(self, why: str, *, alone: bool = False) -> TrainingError:
        """Return the error that names the batch at hand, after writing it to `FAILED_BATCH`.

        Args:
            why: what is wrong.
            alone: whether other processes may not know of it.
        """
        step = self.state.global_step
        ids = list(dict.fromkeys(self._rollout))
        path = Path(str(self.args.output_dir), FAILED_BATCH)
        if alone or self.accelerator.is_main_process:
            row = {"step": step, "item_ids": ids, "error": why}
            replace_file(path, [json.dumps(row, indent=2).encode() + b"\n"])
        shown = ", ".join(map(repr, ids[:3])) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")
        kind = OneProcessError if alone else TrainingError
        return kind(f"after step {step}, rollout of {shown or 'no item'}: {why}. The batch is in {path}")

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._rollout = gathered([self._item_ids[row["item_index"]] for row in inputs])
        try:
            batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        except SharedFailure as error:
            raise self.failure(str(error)) from error
        except AhabenchError as error:
            raise self.failure(str(error), alone=True) from error
        except Exception as error:
            # A reward of a stranger's, a processor, a model: whatever it is, the batch must be known.
            raise self.failure(f"{type(error).__name__}: {error}", alone=True) from error
        self._check_image_tokens(batch)
        self.has_signal |= bool((self.accelerator.gather(batch["advantages"]) != 0).any())
        if not self._baseline_logged and self.model is not None and self.model.training and self.state.global_step == 0:
            self._log_baseline()
        return batch

    def _check_image_tokens(self, batch: dict[str, Any]) -> None:
        """Compare the image tokens in the prompts with the images, and look for such tokens in the completions."""
        config = self.accelerator.unwrap_model(self.model).config
        token, grid = getattr(config, "image_token_id", None), batch.get("image_grid_thw")
        if token is None:
            return
        drawn, found = ((batch[key] == token).sum() for key in ("completion_ids", "prompt_ids"))
        wanted = torch.zeros_like(drawn)
        if grid is not None:
            wanted += grid.prod(dim=-1).sum().to(drawn) // config.vision_config.spatial_merge_size**2
        counts = self.accelerator.gather(torch.stack([drawn, found, wanted]))
        drawn, found, wanted = counts.reshape(-1, 3).sum(dim=0).tolist()
        if drawn:
            raise self.failure(f"image-token mismatch: the completions hold {drawn} image tokens, wanted 0")
        if found != wanted:
            raise self.failure(f"image-token mismatch: the prompts hold {found}, their images have {wanted}")

    def _log_baseline(self) -> None:
        """Log the first rollout's means as step 0: no update has been made, so they are the untrained model's."""
        self._baseline_logged = True
        means = {
            f"baseline/{name}": values[-1]
            for name, values in self._metrics["train"].items()
            if name.startswith(STEP_0) and math.isfinite(values[-1])
        }
        # Past TRL's own `log`, which would empty the metrics of the step.
        Trainer.log(self, means)
        rate = means.get("baseline/reward/answered", 1.0)
        if rate < LOW_FORMAT_RATE and self.accelerator.is_main_process:
            note(
                f"warning: {rate:.1%} of the untrained model's completions have exactly one <answer>...</answer> that "
                f"can be read, and the others earn 0. {ALIGNED}"
            )

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[no-untyped-call]
        if norm is not None and not math.isfinite(float(norm)):
            raise self.failure(f"the gradient's norm is {float(norm)}")
        return norm


class _SignalWatch(TrainerCallback):
    """Stops a run in which a whole epoch, or what was done of it, taught nothing."""

    def __init__(self, trainer: RewardedTrainer) -> None:
        self._trainer = trainer

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._trainer.has_signal, self._trainer.restored_signal = self._trainer.restored_signal, False

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not self._trainer.has_signal:
            raise self._trainer.failure(
                "in the whole epoch no group had two different rewards, so nothing could be learned; look at the "
                "responses, at reward/answered, and at whether the answers are in the form that the kinds read"
            )


class LogFile(TrainerCallback):
    """Appends every logged row to a file of the run, as JSON with its step, and says the most of it on stderr."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Write one row; but not Trainer's summary, whose mean loss forgets what came before a checkpoint."""
        if state.is_world_process_zero and logs and "train_runtime" not in logs:
            finite = {
                name: None if isinstance(value, float) and not math.isfinite(value) else value
                for name, value in logs.items()
            }
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **finite}) + "\n")
            if line := _line(finite):
                note(f"step {state.global_step}/{state.max_steps}  {line}")


_SHOWN = ("reward", "reward/answered", "reward/no_signal", "completions/mean_length", "kl", "beta", "loss")


def _line(logs: Mapping[str, Any]) -> str:
    """Return a step's log as one line, without what was not measured in it."""
    values = [(name, logs.get(name, logs.get(f"baseline/{name}"))) for name in _SHOWN]
    return "  ".join(f"{name} {value:.4g}" for name, value in values if isinstance(value, int | float))


def arguments(recipe: Recipe, out: Path, *, banned: Sequence[int]) -> GRPOConfig:
    """Return TRL's settings for a recipe.

    Args:
        recipe: the recipe.
        out: the run's folder.
        banned: token ids that may not be generated.

    Raises:
        UsageError: the batches do not divide among the processes.
    """
    return GRPOConfig(
        **shared_settings(recipe, out),
        generation_batch_size=recipe.rollout_batch,
        num_generations=recipe.group_size,
        num_iterations=recipe.inner_epochs,
        num_train_epochs=recipe.episodes,
        temperature=recipe.temperature,
        top_p=recipe.top_p,
        top_k=recipe.top_k,
        max_completion_length=recipe.max_new_tokens,
        beta=recipe.kl.init if recipe.kl else 0.0,
        epsilon=recipe.clip_eps,
        epsilon_high=recipe.clip_eps_high,
        loss_type=recipe.loss,
        scale_rewards="none" if recipe.loss == "dr_grpo" else "group",
        entropy_coef=0.0,
        **trl_rollouts(recipe, list(banned)),
    )


def prompt_dataset(
    items: Sequence[TrainItem], system_prompt: str | None, fit: Callable[[Any], Any] | None = None
) -> Dataset:
    """Return the rows that TRL draws: "prompt" (messages), "images" (decoded when a row is read) and "item_index".

    Args:
        items: the training items.
        system_prompt: `None` for none.
        fit: what is done to each image.
    """
    from functools import lru_cache

    with_images = any(item.item.images for item in items)

    @lru_cache(maxsize=DECODED)
    def images(index: int) -> list[Any]:
        found = [decode(image.read(), name=items[index].item.id) for image in items[index].item.images]
        return [fit(image) for image in found] if fit else found

    def rows(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        indices = batch["item_index"]
        found: dict[str, list[Any]] = {
            "item_index": indices,
            "prompt": [messages(items[index], system_prompt) for index in indices],
        }
        return found | ({"images": [images(index) for index in indices]} if with_images else {})

    return Dataset.from_dict({"item_index": list(range(len(items)))}).with_transform(rows)


def messages(item: TrainItem, system_prompt: str | None) -> list[dict[str, str]]:
    """Return the conversation that opens a rollout; TRL puts the images before the question."""
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    return [*system, {"role": "user", "content": item.item.question}]


def banned_tokens(config: Any, tokenizer: Any) -> list[int]:
    """Return the ids that may not be generated: the marks of images and videos, and rows that no token has.

    A generated image token has no image behind it, which stops the forward pass (StarsfieldAI/R1-V#91).
    """
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id", "vision_token_id")
    marks = {getattr(config, name, None) for name in names} - {None}
    marks |= {index for token in ("<|vision_pad|>",) if (index := tokenizer.get_vocab().get(token)) is not None}
    vocabulary = config.get_text_config().vocab_size
    used = set(tokenizer.get_vocab().values())
    return sorted(cast(set[int], marks) | (set(range(vocabulary)) - used))


def freeze_vision(model: Any) -> int:
    """Stop the training of the vision tower, and return how many parameters that concerns.

    Raises:
        UsageError: the model has none.
    """
    frozen = 0
    for name, parameter in model.named_parameters():
        if "visual." in name or "vision_tower." in name:
            parameter.requires_grad_(False)
            frozen += parameter.numel()
    if not frozen:
        raise UsageError(f"{type(model).__name__} has no vision tower to freeze; give freeze_vision=false")
    return frozen


def mixed_reward(recipe: Recipe, items: Iterable[TrainItem], tokenizer: Any) -> MixedReward:
    """Return the reward of a recipe; the open-ended scorer is loaded only where an item needs it.

    Raises:
        UsageError: it is needed and not installed, or cannot be used.
        EngineError: its checkpoint is not there.
    """
    from ahabench.trainer.data import Kind
    from ahabench.trainer.reward_models import open_scorer

    extras: dict[str, tuple[Reward, float]] = {}
    asked = recipe.extra_rewards
    if asked.length:
        reward = length_reward(
            lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]),
            free_tokens=asked.length_free_tokens,
            max_tokens=recipe.max_new_tokens,
        )
        extras["length"] = (reward, asked.length)
    if asked.repetition:
        extras["repetition"] = (repetition_reward(), asked.repetition)
    needed = any(item.kind is Kind.OPEN_ENDED for item in items)
    return MixedReward(
        scorer=open_scorer(recipe.reward_model) if needed else None,
        beta=recipe.open_ended_beta,
        kinds=frozenset(recipe.kinds),
        extras=extras,
    )


def gathered(rows: list[Any]) -> list[Any]:
    """Return every process's rows, in the order of processes."""
    return list(gather_object(rows))
