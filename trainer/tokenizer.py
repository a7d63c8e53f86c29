"""The reference model's tokenizer: whole words where they are known, single digits, bytes for everything else."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from ahabench.harness.prompts import VLAA_SYSTEM_PROMPT

END_OF_TEXT = "<|endoftext|>"
"""Padding."""
START, END = "<|im_start|>", "<|im_end|>"
"""What opens and closes a message; the latter also ends generation."""
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
IMAGE, VIDEO = "<|image_pad|>", "<|video_pad|>"
SPECIAL = (END_OF_TEXT, START, END, VISION_START, VISION_END, IMAGE, VIDEO)
"""Qwen2.5-VL's own names, in the order of their ids."""

THINK, THINK_END, ANSWER, ANSWER_END = "<think>", "</think>", "<answer>", "</answer>"
TAGS = (THINK, THINK_END, ANSWER, ANSWER_END)
"""One token each, and not special: `skip_special_tokens` must leave them in a response."""

_ALWAYS = ("system", "user", "assistant", *(f" {digit}" for digit in range(10)))
"""Pieces that are in every vocabulary: the template's words and the digits of a spaced text."""

GENERATION_START = "{% if add_generation_prompt %}<|im_start|>assistant\n"
"""The end of the chat template, behind which an answer begins."""

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>{% endfor %}"
    f"{GENERATION_START}{{% endif %}}"
)
"""Qwen's message format with two changes: no default system prompt, and a message's pictures follow its text.

Pictures last, wherever the message has them, because rotary positions are relative: then the cells of a picture stand
at the same distance from the answer under every question, and the model learns to read them in half the steps.
"""

_PIECES = r" ?\([A-Z]\)| ?[A-Za-z]+| ?[0-9]| ?[^A-Za-z0-9\s]|\s"
"""A word, a digit or another character, each with the space before it; or a blank."""


def make_tokenizer(texts: Iterable[str], *, max_words: int = 512) -> Any:
    """Return a fast tokenizer that writes the pieces of `texts` as one token each and any other text as its bytes.

    A piece is a word with the space before it, a digit, or a sign. There are no merges: a piece is either in the
    vocabulary as a whole or spelled in bytes, so every text survives a round trip. The system prompt of the prompt
    style `think` is one token: a model of this size cannot afford to read its hundred words before every question.

    Args:
        texts: what the model will read and write. The vocabulary depends on which pieces they have, not on their order.
        max_words: the most frequent pieces are kept, beside the template's words and the spaced digits.

    Returns:
        A `PreTrainedTokenizerFast` without a chat template.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    new_tokenizer: Any = PreTrainedTokenizerFast
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    cut = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(piece for piece, _ in cut.pre_tokenize_str(text) if len(piece) > 1)
    fixed = {piece for text in _ALWAYS for piece, _ in cut.pre_tokenize_str(text)}
    # Ties by the piece itself, so that the ids do not hang on the order of the texts.
    frequent = sorted(counts, key=lambda piece: (-counts[piece], piece))[:max_words]
    words = sorted(fixed.union(frequent))
    vocabulary = {piece: number for number, piece in enumerate([*alphabet, *words])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = cut
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in (*TAGS, VLAA_SYSTEM_PROMPT)])
    return new_tokenizer(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[token for token in SPECIAL if token not in (END, END_OF_TEXT)],
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )
