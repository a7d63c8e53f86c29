"""What became of the answer at each moment: the candidate before and after it, and whether anything new was said."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from ahabench.harness.aha.moments import Moment

STEP = 400
"""Characters after a moment that are its next step."""
BEFORE = 1_500
"""Characters before a moment in which the step may have stood already."""
REPEATED = 0.8
"""Share of the next step's word triples that stood before, from which on it only repeats."""

IsRight = Callable[[str], bool | None]
"""Whether a candidate answer is right; `None` where that is not known."""

_EXPLICIT = re.compile(
    r"\\boxed\{(?P<box>(?:[^{}\n]|\{[^{}\n]{0,60}\}){1,80})\}"
    r"|<answer>\s{0,9}(?P<tag>[^<\n]{1,80}?)\s{0,9}</answer>"
    r"|\banswer(?:\s{1,9}(?:here|then|choice|option))?\s{0,9}(?:is|should\s{1,9}be|would\s{1,9}be|must\s{1,9}be|becomes|=|:)\s{0,9}[:*$(\s]{0,6}"
    r"(?P<said>-?\d[\d,]*(?:\.\d+)?(?:/\d+)?|[A-Ha-h]\b|yes\b|no\b)"
    r"|\b(?:option|choice)\s{1,9}\(?(?P<option>[A-H])\b\)?\s{0,9}(?:is|seems|looks|must|would|matches|fits)\s{1,9}(?:to\s{1,9}be\s{1,9})?"
    r"(?:the\s{1,9})?(?:correct|right|answer|best)"
    r"|(?:答案|结果)(?:应该|应当|应)?[是为：:]\s{0,9}(?P<zh>-?\d[\d.]*(?:/\d+)?|[A-H])",
    re.IGNORECASE,
)
_IMPLICIT = re.compile(
    r"(?:=|≈|\b(?:is|are|get|gives|equals?|be|total|totals|makes?|gets|yields?|obtain)\b|[为是得])\s{0,9}[$\\( ]{0,3}"
    r"(?P<value>-?\d[\d,]{0,20}(?:\.\d{1,20})?(?:/\d{1,20})?)"
    r"(?=[^\d\n.,;!。=+*/^×<>-]{0,14}(?:[.,;!](?:\s|$)|。|\n|$))"
)
_WORD = re.compile(r"\w+")


class Change(StrEnum):
    """What a moment did to the answer."""

    WRONG_TO_RIGHT = "wrong_to_right"
    RIGHT_TO_WRONG = "right_to_wrong"
    WRONG_TO_WRONG = "wrong_to_wrong"
    """Another wrong answer."""
    CHANGED = "changed"
    """Another answer, and it is not known which of them is right."""
    UNCHANGED = "unchanged"
    UNKNOWN = "unknown"
    """No candidate answer was found before it, or none after it."""


class Candidate(NamedTuple):
    """A value that the text states as an answer, or as the end of a step."""

    start: int
    end: int
    value: str
    """As it is compared: lower case, without signs of markup."""
    explicit: bool
    """Whether the text calls it the answer; otherwise it is only the last value of a step, and less sure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A moment with what followed it."""

    moment: Moment
    change: Change
    explicit: bool
    """Whether both candidates were called answers."""
    pseudo: bool
    """The answer did not change, and the next step repeats what stood before."""


def turns(text: str, moments: Sequence[Moment], is_right: IsRight) -> tuple[Turn, ...]:
    """Return what each moment led to.

    The candidate before is the last before the moment; the one after is the last before the next moment, or, where
    none stands there, the next one that comes.
    """
    if not moments:
        return ()
    found = candidates(text)
    ends = [moment.start for moment in moments[1:]] + [len(text)]
    return tuple(_turn(text, moment, end, found, is_right) for moment, end in zip(moments, ends, strict=True))


def candidates(text: str) -> list[Candidate]:
    """Return the candidate answers in the order of the text."""
    found = []
    for match in _EXPLICIT.finditer(text):
        value = next(group for group in match.groups() if group is not None)
        found.append(Candidate(match.start(), match.end(), same_form(value), True))
    taken = {place for candidate in found for place in range(candidate.start, candidate.end)}
    for match in _IMPLICIT.finditer(text):
        if match.start("value") not in taken:
            found.append(Candidate(match.start(), match.end(), same_form(match["value"]), False))
    return sorted(found)


def same_form(value: str) -> str:
    """Return an answer as candidates are compared: "(B)" and "b", "1,200.0" and "1200" are the same."""
    plain = re.sub(r"\\(?:text|mathrm|textbf)\{([^{}]*)\}", r"\1", value)
    plain = re.sub(r"[\s$*°%]|\\(?:circ|degree|,|!|;)|\^|(?<=\d),(?=\d{3})", "", plain).strip("().,:;[]{}").lower()
    if re.fullmatch(r"-?\d{1,40}(?:\.\d{1,40})?", plain):
        return format(float(plain), ".12g")
    return plain


def _turn(text: str, moment: Moment, end: int, found: Sequence[Candidate], is_right: IsRight) -> Turn:
    # Candidates do not overlap but by a word, so their ends are in order too.
    n_before = bisect_right(found, moment.start, key=lambda one: one.end)
    n_with = bisect_left(found, moment.end, key=lambda one: one.start)
    n_until = bisect_right(found, end, key=lambda one: one.end)
    if n_before == 0 or n_with == len(found):
        return Turn(moment=moment, change=Change.UNKNOWN, explicit=False, pseudo=False)
    before, after = found[n_before - 1], found[max(n_with, n_until - 1)]
    change = _change(before.value, after.value, is_right)
    return Turn(
        moment=moment,
        change=change,
        explicit=before.explicit and after.explicit,
        pseudo=change is Change.UNCHANGED and _repeats(text, moment, end),
    )


def _change(before: str, after: str, is_right: IsRight) -> Change:
    if before == after:
        return Change.UNCHANGED
    match is_right(before), is_right(after):
        case False, True:
            return Change.WRONG_TO_RIGHT
        case True, False:
            return Change.RIGHT_TO_WRONG
        case False, False:
            return Change.WRONG_TO_WRONG
        case _:
            return Change.CHANGED


def _repeats(text: str, moment: Moment, end: int) -> bool:
    following = _triples(text[moment.end : min(end, moment.end + STEP)])
    if not following:
        return True
    earlier = set(_triples(text[max(0, moment.start - BEFORE) : moment.start]))
    return sum(triple in earlier for triple in following) >= REPEATED * len(following)


def _triples(text: str) -> list[tuple[str, ...]]:
    words = [word.lower() for word in _WORD.findall(text)]
    return [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
