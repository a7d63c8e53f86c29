"""What an evaluation will take, and the lines that start it: nothing is loaded, asked or sent."""

import io
import re
import shlex
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from ahabench.harness.checkpoint import Checkpoint, Kind, weight_files
from ahabench.harness.engines.front import Front, open_front
from ahabench.harness.engines.options import read_options
from ahabench.harness.engines.sizes import sizes_by_rule
from ahabench.harness.engines.vllm import VllmOptions
from ahabench.harness.errors import DatasetError, EngineError, UsageError
from ahabench.harness.images import smart_resize
from ahabench.harness.runner import Plan
from ahabench.harness.sampling import Sampling
from ahabench.harness.shards import Shard
from ahabench.harness.types import ImageSource, Item, Prompt

BYTES_PER_TOKEN = 4
"""Rule of thumb for a text's tokens where the model's tokenizer is not here: UTF-8 bytes by this."""
MEASURED = 256
"""Images of a task whose sizes are read; the others count as the mean of these, which are evenly spaced."""
PIXELS_PER_TOKEN = 28 * 28
"""Of Qwen2.5-VL: patches of 14 px, merged 2 x 2. For other families it is a guess."""
QWEN_LIMITS = (4 * PIXELS_PER_TOKEN, 16384 * PIXELS_PER_TOKEN)
"""The pixel limits of Qwen2.5-VL's own processor, where the model is not here."""

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_NAMED_SIZE = re.compile(r"(?<![A-Za-z0-9.])([0-9]{1,4}(?:\.[0-9]{1,3})?)[bB](?![A-Za-z0-9])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """An evaluation as the command line describes it."""

    model: str
    engine: str
    options: Mapping[str, str]
    """From `--engine-arg`."""
    batch_size: int | None
    dtype: str
    text_only: bool
    plan: Plan
    sampling: Sampling
    min_pixels: int | None
    max_pixels: int | None
    out: Path
    command: Sequence[str]
    """The arguments of `ahabench`, without `--plan`."""


class _Weights(NamedTuple):
    """The size of a model."""

    size: int
    """In bytes."""
    source: str


def plan_launch(launch: Launch) -> dict[str, Any]:
    """Return what the evaluation will take, under the names that `--json` shows.

    "tasks": per task "items", "requests", "prompt_tokens" (estimated, those of images included), "image_tokens" (`None`
    where no image can be read: the prompt's tokens are then those of the text) and "new_tokens_max"; "total" likewise;
    "weights": "bytes" and "bytes_per_gpu", where known, and "source"; "gpus"; "launch": the lines to run, comments
    among them.

    Raises:
        UsageError: an option of the engine is wrong.
    """
    options = _vllm_options(launch)
    front = _front(launch)
    tasks = {task.dataset.task.name: _tokens(launch, front, index) for index, task in enumerate(launch.plan.tasks)}
    rows = list(tasks.values())
    total = {
        key: None if any(row[key] is None for row in rows) else sum(row[key] or 0 for row in rows) for key in rows[0]
    }
    per_copy = options.tensor_parallel_size * options.pipeline_parallel_size if options else 1
    copies = options.data_parallel_size if options else 1
    shards = launch.plan.shard.count if launch.plan.shard else 1
    weights = _weights(launch, front)
    return {
        "model": launch.model,
        "engine": launch.engine,
        "text_tokens_by": "the model's tokenizer" if front else f"{BYTES_PER_TOKEN} bytes a token",
        "tasks": tasks,
        "total": total,
        "gpus": per_copy * copies * shards if options else None,
        "weights": {
            "bytes": weights.size if weights else None,
            "bytes_per_gpu": -(-weights.size // per_copy) if weights and options else None,
            "source": weights.source if weights else "not known: the model is not on this machine",
        },
        "launch": _lines(launch, options, per_copy * copies),
    }


def plan_text(row: Mapping[str, Any]) -> str:
    """Return a plan as it is printed."""
    lines = [f"{row['model']} by {row['engine']}; text tokens by {row['text_tokens_by']}; nothing was loaded", ""]
    width = max(len(name) for name in [*row["tasks"], "total"])
    heads = ("items", "requests", "prompt tokens", "of images", "new tokens at most")
    lines.append("  ".join([f"{'task':<{width}}", *(f"{head:>18}" for head in heads)]))
    for name, counts in [*row["tasks"].items(), ("total", row["total"])]:
        lines.append("  ".join([f"{name:<{width}}", *(_shown(count) for count in counts.values())]))
    lines += ["", _weights_line(row), "", *row["launch"]]
    return "\n".join(lines)


def _shown(count: int | None) -> str:
    return f"{'not known':>18}" if count is None else f"{count:>18,}"


def _weights_line(row: Mapping[str, Any]) -> str:
    weights = row["weights"]
    if weights["bytes"] is None:
        return f"weights: {weights['source']}"
    each = weights["bytes_per_gpu"]
    gpus = f", {_gigabytes(each)} on each of {row['gpus']} GPUs" if each is not None else ""
    return f"weights: {_gigabytes(weights['bytes'])}{gpus}, before the cache ({weights['source']})"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"


def _vllm_options(launch: Launch) -> VllmOptions | None:
    """Return vLLM's options, `None` for another engine; with "auto", vLLM's where it is told something."""
    if launch.engine == "vllm" or (launch.engine == "auto" and launch.options):
        flags = {"batch_size": str(launch.batch_size)} if launch.batch_size is not None else {}
        return read_options(VllmOptions, "vllm", launch.options, flags, {"batch_size": "max_num_seqs"})
    return None


def _front(launch: Launch) -> Front | None:
    """Return the checkpoint's tokenizer and processor if they are on this machine."""
    if not Path(launch.model).exists():
        return None
    try:
        return open_front(
            launch.model,
            min_pixels=launch.min_pixels,
            max_pixels=launch.max_pixels,
            revision=None,
            trust_remote_code=False,
            text_only=True if launch.text_only else None,
        )
    except EngineError:
        return None


def _tokens(launch: Launch, front: Front | None, index: int) -> dict[str, int | None]:
    task = launch.plan.tasks[index]
    items = task.dataset.items
    text_only = launch.text_only or (front is not None and not front.images)
    text = 0
    images: int | None = 0
    for item in items:
        prompt = task.prompt.render(item)
        if launch.plan.system_prompt is not None:
            prompt = replace(prompt, system=launch.plan.system_prompt)
        text += _text_tokens(prompt, front)
    if not text_only:
        images = _image_tokens(items, launch, front)
    samples = launch.plan.samples
    return {
        "items": len(items),
        "requests": len(items) * samples,
        "prompt_tokens": (text + (images or 0)) * samples,
        "image_tokens": images * samples if images is not None else None,
        "new_tokens_max": len(items) * samples * launch.sampling.max_new_tokens,
    }


def _text_tokens(prompt: Prompt, front: Front | None) -> int:
    if front is not None:
        return len(front.tokenizer(front.chat.render(prompt, 0), add_special_tokens=False)["input_ids"])
    text = (prompt.system or "") + prompt.text
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


def _image_tokens(items: Sequence[Item], launch: Launch, front: Front | None) -> int | None:
    images = [image for item in items for image in item.images]
    step = max(1, -(-len(images) // MEASURED))
    counts = [_tokens_of(size, launch, front) for size in map(_size, images[::step]) if size is not None]
    if images and not counts:
        return None
    return round(sum(counts) / max(1, len(counts)) * len(images))


def _tokens_of(size: tuple[int, int], launch: Launch, front: Front | None) -> int:
    if front is not None and front.limits:
        try:
            sizes = sizes_by_rule(front.processor, [size], front.limits)
        except ValueError:
            return 0
        if sizes is not None:
            factor = int(front.processor.image_processor.patch_size) * int(front.processor.image_processor.merge_size)
            return sizes[0][0] * sizes[0][1] // factor**2
    low = launch.min_pixels or QWEN_LIMITS[0]
    high = launch.max_pixels or QWEN_LIMITS[1]
    width, height = smart_resize(*size, min_pixels=low, max_pixels=max(low, high))
    return width * height // PIXELS_PER_TOKEN


def _size(image: ImageSource) -> tuple[int, int] | None:
    """Return an image's width and height from its header, `None` where it cannot be read."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(image.read())) as picture:
                return picture.size
    except (DatasetError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _weights(launch: Launch, front: Front | None) -> _Weights | None:
    """Return the size of the weights as they will be loaded."""
    dtype = launch.options.get("dtype", launch.dtype)
    if front is not None and (count := _stored(front.checkpoint)):
        stored = str(getattr(front.config, "dtype", None)).removeprefix("torch.")
        if dtype in _BYTES and stored in _BYTES:
            return _Weights(count * _BYTES[dtype] // _BYTES[stored], f"the weight files, as {dtype}")
        return _Weights(count, "the weight files")
    if (Path(launch.model) / "config.json").is_file() and (parameters := _parameters(Path(launch.model))):
        each = _BYTES.get(dtype, 2)
        return _Weights(parameters * each, f"{parameters:,} parameters by config.json, {each} bytes each")
    if found := _NAMED_SIZE.search(launch.model.rpartition("/")[2]):
        each = _BYTES.get(dtype, 2)
        return _Weights(round(float(found[1]) * 1e9) * each, f"{found[0]} in its name, {each} bytes a parameter")
    return None


def _stored(checkpoint: Checkpoint) -> int:
    whole = checkpoint.base or checkpoint
    files = [whole.path] if whole.kind is Kind.GGUF else weight_files(whole.path)
    return sum(path.stat().st_size for path in files)


def _parameters(folder: Path) -> int | None:
    """Return how many parameters a model of this configuration has; the model is made without memory."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    from ahabench.harness.engines.loading import takes_images

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        loader: Any = AutoModelForImageTextToText if takes_images(config) else AutoModelForCausalLM
        with torch.device("meta"):
            model = loader.from_config(config)
    except (OSError, ValueError, KeyError, RuntimeError):
        return None
    return sum(int(parameter.numel()) for parameter in model.parameters())


def _lines(launch: Launch, options: VllmOptions | None, gpus: int) -> list[str]:
    ray = options is not None and options.distributed_executor_backend == "ray"
    lines = []
    if ray:
        lines += [
            f"# Ray over the nodes that hold {gpus} GPUs, once:",
            "ray start --head --port=6379                 # on the first node",
            "ray start --address=FIRST_NODE:6379          # on every other node",
            "# then, on the first node:",
        ]
    shard = launch.plan.shard
    if shard is None:
        return [*lines, _shell(launch.command)]
    lines.append(f"# one line for each of {shard.count} nodes, with --out on a folder that all of them see:")
    lines += [_shell(_with_shard(launch.command, Shard(n, shard.count))) for n in range(1, shard.count + 1)]
    return [*lines, "# when all have ended:", _shell(["merge", str(launch.out)]), _shell(["score", str(launch.out)])]


def _shell(arguments: Sequence[str]) -> str:
    return shlex.join(["ahabench", *arguments])


def _with_shard(command: Sequence[str], shard: Shard) -> list[str]:
    """Return the command for one shard.

    Raises:
        UsageError: the command has no `--shard`.
    """
    changed = list(command)
    for place, word in enumerate(changed):
        if word == "--shard" and place + 1 < len(changed):
            changed[place + 1] = str(shard)
            return changed
        if word.startswith("--shard="):
            changed[place] = f"--shard={shard}"
            return changed
    raise UsageError("the command has no --shard")
