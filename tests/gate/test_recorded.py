"""What is said when steps leave the golden ones."""

import json
from importlib import metadata
from pathlib import Path

from recorded import explained

GOLDEN = Path(__file__).parent / "golden.json"
AGAIN = "python tests/gate/train.py OUT --record"


def test_other_versions_are_named_with_the_way_to_record_anew() -> None:
    here = metadata.version("torch")
    found = explained("step 3: loss is 1, wanted 2", {"torch": "1.0.0", "trl": metadata.version("trl")}, again=AGAIN)
    assert found.startswith(f"step 3: loss is 1, wanted 2. Recorded with other versions: torch 1.0.0 (here {here}). ")
    assert f"record anew with `{AGAIN}`" in found


def test_equal_versions_are_not_blamed() -> None:
    here = {name: metadata.version(name) for name in ("torch", "transformers", "trl")}
    found = explained("step 3: loss is 1, wanted 2", here, again=AGAIN)
    assert f"Recorded with the same versions (torch {here['torch']}, " in found
    assert AGAIN not in found


def test_the_golden_steps_say_what_they_were_recorded_with() -> None:
    assert json.loads(GOLDEN.read_text())["versions"].keys() == {"torch", "transformers", "trl"}
