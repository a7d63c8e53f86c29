"""Prompts as a model's chat template writes them."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ahabench.harness.errors import EngineError
from ahabench.harness.types import Prompt

_SYSTEM, _USER = "ahabench-system-probe", "ahabench-user-probe"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Form:
    """How messages must be given to a template so that nothing of them is lost."""

    parts: bool
    """Content as a list of typed parts; plain strings otherwise."""
    system_role: bool
    """A message of its own; otherwise the system prompt opens the user's message."""


class Chat:
    """Writes prompts as the text that a model's tokenizer reads.

    Args:
        front: a processor or a tokenizer of transformers.
        images: whether images are sent.

    Raises:
        EngineError: the template cannot write a plain question, or loses the image.
    """

    def __init__(self, front: Any, *, images: bool) -> None:
        """Find out by trial which form of messages the template takes."""
        self._front = front
        self._multimodal = hasattr(front, "image_processor")
        self._tokenizer = front.tokenizer if self._multimodal else front
        self._template = _template(front, self._tokenizer)
        self._form = self._find_form(images) if self._template is not None else None
        if self._form is None:
            self._plain(Prompt(text=_USER), 1 if images else 0)
            _log.warning("the model has no chat template: prompts are sent as plain text")
        elif not self._form.system_role:
            _log.warning("the chat template takes no system prompt: it is put at the head of the user's message")

    @property
    def template_sha256(self) -> str:
        """SHA-256 of the template's text, hexadecimal; "" where the model has none."""
        return hashlib.sha256(self._template.encode()).hexdigest() if self._template is not None else ""

    def render(self, prompt: Prompt, n_images: int) -> str:
        """Return the text to tokenize, with a placeholder for each image.

        Raises:
            jinja2.TemplateError: the template refuses this prompt.
        """
        if self._form is None:
            return self._plain(prompt, n_images)
        return self._apply(self._form, prompt, n_images)

    def adds_special_tokens(self, text: str) -> bool:
        """Whether the tokenizer must add its own special tokens, because no template has written them.

        As transformers does: never for a tokenizer's template; for a processor's unless it begins with the BOS token.
        """
        if self._form is None:
            return True
        bos = self._tokenizer.bos_token
        return self._multimodal and not (bos and text.startswith(bos))

    def _find_form(self, images: bool) -> _Form:
        from jinja2 import TemplateError

        probe = Prompt(text=_USER, system=_SYSTEM)
        problem = "it drops the question or the image"
        for form in _forms(self._multimodal):
            try:
                text = self._apply(form, probe, 1 if images else 0)
                bare = self._apply(form, probe, 0)
            except (TemplateError, TypeError, EngineError) as error:
                problem = str(error)
                continue
            if _USER in text and _SYSTEM in text and "'type'" not in text and (text != bare or not images):
                return form
        raise EngineError(f"the model's chat template cannot be used: {problem}")

    def _apply(self, form: _Form, prompt: Prompt, n_images: int) -> str:
        head = prompt.system or ""
        text = prompt.text if form.system_role or not head else f"{head}\n\n{prompt.text}"
        messages: list[Mapping[str, Any]] = []
        if form.system_role and head:
            messages.append({"role": "system", "content": [{"type": "text", "text": head}] if form.parts else head})
        content: Any = text
        if form.parts:
            pictures = [{"type": "image"}] * n_images
            words = [{"type": "text", "text": text}]
            content = words + pictures if prompt.image_last else pictures + words
        elif n_images:
            content = self._with_placeholders(text, n_images, image_last=prompt.image_last)
        messages.append({"role": "user", "content": content})
        written = self._front.apply_chat_template(
            messages, chat_template=self._template, tokenize=False, add_generation_prompt=True
        )
        return str(written)

    def _plain(self, prompt: Prompt, n_images: int) -> str:
        text = f"{prompt.system}\n\n{prompt.text}" if prompt.system else prompt.text
        return self._with_placeholders(text, n_images, image_last=prompt.image_last) if n_images else text

    def _with_placeholders(self, text: str, n_images: int, *, image_last: bool) -> str:
        token = getattr(self._front, "image_token", None)
        if not isinstance(token, str):
            raise EngineError("the model has neither a chat template for images nor an image token")
        return f"{text}\n{token * n_images}" if image_last else f"{token * n_images}\n{text}"


def _forms(multimodal: bool) -> list[_Form]:
    kinds = (True, False) if multimodal else (False,)
    return [_Form(parts, system_role) for parts in kinds for system_role in (True, False)]


def _template(front: Any, tokenizer: Any) -> str | None:
    for owner in (front, tokenizer):
        template = getattr(owner, "chat_template", None)
        if isinstance(template, dict):
            template = template.get("default")
        if isinstance(template, str):
            return template
    return None
