r"""Where in a response an answer may stand: an ordered list of spans, the strongest claim first.

    tag         the content of the last `<answer>` or, as LLaVA-CoT writes it, `<CONCLUSION>` tag
    boxed       the last balanced `\boxed{}`, then the ones before it
    json        the "short answer" (or "answer") of a JSON object
    final       the last line, where it is "Answer: ...": nothing behind it is searched where it cannot be read
    cue         what follows "the answer is", "Answer:", "答案是", ..., the last first
    verdict     what stands before "is the correct answer", "is correct"
    whole       the response itself, where it is one short line
    bold        what is set in bold, in the last conclusion or first

What a span says is for the reader of the item's answer type; the first span that it can read decides.
"""

import json
import re
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from ahabench.harness.answers.text import CONCLUDES, window

MAX_SPAN = 400
"""Characters of a span; an answer is shorter."""
MAX_CUES = 12
"""Cues that are tried, from the last."""
MAX_BOXES = 4


class Span(NamedTuple):
    """A piece of a response that claims to be the answer."""

    extractor: str
    text: str


_TAG_OPEN = re.compile(r"<(?:answer|conclusion)>", re.IGNORECASE)
_TAG_CLOSE = re.compile(r"</(?:answer|conclusion)>", re.IGNORECASE)
_SHORT_ANSWER = re.compile(r'"(?:short[ _]?answer|final[ _]?answer|answer)"\s*:\s*', re.IGNORECASE)
_CUE = re.compile(
    r"""
    (?:
        \banswers?
        (?:\s+(?:choice|option|letter|value))?
        (?:\s+(?:to|for|of)\s[^\n.:?]{1,160}?)?
        \s*(?:\s(?:is|are|was|would\sbe|should\sbe|must\sbe|will\sbe|=)\b|[:=>]+)
      | \b(?:correct|right|best|matching|chosen)\s+(?:option|choice|letter|statement|figure|diagram)s?
        (?:\s+(?:letter|choice|option))?
        (?:\s+(?:to|for|of)\s[^\n.:?]{1,160}?)?
        \s*(?:\s(?:is|are|would\sbe|should\sbe|must\sbe|=)\b|[:=])
      | (?:正确)?(?:答案|选项|结果)\s*(?:应该|应当|应|就|即)?\s*(?:是|为|选|[:=])
      | (?:故|应|因此|所以)\s*选择?\s*[:]?
      | (?:选项|选择|选)\s*(?=[(\[]?[A-I]{1,5}\b)
      | (?:正解|答え)\s*は | (?:정답|답)\s*은
      | \bfinal\s+(?:result|value)s?\s*(?:\s(?:is|are)\b|[:=])
      | \bfinal\s+(?:answer|result|value)s?\s*\n
      | \banswers?\s*\n
    )
    [\s:*]*
    """,
    re.IGNORECASE | re.VERBOSE,
)


def _last_label(text: str) -> str:
    """Return the text from its last label: in "of B and D, B is better" the last is meant."""
    labels = list(re.finditer(r"\(?\b[A-I]\b\)?", text))
    return text[labels[-1].start() :] if len(labels) > 2 else text


_BOLD = re.compile(r"\*\*([^*\n]{1,80})\*\*")
_ANCHOR = re.compile(r"answer|correct|right|best|matching|chosen|final|[正答选结故应因所정답]", re.IGNORECASE)
_VERDICT_WORD = re.compile(r"correct|right|best|better|true|正确|对的")
_VERDICT = re.compile(
    r"""
    (?P<item>\b[A-I]\b)\s*(?:项|选项)?\s*(?:是)?(?:正确|对的) |
    (?:\b(?:option|choice|answer|statement)\s+)?
    (?P<answer>\(?\b[A-Ia-i]\b\)?(?:[.:)]?\s[^\n.]{1,80}?)??)
    ,?\s+(?:is|are|seems\sto\sbe|would\sbe|must\sbe)\s+(?:therefore\s+|thus\s+|also\s+)?
    (?:the\s+)?(?:only\s+|most\s+)?(?:correct|right|best|better|true)(?:\s+(?:answer|option|choice|one))?\b
    """,
    re.VERBOSE,
)
_NOT_BEFORE = re.compile(r"\b(?:not|neither|nor|no|none|if|whether|isn't|aren't)\b[^.\n]{0,25}$", re.IGNORECASE)
_HEADING = re.compile(r"(?:^|\n)\s*[^\w\n]{0,6}(?:final |correct )?answer\s*:[\s:*]*$", re.IGNORECASE)
MAX_HEADING = 40
_CONDITION = re.compile(r"\b(?:[Ii]f|[Ww]hether|[Uu]nless)\b[^.\n]*$")
_END = re.compile(r"\n|(?<=[a-z0-9)\]}°%*\"'])[.!](?=\s+[A-Z\"*(]|\s*$)")


def marked_spans(text: str) -> Iterator[Span]:
    """Yield what is marked as the answer by form: tags, boxes, JSON; the strongest claim first."""
    yield from _tagged(text)
    for content in boxes(text):
        yield Span("boxed", content)
    yield from _json(text)


def claimed_spans(text: str) -> Iterator[Span]:
    """Yield what words claim to be the answer, the strongest claim first."""
    text = without_tags(window(text))
    yield from _cued(text)
    yield from _judged(text)
    if 0 < len(text.strip()) <= MAX_SPAN and "\n" not in text.strip():
        yield Span("whole", text.strip())
    yield from _emphasised(text)


def without_tags(text: str) -> str:
    """Return a text with line breaks for answer tags, so that no sentence runs on into one."""
    return _TAG_CLOSE.sub("\n", _TAG_OPEN.sub("\n", text)) if "<" in text else text


def boxes(text: str) -> Iterator[str]:
    r"""Yield the contents of the last few `\boxed{}` or `\fbox{}` with balanced braces, the last first."""
    end = len(text)
    for _ in range(MAX_BOXES):
        # Where somebody took "\b" for a backspace, "oxed{" is left.
        start = max(text.rfind(mark, 0, end) for mark in ("\\boxed", "oxed{", "\\fbox"))
        if start < 0:
            return
        content = _braced(text, start)
        if content is not None and content.strip():
            yield content.strip()
        end = start


def _braced(text: str, start: int) -> str | None:
    opening = text.find("{", start, start + 9)
    if opening < 0:
        found = re.compile(r"\\f?boxed\s+(\S{1,40})").match(text, start)
        return found[1] if found else None
    depth = 0
    for index in range(opening, min(len(text), opening + 4 * MAX_SPAN)):
        if text[index] == "{":
            depth += 1
        elif text[index] == "}":
            depth -= 1
            if depth == 0:
                return text[opening + 1 : index]
    # Cut off inside the box, at the very end.
    rest = text[opening + 1 :]
    return rest.rstrip(" $.\n") if len(rest) <= MAX_OPEN_BOX and "\n" not in rest.strip() else None


MAX_OPEN_BOX = 60
"""Characters of a box that was never closed, at the end of a response."""


def _tagged(text: str) -> Iterator[Span]:
    """Yield the contents of answer tags, the last first, or of their only box; an unclosed last tag runs to the end."""
    end = len(text)
    for opened in reversed(deque(_TAG_OPEN.finditer(text), maxlen=MAX_BOXES)):
        closed = _TAG_CLOSE.search(text, opened.end(), end)
        content = text[opened.end() : closed.start() if closed else end].strip()
        if content:
            boxed = list(boxes(content))
            yield Span("tag", boxed[0] if len(boxed) == 1 else content)
        end = opened.start()


def _json(text: str) -> Iterator[Span]:
    """Yield the short answer of a JSON object, read leniently: models put LaTeX and line breaks inside the strings."""
    if '"' not in text or ":" not in text:
        return
    for found in list(_SHORT_ANSWER.finditer(window(text)))[-2:][::-1]:
        rest = found.string[found.end() : found.end() + 4 * MAX_SPAN]
        value = _json_value(rest)
        if value:
            yield Span("json", value)


_JSON_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_JSON_SCALAR = re.compile(r"[^,}\n]+")


def _json_value(rest: str) -> str | None:
    if rest.startswith('"'):
        quoted = _JSON_STRING.match(rest)
        if quoted is None:
            return None
        try:
            # Only a well-formed escape is one: "\frac" would decode to a form feed, so LaTeX commands stay as they are.
            if not re.search(r"\\[a-zA-Z]{2,}", quoted[0]):
                return str(json.loads(quoted[0], strict=False)).strip()
        except ValueError:
            pass
        return quoted[1].replace("\\\\", "\\").replace('\\"', '"').strip()
    if rest.startswith("["):
        return rest[: rest.find("]") + 1] or None
    scalar = _JSON_SCALAR.match(rest)
    value = scalar[0].strip() if scalar else ""
    return None if value in {"", "null", "{"} else value


def _cues(text: str) -> Iterator[re.Match[str]]:
    """Yield the cues, in order. They are looked for only where one of their first words stands: four times as fast."""
    end = 0
    for anchor in _ANCHOR.finditer(text):
        if anchor.start() >= end and (cue := _CUE.match(text, anchor.start())):
            end = cue.end()
            yield cue


def _cued(text: str) -> Iterator[Span]:
    found = list(_cues(text))
    for cue in reversed(found[-MAX_CUES:]):
        span = _to_end(text, cue.end())
        if not span or _CONDITION.search(text[max(0, cue.start() - 200) : cue.start()]):
            continue
        last_line = cue is found[-1] and "\n" not in text[cue.end() :].strip()
        yield Span("final" if last_line and _HEADING.search(text[: cue.end()][-MAX_HEADING:]) else "cue", span)


def _emphasised(text: str) -> Iterator[Span]:
    """Yield the bold words of the last conclusion, else the first bold words: models set the answer in bold."""
    found = list(_BOLD.finditer(text))
    concluding = [
        bold for bold in found if CONCLUDES.search(text[max(0, bold.start() - 200) : bold.start()].split("\n")[-1])
    ]
    for bold in concluding[-1:] or found[:1]:
        yield Span("bold", bold[1])


def _to_end(text: str, start: int) -> str:
    """Return the text to the end of its sentence; the next line where this one is empty."""
    rest = text[start : start + MAX_SPAN].lstrip(" *:\n\t")
    end = _END.search(rest)
    return rest[: end.start()].strip() if end else rest.strip()


def _judged(text: str) -> Iterator[Span]:
    if not _VERDICT_WORD.search(text):
        return
    for found in reversed(list(_VERDICT.finditer(text))[-MAX_CUES:]):
        before = text[max(0, found.start() - 40) : found.start()]
        if not _NOT_BEFORE.search(before):
            answer = found["answer"] or found["item"]
            yield Span("verdict", answer if " are " in found[0] else _last_label(answer))
