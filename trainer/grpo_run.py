"""One GRPO run, from a recipe to a folder.

    <out>/recipe.yaml                 the recipe with all its values
    <out>/run.json                    the manifest, as of an evaluation (harness.manifest)
    <out>/log.jsonl                   one object per step; step 0 is the untrained model
    <out>/rollouts/responses.jsonl    the rollouts (trainer.rollouts), with verdicts.jsonl and items.jsonl beside them
    <out>/checkpoint-N/               whole checkpoints (trainer.checkpoints)
    <out>/evaluations/step-N/         benchmarks during training (trainer.watch)
    <out>/report.html                 curves and example rollouts (trainer.training_page)
    <out>/final/                      the trained model with its processor
    <out>/base/                       the untrained model, where it is the built-in one

The base and the final model are ordinary checkpoints: `ahabench eval <out>/final`. Of the built-in data,
`ahabench score <out> --allow-missing` scores the rollouts again; items that no rollout drew are missing.
"""

from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from ahabench.harness.checkpoint import weights_digest
from ahabench.harness.dataset import digest
from ahabench.harness.engines.loading import takes_images
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
from ahabench.trainer.base_model import Front, adapters_fit, lora_config
from ahabench.trainer.data import Kind, Records, TrainItem, load_records, read_records
from ahabench.trainer.lifecycle import FINAL, Ending, carry_out, check_weights, claimed, is_complete, opened
from ahabench.trainer.processes import join, note_once
from ahabench.trainer.recipe import Recipe
from ahabench.trainer.task import BUILT_IN, MINI, MINI_RECORDS, TASK, built_in_records


def train(recipe: Recipe, out: Path, *, resume: bool = False) -> Path:
    """Train with GRPO and return the folder of the trained model.

    Args:
        recipe: the settings.
        out: the run's folder, new or empty.
        resume: go on from the newest whole checkpoint in `out`, or from the start where there is none.

    Raises:
        UsageError: the folder is not empty, or holds a run of another recipe; or the recipe does not fit the data or
            the model, or names a tracker that is not installed.
        DatasetError: a training record is not what its kind wants.
        EngineError: the model cannot be loaded.
        TrainingError: training cannot go on; a checkpoint of what was reached is saved.
    """
    from ahabench.trainer.watch import watched_tasks

    if recipe.watch is not None:
        watched_tasks(recipe.watch)
    with claimed(recipe, out, resume=resume) as begun:
        return _train(recipe, out, resume=begun)


def _train(recipe: Recipe, out: Path, *, resume: bool) -> Path:
    from ahabench.trainer import run_folder, vllm_checks

    before = read_manifest(out) if resume and (out / MANIFEST).is_file() else None
    if is_complete(out, before.status if before else None):
        return out / FINAL
    main = join()
    if recipe.vllm != "off":
        vllm_checks.check_machine(recipe.vllm)
    records, front = opened(
        recipe, out, lambda: load_items(recipe), lambda front: vllm_checks.check_rollouts(recipe, front)
    )
    manifest = _manifest(recipe, front, records)
    check_weights(
        recipe, out, begun_with=before.model.weights_digest if before else None, now=manifest.model.weights_digest
    )
    checkpoint = run_folder.newest(out) if resume else None
    if main.is_main_process:
        write_manifest(out, manifest)
        if resume:
            run_folder.rewind_run(out, checkpoint, TASK.name)
    main.wait_for_everyone()
    trainer = build_trainer(recipe, records, front, out)

    def say(status: Ending) -> None:
        write_manifest(out, manifest.model_copy(update={"status": status}))

    return carry_out(trainer, out, checkpoint, say)


def load_items(recipe: Recipe) -> Records:
    """Return the training items of a recipe's kinds; how many were left out is said on stderr.

    Raises:
        UsageError: there are too few for one rollout, or no such data, or a scorer that can pay none of them.
        DatasetError: as `data.load_records`.
    """
    if recipe.data == MINI:
        found = read_records(built_in_records(), name=MINI)
    else:
        found = load_records(
            Path(recipe.data), images=recipe.images, box_units=recipe.box_units, skip_bad=recipe.skip_bad_records
        )
    if found.skipped:
        note_once(f"{recipe.data}: {len(found.skipped):,} bad records left out, the first: {found.skipped[0]}")
    items = tuple(item for item in found.items if item.kind in recipe.kinds)
    if len(items) < len(found.items):
        note_once(f"{recipe.data}: {len(found.items) - len(items):,} records of other kinds left out")
    if len(items) < recipe.prompts_per_rollout:
        raise UsageError(
            f"{recipe.data} has {len(items):,} records, wanted at least prompts_per_rollout = "
            f"{recipe.prompts_per_rollout:,}"
        )
    _check_payable(recipe, items)
    return Records(items, found.skipped)


def _check_payable(recipe: Recipe, items: tuple[TrainItem, ...]) -> None:
    """Say how many items the open-ended scorer cannot pay: without a caption, there is no similarity to one."""
    if recipe.reward_model.kind != "caption-similarity":
        return
    missing = sum(item.kind is Kind.OPEN_ENDED and item.caption is None for item in items)
    if missing == 0:
        return
    why = (
        f"{recipe.data}: {missing:,} of {len(items):,} records are open_ended without the caption by which they would "
        "be scored; give reward_model, or leave the kind out with kinds=[...]"
    )
    if missing == len(items):
        raise UsageError(why)
    note_once(f"warning: {why}: nothing is learned from them")


def build_trainer(recipe: Recipe, records: Records, front: Front, out: Path) -> Any:
    """Return the trainer of a recipe with its mixed reward, ready to train.

    Raises:
        UsageError: as `trainer_with`; or the open-ended scorer is needed and not installed.
    """
    from ahabench.trainer import grpo
    from ahabench.trainer.rollouts import RewardFunction, RolloutLog

    reward = RewardFunction(
        records.items,
        grpo.mixed_reward(recipe, records.items, front.tokenizer),
        ends=_ends(front),
        system_prompt=recipe.system_prompt or None,
        log=RolloutLog(out / TASK.name) if join().is_main_process else None,
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
    from ahabench.trainer import grpo, vllm_rollouts
    from ahabench.trainer.kl import KLController

    kl = recipe.kl
    controller = [KLController(kl.init, kl.target, kl.horizon, recipe.train_batch)] if kl else []
    with adapters_fit(recipe):
        trainer = grpo.RewardedTrainer(
            model=str(front.checkpoint.path),
            reward_funcs=reward,
            args=grpo.arguments(recipe, out, banned=grpo.banned_tokens(front.config, front.tokenizer)),
            train_dataset=grpo.prompt_dataset(
                records.items, recipe.system_prompt or None, fit=vllm_rollouts.fitting(recipe, front)
            ),
            processing_class=front.processor,
            callbacks=[*controller, grpo.LogFile(out / grpo.LOG)],
            peft_config=lora_config(recipe),
            item_ids=[item.item.id for item in records.items],
            data_sha256=digest([item.item for item in records.items]),
            keep=recipe.keep_checkpoints,
            share_prompts=recipe.share_prompts,
            keep_groups=recipe.keep_groups,
        )
    if recipe.freeze_vision:
        grpo.freeze_vision(trainer.model)
    if recipe.watch is not None:
        from ahabench.trainer.watch import BenchmarkWatch

        trainer.add_callback(BenchmarkWatch(trainer, recipe, out))
    return trainer


def _ends(front: Front) -> frozenset[int]:
    """Return the ids that end a completion: the tokenizer's and those of the checkpoint's generation settings."""
    from transformers import GenerationConfig

    ids: list[int] = [front.tokenizer.eos_token_id]
    if (front.checkpoint.path / "generation_config.json").is_file():
        declared = GenerationConfig.from_pretrained(front.checkpoint.path).eos_token_id
        ids += declared if isinstance(declared, list) else [declared] if declared is not None else []
    return frozenset(ids)


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
