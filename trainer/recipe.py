"""The settings of a training run: a YAML file, with overrides from the command line.

The defaults are those of VLAA-Thinking (arXiv:2504.11468, sections 4.3 and 4.4, appendix C.1) wherever the paper states
a value; what it leaves open says so at its field.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from ahabench.harness.prompts import VLAA_SYSTEM_PROMPT
from ahabench.trainer.boxes import BoxUnits
from ahabench.trainer.data import Kind
from ahabench.trainer.recipe_files import Method, Part, load_as, parse_as
from ahabench.trainer.rewards import BETA
from ahabench.trainer.vllm_settings import VllmSettings


class KL(Part):
    """The KL term to the frozen first policy."""

    init: float = Field(default=1e-3, gt=0)
    """Coefficient of the first step."""
    target: float | None = Field(default=5e-4, gt=0)
    """KL per token, in nats, that the coefficient is driven towards; null keeps the coefficient."""
    horizon: int = Field(default=10_000, ge=1)
    """Completions; not in the paper, OpenRLHF's default."""


class Lora(Part):
    """Low-rank adapters instead of full training."""

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | tuple[str, ...] = r".*language_model.*\.(?:q|k|v|o|gate|up|down)_proj"
    """Names of modules, or one regular expression for their full names."""

    @field_validator("target_modules")
    @classmethod
    def _compiles(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        try:
            re.compile(value if isinstance(value, str) else "")
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression: {error}") from error
        return value


class RewardModel(Part):
    """What scores open-ended answers (`trainer/reward_models.py`)."""

    kind: Literal["caption-similarity", "classifier", "xcomposer", "classify-server", "judge-server"]
    """classifier and xcomposer run in this process, the first as any `AutoModelForSequenceClassification`, the second
    by InternLM-XComposer2.5-Reward's own code. The servers are asked for a class's logit or for a grade."""
    model: str | None = None
    """A checkpoint folder or hub name, or the name that a server knows; caption-similarity has its own."""
    url: str | None = None
    """Of a server, usually ending in /v1 for a judge, and without it for vLLM's /classify."""
    trust_remote_code: bool = False
    """Whether Python code that the reward model brings may run; xcomposer cannot do without."""
    label: int = Field(default=0, ge=0)
    """Whose logit is the score, of a classifier with several."""
    batch: int = Field(default=8, ge=1)
    """Answers that are scored, or asked for, at once."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Of one batch in this process, and of one request to a server."""
    max_failures: float = Field(default=0.2, ge=0, le=1)
    """Share of the answers without a score, among the last `failure_window`, above which the run stops."""
    failure_window: int = Field(default=100, ge=1)
    max_tokens: int = Field(default=1024, ge=1)
    """Of question and answer together; a classifier does not score what is longer."""
    max_pixels: int | None = Field(default=None, ge=1)
    """Area above which an image is made smaller for a server."""
    offload: bool = True
    """Whether a model in this process leaves the GPU while it has nothing to score, as the paper has it."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind != "caption-similarity" and self.model is None:
            raise ValueError(f"a {self.kind} wants the name of its model")
        if self.kind.endswith("-server") != (self.url is not None):
            raise ValueError(f"a url is for servers, and {self.kind} has {'none' if self.url is None else 'one'}")
        if self.kind == "xcomposer" and not self.trust_remote_code:
            raise ValueError(
                "xcomposer runs Python code that its checkpoint brings; read it, then set trust_remote_code: true"
            )
        return self


class ExtraRewards(Part):
    """Weights of rewards that are added to an item's own; 0 is off."""

    length: float = Field(default=0.0, ge=0)
    """Of `rewards.length_reward`."""
    length_free_tokens: int = Field(default=0, ge=0)
    """Tokens up to which a completion earns the whole length reward; it earns none at `max_new_tokens`."""
    repetition: float = Field(default=0.0, ge=0)
    """Of `rewards.repetition_reward`."""


class Watch(Part):
    """Benchmarks that are evaluated during training (`trainer/watch.py`)."""

    every: int = Field(default=49, ge=1)
    """Optimiser steps between evaluations; steps 0 and the last are always among them."""
    suite: Literal["mini", "full"] = "full"
    benchmarks: tuple[str, ...] = ()
    """Such as mathvista:testmini; all of the suite if empty."""
    data: Path | None = None
    """The folder of the benchmarks' data; from the hub if null."""
    limit: int | None = Field(default=None, ge=1)
    """Items of each benchmark; all if null."""
    prompt: str = "think"
    """The prompt style."""
    max_new_tokens: int = Field(default=1024, ge=1)
    alpha: float = Field(default=0.05, gt=0, lt=1)
    """Chance of a false alarm in a whole run."""
    margin: float = Field(default=0.02, gt=0, lt=1)
    """A gain that would matter, as a fraction: one that is ruled out while the reward rises is an alarm."""


class Training(Part):
    """What GRPO and supervised fine-tuning have in common. Each names its step's batch in a key of its own."""

    batch_key: ClassVar[str]
    """The key that holds `step_batch`."""

    version: Literal[1] = 1
    model: str
    """A checkpoint folder or a hub name; "reference" is the built-in tiny Qwen2.5-VL."""
    reference_steps: int | None = Field(default=None, ge=0)
    """Warm-up steps of the built-in model; its own default if null."""
    trust_remote_code: bool = False
    """Whether Python code that the checkpoint brings may run."""
    system_prompt: str = VLAA_SYSTEM_PROMPT
    """"" sends none."""
    min_pixels: int | None = Field(default=None, ge=1)
    max_pixels: int | None = Field(default=None, ge=1)
    """Area of an image after the model's own resizing; not in the paper for training."""
    freeze_vision: bool = True
    """Whether the vision tower stays as it is; true in the paper's SFT, not stated for its GRPO."""
    lora: Lora | None = None
    bf16: bool = True
    """Mixed precision; weights and optimiser stay in float32."""
    gradient_checkpointing: bool = True
    images: Path | None = None
    """Where the records' image paths start; beside the file if null."""

    micro_batch: int = Field(default=4, ge=1)
    """Completions or demonstrations that one process holds at a time."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimiser steps; all episodes or epochs if null."""
    learning_rate: float = Field(gt=0)
    min_learning_rate: float = Field(ge=0)
    """Where the cosine ends."""
    warmup: float = Field(default=0.03, ge=0, lt=1)
    """Share of the steps."""
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    seed: int = Field(default=0, ge=0, lt=2**31)

    save_steps: int = Field(default=50, ge=1)
    """Optimiser steps between checkpoints."""
    keep_checkpoints: int | None = Field(default=None, ge=1)
    """The newest whole checkpoints that stay; all if null."""
    report_to: tuple[str, ...] = ()
    """Trackers of transformers, such as tensorboard or trackio."""

    @property
    def step_batch(self) -> int:
        """Completions or demonstrations of an optimiser step, over all processes."""
        return int(getattr(self, self.batch_key))

    @model_validator(mode="after")
    def _check_step(self) -> Self:
        if self.step_batch % self.micro_batch:
            raise ValueError(
                f"{self.batch_key} is {self.step_batch}, wanted a multiple of micro_batch, {self.micro_batch}"
            )
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(f"min_learning_rate {self.min_learning_rate} is above learning_rate {self.learning_rate}")
        if self.min_pixels is not None and self.max_pixels is not None and self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels {self.min_pixels} is above max_pixels {self.max_pixels}")
        return self


class Recipe(VllmSettings, Training):
    """One GRPO run. Batches are counted in completions unless they say prompts."""

    method: ClassVar[Method] = "grpo"
    batch_key: ClassVar[str] = "train_batch"

    data: str
    """A JSON or JSONL file of records or a folder with one; "mini" is the built-in suite's training part."""
    box_units: BoxUnits | None = None
    """Of boxes whose record declares none."""
    skip_bad_records: bool = False
    """Leave out records that are not what their verifier_type wants, instead of refusing the file."""

    kinds: tuple[Kind, ...] = Field(default=tuple(Kind), min_length=1)
    """Records of other kinds are left out of the data."""
    reward_model: RewardModel = RewardModel(kind="caption-similarity")
    """Of open-ended answers. The default is not the paper's, which is internlm-xcomposer2d5-7b-reward: see
    `trainer/similarity.py`."""
    open_ended_beta: float = Field(default=BETA, gt=0)
    """Not in the paper: see `rewards.BETA`."""
    extra_rewards: ExtraRewards = ExtraRewards()

    group_size: int = Field(default=4, ge=2)
    temperature: float = Field(default=0.8, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    max_new_tokens: int = Field(default=1024, ge=1)
    """Not in the paper."""
    prompts_per_rollout: int = Field(default=512, ge=1)
    train_batch: int = Field(default=256, ge=1)
    """Completions of an optimiser step, over all processes."""
    episodes: int = Field(default=1, ge=1)
    inner_epochs: int = Field(default=1, ge=1)
    """Times that a rollout is trained on."""
    share_prompts: bool = True
    """Whether a prompt and its images are computed once for all its completions in a micro-batch: the same numbers but
    for rounding, sooner (`trainer/shared_prompt.py`)."""
    keep_groups: bool = False
    """Whether a rollout is shuffled by groups, so that a group's completions meet in a micro-batch. Not the paper's:
    where a rollout feeds several optimiser steps, other completions make a step."""

    learning_rate: float = Field(default=1e-6, gt=0)
    """Not in the paper: lmm-r1's, whose code base it shares."""
    min_learning_rate: float = Field(default=5e-7, ge=0)
    loss: Literal["grpo", "dr_grpo", "dapo"] = "grpo"
    """grpo: mean over each completion's tokens. dr_grpo: over a constant, and advantages are not divided by the group's
    standard deviation (arXiv:2503.20783). dapo: over the tokens of the batch (arXiv:2503.14476)."""
    clip_eps: float = Field(default=0.2, gt=0)
    """Not in the paper: OpenRLHF's default."""
    clip_eps_high: float | None = Field(default=None, gt=0)
    """Upper bound of the ratio, as 1 + it; `clip_eps` if null."""
    kl: KL | None = KL()
    """null: no KL term, and no reference model in memory."""

    save_steps: int = Field(default=50, ge=1)
    """Optimiser steps between checkpoints. One in the middle of a rollout keeps the rest of it, images and all."""
    watch: Watch | None = None
    """Benchmarks during training; none if null."""

    @property
    def rollout_batch(self) -> int:
        """Completions that are generated at once, over all processes."""
        return self.prompts_per_rollout * self.group_size

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.rollout_batch % self.train_batch:
            raise ValueError(
                f"a rollout has prompts_per_rollout x group_size = {self.rollout_batch} completions, "
                f"wanted a multiple of train_batch, {self.train_batch}"
            )
        if self.extra_rewards.length and self.extra_rewards.length_free_tokens >= self.max_new_tokens:
            raise ValueError("extra_rewards.length_free_tokens is not below max_new_tokens")
        return self


def load_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return a GRPO recipe; as `recipe_files.load_as`."""
    return load_as(Recipe, name, overrides)


def parse_recipe(values: Mapping[str, Any], *, name: str) -> Recipe:
    """Return the GRPO recipe with these values, for a program that has them in hand; as `recipe_files.parse_as`."""
    return parse_as(Recipe, values, name=name)
