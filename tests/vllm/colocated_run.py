"""Prints as JSON the log of a GRPO run whose rollouts a colocated vLLM makes on the CPU: a process of its own.

    python colocated_run.py CHECKPOINT FOLDER

All is as on a GPU but for the weights: vLLM repacks them for a CPU, where TRL's way of loading fails
(tests/vllm/test_rollouts.py), so they take vLLM's own, `reload_weights`.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any


def main(checkpoint: str, folder: str) -> None:
    """Train for six steps of three rollouts."""
    from trl.generation import vllm_generation

    # What TRL has no setting for and a CPU wants: nothing compiled, and float32 as transformers has it.
    vllm_generation.LLM = partial(vllm_generation.LLM, enforce_eager=True, dtype="float32")
    vllm_generation.VLLMGeneration.sync_weights = _reload

    from ahabench.trainer.base_model import open_model
    from ahabench.trainer.grpo_run import load_items, trainer_with
    from ahabench.trainer.recipe import parse_recipe

    out = Path(folder)
    model = _without_banned_mass(checkpoint, out / "model")
    values = {
        "model": str(model),
        "data": "mini",
        "vllm": "colocate",
        "vllm_gpu_memory_utilization": 0.15,
        "vllm_max_model_length": 4096,
        "max_pixels": 12_544,
        "max_new_tokens": 16,
        "prompts_per_rollout": 4,
        "train_batch": 8,
        "micro_batch": 8,
        "temperature": 1.0,
        "learning_rate": 3e-3,
        "min_learning_rate": 0,
        "warmup": 0,
        "freeze_vision": False,
        "bf16": False,
        "gradient_checkpointing": False,
        "max_steps": 6,
    }
    recipe = parse_recipe(values, name="test")
    trainer = trainer_with(recipe, load_items(recipe), open_model(recipe, out), _odd, out)
    trainer.train()
    print(json.dumps(trainer.state.log_history))


def _odd(completion_ids: list[list[int]], **_: Any) -> list[float | None]:
    """Return the share of a completion's tokens with an odd id: even an untrained model differs in that."""
    return [sum(token % 2 for token in ids) / len(ids) for ids in completion_ids]


def _reload(self: Any) -> None:
    weights = [(name, value.detach().clone()) for name, value in self._iter_named_params()]
    runner = self.llm.llm_engine.model_executor.driver_worker.model_runner
    runner.reload_weights(weights_iterator=iter(weights))
    self.llm.reset_prefix_cache()


def _without_banned_mass(checkpoint: str, folder: Path) -> Path:
    """Return a copy that hardly ever wants a banned token, as a trained model.

    vLLM is not to sample them and the trainer counts them, so that an untrained model's probabilities would differ.
    """
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from ahabench.trainer.grpo import banned_tokens

    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(checkpoint)
    with torch.no_grad():
        model.get_output_embeddings().weight[banned_tokens(model.config, processor.tokenizer)] = 0
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main(*sys.argv[1:])
