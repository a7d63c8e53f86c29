"""A benchmark of 100,000 items, as a stranger's package brings one: what the time of a comparison is measured on."""

from ahabench.harness.answers.robust import ROBUST
from ahabench.harness.metrics import accuracy
from ahabench.harness.types import AnswerType, Item, Prompt, PromptStyle, Row, Split, Task

N_ITEMS = 100_000


def to_item(row: Row) -> Item:
    return Item(
        id=row["id"],
        question="How many?",
        gold="1",
        answer_type=AnswerType.INTEGER,
        tags={"subject": (f"subject {row['place'] % 12}",)},
    )


def rows() -> list[Row]:
    return [{"id": f"item {place}", "place": place} for place in range(N_ITEMS)]


TASK = Task(
    name="huge",
    title="Huge",
    version=1,
    paper="",
    licence="",
    splits={"all": Split(n_items=N_ITEMS, hub=None, rows=rows)},
    default_split="all",
    read_folder=lambda folder, split: [],
    to_item=to_item,
    prompts={"official": PromptStyle(version=1, render=lambda item: Prompt(text=item.question))},
    scorers={"robust": ROBUST},
    metrics={"accuracy": accuracy},
    headline="accuracy",
    breakdowns={"subject": ("accuracy",)},
)
