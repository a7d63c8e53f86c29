"""The labels of an item's options as patterns, and listings of the options, which are no answer."""

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from ahabench.harness.answers.compare import squeezed
from ahabench.harness.types import AnswerType, Item

Labels = tuple[str, ...]

LISTING = " \N{WHITE SQUARE} "
"""Stands where a listing of all the options was."""

MAX_GAP = 10
"""Characters beyond an option's content that may stand before the next label of a listing."""

_NOUN = (
    r"options?|choices?|answers?|letters?|figures?|diagrams?|box(?:es)?|images?|pictures?|statements?|plans?|sets?"
    r"|shapes?|rows?|选项|答案|图形?"
)
_SEPARATOR = r"\s*(?:,\s*(?:and|or)\b|,|/|&|\band\b|\bor\b|;|\+|和|与|及)\s*"


class Alphabet:
    """The compiled patterns of one set of labels, such as A to E."""

    def __init__(self, labels: Labels) -> None:
        one = "|".join(re.escape(label) for label in labels)
        any_case = "|".join(dict.fromkeys([*map(re.escape, labels), *(re.escape(label.lower()) for label in labels)]))
        noun = rf"(?:(?:the\s+)?(?:correct\s+)?(?:{_NOUN})\s*:?\s+)?"
        opening, closing = r"[(\[{<\"']\s*", r"\s*[)\]}>\"']"
        token = rf"(?:{opening}(?:{any_case}){closing}|(?:{one})(?![\w'’]))"
        self.alone = re.compile(rf"^{noun}[(\[{{<\"']*\s*({any_case})\s*[)\]}}>\"'.:,;!]*$", re.IGNORECASE)
        self.enclosed = re.compile(rf"^{noun}{opening}({any_case}){closing}\s*(.*)$", re.DOTALL | re.IGNORECASE)
        self.marked = re.compile(rf"^{noun}({any_case})\s*(?:[).:,;]|-\s)\s*(.*)$", re.DOTALL)
        self.followed = re.compile(
            rf"^(?:(?:the\s+)?(?:correct\s+)?(?:{_NOUN})\s*:?\s+({one})|({one}))\s+(.*)$", re.DOTALL
        )
        self.several = re.compile(rf"^{noun}{token}(?:[.)]?{_SEPARATOR}{token})+")
        self.token = re.compile(rf"(?<![\w'’])(?:{any_case})(?![\w'’])")
        self.joined = re.compile(rf"^(?:{one}){{2,}}$")
        self.listed = re.compile(rf"[(\[]\s*({any_case})\s*[)\]]|(?:^|(?<=[\s,;]))({one})[).:](?=\s)", re.MULTILINE)
        gap = r"\s*[)\]]?\s*,\s*(?:and\s+|or\s+)?[(\[]?\s*|\s+(?:and|or)\s+[(\[]?\s*"
        inner = rf"(?:{gap})".join(re.escape(label) for label in labels)
        self.compact = re.compile(rf"[(\[]?(?<!\w){inner}(?!\w)\s*[)\]]?" if len(labels) > 2 else r"(?!)")
        run = rf"(?<![\w'’])(?:{one})(?:\s*(?:,\s*(?:and\s+|or\s+)?|\band\b|\bor\b|&)\s*(?:{one}))+(?![\w'’])"
        self.mention = re.compile(
            rf"(?:(?i:\b(?:{_NOUN})\s+))?(?P<run>{run})"
            rf"|[(\[]\s*(?P<b>{any_case})\s*[)\]]"
            rf"|(?i:\b(?:{_NOUN})\s+)[(\"']?(?P<n>{one})\b(?!['’]\w)"
            rf"|(?:^|(?<=\s)|(?<=[\"']))(?P<m>{one})(?:[):]|\.(?!\w))(?=\s|$)"
        )
        self.bare = re.compile(rf"(?<![\w'’\-\\$^_({{=+*/])({one})(?![\w'’\-^_(=+*/°]|\s*[=+*/<>≈]|\.\w)")


@lru_cache(maxsize=256)
def alphabet(labels: Labels) -> Alphabet:
    """Return the patterns of a set of labels, compiled once."""
    return Alphabet(labels)


def opened_by(parts: Sequence[str], labels: Labels) -> set[str]:
    """Return the labels that lines or sentences begin with, in upper case."""
    patterns = alphabet(labels)
    openings = [patterns.enclosed.match(part) or patterns.marked.match(part) for part in parts]
    return {match[1].upper() for match in openings if match}


def without_listing(text: str, item: Item) -> str:
    """Return the text with `LISTING` for each run that prints all the options in order, which chooses none."""
    if len(item.labels) < 2:
        return text
    if item.answer_type is not AnswerType.CHOICES:
        text = alphabet(item.labels).compact.sub(LISTING, text)
    found = [
        (next(filter(None, match.groups())).upper(), match.start(), match.end())
        for match in alphabet(item.labels).listed.finditer(text)
    ]
    upper = [label.upper() for label in item.labels]
    pieces, position = [], 0
    for first in range(len(found) - len(upper) + 1):
        run = found[first : first + len(upper)]
        if [label for label, _, _ in run] == upper and run[0][1] >= position and _is_dense(text, run, item):
            pieces.append(text[position : run[0][1]] + LISTING)
            position = _end_of_option(text, run[-1][2], item)
    return "".join(pieces) + text[position:] if pieces else text


def _is_dense(text: str, run: Sequence[tuple[str, int, int]], item: Item) -> bool:
    """Whether each label of a run is followed by its option's content and little else."""
    contents = item.choices or ("",) * len(run)
    gaps = [text[end:after] for (_, _, end), (_, after, _) in pairwise(run)]
    return all(len(gap.strip()) <= len(content) + MAX_GAP for gap, content in zip(gaps, contents, strict=False))


def _end_of_option(text: str, start: int, item: Item) -> int:
    """Return where the last option's content ends: after its words if known, else with its line."""
    content = item.choices[-1] if item.choices else ""
    rest = text[start : start + len(content) + 40]
    offset = len(rest) - len(rest.lstrip())
    if content and rest.lstrip().casefold().startswith(content.casefold()):
        return start + offset + len(content)
    line = re.compile(r"[ \t]*[^\s.;]*(?:[^\n.;]*?)(?=\n|$|[.;]\s|\?\s|\s[Aa]nswer)").match(text, start)
    return line.end() if line else start


def contents(item: Item) -> list[tuple[str, str]]:
    """Return (label, content) of the options that say more than a label."""
    if not item.choices or item.choices == item.labels:
        return []
    pairs = list(zip(item.labels, item.choices, strict=True))
    return [(label, content) for label, content in pairs if squeezed(content)]
