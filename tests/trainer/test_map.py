"""The map in the package's docstring leads to every module."""

import re
from pathlib import Path

from ahabench import trainer


def test_every_module_stands_in_the_map_once() -> None:
    assert trainer.__doc__ is not None
    entries = [line.strip() for line in trainer.__doc__.splitlines() if line.startswith("    ")]
    assert len(entries) > 10
    # What stands in the second column, without what is said of it in brackets.
    named = [re.split(r"\s{2,}", entry, maxsplit=1)[1] for entry in entries]
    found = re.findall(r"[a-z_0-9]+", " ".join(re.sub(r"\([^)]*\)", "", names) for names in named))
    modules = sorted(path.stem for path in Path(trainer.__file__).parent.glob("*.py") if path.stem != "__init__")
    assert sorted(found) == modules
