"""The words of prompts that several benchmarks share, and presets that bundle a prompt with its generation settings."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ahabench.harness.types import Item, Prompt, PromptStyle

VLAA_SYSTEM_PROMPT = (
    "You are VL-Thinking🤔, a helpful assistant with excellent reasoning ability. "
    "A user asks you a question, and you should try to solve it. "
    "You should first think about the reasoning process in the mind and then provides the user with the answer. "
    "The reasoning process and answer are enclosed within <think> </think> and<answer> </answer> tags, respectively, "
    "i.e., <think> reasoning process here </think><answer> answer here </answer>"
)
"""The system prompt of VLAA-Thinking (arXiv:2504.11468) as VLMEvalKit sends it (vlm/vlaa_thinker.py@e8e78f0).

There is no space before either `<answer>`: the leaderboard's numbers were made so. The authors' own inference.py
(UCSC-VLAA/VLAA-Thinking@a2c9678) has a space in both places and is not what this constant holds.
"""

_OPEN, _CLOSE = "<answer>", "</answer>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A published protocol: how to ask and how to generate, in one name."""

    prompt: str
    """A prompt style that every benchmark has."""
    system: str | None
    """Takes the place of the style's own system prompt; `None` leaves that alone."""
    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    min_pixels: int
    """Smallest image, in pixels, after the model's own resizing."""
    max_pixels: int
    """Largest image, in pixels, after the model's own resizing."""


PRESETS: Mapping[str, Preset] = {
    "vlaa": Preset(
        prompt="vlmevalkit",
        system=VLAA_SYSTEM_PROMPT,
        max_new_tokens=2048,
        temperature=0.01,
        top_p=0.001,
        top_k=1,
        repetition_penalty=1.0,
        min_pixels=1280 * 28 * 28,
        max_pixels=16384 * 28 * 28,
    ),
}
"""By name. "vlaa": VLMEvalKit's entries VLAA-Thinker-Qwen2.5VL-3B/7B (config.py@e8e78f0), sampled near-greedily."""


def lettered(labels: Sequence[str], choices: Sequence[str]) -> str:
    r"""Return one option per line, each behind its label in parentheses.

    Raises:
        ValueError: there are not as many labels as choices.

    >>> lettered(("A", "B"), ("yes", "no"))
    '(A) yes\n(B) no'
    """
    return "\n".join(f"({label}) {choice}" for label, choice in zip(labels, choices, strict=True))


def think(render_text: Callable[[Item], str]) -> PromptStyle:
    """Return the style that asks `render_text`'s question, images first, under `VLAA_SYSTEM_PROMPT`.

    Args:
        render_text: the question with its options, without any hint on how to answer: the system prompt says that.
    """

    def render(item: Item) -> Prompt:
        return Prompt(text=render_text(item), system=VLAA_SYSTEM_PROMPT)

    return PromptStyle(version=1, render=render)


def tagged_answer(text: str) -> str:
    """Return what stands in the only `<answer>` tag, stripped, or the whole text where there is none or several.

    So VLMEvalKit cuts a VLAA-Thinker response before it scores it (vlm/vlaa_thinker.py@e8e78f0). A generation that was
    cut off inside its tag stays whole. Time is linear in the text.
    """
    contents: list[str] = []
    start = text.find(_OPEN)
    while start >= 0:
        end = text.find(_CLOSE, start + len(_OPEN))
        if end < 0:
            break
        contents.append(text[start + len(_OPEN) : end])
        start = text.find(_OPEN, end + len(_CLOSE))
    return contents[0].strip() if len(contents) == 1 else text


def digest(prompt: Prompt, n_images: int) -> str:
    """Return the SHA-256, hexadecimal, of everything that is asked but the images themselves.

    The bytes are UTF-8 JSON with sorted keys and no spaces: {"image_last", "n_images", "system", "text"}.
    """
    asked = {
        "image_last": prompt.image_last,
        "n_images": n_images,
        "system": prompt.system,
        "text": prompt.text,
    }
    canonical = json.dumps(asked, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    # A lone surrogate in a data set's text must not stop a run.
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
