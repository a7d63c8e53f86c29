"""Reading numbers: a span that is a quantity, or the number that a piece of prose arrives at."""

import math
import re
from typing import NamedTuple

from ahabench.harness.answers.latex import evaluate
from ahabench.harness.answers.text import (
    CONCLUDES,
    UNANSWERED,
    claim,
    is_sentence,
    joined,
    sentences,
    unmarked,
    unwrapped,
)

MAX_QUANTITY = 300
"""Characters of a span that can be a quantity."""
MAX_LEAD = 12
"""Characters that may stand before the number of a span; further on it must follow a copula."""
MAX_SPAN_LEAD = 80
MAX_QUESTION = 4_000
MAX_SENTENCES = 40
"""Sentences that are searched, from the end."""


class Quantity(NamedTuple):
    """A number as it was written."""

    value: float
    decimals: int | None
    """Digits after the point where it is written as a plain decimal; `None` for fractions, roots and the like."""
    percent: bool = False


_UNITS = {
    word: number
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen".split()
    )
}
_TENS = {
    word: 10 * number for number, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)
}
_SCALES = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12, "dozen": 12.0}
_SCALE = "|".join(_SCALES)
_DIGIT_WORDS = "|".join(list(_UNITS)[1:10])
_BELOW_TWENTY = "|".join(sorted(_UNITS, key=len, reverse=True))
_WORD_NUMBER = rf"(?:(?:{'|'.join(_TENS)})(?:[- ](?:{_DIGIT_WORDS}))?|{_BELOW_TWENTY})"
_WORDED = re.compile(rf"({_WORD_NUMBER})(?:[\s-]+({_SCALE}))?", re.IGNORECASE)
_PLAIN = r"(?:\d{1,3}(?:,\d{3}){1,6}(?:\.\d{1,40})?|\d{1,40}(?:\.\d{1,40})?|\.\d{1,40})"
_PREFIX = re.compile(
    r"^(?:(?:is|are|was|about|approximately|approx\.?|around|roughly|nearly|exactly|equal to|equals|a total of|only"
    r"|the)\s+"
    r"|[≈~=:]\s*|\\approx\s*|[£€¥]\s*|US\s*|Rs\.?\s*)+",
    re.IGNORECASE,
)
_EQUATION = re.compile(r"=|≈|\\approx|\\simeq|\\sim|≃|≅")
_PERCENT = re.compile(r"(?:\\?%|\bpercent\b|\bper cent\b)", re.IGNORECASE)
_DEGREE = re.compile(r"\^\s*\{?\s*\\?circ\s*\}?|\\circ\b|\\degree\b|°|º|\bdegrees?\b", re.IGNORECASE)
_NO_UNIT = (
    r"(?!(?:or|and|to|plus|minus|times|over|by|than|from|in|is|are|of|if|when|hundred|thousand|million|billion)\b)"
)
_POWER = r"(?:\s*\^\s*\{?\s*-?\d\s*\}?|[²³]|(?<=[a-z])[23](?!\d))?"
_SHORT_UNIT = r"[mgshlLVWNJKCFATΩ](?![a-zA-Z])"
_LONG_UNIT = r"[a-zA-Zμµ]{2,14}\.?"
_UNIT = re.compile(
    rf"(?<=[\d\s)}}\]πi²³½¼¾])\s*(?:(?:square|cubic|sq\.?|cu\.?)\s*)?{_NO_UNIT}"
    rf"(?:(?:{_SHORT_UNIT}|{_LONG_UNIT}|[£€¥$¢]){_POWER}(?:\s*/\s*[a-zA-Z]{{1,8}}{_POWER})?|[\u4e00-\u9fff]{{1,4}}[²³]?)"
    rf"(?:\s+{_NO_UNIT}[a-zA-Z]{{1,14}}){{0,3}}[.)]*$"
)
_COUNTED = re.compile(rf"(?:\s+{_NO_UNIT}[a-zA-Z]{{1,14}}){{0,4}}\s*$")
_SCALED = re.compile(rf"([-+]?{_PLAIN})\s*({_SCALE})\b", re.IGNORECASE)
_DECIMAL = re.compile(r"^[-+]?(?:\d{1,3}(?:,\d{3})+|\d*)(?:\.(\d+))?$")
_FRACTION = rf"(?:\d{{1,4}}\s(?=\d{{1,3}}/\d))?{_PLAIN}\s*/\s*{_PLAIN}"
_NUMBER = re.compile(
    rf"(?<![\w.{{\\*])(?P<number>[-−]?\s?(?:{_FRACTION}|{_PLAIN}(?:\s*[×x*]\s*10\s*\^?\s*\{{?[-+−]?[\d⁰¹²³⁴-⁹⁻]+\}}?"
    rf"|[eE][-+]?\d{{1,3}})?))(?!,?\d)(?!:\d)(?!\*)(?!\s?[abknxyz](?![a-zA-Z]))"
    rf"(?!\s*(?:[√π]|\^(?!\s*\{{?\s*\\?circ)|\\(?:sqrt|frac|pi|cdot|times)))"
    rf"|\b(?P<word>{_WORD_NUMBER})\b(?!\s+times\b)",
    re.IGNORECASE,
)


def quantity(text: str) -> Quantity | None:
    """Return the number that the text is, with its unit, currency, percent sign or "x =" taken off; else `None`."""
    if len(text) > MAX_QUANTITY:
        return None
    text = stripped(unwrapped(unmarked(text)))
    parts = _EQUATION.split(text)
    if len(parts) > 1:
        # "x = 3", "AB = 2\sqrt{3} ≈ 3.46": the exact form says more than its rounding.
        exact = [part for part in parts[1:] if part.strip()]
        found = [_bare(part) for part in exact]
        known = [number for number in found if number is not None]
        return known[-1] if known and found[-1] is not None else None
    return _bare(text)


def _bare(text: str) -> Quantity | None:
    text = stripped(_PREFIX.sub("", text.strip()))
    if not text or len(text) > MAX_QUANTITY:
        return None
    worded = _WORDED.match(text)
    if worded and _COUNTED.match(text, worded.end()):
        return Quantity(_worth_of(worded), 0)
    scaled = _SCALED.match(text)
    if scaled and _COUNTED.match(text, scaled.end()):
        value = evaluate(scaled[1])
        return Quantity(value * _SCALES[scaled[2].lower()], 0) if value is not None else None
    glossed = _GLOSS.fullmatch(text)
    if glossed and (number := _bare(glossed[1] or glossed[2])) is not None:
        return number
    percent = bool(_PERCENT.search(text))
    for candidate in _candidates(text, percent):
        value = evaluate(candidate)
        if value is not None and math.isfinite(value):
            return Quantity(value, _decimals(candidate), percent)
    return None


_GLOSS = re.compile(
    rf"(.*\S)\s+\([^()]*(?:%|≈|\\approx|(?<!\\)\b[a-zA-Z]{{3,}})[^()]*\)|({_PLAIN})\s+\([\d\s+*/×x=.-]+\)", re.DOTALL
)
"""A number and, in parentheses, the same once more or how it came about: "0.33 (33%)", "12 (3 × 4)"."""


def stripped(text: str) -> str:
    """Return the text without blanks and punctuation around it; the point of ".5" and the "!" of "4!" stay."""
    text = text.strip(" \t\n,:;\"'`").rstrip(" \t\n.,:;\"'`")
    if text.startswith(".") and not text[1:2].isdigit():
        text = text.lstrip(". ")
    return text


def _worth_of(worded: re.Match[str]) -> float:
    """Return the value of a number in words."""
    words = re.split(r"[- ]", worded[1].lower())
    value = sum(_TENS[word] if word in _TENS else _UNITS[word] for word in words)
    return float(value) * (_SCALES[worded[2].lower()] if worded[2] else 1.0)


def _candidates(text: str, percent: bool) -> list[str]:
    """Return the text with less and less behind its number."""
    if percent:
        text = _PERCENT.sub(" ", text).strip()
    text = _DEGREE.sub(" ", text).strip()
    candidates = [text]
    bare = _UNIT.sub("", text).strip()
    if bare and bare != text:
        candidates.append(bare)
    return candidates


def _decimals(text: str) -> int | None:
    found = _DECIMAL.match(text.replace(" ", ""))
    return len(found[1] or "") if found else None


def in_span(span: str) -> Quantity | None:
    """Return the number that a span claims: the span itself, or the first number of its first clause."""
    whole = quantity(span)
    if whole is not None:
        return whole
    text = unwrapped(unmarked(span))
    found = mentions(text)
    if not found or _BOUND.search(text[: found[0].start][-MAX_SPAN_LEAD:]) or _EITHER.match(text, found[0].end):
        return None
    settled = [mention for mention in found if _EQUALS.search(text[max(0, mention.start - 20) : mention.start])]
    if settled:
        return settled[-1].quantity
    if _GOES_ON.match(text, found[0].end) or _GOES_BEFORE.search(text[max(0, found[0].start - 4) : found[0].start]):
        return None
    near = found[0].start <= MAX_LEAD or _arrives(found[0], text[:MAX_SPAN_LEAD])
    return found[0].quantity if near else None


_BOUND = re.compile(
    r"\b(?:not|never|less|fewer|more|greater|least|most|over|under|above|below|between)\b|[<>≤≥±]|\\(?:[gl]eq?|pm|mp)\b",
    re.I,
)
_EITHER = re.compile(r"\s*(?:or|and|to|,)\s*[-\d]")
_GOES_ON = re.compile(r"\s*(?:[+*^]|-\s*(?:\d|[b-zB-HJ-Z]\b|[\\(]))")
_GOES_BEFORE = re.compile(r"[+*^]\s*$")
"""What makes a number a part of an expression."""
_EQUALS = re.compile(r"(?:=|≈|\bequals?|\bequal to|\bwhich is|\bi\.e\.,?|\bgives?)\s*$")


def _is_pronoun(match: re.Match[str], text: str) -> bool:
    """Whether "one" stands for a thing: "the red one", "which one"."""
    if match["word"].lower() != "one":
        return False
    counted = re.match(r"\s+[a-z]", text[match.end() : match.end() + 4])
    named = re.search(
        r"\b(?:the|this|that|which|each|every|any|no)\s+(?:\w+\s+)?$", text[max(0, match.start() - 30) : match.start()]
    )
    return named is not None or not (counted or _ARRIVES.search(text[max(0, match.start() - 60) : match.start()]))


class Mention(NamedTuple):
    """A number in prose with its place."""

    quantity: Quantity
    start: int
    end: int


# The one space that says something is that of "1 2/3".
_SPACE_IN_NUMBER = re.compile(r"(?<!\d)\s|\s(?!\d)")


def mentions(text: str) -> list[Mention]:
    """Return the plain numbers of a piece of prose, in order."""
    found = []
    for match in _NUMBER.finditer(text):
        if match["word"]:
            worded = _WORDED.match(match["word"])
            if worded and not _is_pronoun(match, text):
                found.append(Mention(Quantity(_worth_of(worded), 0), match.start(), match.end()))
            continue
        written = _SPACE_IN_NUMBER.sub("", match["number"]).replace("−", "-")
        value = evaluate(re.sub(r"[×x*]", r"\\times ", written))
        if value is not None and math.isfinite(value):
            found.append(Mention(Quantity(value, _decimals(written)), match.start(), match.end()))
    return found


_ARRIVES = re.compile(
    r"(?:\bis\b|\bare\b|\bwas\b|\bwere\b|\bbe\b|\bequals?\b|=|≈|:|\bgets?\b|\bgives?(?:\s+us)?\b|\bhas\b|\bhave\b"
    r"|\bto\b|\bleaves?\b|\bleaving\b|\bcontain(?:s|ing)?\b|为|是|共|有)"
    r"[\s(\[\"'$£€¥:]*"
    r"(?:(?:approximately|about|around|roughly|only|exactly|equal to|therefore|thus|a total of|estimated to be)\s+)?"
    r"[\s(\[\"'$£€¥]*$",
    re.IGNORECASE,
)
_ASKS_YEAR = re.compile(
    r"\b(?:which|what)\s+(?:\w+\s+)?year\b|\bin (?:which|what) year\b|\bthe year\b[^.?]*\?", re.IGNORECASE
)
_DENIED = re.compile(r"\bnot\s+$", re.IGNORECASE)
_ASKS_COUNT = re.compile(r"\bhow many\b|\bnumber of\b", re.IGNORECASE)
_NOTHING = re.compile(r"\b(?:there (?:are|is|were|was)|has|have) no\b|\bnone\b", re.IGNORECASE)
_SUPPOSES = re.compile(
    r"(?:for example|for instance|suppose|assume|assuming|let's (?:say|assume)|e\.g\.)\b", re.IGNORECASE
)
_MARKER = re.compile(r"^\s*(?:\(?\d{1,2}[.)]|step \d{1,2}[:.])\s+(?=\S)", re.IGNORECASE)
_DIGITS = re.compile(r"\d+(?:\.\d+)?")


def leading(text: str) -> Quantity | None:
    """Return the number on the first line of a text that then explains it and comes to no conclusion of its own."""
    first, _, rest = text.strip().partition("\n")
    explains = is_sentence(rest) and not CONCLUDES.search(rest)
    return quantity(first) if explains and len(first) <= MAX_LEADING else None


MAX_LEADING = 40
"""Characters of a first line that can be the answer alone."""


def in_prose(text: str, question: str = "") -> Quantity | None:
    """Return the number that prose arrives at: of its last conclusion, else of its last sentence with a number.

    A last sentence that says just a number goes before an earlier "so", which concluded only a step. Sentences that
    decline to answer are passed over. Numbers that only repeat the question's count where there are no others, and a
    question that asks for a year is answered by a year.
    """
    every = [_MARKER.sub("", unwrapped(part)) for part in _parts(text)[-MAX_SENTENCES:]]
    parts = [part for part in every if not UNANSWERED.search(part) and not _SUPPOSES.match(part)]
    if not parts or UNANSWERED.search(every[-1]):
        return None
    given = {float(digits) for digits in _DIGITS.findall(question[:MAX_QUESTION])}
    asks_year = bool(_ASKS_YEAR.search(question[:MAX_QUESTION]))
    with_numbers = [
        (part, found) for part in parts if (found := _formula(part) or _worth(mentions(part), part, given, asks_year))
    ]
    if _ASKS_COUNT.search(question[:MAX_QUESTION]) and _NOTHING.search(parts[-1]):
        return Quantity(0.0, 0)
    if not with_numbers:
        only = _worth(mentions(parts[0]), parts[0], set(), asks_year) if len(every) == 1 else []
        return only[-1].quantity if len({mention.quantity.value for mention in only}) == 1 else None
    concluding = [pair for pair in with_numbers if CONCLUDES.search(pair[0])]
    reckoned = [pair for pair in with_numbers if "=" in pair[0]]
    last = with_numbers[-1:] if with_numbers[-1][0] is parts[-1] and quantity(claim(parts[-1])) is not None else []
    part, found = (last or concluding or reckoned or with_numbers)[-1]
    return found if isinstance(found, Quantity) else _settled(part, found)


def _parts(text: str) -> list[str]:
    """Return the sentences of a text; of one that declines and goes on with "but", the two halves."""
    parts = sentences(unmarked(joined(text)))
    return [half for part in parts for half in (_BUT.split(part) if UNANSWERED.search(part) else (part,))]


_BUT = re.compile(r",\s+but\b")


def _formula(part: str) -> Quantity | None:
    r"""Return the quantity of a sentence that claims one by a formula: "the area is 4\sqrt{3} cm²"."""
    for claimed in (claim(part), part.rpartition(": ")[2]):
        if _FORMULA.search(claimed) and (found := quantity(claimed)) is not None:
            return found
    return None


_FORMULA = re.compile(r"[√π²³]|\\(?:[dt]?frac|sqrt|pi)\b")


def _worth(found: list[Mention], text: str, given: set[float], asks_year: bool) -> list[Mention]:
    """Return the mentions that can be an answer."""
    found = [m for m in found if not _DENIED.search(text[max(0, m.start - 8) : m.start])]
    found = [m for m in found if text[m.start : m.end][0].isdigit() or not text[m.start].isalpha() or _arrives(m, text)]
    if asks_year:
        years = [m for m in found if m.quantity.decimals == 0 and 1000 <= m.quantity.value <= 2200]
        return years or found
    return [m for m in found if m.quantity.value not in given or _arrives(m, text)]


def _arrives(mention: Mention, text: str) -> bool:
    return bool(_ARRIVES.search(text[max(0, mention.start - 60) : mention.start]))


def _settled(text: str, found: list[Mention]) -> Quantity:
    """Return the number after the last copula or equals sign, else the last number, in asides only if nowhere else."""
    asides = [aside.span() for aside in _ASIDE.finditer(text)]
    found = [m for m in found if not any(start < m.start < end for start, end in asides)] or found
    colon = text.find(":")
    # "2 are left: 1 cube and 1 sphere": the total stands before its parts.
    before = [mention for mention in found if mention.end <= colon and _arrives(mention, text)]
    if before and len(found) - len(before) > 1:
        return before[-1].quantity
    totals = [mention for mention in found if _is_total(mention, text)]
    if totals:
        return totals[-1].quantity
    for mention in reversed(found):
        if _arrives(mention, text):
            return mention.quantity
    return found[-1].quantity


_ASIDE = re.compile(r"(?<=[\w.%°]) \([^()]{1,200}\)")


def _is_total(mention: Mention, text: str) -> bool:
    before = text[max(0, mention.start - 30) : mention.start]
    return bool(_TOTAL_OF.search(before)) or bool(_IN_TOTAL.match(text, mention.end))


_TOTAL_OF = re.compile(r"\b(?:for|makes|making|gives|giving|is|are) a total of\s+$", re.IGNORECASE)
_IN_TOTAL = re.compile(r"(?:\s+\w+)?\s+(?:in total|altogether|in all)\b", re.IGNORECASE)
