"""Supervised fine-tuning on TRL's `SFTTrainer`, as the paper's first stage (arXiv:2504.11468, section 3.1).

    <out>/recipe.yaml     the recipe with all its values
    <out>/sft.json        what was trained on what: digests, counts, versions, status
    <out>/log.jsonl       one object per step
    <out>/checkpoint-N/   whole checkpoints (trainer.checkpoints)
    <out>/report.html     curves (trainer.training_page)
    <out>/final/          the trained model with its processor: an ordinary checkpoint, as GRPO's `model`
    <out>/base/           the untrained model, where it is the built-in one

The paper found that this stage makes every model worse on reasoning benchmarks (its table 2) and that models start GRPO
better without it (its table 3). It is here to be measured.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from trl.data_utils import prepare_multimodal_messages
from trl.trainer.sft_config import SFTConfig

from ahabench.harness.checkpoint import weights_digest
from ahabench.harness.disk import replace_file
from ahabench.harness.engines.loading import end_tokens, own_ends, takes_images
from ahabench.harness.errors import UsageError
from ahabench.harness.images import decode
from ahabench.harness.provenance import git, packages
from ahabench.trainer import run_folder
from ahabench.trainer.base_model import Front, adapters_fit, lora_config
from ahabench.trainer.grpo import ALIGNED, DECODED, LOG, LOW_FORMAT_RATE, LogFile, freeze_vision
from ahabench.trainer.lifecycle import FINAL, Ending, carry_out, check_weights, claimed, is_complete, opened
from ahabench.trainer.processes import join, note_once
from ahabench.trainer.rewards import only_answer
from ahabench.trainer.sft_data import Demonstration, Demonstrations, load_demonstrations, read_demonstrations
from ahabench.trainer.sft_recipe import SftRecipe
from ahabench.trainer.sft_watch import SpikeWatch, WatchedTrainer
from ahabench.trainer.task import MINI, built_in_records
from ahabench.trainer.training_page import SFT_RECORD
from ahabench.trainer.trl_settings import shared_settings

CHECKED = 8
"""Demonstrations whose loss is checked token by token before training."""

_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen's message format, for a base of that family whose tokenizer comes without a template."""
_CHATML_TOKENS = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|image_pad|>", "<|vision_end|>")


def train(recipe: SftRecipe, out: Path, *, resume: bool = False) -> Path:
    """Fine-tune and return the folder of the trained model; arguments and errors are those of `grpo_run.train`."""
    with claimed(recipe, out, resume=resume) as begun:
        return _train(recipe, out, resume=begun)


def _train(recipe: SftRecipe, out: Path, *, resume: bool) -> Path:
    before = _read(out) if resume else None
    if is_complete(out, before["status"] if before else None):
        return out / FINAL
    main = join()
    found, front = opened(recipe, out, lambda: load_items(recipe))
    ensure_template(front)
    found = short_enough(recipe, found, front.tokenizer)
    record = _record(recipe, front, found)
    check_weights(
        recipe,
        out,
        begun_with=before["model"]["weights_digest"] if before else None,
        now=record["model"]["weights_digest"],
    )
    checkpoint = run_folder.newest(out) if resume else None
    trainer = build_trainer(recipe, found, front, out)
    mask = check_loss_tokens(trainer, found.items, front)
    note_once(f"loss on {mask.loss:,} of {mask.all:,} tokens in the first {mask.rows} records: their completions only")
    rate = before["base_format_rate"] if before else format_rate(trainer, recipe, found.items, front)
    record |= {"loss_tokens": mask._asdict(), "base_format_rate": rate}
    if main.is_main_process:
        if resume:
            run_folder.rewind_run(out, checkpoint)
        _write(out, record, "running")
    main.wait_for_everyone()

    def say(status: Ending) -> None:
        _write(out, record, status)

    return carry_out(trainer, out, checkpoint, say)


def load_items(recipe: SftRecipe) -> Demonstrations:
    """Return the demonstrations of a recipe; how many records were left out is said on stderr.

    Raises:
        UsageError: there are too few for one step, or no such data.
        DatasetError: as `sft_data.load_demonstrations`.
    """
    if recipe.data == MINI:
        found = read_demonstrations(built_in_records(), name=MINI)
    else:
        found = load_demonstrations(Path(recipe.data), images=recipe.images, skip_bad=recipe.skip_bad_records)
    if found.skipped:
        note_once(f"{recipe.data}: {len(found.skipped):,} bad records left out, the first: {found.skipped[0]}")
    if len(found.items) < recipe.batch:
        raise UsageError(f"{recipe.data} has {len(found.items):,} records, wanted at least batch = {recipe.batch:,}")
    return found


def short_enough(recipe: SftRecipe, found: Demonstrations, tokenizer: Any) -> Demonstrations:
    """Return the demonstrations within `max_text_tokens`: one that was cut would teach to stop in the middle.

    Raises:
        UsageError: too few are left for one step.
    """

    def length(item: Demonstration) -> int:
        text = f"{recipe.system_prompt}\n{item.question}\n{item.completion}"
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    kept = tuple(item for item in found.items if length(item) <= recipe.max_text_tokens)
    left = len(found.items) - len(kept)
    if left:
        note_once(f"{recipe.data}: {left:,} records longer than max_text_tokens = {recipe.max_text_tokens:,} left out")
    if len(kept) < recipe.batch:
        raise UsageError(f"{recipe.data} has {len(kept):,} short enough records, wanted at least {recipe.batch:,}")
    return Demonstrations(kept, found.skipped)


def ensure_template(front: Front) -> None:
    """Give a base without a chat template that of its family, with a warning.

    Raises:
        UsageError: it is not of a family whose template is known.
    """
    if getattr(front.processor, "chat_template", None) or front.tokenizer.chat_template:
        return
    if not set(_CHATML_TOKENS) <= set(front.tokenizer.get_vocab()):
        raise UsageError(
            f"{front.checkpoint.name} has no chat template; add the one of its family as chat_template.jinja. The "
            "method starts from an aligned model, not from a pretrained one"
        )
    note_once(
        f"warning: {front.checkpoint.name} has no chat template and gets Qwen's. The method starts from an aligned "
        "model: the paper trains the -Instruct checkpoints, and its one base model ends lower (arXiv:2504.11468, "
        "table 4)"
    )
    front.processor.chat_template = front.tokenizer.chat_template = _CHATML


def build_trainer(recipe: SftRecipe, found: Demonstrations, front: Front, out: Path) -> Any:
    """Return the trainer of a recipe, ready to train.

    Raises:
        UsageError: the batches do not divide among the processes, the records have images and the model takes none, or
            there is no vision tower to freeze.
    """
    if any(item.images for item in found.items) and not takes_images(front.config):
        raise UsageError(f"{recipe.data} has images, and {front.checkpoint.name} takes none")
    with adapters_fit(recipe):
        trainer = WatchedTrainer(
            model=str(front.checkpoint.path),
            args=arguments(recipe, out),
            train_dataset=demonstration_dataset(found.items, recipe.system_prompt),
            processing_class=front.processor,
            callbacks=[LogFile(out / LOG), SpikeWatch(**recipe.spikes.model_dump())],
            peft_config=lora_config(recipe),
            data_sha256=found.digest,
            keep=recipe.keep_checkpoints,
        )
    if recipe.freeze_vision and takes_images(front.config):
        freeze_vision(trainer.model)
    return trainer


def arguments(recipe: SftRecipe, out: Path) -> SFTConfig:
    """Return TRL's settings for a recipe.

    Raises:
        UsageError: the batches do not divide among the processes.
    """
    return SFTConfig(
        **shared_settings(recipe, out),
        num_train_epochs=recipe.epochs,
        completion_only_loss=True,
        max_length=None,
        remove_unused_columns=False,
    )


def demonstration_dataset(items: Sequence[Demonstration], system_prompt: str) -> Dataset:
    """Return the rows that TRL draws: "prompt", "completion" (messages) and, where there are any, decoded "images"."""

    def text(item: Demonstration) -> dict[str, Any]:
        completion = [{"role": "assistant", "content": item.completion}]
        return {"prompt": _messages(item, system_prompt), "completion": completion}

    if not any(item.images for item in items):
        return Dataset.from_list([text(item) for item in items])

    @lru_cache(maxsize=DECODED)
    def images(index: int) -> list[Any]:
        return _pictures(items[index])

    def rows(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        found = [text(items[index]) | {"images": images(index)} for index in batch["index"]]
        return {key: [row[key] for row in found] for key in found[0]}

    return Dataset.from_dict({"index": list(range(len(items)))}).with_transform(rows)


class LossTokens(NamedTuple):
    """How many tokens of some demonstrations carry loss."""

    rows: int
    loss: int
    all: int
    """Padding is not counted."""


def check_loss_tokens(trainer: Any, items: Sequence[Demonstration], front: Front) -> LossTokens:
    """Return the counts for the first demonstrations, after reading back that the loss is on their completions alone.

    Raises:
        UsageError: the tokens with loss spell something else, or do not end the turn.
    """
    rows = [trainer.train_dataset[index] for index in range(min(CHECKED, len(items)))]
    batch = trainer.data_collator(rows)
    ends = end_tokens(own_ends(front.checkpoint, front.config), front.tokenizer)
    counted = 0
    for item, labels in zip(items, batch["labels"], strict=False):
        ids = labels[labels != -100].tolist()
        counted += len(ids)
        spelled = front.tokenizer.decode(ids, skip_special_tokens=True)
        if "".join(spelled.split()) != "".join(item.completion.split()):
            raise UsageError(
                f"the loss of {item.id} is not on its completion alone but on {spelled[:60]!r}...{spelled[-60:]!r}; "
                f"the chat template of {front.checkpoint.name} changes what it is given"
            )
        if not ends & set(ids):
            raise UsageError(
                f"the chat template of {front.checkpoint.name} does not end a turn: nothing teaches to stop"
            )
    return LossTokens(rows=len(rows), loss=counted, all=int(batch["attention_mask"].sum()))


def format_rate(trainer: Any, recipe: SftRecipe, items: Sequence[Demonstration], front: Front) -> float | None:
    """Return the share of `probe_prompts` questions that the untrained model answers in the asked form, greedily.

    A share below `LOW_FORMAT_RATE` is said on stderr. `None` where no question is asked, or the weights are spread over
    processes (DeepSpeed's ZeRO-3), where a model cannot generate before training.
    """
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

    asked = items[: recipe.probe_prompts]
    if not asked or is_deepspeed_zero3_enabled():  # type: ignore[no-untyped-call]
        return None
    model, answered = trainer.model, 0
    was_training = model.training
    model.eval()
    for start in range(0, len(asked), recipe.micro_batch):
        inputs = _prompts(asked[start : start + recipe.micro_batch], recipe.system_prompt, front)
        with torch.inference_mode():
            ids = model.generate(**inputs.to(model.device), do_sample=False, max_new_tokens=recipe.probe_tokens)
        texts = front.tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        answered += sum(only_answer(text) is not None for text in texts)
    model.train(was_training)
    rate = answered / len(asked)
    if rate < LOW_FORMAT_RATE:
        note_once(
            f"warning: {front.checkpoint.name} gave {answered} of {len(asked)} answers in the form "
            f"<answer>...</answer>. {ALIGNED}; rewards that read this form would begin at 0"
        )
    return rate


def _prompts(items: Sequence[Demonstration], system_prompt: str, front: Front) -> Any:
    """Return the inputs of a batch of questions, padded on the left."""
    pictures = [_pictures(item) for item in items]
    chats = [
        prepare_multimodal_messages(_messages(item, system_prompt), images=own)
        if own
        else _messages(item, system_prompt)
        for item, own in zip(items, pictures, strict=True)
    ]
    texts = [front.processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats]
    options = {"padding": True, "return_tensors": "pt", "add_special_tokens": False}
    if any(pictures):
        return front.processor(text=texts, images=[own for own in pictures if own], padding_side="left", **options)
    return front.tokenizer(texts, padding_side="left", **options)


def _messages(item: Demonstration, system_prompt: str) -> list[dict[str, str]]:
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    return [*system, {"role": "user", "content": item.question}]


def _pictures(item: Demonstration) -> list[Any]:
    return [decode(image.read(), name=item.id) for image in item.images]


def _record(recipe: SftRecipe, front: Front, found: Demonstrations) -> dict[str, Any]:
    return {
        "model": {"name": recipe.model, "weights_digest": weights_digest(front.checkpoint)},
        "data": {
            "name": recipe.data,
            "n_items": len(found.items),
            "n_skipped": len(found.skipped),
            "digest": found.digest,
        },
        "packages": packages() | {"trl": metadata.version("trl")},
        "git": state.model_dump(mode="json") if (state := git()) is not None else None,
    }


def _write(out: Path, record: Mapping[str, Any], status: str) -> None:
    replace_file(out / SFT_RECORD, [json.dumps({"status": status, **record}, indent=2).encode() + b"\n"])


def _read(out: Path) -> dict[str, Any] | None:
    """Return what an earlier call wrote about its run; `None` where it had not come so far."""
    file = out / SFT_RECORD
    if not file.is_file():
        return None
    try:
        record = json.loads(file.read_bytes())
        if {"status", "model", "base_format_rate"} <= record.keys() and "weights_digest" in record["model"]:
            return dict(record)
    except (ValueError, AttributeError, TypeError):
        pass
    raise UsageError(f"{file} is damaged; give a new --out")
