"""What must hold before a model is loaded whose rollouts vLLM makes: one line says what does not, and what to do.

TRL (1.16) asks the server only whether it is up, without a time limit, and takes the rest as given: that it serves this
model, in the version of vLLM that is installed here, and gives an image as many tokens as the trainer does. Features of
another size are sent and accepted.
"""

import json
import math
import shlex
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from importlib import metadata
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ahabench.harness.engines.loading import limit_pixels, load_front
from ahabench.harness.errors import EngineError, UsageError
from ahabench.trainer.base_model import REFERENCE, Front
from ahabench.trainer.processes import is_main, join, note_once
from ahabench.trainer.recipe import Recipe
from ahabench.trainer.vllm_rollouts import fitting, image_tokens
from ahabench.trainer.vllm_settings import VllmSettings

if TYPE_CHECKING:
    from PIL.Image import Image

REQUEST_S = 60.0
"""Seconds that one answer of the server may take."""
RETRY_S = 2.0
MAX_REPLY_BYTES = 64 * 1024 * 1024
"""Of the server's configuration, or of one image's features."""
MAX_PROBE_PX = 1_500_000
"""Area of the larger test image: 1,900 tokens of Qwen2.5-VL, which a short context still has room for."""


def check_machine(mode: str) -> None:
    """Look whether rollouts by vLLM are possible here at all; nothing is loaded or asked.

    Args:
        mode: `vllm` of a recipe, but not "off".

    Raises:
        UsageError: there is no GPU; or as `check_installed`.
    """
    device = join().device.type
    if device == "cpu" or (mode == "server" and device != "cuda"):
        wanted = "a CUDA device, for TRL sends the weights by NCCL" if mode == "server" else "a GPU"
        raise UsageError(f"vllm={mode} wants {wanted}, and this process computes on {device}; give vllm=off")
    check_installed()


def check_installed() -> None:
    """Look whether vLLM is there, in a version that this TRL knows.

    Raises:
        UsageError: it is not, and the message says what to install.
    """
    from packaging.version import InvalidVersion, Version

    wanted = _supported()
    trl = f"TRL {metadata.version('trl')}"
    install = f'pip install "vllm{wanted}"'
    try:
        found = metadata.version("vllm")
    except metadata.PackageNotFoundError as error:
        raise UsageError(
            f"vLLM is not installed here, and {trl} wants it in the training's environment, for server mode too; "
            f"{install}, or give vllm=off"
        ) from error
    try:
        # Without a build's mark, such as +cu129, which counts as newer than the plain release.
        known = Version(Version(found).base_version) in wanted
    except InvalidVersion:
        known = False
    if not known:
        raise UsageError(f"vLLM {found} is installed, and {trl} works with {wanted}; {install}, or give vllm=off")


def _supported() -> Any:
    """Return the versions of vLLM that the installed TRL declares, as a specifier set of packaging's."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    declared = (Requirement(line) for line in metadata.requires("trl") or ())
    return next((asked.specifier for asked in declared if asked.name == "vllm"), SpecifierSet())


def check_rollouts(recipe: Recipe, front: Front) -> None:
    """Look whether vLLM can make a recipe's rollouts, before the model is loaded.

    Raises:
        UsageError: it cannot, as it is asked.
        EngineError: the server is not up, or is not one that can.
    """
    if recipe.vllm == "colocate":
        check_colocated(recipe, front, join().num_processes)
    elif recipe.vllm == "server" and is_main():
        check_server(recipe, front, metadata.version("vllm"))


def check_colocated(recipe: Recipe, front: Front, processes: int) -> None:
    """Look at what vLLM in the training processes would be told.

    Raises:
        UsageError: the copies do not divide among the processes, no room is left for a prompt, or a pixel limit reaches
            beyond the checkpoint's own, which is vLLM's.
    """
    copies = recipe.vllm_tensor_parallel_size
    if processes % copies:
        raise UsageError(f"vllm_tensor_parallel_size is {copies}, wanted a divisor of the {processes} processes")
    if recipe.vllm_max_model_length is not None:
        _check_length("vllm_max_model_length", recipe.vllm_max_model_length, recipe)
    if front.pixels is None or (recipe.min_pixels, recipe.max_pixels) == (None, None):
        return
    untouched = load_front(front.checkpoint, images=True, trust_remote_code=recipe.trust_remote_code)
    own = limit_pixels(untouched, recipe.model, min_pixels=None, max_pixels=None)
    if own is not None and not (own[0] <= front.pixels[0] and front.pixels[1] <= own[1]):
        raise UsageError(
            f"images are to have {front.pixels[0]:,} to {front.pixels[1]:,} pixels, and {recipe.model} by itself, "
            f"which is what vLLM goes by, {own[0]:,} to {own[1]:,}; change the checkpoint's processor_config.json, or "
            "give narrower limits"
        )


def check_server(recipe: Recipe, front: Front, version: str) -> None:
    """Look whether the server is up, the right one, and reads images as the trainer does.

    Args:
        recipe: the settings.
        front: the model.
        version: of the vLLM that is installed here.

    Raises:
        EngineError: one line with what is wrong with it, and the command that starts the right one.
    """
    server = _Server(recipe, front, version)
    server.wait()
    server.check_version()
    server.check_model()
    server.check_configuration()
    if hasattr(front.processor, "image_processor"):
        server.check_images()


def serve_command(recipe: VllmSettings, model: str, *, scale_out: bool = True) -> str:
    """Return the command line that starts the server of a recipe.

    Args:
        recipe: for the port.
        model: a folder or a hub name.
        scale_out: whether it is vLLM 0.30 or newer, which wants to be asked for the images' endpoints.
    """
    port = urlsplit(recipe.server_url).port or recipe.vllm_server_port
    words = ["vllm", "serve", model, "--port", str(port)]
    words += ["--weight-transfer-config", json.dumps({"backend": "nccl"})]
    words += ["--logprobs-mode", "processed_logprobs", "--max-logprobs", "-1"]
    return f"VLLM_SERVER_DEV_MODE=1 {shlex.join(words)}{' --enable-scale-out' if scale_out else ''}"


class _Server:
    """A running `vllm serve`, asked what TRL's client does not ask."""

    def __init__(self, recipe: Recipe, front: Front, version: str) -> None:
        self._version = version
        self._recipe = recipe
        self._front = front
        self._url = recipe.server_url
        self._name = ""

    def wait(self) -> None:
        """Return when the server is up."""
        patience = self._recipe.vllm_server_timeout
        deadline = time.monotonic() + patience
        waiting = False
        while self._ask("/health")[0] != 200:
            if time.monotonic() >= deadline:
                raise self._error(f"there is no vLLM server at {self._url}, {patience:g} seconds after the first try")
            if not waiting:
                note_once(f"wait up to {patience:g} s for the vLLM server at {self._url}")
                waiting = True
            time.sleep(min(RETRY_S, max(0.0, deadline - time.monotonic())))

    def check_version(self) -> None:
        """Compare the server's version with the one here: TRL speaks to it as to its own."""
        from packaging.version import InvalidVersion, Version

        reply = self._ask("/version")[1]
        found = reply.get("version") if isinstance(reply, dict) else None
        if not isinstance(found, str):
            raise self._error(f"what answers at {self._url} is no vLLM server: it does not say its version")
        here = self._version
        try:
            same = Version(found).release[:2] == Version(here).release[:2]
        except InvalidVersion:
            same = found == here
        if not same:
            raise EngineError(
                f"the server at {self._url} runs vLLM {found}, this environment has {here}, and TRL takes them for the "
                f'same; pip install "vllm=={_base(here)}" on the server, or "vllm=={_base(found)}" here'
            )

    def check_model(self) -> None:
        """Compare what the server serves with the recipe's model."""
        reply = self._ask("/v1/models")[1]
        served = reply.get("data") if isinstance(reply, dict) else None
        first = served[0] if isinstance(served, list) and served and isinstance(served[0], dict) else {}
        names = [str(first[key]) for key in ("id", "root") if first.get(key)]
        path = self._front.checkpoint.path
        wanted = {self._recipe.model, str(path), str(path.resolve())}
        if self._recipe.vllm_server_model is not None:
            wanted = {self._recipe.vllm_server_model}
        if not wanted & set(names):
            raise self._error(
                f"the server at {self._url} serves {names[0] if names else 'nothing'}, wanted "
                f"{self._recipe.vllm_server_model or self._recipe.model}; if it is the same model under another name, "
                "give that as vllm_server_model"
            )
        self._name = names[0]

    def check_configuration(self) -> None:
        """Look whether weights can be sent to the server, and what it says of probabilities and lengths."""
        status, reply = self._ask("/server_info?config_format=json")
        if status == 404:
            raise self._error(f"the server at {self._url} was started without VLLM_SERVER_DEV_MODE=1")
        config = reply.get("vllm_config") if isinstance(reply, dict) else None
        if status != 200 or not isinstance(config, dict) or not isinstance(config.get("model_config"), dict):
            raise self._error(f"the server at {self._url} does not say how it is configured (HTTP {status})")
        transfer = config.get("weight_transfer_config")
        if not isinstance(transfer, dict) or transfer.get("backend") != "nccl":
            raise self._error(f"the server at {self._url} cannot take weights by NCCL")
        model = config["model_config"]
        mode = model.get("logprobs_mode")
        if self._recipe.vllm_importance_sampling_correction and mode != "processed_logprobs":
            raise self._error(
                f"the server at {self._url} has the logprobs mode {mode}, which would bias the correction; give "
                "vllm_importance_sampling_correction=false, or restart it"
            )
        if isinstance(model.get("max_model_len"), int):
            _check_length(f"the --max-model-len of the server at {self._url}", model["max_model_len"], self._recipe)

    def check_images(self) -> None:
        """Compare the tokens of a small and a large image, here and there."""
        for picture in self._probes():
            here = image_tokens(self._front.processor, picture)
            status, reply = self._ask("/v1/chat/completions/render", _request(self._name, picture))
            if status == 404:
                raise self._error(f"the server at {self._url} was started without --enable-scale-out, as images want")
            there = _placeholder(reply)
            if status != 200 or there is None:
                cause = json.dumps(reply)[:300] if reply is not None else ""
                raise self._error(f"the server at {self._url} does not take images (HTTP {status}) {cause}".rstrip())
            if here != there:
                raise EngineError(
                    f"an image of {picture.width} x {picture.height} has {here} tokens here and {there} on the server "
                    f"at {self._url}: its processor has other pixel limits; start it without --mm-processor-kwargs, "
                    "from the same checkpoint"
                )

    def _probes(self) -> Iterator["Image"]:
        from PIL import Image

        high = self._front.pixels[1] if self._front.pixels else MAX_PROBE_PX
        edge = math.isqrt(min(MAX_PROBE_PX, high * 5 // 4))
        fit = fitting(self._recipe, self._front)
        for size in ((28, 28), (edge, edge)):
            picture = Image.new("RGB", size, "white")
            yield fit(picture) if fit else picture

    def _ask(self, path: str, body: Any = None) -> tuple[int, Any]:
        """Return HTTP's status and the JSON of a reply: 0 where no reply came, `None` where there is none to read."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"})
        try:
            # The scheme was checked with the recipe.
            with urllib.request.urlopen(request, timeout=REQUEST_S) as reply:
                return reply.status, _json(reply.read(MAX_REPLY_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _json(error.read(MAX_REPLY_BYTES))
        except (OSError, ValueError):
            return 0, None

    def _error(self, what: str) -> EngineError:
        from packaging.version import Version

        scale_out = Version(self._version).release >= (0, 30)
        built_in = self._recipe.model == REFERENCE
        model = str(self._front.checkpoint.path.resolve()) if built_in else self._recipe.model
        return EngineError(f"{what}. Start it with: {serve_command(self._recipe, model, scale_out=scale_out)}")


def _check_length(what: str, tokens: int, recipe: Recipe) -> None:
    if tokens <= recipe.max_new_tokens:
        raise UsageError(
            f"{what} is {tokens:,} tokens, which leaves a prompt no room beside max_new_tokens = "
            f"{recipe.max_new_tokens:,}"
        )


def _request(model: str, image: "Image") -> dict[str, Any]:
    """Return what TRL's client sends of an image."""
    file = BytesIO()
    image.save(file, format="PNG")
    url = f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}]
    return {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 1}


def _placeholder(reply: Any) -> int | None:
    """Return how many tokens the server gives the one image of a request."""
    try:
        return int(reply["features"]["mm_placeholders"]["image"][0]["length"])
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _base(version: str) -> str:
    return version.partition("+")[0]
