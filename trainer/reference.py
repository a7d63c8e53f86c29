"""The reference checkpoint: a real Qwen2.5-VL of under a million parameters, made from nothing in about a minute.

It is what GRPO starts from in the demo, in tests and in the study: an imperfect "aligned base", saved as an ordinary
checkpoint folder that transformers, TRL and vLLM load. Its warm-up is supervised. What it leaves for GRPO is planted:

* Two ways to answer. Most lessons are careful: they read the four cells, work the answer out and tag it. The last part
  also shows hasty ones, a bare guess from a shortcut that is right about one time in four, mostly where a question has
  options or is of level 3. So the base guesses there, although it could think.
* Half a skill. Careful answers are not all right: sums, comparisons and above all finding a value among We-Math's
  options are half learned when the minute is over.

Measured greedily on the 720 held-out items (scorer `robust`), for seeds 0, 1, 2: 0.524, 0.449 and 0.428 as it comes;
0.642, 0.539 and 0.568 when it is forced to think (`trainer.baseline.force_careful`). The recipe `tiny-cpu` took seed 0
from 0.524 to 0.636: GRPO found out which way pays and gained nothing beyond it. Six trials of 60 to 80 rollouts with a
plain loop, on earlier versions of the base, ended between 1.8 points below and 1.5 above the forced base. One, on seed
2 with groups of 8 at temperature 1, stood 2.5 points above after 50 rollouts and 0.6 after 100. A base without planted
ways rose by 4.4 points in one trial and fell by 15 at a higher learning rate. So read a gain here as the choice of a
way to answer, unless it beats the forced base.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from ahabench.tasks.mini.training import TrainSample, train_samples
from ahabench.trainer.tokenizer import IMAGE, TEMPLATE, VIDEO, VISION_END, VISION_START, make_tokenizer
from ahabench.trainer.warmup import Lesson, Schedule, Stage, make_corpus, warm_up

PICTURE_PX = 56
"""Width and height of the pictures it is made for: 4 x 4 patches of 14, which the model merges to 2 x 2 tokens."""

CONTEXT = 4096
"""Longest sequence, in tokens."""

WARMUP_STEPS = 1300
"""Optimiser steps of the supervised warm-up: about a minute on one core."""

N_SAMPLES = 6000
"""Different training samples that the lessons are made of."""

_MAX_DRAWS = 3 * N_SAMPLES
_VOCABULARY_DRAWS = 2000
"""Enough to meet every word of the suite."""

_KEPT = {"read": 0.35, "description": 0.3, "box": 0.4, "add": 0.6, "subtract": 0.8}
"""How many of a family's draws become samples, all where it says nothing: what is learned early is asked less."""

_SELDOM = 0.25
"""How many of We-Math's draws become samples: to find a value among options is left half learned, for GRPO."""

_HASTY_STAGE = 0.12
"""The last part of the steps, in which the base is taught to be hasty."""

HASTY_SHARE = {True: 0.85, False: 0.2}
"""How many lessons of that part show the hasty completion: of the tempting ones (options, or level 3), of the rest."""

_MARKS = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": VISION_START,
    "vision_end_token_id": VISION_END,
}
"""Which token the model's configuration calls what."""

_SEED = 990_000
"""Added to the seed, so that the lessons are not the draws that a GRPO recipe makes from a small seed."""


def make_reference(
    out: Path, *, seed: int = 0, steps: int = WARMUP_STEPS, progress: Callable[[str], None] = lambda line: None
) -> Path:
    """Write the reference checkpoint to a folder and return the folder.

    The same seed and steps give the same weights on one machine: one thread does the work, whatever else is running.

    Args:
        out: made if it is not there.
        seed: of the weights, the lessons and their order.
        steps: of the warm-up; 0 leaves the weights as they were drawn.
        progress: called with a line now and then.
    """
    import torch

    tokenizer = new_tokenizer()
    processor = new_processor(tokenizer)
    with _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = new_model(tokenizer)
        if steps:
            _teach(model, processor, seed=seed, steps=steps, progress=progress)
    model.save_pretrained(out)
    processor.save_pretrained(out)
    return out


def new_tokenizer() -> Any:
    """Return the tokenizer of every reference checkpoint, with the words of the built-in suite."""
    drawn = train_samples(_VOCABULARY_DRAWS, seed=_SEED)
    return make_tokenizer(f"{sample.record['question']} {sample.careful}" for sample in drawn)


def warmup_samples(seed: int = 0, *, steps: int = WARMUP_STEPS) -> list[TrainSample]:
    """Return the samples that the warm-up of a seed learns from: `N_SAMPLES`, or one per lesson where it is shorter."""
    rng = Random(seed)
    wanted = min(steps * Schedule().batch_size, N_SAMPLES)
    drawn = train_samples(_MAX_DRAWS, seed=_SEED + seed)
    kept = (sample for sample in drawn if rng.random() < _chance(sample))
    return list(islice(kept, wanted))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch to one thread: several change the sums' order, and on busy cores wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _teach(
    model: Any,
    processor: Any,
    *,
    seed: int,
    steps: int,
    progress: Callable[[str], None],
) -> None:
    rng = Random(seed)
    samples = warmup_samples(seed, steps=steps)
    hasty_steps = round(steps * _HASTY_STAGE)
    schedule = Schedule()
    careful = [_lesson(sample, sample.careful) for sample in samples]
    mixed = [
        _lesson(sample, sample.hasty if rng.random() < HASTY_SHARE[_tempting(sample)] else sample.careful)
        for sample in samples[: max(1, hasty_steps) * schedule.batch_size]
    ]
    stages = [
        Stage(make_corpus(careful, processor, model), steps - hasty_steps),
        Stage(make_corpus(mixed, processor, model), hasty_steps),
    ]

    def tell(step: int, loss: float) -> None:
        if step % 100 == 0 or step == steps:
            progress(f"warm-up {step}/{steps}: loss {loss:.3f}")

    image_token = processor.tokenizer.convert_tokens_to_ids(IMAGE)
    warm_up(model, stages, schedule, seed=seed, image_token=image_token, progress=tell)


def _chance(sample: TrainSample) -> float:
    seldom = _SELDOM if sample.record["meta"]["benchmark"] == "wemath" else 1.0
    return seldom * _KEPT.get(sample.problem.family, 1.0)


def _tempting(sample: TrainSample) -> bool:
    return bool(sample.problem.options) or sample.problem.level == 3


def _lesson(sample: TrainSample, completion: str) -> Lesson:
    return Lesson(pixels=sample.record["image"].pixels(), question=sample.record["question"], completion=completion)


def new_model(tokenizer: Any) -> Any:
    """Return an untrained model in float32, drawn from torch's random numbers."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in _MARKS.items()}
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    text = {"vocab_size": len(tokenizer), **_text_sizes(), **ends}
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=_vision_sizes(), tie_word_embeddings=True, dtype="float32", **ids, **ends
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    with torch.no_grad():
        _arrange_digits(model.model.language_model.embed_tokens.weight, tokenizer)
        # Every layer starts as nothing added to the embeddings.
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "attn.proj.weight")):
                weight.zero_()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def _text_sizes() -> dict[str, Any]:
    return {
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,  # of 32 dimensions: vLLM refuses 16
        "num_key_value_heads": 3,
        "max_position_embeddings": CONTEXT,
        # A base of 20 for the rotary positions: with the usual 10,000 the height and width of so small a picture turn
        # the vectors by next to nothing, and the rows were told apart much later.
        "rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 20.0},
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "initializer_range": 0.08,
    }


def _vision_sizes() -> dict[str, Any]:
    return {
        "depth": 2,
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_heads": 3,
        "out_hidden_size": 96,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [0, 1],
        "initializer_range": 0.08,
    }


def _arrange_digits(embeddings: Any, tokenizer: Any) -> None:
    """Add to each digit's random embedding its place on a line and on three circles, as trained models have them.

    On a circle, adding is turning: sums can be learned as one rule and not one by one. A head start for a minute.
    """
    import torch

    angles = 2 * torch.pi * torch.arange(10) / 10
    line = (torch.arange(10) - 4.5) / 4.5
    circles = [turn(k * angles) for k in (1, 2, 5) for turn in (torch.cos, torch.sin)]
    places = torch.stack([line, *circles], dim=1)  # [10, 7]
    directions = torch.linalg.qr(torch.randn(embeddings.shape[1], places.shape[1]))[0].T  # [7, D], orthonormal
    for digit in range(10):
        for piece in (str(digit), f"\u0120{digit}"):
            embeddings[tokenizer.convert_tokens_to_ids(piece)] += 0.4 * (places[digit] @ directions)


def new_processor(tokenizer: Any) -> Any:
    """Return the processor: pictures of `PICTURE_PX` stay as they are, larger ones shrink to four times the area."""
    import transformers

    library: Any = transformers
    limits = {"min_pixels": PICTURE_PX**2, "max_pixels": 4 * PICTURE_PX**2}
    tokenizer.chat_template = TEMPLATE
    return library.Qwen2_5_VLProcessor(
        library.Qwen2VLImageProcessor(**limits),
        tokenizer,
        library.Qwen2VLVideoProcessor(**limits),
        chat_template=TEMPLATE,
    )
