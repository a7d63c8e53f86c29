"""Models of the Hugging Face hub, as folders on this machine."""

from pathlib import Path
from typing import cast

from ahabench.harness.errors import EngineError

# What loading reads. Optimiser states, ONNX exports and original/ copies stay on the hub.
_SETTINGS = ["*.json", "*.jinja", "*.model", "*.tiktoken", "*.txt", "*.py"]
_SAFE = ["model*.safetensors", "adapter_model.safetensors"]
_BINS = ["pytorch_model*.bin", "adapter_model.bin"]
_NOT = ["*/*"]


def fetch_model(name: str, revision: str | None) -> tuple[Path, str]:
    """Return the folder and the commit of a model, downloaded, or found in the local cache if the hub is out of reach.

    Args:
        name: "owner/name".
        revision: a branch, tag or commit; the default branch if `None`.

    Raises:
        EngineError: the hub has no such model, or cannot be reached and the cache has none.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    # The bases are OSError and the error of whichever HTTP library this release of the hub's client stands on.
    refusals = cast(tuple[type[Exception], ...], (*HfHubHTTPError.__bases__, HFValidationError))
    try:
        folder = _snapshot(name, revision, _SETTINGS + _SAFE)
        if not any(folder.glob("*.safetensors")):
            _snapshot(name, folder.name, _BINS)
    except LocalEntryNotFoundError as error:
        raise EngineError(
            f"{name} is no folder here, and the hub cannot be reached for it; check the path, or the connection"
        ) from error
    except refusals as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise EngineError(f"{name} is no folder here, and the hub refuses it: {first_line}") from error
    return folder, folder.name


def _snapshot(name: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=_NOT))
