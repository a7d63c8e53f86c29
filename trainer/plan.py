"""Check a recipe before any GPU is booked: the data, the arithmetic of batches and steps, the memory, the settings.

What cannot work is a problem, with its next step; what works and surprises is a warning.
"""

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ahabench.harness.errors import AhabenchError, UsageError
from ahabench.trainer.base_model import REFERENCE
from ahabench.trainer.data import Kind, check_decodable
from ahabench.trainer.recipe import Recipe, Training, load_recipe
from ahabench.trainer.recipe_files import RECIPES, method_of
from ahabench.trainer.sft_recipe import SftRecipe, load_sft_recipe
from ahabench.trainer.sizes import SHARDINGS, Load, Shape, Sharding, memory_gb, shape_of, states
from ahabench.trainer.task import MINI

ACCELERATE = RECIPES / "accelerate"
FULL = 0.9
"""Share of a GPU's memory from which an estimate is close enough to full for a warning."""
LARGEST_PX = 1280 * 28 * 28
"""Assumed where a recipe sets no max_pixels: what many trainers of Qwen2.5-VL take."""

DECLARED: Mapping[str, Mapping[Kind, int]] = {
    "VLAA-Thinking-GRPO-25K.json": {
        Kind.DIGIT: 2_000,
        Kind.MCQ: 7_499,
        Kind.MATH: 6_696,
        Kind.IOU: 4_000,
        Kind.OPEN_ENDED: 5_000,
    }
}
"""Records by kind of released files, from the sizes of their sources (arXiv:2504.11468, table 1 and section 4.1)."""
DECLARED_SFT = {"VLAA-Thinking-SFT-126K.json": 126_413, "VLAA-Thinking-SFT-25K.json": 25_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a run is planned for."""

    gpus: int
    """0: the CPU alone, as one process."""
    gpu_gb: float
    sharding: Sharding | None = None
    """`None`: the least that fits."""

    @property
    def processes(self) -> int:
        """One per GPU, and one without any."""
        return max(1, self.gpus)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainPlan:
    """What a recipe would do on a machine."""

    recipe: str
    gpus: int
    sharding: Sharding
    items: int | None
    """Training items; `None` where nobody knows."""
    kinds: dict[str, int]
    data: str
    """"found", or "declared" where the file is not here and its published numbers stand in."""
    rollouts: int | None
    steps_per_rollout: int | None
    steps: int | None
    """Optimiser steps of the whole run."""
    warmup_steps: int | None
    accumulation: int
    """Micro-batches of one process in an optimiser step."""
    memory_gb: dict[str, float] | None
    """Terms of the estimate per GPU; `None` where the model's size is not known."""
    formula: dict[str, str]
    """Of those terms that are of all parameters (P) or of the trained ones (T), and these two numbers."""
    gpu_gb: float
    command: str
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def total_gb(self) -> float | None:
        """The whole estimate per GPU."""
        return sum(self.memory_gb.values()) if self.memory_gb is not None else None

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return asdict(self) | {"total_gb": self.total_gb}


@dataclass(frozen=True, slots=True)
class _Items:
    """The training items as far as they are known."""

    kinds: dict[str, int]
    source: str
    problem: str | None = None

    @property
    def n(self) -> int | None:
        return sum(self.kinds.values()) if self.kinds else None


def usual_gpus(name: str, overrides: list[str]) -> int:
    """Return how many GPUs a recipe is planned for if nobody says: none for the built-in model, else 8.

    Raises:
        UsageError: as `plan`.
    """
    load = load_sft_recipe if method_of(name) == "sft" else load_recipe
    return 0 if load(name, overrides).model == REFERENCE else 8


def plan(name: str, overrides: list[str], machine: Machine, *, decode: bool = False) -> TrainPlan:
    """Return the plan of a shipped recipe or a YAML file, of SFT or GRPO (`recipe_files.method_of`).

    Args:
        name: of the recipe.
        overrides: such as "seed=1".
        machine: to plan for.
        decode: whether every image is decoded, which takes a while.

    Raises:
        UsageError: there is no such recipe, or a key or a value is not what it should be.
    """
    asked = shlex.join([name, *overrides])
    if method_of(name) == "sft":
        return plan_sft(load_sft_recipe(name, overrides), machine, asked, decode=decode)
    return plan_grpo(load_recipe(name, overrides), machine, asked, decode=decode)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What one method does with its items."""

    items: _Items
    load: Load
    rollouts: int | None
    per_rollout: int | None
    steps: int | None
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def plan_grpo(recipe: Recipe, machine: Machine, name: str, *, decode: bool) -> TrainPlan:
    """Return the plan of a GRPO recipe."""
    items = _grpo_items(recipe, decode)
    per_rollout = recipe.rollout_batch // recipe.train_batch * recipe.inner_epochs
    rollouts = items.n // recipe.prompts_per_rollout if items.n is not None else None
    steps = recipe.max_steps or (None if rollouts is None else rollouts * per_rollout * recipe.episodes)
    shape, no_shape = _known(recipe.model)
    load = replace(
        _load(recipe, shape, machine, recipe.max_new_tokens),
        reference=recipe.kl is not None and recipe.lora is None,
        vllm=recipe.vllm_gpu_memory_utilization if recipe.vllm == "colocate" else 0.0,
    )
    no_gpu = f"vllm is {recipe.vllm!r}, and TRL's vLLM rollouts want a GPU; give vllm=off"
    work = _Work(
        items=items,
        load=load,
        rollouts=rollouts,
        per_rollout=per_rollout,
        steps=steps,
        problems=(*_unwatchable(recipe), *((no_gpu,) if recipe.vllm != "off" and machine.gpus == 0 else ())),
        warnings=(*no_shape, *_surprises(recipe, items, rollouts, per_rollout, steps)),
    )
    return _plan(recipe, work, shape, machine, name)


def plan_sft(recipe: SftRecipe, machine: Machine, name: str, *, decode: bool) -> TrainPlan:
    """Return the plan of an SFT recipe."""
    items = _sft_items(recipe, decode)
    shape, no_shape = _known(recipe.model)
    # max_text_tokens counts the question too.
    load = replace(_load(recipe, shape, machine, recipe.max_text_tokens), text_tokens=0)
    work = _Work(
        items=items,
        load=load,
        rollouts=None,
        per_rollout=None,
        steps=recipe.max_steps or (None if items.n is None else _ceil(items.n / recipe.batch) * recipe.epochs),
        problems=(),
        warnings=tuple(no_shape),
    )
    return _plan(recipe, work, shape, machine, name)


def _load(recipe: Training, shape: Shape | None, machine: Machine, tokens: int) -> Load:
    """Return what a process holds, as far as both methods have it in common."""
    return Load(
        micro_batch=recipe.micro_batch,
        completion_tokens=tokens,
        image_px=recipe.max_pixels or LARGEST_PX,
        trained=_trained(recipe, shape),
        reference=False,
        checkpointing=recipe.gradient_checkpointing,
        bf16=recipe.bf16,
        on_gpu=machine.gpus > 0,
        head_trained=recipe.lora is None,
        vllm=0.0,
    )


def _plan(recipe: Training, work: _Work, shape: Shape | None, machine: Machine, name: str) -> TrainPlan:
    items = work.items
    sharding, memory = _memory(shape, work.load, machine)
    found = (items.problem,) if items.problem else ()
    assert recipe.method is not None, "a whole recipe"
    return TrainPlan(
        recipe=name,
        gpus=machine.gpus,
        sharding=sharding,
        items=items.n,
        kinds=items.kinds,
        data=items.source,
        rollouts=work.rollouts,
        steps_per_rollout=work.per_rollout,
        steps=work.steps,
        warmup_steps=None if work.steps is None else _ceil(work.steps * recipe.warmup),
        accumulation=recipe.step_batch // (recipe.micro_batch * machine.processes),
        memory_gb=memory,
        formula=_formula(shape, work.load, machine, sharding),
        gpu_gb=machine.gpu_gb,
        command=_command(recipe.method, name, machine, sharding),
        problems=(*found, *_cannot(recipe, machine, shape, work.load, memory), *work.problems),
        warnings=(*work.warnings, *_tight(memory, machine), *_missing_here(recipe, machine)),
    )


def _unwatchable(recipe: Recipe) -> Iterator[str]:
    """Yield what keeps a recipe's benchmarks from being evaluated."""
    from ahabench.trainer.watch import watched_tasks

    if recipe.watch is not None:
        try:
            watched_tasks(recipe.watch)
        except UsageError as error:
            yield f"watch: {error}"


def _missing_here(recipe: Training, machine: Machine) -> Iterator[str]:
    """Yield what training would refuse on this machine, which need not be the one that trains."""
    from ahabench.trainer.trackers import check_trackers
    from ahabench.trainer.vllm_checks import check_installed

    checks: list[Callable[[], None]] = [lambda: check_trackers(recipe.report_to)]
    if isinstance(recipe, Recipe) and recipe.vllm != "off" and machine.gpus:
        checks.append(check_installed)
    for check in checks:
        try:
            check()
        except UsageError as error:
            yield f"on this machine it would not start: {error}"


def _grpo_items(recipe: Recipe, decode: bool) -> _Items:
    from ahabench.trainer.grpo_run import load_items

    def read() -> Mapping[str, int]:
        items = load_items(recipe).items
        if decode:
            check_decodable((item.item.id, item.item.images) for item in items)
        return Counter(item.kind.value for item in items)

    declared = {kind.value: n for kind, n in DECLARED.get(Path(recipe.data).name, {}).items() if kind in recipe.kinds}
    return _items(recipe.data, read, declared)


def _sft_items(recipe: SftRecipe, decode: bool) -> _Items:
    from ahabench.trainer.sft import load_items

    def read() -> Mapping[str, int]:
        items = load_items(recipe).items
        if decode:
            check_decodable((item.id, item.images) for item in items)
        return {"demonstrations": len(items)}

    declared = DECLARED_SFT.get(Path(recipe.data).name)
    return _items(recipe.data, read, {"demonstrations": declared} if declared else {})


def _items(data: str, read: Callable[[], Mapping[str, int]], declared: dict[str, int]) -> _Items:
    try:
        return _Items(dict(sorted(read().items())), "found")
    except AhabenchError as error:
        if data == MINI or Path(data).exists():
            return _Items({}, "found", str(error))
        where = " from the hub's UCSC-VLAA/VLAA-Thinking, with its images," if declared else ""
        problem = f"{error}; get the file{where} and name it with data=FILE images=DIR"
        return _Items(declared, "declared" if declared else "missing", problem)


def _known(model: str) -> tuple[Shape | None, list[str]]:
    try:
        shape = shape_of(model)
    except AhabenchError as error:
        return None, [str(error)]
    if shape is None and model != REFERENCE:
        return None, [f"the size of {model} is not known here, so there is no estimate; give model=FOLDER"]
    return shape, []


def _trained(recipe: Training, shape: Shape | None) -> int:
    """Return how many parameters are trained; an adapter's are few enough to count as one in a hundred."""
    if shape is None:
        return 0
    if recipe.lora is not None:
        return shape.parameters // 100
    return shape.parameters - (shape.vision if recipe.freeze_vision else 0)


def _memory(shape: Shape | None, load: Load, machine: Machine) -> tuple[Sharding, dict[str, float] | None]:
    """Return how a model is shared out and what that takes; the least sharing that fits, or the most there is."""
    if shape is None:
        return machine.sharding or "ddp", None
    # FSDP only if asked: ZeRO-3 shares out as much and takes less.
    choices = (machine.sharding,) if machine.sharding else SHARDINGS[:3] if machine.gpus > 1 else SHARDINGS[:1]
    for sharding in choices:
        terms = memory_gb(shape, load, gpus=machine.processes, sharding=sharding, gpu_gb=machine.gpu_gb)
        if sum(terms.values()) <= FULL * machine.gpu_gb:
            break
    return sharding, terms


def _formula(shape: Shape | None, load: Load, machine: Machine, sharding: Sharding) -> dict[str, str]:
    if shape is None:
        return {}
    found = states(shape, load, gpus=machine.processes, sharding=sharding)
    numbers = {"P": f"{shape.parameters:.4g}", "T": f"{load.trained:.4g}"}
    return {name: state.formula for name, state in found.items()} | numbers


def _cannot(
    recipe: Training, machine: Machine, shape: Shape | None, load: Load, memory: dict[str, float] | None
) -> Iterator[str]:
    """Yield what keeps a batch, a sequence or a model from fitting."""
    if recipe.step_batch % (recipe.micro_batch * machine.processes):
        yield (
            f"{recipe.batch_key} is {recipe.step_batch}, wanted a multiple of micro_batch x processes = "
            f"{recipe.micro_batch} x {machine.processes}; change one of them"
        )
    if shape is not None and load.tokens > shape.context:
        yield (
            f"a sequence may have {load.tokens:,} tokens, the model was made for {shape.context:,}; lower "
            f"max_pixels or {'max_new_tokens' if recipe.method == 'grpo' else 'max_text_tokens'}"
        )
    total = sum(memory.values()) if memory else 0.0
    if machine.gpus and total > machine.gpu_gb:
        yield (
            f"about {total:.0f} GB per GPU are needed and {machine.gpu_gb:.0f} are there; lower micro_batch or "
            "max_pixels, use lora or more GPUs"
        )


def _tight(memory: dict[str, float] | None, machine: Machine) -> Iterator[str]:
    total = sum(memory.values()) if memory else 0.0
    if machine.gpus and FULL * machine.gpu_gb < total <= machine.gpu_gb:
        yield f"about {total:.0f} of {machine.gpu_gb:.0f} GB per GPU: the estimate is not that exact; lower micro_batch"


def _surprises(
    recipe: Recipe, items: _Items, rollouts: int | None, per_rollout: int, steps: int | None
) -> Iterator[str]:
    """Yield what works, and may not be what was meant."""
    if rollouts and items.n is not None and (left := items.n - rollouts * recipe.prompts_per_rollout):
        yield f"{left:,} items of each episode are never drawn: they do not fill a rollout"
    if recipe.save_steps % per_rollout:
        yield (
            f"save_steps is {recipe.save_steps}, no multiple of the {per_rollout} steps of a rollout: checkpoints will "
            "hold what is left of one, images and all"
        )
    if steps is not None and recipe.save_steps > steps:
        yield f"save_steps is {recipe.save_steps} of {steps} steps: there is no checkpoint before the end"
    if items.kinds.get(Kind.OPEN_ENDED) and recipe.reward_model.kind == "caption-similarity":
        yield (
            "open-ended records are paid by similarity to a caption, which is not the paper's reward and can be "
            "raised by describing the picture; give reward_model, or leave them out with kinds=[...]"
        )


def _command(method: str, name: str, machine: Machine, sharding: Sharding) -> str:
    train = f"train {method} {name} --out DIR"
    if machine.gpus < 2:
        return f"ahabench {train}"
    file = ACCELERATE / f"{sharding}.yaml"
    return f'accelerate launch --config_file {file} --num_processes {machine.gpus} "$(command -v ahabench)" {train}'


def _ceil(value: float) -> int:
    # 0.03 x 100 is a little more than 3 in binary.
    return -int(-round(value, 9) // 1)
