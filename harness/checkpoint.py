"""Checkpoints: where one stands, what kind it is, and a digest of its weights."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from ahabench.harness.errors import EngineError

WHOLE_BELOW = 16 * 2**20
"""Bytes up to which a weight file is hashed whole; of a larger one the header and `BLOCKS` blocks are."""
BLOCKS = 256
BLOCK = 64 * 2**10
"""Bytes of a sampled block."""

_MAX_HEADER = 128 * 2**20  # more than safetensors itself allows
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_ADAPTER_CONFIG = "adapter_config.json"
# Everything beside the weights that changes what a model is asked or answers; not READMEs or optimiser states.
_SETTINGS = (
    "config.json",
    "generation_config.json",
    _ADAPTER_CONFIG,
    "*processor_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template.*",
    "*.model",
    "*.tiktoken",
    "*.py",
)
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


class Kind(StrEnum):
    """How a checkpoint is stored."""

    MODEL = "model"
    """A folder with config.json and weights."""
    ADAPTER = "adapter"
    """A folder of PEFT's with adapter_config.json, which names its base."""
    GGUF = "gguf"
    """One file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint on this machine."""

    name: str
    """As the user gave it."""
    path: Path
    """The folder, or the file of `Kind.GGUF`."""
    kind: Kind
    revision: str | None = None
    """The commit, where it came from the hub."""
    base: "Checkpoint | None" = None
    """What an adapter sits on."""
    adapter_type: str = ""
    """PEFT's name for the adapter's kind, in lower case, such as "lora"."""

    @property
    def adapter(self) -> str:
        """How the manifest names the adapter: "lora on org/base", or "" for a whole checkpoint."""
        return f"{self.adapter_type} on {self.base.name}" if self.base is not None else ""


def find_checkpoint(model: str, *, revision: str | None = None) -> Checkpoint:
    """Return a checkpoint that can be loaded, fetched from the hub if the name is no path.

    Args:
        model: a folder, a .gguf file, or a name on the hub.
        revision: a branch, tag or commit, for a name on the hub.

    Raises:
        EngineError: there is no such thing, or something that a checkpoint needs is missing from it.
    """
    folder, commit = _locate(model, revision)
    if folder.is_file():
        return Checkpoint(name=model, path=folder, kind=Kind.GGUF)
    if (folder / _ADAPTER_CONFIG).is_file():
        return _adapter(model, folder, commit)
    return _whole(model, folder, commit)


def weights_digest(model: Checkpoint | str | Path) -> str:
    """Return a digest that tells checkpoints apart, wherever they stand.

    "commit:<40 hex>" for a model from the hub; otherwise "sha256:<64 hex>" over the names, sizes, headers and contents
    of the weight files (contents sampled above `WHOLE_BELOW` bytes) and over the settings that change answers: config,
    tokenizer, chat template, processor, adapter, remote code. An adapter's digest covers its base.

    Raises:
        EngineError: it is no checkpoint, or cannot be read.
    """
    checkpoint = model if isinstance(model, Checkpoint) else find_checkpoint(str(model))
    if checkpoint.revision is not None and checkpoint.base is None:
        return f"commit:{checkpoint.revision}"
    sha = hashlib.sha256()
    try:
        for name, content in _parts(checkpoint):
            sha.update(f"{len(name)}:{name}:{content}\n".encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise EngineError(f"checkpoint {checkpoint.name} cannot be read: {error}") from error
    return f"sha256:{sha.hexdigest()}"


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold a folder's weights, shards in the order of their names; none if there are none.

    Where several formats stand side by side it is the one that transformers loads.

    Raises:
        EngineError: an index is damaged or names a shard that is not there.
    """
    for name in _ADAPTER_WEIGHTS if (folder / _ADAPTER_CONFIG).is_file() else _WEIGHTS:
        path = folder / name
        if not path.is_file():
            continue
        if not name.endswith(".index.json"):
            return [path]
        return _shards(path)
    return []


def _locate(model: str, revision: str | None) -> tuple[Path, str | None]:
    """Return the folder or .gguf file, and the commit if the hub has it."""
    path = Path(os.path.expanduser(model))  # unlike Path.expanduser, leaves an unknown user's home as it is
    try:
        exists = bool(model) and path.exists()
    except OSError:
        exists = False
    if exists:
        if path.is_file() and path.suffix.lower() != ".gguf":
            raise EngineError(f"{model} is a file, but no .gguf file; give the checkpoint's folder")
        if revision is not None:
            raise EngineError(f"{model} stands on this machine and has no revision {revision!r}; give one or the other")
        if not os.access(path, os.R_OK):
            raise EngineError(f"{model} cannot be read: permission denied")
        return path, None
    if not _HUB_NAME.fullmatch(model):
        raise EngineError(f"there is no checkpoint at {model}; give a folder, a .gguf file, or a name on the hub")
    from ahabench.harness.hub import fetch_model

    return fetch_model(model, revision)


def _whole(name: str, folder: Path, commit: str | None) -> Checkpoint:
    if not (folder / "config.json").is_file() or not weight_files(folder):
        raise EngineError(_what_is_missing(name, folder))
    return Checkpoint(name=name, path=folder, kind=Kind.MODEL, revision=commit)


def _adapter(name: str, folder: Path, commit: str | None) -> Checkpoint:
    if not any((folder / weights).is_file() for weights in _ADAPTER_WEIGHTS):
        raise EngineError(f"{name} is an adapter without weights: it lacks {_ADAPTER_WEIGHTS[0]}")
    config = _read_json(folder / _ADAPTER_CONFIG)
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(base, str) or not base:
        raise EngineError(f"{folder / _ADAPTER_CONFIG} names no base_model_name_or_path; add the base checkpoint there")
    # A base that stands beside the adapter moves with it; otherwise it is what PEFT takes it for.
    where = str(folder / base) if (folder / base).is_dir() else base
    # PEFT writes a "revision" even where the base was a folder.
    commit_of_base = revision if isinstance(revision, str) and not Path(where).exists() else None
    try:
        found, base_commit = _locate(where, commit_of_base)
        if (found / _ADAPTER_CONFIG).is_file() or found.is_file():
            raise EngineError(f"{base} is itself an adapter or a .gguf file; merge it into a whole checkpoint first")
        whole = _whole(base, found, base_commit)
    except EngineError as error:
        raise EngineError(f"the base of adapter {name} cannot be used: {error}") from error
    return Checkpoint(
        name=name,
        path=folder,
        kind=Kind.ADAPTER,
        revision=commit,
        base=whole,
        adapter_type=str(config.get("peft_type") or "adapter").lower(),
    )


def _what_is_missing(name: str, folder: Path) -> str:
    """Say why a folder is no checkpoint, and what to do."""
    lacks = [] if (folder / "config.json").is_file() else ["config.json"]
    lacks += [] if weight_files(folder) else ["weights (model.safetensors or its shards)"]
    what = f"{name} is no checkpoint: it lacks {' and '.join(lacks)}."
    if (folder / "zero_to_fp32.py").is_file() or any(folder.glob("global_step*")):
        out = f"{name.rstrip('/')}-merged"
        return (
            f"{what} It holds DeepSpeed shards; convert them with `python -m deepspeed.utils.zero_to_fp32 {name} {out} "
            f"--safe_serialization`, copy config and tokenizer files to {out}, and give that."
        )
    sharded = sorted({path.parent for pattern in ("*.distcp", "*/*.distcp") for path in folder.glob(pattern)})
    if sharded:
        out = f"{name.rstrip('/')}-merged"
        return (
            f"{what} It holds FSDP shards; convert them with `accelerate merge-weights {sharded[0]} {out}`, "
            f"copy config and tokenizer files to {out}, and give that."
        )
    if files := sorted(folder.glob("*.gguf")):
        return f"{what} Give the file itself: {files[0]}"
    if inner := _newest_checkpoint(folder):
        return f"{what} Give a checkpoint inside it, such as {inner}"
    return f"{what} Give a folder written by save_pretrained, a .gguf file, or a name on the hub."


def _newest_checkpoint(folder: Path) -> Path | None:
    steps = [
        (int(path.name.rpartition("-")[2]), path)
        for path in folder.glob("checkpoint-*")
        if re.fullmatch(r"checkpoint-[0-9]{1,12}", path.name) and (path / "config.json").is_file()
    ]
    return max(steps)[1] if steps else None


def _shards(index: Path) -> list[Path]:
    weight_map = _read_json(index).get("weight_map")
    names = set(weight_map.values()) if isinstance(weight_map, dict) else set()
    if not names or not all(isinstance(name, str) and name == Path(name).name for name in names):
        raise EngineError(f"{index} is damaged: it has no weight_map of file names")
    shards = [index.parent / name for name in sorted(names)]
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise EngineError(f"{index.parent} lacks {len(missing)} of {len(shards)} weight files, such as {missing[0]}")
    return shards


def _parts(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """Yield what the digest covers: (name, content's digest)."""
    if checkpoint.kind is Kind.GGUF:
        yield "gguf", _weights(checkpoint.path)
        return
    for path in weight_files(checkpoint.path):
        yield path.name, _weights(path)
    for path in sorted({path for pattern in _SETTINGS for path in checkpoint.path.glob(pattern) if path.is_file()}):
        yield path.name, _settings(path)
    if checkpoint.base is not None:
        yield "base", weights_digest(checkpoint.base)


def _settings(path: Path) -> str:
    data = path.read_bytes()
    if path.name == _ADAPTER_CONFIG:
        # The base counts by its content, not by where it stands on this machine.
        config = {key: value for key, value in _read_json(path).items() if key != "base_model_name_or_path"}
        data = json.dumps(config, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()


def _weights(path: Path) -> str:
    """Return the digest of a weight file: of all of it, or of its size, header and evenly spaced blocks."""
    size = path.stat().st_size
    sha = hashlib.sha256(f"{size}\n".encode())
    with path.open("rb") as file:
        if size <= WHOLE_BELOW:
            while block := file.read(2**20):
                sha.update(block)
            return sha.hexdigest()
        if path.suffix == ".safetensors":
            length = int.from_bytes(file.read(8), "little")
            sha.update(file.read(min(length, _MAX_HEADER)))
        for number in range(BLOCKS):
            file.seek(number * (size - BLOCK) // (BLOCKS - 1))
            sha.update(file.read(BLOCK))
    return sha.hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise EngineError(f"{path} is damaged: {error}") from error
    if not isinstance(data, dict):
        raise EngineError(f"{path} is damaged: it holds no object")
    return data
