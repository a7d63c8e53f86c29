"""The settings of supervised fine-tuning: a YAML file as GRPO's, with what the two share in `recipe.Start`.

The defaults are VLAA-Thinking's (arXiv:2504.11468, section 3.1 and appendix B.1) where the paper states a value.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from ahabench.trainer.recipe import Part, Start, load_as


class Spikes(Part):
    """When a step's loss counts as a spike; see `sft.SpikeWatch`."""

    window: int = Field(default=50, ge=8)
    """Steps before it that say what is usual."""
    z: float = Field(default=6.0, gt=0)
    """Robust z-score from which a loss is a spike."""
    patience: int = Field(default=5, ge=1)
    """Spikes in a row that stop the run."""


class SftRecipe(Start):
    """One run of supervised fine-tuning."""

    data: str
    """A JSON or JSONL file of records or a folder with one; "mini" is the built-in suite's careful completions."""
    images: Path | None = None
    """Where the records' image paths start; beside the file if null."""
    skip_bad_records: bool = False
    """Leave out records without a usable completion or image, instead of refusing the file."""
    max_text_tokens: int = Field(default=4096, ge=1)
    """Of system prompt, question and completion, without the image; longer records are left out, never cut. Not in the
    paper."""

    batch: int = Field(default=128, ge=1)
    """Demonstrations of an optimiser step, over all processes."""
    micro_batch: int = Field(default=4, ge=1)
    """Demonstrations that one process holds at a time."""
    epochs: int = Field(default=1, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    """Optimiser steps; all epochs if null."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Not in the paper, as the rest of the schedule."""
    min_learning_rate: float = Field(default=0.0, ge=0)
    """Where the cosine ends."""
    warmup: float = Field(default=0.03, ge=0, lt=1)
    """Share of the steps."""
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    spikes: Spikes = Spikes()
    probe_prompts: int = Field(default=16, ge=0)
    """Questions that the base answers before training, to see whether it keeps to the format at all; 0 asks none."""
    probe_tokens: int = Field(default=512, ge=1)
    """Longest such answer."""
    save_steps: int = Field(default=50, ge=1)
    """Optimiser steps between checkpoints."""
    keep_checkpoints: int | None = Field(default=None, ge=1)
    """The newest checkpoints that stay; all if null."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.batch % self.micro_batch:
            raise ValueError(f"batch is {self.batch}, wanted a multiple of micro_batch, {self.micro_batch}")
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(f"min_learning_rate {self.min_learning_rate} is above learning_rate {self.learning_rate}")
        return self


def load_sft_recipe(name: str | Path, overrides: Sequence[str] = ()) -> SftRecipe:
    """Return an SFT recipe; as `recipe.load_as`."""
    return load_as(SftRecipe, name, overrides)
