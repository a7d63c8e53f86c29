"""Each planted change still finds the line of the trainer that it changes."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ahabench import trainer

CHANGES: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("changes.yaml").read_text())
TEXTUAL = {name: change for name, change in CHANGES.items() if "file" in change}


@pytest.mark.parametrize("name", TEXTUAL)
def test_a_planted_change_finds_its_line_once(name: str) -> None:
    change = TEXTUAL[name]
    source = Path(str(trainer.__file__)).with_name(change["file"]).read_text()
    assert source.count(change["old"]) == 1


def test_there_are_seven_faults_and_five_harmless_changes() -> None:
    faults = [change["fault"] for change in CHANGES.values()]
    assert (faults.count(True), faults.count(False)) == (7, 5)
