"""The engine that runs any model adapter of lmms-eval under our tasks."""

import logging
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ahabench.harness.checkpoint import find_checkpoint, weights_digest
from ahabench.harness.engines import EngineInfo
from ahabench.harness.engines.devices import find_device
from ahabench.harness.engines.lmms_adapter import (
    Adapter,
    SystemPlace,
    find_adapter,
    one_line,
    open_adapter,
    parse_model_args,
    stdout_kept_free,
)
from ahabench.harness.engines.sampler import row_seed
from ahabench.harness.errors import DatasetError, EngineError, UsageError
from ahabench.harness.images import decode
from ahabench.harness.manifest import EngineRecord, ModelRecord, PixelsRecord, SamplingRecord
from ahabench.harness.sampling import Sampling
from ahabench.harness.types import Request, Response

PATIENCE = 8
"""Requests that may fail in a row, for another reason than a bad image, before the engine gives up."""
CHUNK_BATCHES = 8
"""Batches that an adapter is handed at once, unless an option says otherwise."""

_TASK, _SPLIT = "ahabench", "items"
# What adapters of servers answer in place of an error.
_FAILURES = ("[LMMS_EVAL_REQUEST_FAILED", "[LMMS_EVAL_BUDGET_EXCEEDED")
_SECRET = re.compile(r"(?:api_?key|token|secret|password)$", re.IGNORECASE)

_log = logging.getLogger(__name__)


class LmmsEvalOptions(BaseModel):
    """What `--engine-arg` may say to the engine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_args: str = Field(
        default="", description="name=value,name=value for the adapter, as lmms-eval's --model_args"
    )
    batch_size: int = Field(default=1, ge=1, description="requests that the adapter puts into one batch")
    chunk_size: int | None = Field(
        default=None, ge=1, description="requests handed to the adapter at once; 8 batches, or 1 batch when drawing"
    )
    device: str = Field(default="auto", description="auto, cpu, or a name of torch's such as cuda:1")
    text_only: bool = Field(default=False, description="leave the images out")


class LmmsEvalEngine:
    """Any model adapter of lmms-eval (https://github.com/EvolvingLMMs-Lab/lmms-eval, 0.7.3).

    An adapter gets the prompt's text and the pictures, decoded when it asks for them, and applies its own chat
    template. A system prompt goes where the adapter takes one: as a message, as its own setting, or else at the head
    of the user's message; `info.engine.options` says which. Where a prompt has none, the adapter's default stays. A
    "simple" adapter, which takes no messages, decides itself where the pictures stand.

    Requests are handed over in chunks, so that rows are written and pictures forgotten as a chunk finishes. A chunk
    that fails is halved until its culprit stands alone, which becomes an error response. `finish_reason` is unknown:
    adapters do not say it. `completion_tokens` is what the adapter counted, with a batch size of 1 alone: in a larger
    batch most count the padding.

    At temperature 0 nothing is drawn. Otherwise a request has its own seed where the adapter takes one ("seed" among
    the generation settings); elsewhere the adapter has one stream for everything: it is seeded by each chunk's first
    request, so that with the default chunk and batch size a response depends on its request alone.

    Args:
        adapter: the name that lmms-eval's `--model` takes.
        model: the checkpoint or served model, under whatever name the adapter's constructor has for it.
        sampling: how to draw; `samples` is the runner's business.
        min_pixels: the least area, in pixels, to which an image is resized; `None` leaves the adapter's own.
        max_pixels: the largest area.
        options: see there.

    Raises:
        EngineError: lmms-eval is not installed, or the adapter cannot be imported.
        UsageError: there is no such adapter, or it ignores something that was asked for.
    """

    def __init__(
        self,
        adapter: str,
        model: str,
        *,
        sampling: Sampling,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        options: LmmsEvalOptions | None = None,
    ) -> None:
        """Import the adapter and check that it takes what it is to be told; the model stays unloaded."""
        self._options = options or LmmsEvalOptions()
        self._adapter = find_adapter(adapter)
        self._name, self._sampling = model, sampling
        _check_sampling(self._adapter, sampling)
        limits = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        given = {name: value for name, value in limits.items() if value is not None}
        if given and not self._adapter.takes_pixels:
            raise UsageError(
                f"the adapter {adapter!r} of lmms-eval has no pixel limits; take {' and '.join(given)} away, or say "
                "what it has in model_args"
            )
        self._arguments = self._constructor_arguments(given)
        self._pixels = PixelsRecord(min=self._pixel_limit("min_pixels"), max=self._pixel_limit("max_pixels"))
        drawn = sampling.temperature > 0 and not self._adapter.reads("seed")
        self._chunk = self._options.chunk_size or self._options.batch_size * (1 if drawn else CHUNK_BATCHES)
        self._model: Any = None
        self._own_system: object = None
        self._lost: list[Response] = []
        self.info = self._describe()

    def generate(self, requests: Sequence[Request]) -> Iterator[Response]:
        """Yield one response per request, chunk by chunk.

        Raises:
            EngineError: the adapter cannot load its model, `PATIENCE` requests in a row failed, or all did.
        """
        if requests and self._model is None:
            self._load()
        self._lost = []
        answered = False
        for start in range(0, len(requests), self._chunk):
            chunk = requests[start : start + self._chunk]
            for _, same in groupby(chunk, key=lambda request: request.prompt.system):
                for response in self._answer(list(same)):
                    answered = True
                    yield response
        if self._lost and not answered:
            raise EngineError(f"all {len(self._lost)} requests failed, the last one with {self._lost[-1].error}")
        yield from self._lost

    def _answer(self, batch: list[Request]) -> Iterator[Response]:
        """Yield responses to requests with one system prompt, and the errors that they prove to be a request's own."""
        damaged: dict[int, str] = {}
        answers = self._attempt(batch, damaged)
        if isinstance(answers, str):
            if damaged:
                yield from (_error(batch[place], why) for place, why in damaged.items())
                whole = [request for place, request in enumerate(batch) if place not in damaged]
                yield from self._answer(whole) if whole else ()
            elif len(batch) > 1:
                half = len(batch) // 2
                yield from self._answer(batch[:half])
                yield from self._answer(batch[half:])
            else:
                self._lose(_error(batch[0], answers))
            return
        for response in answers:
            if response.text is None:
                self._lose(response)
                continue
            # Others can be answered, so what failed before is the fault of those requests.
            yield from self._lost
            self._lost = []
            yield response

    def _lose(self, response: Response) -> None:
        self._lost.append(response)
        if len(self._lost) >= PATIENCE:
            raise EngineError(f"{PATIENCE} requests in a row failed, the last one with {response.error}")

    def _attempt(self, batch: list[Request], damaged: dict[int, str]) -> list[Response] | str:
        """Return the responses, or why there are none: the boundary for whatever adapters raise."""
        try:
            return self._ask(batch, damaged)
        except (Exception, SystemExit) as error:
            _log.debug("a chunk of %d failed", len(batch), exc_info=True)
            return one_line(error)

    def _ask(self, batch: list[Request], damaged: dict[int, str]) -> list[Response]:
        """Return a response per request; `damaged` gets the requests whose pictures cannot be read."""
        from lmms_eval.api.instance import unwrap_generation_output

        self._model.task_dict = {_TASK: {_SPLIT: [{"place": place} for place in range(len(batch))]}}
        if self._adapter.system is SystemPlace.SETTING:
            head = batch[0].prompt.system
            self._model.system_prompt = self._own_system if head is None else head
        instances = self._instances(batch, damaged)
        with stdout_kept_free(), _errors_logged() as logged:
            self._seed(batch[0])
            outputs = self._model.generate_until(instances)
        if damaged:
            # Some adapters swallow an exception of ours and answer something in its place.
            raise DatasetError("an image cannot be read")
        if len(outputs) != len(batch):
            raise EngineError(f"{len(outputs)} answers to {len(batch)} requests")
        responses = []
        for request, output in zip(batch, outputs, strict=True):
            text, counts = unwrap_generation_output(output)
            responses.append(self._response(request, text, counts, logged))
        return responses

    def _instances(self, batch: list[Request], damaged: dict[int, str]) -> list[Any]:
        from lmms_eval.api.instance import Instance

        def pictures(doc: Mapping[str, int]) -> list[Any]:
            request = batch[doc["place"]]
            try:
                return [decode(image.read(), name=request.item_id) for image in request.images]
            except DatasetError as error:
                damaged[doc["place"]] = str(error)
                raise

        def messages(doc: Mapping[str, int]) -> list[dict[str, Any]]:
            return self._messages(batch[doc["place"]], pictures(doc))

        instances = []
        for place, request in enumerate(batch):
            settings = self._settings(request)
            first = (self._text(request), messages, settings) if self._adapter.chat else None
            arguments = (first or (self._text(request), settings, pictures)) + (place, _TASK, _SPLIT)
            metadata = {"task": _TASK, "doc_id": place, "repeats": 1, "split": _SPLIT}
            instances.append(Instance("generate_until", arguments, place, metadata))
        return instances

    def _text(self, request: Request) -> str:
        prompt = request.prompt
        if prompt.system and self._adapter.system is SystemPlace.HEAD:
            return f"{prompt.system}\n\n{prompt.text}"
        return prompt.text

    def _messages(self, request: Request, pictures: list[Any]) -> list[dict[str, Any]]:
        words = [{"type": "text", "text": request.prompt.text}]
        shown = [{"type": "image", "url": picture} for picture in pictures]
        content = words + shown if request.prompt.image_last else shown + words
        user = {"role": "user", "content": content}
        if not request.prompt.system or self._adapter.system is not SystemPlace.MESSAGE:
            return [user]
        return [{"role": "system", "content": [{"type": "text", "text": request.prompt.system}]}, user]

    def _settings(self, request: Request) -> dict[str, Any]:
        """Return the generation settings. Without "until", lmms-eval's own default would stop at an empty line."""
        sampling = self._sampling
        settings: dict[str, Any] = {
            "until": [],
            "max_new_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "do_sample": sampling.temperature > 0,
            "num_beams": 1,
        }
        if sampling.temperature > 0:
            settings |= {"top_p": sampling.top_p, "top_k": sampling.top_k}
            if self._adapter.reads("seed"):
                settings["seed"] = row_seed(sampling.seed, request) % 2**31
        if sampling.repetition_penalty != 1:
            settings["repetition_penalty"] = sampling.repetition_penalty
        return settings

    def _seed(self, request: Request) -> None:
        if self._sampling.temperature > 0:
            import torch

            torch.manual_seed(row_seed(self._sampling.seed, request))

    def _response(self, request: Request, text: Any, counts: Any, logged: list[str]) -> Response:
        if not isinstance(text, str):
            return _error(request, f"the adapter answered with {type(text).__name__}, wanted a string")
        if text.startswith(_FAILURES):
            return _error(request, text)
        if not text and logged:
            # Many adapters catch whatever a model raises, log it, and answer "".
            return _error(request, f"nothing was generated, and the adapter logged: {logged[-1]}")
        counted = counts if self._options.batch_size == 1 else None
        return Response(
            item_id=request.item_id,
            sample_index=request.sample_index,
            text=text,
            completion_tokens=(getattr(counted, "output_tokens", None) or None) if text else None,
            prompt_tokens=getattr(counted, "input_tokens", None) or None,
            image_sizes=None if request.images else (),
        )

    def _load(self) -> None:
        self._model = open_adapter(self._adapter, self._arguments, model=self._name)
        self._own_system = getattr(self._model, "system_prompt", None)

    def _constructor_arguments(self, limits: Mapping[str, int]) -> dict[str, Any]:
        parameters = self._adapter.parameters
        given = parse_model_args(self._options.model_args)
        ours: dict[str, Any] = dict(limits)
        if self._adapter.model_parameter is not None:
            ours[self._adapter.model_parameter] = self._name
        if "batch_size" in parameters:
            ours["batch_size"] = self._options.batch_size
        if twice := sorted(given.keys() & ours.keys()):
            raise UsageError(f"model_args has {', '.join(twice)}, which the command says already; take it out there")
        device = find_device(self._options.device)
        if self._options.device != "auto" or device == "cpu":
            # Adapters mean a GPU unless told; those that place a model by "device_map" need that told too.
            ours |= {name: device for name in ("device", "device_map") if name in parameters and name not in given}
        if "max_new_tokens" in parameters and "max_new_tokens" not in given:
            # Some cut a request's own limit down to this.
            ours["max_new_tokens"] = self._sampling.max_new_tokens
        return given | ours

    def _pixel_limit(self, name: str) -> int | None:
        if not self._adapter.takes_pixels:
            return None
        value = self._arguments.get(name, self._adapter.default_of(name))
        return value if isinstance(value, int) else None

    def _describe(self) -> EngineInfo:
        shown = {name: value for name, value in self._arguments.items() if name != self._adapter.model_parameter}
        device = shown.pop("device", None)
        words = {name: "[redacted]" if _SECRET.search(name) else str(value) for name, value in sorted(shown.items())}
        owner = self._adapter.kind
        options = words | {
            "adapter_class": f"{owner.__module__}.{owner.__qualname__}",
            "batch_size": str(self._options.batch_size),
            "system_prompt_goes_to": self._adapter.system.value,
        }
        return EngineInfo(
            model=ModelRecord(name=self._name, weights_digest=_digest(self._name), text_only=self._options.text_only),
            engine=EngineRecord(
                name=f"lmms-eval:{self._adapter.name}",
                version=version("lmms_eval"),
                device=str(device) if device is not None else None,
                options=options,
            ),
            sampling=SamplingRecord(**asdict(self._sampling)),
            pixels=self._pixels,
        )


def _check_sampling(adapter: Adapter, sampling: Sampling) -> None:
    """Refuse settings that would be recorded and not applied.

    Raises:
        UsageError: the adapter's code never reads one.
    """
    wanted = {
        "temperature": sampling.temperature > 0,
        "top_p": sampling.temperature > 0 and sampling.top_p < 1,
        "top_k": sampling.temperature > 0 and sampling.top_k > 0,
        "repetition_penalty": sampling.repetition_penalty != 1,
    }
    for name, asked in wanted.items():
        if asked and not adapter.reads(name):
            raise UsageError(
                f"the adapter {adapter.name!r} of lmms-eval ignores {name} ({getattr(sampling, name)} was asked for); "
                "leave it out"
            )


@contextmanager
def _errors_logged() -> Iterator[list[str]]:
    """Collect the first line of what lmms-eval logs as an error within the block."""
    from loguru import logger

    lines: list[str] = []
    lock = threading.Lock()

    def keep(message: Any) -> None:
        with lock:
            lines.append(str(message).strip().split("\n", 1)[0][:300])

    handler = logger.add(keep, level="ERROR", format="{message}", backtrace=False, diagnose=False)
    try:
        yield lines
    finally:
        logger.remove(handler)


def _digest(model: str) -> str | None:
    """Return the digest of a checkpoint on this machine; `None` for a name that the adapter resolves itself."""
    if not Path(model).exists():
        return None
    try:
        return weights_digest(find_checkpoint(model))
    except EngineError:
        return None


def _error(request: Request, error: str) -> Response:
    return Response(
        item_id=request.item_id, sample_index=request.sample_index, text=None, finish_reason="error", error=error
    )
