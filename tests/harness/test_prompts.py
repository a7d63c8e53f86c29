import hashlib
import time

import pytest

from ahabench.harness.prompts import PRESETS, VLAA_SYSTEM_PROMPT, digest, lettered, tagged_answer, think
from ahabench.harness.types import AnswerType, Item, Prompt


def test_options_stand_on_a_line_each_behind_their_labels() -> None:
    assert lettered(("A", "B", "C"), ("40°", "", "both\nof them")) == "(A) 40°\n(B) \n(C) both\nof them"


def test_no_options_make_no_text() -> None:
    assert lettered((), ()) == ""


def test_an_option_without_a_label_is_an_error() -> None:
    with pytest.raises(ValueError, match="argument"):
        lettered(("A",), ("yes", "no"))


def test_the_system_prompt_has_no_space_before_its_two_answer_tags() -> None:
    assert VLAA_SYSTEM_PROMPT.count("<answer>") == 2
    assert " <answer>" not in VLAA_SYSTEM_PROMPT
    assert "</think> and<answer> </answer> tags" in VLAA_SYSTEM_PROMPT
    assert VLAA_SYSTEM_PROMPT.endswith("<think> reasoning process here </think><answer> answer here </answer>")


def test_the_system_prompt_is_one_line_with_its_emoji_and_its_grammar() -> None:
    assert VLAA_SYSTEM_PROMPT.startswith("You are VL-Thinking🤔, a helpful assistant with excellent reasoning ability.")
    assert "\n" not in VLAA_SYSTEM_PROMPT
    assert "  " not in VLAA_SYSTEM_PROMPT
    assert "provides the user with the answer. The reasoning process" in VLAA_SYSTEM_PROMPT


def test_think_asks_the_question_under_the_system_prompt_with_images_first() -> None:
    item = Item(id="1", question="How many?", gold="3", answer_type=AnswerType.INTEGER)
    style = think(lambda it: f"{it.question}!")
    assert style.version == 1
    assert style.render(item) == Prompt(text="How many?!", system=VLAA_SYSTEM_PROMPT, image_last=False)


def test_the_vlaa_preset_is_the_leaderboards_entry() -> None:
    preset = PRESETS["vlaa"]
    assert (preset.prompt, preset.system, preset.max_new_tokens) == ("vlmevalkit", VLAA_SYSTEM_PROMPT, 2048)
    assert (preset.temperature, preset.top_p, preset.top_k, preset.repetition_penalty) == (0.01, 0.001, 1, 1.0)
    # 28 x 28 pixels make one token of Qwen2.5-VL: 1,280 * 784 = 1,003,520 and 16,384 * 784 = 12,845,056.
    assert (preset.min_pixels, preset.max_pixels) == (1_003_520, 12_845_056)


def test_the_digest_is_the_hash_of_canonical_json() -> None:
    # Written out by hand: sorted keys, no spaces, UTF-8.
    canonical = '{"image_last":false,"n_images":2,"system":null,"text":"20√2 \\"cm\\"\\n"}'
    expected = hashlib.sha256(canonical.encode()).hexdigest()
    assert digest(Prompt(text='20√2 "cm"\n'), 2) == expected


@pytest.mark.parametrize(
    ("prompt", "n_images"),
    [
        (Prompt(text="b"), 1),
        (Prompt(text="a", system=""), 1),
        (Prompt(text="a", system="s"), 1),
        (Prompt(text="a", image_last=True), 1),
        (Prompt(text="a"), 0),
        (Prompt(text="a "), 1),
    ],
)
def test_the_digest_moves_with_everything_that_is_asked(prompt: Prompt, n_images: int) -> None:
    assert digest(prompt, n_images) != digest(Prompt(text="a"), 1)


def test_a_lone_surrogate_has_a_digest() -> None:
    assert digest(Prompt(text="\ud800"), 1) != digest(Prompt(text="\ud801"), 1)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>so</think><answer> B\n</answer>", "B"),
        ("<answer></answer>", ""),
        ("<answer>two\nlines</answer> and more", "two\nlines"),
        ("no tag at all ", "no tag at all "),
        ("<answer>A</answer> or <answer>B</answer>", "<answer>A</answer> or <answer>B</answer>"),
        ("<think>cut off</think><answer>12", "<think>cut off</think><answer>12"),
        ("</answer><answer>7", "</answer><answer>7"),
        # The first opening tag and the next closing one: what a non-greedy pattern takes.
        ("<answer>x <answer>y</answer>", "x <answer>y"),
        ("<ANSWER>A</ANSWER>", "<ANSWER>A</ANSWER>"),
    ],
)
def test_only_a_single_answer_tag_is_cut_out(text: str, answer: str) -> None:
    assert tagged_answer(text) == answer


@pytest.mark.parametrize("hostile", ["<answer>" * 200_000, "<answer></answer>" * 100_000, "</answer>" * 200_000])
def test_a_flood_of_tags_takes_linear_time(hostile: str) -> None:
    started = time.process_time()
    assert tagged_answer(hostile) == hostile
    # Quadratic time would take minutes.
    assert time.process_time() - started < 2
