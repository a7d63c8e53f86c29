"""The engine that asks an OpenAI-compatible server: vLLM, SGLang, or a commercial one."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ahabench.harness.endpoint import KEY_VARIABLE, Endpoint
from ahabench.harness.engines import EngineInfo
from ahabench.harness.engines.asking import Asked, Asking, Limits
from ahabench.harness.engines.served import find_served
from ahabench.harness.engines.window import Window
from ahabench.harness.errors import UsageError
from ahabench.harness.manifest import EngineRecord, ModelRecord, PixelsRecord, SamplingRecord
from ahabench.harness.sampling import Sampling
from ahabench.harness.types import Request, Response

MAX_BODY_BYTES = 16 * 1024 * 1024
PROBE_TIMEOUT_S = 15.0


class OpenAIOptions(BaseModel):
    """How a server is dealt with. Nothing here changes what is asked, but for `text_only` and `extended`."""

    # A key given in place of its variable's name must not be shown.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    concurrency: Annotated[
        int, Field(ge=1, le=4096, description="Most requests at once; fewer where the server cannot keep up.")
    ] = 64
    timeout_s: Annotated[
        float, Field(gt=0, le=86_400, description="Longest time for one attempt at a request, in seconds.")
    ] = 600.0
    deadline_s: Annotated[
        float | None,
        Field(gt=0, le=604_800, description="Longest time for all attempts at a request, in seconds; 2 x timeout_s."),
    ] = None
    attempts: Annotated[
        int, Field(ge=1, le=100, description="Failed attempts at a request before it counts as failed.")
    ] = 5
    api_key_env: Annotated[
        str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Environment variable that holds the key.")
    ] = KEY_VARIABLE
    text_only: Annotated[bool, Field(description="Leave the images out.")] = False
    probe: Annotated[
        bool, Field(description="Whether to look first for the model in the server's own list, /models.")
    ] = True
    extended: Annotated[
        bool | None,
        Field(description="Whether the server takes vLLM's sampling fields; by default told from its list of models."),
    ] = None


class OpenAIEngine:
    """Asks a server for one completion per request; `sample_index` n of an item is a request with a seed of its own.

    At most `concurrency` requests are in memory, and fewer are sent at once where the server refuses (429) or is slow.
    An attempt that fails for a reason that may pass is made again after a growing pause: a lost connection, HTTP 408,
    409, 425, 429 or 5xx, no reply in time, a reply that is no completion. A request that still fails, or that the
    server refuses for what it asks, gets an error response. The key comes from the environment alone and stands in no
    record, message or log.

    Images go as data URIs, as `data_uri` says, and are resized here where limits are given. The server may resize them
    again by its own.

    Args:
        url: the server's base URL, usually ending in /v1.
        model: the name that the server knows; "" takes the only one that it serves.
        sampling: how to draw; `samples` is the runner's business.
        min_pixels: the least area, in pixels, of an image as it is sent; `None` sends images as they are.
        max_pixels: the largest area.
        options: how the server is dealt with.

    Raises:
        UsageError: the URL, the key or a limit cannot be used.
        EngineError: the server is down, refuses the key, or does not serve the model.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        sampling: Sampling,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        options: OpenAIOptions | None = None,
    ) -> None:
        """Look for the model on the server."""
        options = options or OpenAIOptions()
        if (min_pixels is not None and min_pixels < 1) or (max_pixels is not None and max_pixels < (min_pixels or 1)):
            raise UsageError(f"images of at least {min_pixels} and at most {max_pixels} pixels cannot be")
        endpoint = self._endpoint(url, options.timeout_s, options)
        served = find_served(
            self._endpoint(url, min(PROBE_TIMEOUT_S, options.timeout_s), options),
            model,
            key_variable=options.api_key_env,
            listed=options.probe,
        )
        extended = served.extended if options.extended is None else options.extended
        self._asked = Asked(
            endpoint=endpoint,
            model=served.model,
            sampling=sampling,
            extended=extended,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            text_only=options.text_only,
            key_variable=options.api_key_env,
        )
        self._limits = Limits(
            concurrency=options.concurrency,
            timeout_s=options.timeout_s,
            deadline_s=options.deadline_s or 2 * options.timeout_s,
            attempts=options.attempts,
        )
        self._window = Window(options.concurrency)
        self.info = EngineInfo(
            model=ModelRecord(name=served.model, text_only=options.text_only),
            engine=EngineRecord(
                name="openai",
                version=served.version,
                url=endpoint.url,
                options={"extended": str(extended).lower()},
            ),
            sampling=SamplingRecord(**asdict(sampling)),
            pixels=PixelsRecord(min=min_pixels, max=max_pixels),
        )

    def generate(self, requests: Sequence[Request]) -> Iterator[Response]:
        """Yield one response per request as they arrive; a request that cannot be answered gets an error response.

        Closing the iterator, or an interrupt, gives up what is under way.

        Raises:
            EngineError: the server refuses the key, the model or whatever it is asked, or `PATIENCE` requests in a row
                failed.
        """
        if not requests:
            return
        asking = Asking(self._asked, self._limits, self._window, requests)
        try:
            yield from asking.responses()
        finally:
            asking.stop()

    @staticmethod
    def _endpoint(url: str, timeout_s: float, options: OpenAIOptions) -> Endpoint:
        return Endpoint(
            url,
            role="engine",
            timeout_s=timeout_s,
            max_body_bytes=MAX_BODY_BYTES,
            key_variable=options.api_key_env,
        )
