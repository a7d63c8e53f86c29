"""VLMEvalKit's prefetch: the letter it reads out of a multiple-choice response before it would call its judge."""

import re
from collections.abc import Mapping
from typing import Literal

Release = Literal["2025-04", "2026-08"]
"""VLMEvalKit at a20fe37c (April 2025, the VLAA-Thinking paper's days) or at e8e78f0 (August 2026)."""

REFUSED = "Z"
"""The letter for a response that refuses: never an option, so it is wrong without a judge."""

_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_FAILED = "Failed to obtain answer via API"
_PUNCTUATION = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_ANSWER_IS = re.compile(r"answer\s+is\s+\**([ABCD])", re.IGNORECASE)


def can_infer(response: str, choices: Mapping[str, str], *, release: Release = "2026-08") -> str | None:
    """Return the option's label, "Z" for a refusal, or `None` where VLMEvalKit would ask its judge.

    The first step that finds something decides: a label that stands alone, then (2026 only) the words "answer is X",
    then the one option whose text the response repeats. Time is linear in the response.

    Source: `can_infer` in vlmeval/utils/matching_util.py of the release.

    Args:
        response: the whole text of the model.
        choices: the options' texts by their labels, in order. The texts may be empty only where they are unknown to
            VLMEvalKit as well, since an empty text is part of every response.
        release: which version of the rules. The later one wants the label among the last four words, reads
            "answer is X" for A to D, and looks for options' texts only in short responses.
    """
    label = _label(response, choices, release)
    return label if label is not None else _text(response, choices, release)


def _label(response: str, choices: Mapping[str, str], release: Release) -> str | None:
    if _FAILED in response:
        return None
    if any(refusal in response for refusal in _REFUSALS):
        return REFUSED
    words = response.translate(_PUNCTUATION).split()
    present = [label for label in choices if label in words]
    if len(present) == 1 and (release == "2025-04" or words.index(present[0]) > len(words) - 5):
        return present[0]
    if not present and REFUSED in words:
        return REFUSED
    match = _ANSWER_IS.search(response) if release == "2026-08" else None
    if match and match[1].upper() in choices:
        return match[1].upper()
    return None


def _text(response: str, choices: Mapping[str, str], release: Release) -> str | None:
    lowered = response.lower()
    # The later release does not search a long explanation, in which an option's text may well be named and dismissed.
    if release == "2026-08" and len(lowered) > 2 * sum(map(len, choices.values())):
        return None
    present = [label for label, text in choices.items() if text.lower() in lowered]
    return present[0] if len(present) == 1 else None
