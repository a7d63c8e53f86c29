"""Real runs on the built-in suite, as an engine would have left them, and a browser."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness import registry
from ahabench.harness.dataset import load
from ahabench.harness.manifest import EngineRecord, Manifest, ModelRecord, PromptRecord, SamplingRecord, TaskRecord
from ahabench.harness.rescore import score_run
from ahabench.harness.runlog import write_manifest, write_responses
from ahabench.harness.types import Response

MakeRun = Callable[..., Path]
SIX = ("mathvista", "mathvision", "mathverse", "dynamath", "wemath", "logicvista")


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    return maker(tmp_path / "runs")


@pytest.fixture(scope="session")
def make_lasting_run(tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """As `make_run`, for fixtures that several tests read."""
    return maker(tmp_path_factory.mktemp("lasting") / "runs")


def maker(folder: Path) -> MakeRun:
    """Return what writes a run in a folder and scores it.

    Item number `n` of a task is answered with its gold where `right(n)`, else with `text`; the rest goes into the
    manifest.
    """

    def make(
        name: str,
        right: Callable[[int], bool],
        *,
        tasks: tuple[str, ...] = ("mathvista",),
        text: str = "<answer>none of these</answer>",
        style: str = "think",
        style_version: int = 1,
        model: str | None = None,
        temperature: float = 0.0,
        finish: str = "stop",
    ) -> Path:
        run = folder / name
        records = {}
        for task in tasks:
            dataset = load(registry.find_task(task), registry.MINI)
            responses = [
                Response(
                    item_id=item.id,
                    text=f"<answer>{item.gold}</answer>" if right(number) else text,
                    finish_reason=finish,
                    completion_tokens=5,
                )
                for number, item in enumerate(dataset.items)
            ]
            write_responses(run / task / "responses.jsonl", responses)
            records[task] = TaskRecord(
                split=registry.MINI,
                data_digest=dataset.digest,
                n_items=len(dataset.items),
                prompt=PromptRecord(style=style, version=style_version),
            )
        manifest = Manifest(
            status="complete",
            model=ModelRecord(name=model or f"org/{name}", weights_digest="sha256:00"),
            engine=EngineRecord(name="transformers", version="5.0"),
            sampling=SamplingRecord(max_new_tokens=64, temperature=temperature, samples=1),
            system_prompt="",
            tasks=records,
        )
        write_manifest(run, manifest)
        score_run(run, scorer="robust", data=None)
        return run

    return make


def change_json(path: Path, change: Callable[[Any], None]) -> None:
    """Change a JSON file in place."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.fixture
def edit() -> Callable[[Path, Callable[[Any], None]], None]:
    return change_json


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium of the system's; the test skips where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()
