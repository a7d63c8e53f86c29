"""How every training begins and ends: its folder is claimed and compared, and what was reached is saved."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Literal, TypeVar

from ahabench.harness.disk import locked, replace_file
from ahabench.harness.errors import DatasetError, TrainingError, UsageError
from ahabench.trainer.base_model import Front, open_model
from ahabench.trainer.processes import OneProcessError, join, note_once
from ahabench.trainer.recipe import Training
from ahabench.trainer.recipe_files import dump_recipe
from ahabench.trainer.run_folder import LOG, Found, check_recipe, copy_model
from ahabench.trainer.trackers import check_trackers
from ahabench.trainer.training_page import write_page
from ahabench.trainer.trl_settings import accumulation

FINAL = "final"
"""The folder of the trained model in a run's."""
RECIPE = "recipe.yaml"
"""The file of the recipe in a run's folder, with all its values."""

Ending = Literal["complete", "incomplete"]
_Data = TypeVar("_Data")


@contextmanager
def claimed(recipe: Training, out: Path, *, resume: bool) -> Iterator[bool]:
    """Hold a run's folder against other runs; the value is whether a run stands there that goes on.

    Args:
        recipe: of the run.
        out: the folder, new or empty unless the run in it goes on.
        resume: whether a run in it may go on; where there is none, it begins.

    Raises:
        UsageError: the folder is not empty, or holds a run of another recipe, or another process has it; or a tracker
            of the recipe's is not installed.
    """
    check_trackers(recipe.report_to)
    processes = join()
    begun = resume and (out / RECIPE).is_file()
    with ExitStack() as stack:
        if processes.is_main_process:
            if not begun:
                _claim(out)
            stack.enter_context(locked(out))
        # Nothing was written yet, so every process has found the same.
        processes.wait_for_everyone()
        if begun:
            check_recipe(recipe, out / RECIPE)
        yield begun


def is_complete(out: Path, status: str | None) -> bool:
    """Return whether an earlier call has ended the run, which is said on stderr.

    Args:
        out: the run's folder.
        status: what that call wrote; `None` where there was none.
    """
    if status != "complete":
        return False
    note_once(f"{out} is complete; nothing is left to do")
    return True


def opened(
    recipe: Training, out: Path, read: Callable[[], _Data], check: Callable[[Front], None] | None = None
) -> tuple[_Data, Front]:
    """Return the data and the model of a recipe, which is written beside them.

    The first process reads before the others, so that what is wrong is said once.

    Args:
        recipe: of the run.
        out: the run's folder.
        read: returns the data.
        check: what must hold of the model besides.

    Raises:
        AhabenchError: as `read`, `base_model.open_model`, `check` and `trl_settings.accumulation`.
    """
    processes = join()
    with processes.main_process_first():
        accumulation(recipe, processes.num_processes)
        data = read()
        if processes.is_main_process:
            replace_file(out / RECIPE, [dump_recipe(recipe).encode()])
        front = open_model(recipe, out)
        if check is not None:
            check(front)
    return data, front


def check_weights(recipe: Training, out: Path, *, begun_with: str | None, now: str | None) -> None:
    """Compare the digests of the weights that a run was begun with and would go on from.

    Raises:
        UsageError: they differ.
    """
    if begun_with not in {None, now}:
        raise UsageError(f"{out} was begun with other weights of {recipe.model}; its run cannot go on")


def carry_out(trainer: Any, out: Path, checkpoint: Found | None, say: Callable[[Ending], None]) -> Path:
    """Train to the end, from a checkpoint where there is one, and return the folder of the trained model.

    Args:
        trainer: a `checkpoints.CheckpointedTrainer`.
        out: the run's folder.
        checkpoint: the newest whole one; of the last step, where only the trained model is missing.
        say: writes what became of the run; called on the main process, before the report is written.

    Raises:
        TrainingError: training cannot go on; a checkpoint of what was reached is saved.
        DatasetError: an image cannot be decoded, on one process of several, which can save nothing together.
    """
    main = trainer.accelerator.is_main_process
    if checkpoint is not None and checkpoint.step >= trainer.planned_steps:
        if main:
            copy_model(checkpoint.path, out / FINAL)
            _tell(out, say, "complete")
        trainer.accelerator.wait_for_everyone()
        return out / FINAL
    try:
        # Trackers print where they please, and stdout carries the answer of a command.
        with redirect_stdout(sys.stderr):
            trainer.train(resume_from_checkpoint=str(checkpoint.path) if checkpoint else None)
    except (TrainingError, DatasetError) as error:
        # An image is decoded when it is drawn, by one process of several.
        alone = isinstance(error, OneProcessError | DatasetError)
        if alone and trainer.accelerator.num_processes > 1:
            raise
        trainer._save_checkpoint(trainer.model, trial=None)
        if main:
            _tell(out, say, "incomplete")
        # The launcher ends them all when the first has left, which must not be before it is written.
        trainer.accelerator.wait_for_everyone()
        saved = out / f"checkpoint-{trainer.state.global_step}"
        then = "; mend it and give --resume" if isinstance(error, DatasetError) else ""
        raise TrainingError(f"{error}{then}; what was reached is in {saved}") from error
    trainer.save_model(str(out / FINAL))
    trainer.save_state()
    if main:
        _tell(out, say, "complete")
    trainer.accelerator.wait_for_everyone()
    return out / FINAL


def _tell(out: Path, say: Callable[[Ending], None], status: Ending) -> None:
    """Say what became of a run, and write its report."""
    say(status)
    # There is no log of a run that was stopped by its first step.
    if (out / LOG).is_file():
        write_page(out)


def _claim(out: Path) -> None:
    """Make a run's folder.

    Raises:
        UsageError: it is there and not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out {out} is not empty; give a new folder")
    out.mkdir(parents=True, exist_ok=True)
