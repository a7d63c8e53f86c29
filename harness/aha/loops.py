"""Where a response repeats itself: blocks of sentences, or of words, that come again and again."""

import re
from collections.abc import Hashable, Iterator, Sequence

from ahabench.harness.aha.scope import Span

REPEATS = 3
"""A block that stands this often in a row is a loop."""
RESTATED = 6
"""So often where only its digits differ: casework says similar things a few times."""
_SHORT = 12
"""Characters of a block below which it must come `RESTATED` times: "Hmm. Hmm. Hmm." is no loop yet."""
_LONG = 100
"""Characters of a piece from which its words are searched for a loop of their own."""
_WORD = re.compile(r"\S+")
_ZEROS = bytes.maketrans(b"123456789", b"000000000")


def loops(text: str, pieces: Sequence[Span]) -> tuple[Span, ...]:
    """Return the stretches in which a block of pieces comes at least `REPEATS` times in a row, first time included.

    Linear in the text. What a degenerate sampler writes is one long loop; its moments do not count.

    Args:
        text: lower case.
        pieces: its sentences in order, which do not overlap.
    """
    found: list[Span] = []
    for said, repeats in ((text, REPEATS), (_same_digits(text), RESTATED)):
        keys: list[str | bytes] = [said[start:end] for start, end in pieces]
        if len(keys) - len(set(keys)) >= repeats - 1:
            found += [Span(pieces[a].start, pieces[b].end) for a, b in _periodic(keys, repeats)]
    found += [span for piece in pieces if piece.end - piece.start >= _LONG for span in _word_loops(text, piece)]
    return _merged(found)


def repeat_share(spans: Sequence[Span], length: int) -> float:
    """Return the share of a text of `length` characters that loops fill, in [0, 1]."""
    return sum(span.end - span.start for span in spans) / length if length else 0.0


def _same_digits(text: str) -> str | bytes:
    """Return a text of the same length in which every digit is 0."""
    # Bytes are several times as fast; the few characters that become "?" make no six sentences alike.
    encoded = text.encode("ascii", "replace")
    if encoded.count(b"?") - text.count("?") < 0.1 * len(encoded):
        return encoded.translate(_ZEROS)
    for digit in "123456789":
        text = text.replace(digit, "0")
    return text


def _word_loops(text: str, piece: Span) -> Iterator[Span]:
    said = text[piece.start : piece.end].split()
    if len(set(said)) > 0.5 * len(said):
        return
    words = [(m.start() + piece.start, m.end() + piece.start) for m in _WORD.finditer(text[piece.start : piece.end])]
    keys = [text[a:b].rstrip(",;:") for a, b in words]
    for a, b in _periodic(keys, RESTATED):
        yield Span(words[a][0], words[b][1])


def _periodic(keys: Sequence[Hashable], repeats: int) -> Iterator[tuple[int, int]]:
    """Yield first and last place of every run whose period, the distance to a key's last place, stays the same."""
    last: dict[Hashable, int] = {}
    run_start, period = 0, 0
    for i, key in enumerate(keys):
        distance = i - last.get(key, i)
        last[key] = i
        if distance != period or distance == 0:
            if _looped(keys, run_start, i, period, repeats):
                yield run_start, i - 1
            run_start, period = i - distance, distance
    if _looped(keys, run_start, len(keys), period, repeats):
        yield run_start, len(keys) - 1


def _looped(keys: Sequence[Hashable], start: int, end: int, period: int, repeats: int) -> bool:
    if period == 0 or end - start < period * repeats:
        return False
    short = sum(len(str(key)) for key in keys[start : start + min(period, _SHORT)]) < _SHORT
    return not short or end - start >= period * RESTATED


def _merged(spans: list[Span]) -> tuple[Span, ...]:
    merged: list[Span] = []
    for span in sorted(spans):
        if merged and span.start <= merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return tuple(merged)
