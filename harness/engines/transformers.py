"""The engine that runs a checkpoint in this process, by transformers."""

import gc
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ahabench.harness.engines import EngineInfo
from ahabench.harness.engines.devices import find_device, find_dtype, is_memory, use_free_cores
from ahabench.harness.engines.front import open_front
from ahabench.harness.engines.loading import end_tokens, load_model
from ahabench.harness.engines.outcomes import failed, named
from ahabench.harness.engines.sampler import logits_processors
from ahabench.harness.engines.sizes import Sizes, sizes_in_batch
from ahabench.harness.errors import DatasetError, EngineError, UsageError
from ahabench.harness.images import MAX_PIXELS, decode
from ahabench.harness.manifest import EngineRecord, SamplingRecord
from ahabench.harness.sampling import Sampling
from ahabench.harness.types import ImageSource, Request, Response

WINDOW = 512
"""Requests that are sorted by length together."""
PATIENCE = 8
"""Requests that may fail in a row, for another reason than memory or a bad image, before the engine gives up."""

_PATCH = 28 * 28  # pixels per image token in Qwen's models: good enough to sort by

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A request with its rendered text."""

    request: Request
    text: str
    length: int
    """Tokens of the prompt, those of its images estimated."""


class _Cause(StrEnum):
    """Why a batch gave nothing."""

    MEMORY = "memory"
    INPUT = "input"
    MODEL = "model"
    UNEVEN = "uneven"
    """Its requests leave different room in the model's context, so that one's text would depend on another's."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """A batch that gave nothing."""

    cause: _Cause
    error: str


class TransformersOptions(BaseModel):
    """How transformers runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch_size: int | None = Field(default=None, ge=1, description="most requests at once (as --batch-size)")
    dtype: str = Field(default="auto", description="auto, float32, bfloat16 or float16 (as --dtype)")
    device: str = Field(default="auto", description="auto, or a name of torch's such as cuda:1 (as --device)")
    revision: str | None = Field(default=None, description="branch, tag or commit on the hub (as --revision)")
    trust_remote_code: bool = Field(default=False, description="run the checkpoint's own code (as --trust-remote-code)")
    text_only: bool | None = Field(default=None, description="leave the images out (as --text-only)")
    attn_implementation: str | None = Field(
        default=None, description="eager, sdpa, flash_attention_2 or whatever else the installed transformers has"
    )


class TransformersEngine:
    """Any image-text-to-text or causal checkpoint that transformers can load.

    Batches are formed by length, the longest first within each `WINDOW` requests, padded on the left. At temperature 0
    a response depends on its request alone, up to rounding: the padding of a batch changes the last bits of a sum, and
    with them, rarely, which of two nearly equal tokens comes first (`batch_size=1` rules that out). When sampling, each
    request draws from a stream of its own, seeded by the run's seed, the item and the sample, so the same holds, and
    neither the batch nor the point at which an interrupted run went on matters.

    `finish_reason` is "stop" if the model ended its text, otherwise "length": `max_new_tokens` or the model's context
    was reached. `completion_tokens` counts the end-of-sequence token and no padding.

    Args:
        model: a folder, a PEFT adapter's folder, a .gguf file, or a name on the hub.
        sampling: how to draw; `samples` is the runner's business.
        min_pixels: the least area, in pixels, to which an image is resized; `None` leaves the checkpoint's own.
        max_pixels: the largest area.
        batch_size: the most requests at once; `None` takes 16, or 8 with images. Halved when memory does not suffice.
        dtype: "auto" (the checkpoint's own on an accelerator, float32 on a CPU), "float32", "bfloat16" or "float16".
        device: "auto" (an accelerator if there is one), or a name of torch's such as "cuda:1".
        revision: a branch, tag or commit, for a name on the hub.
        trust_remote_code: whether code that comes with the checkpoint may run.
        text_only: leave the images out; `None` does so for a model that takes none.
        attn_implementation: transformers' name of a way to compute attention; `None` leaves the choice to it.

    Raises:
        EngineError: the checkpoint cannot be used, or an option does not fit it.
        UsageError: an option is out of range.
    """

    def __init__(
        self,
        model: str,
        *,
        sampling: Sampling,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        batch_size: int | None = None,
        dtype: str = "auto",
        device: str = "auto",
        revision: str | None = None,
        trust_remote_code: bool = False,
        text_only: bool | None = None,
        attn_implementation: str | None = None,
    ) -> None:
        """Read everything but the weights."""
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"the batch size is {batch_size}, wanted at least 1")
        self._front = open_front(
            model,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            revision=revision,
            trust_remote_code=trust_remote_code,
            text_only=text_only,
        )
        self._sampling = sampling
        self._trust = trust_remote_code
        self._attention = attn_implementation
        self._images = self._front.images
        self._tokenizer = self._front.tokenizer
        self._context = self._front.context
        self._batch_size = batch_size or (8 if self._images else 16)
        self._device = find_device(device)
        self._dtype = find_dtype(dtype, self._front.config, self._device)
        self._model: Any = None
        self._ends: set[int] = set()
        self._size = self._batch_size
        self._failed_in_a_row = 0
        self.info = self._describe()

    def generate(self, requests: Sequence[Request]) -> Iterator[Response]:
        """Yield one response per request as batches finish; a request that cannot be answered gets an error response.

        Raises:
            EngineError: the weights cannot be loaded, or `PATIENCE` requests in a row failed.
        """
        if requests and self._model is None:
            self._load()
        self._size = self._batch_size
        self._failed_in_a_row = 0
        for start in range(0, len(requests), WINDOW):
            ready: list[_Ready] = []
            for request in requests[start : start + WINDOW]:
                prepared = self._prepare(request)
                if isinstance(prepared, Response):
                    yield prepared
                else:
                    ready.append(prepared)
            ready.sort(key=lambda one: one.length)
            while ready:
                yield from self._answer(_take_longest(ready, self._size))

    def _answer(self, batch: list[_Ready]) -> Iterator[Response]:
        """Yield the responses of a batch; halve one that fails until its culprit stands alone."""
        outcome = self._attempt(batch)
        if not isinstance(outcome, _Failure):
            self._failed_in_a_row = 0
            yield from outcome
        elif len(batch) > 1:
            half = len(batch) // 2
            if outcome.cause is _Cause.MEMORY:
                _log.warning("out of memory with %d requests at once: going on with %d", len(batch), half)
                self._size = half
            yield from self._answer(batch[:half])
            yield from self._answer(batch[half:])
        else:
            yield failed(batch[0].request, outcome.error)
            self._failed_in_a_row = self._failed_in_a_row + 1 if outcome.cause is _Cause.MODEL else 0
            if self._failed_in_a_row >= PATIENCE:
                raise EngineError(f"{PATIENCE} requests in a row failed, the last one with {outcome.error}")

    def _attempt(self, batch: list[_Ready]) -> list[Response] | _Failure:
        """Return the responses of a batch, or why there are none: the boundary for whatever libraries raise."""
        stage = _Cause.INPUT
        try:
            opened, refused = self._open_images(batch)
            if not opened:
                return refused
            inputs = self._encode(opened)
            rooms = self._rooms(inputs)
            if len(set(rooms)) > 1:
                return _Failure(_Cause.UNEVEN, "")
            if rooms[0] < 1:
                full = f"the prompt leaves no room for an answer in the model's context of {self._context} tokens"
                return refused + [failed(one.request, full) for one, _ in opened]
            stage = _Cause.MODEL
            requests = [one.request for one, _ in opened]
            tokens = self._generate_tokens(inputs, requests, rooms[0])
            lengths = inputs["attention_mask"].sum(dim=1).tolist()
            sizes = sizes_in_batch(self._front.processor, inputs, [len(pictures) for _, pictures in opened])
            rows = zip(requests, tokens, lengths, sizes, strict=True)
            return refused + [self._response(*row) for row in rows]
        except Exception as error:
            _log.debug("a batch of %d failed", len(batch), exc_info=True)
            failure = _Failure(_Cause.MEMORY if is_memory(error) else stage, named(error))
        # Outside the handler: until here the traceback keeps the batch's tensors alive.
        if failure.cause is _Cause.MEMORY:
            self._free()
        return failure

    def _prepare(self, request: Request) -> _Ready | Response:
        from jinja2 import TemplateError

        images = request.images if self._images else ()
        try:
            text = self._front.chat.render(request.prompt, len(images))
        except TemplateError as error:
            return failed(request, f"the chat template refuses the prompt: {error}")
        length = len(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        largest = self._front.limits[1] if self._front.limits else MAX_PIXELS
        for image in images:
            length += min(_area(image), largest) // _PATCH
        return _Ready(request, text, length)

    def _open_images(self, batch: list[_Ready]) -> tuple[list[tuple[_Ready, list[Any]]], list[Response]]:
        """Return the requests with their pictures, and error responses for those whose pictures cannot be read."""
        opened: list[tuple[_Ready, list[Any]]] = []
        refused: list[Response] = []
        for one in batch:
            images = one.request.images if self._images else ()
            try:
                opened.append((one, [decode(image.read(), name=one.request.item_id) for image in images]))
            except DatasetError as error:
                refused.append(failed(one.request, str(error)))
        return opened, refused

    def _encode(self, opened: list[tuple[_Ready, list[Any]]]) -> dict[str, Any]:
        """Return the model's inputs: ``[B, T]`` tokens and mask, padded on the left, and the pictures."""
        texts = [one.text for one, _ in opened]
        options: dict[str, Any] = {
            "padding": True,
            "return_tensors": "pt",
            "add_special_tokens": self._front.chat.adds_special_tokens(texts[0]),
        }
        if not self._front.multimodal:
            return dict(self._front.processor(texts, return_token_type_ids=False, **options))
        if any(pictures for _, pictures in opened):
            options["images"] = [pictures for _, pictures in opened]
        return dict(self._front.processor(text=texts, **options))

    def _rooms(self, inputs: dict[str, Any]) -> list[int]:
        """Return how many tokens each request may still get."""
        wanted = self._sampling.max_new_tokens
        if self._context is None:
            return [wanted] * len(inputs["attention_mask"])
        return [max(0, min(wanted, self._context - length)) for length in inputs["attention_mask"].sum(dim=1).tolist()]

    def _generate_tokens(self, inputs: dict[str, Any], requests: list[Request], room: int) -> list[list[int]]:
        """Return the new tokens of each request, with padding after the end-of-sequence token."""
        import torch
        from transformers import GenerationConfig, LogitsProcessorList

        new_config: Any = GenerationConfig
        config = new_config(
            max_new_tokens=room,
            do_sample=False,
            repetition_penalty=self._sampling.repetition_penalty,
            eos_token_id=sorted(self._ends),
            pad_token_id=self._tokenizer.pad_token_id,
        )
        placed = {
            name: value.to(self._device, self._dtype if value.is_floating_point() else value.dtype)
            for name, value in inputs.items()
        }
        with torch.inference_mode():
            output = self._model.generate(
                **placed,
                generation_config=config,
                logits_processor=LogitsProcessorList(logits_processors(self._sampling, requests)),
            )
        rows: list[list[int]] = output[:, placed["input_ids"].shape[1] :].tolist()
        return rows

    def _response(self, request: Request, tokens: list[int], prompt_tokens: int, sizes: Sizes | None) -> Response:
        end = next((place for place, token in enumerate(tokens) if token in self._ends), None)
        text = self._tokenizer.decode(tokens[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Response(
            item_id=request.item_id,
            sample_index=request.sample_index,
            text=text,
            finish_reason="length" if end is None else "stop",
            completion_tokens=len(tokens) if end is None else end + 1,
            prompt_tokens=prompt_tokens,
            image_sizes=sizes,
        )

    def _load(self) -> None:
        use_free_cores()
        self._model = load_model(
            self._front.checkpoint,
            images=self._front.multimodal,
            dtype=self._dtype,
            device=self._device,
            trust_remote_code=self._trust,
            attn_implementation=self._attention,
        )
        self._ends = end_tokens(self._model.generation_config.eos_token_id, self._tokenizer)

    def _describe(self) -> EngineInfo:
        from transformers import __version__

        return EngineInfo(
            model=self._front.model_record(),
            engine=EngineRecord(
                name="transformers",
                version=__version__,
                device=self._device,
                dtype=str(self._dtype).removeprefix("torch."),
                options={"attn_implementation": self._attention} if self._attention else {},
            ),
            sampling=SamplingRecord(**asdict(self._sampling)),
            pixels=self._front.pixels_record(),
        )

    def _free(self) -> None:
        import torch

        gc.collect()
        if self._device.startswith("cuda"):
            torch.cuda.empty_cache()


def _take_longest(ready: list[_Ready], size: int) -> list[_Ready]:
    """Remove and return up to `size` requests from the end of a list sorted by length, with images or without."""
    pictured = bool(ready[-1].request.images)
    batch: list[_Ready] = []
    while ready and len(batch) < size and bool(ready[-1].request.images) == pictured:
        batch.append(ready.pop())
    return batch


def _area(image: ImageSource) -> int:
    """Return an image's pixels from its header, 0 where that cannot be read: decoding will say why."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(image.read())) as picture:
                return int(picture.width * picture.height)
    except (DatasetError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0
