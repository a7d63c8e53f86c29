"""The settings of supervised fine-tuning: a YAML file as GRPO's, with what the two share in `recipe.Training`.

The defaults are VLAA-Thinking's (arXiv:2504.11468, section 3.1 and appendix B.1) where the paper states a value.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from ahabench.trainer.recipe import Training
from ahabench.trainer.recipe_files import Method, Part, load_as


class Spikes(Part):
    """When a step's loss counts as a spike; see `sft.SpikeWatch`."""

    window: int = Field(default=50, ge=8)
    """Steps before it that say what is usual."""
    z: float = Field(default=6.0, gt=0)
    """Robust z-score from which a loss is a spike."""
    patience: int = Field(default=5, ge=1)
    """Spikes in a row that stop the run."""


class SftRecipe(Training):
    """One run of supervised fine-tuning."""

    method: ClassVar[Method] = "sft"
    batch_key: ClassVar[str] = "batch"

    data: str
    """A JSON or JSONL file of records or a folder with one; "mini" is the built-in suite's careful completions."""
    skip_bad_records: bool = False
    """Leave out records without a usable completion or image, instead of refusing the file."""
    max_text_tokens: int = Field(default=4096, ge=1)
    """Of system prompt, question and completion, without the image; longer records are left out, never cut. Not in the
    paper."""

    batch: int = Field(default=128, ge=1)
    """Demonstrations of an optimiser step, over all processes."""
    epochs: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=1e-5, gt=0)
    """Not in the paper, as the rest of the schedule."""
    min_learning_rate: float = Field(default=0.0, ge=0)
    spikes: Spikes = Spikes()
    probe_prompts: int = Field(default=16, ge=0)
    """Questions that the base answers before training, to see whether it keeps to the format at all; 0 asks none."""
    probe_tokens: int = Field(default=512, ge=1)
    """Longest such answer."""


def load_sft_recipe(name: str | Path, overrides: Sequence[str] = ()) -> SftRecipe:
    """Return an SFT recipe; as `recipe_files.load_as`."""
    return load_as(SftRecipe, name, overrides)
