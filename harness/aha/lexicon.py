"""The marks of reflection as data: patterns by class and strength, and the published rules, each with its version."""

import json
import re
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Literal

from pydantic import BaseModel, ConfigDict

WIDTH = 400
"""Longest piece of text, in characters, that a pattern is tried on: whatever it holds, the work on it is bounded."""


class MomentClass(StrEnum):
    """What a moment does. Where marks of several classes meet, the first in `PRIORITY` names the moment."""

    INTERRUPTION = "interruption"
    VERIFICATION = "verification"
    VISUAL_LOOKBACK = "visual_lookback"
    CORRECTION = "correction"
    RECONSIDERATION = "reconsideration"
    ALTERNATIVE = "alternative"
    UNCERTAINTY = "uncertainty"
    """Counted, and never a moment by itself."""


PRIORITY = (
    MomentClass.VISUAL_LOOKBACK,
    MomentClass.CORRECTION,
    MomentClass.RECONSIDERATION,
    MomentClass.VERIFICATION,
    MomentClass.ALTERNATIVE,
    MomentClass.INTERRUPTION,
)


class Strength(StrEnum):
    """A strong mark is a moment; two different weak ones close together are one."""

    STRONG = "strong"
    WEAK = "weak"


class _MarkRow(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    name: str
    kind: MomentClass
    strength: Strength
    words: str
    beside: str | None = None
    holds: str = ""
    pattern: str
    unless: str | None = None
    line_unless: str | None = None


class _LexiconFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    macros: dict[str, str]
    mark: tuple[_MarkRow, ...]


class _RuleRow(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    source: str
    match: Literal["substring", "regex"]
    lower: bool
    words: tuple[str, ...]


class _RulesFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    rules: tuple[_RuleRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One pattern of a lexicon."""

    name: str
    kind: MomentClass
    strength: Strength
    words: frozenset[bytes]
    """One of these must stand in the piece, or the pattern is not tried."""
    beside: frozenset[bytes] | None
    """One of these too."""
    holds: str
    """This text too."""
    pattern: re.Pattern[str]
    unless: re.Pattern[str] | None
    """Must not be found in the piece in which `pattern` is."""
    line_unless: re.Pattern[str] | None
    """Must not match where the line begins: "B. ... This is wrong." is about an option, not about the reasoning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lexicon:
    """The marks of one language."""

    version: int
    marks: tuple[Mark, ...]
    words: frozenset[bytes]
    """All words that any mark asks for, as bytes: a text is split into them much faster."""
    by_word: dict[bytes, tuple[int, ...]]
    """Places in `marks` of those that ask for a word."""
    lead: re.Pattern[str]
    """What may precede a mark in its sentence and is no part of it, such as "But "."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRule:
    """A keyword list as its authors count it: on the whole response, without a guard."""

    name: str
    title: str
    source: str
    lower: bool
    """Whether the response is put in lower case first."""
    words: tuple[str, ...]
    patterns: tuple[re.Pattern[str], ...]
    """Set where the authors use regular expressions; otherwise the words are substrings."""

    def count(self, text: str) -> int:
        """Return the hits: one per occurrence of each word, so that words inside words count again."""
        text = text.lower() if self.lower else text
        if self.patterns:
            return sum(len(pattern.findall(text)) for pattern in self.patterns)
        return sum(text.count(word) for word in self.words)


@cache
def lexicon(language: Literal["english", "chinese"]) -> Lexicon:
    """Return the marks of a language."""
    text = files("ahabench.harness.aha").joinpath(f"{language}.toml").read_text(encoding="utf-8")
    raw = tomllib.loads(text)
    for row in raw["mark"]:
        row["kind"] = row.pop("class")
    parsed = _LexiconFile.model_validate(raw)
    marks = tuple(_mark(row, parsed.macros) for row in parsed.mark)
    words = frozenset().union(*(mark.words for mark in marks))
    return Lexicon(
        version=parsed.version,
        marks=marks,
        words=words,
        by_word={word: tuple(i for i, mark in enumerate(marks) if word in mark.words) for word in words},
        lead=_compiled(parsed.macros["lead"], parsed.macros),
    )


@cache
def published_rules() -> tuple[PublishedRule, ...]:
    """Return the keyword rules of other works, in the order in which the card shows them."""
    text = files("ahabench.harness.aha").joinpath("published.json").read_text(encoding="utf-8")
    parsed = _RulesFile.model_validate(json.loads(text))
    return tuple(
        PublishedRule(
            name=row.name,
            title=row.title,
            source=row.source,
            lower=row.lower,
            words=row.words,
            patterns=tuple(re.compile(word) for word in row.words) if row.match == "regex" else (),
        )
        for row in parsed.rules
    )


def version() -> str:
    """Return the versions of both lexicons as one word, such as "en1-zh1"; it travels with every count."""
    return f"en{lexicon('english').version}-zh{lexicon('chinese').version}"


def _mark(row: _MarkRow, macros: dict[str, str]) -> Mark:
    return Mark(
        name=row.name,
        kind=row.kind,
        strength=row.strength,
        words=frozenset(word.encode() for word in (row.words.split() if row.words.isascii() else row.words)),
        beside=frozenset(row.beside.encode().split()) if row.beside else None,
        holds=row.holds,
        pattern=_compiled(row.pattern, macros),
        unless=_compiled(row.unless, macros) if row.unless else None,
        line_unless=_compiled(row.line_unless, macros) if row.line_unless else None,
    )


def _compiled(pattern: str, macros: dict[str, str]) -> re.Pattern[str]:
    for _ in macros:
        for name, value in macros.items():
            pattern = pattern.replace(f"{{{name}}}", value)
    return re.compile(_any_blanks(pattern))


def _any_blanks(pattern: str) -> str:
    """Return a pattern in which each space stands for one to nine blanks, `space?` for none to nine."""
    out: list[str] = []
    inside_class, i = False, 0
    while i < len(pattern):
        char = pattern[i]
        if char == "\\":
            out.append(pattern[i : i + 2])
            i += 2
            continue
        if inside_class:
            inside_class = char != "]"
        elif char == "[":
            inside_class = True
        elif char == " ":
            optional = pattern[i + 1 : i + 2] == "?"
            # The atomic group is tried once: blanks never multiply the ways to match.
            char = "(?> {0,9})" if optional else "(?> {1,9})"
            i += optional
        out.append(char)
        i += 1
    return "".join(out)
