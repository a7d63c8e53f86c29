"""One file per engine; every heavy import stands inside the class that needs it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ahabench.harness.errors import UsageError, unknown_name
from ahabench.harness.manifest import EngineRecord, ModelRecord, PixelsRecord, SamplingRecord
from ahabench.harness.sampling import Sampling
from ahabench.harness.types import Engine

ENGINES = ("auto", "transformers", "replay:PATH")
"""What `open_engine` knows; a colon says that the name takes an argument."""


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


def open_engine(
    spec: str,
    model: str,
    *,
    sampling: Sampling,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    batch_size: int | None = None,
    dtype: str = "auto",
    device: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    text_only: bool | None = None,
) -> OpenEngine:
    """Return an engine that is ready to say what it is; a model's weights are loaded by its first generation.

    Args:
        spec: "auto" (transformers), "transformers", or "replay:PATH" with a run directory or a JSONL of responses.
        model: the checkpoint; a name for the manifest where recorded responses do not say whose they are.
        sampling: how to draw; a replay has been drawn already and ignores it, as it does all that follows.
        min_pixels: as `TransformersEngine`.
        max_pixels: as `TransformersEngine`.
        batch_size: as `TransformersEngine`.
        dtype: as `TransformersEngine`.
        device: as `TransformersEngine`.
        revision: as `TransformersEngine`.
        trust_remote_code: as `TransformersEngine`.
        text_only: as `TransformersEngine`.

    Raises:
        UsageError: there is no such engine, its argument is missing or too many, or a recording cannot be read.
        EngineError: the checkpoint cannot be used.
    """
    name, colon, argument = spec.partition(":")
    if name == "replay":
        if not argument:
            raise UsageError("the engine 'replay' wants a run directory or a file: replay:PATH")
        from ahabench.harness.engines.replay import ReplayEngine

        return ReplayEngine(Path(argument), model=model)
    if name not in {"auto", "transformers"}:
        raise unknown_name("engine", name, list(ENGINES))
    if colon:
        raise UsageError(f"the engine {name!r} takes no argument, found {argument!r}")
    from ahabench.harness.engines.transformers import TransformersEngine

    return TransformersEngine(
        model,
        sampling=sampling,
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        batch_size=batch_size,
        dtype=dtype,
        device=device,
        revision=revision,
        trust_remote_code=trust_remote_code,
        text_only=text_only,
    )
