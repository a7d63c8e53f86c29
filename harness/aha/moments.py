"""Finding moments in a response: marks in its sentences, less what is quoted, copied or repeated in a loop."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from ahabench.harness.aha.lexicon import PRIORITY, WIDTH, Mark, MomentClass, Strength, lexicon
from ahabench.harness.aha.loops import loops, repeat_share
from ahabench.harness.aha.scope import Copied, Span, readable, thought

NEAR = 120
"""Characters within which two weak marks make a moment together."""
MERGE = 40
"""Marks of one sentence are one moment, as are those of two in a row that are at most so many characters apart."""

# \uff01 and \uff1f are the Chinese exclamation and question marks.
_END = re.compile("""([.!?…\n。\uff01\uff1f][.!?…"')\\]。\uff01\uff1f]{0,8})(?:\\s+|$|(?<=[\n。\uff01\uff1f]))""")
_CJK = re.compile("[\u4e00-\u9fff]")
_LETTERS = b"abcdefghijklmnopqrstuvwxyz0123456789"
_WORDS_ONLY = bytes(code if code in _LETTERS else 32 for code in range(256))
_HEDGES = frozenset(
    b"maybe perhaps possibly probably might seems seem likely unlikely presumably apparently roughly unsure guess "
    b"suppose somewhat unclear".split()
)
_CHINESE_HEDGES = re.compile("可能|也许|大概|或许|似乎|好像|应该是|估计|不确定")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One place where the model interrupts, checks, corrects or reconsiders itself, or turns to another approach."""

    kind: MomentClass
    strength: Strength
    start: int
    """Character offset into the response."""
    end: int
    sentence: str
    """The sentence of the response in which it begins."""
    marks: tuple[str, ...]
    """Names of the lexicon's marks that were found, in the order of the text."""

    def as_row(self) -> dict[str, object]:
        """Return what `--json --spans` prints of it."""
        return {"class": self.kind.value, "strength": self.strength.value, "start": self.start, "end": self.end}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Everything that is read out of one response."""

    moments: tuple[Moment, ...]
    uncertainty: tuple[Span, ...]
    """Where the model says that it is not sure; no moments."""
    loops: tuple[Span, ...]
    loop_share: float
    """The part of the thought that loops fill, in [0, 1]."""
    hedges: int
    """Words such as "maybe" and "probably"."""
    words: int
    """Words of the thought; a Chinese character counts as one."""
    thought: tuple[Span, ...]


class _Hit(NamedTuple):
    start: int
    end: int
    kind: MomentClass
    strength: Strength
    name: str
    piece: int


def moments(text: str, question: str = "") -> tuple[Moment, ...]:
    """Return the moments of a response in the order of the text; neither mere uncertainty nor a loop is one.

    Linear in the length of the text.

    Args:
        text: the response as the model wrote it, think tags included.
        question: what it was asked; wording that is copied from it does not count.
    """
    return read(text, question).moments


def read(text: str, question: str = "") -> Reading:
    """Return the moments with what is counted beside them: uncertainty, hedges, loops."""
    low = readable(text)
    spans = thought(text)
    copied = Copied(question)
    found: list[Moment] = []
    unsure: list[Span] = []
    looping: list[Span] = []
    hedges = words = 0
    for span in spans:
        pieces = _pieces(low, span)
        part = loops(low, pieces)
        looping += part
        scan = _scan(low, pieces)
        words, hedges = words + scan.words, hedges + scan.hedges
        kept = [hit for hit in scan.hits if not _in(part, hit) and not copied.covers(text, Span(hit.start, hit.end))]
        unsure += [Span(hit.start, hit.end) for hit in kept if hit.kind is MomentClass.UNCERTAINTY]
        found += _merge(_supported([hit for hit in kept if hit.kind is not MomentClass.UNCERTAINTY]), text, pieces)
    return Reading(
        moments=tuple(found),
        uncertainty=tuple(unsure),
        loops=tuple(looping),
        loop_share=repeat_share(looping, sum(span.end - span.start for span in spans)),
        hedges=hedges,
        words=words,
        thought=spans,
    )


def _line_start(low: str, piece: Span) -> str:
    """Return how the line of a piece begins."""
    start = low.rfind("\n", max(0, piece.start - WIDTH), piece.start) + 1
    return low[start : start + 40]


def _pieces(low: str, span: Span) -> list[Span]:
    """Return the sentences, none longer than `WIDTH`."""
    pieces: list[Span] = []
    start = span.start
    for end, after in [(found.end(1), found.end()) for found in _END.finditer(low, *span)] + [(span.end, span.end)]:
        while end - start > WIDTH:
            cut = low.rfind(" ", start + WIDTH // 2, start + WIDTH) + 1 or start + WIDTH
            pieces.append(Span(start, cut))
            start = cut
        if end > start:
            pieces.append(Span(start, end))
        start = after
    return pieces


def _in(spans: Sequence[Span], hit: _Hit) -> bool:
    at = bisect_right(spans, hit.start, key=lambda span: span.start) - 1
    return at >= 0 and hit.start < spans[at].end


class _Scan(NamedTuple):
    words: int
    hedges: int
    hits: list[_Hit]


def _scan(low: str, pieces: Sequence[Span]) -> _Scan:
    """Return the marks of all pieces. Most hold no word that any mark asks for, and are done with at once."""
    base = pieces[0].start if pieces else 0
    skeleton = _skeleton(low[base : pieces[-1].end]) if pieces else b""
    asked = lexicon("english").words | _HEDGES
    any_chinese = _CJK.search(low) is not None
    count = hedges = 0
    hits: list[_Hit] = []
    for number, (start, end) in enumerate(pieces):
        words = skeleton[start - base : end - base].split()
        count += len(words)
        if not any_chinese and asked.isdisjoint(words):
            continue
        said = low[start:end]
        hedges += 0 if _HEDGES.isdisjoint(words) else sum(word in _HEDGES for word in words)
        found = _marks(said, "english")
        if any_chinese and (characters := len(_CJK.findall(said))):
            count += characters
            hedges += len(_CHINESE_HEDGES.findall(said))
            found += _marks(said, "chinese")
        hits += [
            _Hit(start + first, start + last, mark.kind, mark.strength, mark.name, number)
            for first, last, mark in found
            if mark.line_unless is None or not mark.line_unless.match(_line_start(low, pieces[number]))
        ]
    return _Scan(count, hedges, hits)


def _skeleton(said: str) -> bytes:
    """Return as many bytes as there are characters: ASCII letters and digits as they are, blanks for all others."""
    return said.encode("ascii", "replace").translate(_WORDS_ONLY)


@lru_cache(maxsize=4096)
def _marks(said: str, language: Literal["english", "chinese"]) -> tuple[tuple[int, int, Mark], ...]:
    known = lexicon(language)
    if language == "english":
        words = frozenset(_skeleton(said).split())
    else:
        words = frozenset(char.encode("utf-8", "replace") for char in said)
    found: list[tuple[int, int, Mark]] = []
    for i in {place for word in words & known.words for place in known.by_word[word]}:
        mark = known.marks[i]
        if mark.holds in said and (mark.beside is None or not mark.beside.isdisjoint(words)):
            found += _hits(mark, said, known.lead)
    return tuple(found)


def _hits(mark: Mark, said: str, lead: re.Pattern[str]) -> list[tuple[int, int, Mark]]:
    hits = [(_mark_start(said, *found.span(), lead), found.end(), mark) for found in mark.pattern.finditer(said)]
    return [] if hits and mark.unless is not None and mark.unless.search(said) else hits


def _mark_start(said: str, start: int, end: int, lead: re.Pattern[str]) -> int:
    """Return where the mark itself begins: a match may start at the comma before, or at "But"."""
    while start < end - 1 and not said[start].isalnum():
        start += 1
    found = lead.match(said, start, end)
    return found.end() if found and said[found.end() : end].strip(" ,.!?…:—–") else start


def _supported(hits: list[_Hit]) -> list[_Hit]:
    """Return the strong marks, and the weak ones that have another mark beside them."""
    hits = sorted(hits)
    kept = []
    for i, hit in enumerate(hits):
        if hit.strength is Strength.STRONG:
            kept.append(hit)
            continue
        around = hits[max(0, i - 3) : i] + hits[i + 1 : i + 4]
        if any(other.name != hit.name and _near(hit, other) and not _overlap(hit, other) for other in around):
            kept.append(hit)
    return kept


def _near(one: _Hit, other: _Hit) -> bool:
    gap = max(one.start, other.start) - min(one.end, other.end)
    return gap <= NEAR and abs(one.piece - other.piece) <= 1


def _overlap(one: _Hit, other: _Hit) -> bool:
    return one.start < other.end and other.start < one.end and one.strength is other.strength is Strength.WEAK


def _merge(hits: list[_Hit], text: str, pieces: Sequence[Span]) -> Iterator[Moment]:
    """Yield one moment for each group of marks that stand together."""
    group: list[_Hit] = []
    end = 0
    for hit in sorted(hits):
        if group and not _belongs(hit, group, end):
            yield _moment(group, text, pieces)
            group = []
        end = max(end, hit.end) if group else hit.end
        group.append(hit)
    if group:
        yield _moment(group, text, pieces)


def _belongs(hit: _Hit, group: list[_Hit], end: int) -> bool:
    """Whether a mark goes with those before it: a second act in a sentence of its own is a moment of its own."""
    if hit.piece == group[-1].piece:
        return True
    acts = {other.kind for other in group if _is_act(other)}
    adjacent = hit.piece - group[-1].piece <= 1 and hit.start - end <= MERGE
    return adjacent and not (_is_act(hit) and acts and hit.kind not in acts)


def _is_act(hit: _Hit) -> bool:
    return hit.strength is Strength.STRONG and hit.kind is not MomentClass.INTERRUPTION


def _moment(group: list[_Hit], text: str, pieces: Sequence[Span]) -> Moment:
    # "Wait" only says that something follows: what follows names the moment.
    acts = [hit for hit in group if _is_act(hit)] or [h for h in group if h.kind is not MomentClass.INTERRUPTION]
    kinds = {hit.kind for hit in acts or group}
    strong = any(hit.strength is Strength.STRONG for hit in group)
    piece = pieces[group[0].piece]
    return Moment(
        kind=next(kind for kind in PRIORITY if kind in kinds),
        strength=Strength.STRONG if strong else Strength.WEAK,
        start=group[0].start,
        end=max(hit.end for hit in group),
        sentence=text[piece.start : piece.end].strip(),
        marks=tuple(dict.fromkeys(hit.name for hit in group)),
    )
