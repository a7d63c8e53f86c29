"""Which part of a response is read for moments, and what in it is not the model's own thought."""

import re
from typing import NamedTuple

_NAMES = "think|thinking|thought|reasoning|seed:think|reason|reflection"
_OPEN = rf"<(?:{_NAMES})>|◁think▷|<\|begin_of_thought\|>|\[THINK\]|<\|channel\|>analysis<\|message\|>|<unused94>"
_CLOSE = rf"</(?:{_NAMES})>|◁/think▷|<\|end_of_thought\|>|\[/THINK\]|<\|end\|>|<\|channel\|>final|<unused95>"
_TAG = re.compile(f"(?P<open>{_OPEN})|(?P<close>{_CLOSE})", re.IGNORECASE)
_ANGLE = re.compile("<[/|trsuTRSU]")
"""Any tag that begins with "<": looked for first, since a pattern with a fixed first character is much faster."""

_QUOTED = {
    # The mark stands first, so that the search for it is fast; what stood before it is looked at then.
    '"': re.compile(r"""\"(?<![\w"]")(?=\S)[^"\n]{1,300}(?<=\S)"(?!\w)"""),
    "“": re.compile(r"“[^“”\n]{1,300}”"),
    "「": re.compile(r"「[^「」\n]{1,300}」"),
    "『": re.compile(r"『[^『』\n]{1,300}』"),
    "«": re.compile(r"«[^«»\n]{1,300}»"),
    "`": re.compile(r"`[^`\n]{1,300}`"),
    # An apostrophe inside would end it too early, so it must be followed by a word's end.
    "'": re.compile(r"'(?<![\w']')(?=[^\s'])[^'\n]{1,100}(?<=[^\s'])'(?!\w)"),
}
BLANK = "\x1a"
"""What stands for a quoted character: no letter, no blank, no mark of punctuation."""

_PLAIN = (("’", "'"), ("‘", "'"), ("*", " "), ("_", " "), ("\t", " "), ("\r", " "), ("\u00a0", " "), ("\u3000", " "))


class Span(NamedTuple):
    """Half-open character offsets."""

    start: int
    end: int


def thought(text: str) -> tuple[Span, ...]:
    """Return where the model thinks: inside its think tags; everywhere if there are none or nothing stands in them.

    A tag that is never closed reaches to the end; one that was opened by the chat template, so that only its end
    stands in the response, begins at the start.
    """
    if not (_ANGLE.search(text) or "◁" in text or "THINK]" in text or "think]" in text):
        return (Span(0, len(text)),)
    spans: list[Span] = []
    opened: int | None = None
    closed_any = False
    for tag in _TAG.finditer(text):
        if tag["open"]:
            opened = tag.end() if opened is None else opened
        elif opened is not None or not closed_any:
            spans.append(Span(opened or 0, tag.start()))
            opened, closed_any = None, True
    if opened is not None:
        spans.append(Span(opened, len(text)))
    inside = tuple(span for span in spans if text[span.start : span.end].strip())
    return inside or (Span(0, len(text)),)


def readable(text: str) -> str:
    """Return a text of the same length for the patterns: lower case, plain apostrophes, emphasis and quotes blanked."""
    low = text.lower()
    if len(low) != len(text):
        # "İ" grows; offsets must not.
        low = "".join(char if len(char.lower()) != 1 else char.lower() for char in text)
    for old, new in _PLAIN:
        if old in low:
            low = low.replace(old, new)
    for quote, pattern in _QUOTED.items():
        if quote in low:
            low = pattern.sub(lambda found: BLANK * len(found[0]), low)
    return low


class Copied:
    """Tells whether a stretch of a response stands in the question too.

    Args:
        question: what the model was asked.
        words: this many in a row make a copy; fewer may be chance.
    """

    def __init__(self, question: str, words: int = 4) -> None:
        self._n = words
        said = _words(question)
        self._grams = {tuple(said[i : i + words]) for i in range(len(said) - words + 1)}

    def covers(self, text: str, span: Span) -> bool:
        """Whether every word of the span belongs to a run of words that stands in the question."""
        if not self._grams:
            return False
        reach = 40 * self._n
        start, end = max(0, span.start - reach), span.end + reach
        found = [(m.start() + start, m.end() + start, m[0].lower()) for m in _WORD.finditer(text[start:end])]
        words = [word for _, _, word in found]
        covered = [False] * len(words)
        for i in range(len(words) - self._n + 1):
            if tuple(words[i : i + self._n]) in self._grams:
                covered[i : i + self._n] = [True] * self._n
        own = [known for (a, b, _), known in zip(found, covered, strict=True) if a < span.end and b > span.start]
        return bool(own) and all(own)


_WORD = re.compile(r"[一-鿿]|[^\W_]+")


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]
