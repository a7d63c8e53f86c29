"""What a run's folder says about going on: which checkpoints are whole, and what must be done again.

Nothing here needs the model; `trainer.checkpoints` writes and reads the checkpoints themselves.
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from ahabench.harness.disk import refusals, replace_file
from ahabench.harness.errors import UsageError
from ahabench.harness.runlog import RESPONSES, VERDICTS
from ahabench.trainer.processes import note_once
from ahabench.trainer.recipe import RewardModel, Training
from ahabench.trainer.recipe_files import load_as
from ahabench.trainer.vllm_settings import MOVABLE

LOG = "log.jsonl"
"""One object per logged step, in the run's folder; that of step 0 is the untrained model's first rollout."""
ITEMS = "items.jsonl"
"""What was asked and expected, beside the rollouts: one object per item, with the step that drew it first."""
MARK = "resume.json"
PREFIX = "checkpoint-"
EVALUATIONS = "evaluations"
STEP = "step-"
FREE = frozenset(
    {"data", "images", "keep_checkpoints", "model", "probe_prompts", "probe_tokens", "report_to", "save_steps", "watch"}
    | MOVABLE
)
"""Settings that may differ in a run that goes on: they change no update. Paths may; what they lead to is compared."""
FREE_OF_REWARD_MODEL = {"url", "timeout_s", "max_failures", "failure_window"}
"""The same of `reward_model`."""
_TRAINING_ONLY = (
    "optimizer*",
    "scheduler*",
    "scaler*",
    "rng_state*",
    "trainer_state*",
    "training_args*",
    "rollout-*",
    # DeepSpeed's and FSDP's own copies.
    "global_step*",
    "latest",
    "zero_to_*.py",
    "pytorch_model_fsdp*",
    MARK,
)


class Mark(BaseModel):
    """What a whole checkpoint says of itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    step: int
    """Optimiser steps that were made."""
    processes: int
    data_sha256: str
    """Of the training items, in their order."""
    in_rollout: bool
    """Whether a part of a rollout is still to be trained on."""
    has_signal: bool
    """Whether a group of the current epoch had two different rewards."""
    files: dict[str, int]
    """Sizes in bytes, by path in the checkpoint."""


class Found(NamedTuple):
    """A whole checkpoint."""

    path: Path
    step: int


def check_recipe(recipe: Training, file: Path) -> None:
    """Compare a recipe with the one that a run was begun with.

    Raises:
        UsageError: a setting differs that would make it another run.
    """
    begun = load_as(type(recipe), file)
    for name in type(recipe).model_fields:
        if name not in FREE and _binding(begun, name) != _binding(recipe, name):
            raise UsageError(
                f"{file.parent} was begun with {name} = {getattr(begun, name)!r}, found {getattr(recipe, name)!r}; "
                f"give {file} as the recipe, or a new --out"
            )


def _binding(recipe: Training, name: str) -> object:
    """Return a setting without what may change: a reward model may have moved, and be waited for longer."""
    value = getattr(recipe, name)
    return value.model_dump(exclude=FREE_OF_REWARD_MODEL) if isinstance(value, RewardModel) else value


def newest(run: Path) -> Found | None:
    """Return the newest whole checkpoint of a run, and say on stderr from where it goes on."""
    whole = whole_checkpoints(run)
    if not whole:
        note_once(f"{run} holds no whole checkpoint; begin from the start")
        return None
    mark = read_mark(whole[-1])
    assert mark is not None, "it was whole a moment ago"
    note_once(f"go on from {whole[-1]}")
    return Found(whole[-1], mark.step)


def rewind_run(run: Path, checkpoint: Found | None, rollouts: str | None = None) -> None:
    """Take out of a run's files what was written after a checkpoint, all of it if `None`: it will come again.

    Raises:
        UsageError: the disk refuses.
    """
    step = checkpoint.step if checkpoint else 0
    if rollouts is not None:
        rewind(run / rollouts, [RESPONSES, VERDICTS, ITEMS], before=step)
    # The log's row of a step is written after its update, a rollout's rows before.
    rewind(run, [LOG], before=step + 1 if checkpoint else 0)
    for evaluation in (run / EVALUATIONS).glob(f"{STEP}*"):
        if checkpoint is None or int(evaluation.name.removeprefix(STEP)) > step:
            shutil.rmtree(evaluation)


def read_mark(checkpoint: Path) -> Mark | None:
    """Return what a checkpoint says of itself; `None` where it is not whole: no mark, or a file is not as it says."""
    try:
        mark = Mark.model_validate_json((checkpoint / MARK).read_bytes())
        whole = all((checkpoint / name).stat().st_size == size for name, size in mark.files.items())
    except (OSError, ValidationError):
        return None
    return mark if whole else None


def whole_checkpoints(run: Path) -> list[Path]:
    """Return the whole checkpoints of a run, the newest last."""
    found = [(mark.step, path) for path in run.glob(f"{PREFIX}*") if (mark := read_mark(path)) is not None]
    return [path for _, path in sorted(found)]


def copy_model(checkpoint: Path, out: Path) -> None:
    """Copy the model of a checkpoint, without what only training needs."""
    with refusals(out):
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(checkpoint, out, ignore=shutil.ignore_patterns(*_TRAINING_ONLY))


def rewind(folder: Path, files: Iterable[str], *, before: int) -> None:
    """Take the rows of steps from `before` on out of JSONL files; a torn last line goes too.

    Raises:
        UsageError: the disk refuses.
    """
    for name in files:
        path = folder / name
        if path.is_file():
            replace_file(path, _rows_before(path, before))


def _rows_before(path: Path, before: int) -> Iterator[bytes]:
    with path.open("rb") as lines:
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if line.endswith(b"\n") and row["step"] < before:
                yield line
