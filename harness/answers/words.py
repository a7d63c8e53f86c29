"""Comparing answers that are words: names, months, colours, times, short statements."""

import re

from ahabench.harness.answers.compare import elements, number, same_content, same_elements
from ahabench.harness.answers.text import unmarked, unwrapped

MAX_ANSWER = 120
"""Characters of a text that can be an answer in words; a longer one is a story in which anything occurs."""

_MONTHS = "january february march april may june july august september october november december".split()
_DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
_ARTICLES = re.compile(r"\b(?:the|a|an|is|it|it's|in|on|at|of|edge|month|color|colour|line)\b", re.IGNORECASE)
_NEGATION = re.compile(r"\b(?:not|no|isn't|never|neither|nor)\b", re.IGNORECASE)


def same_words(extracted: str, gold: str) -> bool:
    """Whether a short text says the gold: alike but for case, spacing and articles, a full name for a short one.

    A gold that occurs as a whole word of a short text is said by it, unless the text negates it or names a rival of the
    same kind (another month, another weekday).
    """
    if same_content(extracted, gold):
        return True
    first, second = elements(extracted), elements(gold)
    if second is not None:
        return first is not None and same_elements(first, second)
    if number(gold) is not None or _FORMULA.search(unwrapped(gold)):
        return False
    if _FORMULA.search(unwrapped(extracted)) and not _REAL_WORD.search(gold):
        return False
    said, wanted = _tokens(extracted), _tokens(gold)
    if not wanted or len(extracted) > MAX_ANSWER:
        return False
    if said == wanted:
        return True
    if _NEGATION.search(extracted) or len({token for token in said if token in _CALENDAR}) > 1:
        return False
    return any(said[start : start + len(wanted)] == wanted for start in range(len(said) - len(wanted) + 1))


_CALENDAR = frozenset(name[:3] for name in (*_MONTHS, *_DAYS))


def _tokens(text: str) -> list[str]:
    """Return the words of a text in lower case, calendar names cut to three letters, without articles."""
    plain = _ARTICLES.sub(" ", unwrapped(unmarked(text)))
    return [_short(token) for token in re.findall(r"[^\W_]+", plain.casefold())]


def _short(token: str) -> str:
    names = (*_MONTHS, *_DAYS)
    full = len(token) >= 3 and any(name.startswith(token) for name in names)
    return token[:3] if full or token in {"sept", "tues", "thurs"} else token


def is_statement(text: str) -> bool:
    """Whether a text is words, with perhaps a number among them, and no formula."""
    plain = unwrapped(unmarked(text))
    return bool(_REAL_WORD.search(plain)) and not _FORMULA.search(plain)


_REAL_WORD = re.compile(r"[^\W\d_]{3,}")
_FORMULA = re.compile(r"[\\^_=<>≤≥+*/|{}]|(?<![^\W\d_])-|-(?=\d)|\d[a-zA-Z]\b|\b[a-zA-Z]\s*-\s*\w\b")
