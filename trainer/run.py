"""One training run, from a recipe to a folder.

    <out>/recipe.yaml                 the recipe with all its values
    <out>/run.json                    the manifest, as of an evaluation (harness.manifest)
    <out>/log.jsonl                   one object per step; step 0 is the untrained model
    <out>/rollouts/responses.jsonl    the rollouts (trainer.rollouts), with verdicts.jsonl beside them
    <out>/checkpoint-N/               whole checkpoints (trainer.resume)
    <out>/evaluations/step-N/         benchmarks during training (trainer.watch)
    <out>/report.html                 curves and example rollouts (trainer.training_page)
    <out>/final/                      the trained model with its processor
    <out>/base/                       the untrained model, where it is the built-in one

The base and the final model are ordinary checkpoints: `ahabench eval <out>/final`. Of the built-in data,
`ahabench score <out> --allow-missing` scores the rollouts again; items that no rollout drew are missing.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from ahabench.harness.checkpoint import Checkpoint, Kind, find_checkpoint, weights_digest
from ahabench.harness.dataset import digest
from ahabench.harness.disk import locked, replace_file
from ahabench.harness.engines.loading import limit_pixels, load_front, read_config, takes_images
from ahabench.harness.errors import UsageError
from ahabench.harness.manifest import (
    MANIFEST,
    EngineRecord,
    Manifest,
    ModelRecord,
    PixelsRecord,
    PromptRecord,
    SamplingRecord,
    TaskRecord,
    read_manifest,
    write_manifest,
)
from ahabench.harness.provenance import git, packages
from ahabench.harness.report import note
from ahabench.trainer.data import Records, load_records, read_records
from ahabench.trainer.recipe import Recipe, Start, dump_recipe
from ahabench.trainer.task import BUILT_IN, MINI_RECORDS, TASK, built_in_records
from ahabench.trainer.training_page import write_page

FINAL = "final"
BASE = "base"
RECIPE = "recipe.yaml"
REFERENCE = "reference"
MINI = "mini"


class Front(NamedTuple):
    """The untrained model as far as it is known without its weights."""

    checkpoint: Checkpoint
    processor: Any
    config: Any
    pixels: tuple[int, int] | None
    """The area between which images are resized."""

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer, or the processor itself where it is one."""
        return getattr(self.processor, "tokenizer", self.processor)


def train(recipe: Recipe, out: Path, *, resume: bool = False) -> Path:
    """Train with GRPO and return the folder of the trained model.

    Args:
        recipe: the settings.
        out: the run's folder, new or empty.
        resume: go on from the newest whole checkpoint in `out`, or from the start where there is none.

    Raises:
        UsageError: the folder is not empty, or holds a run of another recipe; or the recipe does not fit the data or
            the model.
        DatasetError: a training record is not what its kind wants.
        EngineError: the model cannot be loaded.
        TrainingError: training cannot go on; a checkpoint of what was reached is saved.
    """
    from accelerate import PartialState

    processes = PartialState()
    begun = resume and (out / RECIPE).is_file()
    with ExitStack() as stack:
        if processes.is_main_process:
            if not begun:
                claim(out)
            stack.enter_context(locked(out))
        # Nothing was written yet, so every process has found the same.
        processes.wait_for_everyone()
        return _train(recipe, out, resume=begun)


def _train(recipe: Recipe, out: Path, *, resume: bool) -> Path:
    from accelerate import PartialState

    from ahabench.trainer import grpo, resuming

    before = read_manifest(out) if resume and (out / MANIFEST).is_file() else None
    if before is not None and before.status == "complete":
        note(f"{out} is complete; nothing is left to do")
        return out / FINAL
    if resume:
        resuming.check_recipe(recipe, out / RECIPE)
    records = load_items(recipe)
    main = PartialState()
    with main.main_process_first():
        if main.is_main_process:
            replace_file(out / RECIPE, [dump_recipe(recipe).encode()])
        front = open_model(recipe, out)
    manifest = _manifest(recipe, front, records)
    if before is not None and before.model.weights_digest != manifest.model.weights_digest:
        raise UsageError(f"{out} was begun with other weights of {recipe.model}; its run cannot go on")
    checkpoint = resuming.newest(out) if resume else None
    if main.is_main_process:
        write_manifest(out, manifest)
        if resume:
            resuming.rewind_run(out, TASK.name, checkpoint)
    main.wait_for_everyone()
    trainer = build_trainer(recipe, records, front, out)
    if checkpoint is not None and checkpoint.step >= trainer.planned_steps:
        if main.is_main_process:
            resuming.copy_model(checkpoint.path, out / FINAL)
            write_manifest(out, manifest.model_copy(update={"status": "complete"}))
            write_page(out)
        return out / FINAL
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint.path) if checkpoint else None)
    except grpo.TrainingError as error:
        trainer._save_checkpoint(trainer.model, trial=None)
        write_manifest(out, manifest.model_copy(update={"status": "incomplete"}))
        saved = out / f"checkpoint-{trainer.state.global_step}"
        raise grpo.TrainingError(f"{error}; what was reached is in {saved}") from error
    trainer.save_model(str(out / FINAL))
    trainer.save_state()
    write_manifest(out, manifest.model_copy(update={"status": "complete"}))
    if main.is_main_process:
        write_page(out)
    return out / FINAL


def load_items(recipe: Recipe) -> Records:
    """Return the training items of a recipe's kinds; how many were left out is said on stderr.

    Raises:
        UsageError: there are too few for one rollout, or no such data.
        DatasetError: as `data.load_records`.
    """
    if recipe.data == MINI:
        found = read_records(built_in_records(), name=MINI)
    else:
        found = load_records(
            Path(recipe.data), images=recipe.images, box_units=recipe.box_units, skip_bad=recipe.skip_bad_records
        )
    if found.skipped:
        note(f"{recipe.data}: {len(found.skipped):,} bad records left out, the first: {found.skipped[0]}")
    items = tuple(item for item in found.items if item.kind in recipe.kinds)
    if len(items) < len(found.items):
        note(f"{recipe.data}: {len(found.items) - len(items):,} records of other kinds left out")
    if len(items) < recipe.prompts_per_rollout:
        raise UsageError(
            f"{recipe.data} has {len(items):,} records, wanted at least prompts_per_rollout = "
            f"{recipe.prompts_per_rollout:,}"
        )
    return Records(items, found.skipped)


def build_trainer(recipe: Recipe, records: Records, front: Front, out: Path) -> Any:
    """Return the trainer of a recipe with its mixed reward, ready to train.

    Raises:
        UsageError: as `trainer_with`; or the open-ended scorer is needed and not installed.
    """
    from accelerate import PartialState

    from ahabench.trainer import grpo
    from ahabench.trainer.rollouts import RewardFunction, RolloutLog

    reward = RewardFunction(
        records.items,
        grpo.mixed_reward(recipe, records.items, front.tokenizer),
        ends=_ends(front),
        system_prompt=recipe.system_prompt or None,
        log=RolloutLog(out / TASK.name) if PartialState().is_main_process else None,
        gather=grpo.gathered,
    )
    return trainer_with(recipe, records, front, reward, out)


def trainer_with(
    recipe: Recipe, records: Records, front: Front, reward: Callable[..., list[float | None]], out: Path
) -> Any:
    """Return the trainer of a recipe with a reward function in TRL's form.

    Raises:
        UsageError: the batches do not divide among the processes, or there is no vision tower to freeze.
    """
    from ahabench.trainer import grpo
    from ahabench.trainer.kl import KLController

    kl = recipe.kl
    controller = [KLController(kl.init, kl.target, kl.horizon, recipe.train_batch)] if kl else []
    trainer = grpo.RewardedTrainer(
        model=str(front.checkpoint.path),
        reward_funcs=reward,
        args=grpo.arguments(recipe, out, banned=grpo.banned_tokens(front.config, front.tokenizer)),
        train_dataset=grpo.prompt_dataset(records.items, recipe.system_prompt or None),
        processing_class=front.processor,
        callbacks=[*controller, grpo.LogFile(out / grpo.LOG)],
        peft_config=lora_config(recipe),
        item_ids=[item.item.id for item in records.items],
        data_sha256=digest([item.item for item in records.items]),
        keep=recipe.keep_checkpoints,
    )
    if recipe.freeze_vision:
        grpo.freeze_vision(trainer.model)
    if recipe.watch is not None:
        from ahabench.trainer.watch import BenchmarkWatch

        trainer.add_callback(BenchmarkWatch(trainer, recipe, out))
    return trainer


def claim(out: Path) -> None:
    """Make a run's folder.

    Raises:
        UsageError: it is there and not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out {out} is not empty; give a new folder")
    out.mkdir(parents=True, exist_ok=True)


def open_model(recipe: Start, out: Path) -> Front:
    """Return the model of a recipe as far as it is known without its weights; the built-in one is made in `out`.

    Raises:
        UsageError: it is an adapter or a GGUF file.
        EngineError: it cannot be read.
    """
    model = recipe.model
    if model == REFERENCE:
        from ahabench.trainer.reference import make_reference

        steps = {} if recipe.reference_steps is None else {"steps": recipe.reference_steps}
        if not (out / BASE).exists():
            # It has its name once it is whole, so that a resumed run need not make it again.
            partial = make_reference(out / f"{BASE}.partial", seed=recipe.seed, progress=note, **steps)
            partial.rename(out / BASE)
        model = str(out / BASE)
    checkpoint = replace(find_checkpoint(model), name=recipe.model)
    if checkpoint.kind is not Kind.MODEL:
        raise UsageError(
            f"{recipe.model} is no whole checkpoint ({checkpoint.kind}), and training starts from one; merge an "
            "adapter into its base with peft's merge_and_unload, save model and processor, and give that folder"
        )
    config = read_config(checkpoint, trust_remote_code=recipe.trust_remote_code)
    images = takes_images(config)
    processor = load_front(checkpoint, images=images, trust_remote_code=recipe.trust_remote_code)
    pixels = None
    if images:
        pixels = limit_pixels(processor, recipe.model, min_pixels=recipe.min_pixels, max_pixels=recipe.max_pixels)
    return Front(checkpoint, processor, config, pixels)


def _ends(front: Front) -> frozenset[int]:
    """Return the ids that end a completion: the tokenizer's and those of the checkpoint's generation settings."""
    from transformers import GenerationConfig

    ids: list[int] = [front.tokenizer.eos_token_id]
    if (front.checkpoint.path / "generation_config.json").is_file():
        declared = GenerationConfig.from_pretrained(front.checkpoint.path).eos_token_id
        ids += declared if isinstance(declared, list) else [declared] if declared is not None else []
    return frozenset(ids)


def lora_config(recipe: Start) -> Any:
    """Return PEFT's settings for a recipe, `None` for full training."""
    if recipe.lora is None:
        return None
    from peft import LoraConfig

    asked = recipe.lora
    modules = asked.target_modules if isinstance(asked.target_modules, str) else list(asked.target_modules)
    return LoraConfig(r=asked.rank, lora_alpha=asked.alpha, lora_dropout=asked.dropout, target_modules=modules)


def _manifest(recipe: Recipe, front: Front, records: Records) -> Manifest:
    import torch

    pixels = front.pixels or (None, None)
    return Manifest(
        status="running",
        model=ModelRecord(
            name=recipe.model,
            weights_digest=weights_digest(front.checkpoint),
            revision=front.checkpoint.revision,
            adapter="",
            text_only=not takes_images(front.config),
        ),
        engine=EngineRecord(
            name="trl-grpo",
            version=metadata.version("trl"),
            device="cuda" if torch.cuda.is_available() else "cpu",
            dtype="bfloat16" if recipe.bf16 else "float32",
        ),
        sampling=SamplingRecord(
            max_new_tokens=recipe.max_new_tokens,
            temperature=recipe.temperature,
            top_p=recipe.top_p,
            top_k=recipe.top_k,
            repetition_penalty=1.0,
            seed=recipe.seed,
        ),
        pixels=PixelsRecord(min=pixels[0], max=pixels[1]),
        system_prompt=recipe.system_prompt,
        tasks=_tasks(recipe, records),
        packages=packages() | {"trl": metadata.version("trl")},
        git=git(),
    )


def _tasks(recipe: Recipe, records: Records) -> dict[str, TaskRecord]:
    """Return the task whose items the rollouts answer, where the data are a task's: `score` can then read them."""
    if recipe.data != MINI:
        return {}
    style = TASK.prompts["think"]
    usual = style.render(records.items[0].item).system == recipe.system_prompt
    prompt = PromptRecord(style="think", version=style.version) if usual else None
    items = [item.item for item in records.items]
    # Of the whole data only: `score` compares it with what it loads.
    data_digest = digest(items) if len(items) == MINI_RECORDS else None
    record = TaskRecord(split=BUILT_IN, source="built-in", data_digest=data_digest, n_items=len(items), prompt=prompt)
    return {TASK.name: record}
