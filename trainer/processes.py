"""The processes of a launch: what each computes on, how they are joined, and what one of them alone may say.

`accelerate launch` and `torchrun` start one command several times. accelerate joins those processes where there is an
accelerator; on CPUs (through gloo) it wants to be told, or each would train a run of its own in the same folder.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from ahabench.harness.errors import AhabenchError, TrainingError, UsageError
from ahabench.harness.report import note

WAIT = timedelta(hours=12)
"""How long a process waits for the others: one alone evaluates benchmarks. A dead one ends them all at once."""


class SharedFailure(AhabenchError):
    """A process has failed where all of them hear of it, so they can still save together what was reached."""


class OneProcessError(TrainingError):
    """One process cannot go on and the others do not know of it, so nothing can be done together any more."""


def is_main() -> bool:
    """Return whether this is the process that writes and speaks for all; one that was not launched is."""
    return os.environ.get("RANK", "0") == "0"


def note_once(text: str) -> None:
    """Print one line on stderr, of all processes once."""
    if is_main():
        note(text)


@contextmanager
def speaking_once() -> Iterator[None]:
    """Leave it to the first process to speak of an error that all have heard of; the others end with its exit code."""
    try:
        yield
    except TrainingError as error:
        if is_main() or isinstance(error, OneProcessError):
            raise
        raise SystemExit(error.exit_code) from None


def join() -> Any:
    """Return accelerate's `PartialState`, with the processes of this launch joined.

    Raises:
        UsageError: FSDP was asked for where accelerate has none, which is on CPUs: it would train whole copies instead.
    """
    from accelerate import PartialState

    if PartialState._shared_state == {}:
        _warn_of_one()
        PartialState(cpu=_plain_cpu(), backend=_backend(), timeout=WAIT)
    state = PartialState()
    if _asked("FSDP") and state.num_processes == 1:
        raise UsageError(
            "FSDP was asked for, and there is no accelerator, or only one process: accelerate would train whole "
            "copies instead. Take another accelerate file, such as ddp.yaml or cpu.yaml"
        )
    return state


def settings(*, bf16: bool) -> dict[str, Any]:
    """Return what `TrainingArguments` must be told of the processes.

    Args:
        bf16: whether the recipe asks for mixed precision.

    Raises:
        UsageError: the launch asks for another precision than the recipe, and would have its way unseen.
    """
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if launched not in {"no", "bf16" if bf16 else "no"}:
        raise UsageError(
            f"the launch asks for mixed_precision {launched}, the recipe for {'bf16' if bf16 else 'none'}; give "
            f"accelerate launch --mixed_precision {'bf16' if bf16 else 'no'}, or another bf16 in the recipe"
        )
    return {"use_cpu": _plain_cpu(), "ddp_backend": _backend(), "ddp_timeout": int(WAIT.total_seconds())}


def _asked(what: str) -> bool:
    """Return whether the launch asks for something, by one of accelerate's variables."""
    return os.environ.get(f"ACCELERATE_USE_{what}", "false").lower() in {"1", "true", "yes", "y", "on", "t"}


def _on_cpu() -> bool:
    import torch

    return _asked("CPU") or not torch.accelerator.is_available()


def _plain_cpu() -> bool:
    """Return whether accelerate is to be told of the CPU; told so, it would forget DeepSpeed and FSDP (1.15)."""
    return _on_cpu() and not _asked("DEEPSPEED") and not _asked("FSDP")


def _backend() -> str | None:
    """Return how the processes talk where accelerate does not find out: under DeepSpeed on CPUs (1.15)."""
    return "gloo" if _on_cpu() and _asked("DEEPSPEED") else None


def _warn_of_one() -> None:
    # What accelerate sets for several processes, without what those have; mpirun's have it in their own variables.
    several = "MASTER_PORT" in os.environ and "ACCELERATE_MIXED_PRECISION" in os.environ
    if several and not any(name in os.environ for name in ("RANK", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE")):
        note(
            "warning: accelerate was asked for several processes and has started this one alone, as it does with --cpu "
            "or without GPUs (1.15); give --config_file .../recipes/accelerate/cpu.yaml, or --multi_gpu"
        )
