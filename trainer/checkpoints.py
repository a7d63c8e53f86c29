"""Checkpoints that are whole or not there, for GRPO and supervised fine-tuning alike.

    checkpoint-N/            Trainer's files: weights, optimiser, schedule, random numbers, the callbacks' states
    checkpoint-N/resume.json the mark of a whole checkpoint: every file with its size, written last

A checkpoint is written under `.saving/` and takes its name by one rename, so that a kill leaves the one before.

transformers (5.19 to 5.23) loads Qwen2.5-VL's weights by names that the model no longer has, and only warns; here they
are loaded as `from_pretrained` does it, and all of them. On one device a run that goes on is the same to the last bit.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer

from ahabench.harness.disk import refusals, replace_file
from ahabench.harness.errors import EngineError, UsageError
from ahabench.trainer.run_folder import MARK, PREFIX, Mark, read_mark, whole_checkpoints

SAVING = ".saving"


class CheckpointedTrainer(Trainer):
    """The part of a trainer that saves, and goes on from what it saved; stands before TRL's in a class's bases.

    Args:
        data_sha256: digest of what is trained on; a checkpoint of other data is refused.
        keep: whole checkpoints to keep, the newest; all if `None`.
        args: as TRL's.
        kwargs: as TRL's.
    """

    def __init__(self, *args: Any, data_sha256: str = "", keep: int | None = None, **kwargs: Any) -> None:
        self._data_sha256 = data_sha256
        self._keep = keep
        self._run_dir: Path | None = None
        self.has_signal = False
        super().__init__(*args, **kwargs)
        # It would print whole logs on stdout, which carries the answer of a command.
        self.remove_callback(PrinterCallback)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train, from a whole checkpoint where one is given.

        Raises:
            UsageError: the checkpoint is not whole, or of other data or another number of processes.
        """
        if isinstance(resume_from_checkpoint, str):
            self.restore(Path(resume_from_checkpoint), self._checked(Path(resume_from_checkpoint)))
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write none: TRL's draft names the folder in which a checkpoint is written aside, and no base model."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of one pass through the data."""
        raise NotImplementedError

    @property
    def planned_steps(self) -> int:
        """Optimiser steps of the whole run."""
        asked = self.args.max_steps
        return asked if asked > 0 else int(self.args.num_train_epochs) * self.steps_per_epoch

    def restore(self, checkpoint: Path, mark: Mark) -> None:
        """Take from a whole checkpoint what Trainer does not; nothing, unless a subclass has something."""

    def write_rest(self, partial: Path) -> bool:
        """Add to a checkpoint what Trainer does not, and say whether it stands within a rollout."""
        return False

    def _checked(self, checkpoint: Path) -> Mark:
        mark = read_mark(checkpoint)
        if mark is None:
            raise UsageError(f"{checkpoint} is no whole checkpoint of a training run")
        if self._data_sha256 and mark.data_sha256 != self._data_sha256:
            raise UsageError(f"{checkpoint} was trained on other items, or in another order; its run cannot go on")
        if mark.processes != self.accelerator.num_processes:
            raise UsageError(
                f"{checkpoint} was written by {mark.processes} processes, now there are "
                f"{self.accelerator.num_processes}; start as many again"
            )
        return mark

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        target = self.model if model is None else model
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        elif hasattr(target, "peft_config"):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            check_adapter(target, Path(resume_from_checkpoint))
        else:
            load_weights(target, Path(resume_from_checkpoint))

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._run_dir or super()._get_output_dir(trial))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint beside its place and move it there; where it stands already, whole, it stays."""
        run = Path(str(self.args.output_dir))
        name = f"{PREFIX}{self.state.global_step}"
        # Every process must decide alike, so none may look before another has moved.
        self.accelerator.wait_for_everyone()
        if read_mark(run / name) is not None:
            return
        partial = run / SAVING / name
        if self.accelerator.is_main_process:
            shutil.rmtree(run / SAVING, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self._run_dir = run / SAVING
        try:
            super()._save_checkpoint(model, trial)
            in_rollout = self.write_rest(partial)
        finally:
            self._run_dir = None
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            self._finish(partial, run / name, in_rollout)
        self.accelerator.wait_for_everyone()

    def _finish(self, partial: Path, target: Path, in_rollout: bool) -> None:
        with refusals(partial):
            files = sorted(path for path in partial.rglob("*") if path.is_file())
            for path in files:
                _sync(path)
        mark = Mark(
            step=self.state.global_step,
            processes=self.accelerator.num_processes,
            data_sha256=self._data_sha256,
            in_rollout=in_rollout,
            has_signal=self.has_signal,
            files={path.relative_to(partial).as_posix(): path.stat().st_size for path in files},
        )
        replace_file(partial / MARK, [mark.model_dump_json(indent=2).encode() + b"\n"])
        with refusals(target):
            # What stands there without being whole is of an older version, or damaged.
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
            _sync(target.parent)
        if self._keep is not None:
            for old in whole_checkpoints(target.parent)[: -self._keep]:
                shutil.rmtree(old)


def load_weights(model: Any, checkpoint: Path) -> None:
    """Put a checkpoint's weights into a model, all of them.

    The names in a file are translated as `from_pretrained` does it, so the model's class reads it.

    Raises:
        EngineError: a weight is missing, left over or of another shape.
    """
    dtype = next(model.parameters()).dtype
    saved, info = type(model).from_pretrained(checkpoint, dtype=dtype, local_files_only=True, output_loading_info=True)
    wrong = {kind: list(names)[:3] for kind, names in info.items() if names and kind.endswith("_keys")}
    if wrong:
        raise EngineError(f"the weights in {checkpoint} are not the model's: {wrong}")
    model.load_state_dict(saved.state_dict(), strict=True)


def check_adapter(model: Any, checkpoint: Path) -> None:
    """Compare an adapter with its file.

    Raises:
        EngineError: they differ.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import load_file

    saved = load_file(checkpoint / "adapter_model.safetensors")
    found = get_peft_model_state_dict(model)
    if saved.keys() != found.keys() or any(not torch.equal(saved[name], found[name].cpu()) for name in saved):
        raise EngineError(f"the adapter in {checkpoint} was not loaded; its run cannot go on")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
