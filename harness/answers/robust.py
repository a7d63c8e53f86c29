"""The judge-free scorer: read an answer out of a response, compare it with the gold, name the rule that decided."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from ahabench.harness.answers import compare as same
from ahabench.harness.answers import numbers, options, symbolic
from ahabench.harness.answers.extract import Span, claimed_spans, marked_spans
from ahabench.harness.answers.labels import Labels, contents, without_listing
from ahabench.harness.answers.text import (
    CONCLUDES,
    DECLINES,
    UNANSWERED,
    answer_part,
    claim,
    clean,
    finished,
    is_sentence,
    joined,
    own_words,
    sentences,
    unmarked,
    unwrapped,
    window,
    without_echo,
)
from ahabench.harness.answers.words import is_statement, same_words
from ahabench.harness.types import AnswerType, Item, Response, Scorer, Status, Verdict

VERSION = 6

SHORT = 60
"""Characters of an answer that is stated but of the wrong kind, such as a letter that is no option."""
_STATED = frozenset({"tag", "boxed", "json", "whole"})
"""Extractors whose span is an answer even where it cannot be read as the item's type wants it."""


_FORMAL = _STATED | {"final", "cue", "extraction"}
"""Extractors whose span may be a formula that is worth computer algebra."""


class Attempt(NamedTuple):
    """One step of reading: what stood in a span, what was read, what it was compared with and how."""

    extractor: str
    span: str
    extracted: str | None
    """`None`: the span could not be read."""
    comparison: str
    """The comparison that was made, or why none was."""
    correct: bool


def read(item: Item, response: Response) -> Verdict:
    """Return the verdict on a response: the first span that can be read decides."""
    if item.gold is None:
        return Verdict(status=Status.ERROR, rule="gold-withheld")
    unread: Attempt | None = None
    steps = attempts(item, response)
    while True:
        try:
            attempt = next(steps, None)
        except symbolic.Timeout:
            return Verdict(status=Status.TIMEOUT, rule="symbolic/timeout")
        if attempt is None:
            break
        if attempt.extracted is not None:
            return _verdict(attempt)
        if attempt.extractor == "final" or _is_foreign(attempt, item) or _is_ambiguous(attempt, item):
            return Verdict(
                status=Status.WRONG, extracted=attempt.span[:SHORT], rule=f"{attempt.extractor}/{attempt.comparison}"
            )
        if unread is None and attempt.extractor in _STATED and 0 < len(attempt.span.strip()) <= SHORT:
            unread = attempt
    if unread is not None and item.answer_type is not AnswerType.TEXT:
        return Verdict(status=Status.NO_ANSWER, extracted=None, rule=f"{unread.extractor}/unreadable")
    return Verdict(status=Status.NO_ANSWER, rule="nothing-found")


def _is_foreign(attempt: Attempt, item: Item) -> bool:
    """Whether a claimed answer is a definite number that is none of the options: an answer, and a wrong one."""
    claimed = bool(item.choices) and attempt.extractor in {"tag", "boxed", "cue"}
    return claimed and numbers.quantity(same.mended(attempt.span)) is not None


def _is_ambiguous(attempt: Attempt, item: Item) -> bool:
    """Whether a claimed answer has digits but is not one number: "4 or 5", "more than 4"."""
    numeric = item.answer_type in {AnswerType.INTEGER, AnswerType.FLOAT} or _is_number(item)
    return (
        numeric
        and attempt.extractor in {"tag", "boxed", "json", "cue"}
        and bool(_SHORT_WITH_DIGITS.match(attempt.span))
    )


def _is_number(item: Item) -> bool:
    """Whether an item whose answers may be formulas has a number as its gold."""
    return item.answer_type is AnswerType.EXPRESSION and same.number(item.gold or "") is not None


_SHORT_WITH_DIGITS = re.compile(r"(?!not\b)[^\d\n]{0,20}\d[^\n]{0,30}$")


def compare(item: Item, extracted: str) -> Verdict:
    """Return the verdict on an answer that somebody else read out of a response."""
    if item.gold is None:
        return Verdict(status=Status.ERROR, rule="gold-withheld")
    try:
        attempt = _attempt(Span("extraction", clean(extracted)), item)
    except symbolic.Timeout:
        return Verdict(status=Status.TIMEOUT, extracted=extracted, rule="symbolic/timeout")
    if attempt.extracted is None:
        return Verdict(status=Status.WRONG, extracted=extracted, rule="extraction/unreadable")
    return _verdict(attempt)


def attempts(item: Item, response: Response) -> Iterator[Attempt]:
    """Yield every step of reading a response, the strongest claim first; `read` stops at the first that reads."""
    text = clean(response.text or "")
    part, closed = answer_part(text)
    part = own_words(part)
    truncated = response.finish_reason == "length"
    for span in marked_spans(part):
        yield _attempt(span, item)
    if truncated and not closed:
        return
    if item.labels:
        part = without_listing(without_echo(part, item.question), item)
    for span in claimed_spans(part):
        # What was cut off is no whole.
        if not (truncated and span.extractor == "whole"):
            yield _attempt(span, item)
    if not truncated and part.strip():
        yield from _prose(finished(window(part)), item)


def _verdict(attempt: Attempt) -> Verdict:
    status = Status.CORRECT if attempt.correct else Status.WRONG
    return Verdict(status=status, extracted=attempt.extracted, rule=f"{attempt.extractor}/{attempt.comparison}")


def _attempt(span: Span, item: Item) -> Attempt:
    match item.answer_type:
        case AnswerType.CHOICE | AnswerType.CHOICES:
            choose = options.stated if span.extractor == "whole" else options.in_span
            labels = choose(span.text, item)
            if labels is None and span.extractor in _FORMAL - {"cue"}:
                labels = _by_symbols(span.text, item)
            return _chosen(span, labels, item)
        case AnswerType.INTEGER | AnswerType.FLOAT:
            reader = numbers.quantity if span.extractor == "whole" else numbers.in_span
            return _measured(span, reader(span.text), item)
        case AnswerType.LIST:
            return _listed(span, item)
        case AnswerType.TEXT:
            if not span.text or _declines(span):
                return Attempt(span.extractor, span.text, None, "nothing", False)
            correct = any(same_words(text, item.gold or "") for text in (span.text, claim(span.text)))
            if not correct and span.extractor == "whole" and is_sentence(span.text):
                return Attempt(span.extractor, span.text, None, "a sentence", False)
            return Attempt(span.extractor, span.text, span.text, "words", correct)
        case AnswerType.EXPRESSION:
            return _expressed(span, item)


def _prose(text: str, item: Item) -> Iterator[Attempt]:
    match item.answer_type:
        case AnswerType.CHOICE | AnswerType.CHOICES:
            yield _chosen(Span("leading", text), options.leading(text, item), item)
            yield _chosen(Span("prose", text), options.in_prose(text, item), item)
        case AnswerType.INTEGER | AnswerType.FLOAT:
            yield _measured(Span("leading", text), numbers.leading(text), item)
            yield _measured(Span("prose", text), numbers.in_prose(text, item.question), item)
        case AnswerType.EXPRESSION if _is_number(item):
            found = numbers.leading(text) or numbers.in_prose(text, item.question)
            yield _expressed(Span("prose", "" if found is None else f"{found.value:.12g}"), item)
        case AnswerType.LIST:
            yield _listed(Span("prose", text), item)
        case _:
            parts = sentences(unmarked(joined(text)))
            for sentence in ([part for part in parts if CONCLUDES.search(part)] or parts)[-1:]:
                declines = UNANSWERED.search(sentence) or DECLINES.search(sentence)
                yield _attempt(Span("prose", "" if declines else claim(sentence)), item)


def _chosen(span: Span, labels: Labels | None, item: Item) -> Attempt:
    if labels is None:
        return Attempt(span.extractor, span.text, None, "no option", False)
    gold = tuple((item.gold or "").split(", "))
    correct = set(labels) == set(gold) or (len(labels) == len(gold) == 1 and _twins(labels[0], gold[0], item))
    return Attempt(span.extractor, span.text, ", ".join(labels), "option", correct)


def _by_symbols(text: str, item: Item) -> Labels | None:
    """Return the one option that computer algebra finds equal to a formula."""
    if len(text) > SHORT or not re.search(r"[\\^_/+*=]|√|π", text):
        return None
    equal = [label for label, content in contents(item) if _same_symbols(text, content)]
    return (equal[0],) if len(equal) == 1 else None


def _twins(first: str, second: str, item: Item) -> bool:
    """Whether two options have the same content: some benchmarks print an option twice."""
    if not item.choices or item.choices == item.labels or not {first, second} <= set(item.labels):
        return False
    contents = [item.choices[item.labels.index(label)] for label in (first, second)]
    return same.squeezed(contents[0]) == same.squeezed(contents[1]) != ""


def _measured(span: Span, found: numbers.Quantity | None, item: Item) -> Attempt:
    gold = item.gold or ""
    if found is None:
        return Attempt(span.extractor, span.text, None, "no number", False)
    extracted = f"{found.value:.12g}"
    if item.answer_type is AnswerType.INTEGER:
        return Attempt(span.extractor, span.text, extracted, "integer", same.same_integer(found, gold))
    if item.tolerance is not None:
        correct = same.within(found, float(gold), item.tolerance)
        return Attempt(span.extractor, span.text, extracted, f"within {item.tolerance}", correct)
    precision = item.precision if item.precision is not None else 6
    return Attempt(
        span.extractor, span.text, extracted, f"rounded to {precision}", same.same_rounded(found, gold, precision)
    )


def _listed(span: Span, item: Item) -> Attempt:
    found = re.search(r"[\[(][^\[\]()]*[\])]", span.text)
    said = same.elements(found[0] if found else span.text)
    if said is None:
        return Attempt(span.extractor, span.text, None, "no list", False)
    correct = same.same_elements(said, same.elements(item.gold or "") or [])
    return Attempt(span.extractor, span.text, ", ".join(said), "list", correct)


def _expressed(span: Span, item: Item) -> Attempt:
    # MathVerse prints one gold twice, on two lines.
    text, gold = ("\n".join(dict.fromkeys(part.split("\n"))) for part in (span.text.strip(), item.gold or ""))
    if not text or _declines(span):
        return Attempt(span.extractor, span.text, None, "nothing" if not text else "declined", False)
    stated = span.extractor in _STATED
    says = is_sentence(text)
    if not stated:
        text = _REASON.sub("", text) or text
    for candidate in _candidates(text, whole=stated and not says):
        rule = _equal(candidate, gold)
        if rule:
            return Attempt(span.extractor, span.text, candidate, rule, True)
    if span.extractor in _FORMAL and _same_symbols(text, gold):
        return Attempt(span.extractor, span.text, text, "same expression", True)
    if span.extractor == "whole" and says:
        return Attempt(span.extractor, span.text, None, "a sentence", False)
    readable = stated or same.number(gold) is None or numbers.in_span(text) is not None
    return Attempt(span.extractor, span.text, text if readable else None, "no rule makes them equal", False)


def _declines(span: Span) -> bool:
    return span.extractor in {"whole", "cue", "final"} and bool(UNANSWERED.search(span.text))


def _candidates(text: str, *, whole: bool) -> Iterator[str]:
    """Yield a span and, where it is a sentence, the one thing that it claims.

    That is the number it opens with, else its last formula that is not denied, else the point or interval that it
    names, else its number, else what stands after its copula: never whichever of them fits. "It is $5$, not $7$" claims
    5, whatever the gold.
    """
    yield text
    if whole:
        yield _NAMED.sub("", text)
        return
    found = numbers.in_span(text)
    claimed = claim(unwrapped(text))
    formulas = [match[1] or match[2] for match in _FORMULA.finditer(text) if not _DENIED.search(text[: match.start()])]
    if formulas and not (found is not None and _OPENS_WITH_NUMBER.match(text)):
        yield formulas[-1]
    elif points := same.points(claimed):
        yield points[-1]
    elif found is not None:
        yield f"{found.value:.12g}"
    elif claimed != text:
        yield claimed


_REASON = re.compile(r",?\s(?:because|since)\b.*$", re.DOTALL)
_NAMED = re.compile(r"^[A-Za-z][A-Za-z ]{0,30}:\s+")
_FORMULA = re.compile(r"\$([^$]+)\$|\\\((.+?)\\\)")
_DENIED = re.compile(r"\b(?:not|instead of|rather than)\s+$")
_OPENS_WITH_NUMBER = re.compile(r"[$\s(]*-?\d")


def _equal(extracted: str, gold: str) -> str | None:
    """Return the rule by which an expression equals the gold, or `None`."""
    if same.squeezed(extracted) == same.squeezed(gold) != "":
        return "same characters"
    if same.names_differ(extracted, gold):
        return None
    if same.solutions(extracted) or same.solutions(gold):
        values = [same.solutions(text) or same.elements(text) or [text] for text in (extracted, gold)]
        return "same solutions" if same.same_solutions(*values) else None
    said, wanted = same.number(extracted), same.number(gold)
    if said is not None and wanted is not None:
        return "same number" if same.same_number(said, wanted) else None
    if same.same_named(extracted, gold):
        return "same points or intervals"
    first, second = same.elements(extracted), same.elements(gold)
    if (
        first is not None
        and second is not None
        and same.same_elements(first, second)
        and same.same_ends(extracted, gold)
    ):
        return "same elements"
    if ("=" in extracted or "=" in gold) and not same.relates(gold):
        sides = unwrapped(extracted).split("=")[-1], unwrapped(gold).split("=")[-1]
        if same.same_content(*sides):
            return "same right side"
    return "same words" if is_statement(gold) and same_words(extracted, gold) else None


def _same_symbols(extracted: str, gold: str) -> bool:
    """Whether computer algebra finds them equal. Two plain numbers are settled without it."""
    first, second = (same.in_latex(same.mended(unwrapped(clean(text)))) for text in (extracted, gold))
    if (same.number(first) is not None and same.number(second) is not None) or is_statement(second):
        return False
    if same.number(second) is not None and "=" not in first and _LETTER.search(_COMMAND.sub(" ", first)):
        # A plain number is no expression in a letter.
        return False
    return symbolic.comparable(first) and symbolic.comparable(second) and symbolic.equivalent(second, first)


_COMMAND = re.compile(r"\\[a-zA-Z]+|\bpi\b|\bsqrt\b")
_LETTER = re.compile(r"[a-df-hj-zA-DF-Z]")

ROBUST = Scorer(version=VERSION, read=read, compare=compare)
