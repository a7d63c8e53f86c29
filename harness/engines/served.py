"""What an OpenAI-compatible server says about itself before it is asked anything."""

import json
import logging
import re
import urllib.request
from dataclasses import dataclass
from difflib import get_close_matches
from http.client import HTTPException
from importlib.metadata import version

from pydantic import BaseModel, ConfigDict, ValidationError

from ahabench.harness.endpoint import Endpoint, UnreachableError, UnreadableError, one_line
from ahabench.harness.errors import EngineError

SHOWN = 10
"""Models that an error names."""

_NOT_LISTED = frozenset({404, 405, 501})
_EXTENDED = frozenset({"vllm", "sglang"})  # owners whose servers take vLLM's fields
_VERSION = re.compile(r"[\w.+!-]{1,60}", re.ASCII)
_VERSION_TIMEOUT_S = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A model that a server offers."""

    model: str
    version: str
    """Of the server, such as "vllm 0.32.0", or else of the client, such as "openai-python 3.54.0"."""
    extended: bool
    """Whether the server takes the sampling fields of vLLM."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)  # not extra="forbid": servers add fields of their own
    id: str
    owned_by: str | None = None


class _Models(BaseModel):
    model_config = ConfigDict(frozen=True)
    data: list[_Model]


def find_served(endpoint: Endpoint, model: str, *, key_variable: str, listed: bool = True) -> Served:
    """Return the model as the server lists it at /models.

    A server without such a list is taken at its word, with a warning.

    Args:
        endpoint: the server; its time limit is that of each step.
        model: the name to look for; "" takes the only one that there is.
        key_variable: where the key comes from, for the error.
        listed: whether to ask; otherwise the server is taken at its word.

    Raises:
        EngineError: the server is down, refuses the key, is no such server, or does not serve the model.
    """
    if not listed:
        return _unseen(endpoint.url, model)
    try:
        offers = _list(endpoint)
    except UnreachableError as error:
        if error.status not in _NOT_LISTED:
            raise EngineError(
                f"the server at {endpoint.url} cannot be used: {error.cause}. {_next_step(error.status, key_variable)}"
            ) from None
        _log.warning("%s does not list its models (HTTP %d): the model is asked for unseen", endpoint.url, error.status)
        return _unseen(endpoint.url, model)
    except UnreadableError as error:
        raise EngineError(
            f"{endpoint.url} is not the base of an OpenAI-compatible server: {error}. It usually ends in /v1."
        ) from None
    name = _choose(endpoint.url, model, [one.id for one in offers])
    owner = next((one.owned_by or "" for one in offers if one.id in {name, f"models/{name}"}), "").lower()
    server = _server_version(endpoint.url)
    return Served(
        model=name,
        version=one_line(f"{owner} {server}").strip() if server else _client_version(),
        extended=owner in _EXTENDED,
    )


def _unseen(url: str, model: str) -> Served:
    if not model:
        raise EngineError(f"the server at {url} wants the name of a model, and has not been asked for its list")
    return Served(model=model, version=_client_version(), extended=False)


def _list(endpoint: Endpoint) -> list[_Model]:
    import openai

    with endpoint.client() as client:
        try:
            with client.models.with_streaming_response.list() as reply:
                body = endpoint.body(reply)
        except openai.APIError as error:
            raise endpoint.failure(error) from None
    try:
        return _Models.model_validate_json(body).data
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise UnreadableError(f"its /models is no list of models ({one_line(first['msg'])})") from None


def _choose(url: str, model: str, names: list[str]) -> str:
    if not model and len(names) == 1:
        return names[0]
    # Google lists "models/NAME" and is asked for NAME.
    if model and (model in names or f"models/{model}" in names):
        return model
    near = get_close_matches(model, names, n=SHOWN, cutoff=0.5)
    shown = list(dict.fromkeys([*near, *names]))[:SHOWN]
    rest = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    asked = f"does not serve {model!r}" if model else "wants the name of a model"
    raise EngineError(f"the server at {url} {asked}; it serves {one_line(', '.join(shown)) or 'nothing'}{rest}")


def _next_step(status: int, key_variable: str) -> str:
    if status in {401, 403}:
        return f"Put the key into {key_variable}."
    return "Check that it is up and that the URL is its base, usually ending in /v1."


def _server_version(url: str) -> str | None:
    """Return what stands at /version, beside /v1, as vLLM has it; the key is not sent there."""
    try:
        with urllib.request.urlopen(f"{url.removesuffix('/v1')}/version", timeout=_VERSION_TIMEOUT_S) as reply:
            told = json.loads(reply.read1(4096))
    except (OSError, HTTPException, ValueError, RecursionError):
        return None
    number = told.get("version") if isinstance(told, dict) else None
    return number if isinstance(number, str) and _VERSION.fullmatch(number) else None


def _client_version() -> str:
    return f"openai-python {version('openai')}"
