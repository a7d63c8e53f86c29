"""Reading yes or no out of a statement that affirms or denies what was asked."""

import re
from collections.abc import Sequence

from ahabench.harness.answers.compare import squeezed
from ahabench.harness.answers.labels import Labels, contents
from ahabench.harness.answers.text import UNANSWERED
from ahabench.harness.types import Item

_TRUE_FALSE = {"yes": True, "true": True, "no": False, "false": False}
_NOT = re.compile(r"\b(?:not|no|never|neither|none|nor|cannot)\b|n't\b", re.IGNORECASE)
_OPPOSITES = {
    "more": "less", "fewer": "more", "less": "more", "greater": "less", "smaller": "larger", "larger": "smaller",
    "higher": "lower", "lower": "higher", "taller": "shorter", "shorter": "taller", "longer": "shorter",
    "bigger": "smaller", "wider": "narrower", "minimum": "maximum", "maximum": "minimum", "highest": "lowest",
    "lowest": "highest", "above": "below", "below": "above", "positive": "negative", "negative": "positive",
    "even": "odd", "odd": "even",
}  # fmt: skip
_EMPTY = frozenset(
    "a an the is are was were be been do does did can could will would has have had of in on at to than that this "
    "there it its by for from and or as with image picture figure photo based any".split()
)
SHARED = 0.7
"""Share of a yes/no question's content words that a sentence must repeat to be its restatement."""


def by_restatement(parts: Sequence[str], item: Item) -> Labels | None:
    """Return yes or no for a sentence that states or denies what the question asks whether it is so."""
    sides = {
        _TRUE_FALSE[squeezed(content)]: label for label, content in contents(item) if squeezed(content) in _TRUE_FALSE
    }
    asked = _content_words(item.question[-600:])
    if len(sides) != 2 or not asked:
        return None
    for sentence in parts:
        said = _content_words(sentence)
        turned = {word for word in asked if _OPPOSITES.get(word) in said and word not in said}
        if len((asked & said) | turned) / len(asked) < SHARED or UNANSWERED.search(sentence):
            continue
        affirmed = (len(turned) % 2 == 0) == (bool(_NOT.search(sentence)) == bool(_NOT.search(item.question[-600:])))
        return (sides[affirmed],)
    return None


def _content_words(text: str) -> set[str]:
    return {word.rstrip("s") for word in re.findall(r"[a-z0-9]+", text.casefold())} - _EMPTY
