"""What stops supervised fine-tuning: numbers that are not finite, and the loss spikes that the paper met."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState
from trl.trainer.sft_trainer import SFTTrainer

from ahabench.harness.errors import TrainingError
from ahabench.harness.report import note
from ahabench.trainer.checkpoints import CheckpointedTrainer
from ahabench.trainer.run_folder import Mark
from ahabench.trainer.sft_recipe import Spikes

USUAL_SPREAD = 0.05
"""Smallest spread of the loss, as a share of its median: a very even curve must not make every ripple a spike."""


class WatchedTrainer(CheckpointedTrainer, SFTTrainer):
    """TRL's trainer, which stops before the optimiser moves by a loss or a gradient that is not finite."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of one pass through the data; the last may be a smaller one."""
        batches: int = len(self.get_train_dataloader())
        return math.ceil(batches / self.args.gradient_accumulation_steps)

    def restore(self, checkpoint: Path, mark: Mark) -> None:
        """Take the count of tokens, which TRL begins again."""
        logs = json.loads((checkpoint / TRAINER_STATE_NAME).read_bytes())["log_history"]
        self._total_train_tokens = max((int(row.get("num_tokens", 0)) for row in logs), default=0)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return TRL's loss."""
        loss: Any = super().compute_loss(  # type: ignore[no-untyped-call]
            model, inputs, return_outputs, num_items_in_batch
        )
        if not torch.isfinite(loss[0] if return_outputs else loss).all():
            raise TrainingError(f"the loss of step {self.state.global_step + 1} is not finite; {_advice(self.args)}")
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[no-untyped-call]
        if norm is not None and not math.isfinite(float(norm)):
            raise TrainingError(
                f"the gradient's norm of step {self.state.global_step + 1} is {float(norm)}; {_advice(self.args)}"
            )
        return norm


class SpikeWatch(TrainerCallback, ExportableState):
    """Looks for the loss spikes after which the paper's models collapsed (arXiv:2504.11468, section 3.1).

    A step whose loss lies `z` robust deviations above the median of the steps before is said on stderr, and saved;
    after `patience` of them in a row the run stops. Spikes do not enter the window, so a loss that stays
    up stays a spike. A checkpoint's trainer_state.json holds the window.
    """

    def __init__(self, window: int, z: float, patience: int) -> None:
        """Take what `sft_recipe.Spikes` says."""
        self._settings = Spikes(window=window, z=z, patience=patience)
        self.usual: list[float] = []
        self.in_a_row = 0

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Compare a step's loss with those before it.

        Raises:
            TrainingError: it is the last spike that patience allows.
        """
        loss = (logs or {}).get("loss")
        if not isinstance(loss, int | float):
            return
        z = robust_z(float(loss), self.usual) if len(self.usual) == self._settings.window else 0.0
        if z < self._settings.z:
            self.usual = [*self.usual, float(loss)][-self._settings.window :]
            self.in_a_row = 0
            return
        self.in_a_row += 1
        what = (
            f"the loss of step {state.global_step} is {loss:.4g}, {z:.1f} robust deviations above the "
            f"{median(self.usual):.4g} of the {len(self.usual)} steps before"
        )
        if self.in_a_row >= self._settings.patience:
            raise TrainingError(f"{what}, spike {self.in_a_row} in a row; {_advice(args)}")
        if self.in_a_row == 1:
            control.should_save = True
            note(f"warning: {what}; saved as checkpoint-{state.global_step}; {_advice(args)}")

    def state(self) -> dict[str, dict[str, Any]]:
        """Return what a checkpoint keeps."""
        return {
            "args": self._settings.model_dump(),
            "attributes": {"usual": self.usual, "in_a_row": self.in_a_row},
        }


def robust_z(value: float, usual: Sequence[float]) -> float:
    """Return how many robust standard deviations a value lies above the median of others.

    The deviation is 1.4826 times the median absolute deviation (that of a normal distribution is 1), and at least
    `USUAL_SPREAD` of the median.

    >>> robust_z(5.0, [1.0, 2.0, 3.0])  # median 2, deviations 1, 0, 1
    2.023472278429786
    """
    middle = median(usual)
    spread = 1.4826 * median(abs(each - middle) for each in usual)
    return (value - middle) / max(spread, USUAL_SPREAD * abs(middle), 1e-9)


def _advice(args: TrainingArguments) -> str:
    return (
        f"what may help: a lower learning_rate (now {args.learning_rate:g}), a longer warmup, another seed (the "
        "paper ran it again), or no SFT at all: its models reason better after GRPO alone (arXiv:2504.11468, table 3)"
    )
