"""Whole runs of one checkpoint by transformers and by vLLM, in shards and with a preflight, compared to the letter."""

import io
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from asked import additions
from PIL import Image

from ahabench.harness.engines import OpenEngine, open_engine
from ahabench.harness.manifest import read_manifest
from ahabench.harness.parity import parity
from ahabench.harness.runlog import read_responses
from ahabench.harness.runner import Plan, run
from ahabench.harness.sampling import Sampling
from ahabench.harness.shards import Shard
from ahabench.harness.types import Response

pytestmark = pytest.mark.engines

GREEDY = Sampling(max_new_tokens=12)


@dataclass(frozen=True)
class Picture:
    """A red image of some width."""

    width: int

    def read(self) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (self.width, 56), "red").save(buffer, "PNG")
        return buffer.getvalue()


@pytest.fixture
def pictured() -> Plan:
    """Eight sums, each with an image of another width."""
    plan = additions(8, 1)
    (task,) = plan.tasks
    items = tuple(replace(item, images=(Picture(60 + 20 * place),)) for place, item in enumerate(task.dataset.items))
    return replace(plan, tasks=(replace(task, dataset=replace(task.dataset, items=items)),))


def rows(folder: Path) -> dict[str, Response]:
    return {row.item_id: row for row in read_responses(folder / "sums" / "responses.jsonl")}


def test_two_engines_give_one_checkpoints_greedy_texts(
    pictured: Plan, tiny_vlm: Path, cpu_options: dict[str, str], tmp_path: Path
) -> None:
    def engine(name: str, options: dict[str, str] | None = None) -> OpenEngine:
        return open_engine(name, str(tiny_vlm), sampling=GREEDY, options=options, dtype="float32", device="cpu")

    ours, theirs = tmp_path / "transformers", tmp_path / "vllm"
    assert run(pictured, engine("transformers"), ours, preflight=True).status == "complete"
    vllm = open_engine("vllm", str(tiny_vlm), sampling=GREEDY, options=cpu_options, dtype="float32")
    try:
        assert run(pictured, vllm, theirs, preflight=True).status == "complete"
        half = replace(pictured, shard=Shard(1, 2))
        assert run(half, vllm, tmp_path / "divided", preflight=True).status == "complete"
    finally:
        vllm.close()  # type: ignore[attr-defined]
    (found,) = parity(ours, theirs)
    assert (found.n, found.identical) == (8, 8)
    assert read_manifest(ours).model.weights_digest == read_manifest(theirs).model.weights_digest
    # Also what was seen and read is the same, row by row.
    assert rows(ours) == rows(theirs)
    assert len({row.images_sha256 for row in rows(ours).values()} - {None}) == 8
    divided = rows(tmp_path / "divided" / "shard-1-of-2")
    assert len(divided) == 4
    assert divided.items() <= rows(theirs).items()
