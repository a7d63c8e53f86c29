"""Trains on recorded completions, on as many processes as it is launched with: python recorded.py CASES.json

CASES.json holds {"cases": {name: recipe}, "table": {item id: [token ids of each sample]}, "out": folder, "again": a
checkpoint's name or null}. Each case is a run of its own in <out>/<name>, which then also holds

    share-P.json               [item id, sample] of all that process P was given, in order
    gradients-N.safetensors    the gradients that step N moves the weights by, where they are not sharded

Where "again" names a checkpoint, it is taken away at the end, as by a kill, and the run goes on from the one before.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import TrainerCallback

from ahabench.trainer import grpo_run
from ahabench.trainer.base_model import open_model
from ahabench.trainer.processes import join
from ahabench.trainer.recipe import parse_recipe
from ahabench.trainer.run_folder import newest

Table = dict[str, list[list[int]]]


def odd_ids(completion_ids: list[list[int]], **columns: Any) -> list[float | None]:
    return [sum(token % 2 for token in ids) / len(ids) for ids in completion_ids]


class Gradients(TrainerCallback):
    """Writes what the optimiser is about to use."""

    def __init__(self, trainer: Any, out: Path) -> None:
        self._trainer, self._out = trainer, out

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        accelerator = self._trainer.accelerator
        found = {
            name: parameter.grad.clone()
            for name, parameter in accelerator.unwrap_model(self._trainer.model).named_parameters()
            if isinstance(parameter.grad, torch.Tensor) and not hasattr(parameter.grad, "full_tensor")
        }
        if found and accelerator.is_main_process:
            save_file(found, self._out / f"gradients-{state.global_step + 1}.safetensors")


def replay(trainer: Any, table: Table, given: list[tuple[str, int]], group_size: int) -> None:
    """Let a trainer draw recorded completions in the place of its policy's."""
    score = trainer._generate_and_score_completions
    ids = trainer._item_ids
    drawn: list[list[int]] = []

    def scored(inputs: list[dict[str, Any]]) -> Any:
        # Where this process's rows stand among all processes', whose groups lie side by side.
        first = trainer.accelerator.process_index * len(inputs)
        keys = [(ids[row["item_index"]], (first + place) % group_size) for place, row in enumerate(inputs)]
        given.extend(keys)
        drawn[:] = [table[item_id][sample] for item_id, sample in keys]
        return score(inputs)

    trainer._generate_and_score_completions = scored
    trainer._generate_single_turn = lambda *args, **options: (list(drawn), None)


def train(values: dict[str, Any], table: Table, out: Path) -> None:
    recipe = parse_recipe(values, name=out.name)
    out.mkdir(exist_ok=True)
    records = grpo_run.load_items(recipe)
    trainer = grpo_run.trainer_with(recipe, records, open_model(recipe, out), odd_ids, out)
    given: list[tuple[str, int]] = []
    replay(trainer, table, given, recipe.group_size)
    trainer.add_callback(Gradients(trainer, out))
    checkpoint = newest(out)
    trainer.train(resume_from_checkpoint=str(checkpoint.path) if checkpoint else None)
    (out / f"share-{trainer.accelerator.process_index}.json").write_text(json.dumps(given))
    trainer.save_model(str(out / "final"))


def as_if_on_gpus() -> None:
    """Give accelerate CPUs and gloo where it wants GPUs: it has FSDP for those alone (1.15), PyTorch for both."""
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_GPU)


def main() -> None:
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        as_if_on_gpus()
    asked = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(1)
    processes = join()
    for name, values in asked["cases"].items():
        out = Path(asked["out"]) / name
        train(values, asked["table"], out)
        if asked["again"] is not None:
            if processes.is_main_process:
                shutil.rmtree(out / asked["again"])
                shutil.rmtree(out / "final")
            processes.wait_for_everyone()
            train(values, asked["table"], out)


if __name__ == "__main__":
    main()
