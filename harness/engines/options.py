"""Engine options from the command line: flags that several engines share, and NAME=VALUE pairs of one engine's own."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from ahabench.harness.errors import UsageError, unknown_name

Options = TypeVar("Options", bound=BaseModel)


def parse_pairs(pairs: Iterable[str]) -> dict[str, str]:
    """Return NAME=VALUE pairs as a mapping; a value may hold further "=".

    Raises:
        UsageError: one has no name or no "=", or a name comes twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise UsageError(f"--engine-arg {pair!r} is not NAME=VALUE")
        if name in found:
            raise UsageError(f"--engine-arg {name} is given twice")
        found[name] = value
    return found


def read_options(
    kind: type[Options], engine: str, given: Mapping[str, str], flags: Mapping[str, str], alias: Mapping[str, str]
) -> Options:
    """Return an engine's options.

    Args:
        kind: the engine's model of its options; it refuses what it does not know.
        engine: its name, for errors.
        given: from `--engine-arg`.
        flags: from the flags that several engines share, by the flag's name with underscores; those that were given.
        alias: the engine's own name for a flag, where that differs.

    Raises:
        UsageError: a name is not known, a value does not fit, or the same thing is said twice.
    """
    known = list(kind.model_fields)
    for name in given:
        if name not in known:
            raise unknown_name(f"--engine-arg of the engine {engine!r}:", name, known)
    values = dict(given)
    for flag, value in flags.items():
        name = alias.get(flag, flag)
        if name not in known:
            hint = f"Its --engine-arg names: {', '.join(known)}." if known else "It takes no options."
            raise UsageError(f"the engine {engine!r} takes no --{flag.replace('_', '-')}. {hint}")
        if name in given:
            raise UsageError(f"--{flag.replace('_', '-')} and --engine-arg {name} say the same thing; leave one out")
        values[name] = value
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "options"
        # Whoever gives a key in place of its variable's name must not find it in a log.
        shown = "***" if "key" in where else repr(values.get(where))
        raise UsageError(f"the engine {engine!r} cannot take {where}={shown}: {first['msg']}") from None
