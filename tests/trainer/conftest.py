"""A tiny untrained model, a folder of training records, and trainers on them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image, ImageDraw

QUESTIONS: dict[str, dict[str, Any]] = {
    "digit": {"question": "How many squares?"},
    "mcq": {"question": "How many squares?\nChoices:\nA: 0\nB: 1\nC: 2\nD: 3"},
    "math": {"question": "What is the number of squares?"},
    "iou": {"question": "Where is the first cell?", "gt": "[0.0, 0.0, 0.5, 0.5]", "meta": {"box_units": "normalised"}},
}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in a fixed order, and no fight over the cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2.5-VL of under a million parameters that has learned nothing."""
    import torch

    from ahabench.trainer.reference import new_model, new_processor
    from ahabench.trainer.tokenizer import make_tokenizer

    # Words of its own: what the built-in suite says may change without changing a golden value.
    tokenizer = make_tokenizer([question["question"] for question in QUESTIONS.values()])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = new_model(tokenizer)
    folder = tmp_path_factory.mktemp("untrained")
    model.save_pretrained(folder)
    new_processor(tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 records of the four kinds that rules decide, with pictures of up to three white squares in four cells."""
    folder = tmp_path_factory.mktemp("records")
    (folder / "images").mkdir()
    rng = Random(0)
    rows = []
    for index in range(24):
        picture = Image.new("RGB", (56, 56), (110, 115, 120))
        cells = rng.sample(range(4), index % 4)
        for cell in cells:
            x, y = 28 * (cell % 2), 28 * (cell // 2)
            ImageDraw.Draw(picture).rectangle((x + 6, y + 6, x + 22, y + 22), fill=(255, 255, 255))
        picture.save(folder / "images" / f"{index}.png")
        kind = list(QUESTIONS)[(index // 4) % 4]
        gold = "ABCD"[len(cells)] if kind == "mcq" else len(cells)
        row = {"id": f"{kind}-{index}", "image": f"images/{index}.png", "verifier_type": kind, "gt": gold}
        rows.append(row | QUESTIONS[kind])
    (folder / "records.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture(scope="session")
def settings(untrained: Path, records: Path) -> dict[str, Any]:
    """A recipe that makes a step on a CPU in a fraction of a second."""
    return {
        "model": str(untrained),
        "data": str(records),
        "max_new_tokens": 8,
        "prompts_per_rollout": 4,
        "train_batch": 8,
        "micro_batch": 8,
        "learning_rate": 3e-4,
        "temperature": 2.0,
        "min_learning_rate": 0,
        "warmup": 0,
        "kl": {"init": 0.01, "target": 0.001, "horizon": 100},
        "freeze_vision": False,
        "bf16": False,
        "gradient_checkpointing": False,
        "max_steps": 4,
    }


Reward = Callable[..., list[float | None]]


def odd_ids(completion_ids: list[list[int]], **columns: Any) -> list[float | None]:
    """The share of a completion's tokens with an odd id: even an untrained model differs in that."""
    return [sum(token % 2 for token in ids) / len(ids) for ids in completion_ids]


@pytest.fixture
def trainer_of(settings: dict[str, Any], tmp_path: Path) -> Callable[..., Any]:
    """Return a trainer with a reward function of the test's."""

    def build(reward: Reward = odd_ids, out: Path = tmp_path / "out", **overrides: Any) -> Any:
        from ahabench.trainer.base_model import open_model
        from ahabench.trainer.grpo_run import load_items, trainer_with
        from ahabench.trainer.recipe import parse_recipe

        recipe = parse_recipe(settings | overrides, name="test")
        out.mkdir(exist_ok=True)
        front = open_model(recipe, out)
        return trainer_with(recipe, load_items(recipe), front, reward, out)

    return build
