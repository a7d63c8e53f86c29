"""What GRPO and supervised fine-tuning tell TRL alike."""

from pathlib import Path
from typing import Any

from ahabench.harness.errors import UsageError
from ahabench.trainer.processes import join, settings
from ahabench.trainer.recipe import Training


def accumulation(recipe: Training, processes: int) -> int:
    """Return the micro-batches of one process in an optimiser step.

    Raises:
        UsageError: the batches do not divide among the processes.
    """
    if recipe.step_batch % (recipe.micro_batch * processes):
        raise UsageError(
            f"{recipe.batch_key} is {recipe.step_batch}, wanted a multiple of micro_batch x processes = "
            f"{recipe.micro_batch} x {processes}; change one of them"
        )
    return recipe.step_batch // (recipe.micro_batch * processes)


def shared_settings(recipe: Training, out: Path) -> dict[str, Any]:
    """Return keyword arguments of both `GRPOConfig` and `SFTConfig`.

    Raises:
        UsageError: as `accumulation` and `processes.settings`.
    """
    return {
        "output_dir": str(out),
        "per_device_train_batch_size": recipe.micro_batch,
        "gradient_accumulation_steps": accumulation(recipe, join().num_processes),
        "max_steps": recipe.max_steps or -1,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": "cosine_with_min_lr",
        # As a share: for the rate itself transformers asks the optimiser, and DeepSpeed's does not know (5.23, 0.19).
        "lr_scheduler_kwargs": {"min_lr_rate": recipe.min_learning_rate / recipe.learning_rate},
        "warmup_steps": recipe.warmup,
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "bf16": recipe.bf16,
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "model_init_kwargs": {"dtype": "float32"},
        "trust_remote_code": recipe.trust_remote_code,
        "logging_steps": 1,
        "save_steps": recipe.save_steps,
        "restore_callback_states_from_checkpoint": True,
        # A vision tower that is trained has no part in a batch without images.
        "ddp_find_unused_parameters": not recipe.freeze_vision,
        "report_to": list(recipe.report_to) or "none",
        "project": "ahabench",
        "run_name": out.name,
        "disable_tqdm": True,
        "seed": recipe.seed,
        **settings(bf16=recipe.bf16),
    }
