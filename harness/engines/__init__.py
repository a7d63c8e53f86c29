"""One file per engine; every heavy import stands inside the class that needs it."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypedDict

from ahabench.harness.engines.options import Options, read_options
from ahabench.harness.errors import UsageError, unknown_name
from ahabench.harness.manifest import EngineRecord, ModelRecord, PixelsRecord, SamplingRecord
from ahabench.harness.sampling import Sampling
from ahabench.harness.types import Engine

ENGINES = ("auto", "transformers", "vllm", "openai:URL", "lmms-eval:ADAPTER", "replay:PATH")
"""What `open_engine` knows; a colon says that the name takes an argument."""

_ARGUMENTS = {
    "replay": "a run directory or a file: replay:PATH",
    "openai": "the base URL of a server: openai:http://HOST:PORT/v1",
    "lmms-eval": "the name of a model adapter: lmms-eval:qwen2_5_vl",
}
# An engine's own name for a flag.
_ALIAS = {"vllm": {"batch_size": "max_num_seqs"}, "openai": {"batch_size": "concurrency"}}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What an engine's responses are made with, as the manifest records it."""

    model: ModelRecord
    engine: EngineRecord
    sampling: SamplingRecord
    pixels: PixelsRecord


class OpenEngine(Engine, Protocol):
    """An engine that can say what it is before it generates."""

    @property
    def info(self) -> EngineInfo:
        """What its responses are made with."""
        ...


class _Drawn(TypedDict):
    """What every engine that generates is told."""

    sampling: Sampling
    min_pixels: int | None
    max_pixels: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What an engine is opened with."""

    name: str
    model: str
    drawn: _Drawn
    given: Mapping[str, str]
    flags: Mapping[str, str]

    def options(self, kind: type[Options]) -> Options:
        """Return the engine's own options; raises `UsageError` as `read_options`."""
        return read_options(kind, self.name, self.given, self.flags, _ALIAS.get(self.name, {}))


def open_engine(
    spec: str,
    model: str,
    *,
    sampling: Sampling,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    options: Mapping[str, str] | None = None,
    batch_size: int | None = None,
    dtype: str = "auto",
    device: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    text_only: bool | None = None,
) -> OpenEngine:
    """Return an engine that is ready to say what it is; a model's weights are loaded by its first generation.

    Args:
        spec: a name of `ENGINES`, with its argument after a colon. "auto" is a server where MODEL is a URL, vLLM where
            it is installed and has the checkpoint's architecture and a device, and transformers otherwise; one line on
            stderr says which and why.
        model: the checkpoint; the served model's name, "" for the only one; a name for the manifest where recorded
            responses do not say whose they are.
        sampling: how to draw; a replay has been drawn already and ignores it, as it does all that follows.
        min_pixels: as `TransformersEngine`.
        max_pixels: as `TransformersEngine`.
        options: the engine's own, by name: the fields of its options model.
        batch_size: most requests at once, under the engine's own name for it.
        dtype: as `TransformersEngine`.
        device: as `TransformersEngine`.
        revision: as `TransformersEngine`.
        trust_remote_code: as `TransformersEngine`.
        text_only: as `TransformersEngine`.

    Raises:
        UsageError: there is no such engine, its argument is missing or too many, it does not know an option, or a
            recording cannot be read.
        EngineError: the checkpoint or the server cannot be used.
    """
    name, argument = _read_spec(spec)
    if name == "auto":
        from ahabench.harness.engines.choosing import choose

        choice = choose(model, device=device, revision=revision, trust_remote_code=trust_remote_code)
        _log.warning("engine %s: %s", choice.engine, choice.why)
        name = choice.engine
        if name == "openai":
            argument, model = model, ""
    flags = {
        "batch_size": str(batch_size) if batch_size is not None else None,
        "dtype": dtype if dtype != "auto" else None,
        "device": device if device != "auto" else None,
        "revision": revision,
        "trust_remote_code": "true" if trust_remote_code else None,
        "text_only": str(text_only).lower() if text_only is not None else None,
    }
    asked = _Asked(
        name=name,
        model=model,
        drawn={"sampling": sampling, "min_pixels": min_pixels, "max_pixels": max_pixels},
        given=options or {},
        flags={flag: value for flag, value in flags.items() if value is not None},
    )
    return _open(asked, argument)


def _read_spec(spec: str) -> tuple[str, str]:
    """Return an engine's name and its argument, which may be empty; raises `UsageError` where they do not fit."""
    name, colon, argument = spec.partition(":")
    if name not in {known.partition(":")[0] for known in ENGINES}:
        raise unknown_name("engine", name, list(ENGINES))
    if name in _ARGUMENTS and not argument:
        raise UsageError(f"the engine {name!r} wants {_ARGUMENTS[name]}")
    if name not in _ARGUMENTS and colon:
        raise UsageError(f"the engine {name!r} takes no argument, found {argument!r}")
    return name, argument


def _open(asked: _Asked, argument: str) -> OpenEngine:
    match asked.name:
        case "replay":
            if asked.given:
                raise UsageError(f"the engine 'replay' takes no --engine-arg, found {next(iter(asked.given))!r}")
            from ahabench.harness.engines.replay import ReplayEngine

            return ReplayEngine(Path(argument), model=asked.model)
        case "vllm":
            from ahabench.harness.engines.vllm import VllmEngine, VllmOptions

            return VllmEngine(asked.model, options=asked.options(VllmOptions), **asked.drawn)
        case "openai":
            from ahabench.harness.engines.openai import OpenAIEngine, OpenAIOptions

            return OpenAIEngine(argument, asked.model, options=asked.options(OpenAIOptions), **asked.drawn)
        case "lmms-eval":
            from ahabench.harness.engines.lmms_eval import LmmsEvalEngine, LmmsEvalOptions

            return LmmsEvalEngine(argument, asked.model, options=asked.options(LmmsEvalOptions), **asked.drawn)
    return _transformers(asked)


def _transformers(asked: _Asked) -> OpenEngine:
    from ahabench.harness.engines.transformers import TransformersEngine, TransformersOptions

    options = asked.options(TransformersOptions)
    return TransformersEngine(
        asked.model,
        batch_size=options.batch_size,
        dtype=options.dtype,
        device=options.device,
        revision=options.revision,
        trust_remote_code=options.trust_remote_code,
        text_only=options.text_only,
        attn_implementation=options.attn_implementation,
        **asked.drawn,
    )
