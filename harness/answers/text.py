"""Plain text out of what models write: one spelling for characters, the part that answers, bounded windows of it."""

import re

WINDOW = 12_000
"""Characters kept at either end of an answer part where prose is searched; longer texts lose their middle."""

_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_CHARACTERS = str.maketrans(
    {
        **{chr(code): chr(plain) for code, plain in _FULL_WIDTH.items()},
        "\u3000": " ",
        "\u00a0": " ",
        "\u2009": " ",
        "\u202f": " ",
        "。": ". ",
        "、": ", ",
        "，": ", ",
        "：": ": ",
        "；": "; ",
        "【": "[",
        "】": "]",
        "“": '"',
        "”": '"',
        "‘": "'",
        "’": "'",
        "−": "-",
        "–": "-",
        "‐": "-",
        "‑": "-",
        "—": " - ",
        "\x00": "",
        "\u200b": "",
        "\u200c": "",
        "\u200d": "",
        "\u2060": "",
        "\ufeff": "",
        "\r": "\n",
        # Typographic characters of Windows-1252 that were read as Latin-1.
        "\x91": "'",
        "\x92": "'",
        "\x93": '"',
        "\x94": '"',
        "\x85": "...",
        "\x96": "-",
        "\x97": " - ",
    }
)
_SPECIAL_TOKENS = re.compile(r"</?s>|<pad>|<eos>|<\|[a-z_]{1,24}\|>|<end_of_utterance>|<end_of_turn>")
_THINK_END = "</think>"
_THINK_START = "<think>"
# The asterisk of "2*3" and "2 * 3" multiplies.
_MARKUP = re.compile(r"\*{2,3}|\*(?!(?<=[\w)}]\*)[\w(\\])(?!(?<=[\w)}] \*) [\w(\\])|__|`+|(?m:^[ \t]{0,8}#{1,6}[ \t]+)")
_MARKUP_SIGN = re.compile(r"[*_`#]")
_WRAPPER = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|mathrm|mathbf|mathit|mathsf|mathbb|mbox|bf|rm|operatorname|boldsymbol|fbox"
    r"|underline)\*?\s*\{([^{}]*)\}"
)
_SPACING = re.compile(r"\\(?:left|right|displaystyle|limits|quad|qquad|bigl?|bigr?|Bigl?|Bigr?)\b|\\[,;:! ]|~")

_THIN_THOUSANDS = re.compile(r"(?<=\d)\\,(?=\d{3}(?!\d))")

CONCLUDES = re.compile(
    r"\b(?:therefore|thus|hence|so|consequently|in conclusion|in total|the answer|we conclude|this means|overall)\b"
    r"|所以|因此|故|∴|综上",
    re.IGNORECASE,
)
"""Words that open a conclusion."""
_FAILED_TO = (
    r"determin\w*|said|say|tell|know\w*|answer\w*|conclu\w*|provide\w*|calculat\w*|comput\w*|solve\w*|find|found|see"
    r"|view|identif\w*|help|process|infer\w*|judge\w*|measur\w*|assess\w*"
)
UNANSWERED = re.compile(
    r"\b(?:cannot|can't|can not|could not|couldn't|unable to|not able to|(?:not |im)possible to|difficult to)"
    rf"\s+(?:be\s+)?(?:\w+\s+){{0,2}}?(?:{_FAILED_TO})\b"
    r"|\b(?:insufficient|not enough|more|additional|further|without|missing|lacks?|lacking)"
    r"\s+(?:\w+\s+){0,3}?(?:information|data|context|details)\b"
    r"|\b(?:is|are|remains?)\s+(?:unknown|undefined|not (?:given|provided|specified|known|clear))\b"
    r"|\b(?:question|image|problem|text|solution|context|figure|graph) (?:does not|doesn't) (?:provide|give|specify)\b"
    r"|\bdoes not exist\b|\bno (?:\w+ )?information\b|\bplease provide\b",
    re.IGNORECASE,
)
"""Words that decline to answer, or say that there is no knowing."""
DECLINES = re.compile(
    r"\b(?:sorry|apolog\w+)\b|\bas an? (?:ai|language|text)\b"
    r"|\b(?-i:I)(?:'m|\s+am)?\s+(?:\w+\s+){0,2}?(?:cannot|can't|can not|could not|couldn't|unable|not able"
    r"|(?:do not|don't) (?:have|know|see))\b"
    r"|\bplease\b|\b(?:could|can|would) you\b"
    r"|\b(?:no|without(?: an?| the| any)?|(?:cannot|can't|unable to) (?:see|view)(?: an?| the| any)?)"
    r"\s+(?:\w+\s+)?(?:image|picture|diagram|figure|visual)s?\b"
    r"|\b(?:image|picture|diagram|figure)s? (?:is|are|was|were) (?:missing|not (?:attached|available|provided|shown"
    r"|visible))\b",
    re.IGNORECASE,
)
"""Words of one who does not answer, for want of the picture or of ability: a claim about the question is none."""


def clean(text: str) -> str:
    """Return the text with full-width and typographic characters in their ASCII form, without special tokens."""
    if not text.isascii():
        # Chinese, Japanese and Korean write "答案是B。" without blanks, and a letter there is no word's boundary.
        text = _SCRIPT_CHANGE.sub(" ", _NARROW_THOUSANDS.sub(",", text).translate(_CHARACTERS))
    else:
        text = text.replace("\0", "").replace("\r", "\n")
    return _SPECIAL_TOKENS.sub("", text) if "<" in text else text


_NARROW_THOUSANDS = re.compile("(?<=\\d)[\u2009\u202f](?=\\d{3}(?!\\d))")
_EAST_ASIAN = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_SCRIPT_CHANGE = re.compile(f"(?<=[A-Za-z0-9)])(?=[{_EAST_ASIAN}])|(?<=[{_EAST_ASIAN}])(?=[A-Za-z0-9(])")


def answer_part(text: str) -> tuple[str, bool]:
    """Return what follows the reasoning, and whether the reasoning was closed.

    Text after the last `</think>` answers; where nothing follows it, or the tag never closed, the whole text is
    returned and only what is marked as an answer should be believed.
    """
    end = text.rfind(_THINK_END)
    if end >= 0:
        rest = text[end + len(_THINK_END) :]
        if rest.strip():
            return rest, True
        return text, True
    return text, _THINK_START not in text


def window(text: str) -> str:
    """Return the text, or its two ends where it is longer than two windows."""
    return text if len(text) <= 2 * WINDOW else text[:WINDOW] + "\n" + text[-WINDOW:]


def claim(sentence: str) -> str:
    """Return what stands after a sentence's last copula: what it claims something to be."""
    return _COPULA.split(sentence)[-1].strip(" \t.")


_COPULA = re.compile(r"\b(?:is|are|was|be|equals?)\b[\s:]*|(?<=[A-Za-z]):\s+(?=\\[(\[]|\$)|[为是]\s*")


def is_sentence(text: str) -> bool:
    """Whether a line says something rather than being an answer by itself: it has a copula, or three words and more."""
    return bool(_COPULA.search(text)) or len(_WORD.findall(_COMMAND.sub(" ", text))) > 2


_COMMAND = re.compile(r"\\[a-zA-Z]+")
_WORD = re.compile(r"[^\W\d_]{2,}")


def finished(text: str) -> str:
    """Return a long text without a last line that breaks off: what was not said to the end concludes nothing."""
    if len(text) < LONG or text.rstrip()[-1:] in _CLOSERS:
        return text
    return text[: max(text.rfind("\n"), text.rfind(". ")) + 1] or text


LONG = 1_500
"""Characters from which a missing full stop means that a response broke off."""
_CLOSERS = tuple(".!?)]}\"'*$`|>%")


def joined(text: str) -> str:
    """Return the text with formulas and bold words that stand on lines of their own behind what announces them."""
    text = _DISPLAY.sub(lambda found: f"{found[1]}{found[2]}{found[3]}", text)
    return _ANNOUNCED.sub(": ", text)


_DISPLAY = re.compile(r"(\\\[|\$\$)[ \t]*+\n[ \t]*+([^\n]{1,300}+)\n[ \t]*+(\\\]|\$\$)")
_ANNOUNCED = re.compile(r":[ \t]*+\n\s{0,8}(?=\\\[|\\\(|\$|\*\*)")


def unmarked(text: str) -> str:
    """Return the text without Markdown emphasis, code ticks and heading signs."""
    return _MARKUP.sub("", text) if _MARKUP_SIGN.search(text) else text


def unwrapped(text: str) -> str:
    r"""Return LaTeX without fonts, spacing and delimiters: "\text{(B)}\ $5$" becomes "(B) 5"."""
    if "\\" in text or "~" in text:
        text = text.replace("\\$", "$")
        for _ in range(3):
            text, count = _WRAPPER.subn(r" \1 ", text)
            if not count:
                break
        text = _SPACING.sub(" ", _THIN_THOUSANDS.sub(",", text))
        text = text.replace("\\(", " ").replace("\\)", " ").replace("\\[", " ").replace("\\]", " ")
    return text.replace("$", "").strip()


def own_words(text: str) -> str:
    """Return the text up to where a model goes on to write another question of its own."""
    for found in _NEXT_QUESTION.finditer(text):
        if text[: found.start()].strip():
            return text[: found.start()]
    return text


_NEXT_QUESTION = re.compile(
    r"\n[ \t]{0,8}(?:#{1,6}[ \t]{0,8}|\*{1,3})?(?:Question|Hint|Q|Problem|Human|User|问题|提示)"
    r"[ \t]{0,8}\d{0,3}[ \t]{0,8}\*{0,3}:"
)


def without_echo(text: str, question: str) -> str:
    """Return the text without a word-for-word repetition of the question, whatever its case and punctuation."""
    wanted = _TOKEN.findall(question[:WINDOW].casefold())
    if len(wanted) < MIN_ECHO or len(text) > 2 * WINDOW:
        return text
    found = list(_TOKEN.finditer(text.casefold()))
    said = " ".join(match[0] for match in found)
    place = f" {said} ".find(f" {' '.join(wanted)} ")
    if place < 0 or len(text) != len(text.casefold()):
        return text
    first = said[:place].count(" ")
    start, end = found[first].start(), found[first + len(wanted) - 1].end()
    return text[:start] + text[end:]


MIN_ECHO = 4
"""Words from which a repetition of the question is an echo."""
_TOKEN = re.compile(r"[^\W_]+")


def sentences(text: str) -> list[str]:
    """Return the text's lines and sentences, in order, without empty ones."""
    return [part for part in (raw.strip() for raw in _SENTENCE_END.split(text)) if part]


_SENTENCE_END = re.compile(r"\n+|(?<=[.!?])(?<!\b[A-Za-z]\.)\s++(?=[^\d])|(?<=[.!?])\s{2,}+")
