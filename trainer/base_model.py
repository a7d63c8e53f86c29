"""The model that a training begins with, as far as it is known without its weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ahabench.harness.checkpoint import Checkpoint, Kind, find_checkpoint
from ahabench.harness.engines.loading import limit_pixels, load_front, read_config, takes_images
from ahabench.harness.errors import UsageError
from ahabench.harness.report import note
from ahabench.trainer.recipe import Training

BASE = "base"
"""The folder of the built-in model in a run's."""
REFERENCE = "reference"
"""What a recipe calls the built-in model."""


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


def open_model(recipe: Training, out: Path) -> Front:
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


def lora_config(recipe: Training) -> Any:
    """Return PEFT's settings for a recipe, `None` for full training."""
    if recipe.lora is None:
        return None
    from peft import LoraConfig

    asked = recipe.lora
    modules = asked.target_modules if isinstance(asked.target_modules, str) else list(asked.target_modules)
    return LoraConfig(r=asked.rank, lora_alpha=asked.alpha, lora_dropout=asked.dropout, target_modules=modules)


@contextmanager
def adapters_fit(recipe: Training) -> Iterator[None]:
    """Say in one line where a recipe's adapters have no place in the model that is loaded meanwhile.

    Raises:
        UsageError: it has no such modules.
    """
    try:
        yield
    except ValueError as error:
        if recipe.lora is None or "not found in the base model" not in str(error):
            raise
        raise UsageError(
            f"{recipe.model} has no module that lora.target_modules = {recipe.lora.target_modules!r} names; the "
            "default fits Qwen2-VL and Qwen2.5-VL"
        ) from error
