"""What every training begins and ends with: its folder, the untrained model, and what is saved when it stops."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ahabench.harness.checkpoint import Checkpoint, Kind, find_checkpoint
from ahabench.harness.disk import locked
from ahabench.harness.engines.loading import limit_pixels, load_front, read_config, takes_images
from ahabench.harness.errors import TrainingError, UsageError
from ahabench.harness.report import note
from ahabench.trainer.processes import OneProcessError, join
from ahabench.trainer.recipe import Training
from ahabench.trainer.run_folder import Found, copy_model

FINAL = "final"
BASE = "base"
RECIPE = "recipe.yaml"
REFERENCE = "reference"
MINI = "mini"

Ending = Literal["complete", "incomplete"]


class Front(NamedTuple):
    """The untrained model as far as it is known without its weights."""

    checkpoint: Checkpoint
    processor: Any
    config: Any
    pixels: tuple[int, int] | None
    """The area between which images are resized."""

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer, or the processor itself where it is one."""
        return getattr(self.processor, "tokenizer", self.processor)


@contextmanager
def claimed(out: Path, *, resume: bool) -> Iterator[bool]:
    """Hold a run's folder against other runs; the value is whether a run stands there that goes on.

    Args:
        out: the folder, new or empty unless the run in it goes on.
        resume: whether a run in it may go on; where there is none, it begins.

    Raises:
        UsageError: the folder is not empty, or another process has it.
    """
    processes = join()
    begun = resume and (out / RECIPE).is_file()
    with ExitStack() as stack:
        if processes.is_main_process:
            if not begun:
                _claim(out)
            stack.enter_context(locked(out))
        # Nothing was written yet, so every process has found the same.
        processes.wait_for_everyone()
        yield begun


def carry_out(trainer: Any, out: Path, checkpoint: Found | None, say: Callable[[Ending], None]) -> Path:
    """Train to the end, from a checkpoint where there is one, and return the folder of the trained model.

    Args:
        trainer: a `checkpoints.CheckpointedTrainer`.
        out: the run's folder.
        checkpoint: the newest whole one; of the last step, where only the trained model is missing.
        say: takes what became of the run; called on the main process.

    Raises:
        TrainingError: training cannot go on; a checkpoint of what was reached is saved.
    """
    main = trainer.accelerator.is_main_process
    if checkpoint is not None and checkpoint.step >= trainer.planned_steps:
        if main:
            copy_model(checkpoint.path, out / FINAL)
            say("complete")
        trainer.accelerator.wait_for_everyone()
        return out / FINAL
    try:
        # Trackers print where they please, and stdout carries the answer of a command.
        with redirect_stdout(sys.stderr):
            trainer.train(resume_from_checkpoint=str(checkpoint.path) if checkpoint else None)
    except TrainingError as error:
        if isinstance(error, OneProcessError) and trainer.accelerator.num_processes > 1:
            raise
        trainer._save_checkpoint(trainer.model, trial=None)
        if main:
            say("incomplete")
        # The launcher ends them all when the first has left, which must not be before it is written.
        trainer.accelerator.wait_for_everyone()
        saved = out / f"checkpoint-{trainer.state.global_step}"
        raise TrainingError(f"{error}; what was reached is in {saved}") from error
    trainer.save_model(str(out / FINAL))
    trainer.save_state()
    if main:
        say("complete")
    trainer.accelerator.wait_for_everyone()
    return out / FINAL


def open_model(recipe: Training, out: Path) -> Front:
    """Return the model of a recipe as far as it is known without its weights; the built-in one is made in `out`.

    Raises:
        UsageError: it is an adapter or a GGUF file.
        EngineError: it cannot be read.
    """
    model = recipe.model
    if model == REFERENCE:
        from ahabench.trainer.reference import make_reference

        steps = {} if recipe.reference_steps is None else {"steps": recipe.reference_steps}
        if not (out / BASE).exists():
            # It has its name once it is whole, so that a resumed run need not make it again.
            partial = make_reference(out / f"{BASE}.partial", seed=recipe.seed, progress=note, **steps)
            partial.rename(out / BASE)
        model = str(out / BASE)
    checkpoint = replace(find_checkpoint(model), name=recipe.model)
    if checkpoint.kind is not Kind.MODEL:
        raise UsageError(
            f"{recipe.model} is no whole checkpoint ({checkpoint.kind}), and training starts from one; merge an "
            "adapter into its base with peft's merge_and_unload, save model and processor, and give that folder"
        )
    config = read_config(checkpoint, trust_remote_code=recipe.trust_remote_code)
    images = takes_images(config)
    processor = load_front(checkpoint, images=images, trust_remote_code=recipe.trust_remote_code)
    pixels = None
    if images:
        pixels = limit_pixels(processor, recipe.model, min_pixels=recipe.min_pixels, max_pixels=recipe.max_pixels)
    return Front(checkpoint, processor, config, pixels)


def lora_config(recipe: Training) -> Any:
    """Return PEFT's settings for a recipe, `None` for full training."""
    if recipe.lora is None:
        return None
    from peft import LoraConfig

    asked = recipe.lora
    modules = asked.target_modules if isinstance(asked.target_modules, str) else list(asked.target_modules)
    return LoraConfig(r=asked.rank, lora_alpha=asked.alpha, lora_dropout=asked.dropout, target_modules=modules)


def _claim(out: Path) -> None:
    """Make a run's folder.

    Raises:
        UsageError: it is there and not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out {out} is not empty; give a new folder")
    out.mkdir(parents=True, exist_ok=True)
