"""The items of the benchmark that a module tests: of its `TASK`."""

from pathlib import Path

import pytest

from ahabench.harness.dataset import load
from ahabench.harness.types import Item


@pytest.fixture(scope="module")
def items(request: pytest.FixtureRequest, data: Path) -> dict[str, Item]:
    """The default split, by id."""
    task = request.module.TASK
    return {item.id: item for item in load(task, data=data / task.name).items}


@pytest.fixture(scope="module")
def vision_only(request: pytest.FixtureRequest, data: Path) -> dict[str, Item]:
    """MathVerse's default split, by problem."""
    return {item.group: item for item in load(request.module.TASK, "vision_only", data=data / "mathverse").items}


@pytest.fixture(scope="module")
def text_only(request: pytest.FixtureRequest, data: Path) -> dict[str, Item]:
    """MathVerse's problems without pictures, by problem."""
    return {item.group: item for item in load(request.module.TASK, "text_only", data=data / "mathverse").items}
