"""GRPO's runs that go on as if they had never stopped, from whole checkpoints (`trainer.checkpoints`).

    checkpoint-N/rollout-P.safetensors, rollout-P.json
                             what process P has not yet trained on of its rollout, where N is in the middle of one

Two things keep a plain `resume_from_checkpoint` of TRL's trainer from going on as before, beside what is mended in
`trainer.checkpoints`; both are mended here. TRL (1.16) forgets a rollout that is partly trained on, and with it where
the next begins. Its sampler forgets the epochs before, so that a second one would draw the first one's order again.

vLLM draws its own random numbers, so with it the continuation is not the same to the last bit.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from trl.trainer.grpo_trainer import GRPOTrainer

from ahabench.harness.disk import replace_file
from ahabench.trainer.checkpoints import CheckpointedTrainer
from ahabench.trainer.run_folder import Mark


class ResumableTrainer(CheckpointedTrainer, GRPOTrainer):
    """TRL's trainer, whose runs go on from a whole checkpoint, within a rollout too; the arguments are the base's."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._epochs_before = 0
        self.restored_signal = False
        super().__init__(*args, **kwargs)

    @property
    def _steps_per_rollout(self) -> int:
        """Optimiser steps that one rollout feeds."""
        settings: Any = self.args
        return int(settings.steps_per_generation * self.num_iterations // settings.gradient_accumulation_steps)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of one pass through the data; prompts that do not fill a rollout are left out."""
        settings: Any = self.args
        data: Any = self.train_dataset
        prompts = settings.generation_batch_size // self.num_generations
        return int(len(data) // prompts) * self._steps_per_rollout

    def restore(self, checkpoint: Path, mark: Mark) -> None:
        """Take the epochs before, the signal of this one and what was left of a rollout."""
        per_epoch = self.steps_per_epoch
        self._epochs_before = mark.step // per_epoch
        self.restored_signal = mark.has_signal and mark.step % per_epoch > 0
        self._step = mark.step * self.args.gradient_accumulation_steps
        self._buffered_inputs: Any = None
        if mark.in_rollout:
            process = self.accelerator.process_index
            self._buffered_inputs = list(_read_batches(checkpoint, process, self.accelerator.device))

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        sampler: Any = super()._get_train_sampler(dataset)
        for _ in range(self._epochs_before):
            # As many orders as were drawn before; only the draw moves the generator.
            torch.randperm(sampler.num_samples, generator=sampler.generator)
        return sampler

    def write_rest(self, partial: Path) -> bool:
        """Write what is left of a rollout, where the step is within one."""
        if self.state.global_step % self._steps_per_rollout == 0 or self._buffered_inputs is None:
            return False
        _write_batches(partial, self.accelerator.process_index, self._buffered_inputs)
        return True


def _write_batches(folder: Path, process: int, batches: Iterable[Mapping[str, Any]]) -> None:
    """Write the micro-batches of a rollout: tensors as safetensors, the rest as JSON."""
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    rest: list[dict[str, Any]] = []
    for place, batch in enumerate(batches):
        values = {key: value for key, value in batch.items() if isinstance(value, torch.Tensor)}
        tensors |= {f"{place}/{key}": value.detach().cpu().contiguous().clone() for key, value in values.items()}
        rest.append({key: value for key, value in batch.items() if key not in values})
    save_file(tensors, folder / f"rollout-{process}.safetensors")
    replace_file(folder / f"rollout-{process}.json", [json.dumps(rest).encode()])


def _read_batches(folder: Path, process: int, device: torch.device) -> Iterator[dict[str, Any]]:
    from safetensors.torch import load_file

    # Moved here, because safetensors knows no "cpu:0", as a process of several has it.
    saved = load_file(folder / f"rollout-{process}.safetensors")
    tensors = {key: value.to(device) for key, value in saved.items()}
    rest = json.loads((folder / f"rollout-{process}.json").read_bytes())
    for place, values in enumerate(rest):
        head = f"{place}/"
        yield values | {key.removeprefix(head): value for key, value in tensors.items() if key.startswith(head)}
