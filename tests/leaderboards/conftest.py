"""Real runs on the built-in suite, as an engine would have left them, and a browser."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness import registry
from ahabench.harness.dataset import load
from ahabench.harness.manifest import EngineRecord, Manifest, ModelRecord, PromptRecord, SamplingRecord, TaskRecord
from ahabench.harness.prompts import digest
from ahabench.harness.rescore import score_run
from ahabench.harness.runlog import write_manifest
from ahabench.harness.seen import read_digest

MakeRun = Callable[..., Path]
SIX = ("mathvista", "mathvision", "mathverse", "dynamath", "wemath", "logicvista")


@cache
def asked(task: str, style: str) -> list[tuple[str, str | None]]:
    """Return the digests of the prompt, asked without a system prompt, and of the images of each item."""
    prompt = registry.find_prompt(registry.find_task(task), style)
    items = load(registry.find_task(task), registry.MINI).items
    return [
        (digest(replace(prompt.render(item), system=None), len(item.images)), read_digest(item.images))
        for item in items
    ]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    return maker(tmp_path / "runs")


@pytest.fixture(scope="module")
def make_lasting_run(tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """As `make_run`, for fixtures that several tests of a module read, in a folder that no other module fills."""
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
            lines = [
                {
                    "item_id": item.id,
                    "sample_index": 0,
                    "prompt_sha256": prompt_sha256,
                    "response": f"<answer>{item.gold}</answer>" if right(number) else text,
                    "finish_reason": finish,
                    "completion_tokens": 5,
                    "images_sha256": images_sha256,
                }
                for number, (item, (prompt_sha256, images_sha256)) in enumerate(
                    zip(dataset.items, asked(task, style), strict=True)
                )
            ]
            path = run / task / "responses.jsonl"
            path.parent.mkdir(parents=True)
            path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
            records[task] = TaskRecord(
                split=registry.MINI,
                source=dataset.source,
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


@pytest.fixture
def run(make_run: Callable[..., Path]) -> Path:
    """A run as somebody would submit it, 30 of 120 right."""
    path = make_run("a", lambda number: number < 30)
    (path / "model.toml").write_text('name = "A"\n')
    return path


# Not of the session: while it is open, an event loop runs in this thread, and no other test could run one.
@pytest.fixture(scope="module")
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
