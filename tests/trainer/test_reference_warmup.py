"""The warm-up's own loop computes what transformers computes."""

from collections import Counter
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image

from ahabench.harness.prompts import VLAA_SYSTEM_PROMPT
from ahabench.tasks.mini.training import train_samples
from ahabench.trainer.reference import new_model, new_processor
from ahabench.trainer.tokenizer import END, IMAGE, make_tokenizer
from ahabench.trainer.warmup import (
    IGNORED,
    Corpus,
    Lesson,
    Schedule,
    Stage,
    _batches,
    _share_of_peak,
    loss_of,
    make_corpus,
    warm_up,
)

N = 12


@pytest.fixture(scope="module")
def lessons() -> list[Lesson]:
    return [
        Lesson(
            pixels=sample.record["image"].pixels(),
            question=sample.record["question"],
            # Lengths that differ, so that there is padding.
            completion=sample.careful if number % 3 else sample.hasty,
        )
        for number, sample in enumerate(train_samples(N, seed=3))
    ]


@pytest.fixture(scope="module")
def front(lessons: list[Lesson]) -> Any:
    return new_processor(make_tokenizer(f"{lesson.question} {lesson.completion}" for lesson in lessons))


@pytest.fixture
def model(front: Any) -> Any:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = new_model(front.tokenizer)
        # Attention that does something: a fresh model's layers add nothing.
        for name, weight in fresh.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "attn.proj.weight")):
                torch.nn.init.normal_(weight, std=0.08)
    return fresh.eval()


@pytest.fixture
def corpus(lessons: list[Lesson], front: Any, model: Any) -> Corpus:
    return make_corpus(lessons, front, model)


@pytest.fixture
def image_token(front: Any) -> int:
    token: int = front.tokenizer.convert_tokens_to_ids(IMAGE)
    return token


def as_the_processor_has_it(lesson: Lesson, front: Any) -> Any:
    """One lesson through the chat template and the processor, as transformers documents it."""
    messages = [
        {"role": "system", "content": [{"type": "text", "text": VLAA_SYSTEM_PROMPT}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": lesson.question}]},
    ]
    prompt = front.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    picture = Image.fromarray(lesson.pixels)
    return front(text=[prompt + lesson.completion + END], images=[[picture]], return_tensors="pt"), prompt


def test_tokens_and_positions_are_those_of_the_processor(
    lessons: list[Lesson], front: Any, model: Any, corpus: Corpus
) -> None:
    for place, lesson in enumerate(lessons):
        inputs, _ = as_the_processor_has_it(lesson, front)
        length = int(corpus.lengths[place])
        assert corpus.ids[place, :length].tolist() == inputs["input_ids"][0].tolist()
        positions, _ = model.model.get_rope_index(
            inputs["input_ids"],
            mm_token_type_ids=inputs["mm_token_type_ids"],
            image_grid_thw=inputs["image_grid_thw"],
        )
        assert corpus.positions[:, place, :length].tolist() == positions[:, 0].tolist()


def test_only_completions_and_their_end_have_a_loss(lessons: list[Lesson], front: Any, corpus: Corpus) -> None:
    for place, lesson in enumerate(lessons):
        labels = [label for label in corpus.labels[place].tolist() if label != IGNORED]
        assert front.tokenizer.decode(labels) == lesson.completion + END


def test_the_loss_is_that_of_the_model_on_each_lesson_alone(
    lessons: list[Lesson], front: Any, model: Any, corpus: Corpus, image_token: int
) -> None:
    import torch

    total, tokens = 0.0, 0
    for place, lesson in enumerate(lessons):
        inputs, _ = as_the_processor_has_it(lesson, front)
        labels = corpus.labels[place, : int(corpus.lengths[place])][None]
        with torch.no_grad():
            alone = model(**inputs, labels=labels).loss
        count = int((labels != IGNORED).sum())
        total, tokens = total + float(alone) * count, tokens + count
    with torch.no_grad():
        ours = loss_of(model, corpus, range(N), image_token=image_token)
    assert float(ours) == pytest.approx(total / tokens, rel=1e-4)


def test_a_batch_is_no_wider_than_its_longest_lesson(model: Any, corpus: Corpus, image_token: int) -> None:
    import torch

    shortest = int(corpus.lengths.argmin())
    # Whatever stands behind the lesson cannot matter if it is never read.
    spoiled = replace(corpus, ids=corpus.ids.clone())
    spoiled.ids[shortest, int(corpus.lengths[shortest]) :] = image_token
    with torch.no_grad():
        losses = [float(loss_of(model, one, [shortest], image_token=image_token)) for one in (corpus, spoiled)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("step", "share"),
    [
        (0, 1 / 30),  # the first of 30 steps of rise
        (29, 1.0),
        (50, 1.0),  # half of the steps are left: the fall begins
        (75, 0.5),  # a quarter is left, half of the falling part
        (99, 0.03),  # 1 of 100 is left: 0.02, held at 0.03
    ],
)
def test_the_learning_rate_rises_stays_and_falls(step: int, share: float) -> None:
    assert _share_of_peak(step, 100) == pytest.approx(share)


def test_every_lesson_comes_once_before_any_comes_again(corpus: Corpus) -> None:
    batches = list(islice(_batches(corpus, 4, Random(0)), 2 * N // 4))
    assert all(len(batch) == 4 for batch in batches)
    assert Counter(chain.from_iterable(batches[:3])) == Counter(range(N))
    assert Counter(chain.from_iterable(batches)) == Counter(2 * list(range(N)))


def test_lessons_of_like_length_come_together(corpus: Corpus) -> None:
    lengths = sorted(corpus.lengths.tolist())
    batches = list(islice(_batches(corpus, 4, Random(1)), 3))
    found = sorted(sorted(int(corpus.lengths[row]) for row in batch) for batch in batches)
    assert found == [lengths[:4], lengths[4:8], lengths[8:]]


def test_training_fits_a_dozen_lessons(model: Any, corpus: Corpus, image_token: int) -> None:
    losses: list[float] = []
    stages = [Stage(corpus, 40), Stage(corpus, 20)]
    warm_up(
        model,
        stages,
        Schedule(batch_size=4),
        seed=0,
        image_token=image_token,
        progress=lambda step, loss: losses.append(loss),
    )
    assert len(losses) == 60
    assert sum(losses[-3:]) < sum(losses[:3]) / 3
    assert not model.training


def test_progress_counts_the_steps_of_all_stages(model: Any, corpus: Corpus, image_token: int) -> None:
    steps: list[int] = []
    stages = [Stage(corpus, 2), Stage(corpus, 0), Stage(corpus, 1)]
    warm_up(
        model, stages, Schedule(batch_size=4), seed=0, image_token=image_token, progress=lambda s, _: steps.append(s)
    )
    assert steps == [1, 2, 3]


def test_making_a_corpus_leaves_no_position_state_in_the_model(
    lessons: list[Lesson], front: Any, tmp_path: Path
) -> None:
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = new_model(front.tokenizer)
    corpus = make_corpus(lessons, front, fresh)
    warm_up(
        fresh,
        [Stage(corpus, 1)],
        Schedule(batch_size=4),
        seed=0,
        image_token=front.tokenizer.convert_tokens_to_ids(IMAGE),
    )
    fresh.save_pretrained(tmp_path)
    loaded = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path).eval()
    inputs, _ = as_the_processor_has_it(lessons[0], front)
    with torch.no_grad():
        assert torch.equal(fresh(**inputs).logits, loaded(**inputs).logits)
