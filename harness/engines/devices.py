"""What a model runs on: device, number format, threads, memory."""

import os
from typing import Any

from ahabench.harness.errors import EngineError, unknown_name

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "failed to allocate")


def find_device(name: str) -> str:
    """Return the name of torch's device, the accelerator that is there for "auto".

    Raises:
        EngineError: it is not there.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        # Asks the driver, so that a device that is not there is an error now.
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise EngineError(f"the device {name!r} cannot be used: {str(error).splitlines()[0]}") from error
    return name


def find_dtype(name: str, config: Any, device: str) -> Any:
    """Return torch's dtype; for "auto" the checkpoint's own, but float32 on a CPU.

    On a CPU, because float16 is slow or missing there and bfloat16 lets the padding of a batch decide more tokens.

    Raises:
        UsageError: there is no such dtype.
    """
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name == "auto":
        own = getattr(config, "dtype", None)
        return own if device != "cpu" and own in known.values() else torch.float32
    if name not in known:
        raise unknown_name("dtype", name, ["auto", *known])
    return known[name]


def use_free_cores() -> None:
    """Let torch use no more threads than there are idle cores for, unless OMP_NUM_THREADS says how many.

    A thread that has to share its core makes the others wait: on two busy cores a 135 M model wrote 11 tokens/s with
    two threads and 61 with one.
    """
    import torch

    if "OMP_NUM_THREADS" in os.environ or not hasattr(os, "sched_getaffinity"):
        return
    idle = len(os.sched_getaffinity(0)) - int(os.getloadavg()[0])
    torch.set_num_threads(max(1, min(idle, torch.get_num_threads())))


def is_memory(error: Exception) -> bool:
    """Return whether a device or the machine ran out of memory, which torch reports in several ways."""
    text = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and any(words in text for words in _OUT_OF_MEMORY))
    )
