"""Prompts through chat templates as they are found: complete, without a system role, with a BOS, and none at all."""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness.engines.chat import Chat
from ahabench.harness.errors import EngineError
from ahabench.harness.types import Prompt

Make = Callable[[str], Path]
Tokenizer = Callable[..., Any]
ASKED = Prompt(text="What is 2 + 2?", system="Be brief.")

USER_ONLY = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}[{{ m['content'] }}]{% endfor %}{% if add_generation_prompt %}>{% endif %}"
)
DROPS_SYSTEM = "{% for m in messages %}{% if m['role'] == 'user' %}[{{ m['content'] }}]{% endif %}{% endfor %}>"
DROPS_USER = "{% for m in messages %}{% if m['role'] == 'system' %}[{{ m['content'] }}]{% endif %}{% endfor %}>"
WITH_BOS = "{{ bos_token }}{% for m in messages %}[{{ m['content'] }}]{% endfor %}>"


def processor(path: Path, template: str | None = None) -> Any:
    from transformers import AutoProcessor

    front = AutoProcessor.from_pretrained(path)
    if template is not None:
        front.chat_template = front.tokenizer.chat_template = template
    return front


def test_a_system_prompt_gets_a_message_of_its_own(tokenizer: Tokenizer) -> None:
    written = Chat(tokenizer(), images=False).render(ASKED, 0)
    assert written == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is 2 + 2?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_without_a_system_prompt_there_is_no_system_message(tokenizer: Tokenizer) -> None:
    written = Chat(tokenizer(), images=False).render(Prompt(text="Hm?"), 0)
    assert written == "<|im_start|>user\nHm?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("template", [USER_ONLY, DROPS_SYSTEM], ids=["refuses", "drops"])
def test_a_template_without_a_system_role_gets_it_in_the_users_message(
    tokenizer: Tokenizer, template: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "ahabench"):
        chat = Chat(tokenizer(template), images=False)
    assert chat.render(ASKED, 0) == "[Be brief.\n\nWhat is 2 + 2?]>"
    assert chat.render(Prompt(text="Hm?"), 0) == "[Hm?]>"
    assert "takes no system prompt" in caplog.text


def test_a_template_that_loses_the_question_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(EngineError, match="chat template cannot be used: it drops the question"):
        Chat(tokenizer(DROPS_USER), images=False)


@pytest.mark.parametrize("template", ["{{ nowhere.to.be.found }}", "{% for %}", "{{ ''.__class__.__mro__ }}"])
def test_a_template_that_fails_is_refused(tokenizer: Tokenizer, template: str) -> None:
    with pytest.raises(EngineError, match="chat template cannot be used"):
        Chat(tokenizer(template), images=False)


def test_a_model_without_a_template_gets_plain_text(tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "ahabench"):
        chat = Chat(tokenizer(None), images=False)
    assert chat.render(ASKED, 0) == "Be brief.\n\nWhat is 2 + 2?"
    assert chat.template_sha256 == ""
    assert chat.adds_special_tokens("Be brief.")
    assert "no chat template" in caplog.text


def test_the_digest_is_of_the_templates_text(tokenizer: Tokenizer) -> None:
    assert Chat(tokenizer(WITH_BOS), images=False).template_sha256 == hashlib.sha256(WITH_BOS.encode()).hexdigest()


def test_a_template_that_writes_the_bos_token_gets_no_second_one(tokenizer: Tokenizer) -> None:
    front = tokenizer(WITH_BOS, bos=True)
    chat = Chat(front, images=False)
    written = chat.render(ASKED, 0)
    tokens = front(written, add_special_tokens=chat.adds_special_tokens(written))["input_ids"]
    assert tokens.count(front.bos_token_id) == 1


def test_a_model_without_a_template_keeps_its_tokenizers_bos_token(tokenizer: Tokenizer) -> None:
    front = tokenizer(None, bos=True)
    chat = Chat(front, images=False)
    written = chat.render(ASKED, 0)
    assert front(written, add_special_tokens=chat.adds_special_tokens(written))["input_ids"][0] == front.bos_token_id


IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


@pytest.mark.parametrize("image_last", [False, True])
def test_images_stand_before_the_text_or_after_it(made: Make, image_last: bool) -> None:
    chat = Chat(processor(made("qwen")), images=True)
    content = "Hm?" + 2 * IMAGE if image_last else 2 * IMAGE + "Hm?"
    assert chat.render(Prompt(text="Hm?", image_last=image_last), 2) == (
        f"<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_template_that_knows_only_strings_gets_the_placeholder_in_the_text(made: Make) -> None:
    chat = Chat(processor(made("llava"), DROPS_SYSTEM), images=True)
    assert chat.render(ASKED, 1) == "[<image>\nBe brief.\n\nWhat is 2 + 2?]>"


def test_a_processor_without_a_template_gets_the_placeholder_in_plain_text(made: Make) -> None:
    front = processor(made("llava"))
    front.chat_template = front.tokenizer.chat_template = None
    chat = Chat(front, images=True)
    assert chat.render(Prompt(text="Hm?", image_last=True), 1) == "Hm?\n<image>"


def test_a_template_that_loses_the_image_is_refused(made: Make) -> None:
    front = processor(made("llava"), "{% for m in messages %}[{{ m['content'][-1]['text'] }}]{% endfor %}>")
    front.image_token = None
    with pytest.raises(EngineError, match="chat template cannot be used"):
        Chat(front, images=True)
