"""What a run of many images holds in memory, measured in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

# Answers 10,000 requests, each with another 200 kB image, and prints the peak in kB at the 1,000th and after the last.
_SCRIPT = """
import resource, sys
from dataclasses import dataclass
from pathlib import Path
from ahabench.harness.dataset import Dataset
from ahabench.harness.engines import EngineInfo
from ahabench.harness.manifest import EngineRecord, ModelRecord, PixelsRecord, SamplingRecord
from ahabench.harness.runner import Plan, TaskPlan, run
from ahabench.harness.types import AnswerType, Item, Prompt, PromptStyle, Response, Split, Task

N = 10_000

@dataclass(frozen=True)
class Picture:
    n: int

    def read(self):
        return self.n.to_bytes(4, "big") * 50_000

class Engine:
    info = EngineInfo(
        model=ModelRecord(name="stub", text_only=False), engine=EngineRecord(name="stub", version="1"),
        sampling=SamplingRecord(temperature=0.0), pixels=PixelsRecord(),
    )

    def generate(self, requests):
        for place, request in enumerate(requests):
            assert len(request.images[0].read()) == 200_000
            if place == 1_000:
                print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            yield Response(item_id=request.item_id, text="x" * 4_000, finish_reason="stop", completion_tokens=1_000)

style = PromptStyle(version=1, render=lambda item: Prompt(text=item.question))
task = Task(
    name="many", title="Many", version=1, paper="", licence="", splits={"test": Split(n_items=N, hub=None)},
    default_split="test", read_folder=lambda folder, split: (), to_item=lambda row: row["item"],
    prompts={"plain": style}, scorers={}, metrics={}, headline="accuracy",
)
items = tuple(
    Item(id=str(n), question=f"{n}?", gold=None, answer_type=AnswerType.INTEGER, images=(Picture(n),)) for n in range(N)
)
dataset = Dataset(task=task, split="test", items=items, source="folder", revision=None, digest="00")
plan = Plan(tasks=(TaskPlan(dataset=dataset, style="plain", prompt=style),))
assert run(plan, Engine(), Path(sys.argv[1])).status == "complete"
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
if len(sys.argv) > 2:
    # Going on with the whole run reads all its images again.
    assert run(plan, Engine(), Path(sys.argv[1])).status == "complete"
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_ten_thousand_images_take_no_more_memory_than_one_thousand(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", _SCRIPT, str(tmp_path / "run"), "twice"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    early, late, resumed = map(int, done.stdout.split())
    # The images are 2 GB and the responses 40 MB; keys and digests of 9,000 rows may take 1 kB each.
    assert late - early < 9_000
    # The second pass holds its own requests and the keys of all rows beside those of the first.
    assert resumed - late < 12_000
