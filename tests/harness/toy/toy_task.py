"""A stranger's benchmark: six sums in three pairs, with rules so plain that every verdict can be told by looking."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ahabench.harness.dataset import read_json
from ahabench.harness.errors import IncompleteRunError
from ahabench.harness.images import ImageFile
from ahabench.harness.metrics import accuracy
from ahabench.harness.stats import clustered_mean
from ahabench.harness.types import (
    AnswerType,
    Estimate,
    Item,
    Prompt,
    PromptStyle,
    Response,
    Result,
    Row,
    Scorer,
    Split,
    Status,
    Task,
    Verdict,
)


def read_folder(folder: Path, split: str) -> Iterator[Row]:
    for row in read_json(folder / "items.json"):
        yield row | {"images": (ImageFile(folder / "images" / row["image"]),)}


def to_item(row: Row) -> Item:
    return Item(
        id=row["id"],
        question=row["question"],
        gold=row["answer"],
        answer_type=AnswerType.INTEGER,
        images=row["images"],
        group=row["id"][0],
        tags={"kind": (row["kind"],)},
    )


def compare(item: Item, extracted: str) -> Verdict:
    status = Status.CORRECT if extracted == item.gold else Status.WRONG
    return Verdict(status=status, extracted=extracted, rule="same")


def read(item: Item, response: Response) -> Verdict:
    """Take the last whole number for the answer."""
    numbers = re.findall(r"-?\d+", response.text or "")
    return compare(item, numbers[-1]) if numbers else Verdict(status=Status.NO_ANSWER, rule="no-number")


def pairs(results: Sequence[Result]) -> Estimate:
    """Share of pairs with both items right."""
    by_pair: dict[str, list[float]] = {}
    for result in results:
        by_pair.setdefault(result.item.cluster, []).append(result.mean)
    if any(len(scores) != 2 for scores in by_pair.values()):
        raise IncompleteRunError("a pair has a hole")
    return clustered_mean([min(scores) for scores in by_pair.values()], list(by_pair))


def shout(word: str) -> None:
    """Say a word loudly."""
    print(word.upper())


TASK = Task(
    name="toy",
    title="Toy sums",
    version=1,
    paper="none",
    licence="none",
    splits={"test": Split(n_items=6, hub=None), "hidden": Split(n_items=6, hub=None, answers_public=False)},
    default_split="test",
    read_folder=read_folder,
    to_item=to_item,
    prompts={"official": PromptStyle(version=4, render=lambda item: Prompt(text=item.question))},
    scorers={
        "robust": Scorer(version=2, read=read, compare=compare),
        "official": Scorer(version=1, read=None, compare=compare),
        "vlmevalkit": Scorer(version=1, read=read, compare=compare, excluded=frozenset({"c2"})),
    },
    metrics={"accuracy": accuracy, "pairs": pairs},
    headline="accuracy",
    breakdowns={"kind": ("accuracy",)},
    bad_items={"c2": "[the sum] is *odd*"},
)
