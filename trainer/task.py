"""The training data as a task, so that `score`, `agreement` and `--explain` read rollouts as they read an evaluation.

It is no benchmark: `all` and the listing leave it out (entry-point group `ahabench.data`). Responses are read by the
robust scorer, which needs no tags; so its agreement with the rewards that were paid shows what the format rule costs.
"""

from collections.abc import Iterator
from pathlib import Path

from ahabench.harness.answers.robust import ROBUST
from ahabench.harness.metrics import accuracy
from ahabench.harness.prompts import tagged_answer, think
from ahabench.harness.types import Item, Response, Row, Scorer, Split, Task, Verdict
from ahabench.trainer.data import Kind, TrainItem, raw_records, to_train_item
from ahabench.trainer.rewards import judge_box

MINI_RECORDS = 2_000
"""Records of the built-in data, drawn with seed 0 whatever a recipe's."""
MINI = "mini"
"""What a recipe calls the built-in data."""
BUILT_IN = "built-in"
"""What a run's manifest calls them."""


def built_in_records() -> Iterator[Row]:
    """Yield the records of the built-in data."""
    from ahabench.tasks.mini.training import train_records

    return iter(train_records(MINI_RECORDS))


def _read_folder(folder: Path, split: str) -> Iterator[Row]:
    for row in raw_records(folder):
        # Scoring opens no image.
        yield {**row, "image": None, "images": None}


def _to_item(row: Row) -> Item:
    return to_train_item(row, where="record").item


def _question(item: Item) -> str:
    return item.question


def _read(item: Item, response: Response) -> Verdict:
    if item.tags["verifier_type"] != (Kind.IOU.value,):
        return ROBUST.read(item, response) if ROBUST.read is not None else ROBUST.compare(item, response.text or "")
    return _compare(item, tagged_answer(response.text or ""))


def _compare(item: Item, extracted: str) -> Verdict:
    if item.tags["verifier_type"] != (Kind.IOU.value,):
        return ROBUST.compare(item, extracted)
    return judge_box(TrainItem.of_item(item), extracted).verdict


_SCORER = Scorer(version=1, read=_read, compare=_compare)

TASK = Task(
    name="rollouts",
    title="rollouts of a training run",
    version=1,
    paper="arXiv:2504.11468",
    licence="Apache-2.0 (built-in data)",
    splits={
        BUILT_IN: Split(n_items=MINI_RECORDS, hub=None, rows=built_in_records),
        "vlaa-grpo-25k": Split(n_items=25_195, hub=None),
    },
    default_split=BUILT_IN,
    read_folder=_read_folder,
    to_item=_to_item,
    prompts={"think": think(_question)},
    scorers={"robust": _SCORER},
    metrics={"accuracy": accuracy},
    headline="accuracy",
    breakdowns={"verifier_type": ("accuracy",)},
)
