"""Answer a shard of "many" in a process of its own: argv is the run directory, the shard, and the engine's log."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ahabench.harness import registry
from ahabench.harness.dataset import load
from ahabench.harness.engines import EngineInfo
from ahabench.harness.evaluation import evaluate
from ahabench.harness.manifest import EngineRecord, ModelRecord, PixelsRecord, SamplingRecord
from ahabench.harness.runner import Plan, TaskPlan
from ahabench.harness.shards import parse_shard
from ahabench.harness.types import Request, Response

BATCH = 4
"""Requests in flight."""


class Slow:
    """Adds, four at a time, after noting in a file what it was asked."""

    def __init__(self, log: Path) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.info = EngineInfo(
            model=ModelRecord(name="slow", weights_digest="sha256:00", adapter="", text_only=False),
            engine=EngineRecord(name="slow", version="1"),
            sampling=SamplingRecord(max_new_tokens=16, temperature=0.0, seed=0),
            pixels=PixelsRecord(),
        )

    def generate(self, requests: Sequence[Request]) -> Iterator[Response]:
        for start in range(0, len(requests), BATCH):
            batch = requests[start : start + BATCH]
            os.write(self._log, "".join(f"{one.item_id}\n" for one in batch).encode())
            for one in batch:
                one.images[0].read()
            time.sleep(0.004)
            for one in batch:
                text = f"It is {2 * int(one.item_id)}"
                yield Response(item_id=one.item_id, text=text, finish_reason="stop", completion_tokens=4)


def main(out: Path, shard: str, log: Path) -> None:
    task = registry.find_task("many")
    dataset = load(task, "test", data=out.parent)
    part = TaskPlan(dataset=dataset, style="official", prompt=task.prompts["official"])
    plan = Plan(tasks=(part,), shard=parse_shard(shard) if shard else None)
    evaluate(plan, Slow(log), out, scorer="robust", data=out.parent)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
