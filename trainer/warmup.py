"""Supervised training of the reference model: a direct loop, because a minute is all that it gets.

It computes what `Qwen2_5_VLForConditionalGeneration` computes, but tokenizes the lessons and finds their rotary
positions once, before the first step.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from ahabench.harness.prompts import VLAA_SYSTEM_PROMPT
from ahabench.trainer.tokenizer import END, IMAGE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

IGNORED = -100
"""The label of a token that has no loss."""

_QUESTION = "\N{NULL}"
_SHELF = 8
"""Batches that are filled from one shuffled part of the corpus, sorted by length: 15 % fewer padding tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """One picture with a question and the completion to learn."""

    pixels: "NDArray[np.uint8]"
    """``[height, width, 3]``; all lessons have pictures of the same size."""
    question: str
    completion: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """N lessons as the model reads them, padded on the right to the longest."""

    ids: "Tensor"
    """``[N, T]`` int64"""
    labels: "Tensor"
    """``[N, T]`` int64: the token itself within a completion, `IGNORED` elsewhere."""
    positions: "Tensor"
    """``[3, N, T]`` int64: in time, height and width."""
    lengths: "Tensor"
    """``[N]`` int64: tokens without padding."""
    pixels: "Tensor"
    """``[N, 3, height, width]`` uint8"""
    images: Any
    """The image processor, which cuts each batch when its turn comes: cut, all pictures would take gigabytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How fast to learn."""

    batch_size: int = 16
    learning_rate: float = 2e-3
    """The highest, after 30 steps; it falls linearly over the second half."""
    max_grad_norm: float = 1.0


class Stage(NamedTuple):
    """A part of the training with lessons of its own."""

    corpus: Corpus
    steps: int


def make_corpus(lessons: Sequence[Lesson], processor: Any, model: Any) -> Corpus:
    """Return the lessons under the system prompt of the style `think`, tokenized and placed.

    Args:
        lessons: at least one.
        processor: of a Qwen2.5-VL, with its chat template.
        model: of the same family; its weights do not matter.
    """
    import torch

    tokenizer = processor.tokenizer
    pixels = torch.stack([torch.from_numpy(lesson.pixels) for lesson in lessons]).permute(0, 3, 1, 2)
    images = processor.image_processor
    grid = images(list(pixels[:1]), return_tensors="pt")["image_grid_thw"]
    head, tail = _around_question(processor, n_image=int(grid.prod()) // images.merge_size**2)
    prompts = tokenizer([f"{head}{lesson.question}{tail}" for lesson in lessons]).input_ids
    completions = tokenizer([f"{lesson.completion}{END}" for lesson in lessons]).input_ids
    rows = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), tokenizer.pad_token_id)
    labels = torch.full((len(rows), longest), IGNORED)
    for place, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        ids[place, : len(row)] = torch.tensor(row)
        labels[place, len(prompt) : len(row)] = ids[place, len(prompt) : len(row)]
    is_image = (ids == tokenizer.convert_tokens_to_ids(IMAGE)).long()
    positions, _ = model.model.get_rope_index(ids, mm_token_type_ids=is_image, image_grid_thw=grid.expand(len(rows), 3))
    return Corpus(
        ids=ids,
        labels=labels,
        positions=positions,
        lengths=torch.tensor([len(row) for row in rows]),
        pixels=pixels,
        images=images,
    )


def warm_up(
    model: Any,
    stages: Sequence[Stage],
    schedule: Schedule,
    *,
    seed: int,
    image_token: int,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Train a model in place, with AdamW on the mean cross-entropy per completion token.

    Args:
        model: in float32, on the CPU.
        stages: one after the other under one optimiser and one schedule.
        schedule: how fast.
        seed: of the order of the lessons.
        image_token: the placeholder's id.
        progress: called with the step, from 1, and its loss in nats per token.
    """
    import torch

    optimizer = torch.optim.AdamW(
        model.parameters(), lr=schedule.learning_rate, betas=(0.9, 0.95), weight_decay=0.01, fused=True
    )
    total = sum(stage.steps for stage in stages)
    rng = Random(seed)
    step = 0
    model.train()
    for stage in stages:
        for chosen in islice(_batches(stage.corpus, schedule.batch_size, rng), stage.steps):
            for group in optimizer.param_groups:
                group["lr"] = schedule.learning_rate * _share_of_peak(step, total)
            loss: Any = loss_of(model, stage.corpus, chosen, image_token=image_token)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.max_grad_norm)
            optimizer.step()
            step += 1
            progress(step, loss.item())
    model.eval()


def loss_of(model: Any, corpus: Corpus, chosen: Sequence[int], *, image_token: int) -> "Tensor":
    """Return the mean cross-entropy, in nats, of the completion tokens of the chosen lessons: a scalar."""
    import torch

    rows = list(chosen)
    longest = int(corpus.lengths[rows].max())
    ids = corpus.ids[rows, :longest]  # [B, T]
    # As tensors: from PIL images the processor takes three times as long.
    pictures = corpus.images(list(corpus.pixels[rows]), return_tensors="pt")
    hidden = model.model(
        input_ids=ids,
        # Padding is on the right, where no token before it looks.
        attention_mask=None,
        position_ids=corpus.positions[:, rows, :longest],
        pixel_values=pictures["pixel_values"],  # [B * P, 1176]
        image_grid_thw=pictures["image_grid_thw"],  # [B, 3]
        mm_token_type_ids=(ids == image_token).long(),
        use_cache=False,
    ).last_hidden_state
    wanted = corpus.labels[rows, 1:longest]  # [B, T - 1]
    counts = wanted != IGNORED
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[:, :-1][counts]), wanted[counts])


def _around_question(processor: Any, *, n_image: int) -> tuple[str, str]:
    """Return what stands before and after the question in a prompt, with the picture's placeholders."""
    content = [{"type": "image"}, {"type": "text", "text": _QUESTION}]
    messages = [
        {"role": "system", "content": [{"type": "text", "text": VLAA_SYSTEM_PROMPT}]},
        {"role": "user", "content": content},
    ]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    head, tail = str(text).replace(IMAGE, IMAGE * n_image).split(_QUESTION)
    return head, tail


def _batches(corpus: Corpus, size: int, rng: Random) -> Iterator[list[int]]:
    """Yield batches without end, every lesson about as often as any other, lessons of like length together."""
    lengths = corpus.lengths.tolist()
    order = list(range(len(lengths)))
    shelf = min(size * _SHELF, len(order) // size * size)
    while True:
        rng.shuffle(order)
        for start in range(0, len(order) - shelf + 1, shelf):
            part = sorted(order[start : start + shelf], key=lengths.__getitem__)
            groups = [part[at : at + size] for at in range(0, shelf, size)]
            rng.shuffle(groups)
            yield from groups


def _share_of_peak(step: int, steps: int) -> float:
    """Return the learning rate of a step, from 0, as a share of the highest."""
    rise = min(1.0, (step + 1) / 30)
    fall = min(1.0, max(0.03, 2 * (steps - step) / steps))
    return rise * fall
