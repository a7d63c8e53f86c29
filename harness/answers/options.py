"""Reading option labels: from a span that claims to be the answer, or from prose."""

import re
from collections.abc import Sequence
from functools import lru_cache

from rapidfuzz import fuzz

from ahabench.harness.answers import numbers
from ahabench.harness.answers.compare import close, number, same_content, same_number, squeezed
from ahabench.harness.answers.labels import LISTING, Labels, alphabet, contents, opened_by, without_listing
from ahabench.harness.answers.statements import DENIES, NONE_SAID, REJECTS, by_none, by_restatement, content_words
from ahabench.harness.answers.text import CONCLUDES, DECLINES, UNANSWERED, claim, joined, sentences, unmarked, unwrapped
from ahabench.harness.types import AnswerType, Item

NEAR = 88.0
"""Percent likeness from which an option's text counts as quoted with a slip of the pen."""
NEAR_MARGIN = 8.0
"""By how much the likest option must be liker than the next."""
MIN_NEAR = 5
"""Characters from which likeness means anything."""
MAX_SENTENCES = 60
"""Sentences of prose that are searched, from the end."""

_NEGATED = re.compile(
    r"\b(?:not|isn't|aren't|neither|nor|incorrect|wrong|eliminated?|exclude[ds]?|rather than|instead of|unlike"
    r"|except|than|between)\b[^.,;]{0,30}$",
    re.IGNORECASE,
)
_REFUTED = re.compile(
    r"^[^.;]{0,40}\b(?:not|isn't|aren't|incorrect|wrong|false|eliminated|excluded|ruled out|cannot|can't)\b",
    re.IGNORECASE,
)
_REVISED = re.compile(
    r"(?:\.{2,}|…|[,;.!-])\s*(?:no|wait|actually|rather|correction|sorry|i mean|oops)\b[,:.!]?\s*", re.IGNORECASE
)


MAX_REPEATED = 200
MANY = 3
"""Options that prose names without choosing: then it chose none."""


def in_span(span: str, item: Item) -> Labels | None:
    """Return the labels that a span claims: by label, by an option's content, by its value, or nearly so."""
    quoted = _quoted(span, item)
    if quoted:
        return quoted
    text = unwrapped(unmarked(without_listing(span, item))).strip(" \t\n:;,.*\"'")
    if not text.strip(LISTING):
        # Every option at once chooses none.
        return item.labels if text else None
    return (
        stated(text, item)
        or _affirmed(text, item)
        or by_content(text, item)
        or _by_arrival(text, item)
        or by_none(text, item)
    )


def stated(text: str, item: Item) -> Labels | None:
    """Return the labels that a text is: a label, perhaps with its content or a reason behind it, or a content."""
    quoted = _quoted(text, item)
    if quoted:
        return quoted
    text = unwrapped(unmarked(text)).strip(" \t\n:;,.*\"'")
    revised = _REVISED.split(text)
    for part in (text,) if len(revised) == 1 else (revised[-1].strip(), text):
        found = _by_label(part, item) or _by_exact_content(part, item)
        if found:
            return found
    return None


def _quoted(text: str, item: Item) -> Labels | None:
    """Return the one option that the text quotes to the letter, where it says more than a label.

    Goes before labels: "C turns clockwise" may be option B, and "*" is no markup where it is an option.
    """
    said = text.strip(" \t\n.").strip()
    if not item.choices or said in item.labels:
        return None
    found = [label for label, content in zip(item.labels, item.choices, strict=True) if content.strip(" .") == said]
    return (found[0],) if len(found) == 1 and not alphabet(item.labels).alone.match(said) else None


def _by_label(text: str, item: Item) -> Labels | None:
    patterns = alphabet(item.labels)
    tokens = re.findall(r"\w+", text[:MAX_REPEATED])
    if len(tokens) >= MANY and tokens.count(tokens[0]) * 3 >= len(tokens) * 2 and _known(tokens[:1], item):
        # A model that fell into a loop: "c. c. c. c."
        return _known(tokens[:1], item)
    alone = patterns.alone.match(text)
    if alone:
        return _known([alone[1]], item)
    several = patterns.several.match(text)
    if several and not re.match(
        r"\s+[a-z]+", text[several.end() :][:3] if item.answer_type is AnswerType.CHOICE else ""
    ):
        return _known(patterns.token.findall(several[0]), item)
    if patterns.joined.match(text) and item.answer_type is AnswerType.CHOICES:
        return _known(list(text), item)
    enclosed = patterns.enclosed.match(text)
    if enclosed:
        listed = _labels(text, item)
        if len(listed) > 1 and listed == [label.upper() for label in item.labels[: len(listed)]]:
            return _known(listed, item)
        return None if _DENIED.match(enclosed[2]) else _known([enclosed[1]], item)
    marked = patterns.marked.match(text)
    if marked and (marked[1] in item.labels or _says(marked[2], item, marked[1])):
        return _known([marked[1]], item)
    followed = patterns.followed.match(text)
    if followed:
        label, rest = followed[1] or followed[2], followed[3]
        if _DENIED.match(rest):
            return None
        article = label in {"A", "I"} and followed[1] is None
        if _says(rest, item, label) or not (article or _names_other(rest, item, label)):
            return _known([label], item)
    return None


_DENIED = re.compile(
    r"(?:is|are|was|seems|cannot be|can't be|isn't)\s+(?:not|incorrect|wrong|false|eliminated|ruled out)\b"
    r"|(?:isn't|can't|cannot)\b"
)


def _says(rest: str, item: Item, label: str) -> bool:
    """Whether the words after a label are that option's content."""
    known = _known([label], item)
    if not known or not item.choices:
        return False
    content = item.choices[item.labels.index(known[0])]
    return same_content(rest, content) or squeezed(rest).startswith(squeezed(content) or "\0")


def _names_other(rest: str, item: Item, label: str) -> bool:
    """Whether the words after a bare capital continue a name or a sum rather than explain a choice."""
    return bool(re.match(r"[=+*/<>≈^]|[A-Z]\b|and [A-Z]\b", rest))


def _known(labels: Sequence[str], item: Item) -> Labels | None:
    """Return labels in the item's own spelling and order, without repetition."""
    spelled = {label.upper(): label for label in item.labels} | {label: label for label in item.labels}
    found = {spelled[label.upper()] for label in labels if label.upper() in spelled}
    return tuple(label for label in item.labels if label in found) or None


def by_content(text: str, item: Item) -> Labels | None:
    """Return the one option whose content the text is, contains, or nearly is."""
    options = contents(item)
    if not options:
        return None
    return (
        _by_exact_content(text, item)
        or _contained(text, options)
        or _nearly(text, options)
        or _same_words(text, options)
    )


def _same_words(text: str, options: list[tuple[str, str]]) -> Labels | None:
    """Return the one option that has just the content words of a short text."""
    said = content_words(text)
    found = [label for label, content in options if said and content_words(content) == said]
    return (found[0],) if len(found) == 1 else None


def _by_exact_content(text: str, item: Item) -> Labels | None:
    """Return the one option that has the text's characters, with or without its label glued on, or its value."""
    options = contents(item)
    said = squeezed(text)
    exact = [label for label, content in options if said == squeezed(content) or said == squeezed(label + content)]
    if exact:
        return (exact[0],) if len(exact) == 1 or _all_same(exact, item) else None
    valued = _by_value(text, options)
    return (valued,) if valued else None


def _all_same(labels: list[str], item: Item) -> bool:
    contents = {squeezed(item.choices[item.labels.index(label)]) for label in labels}
    return len(contents) == 1


def _by_value(text: str, options: list[tuple[str, str]]) -> str | None:
    said = number(text)
    if said is None:
        return None
    valued = [(label, value) for label, content in options if (value := number(content))]
    equal = [label for label, value in valued if close(value.value, said.value)]
    equal = equal or [label for label, value in valued if same_number(said, value)]
    return equal[0] if len(equal) == 1 else None


def _contained(text: str, options: list[tuple[str, str]]) -> Labels | None:
    """Return the one option that the text quotes; a longer quotation hides a shorter one inside it."""
    padded = _padded(text)
    formula = bool(_FORMULA.search(text))
    found = []
    for label, content in sorted(options, key=lambda pair: -len(_padded(pair[1]))):
        needle = _padded(content)
        if len(needle) <= 2 or needle not in padded or (formula and not _WORD.search(needle)):
            continue
        if not all(_DENYING.search(before) for before in padded.split(needle)[:-1]):
            found.append(label)
        padded = padded.replace(needle, " \0 ")
    return (found[0],) if len(found) == 1 else None


_FORMULA = re.compile(r"\\[a-z]+|[/^_=]")
_WORD = re.compile(r"[a-z]{3,}")
_DENYING = re.compile(r" (?:not|isn t|aren t|never|than)(?: \w{1,3})?$")


@lru_cache(maxsize=65_536)
def _padded(text: str) -> str:
    """Return the words and numbers of a text, lower-case, between single spaces."""
    words = re.findall(r"\\?[^\W_]+(?:\.\d+)?|[%°√π]", unwrapped(unmarked(text)).casefold())
    return f" {' '.join(words)} "


def _nearly(text: str, options: list[tuple[str, str]]) -> Labels | None:
    said = _padded(text).strip()
    if len(said) < MIN_NEAR or re.search(r"\d", said):
        return None
    ranked = sorted(((fuzz.ratio(said, _padded(content).strip()), label) for label, content in options), reverse=True)
    best = ranked[0]
    if best[0] >= NEAR and (len(ranked) == 1 or best[0] - ranked[1][0] >= NEAR_MARGIN):
        return (best[1],)
    return None


def leading(text: str, item: Item) -> Labels | None:
    """Return the label that a response opens with, unless its lines go through several options."""
    lines = [unwrapped(line.strip()) for line in unmarked(text).strip().split("\n") if line.strip()]
    if not lines:
        return None
    patterns = alphabet(item.labels)
    opened = opened_by(lines[:MAX_SENTENCES], item.labels)
    found = patterns.enclosed.match(lines[0]) or patterns.marked.match(lines[0]) or patterns.alone.match(lines[0])
    if not found or (found[1] not in item.labels and patterns.marked.match(lines[0])):
        return None
    if len(opened) > 2 or len(set(_labels(lines[0], item))) > 2:
        return None
    return _known([found[1]], item)


def _said_last(parts: Sequence[str], item: Item) -> Labels | None:
    """Return the labels that the last sentence says and nothing else: an earlier "so" concluded only a step then.

    The last line of a listing says only that the listing ends.
    """
    last = parts[-1] if parts else ""
    declines = UNANSWERED.search(last) or NONE_SAID.search(last) or REJECTS.search(last)
    for claimed in (claim(last), last.rpartition(": ")[2]):
        said = re.sub(r"^(?:an?|the)\s+", "", claimed)
        found = _by_label(said, item) if declines else stated(said, item)
        if found and (alphabet(item.labels).alone.match(said) or len(opened_by(parts, item.labels)) < 2):
            # "The result is C, which is option B" means B.
            return _affirmed(last, item, arriving=True) or found
    return None


def in_prose(text: str, item: Item) -> Labels | None:
    """Return the labels that prose arrives at: of its conclusion, of what it says is one, else the option it quotes."""
    parts = [
        unwrapped(part) for part in sentences(unmarked(joined(text)))[-MAX_SENTENCES:] if not _CONDITIONAL.match(part)
    ]
    concluding = [part for part in parts if CONCLUDES.search(part)]
    closing = list(dict.fromkeys([*concluding[::-1][:2], *parts[::-1][:2]]))
    last = _said_last(parts, item)
    if last:
        return last
    declined = any(DECLINES.search(sentence) for sentence in [*parts[:1], *closing])
    for sentence in closing:
        found = _affirmed(sentence, item, arriving=True) or by_none(sentence, item, declined=declined)
        if found:
            return found
        if UNANSWERED.search(sentence) or NONE_SAID.search(sentence):
            return None
    for sentence in reversed(parts):
        found = _affirmed(sentence, item, arriving=True)
        if found:
            return found
    named = _everywhere(parts, item)
    if named and len(named) >= MANY:
        return named
    for sentence in [*closing, *parts[:1]]:
        if REJECTS.search(sentence):
            continue
        found = (
            _by_exact_content(claim(sentence), item)
            or _affirmed(sentence, item)
            or by_content(sentence, item)
            or _by_arrival(sentence, item)
        )
        if found:
            return found
    return (
        named
        or _bare(closing, item)
        or by_restatement([*parts[:1], *closing], item)
        or _by_words([*parts[:1], *closing], item)
    )


def _by_words(parts: Sequence[str], item: Item) -> Labels | None:
    """Return the one option all of whose content words a sentence has, in whatever form, without denying it."""
    options = [(label, words) for label, content in contents(item) if len(words := content_words(content)) > 0]
    for sentence in parts:
        said = content_words(sentence)
        found = [label for label, words in options if words <= said]
        if len(found) == 1 and not DENIES.search(sentence):
            return (found[0],)
    return None


_CONDITIONAL = re.compile(r"[Ii]f\b.*\bthe (?:correct )?(?:answer|option)\b|[Oo]therwise\b", re.DOTALL)


def _everywhere(parts: Sequence[str], item: Item) -> Labels | None:
    """Return every label that any sentence names."""
    labels = [label for sentence in parts for label in _affirmed(sentence, item) or ()]
    return _known(labels, item)


_ARRIVES = re.compile(
    r"(?:\b(?:is|are|be|was|choose|chose|select|pick|to|of|letter|option|choice)\b|[:=→])\s*(?:the\s+|either\s+|likely\s+|most\s+likely\s+)?"
    r"(?:option|choice|answer|letter)?\s*[(\[\"']*\s*$",
    re.IGNORECASE,
)


def _labels(sentence: str, item: Item) -> list[str]:
    return [label for _, labels in _mentions(sentence, item) for label in labels]


def _mentions(sentence: str, item: Item) -> list[tuple[re.Match[str], list[str]]]:
    """Return the places where a sentence names options, with the labels of each."""
    patterns = alphabet(item.labels)
    found = []
    for match in patterns.mention.finditer(sentence):
        labels = patterns.token.findall(match["run"]) if match["run"] else [match["b"] or match["n"] or match["m"]]
        found.append((match, [label.upper() for label in labels]))
    return found


def _affirmed(sentence: str, item: Item, *, arriving: bool = False) -> Labels | None:
    """Return the labels that a sentence names without refuting them.

    Args:
        sentence: one sentence.
        item: says which labels there are.
        arriving: only labels that a copula, a colon or a verb of choice leads to.
    """
    kept: list[str] = []
    for match, labels in _mentions(sentence, item):
        before = sentence[max(0, match.start() - 40) : match.start()]
        if _NEGATED.search(before) or _REFUTED.match(sentence[match.end() : match.end() + 60]):
            continue
        if not arriving or _ARRIVES.search(before):
            kept += labels
    return _known(kept, item)


def _by_arrival(sentence: str, item: Item) -> Labels | None:
    """Return the option whose value a sentence arrives at after its last copula or equals sign."""
    options = contents(item)
    if not options or not any(number(content) for _, content in options):
        return None
    tail = re.split(r"\b(?:is|are|equals?|be|为|是)\b|=|≈|:", sentence)[-1]
    valued = _by_value(tail, options)
    if valued is None:
        arrived = numbers.in_prose(sentence, item.question)
        valued = _by_value(f"{arrived.value:.12g}", options) if arrived is not None else None
    return (valued,) if valued else None


def _bare(parts: Sequence[str], item: Item) -> Labels | None:
    """Return the labels of the first of these sentences that has bare capitals which are no article."""
    pattern = alphabet(item.labels).bare
    for sentence in parts:
        labels = [
            match[1]
            for match in pattern.finditer(sentence)
            if not (match[1] in {"A", "I"} and re.match(r"\s+[a-z]", sentence[match.end() :]))
            and not _NEGATED.search(sentence[max(0, match.start() - 40) : match.start()])
            and not _REFUTED.match(sentence[match.end() :])
        ]
        if labels:
            return _known(labels, item)
    return None
