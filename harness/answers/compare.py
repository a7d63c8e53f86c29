"""Comparing an extracted answer with the gold, by answer type. Pure and total: any two strings, a yes or a no."""

import math
import re
from collections.abc import Sequence
from functools import lru_cache

from ahabench.harness.answers.numbers import Quantity, quantity
from ahabench.harness.answers.text import clean, unmarked, unwrapped

RELATIVE = 1e-9
"""Slack for the last bits of a float, never for an answer."""
MIN_SIGNIFICANT = 3
"""Digits from which a decimal may stand for a number that has no finite decimal form."""


@lru_cache(maxsize=65_536)
def squeezed(text: str) -> str:
    """Return the text without case, white space, LaTeX fonts, delimiters and closing punctuation."""
    text = unwrapped(unmarked(clean(text))).casefold()
    text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").replace("\\cdot", "*").replace("\\times", "*")
    text = re.sub(r"\^\s*\{?\s*\\circ\s*\}?|\\degree\b", "°", text)
    text = re.sub(r"√\{?(\w+)\}?", r"\\sqrt{\1}", text)
    text = re.sub(r"\^\{(\w)\}", r"^\1", text.replace("²", "^2").replace("³", "^3"))
    for letter, command in _COMMANDS.items():
        text = text.replace(letter, command)
    text = re.sub(r"(?<=\d)\s*[x×]\s*(?=\d)", "*", text)
    text = re.sub(r"(?<![\d:.])0(?=\d:\d\d(?!\d))", "", text)
    text = re.sub(r"[{}\s]", "", text) if "\\" not in text else re.sub(r"\s", "", text)
    text = re.sub(r"(?<![\d)])!$", "", text.strip(",:;?\"'`").rstrip(".,:;?\"'`"))
    return text if re.match(r"\.\d", text) else text.lstrip(".")


_COMMANDS = {
    "\N{GREEK SMALL LETTER PI}": "\\pi",
    "\N{GREEK SMALL LETTER THETA}": "\\theta",
    "\N{GREEK SMALL LETTER ALPHA}": "\\alpha",
    "\N{GREEK SMALL LETTER BETA}": "\\beta",
    "\N{GREEK SMALL LETTER GAMMA}": "\\gamma",
    "\N{GREEK SMALL LETTER PHI}": "\\phi",
    "\N{GREEK SMALL LETTER LAMDA}": "\\lambda",
    "\N{INFINITY}": "\\infty",
}


def in_latex(text: str) -> str:
    """Return a formula with its plain functions, Greek letters, powers and roots in LaTeX."""
    text = text.replace("²", "^2").replace("³", "^3")
    for letter, command in _COMMANDS.items():
        text = text.replace(letter, command + " ")
    text = re.sub(r"(?<![\\a-zA-Z])(sin|cos|tan|cot|sec|csc|log|ln)(?![a-z])", r"\\\1", text)
    return re.sub(r"√\s*(?:\(([^()]*)\)|(\w+))", lambda found: f"\\sqrt{{{found[1] or found[2]}}}", text)


@lru_cache(maxsize=65_536)
def number(text: str) -> Quantity | None:
    """Return the quantity that the text is, remembered; a relation between variables and several solutions are none."""
    return None if relates(text) or solutions(text) else quantity(mended(clean(text)))


def mended(text: str) -> str:
    """Return the text with missing closing braces added, and "{degrees}" and the like without their braces."""
    text = _BRACED_WORD.sub(r" \1", text)
    return text + "}" * min(max(0, text.count("{") - text.count("}")), 4)


_BRACED_WORD = re.compile(r"(?<!\\text)(?<!\\mathrm)(?<!\\mbox)\{([a-z]{3,16})\}")


def same_content(first: str, second: str) -> bool:
    """Whether two short texts say the same: the same characters but for form, or the same number exactly."""
    if names_differ(first, second):
        return False
    if squeezed(first) == squeezed(second):
        return squeezed(first) != ""
    a, b = number(first), number(second)
    return a is not None and b is not None and close(a.value, b.value)


def names_differ(first: str, second: str) -> bool:
    """Whether two equations give values to different names: "x = 4" is not "y = 4"."""
    names = [_NAME.match(unwrapped(text).strip()) for text in (first, second)]
    return all(names) and len({name[1].casefold() for name in names if name}) == 2


_NAME = re.compile(r"\$?([A-Za-z])\s*=")


def relates(text: str) -> bool:
    """Whether a text is an equation between expressions, such as a circle's: its right side alone does not say it."""
    left, equals, _ = text.partition("=")
    left = unwrapped(left) if equals else ""
    return bool(_OPERATION.search(left)) and bool(_VARIABLE.search(left))


_OPERATION = re.compile(r"[\w)}]\s*[+\-^²³]\s*[\w({\\]?|\\[dt]?frac\b|\\sqrt\b")
_VARIABLE = re.compile(r"(?<![a-zA-Z\\])[a-zA-Z](?![a-zA-Z])")


def solutions(text: str) -> list[str]:
    r"""Return the values that several equations give one unknown; empty for anything else.

    >>> solutions(r"x_1 = 2 \text{ or } x_2 = -3")
    ['2', '-3']
    """
    if text.count("=") < 2:
        return []
    found = [_SOLUTION.fullmatch(part.strip(" $")) for part in _SEPARATOR.split(unwrapped(text))]
    names = {match[1] if match else "" for match in found}
    return [match[2] for match in found if match] if len(found) > 1 and len(names) == 1 and names != {""} else []


_SEPARATOR = re.compile(r",|;|\\text\s*\{\s*(?:or|and)\s*\}|\b(?:or|and)\b|\\vee\b|\\lor\b")
_SOLUTION = re.compile(r"([a-zA-Z])(?:_?\{?\d\}?)?\s*=\s*([^=]{1,60})")


def same_solutions(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether two lists have the same values, in any order."""
    left = list(first)
    for value in second:
        match = next((one for one in left if same_content(one, value)), None)
        if match is None:
            return False
        left.remove(match)
    return not left


def close(first: float, second: float) -> bool:
    """Whether two floats are the same number but for rounding in the last bits."""
    return math.isclose(first, second, rel_tol=RELATIVE, abs_tol=1e-12)


def same_integer(extracted: Quantity, gold: str) -> bool:
    """Whether the number is the gold; a decimal is cut to an integer (MathVista, calculate_score.py@53d5258)."""
    if extracted.decimals is None:
        return close(extracted.value, float(gold))
    return abs(extracted.value) < 1e18 and int(extracted.value) == int(float(gold))


def same_rounded(extracted: Quantity, gold: str, precision: int) -> bool:
    """Whether the number rounds to the gold at the item's precision (MathVista, calculate_score.py@53d5258)."""
    return close(round(extracted.value, precision), float(gold))


def within(extracted: Quantity, gold: float, tolerance: float) -> bool:
    """Whether the absolute difference is at most the tolerance."""
    return abs(extracted.value - gold) <= tolerance * (1 + RELATIVE)


def same_number(extracted: Quantity, gold: Quantity) -> bool:
    """Whether two quantities are equal, or the extracted decimal is the gold correctly rounded.

    A rounding counts only for a gold that is not itself a decimal (a fraction, a root, a multiple of pi) and only with
    `MIN_SIGNIFICANT` digits or more, at least two of them after the point.
    """
    if close(extracted.value, gold.value):
        return True
    if gold.decimals is not None or extracted.decimals is None or extracted.decimals < 2:
        return False
    unit = 10.0**-extracted.decimals
    significant = abs(extracted.value) >= 10 ** (MIN_SIGNIFICANT - 1 - extracted.decimals)
    return significant and abs(extracted.value - gold.value) <= 0.5 * unit * (1 + 1e-6)


_LIST_BRACKETS = re.compile(r"^[\[({<⟨]\s*(.*?)\s*[\])}>⟩]$", re.DOTALL)


def elements(text: str) -> list[str] | None:
    r"""Return the elements of a list, tuple, interval or set such as "(1, 2)", "\{1, 2\}"; `None` for anything else."""
    text = unwrapped(text).replace("\\{", "{").replace("\\}", "}").replace("\\langle", "<").replace("\\rangle", ">")
    found = _LIST_BRACKETS.match(text.strip().rstrip("."))
    inner = found[1] if found else text
    if "," not in inner and ";" not in inner:
        return [inner.strip()] if found and text.strip()[0] in "[{" else None
    parts: list[str] = []
    depth, start = 0, 0
    for index, character in enumerate(inner):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character in ",;" and depth == 0:
            parts.append(inner[start:index])
            start = index + 1
    parts.append(inner[start:])
    return [part.strip() for part in parts]


def same_elements(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether two lists are equal element by element."""
    return len(first) == len(second) and all(same_content(a, b) for a, b in zip(first, second, strict=True))


def points(text: str) -> list[str]:
    """Return the points and intervals that a text names, as they stand."""
    return _POINT.findall(text)


_POINT = re.compile(r"[\[(][^\[\](),]{1,60},[^\[\](),]{1,60}[\])]")


def same_named(first: str, second: str) -> bool:
    """Whether two texts give the same points or intervals, more than one, to the same words.

    >>> same_named("Domain: [-4, 4], Range: [0, 2]", "domain: [-4,4] and range: [0,2]")
    True
    """
    said, wanted = points(first), points(second)
    if len(said) < 2 or len(said) != len(wanted) or _words(first) != _words(second):
        return False
    return all(
        same_ends(a, b) and same_elements(elements(a) or (), elements(b) or ())
        for a, b in zip(said, wanted, strict=True)
    )


def _words(text: str) -> list[str]:
    """Return the words of four letters and more, in lower case; "function" says nothing."""
    return [word for word in re.findall(r"(?<!\\)\b[a-z]{4,}", unwrapped(text).casefold()) if word != "function"]


def same_ends(first: str, second: str) -> bool:
    """Whether two intervals are open and closed at the same ends; texts without brackets of that kind say nothing."""
    pairs = [(text.strip()[:1], text.strip().rstrip(".")[-1:]) for text in (unwrapped(first), unwrapped(second))]
    if not all(opening in "([" and closing in ")]" and opening for opening, closing in pairs):
        return True
    return pairs[0] == pairs[1]
