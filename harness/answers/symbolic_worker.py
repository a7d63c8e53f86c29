"""The process behind `symbolic`: reads [gold, answer, CPU seconds] as JSON lines, answers each true or false."""

import json
import re
import resource
import signal
import sys
from dataclasses import replace
from functools import lru_cache
from typing import Any

MEMORY_BYTES = 2 * 1024**3
"""Address space; `2^{10^9}` alone takes 413 MB."""

_ENDS_IN_LETTER = re.compile(r"(?<![A-Za-z\\])[A-Za-z]\s*$")


def main() -> None:
    """Serve comparisons from stdin to stdout. Dies of what cannot be computed: its parent replaces it."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    latex = LatexExtractionConfig()
    with_units = replace(latex, normalization_config=replace(latex.normalization_config, units=False))
    configs, whole = [latex, ExprExtractionConfig()], [with_units, ExprExtractionConfig()]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)

    @lru_cache(maxsize=4096)
    def parsed(text: str) -> list[Any]:
        found: list[Any] = parse(f"${text}$", configs, parsing_timeout=None, raise_on_error=False)
        if found and _ENDS_IN_LETTER.search(text) and getattr(found[0], "free_symbols", None):
            # The h of "\pi r^2 h" is no hour, which would be taken off as a unit.
            found = parse(f"${text}$", whole, parsing_timeout=None, raise_on_error=False)
        return found

    # The first comparison imports half of sympy, which is no part of anybody's deadline.
    verify(parsed("x+1"), parsed("1+x"), timeout_seconds=None)
    print("ready", flush=True)
    for line in sys.stdin:
        gold, answer, cpu_s = json.loads(line)
        # By default the timer's signal ends the process, also inside a long computation in C.
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        first, second = parsed(gold), parsed(answer)
        equal = bool(first and second and verify(first, second, float_rounding=6, timeout_seconds=None))
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(equal), flush=True)


if __name__ == "__main__":
    main()
