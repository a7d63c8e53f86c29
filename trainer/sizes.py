"""How large a model is, and how much memory of a GPU its training takes: an estimate with its terms.

In bytes per GPU, for P parameters of which T are trained, on G GPUs:

                     ddp (float32)   zero2 (bfloat16)   zero3 (bfloat16)   fsdp (float32)
    weights          4 P             2 P                2 P / G            4 P / G
    gradients        4 T             2 T / G            2 T / G            4 T / G
    Adam             8 T             12 T / G           12 T / G           8 T / G    under ZeRO float32 weights too
    reference model  4 P             2 P                2 P / G            4 P / G    with a KL term, without LoRA

For n tokens (micro_batch x (512 of text, assumed + one per 28 x 28 pixels + completion)) of width h, in a model whose
MLP is i wide and whose keys are k wide:

    one layer        n (32 h + 16 i + 8 k) in float32, n (30 h + 8 i + 4 k) with bfloat16 autocast, and
                     n (20 h + 8 i + 4 k) where the weights are bfloat16 too: what autograd keeps of one layer
    all layers       that times the layers, without gradient checkpointing
    bfloat16 copies  2 T with autocast in ddp: of the weights, within a forward pass; fsdp has them of a layer at a time
    kept inputs      n h (layers + 2) x 4 (ddp) or 2, with gradient checkpointing; one layer at a time beside them
    output head      TRL (1.16) computes no whole logits but tiles of 4,096 tokens x 32,768 words: one, as wide as the
                     computation, on a GPU; and on a CPU, where every position is scored, seven more in float32.
                     Then 4 bytes of each of its weights for their gradient, unless that is frozen
    vLLM             the share of the GPU that the recipe gives it, where it is colocated
    rest             2 GB on a GPU: context, buffers, fragments

With gradient checkpointing only the larger of one layer and the output head counts, since they never stand together.
Tokens that a group shares (`share_prompts`) are counted for each completion, and a vision tower's own activations are
not counted: a frozen one keeps none. Everything but vLLM and the rest was measured on a CPU, byte by byte, in ddp
(tests/trainer/test_sizes.py: within a tenth); nothing was measured on a GPU.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ahabench.harness.errors import EngineError

Sharding = Literal["ddp", "zero2", "zero3", "fsdp"]
SHARDINGS: tuple[Sharding, ...] = ("ddp", "zero2", "zero3", "fsdp")

TEXT_TOKENS = 512
PATCH_PX = 28
"""Side of the square behind one image token in Qwen2-VL and Qwen2.5-VL."""
TILE_TOKENS, TILE_WORDS = 4096, 32_768
"""Of TRL's output head."""
CPU_COPIES = 7
"""Tiles in float32 that the output head keeps beside the first where no Triton kernel works in place."""
REST_GB = 2.0
_GB = 1e9


@dataclass(frozen=True, slots=True)
class Shape:
    """What the estimate needs to know of a model."""

    parameters: int
    vision: int
    """Parameters of the vision tower, among `parameters`."""
    layers: int
    width: int
    inner: int
    """Of the text model's MLP."""
    kv_width: int
    """Of a token's keys in one layer: heads of keys x their dimension."""
    vocabulary: int
    context: int
    """Positions that the text model was made for."""


KNOWN: Mapping[str, Shape] = {
    # parameters, vision tower, layers, width, MLP, keys, words, positions
    "Qwen/Qwen2-VL-2B-Instruct": Shape(2_208_985_600, 665_271_296, 28, 1536, 8960, 256, 151_936, 32_768),
    "Qwen/Qwen2-VL-7B-Instruct": Shape(8_291_375_616, 675_759_104, 28, 3584, 18_944, 512, 152_064, 32_768),
    "Qwen/Qwen2.5-VL-3B-Instruct": Shape(3_754_622_976, 668_684_288, 36, 2048, 11_008, 256, 151_936, 128_000),
    "Qwen/Qwen2.5-VL-7B-Instruct": Shape(8_292_166_656, 676_550_144, 28, 3584, 18_944, 512, 152_064, 128_000),
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
    bf16: bool
    """Whether the computation is in bfloat16; under ZeRO it always is."""
    on_gpu: bool
    head_trained: bool
    """Whether the output head's weights, often the embeddings too, are trained."""
    vllm: float
    """The share of the GPU's memory that vLLM takes; 0 where it is elsewhere."""
    text_tokens: int = TEXT_TOKENS
    """Of system prompt and question, without the image."""

    @property
    def tokens(self) -> int:
        """Positions of the longest sequence that is assumed."""
        return self.text_tokens + self.image_px // PATCH_PX**2 + self.completion_tokens


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
        inner=text.intermediate_size,
        kv_width=text.num_key_value_heads * (text.hidden_size // text.num_attention_heads),
        vocabulary=text.vocab_size,
        context=text.max_position_embeddings,
    )


class State(NamedTuple):
    """What stays in memory from one step to the next, of all parameters (P) or of the trained ones (T)."""

    each: int
    """Bytes of a parameter."""
    symbol: Literal["P", "T"]
    parameters: int
    gpus: int
    """That share it."""

    @property
    def bytes(self) -> float:
        """Its size on one GPU."""
        return self.each * self.parameters / self.gpus

    @property
    def formula(self) -> str:
        """How that is found, such as "12 T / 8"."""
        return f"{self.each} {self.symbol}" + (f" / {self.gpus}" if self.gpus > 1 else "")


def states(shape: Shape, load: Load, *, gpus: int, sharding: Sharding) -> dict[str, State]:
    """Return the upper terms of the estimate, by name."""
    weights, gradients, adam = (4, 4, 8) if sharding in ("ddp", "fsdp") else (2, 2, 12)
    of_weights = gpus if sharding in ("zero3", "fsdp") else 1
    of_rest = 1 if sharding == "ddp" else gpus
    whole = State(weights, "P", shape.parameters, of_weights)
    found = {
        "weights": whole,
        "gradients": State(gradients, "T", load.trained, of_rest),
        "Adam": State(adam, "T", load.trained, of_rest),
    }
    return found | ({"reference model": whole} if load.reference else {})


def memory_gb(shape: Shape, load: Load, *, gpus: int, sharding: Sharding, gpu_gb: float) -> dict[str, float]:
    """Return the terms of the estimate in GB (10^9 bytes), by name; the module's head has the formula."""
    terms = {name: state.bytes for name, state in states(shape, load, gpus=gpus, sharding=sharding).items()}
    terms |= activations(shape, load, plain=sharding in ("ddp", "fsdp"))
    if sharding == "fsdp":
        terms.pop("bfloat16 copies", None)
    found = {name: value / _GB for name, value in terms.items()}
    return found | {"vLLM": load.vllm * gpu_gb, "rest": REST_GB if load.on_gpu else 0.0}


def activations(shape: Shape, load: Load, *, plain: bool) -> dict[str, float]:
    """Return the terms of one micro-batch's forward and backward pass in bytes, by name.

    Args:
        shape: of the model.
        load: of the process.
        plain: whether the weights are float32, as in ddp and fsdp.
    """
    h, i, k = shape.width, shape.inner, shape.kv_width
    positions = load.micro_batch * load.tokens
    bf16 = load.bf16 or not plain
    layer = positions * (32 * h + 16 * i + 8 * k if not bf16 else (30 if plain else 20) * h + 8 * i + 4 * k)
    scored = min(load.micro_batch * load.completion_tokens if load.on_gpu else positions, TILE_TOKENS)
    head = scored * TILE_WORDS * (2 if bf16 else 4) + (4 * h * shape.vocabulary if load.head_trained else 0)
    if not load.on_gpu:
        head += CPU_COPIES * 4 * scored * min(shape.vocabulary, TILE_WORDS)
    copies = {"bfloat16 copies": 2.0 * load.trained if plain and bf16 else 0.0}
    if not load.checkpointing:
        return {"all layers": layer * shape.layers, **copies, "output head": head}
    kept = positions * h * (shape.layers + 2) * (4 if plain else 2)
    return {
        "kept inputs": kept,
        **copies,
        "one layer": layer if layer > head else 0.0,
        "output head": head if head >= layer else 0.0,
    }
