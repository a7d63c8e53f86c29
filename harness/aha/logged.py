"""What a trainer logs of one step's completions: our counts and every published rule's, side by side."""

from collections import Counter
from collections.abc import Sequence

from ahabench.harness.aha.lexicon import MomentClass, published_rules
from ahabench.harness.aha.moments import read


def logged(texts: Sequence[str], questions: Sequence[str] = (), *, tokens: Sequence[int] = ()) -> dict[str, float]:
    """Return the numbers of a step by name, all means over its completions; `{}` where there are none.

    "aha/with_moment", "aha/loops" and "aha/rule/<name>" (a published keyword rule fires) are shares in [0, 1];
    "aha/moments" and "aha/class/<class>" are moments per completion; "aha/per_1000_tokens" is there where the lengths
    are, "aha/hedges_per_1000_words" where there are words. Each name is there at every step, zeros included, so that
    the curves have no gaps; the values of step 0 are the baseline without which the others say nothing of training.
    Takes well under a millisecond for a completion of a few hundred words.

    Args:
        texts: the completions.
        questions: one for each; wording copied from it does not count. Empty where they are not known.
        tokens: the length of each completion. Empty where it is not known.

    Raises:
        ValueError: there are some questions or lengths, and not one for each completion.
    """
    if not texts:
        return {}
    n = len(texts)
    readings = [read(text, asked) for text, asked in zip(texts, questions or [""] * n, strict=True)]
    moments = sum(len(reading.moments) for reading in readings)
    classes = Counter(moment.kind for reading in readings for moment in reading.moments)
    found = {
        "aha/with_moment": sum(bool(reading.moments) for reading in readings) / n,
        "aha/moments": moments / n,
        "aha/loops": sum(bool(reading.loops) for reading in readings) / n,
    }
    for kind in MomentClass:
        if kind is not MomentClass.UNCERTAINTY:
            found[f"aha/class/{kind.value}"] = classes[kind] / n
    for rule in published_rules():
        found[f"aha/rule/{rule.name}"] = sum(rule.count(text) > 0 for text in texts) / n
    if tokens and len(tokens) != n:
        raise ValueError(f"{len(tokens)} lengths for {n} completions")
    if total := sum(tokens):
        found["aha/per_1000_tokens"] = 1_000 * moments / total
    if words := sum(reading.words for reading in readings):
        found["aha/hedges_per_1000_words"] = 1_000 * sum(reading.hedges for reading in readings) / words
    return found
