"""What a log of another tool says, before its rows are mapped to our items."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ahabench.harness.manifest import EngineRecord, ModelRecord, PixelsRecord, PromptRecord, SamplingRecord

IMPORTED = "imported_from"
"""The key of `EngineRecord.options` that says of which tool's log a run was made."""

_SECRET = re.compile(r"(\w*(?:api_?key|token|secret|password)\w*)=[^,\s]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One response in a log."""

    text: str | None
    """`None`: never generated."""
    error: str | None = None
    """Why there is no text."""
    completion_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRow:
    """One item's row."""

    place: str
    """File and line, for errors."""
    number: int | None
    """lmms-eval's doc_id or VLMEvalKit's index, where it is a whole number."""
    fields: Mapping[str, str]
    """Whatever may name the item."""
    question: str | None
    """A text that holds the question, perhaps among other things."""
    golds: tuple[str, ...]
    """The reference answer in the forms that the row has; empty where it has none."""
    said: tuple[Said, ...]
    """By sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """One benchmark's log."""

    source: Path
    tool: str
    foreign: str
    """What the tool calls the benchmark."""
    answers: str | None
    """The "task:split" of ours that it answers; `None` where that is not known."""
    rows: tuple[LogRow, ...]
    model: ModelRecord = field(default_factory=ModelRecord)
    engine: EngineRecord = field(default_factory=EngineRecord)
    sampling: SamplingRecord = field(default_factory=SamplingRecord)
    pixels: PixelsRecord = field(default_factory=PixelsRecord)
    prompt: PromptRecord | None = None


def without_secrets(arguments: str) -> str:
    """Return "name=value,name=value" with the values of keys, tokens and passwords taken out."""
    return _SECRET.sub(r"\1=[redacted]", arguments)
