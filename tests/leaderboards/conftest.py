"""Real runs on the built-in suite, as an engine would have left them, and a browser."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness import registry
from ahabench.harness.dataset import Dataset, load
from ahabench.harness.manifest import (
    EngineRecord,
    Manifest,
    ModelRecord,
    PromptRecord,
    SamplingRecord,
    TaskRecord,
    write_manifest,
)
from ahabench.harness.prompts import digest
from ahabench.harness.rescore import score_run
from ahabench.harness.seen import read_digest
from ahabench.leaderboards.build import build_site

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
        prompt = PromptRecord(style=style, version=style_version)
        for task in tasks:
            dataset = load(registry.find_task(task), registry.MINI)
            said = [f"<answer>{item.gold}</answer>" if right(n) else text for n, item in enumerate(dataset.items)]
            write_responses(run / task, dataset, said, style=style, finish=finish)
            records[task] = TaskRecord(
                split=registry.MINI,
                source=dataset.source,
                data_digest=dataset.digest,
                n_items=len(dataset.items),
                prompt=prompt,
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


def write_responses(folder: Path, dataset: Dataset, said: Sequence[str], *, style: str, finish: str) -> None:
    """Write the rows of one task, as the runner does."""
    rows = [
        {
            "item_id": item.id,
            "sample_index": 0,
            "prompt_sha256": prompt_sha256,
            "response": text,
            "finish_reason": finish,
            "completion_tokens": 5,
            "images_sha256": images_sha256,
        }
        for item, text, (prompt_sha256, images_sha256) in zip(
            dataset.items, said, asked(dataset.task.name, style), strict=True
        )
    ]
    folder.mkdir(parents=True)
    (folder / "responses.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


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


def write_card(run: Path, **values: str | float) -> Path:
    """Give a run a model.toml, and return it."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    (run / "model.toml").write_text("\n".join(lines).replace("\\u0000", "").replace("\\u001b", ""))
    return run


@pytest.fixture
def card() -> Callable[..., Path]:
    return write_card


@pytest.fixture(scope="module")
def three_models(make_lasting_run: MakeRun) -> Path:
    """Three models of two sizes, one with a hole."""
    write_card(
        make_lasting_run("alpha-1B", lambda n: n % 2 > 0, tasks=SIX), base="Zed", date="2026-01", parameters_b=1.0
    )
    write_card(
        make_lasting_run("beta-2B", lambda n: n % 3 > 0, tasks=SIX), base="Ypsilon", date="2026-02", parameters_b=2.0
    )
    last = make_lasting_run("gamma-7B", lambda n: n % 4 > 0, tasks=SIX[:2])
    return write_card(last, base="Zed", parameters_b=7.0).parent


@pytest.fixture(scope="module")
def site(three_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The board of those, and the published tables."""
    folder = tmp_path_factory.mktemp("site")
    build_site([three_models], folder, published=True)
    return folder


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that fails the test for an error on its console, or a request that leaves the disk."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    opened = context.new_page()
    said: list[str] = []
    opened.on("console", lambda message: said.append(message.text) if message.type in {"error", "warning"} else None)
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on(
        "request", lambda request: said.append(request.url) if not request.url.startswith(("file:", "data:")) else None
    )
    yield opened
    context.close()
    assert said == []
