"""Prints as JSON what vLLM in TRL's colocate mode makes of prompts with images: a process of its own, for the tests.

    python colocated.py CHECKPOINT

TRL sets the variables of a launch and joins a process group, which a process with other tests must not have.
"""

import json
import sys
from functools import partial
from typing import Any


def main(checkpoint: str) -> None:
    """Generate on the CPU by TRL's `VLLMGeneration`, as it is or in our hands, and by transformers what is compared."""
    import torch
    from accelerate import Accelerator
    from PIL import Image, ImageDraw
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from trl.generation import vllm_generation

    from ahabench.harness.errors import EngineError
    from ahabench.trainer.vllm_rollouts import SamePrompts
    from ahabench.trainer.vllm_settings import VllmSettings, trl_rollouts

    # What TRL has no setting for and a CPU wants: nothing compiled, and float32 as transformers has it.
    vllm_generation.LLM = partial(vllm_generation.LLM, enforce_eager=True, dtype="float32")
    processor = AutoProcessor.from_pretrained(checkpoint)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
    images = []
    for size in ((120, 90), (60, 60), (200, 40)):
        picture = Image.new("RGB", size, "white")
        ImageDraw.Draw(picture).rectangle((9, 9, 40, 30), fill="red")
        images.append(picture)
    pictures = [images[:1], images[1:], None]
    rows = [
        [{"role": "user", "content": [*({"type": "image", "image": i} for i in of or ()), {"type": "text", "text": q}]}]
        for of, q in zip(pictures, ("How many?", "Which is larger?", "Why?"), strict=True)
    ]

    def one(row: Any) -> Any:
        return processor.apply_chat_template(
            [row], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )

    prompts = [one(row)["input_ids"][0].tolist() for row in rows]
    banned = list(range(100, len(processor.tokenizer)))
    rollouts = vllm_generation.VLLMGeneration(
        model,
        Accelerator(cpu=True),
        processor,
        mode="colocate",
        gpu_memory_utilization=0.15,
        max_model_length=2048,
        max_num_seqs=8,
        max_completion_length=8,
        generation_kwargs=trl_rollouts(VllmSettings(vllm="colocate"), banned)["generation_kwargs"],
    )
    found: dict[str, Any] = {"given": prompts}
    for who, taken in (("trl", rollouts), ("ours", SamePrompts(rollouts, processor.image_token_id))):
        read, completions, logprobs, _ = taken.generate(prompts, pictures, 1)
        found[who] = {
            "read": [list(ids) for ids in read],
            "completions": [list(ids) for ids in completions],
            "logprobs": [[token[0] for token in row] for row in logprobs],
            "expected": [
                _logprobs(model, one(row), list(ids), banned) for row, ids in zip(rows, completions, strict=True)
            ],
        }
    processor.image_processor.size = {"shortest_edge": 784, "longest_edge": 3136}
    try:
        SamePrompts(rollouts, processor.image_token_id).generate(
            [one(rows[0])["input_ids"][0].tolist()], pictures[:1], 1
        )
    except EngineError as error:
        found["other_limits"] = str(error)
    try:
        rollouts.sync_weights()
    except Exception as error:
        found["sync"] = f"{type(error).__name__}: {error}"
    print(json.dumps(found))


def _logprobs(model: Any, inputs: Any, completion: list[int], banned: list[int]) -> list[float]:
    """Return what transformers gives for the tokens of a completion, with the bias that vLLM has."""
    import torch

    n = len(completion)
    ids = torch.cat([inputs["input_ids"], torch.tensor([completion])], dim=1)
    whole = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if "mm_token_type_ids" in inputs:
        whole["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, n))
    with torch.no_grad():
        logits = model(**whole).logits[0, -n - 1 : -1]
    logits[:, banned] -= 100
    return logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None])[:, 0].tolist()


if __name__ == "__main__":
    main(*sys.argv[1:])
