r"""Read one mathematical expression as a number: LaTeX, Unicode or plain text, without sympy and without `eval`.

The grammar, with blanks (also `~`, `$`, `\(`, `\,`, `\quad`, `\left`, `\right`, `\displaystyle`) skipped between words:

    expression  product (("+" | "-") product)*
    product     signed (("*" | "·" | "/" | "÷" | "x" before a digit | \times | \cdot | \div) signed)*
    signed      ("+" | "-")* factors
    factors     power power*                      implicit multiplication; binds tighter than "*" and "/"
    power       (mixed | atom) raised?
    raised      ("!" | superscript)* (("^" | "**") ("+" | "-")* atom raised?)?      from right to left: 2^3^2 = 512
    atom        number | fraction | root | \pi | "(" expression ")" | "[" … "]" | "{" … "}" | "\{" … "\}"
    number      12, 1.5, .5, 1,234, 1{,}234, 1.2e-3, ½
    mixed       1\frac{1}{2}, 1½, 1 1/2           an integer before a proper fraction of integers
    fraction    \frac, \dfrac, \tfrac, \cfrac with two arguments: "{" expression "}", a digit or an atom
    root        \sqrt, \sqrt[n], √, ∛, sqrt with an atom: \sqrt12 is the root of twelve

Anything else makes the whole text unreadable: letters other than pi, units, percent and degree signs, relations, lists,
two numbers side by side. Work is linear in the text, the text's length, its depth and every power are bounded.

With `latex2sympy=True` the rules are those of `eval(str(latex2sympy(text)))` with latex2sympy2 1.9.1 and Python's
`math` in scope, which the authors' scorer of MathVision uses: found by trying that library, compared with it on the
data and outputs of that benchmark. The differences: the longest expression from the left counts, whatever follows, if
the next word is one of `. ) ] } & _ \\ \right \to` or of a few keywords; ":" divides; 3\frac{1}{2} and two numbers side
by side are products; 2^3^2 = 64; `\%` after a number divides by 100; \sin, \cos, \tan and their inverses (in radians)
and powers of e are known; the arguments of \frac and \sqrt stand in braces; of Unicode nothing is known. Not carried
over: relations, binomials, logarithms, and that an equation such as x=5 changes how that library reads later texts.
"""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

MAX_CHARS = 500
"""A longer text is not an answer; with `latex2sympy` it is cut there."""
MAX_DEPTH = 40
MAX_FACTORIAL = 170
"""The largest whose factorial is a finite double."""
MAX_BITS = 1 << 14
"""The size of the largest integer that is computed exactly; beyond it the text counts as unreadable."""

_Number = int | float
_VULGAR_SIGNS = "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒"
_SIMPLE = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)", re.ASCII)
_HOPELESS = re.compile(r"(?!pi|sqrt|e)[A-Za-z]")
"""How no expression begins: words are rejected before anything is parsed."""
_BLANK = r"(?:[\s~$]|\\[,;:! ()\[\]]|\\(?:left|right|quad|qquad|displaystyle)(?![a-zA-Z]))*"
_THOUSANDS = r"\d{1,3}(?:(?:,|\{,\}|\\,)\d{3})+(?!\d)"
_SEPARATOR = re.compile(r",|\{,\}|\\,")
_MIXED = re.compile(
    rf"(?P<whole>{_THOUSANDS}|\d+){_BLANK}(?:\\[dtc]?frac\s*"
    r"(?:\{\s*(?P<n1>\d+)\s*\}\s*\{\s*(?P<d1>\d+)\s*\}|(?P<n2>\d)\s*(?P<d2>\d))"
    rf"|(?P<sign>[{_VULGAR_SIGNS}])|(?<=\s)(?P<n3>\d+)/(?P<d3>\d+)(?![\d.]))"
)
_ABOVE = (1, 1, 2, 1, 3, 1, 2, 3, 4, 1, 5, 1, 1, 3, 5, 7, 1, 1)
_BELOW = (2, 3, 3, 4, 4, 5, 5, 5, 5, 6, 6, 7, 8, 8, 8, 8, 9, 10)
_VULGAR = {sign: above / below for sign, above, below in zip(_VULGAR_SIGNS, _ABOVE, _BELOW, strict=True)}
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_CLOSING = {
    "(": re.compile(r"\)"),
    "[": re.compile(r"\]"),
    "{": re.compile(r"\}"),
    r"\{": re.compile(r"\\\}"),
}
_OPEN = re.compile(r"\\\{|[(\[{]")
_INDEX = re.compile(r"\[")
_FACTORIAL = re.compile("!")
_RAISED = re.compile(r"[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,4}")
_DIGIT = re.compile(r"\d")
_NUMERAL = re.compile(rf"[\d.{_VULGAR_SIGNS}]")
_PARENTHESIS = re.compile(r"\(")
_BRACE = re.compile(r"\{")
_FUNCTION = re.compile(r"\\(?P<name>(?:arc)?(?:sin|cos|tan))(?![a-z])")
_FUNCTIONS: dict[str, Callable[[float], float]] = {
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "arcsin": math.asin,
    "arccos": math.acos,
    "arctan": math.atan,
}
_EULER = re.compile(r"e(?=\s*\^)")
_JUNK = re.compile(r"[&)\]_}.]|\\[}\\]|\\(?:right|to|rightarrow)|tr|rank|rows?|rref|floor|norm|diag|col|gcd|lcm")


class _Lexicon(NamedTuple):
    """What the words of a dialect look like."""

    blank: re.Pattern[str]
    number: re.Pattern[str]
    plus: re.Pattern[str]
    times: re.Pattern[str]
    power: re.Pattern[str]
    fraction: re.Pattern[str]
    root: re.Pattern[str]
    pi: re.Pattern[str]
    factor: re.Pattern[str]
    """What a further factor may begin with, without a sign of multiplication before it."""


_PLAIN = _Lexicon(
    blank=re.compile(_BLANK),
    number=re.compile(
        rf"(?:{_THOUSANDS}(?:\.\d+)?|\d+(?:\.\d+|\.(?!\())?|\.\d+)(?:[eE][+-]?\d{{1,3}}(?![\w.]))?|[{_VULGAR_SIGNS}]"
    ),
    plus=re.compile(r"[+\-\u2212\u2013]"),
    times=re.compile(
        r"(?P<over>[/÷\u2215\u2044]|\\div(?![a-z]))|\*(?!\*)|[\u00d7·\u22c5\u2219\u2217]"
        r"|\\(?:times|cdot|ast)(?![a-z])|[xX](?=\s*[\d.])"
    ),
    power=re.compile(r"\^|\*\*"),
    fraction=re.compile(r"\\[dtc]?frac(?![a-z])"),
    root=re.compile(r"\\sqrt(?![a-z])|sqrt(?![a-z])|√|(?P<cube>∛)"),
    pi=re.compile(r"\\?pi(?![a-zA-Z])|π"),
    factor=re.compile(r"[\d.(\[{π√∛" + _VULGAR_SIGNS + r"]|\\\{|\\?pi(?![a-zA-Z])|\\?sqrt|\\[dtc]?frac"),
)
_SYMPY = _Lexicon(
    blank=re.compile(r"(?:[\s~$']|\\,|\\(?:left|right(?=\s*(?:[)\]]|\\\}))|quad|displaystyle))*"),
    number=re.compile(r"(?:\d*(?:,\d{3})*\.\d+|\d+(?:,\d{3})*)(?:\\%)?", re.ASCII),
    plus=re.compile(r"[+-]"),
    times=re.compile(r"(?P<over>[/:]|\\div)|\*|\\(?:times|cdot)"),
    power=re.compile(r"\^"),
    fraction=re.compile(r"\\[dt]?frac"),
    root=re.compile(r"\\sqrt"),
    pi=re.compile(r"\\pi"),
    factor=re.compile(r"[\d(\[{]|\.\d|\\(?:\{|pi|sqrt|[dt]?frac|(?:arc)?(?:sin|cos|tan)(?![a-z]))|e\s*\^"),
)


class _UnreadableError(Exception):
    """The text is no expression of the grammar, or its value is no finite real number."""


def evaluate(text: str, *, latex2sympy: bool = False) -> float | None:
    r"""Return the value of an expression, or `None` where the text is not one or the value is not a finite real number.

    Never raises.

    Args:
        text: one expression; see the module's grammar.
        latex2sympy: read it as latex2sympy2 1.9.1 does, errors included.

    >>> evaluate(r"2\frac{1}{2}"), evaluate(r"2\frac{1}{2}", latex2sympy=True), evaluate("12 cm")
    (2.5, 1.0, None)
    """
    value = exact(text, latex2sympy=latex2sympy)
    try:
        return None if value is None else float(value)
    except OverflowError:
        return None


def exact(text: str, *, latex2sympy: bool = False) -> int | float | None:
    """Return what `evaluate` returns, but integers as `int`, which may be beyond a double's precision and range."""
    if len(text) <= MAX_CHARS and _SIMPLE.fullmatch(text):
        return int(text) if "." not in text else float(text)
    if _HOPELESS.match(text) or (len(text) > MAX_CHARS and not latex2sympy):
        return None
    reader = _Reader(text[:MAX_CHARS], latex2sympy=latex2sympy)
    try:
        value = reader.whole(cut=len(text) > MAX_CHARS)
    except (_UnreadableError, ArithmeticError, ValueError):
        return None
    return value if isinstance(value, int) or math.isfinite(value) else None


class _Reader:
    """A recursive-descent parser that computes as it goes; `pos` stands behind what was read."""

    __slots__ = ("depth", "pos", "sympy", "text", "words")

    def __init__(self, text: str, *, latex2sympy: bool) -> None:
        self.text = text
        self.pos = 0
        self.depth = 0
        self.sympy = latex2sympy
        self.words = _SYMPY if latex2sympy else _PLAIN

    def whole(self, *, cut: bool) -> _Number:
        """Return the value of the text; `cut` says that more stood behind it."""
        value = self.expression()
        end = self.after_blanks()
        if end == len(self.text) and not cut:
            return value
        if end < len(self.text) and self.sympy and _JUNK.match(self.text, end):
            return value
        raise _UnreadableError

    def after_blanks(self) -> int:
        blank = self.words.blank.match(self.text, self.pos)
        return blank.end() if blank else self.pos

    def take(self, word: re.Pattern[str]) -> re.Match[str] | None:
        """Return and pass over the next word if it is this one; stay where it is not."""
        found = word.match(self.text, self.after_blanks())
        if found:
            self.pos = found.end()
        return found

    def require(self, word: re.Pattern[str]) -> None:
        if not self.take(word):
            raise _UnreadableError

    def expression(self) -> _Number:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _UnreadableError
        value = self.product()
        while sign := self.take(self.words.plus):
            term = self.product()
            value = value + term if sign[0] == "+" else value - term
        self.depth -= 1
        return value

    def product(self, *, functions: bool = True) -> _Number:
        value = self.signed(functions=functions)
        while operator := self.take(self.words.times):
            right = self.signed(functions=functions)
            value = value / right if operator.groupdict()["over"] else _times(value, right)
        return value

    def signed(self, *, functions: bool = True) -> _Number:
        sign = self.signs()
        return sign * self.factors(functions=functions)

    def signs(self) -> int:
        sign = 1
        while found := self.take(self.words.plus):
            sign = sign if found[0] == "+" else -sign
        return sign

    def factors(self, *, functions: bool = True) -> _Number:
        value = self.power()
        while self.another_factor(functions=functions):
            value = _times(value, self.power())
        return value

    def another_factor(self, *, functions: bool) -> bool:
        start = self.after_blanks()
        if not self.words.factor.match(self.text, start):
            return False
        if self.sympy:
            return functions or not _FUNCTION.match(self.text, start)
        if _NUMERAL.match(self.text, start) and _NUMERAL.match(self.text, self.pos - 1):
            raise _UnreadableError  # "1 000" and "2 3" have no one meaning
        return True

    def power(self) -> _Number:
        return self.sympy_power() if self.sympy else self.plain_power()

    def plain_power(self) -> _Number:
        mixed = self.mixed()
        return self.raised(self.atom() if mixed is None else mixed)

    def raised(self, value: _Number) -> _Number:
        """Return the value after the factorials, superscripts and exponent that follow it."""
        while True:
            if self.take(_FACTORIAL):
                value = _factorial(value)
            elif raised := self.take(_RAISED):
                value = _power(value, int(raised[0].translate(_SUPERSCRIPTS)))
            else:
                break
        return _power(value, self.exponent()) if self.take(self.words.power) else value

    def exponent(self) -> _Number:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _UnreadableError
        value = self.signs() * self.raised(self.atom())
        self.depth -= 1
        return value

    def sympy_power(self) -> _Number:
        value = self.atom()
        while self.take(self.words.power):
            if number := self.take(self.words.number):
                value = _power(value, _number(number[0]))
            elif self.take(self.words.pi):
                value = _power(value, math.pi)
            else:
                value = _power(value, self.braced())
        while self.take(_FACTORIAL):
            value = _factorial(value)
        return value

    def atom(self) -> _Number:
        if number := self.take(self.words.number):
            return _number(number[0])
        if self.take(self.words.pi):
            return math.pi
        if self.take(self.words.fraction):
            return self.argument() / self.argument()
        if root := self.take(self.words.root):
            return self.root(3 if root.groupdict().get("cube") else 2)
        if self.sympy and self.take(_EULER):
            return math.e
        if self.sympy and (function := self.take(_FUNCTION)):
            return self.function(_FUNCTIONS[function["name"]])
        return self.bracketed()

    def mixed(self) -> _Number | None:
        """Return the value of a mixed number, or `None` and read nothing."""
        found = _MIXED.match(self.text, self.after_blanks())
        if not found:
            return None
        if found["sign"]:
            part = _VULGAR[found["sign"]]
        else:
            above, below = (int(found[f"{side}1"] or found[f"{side}2"] or found[f"{side}3"]) for side in "nd")
            if above >= below:
                return None
            part = above / below
        self.pos = found.end()
        return _number(found["whole"]) + part

    def argument(self) -> _Number:
        """Return one argument of a fraction."""
        if self.sympy or _BRACE.match(self.text, self.after_blanks()):
            return self.braced()
        if digit := self.take(_DIGIT):  # TeX takes one digit: \frac12
            return int(digit[0])
        return self.nested(self.atom)

    def root(self, degree: _Number) -> _Number:
        if self.take(_INDEX):
            degree = self.expression()
            self.require(_CLOSING["["])
        radicand = self.braced() if self.sympy else self.nested(self.atom)
        if radicand < 0 and degree % 2 == 1 and not self.sympy:
            return -_power(-radicand, 1 / degree)
        return math.sqrt(radicand) if degree == 2 else _power(radicand, 1 / degree)

    def function(self, function: Callable[[float], float]) -> _Number:
        if _PARENTHESIS.match(self.text, self.after_blanks()):
            return function(self.bracketed())
        return function(self.nested(lambda: self.product(functions=False)))

    def bracketed(self) -> _Number:
        opening = self.take(_OPEN)
        if not opening:
            raise _UnreadableError
        value = self.expression()
        self.require(_CLOSING[opening[0]])
        return value

    def braced(self) -> _Number:
        if not _BRACE.match(self.text, self.after_blanks()):
            raise _UnreadableError
        return self.bracketed()

    def nested(self, part: Callable[[], _Number]) -> _Number:
        """Return a part's value, counting it as one level deeper."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _UnreadableError
        value = part()
        self.depth -= 1
        return value


def _number(word: str) -> _Number:
    if word in _VULGAR:
        return _VULGAR[word]
    if word.endswith("%"):
        return _number(word.removesuffix("\\%")) / 100
    digits = _SEPARATOR.sub("", word)
    return int(digits) if digits.isdecimal() else float(digits)


def _times(first: _Number, second: _Number) -> _Number:
    product = first * second
    if isinstance(product, int) and product.bit_length() > MAX_BITS:
        raise _UnreadableError
    return product


def _power(base: _Number, exponent: _Number) -> _Number:
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * exponent > MAX_BITS:
        raise _UnreadableError
    power = base**exponent  # overflow of floats raises
    if isinstance(power, complex):
        raise _UnreadableError
    return power


def _factorial(value: _Number) -> _Number:
    if value != int(value) or not 0 <= value <= MAX_FACTORIAL:
        raise _UnreadableError
    return math.factorial(int(value))
