"""Reading an option out of a statement: yes or no to what was asked, that none fits, that there is no knowing."""

import re
from collections.abc import Sequence

from ahabench.harness.answers.compare import squeezed
from ahabench.harness.answers.labels import Labels, contents
from ahabench.harness.answers.text import DECLINES, UNANSWERED
from ahabench.harness.types import Item

_TRUE_FALSE = {"yes": True, "true": True, "no": False, "false": False}
DENIES = re.compile(r"\b(?:not|no|never|neither|none|nor|cannot)\b|n't\b", re.IGNORECASE)
_OPPOSITES = {
    "more": "less", "fewer": "more", "less": "more", "greater": "less", "smaller": "larger", "larger": "smaller",
    "higher": "lower", "lower": "higher", "taller": "shorter", "shorter": "taller", "longer": "shorter",
    "bigger": "smaller", "wider": "narrower", "minimum": "maximum", "maximum": "minimum", "highest": "lowest",
    "lowest": "highest", "above": "below", "below": "above", "positive": "negative", "negative": "positive",
    "even": "odd", "odd": "even",
}  # fmt: skip
_EMPTY = frozenset(
    "a an the is are was were be been do does did can could will would has have had of in on at to than that this "
    "there it its may might likely also he she they by for from and or as with image picture figure photo based any "
    "number numbers answer value only option".split()
)
SHARED = 0.7
"""Share of a yes/no question's content words that a sentence must repeat to be its restatement."""
_NONE_OPTION = re.compile(r"^(?:none\b|no correct|neither)", re.IGNORECASE)
_UNDECIDED_OPTION = re.compile(
    r"^(?:(?:it )?(?:cannot|can't)\b|(?:it is )?(?:not possible|impossible)(?:$|\W+$|\s+to\s+(?:answer|calculate"
    r"|compute|decide|determine|find|know|predict|say|tell)\b)|insufficient|not enough)",
    re.IGNORECASE,
)
NONE_SAID = re.compile(
    r"\b(?:none|neither) of (?:the|these|them|those)\b|\bno correct (?:answer|option|choice)\b|\bnot (?:listed|among)\b"
    r"|\bnot one of the (?:options|choices|answers)\b"
    r"|^none\b|\bno such\b",
    re.IGNORECASE,
)
"""Says that no option fits."""
REJECTS = re.compile(
    r"\bnot (?:an|one of the) (?:options?|choices?)\b|\b(?:cannot|can't) be (?:selected|chosen)\b"
    r"|\bnot (?:an? )?(?:applicable|appropriate|viable)\b"
)
"""Says that an option is not to be taken."""


def by_restatement(parts: Sequence[str], item: Item) -> Labels | None:
    """Return yes or no for a sentence that states or denies what the question asks whether it is so."""
    sides = {
        _TRUE_FALSE[squeezed(content)]: label for label, content in contents(item) if squeezed(content) in _TRUE_FALSE
    }
    asked = content_words(item.question[-600:])
    if len(sides) != 2 or not asked:
        return None
    for sentence in parts:
        said = content_words(sentence)
        turned = {word for word in asked if _OPPOSITES.get(word) in said and word not in said}
        if len((asked & said) | turned) / len(asked) < SHARED or UNANSWERED.search(sentence):
            continue
        denied = bool(DENIES.search(sentence)) != bool(DENIES.search(item.question[-600:]))
        affirmed = (len(turned) + denied + _is_swapped(item.question[-600:], sentence)) % 2 == 0
        return (sides[affirmed],)
    return None


def content_words(text: str) -> frozenset[str]:
    """Return the words of a text that carry meaning, in lower case, without their commonest endings."""
    words = re.findall(r"[^\W_]+(?:\.\d+)?", text.casefold())
    return frozenset(_ENDING.sub("", word) if len(word) > MIN_STEM else word for word in words if word not in _EMPTY)


MIN_STEM = 4
"""Letters up to which a word is left whole."""
_ENDING = re.compile(r"(?:ing|ies|es|ed|s|y|e)$")


def _is_swapped(asked: str, said: str) -> bool:
    """Whether a comparison names its two sides the other way round than the question."""
    first, second = (re.split(r"\bthan\b", text, maxsplit=1, flags=re.IGNORECASE) for text in (asked, said))
    if len(first) < 2 or len(second) < 2:
        return False
    left, right = content_words(first[0][-200:]), content_words(first[1][:200])
    only_left, only_right = left - right, right - left
    here = content_words(second[0][-200:])
    there = content_words(second[1][:200])
    return len(here & only_right) + len(there & only_left) > len(here & only_left) + len(there & only_right)


def by_none(text: str, item: Item, *, declined: bool = False) -> Labels | None:
    """Return the option "none of these" where the text says so, or "cannot be determined" where it claims that.

    The two never stand for each other, and who only declines to answer has chosen neither.

    Args:
        text: a span or a sentence.
        item: says which options there are.
        declined: the response does not answer, so that "cannot be determined" is no claim about the question.
    """
    if not item.choices:
        return None
    is_claim = UNANSWERED.search(text) and not (declined or DECLINES.search(text) or REJECTS.search(text))
    for is_said, option in ((NONE_SAID.search(text), _NONE_OPTION), (is_claim, _UNDECIDED_OPTION)):
        found = [label for label, content in contents(item) if is_said and option.match(content.strip())]
        if len(found) == 1:
            return (found[0],)
    return None
