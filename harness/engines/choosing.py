"""Which engine `auto` is."""

import importlib.util
import re
from dataclasses import dataclass

from ahabench.harness.checkpoint import Kind, find_checkpoint
from ahabench.harness.errors import EngineError

_URL = re.compile(r"https?://\S+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine, and why it is this one."""

    engine: str
    """"openai", "vllm" or "transformers"."""
    why: str


def choose(model: str, *, device: str, revision: str | None, trust_remote_code: bool) -> Choice:
    """Return the engine for a model: a server's URL, a checkpoint that vLLM runs here, or any other checkpoint.

    No weights are loaded: vLLM is asked for its device and for the architectures that it has.

    Args:
        model: as `--engine` and MODEL give it.
        device: "auto", or a name of torch's: only transformers can be told where to run.
        revision: of a model on the hub.
        trust_remote_code: whether the checkpoint's own code may run.

    Raises:
        EngineError: the checkpoint cannot be used by any engine.
    """
    if _URL.fullmatch(model):
        return Choice("openai", "MODEL is a URL")
    if device != "auto":
        return Choice("transformers", f"it can be told to run on {device}")
    if importlib.util.find_spec("vllm") is None:
        return Choice("transformers", "vLLM is not installed")
    checkpoint = find_checkpoint(model, revision=revision)
    if checkpoint.kind is Kind.GGUF:
        return Choice("transformers", "vLLM is not given .gguf files")
    from ahabench.harness.engines.loading import read_config
    from ahabench.harness.engines.vllm import check_kind, supported_architecture, vllm_device

    config = read_config(checkpoint, trust_remote_code=trust_remote_code)
    names = [str(name) for name in getattr(config, "architectures", None) or []]
    try:
        check_kind(checkpoint, config)
        kind = vllm_device()
        supported = supported_architecture(names)
    except EngineError as error:
        return Choice("transformers", str(error))
    shown = ", ".join(names) or "a model that does not name its architecture"
    if not supported:
        return Choice("transformers", f"vLLM has no {shown}")
    return Choice("vllm", f"vLLM has {shown} and runs on {kind}")
