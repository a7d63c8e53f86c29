"""The reference checkpoint under vLLM: the same folder, the same greedy texts as under transformers."""

from pathlib import Path

import pytest

from ahabench.harness import registry
from ahabench.harness.dataset import load
from ahabench.harness.engines import open_engine
from ahabench.harness.sampling import Sampling
from ahabench.harness.types import Request
from ahabench.trainer.reference import make_reference

pytestmark = pytest.mark.engines

N_ITEMS = 24


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After 150 steps it writes whole completions, though mostly wrong ones."""
    return make_reference(tmp_path_factory.mktemp("reference") / "base", steps=150)


def texts(engine: str, checkpoint: Path, options: dict[str, str]) -> dict[str, str | None]:
    task = registry.find_task("mathvista")
    render = task.prompts["think"].render
    items = load(task, "mini").items[:N_ITEMS]
    requests = [Request(item_id=i.id, sample_index=0, prompt=render(i), images=i.images) for i in items]
    opened = open_engine(
        engine, str(checkpoint), sampling=Sampling(max_new_tokens=48), options=options, dtype="float32"
    )
    return {response.item_id: response.text for response in opened.generate(requests)}


def test_vllm_writes_what_transformers_writes(reference: Path, cpu_options: dict[str, str]) -> None:
    expected = texts("transformers", reference, {})
    assert len(expected) == N_ITEMS
    assert any("<answer>" in (text or "") for text in expected.values())
    assert texts("vllm", reference, cpu_options) == expected
