"""Chat completions as OpenAI-compatible servers understand and write them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ahabench.harness.endpoint import UnreadableError, one_line
from ahabench.harness.engines.sampler import row_seed
from ahabench.harness.sampling import Sampling
from ahabench.harness.types import Prompt, Request

_STOP = frozenset({"stop", "eos", "eos_token", "end_turn", "stop_sequence"})
_LENGTH = frozenset({"length", "max_tokens", "model_length"})
_BROKEN_OFF = frozenset({"abort", "error"})
_SEED_BITS = 31  # what every server takes, and no JSON parser rounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What a server generated."""

    text: str
    finish_reason: str | None
    """"stop", "length", or the server's own word, such as "content_filter"."""
    completion_tokens: int | None
    prompt_tokens: int | None


class _Lenient(BaseModel):
    model_config = ConfigDict(frozen=True)  # not extra="forbid": servers add fields of their own


class _Message(_Lenient):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None


class _Choice(_Lenient):
    message: _Message
    finish_reason: str | None = None


class _Usage(_Lenient):
    completion_tokens: Annotated[int, Field(ge=0)] | None = None
    prompt_tokens: Annotated[int, Field(ge=0)] | None = None


class _Body(_Lenient):
    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: _Usage | None = None


def read_completion(body: bytes) -> Completion:
    """Return the completion that a body holds.

    Where the server keeps a model's reasoning apart (`reasoning_content`, or `reasoning`), it is put before the content
    in <think> and </think>, as the model wrote it; the closing tag is left out where the reasoning was cut off.

    Raises:
        UnreadableError: it is no completion, has no choice or no content, or the server broke it off.
    """
    try:
        parsed = _Body.model_validate_json(body, strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise UnreadableError(f"the reply is no chat completion: {where}: {one_line(first['msg'])}") from None
    choice, usage = parsed.choices[0], parsed.usage or _Usage()
    reason = _finish_reason(choice.finish_reason)
    return Completion(
        text=_text(choice.message, reason),
        finish_reason=reason,
        completion_tokens=usage.completion_tokens,
        prompt_tokens=usage.prompt_tokens,
    )


def messages(prompt: Prompt, uris: Sequence[str]) -> list[dict[str, Any]]:
    """Return the chat that asks a prompt.

    Args:
        prompt: lone surrogates in its texts, which no request can hold, become "?".
        uris: the images as data URIs; without any, the content is a plain string, which every server takes.
    """
    text: dict[str, Any] = {"type": "text", "text": _sendable(prompt.text)}
    pictures = [{"type": "image_url", "image_url": {"url": uri}} for uri in uris]
    parts = [text, *pictures] if prompt.image_last else [*pictures, text]
    system = [{"role": "system", "content": _sendable(prompt.system)}] if prompt.system else []
    return [*system, {"role": "user", "content": parts if uris else text["text"]}]


def sampling_fields(sampling: Sampling, request: Request, *, extended: bool) -> Mapping[str, Any]:
    """Return how a request is drawn, as keyword arguments for the library; its longest answer is left out.

    The seed is `row_seed`'s upper 31 bits, so that an item's sample is drawn alike whatever stands beside it.

    Args:
        sampling: what is wanted.
        request: whose seed it is.
        extended: whether the server takes the fields of vLLM. Then all are sent, also those that change nothing: such a
            server fills in what is missing from the model's generation_config.json. Commercial servers refuse fields
            that they do not know, so otherwise only those are sent that were asked for.
    """
    drawn = sampling.temperature > 0
    fields: dict[str, Any] = {"temperature": sampling.temperature}
    extra: dict[str, Any] = {}
    if drawn:
        fields["seed"] = row_seed(sampling.seed, request) >> (64 - _SEED_BITS)
    if extended or (drawn and sampling.top_p < 1):
        fields["top_p"] = sampling.top_p if drawn else 1.0
    if extended or (drawn and sampling.top_k > 0):
        extra["top_k"] = sampling.top_k if drawn and sampling.top_k > 0 else -1
    if extended or sampling.repetition_penalty != 1:
        extra["repetition_penalty"] = sampling.repetition_penalty
    if extended:
        extra["min_p"] = 0.0
    return fields | ({"extra_body": extra} if extra else {})


def _text(message: _Message, finish_reason: str | None) -> str:
    content = message.content if message.content is not None else message.refusal
    reasoning = message.reasoning_content or message.reasoning
    if reasoning:
        cut_off = finish_reason == "length" and not content
        return f"<think>{reasoning}" if cut_off else f"<think>{reasoning}</think>{content or ''}"
    if content is None and finish_reason not in {"length", "content_filter"}:
        raise UnreadableError("the reply has no content")
    return content or ""


def _finish_reason(said: str | None) -> str | None:
    if said is None:
        return None
    word = said.lower()
    if word in _BROKEN_OFF:
        raise UnreadableError(f"the server broke the reply off: {word}")
    return "stop" if word in _STOP else "length" if word in _LENGTH else one_line(word)[:40]


def _sendable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
