"""What the tests of the runner share: a benchmark of sums, recorded responses, a run and what it tells."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

from plans import benchmark

from ahabench.harness import dataset as data
from ahabench.harness.dataset import Dataset
from ahabench.harness.engines import EngineInfo
from ahabench.harness.engines.replay import ReplayEngine
from ahabench.harness.images import ImageFile
from ahabench.harness.manifest import EngineRecord, Manifest, ModelRecord, PixelsRecord, SamplingRecord
from ahabench.harness.progress import Lines
from ahabench.harness.runlog import read_responses
from ahabench.harness.runner import Plan, TaskPlan, run
from ahabench.harness.types import AnswerType, Item, Prompt, PromptStyle, Request, Response

PLAIN = PromptStyle(version=3, render=lambda item: Prompt(text=item.question))
THINK = PromptStyle(version=1, render=lambda item: Prompt(text=item.question, system="Think first."))


def dataset(name: str = "sums", n_items: int = 6, **fields: Any) -> Dataset:
    items = tuple(
        Item(id=str(n), question=f"{name}: {n} + {n}?", gold=str(2 * n), answer_type=AnswerType.INTEGER)
        for n in range(n_items)
    )
    made = benchmark(items, name=name, prompts={"plain": PLAIN, "think": THINK}, digest=data.digest(items))
    return replace(made, **fields)


def plan(*sets: Dataset, style: str = "plain", **fields: Any) -> Plan:
    tasks = tuple(TaskPlan(dataset=one, style=style, prompt=one.task.prompts[style]) for one in sets or (dataset(),))
    return Plan(tasks=tasks, **fields)


def recording(path: Path, n_items: int = 6, samples: int = 1) -> Path:
    """Write what somebody's model said: item n, sample s."""
    rows = [
        {"item_id": str(n), "sample_index": s, "response": f"{n}/{s}:".ljust(20, "x"), "finish_reason": "stop"}
        for n in range(n_items)
        for s in range(samples)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Told:
    """What the progress was told."""

    def __init__(self) -> None:
        self.stream = StringIO()
        self.lines = Lines(self.stream)

    def __str__(self) -> str:
        return self.stream.getvalue()


def go(plan: Plan, engine: Any, out: Path) -> tuple[Manifest, str]:
    told = Told()
    manifest = run(plan, engine, out, progress=told.lines)
    return manifest, str(told)


def rows(out: Path, task: str = "sums") -> dict[tuple[str, int], str | None]:
    return {(row.item_id, row.sample_index): row.text for row in read_responses(out / task / "responses.jsonl")}


class Named:
    """A replay that claims to be another engine, as a real one would describe itself."""

    def __init__(self, said: Path, **parts: Any) -> None:
        self._replay = ReplayEngine(said)
        self.info = EngineInfo(
            model=ModelRecord(**({"name": "m", "weights_digest": "sha256:aa", "adapter": ""} | parts.get("model", {}))),
            engine=EngineRecord(**({"name": "transformers", "version": "5.1"} | parts.get("engine", {}))),
            sampling=SamplingRecord(**({"temperature": 0.0, "seed": 0} | parts.get("sampling", {}))),
            pixels=PixelsRecord(**parts.get("pixels", {})),
        )

    def generate(self, requests: Sequence[Request]) -> Iterator[Response]:
        return self._replay.generate(requests)


class Looking(Named):
    """Looks at each image as it answers."""

    def generate(self, requests: Sequence[Request]) -> Iterator[Response]:
        for request in requests:
            for image in request.images:
                image.read()
            yield from super().generate([request])


def with_images(*paths: Path) -> Dataset:
    made = dataset(n_items=len(paths))
    items = zip(made.items, paths, strict=True)
    return replace(made, items=tuple(replace(item, images=(ImageFile(path),)) for item, path in items))


def pictured(tmp_path: Path, n_items: int = 3) -> Dataset:
    for n in range(n_items):
        (tmp_path / f"{n}.png").write_bytes(f"picture {n}".encode())
    return with_images(*(tmp_path / f"{n}.png" for n in range(n_items)))
