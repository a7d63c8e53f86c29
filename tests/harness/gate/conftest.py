"""What tests of the gate share: a comparison as the command makes it."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness.gate.compare import compare
from ahabench.harness.gate.comparison import Comparison
from ahabench.harness.gate.policy import Policy, parse_margin
from ahabench.harness.gate.sides import open_side
from ahabench.harness.runlog import METRICS, VERDICTS


@pytest.fixture
def compared() -> Callable[..., Comparison]:
    """Compares two sides: `compared(a, b, margin="3", tasks=None, scorer=None, **policy)`."""

    def made(a: object, b: object, margin: str = "3", **demands: Any) -> Comparison:
        options = {name: demands.pop(name) for name in ("tasks", "scorer") if name in demands}
        sides = [open_side(str(side), baselines=Path("baselines")) for side in (a, b)]
        return compare(sides[0], sides[1], Policy(margin=parse_margin(margin), **demands), **options)

    return made


@pytest.fixture
def change_verdicts() -> Callable[..., None]:
    """Makes a run's verdicts what another ahabench would have written: `change_verdicts(run, scorer=None, **values)`.

    `values` take the place of those in every row; the metrics name the scorer, and the new file as theirs.
    """

    def change(run: Path, scorer: str | None = None, **values: Any) -> None:
        verdicts, metrics = run / "mathvista" / VERDICTS, run / "mathvista" / METRICS
        rows = [json.loads(line) | values for line in verdicts.read_text().splitlines()]
        verdicts.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = json.loads(metrics.read_text())
        digest = hashlib.sha256(verdicts.read_bytes()).hexdigest()
        metrics.write_text(json.dumps(found | {"scorer": scorer or found["scorer"], "verdicts_sha256": digest}))

    return change
