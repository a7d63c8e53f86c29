"""How large a model is, and how much memory of a GPU its training takes: an estimate with its terms.

In bytes per GPU, for P parameters of which T are trained, on G GPUs:

                     ddp (float32)   zero2 (bfloat16)   zero3 (bfloat16)
    weights          4 P             2 P                2 P / G
    gradients        4 T             2 T / G            2 T / G
    Adam             8 T             12 T / G           12 T / G      two moments; under ZeRO float32 weights too
    reference model  4 P             2 P                2 P / G       only with a KL term and without LoRA

    kept inputs      micro_batch x tokens x width x layers x 4 (ddp) or 2: one per layer, with gradient checkpointing
    one layer        micro_batch x tokens x width x 34: what is computed again (Korthikanti et al., arXiv:2205.05198,
                     table 2, without its attention scores); times the layers without gradient checkpointing
    logits           micro_batch x completion tokens x vocabulary x 12: three copies in float32
    vLLM             0.3 of the GPU where it shares it, TRL's default
    rest             2 GB: context, buffers, fragments

tokens = 512 of text (assumed) + one per 28 x 28 pixels + completion. It was not measured on a GPU.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ahabench.harness.errors import EngineError

Sharding = Literal["ddp", "zero2", "zero3"]
SHARDINGS: tuple[Sharding, ...] = ("ddp", "zero2", "zero3")

TEXT_TOKENS = 512
PATCH_PX = 28
"""Side of the square behind one image token in Qwen2-VL and Qwen2.5-VL."""
OF_VLLM = 0.3
REST_GB = 2.0
_GB = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What the estimate needs to know of a model."""

    parameters: int
    vision: int
    """Parameters of the vision tower, among `parameters`."""
    layers: int
    width: int
    vocabulary: int
    context: int
    """Positions that the text model was made for."""


KNOWN: Mapping[str, Shape] = {
    "Qwen/Qwen2-VL-2B-Instruct": Shape(
        parameters=2_208_985_600, vision=665_271_296, layers=28, width=1536, vocabulary=151_936, context=32_768
    ),
    "Qwen/Qwen2-VL-7B-Instruct": Shape(
        parameters=8_291_375_616, vision=675_759_104, layers=28, width=3584, vocabulary=152_064, context=32_768
    ),
    "Qwen/Qwen2.5-VL-3B-Instruct": Shape(
        parameters=3_754_622_976, vision=668_684_288, layers=36, width=2048, vocabulary=151_936, context=128_000
    ),
    "Qwen/Qwen2.5-VL-7B-Instruct": Shape(
        parameters=8_292_166_656, vision=676_550_144, layers=28, width=3584, vocabulary=152_064, context=128_000
    ),
}
"""Models whose size is known without their files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a process holds at a time."""

    micro_batch: int
    completion_tokens: int
    image_px: int
    """Area of the largest image; 0 where there is none."""
    trained: int
    """Parameters that are trained."""
    reference: bool
    """Whether the frozen first policy is in memory."""
    checkpointing: bool
    vllm: bool
    """Whether vLLM shares the GPU."""

    @property
    def tokens(self) -> int:
        """Positions of the longest sequence that is assumed."""
        return TEXT_TOKENS + self.image_px // PATCH_PX**2 + self.completion_tokens


def shape_of(model: str) -> Shape | None:
    """Return the shape of a model: from its folder, or a known one; `None` where neither is at hand.

    Raises:
        EngineError: the folder's configuration cannot be read.
    """
    base = f"{model}-Instruct"
    if not Path(model).is_dir():
        return KNOWN.get(model) or KNOWN.get(base)
    import torch
    import transformers

    library: Any = transformers
    try:
        config = library.AutoConfig.from_pretrained(model, local_files_only=True)
        with torch.device("meta"):
            empty = library.AutoModelForImageTextToText.from_config(config)
    except (OSError, ValueError) as error:
        raise EngineError(f"the configuration in {model} cannot be read: {str(error).splitlines()[0]}") from error
    text = config.get_text_config()
    return Shape(
        parameters=sum(weight.numel() for weight in empty.parameters()),
        vision=sum(weight.numel() for name, weight in empty.named_parameters() if "visual." in name),
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        vocabulary=text.vocab_size,
        context=text.max_position_embeddings,
    )


def memory_gb(shape: Shape, load: Load, *, gpus: int, sharding: Sharding, gpu_gb: float) -> dict[str, float]:
    """Return the terms of the estimate in GB (10^9 bytes), by name; the module's head has the formula."""
    plain = sharding == "ddp"
    of_weights = gpus if sharding == "zero3" else 1
    of_rest = 1 if plain else gpus
    whole = (4 if plain else 2) * shape.parameters / of_weights
    sequence = load.micro_batch * load.tokens * shape.width
    layers = 1 if load.checkpointing else shape.layers
    terms = {
        "weights": whole,
        "gradients": (4 if plain else 2) * load.trained / of_rest,
        "Adam": (8 if plain else 12) * load.trained / of_rest,
        "reference model": whole if load.reference else 0.0,
        "kept inputs": sequence * shape.layers * (4 if plain else 2),
        "one layer" if load.checkpointing else "all layers": 34 * sequence * layers,
        "logits": 12 * load.micro_batch * load.completion_tokens * shape.vocabulary,
    }
    found = {name: value / _GB for name, value in terms.items()}
    return found | {"vLLM": OF_VLLM * gpu_gb if load.vllm else 0.0, "rest": REST_GB}
