"""Moments, their classes and offsets, and everything that looks like one and is none."""

import re
import time

import pytest

from ahabench.harness.aha.lexicon import MomentClass, Strength, lexicon
from ahabench.harness.aha.moments import moments, read


def kinds(text: str, question: str = "") -> list[str]:
    return [moment.kind.value for moment in moments(text, question)]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Wait. The chart shows 2019, not 2018.", "interruption"),
        ("So x = 5. But wait: the question asks for 2x.", "interruption"),
        ("Hold on, is this a right triangle?", "interruption"),
        ("Aha! The triangles share a base.", "interruption"),
        ("Let me double-check: 3*4=12, 12+5=17.", "verification"),
        ("Just to be sure, I count them one more time.", "verification"),
        ("Did I count that correctly?", "verification"),
        ("Sanity check: the area is positive.", "verification"),
        ("Looking at the image again, I see that the red ball is behind the cube.", "visual_lookback"),
        ("Upon closer inspection, the line passes through (2,3).", "visual_lookback"),
        ("Let me recheck the graph.", "visual_lookback"),
        ("I misread the y-axis: it is in thousands.", "correction"),
        ("That can't be right, since the angles sum to 180.", "correction"),
        ("My earlier calculation was off by a factor of two.", "correction"),
        ("Scratch that, the value is 12.", "correction"),
        ("Let me reconsider the geometry.", "reconsideration"),
        ("Let's step back and think about what is asked.", "reconsideration"),
        ("Maybe I'm overcomplicating this.", "reconsideration"),
        ("Alternatively, we can use similar triangles.", "alternative"),
        ("Let me think about this differently.", "alternative"),
        ("等一下，题目问的是周长。", "interruption"),
        ("验证一下：3+4=7，正确。", "verification"),
        ("再仔细看看图片，左边有三个球。", "visual_lookback"),
        ("我刚才算错了，应该是减号。", "correction"),
        ("重新考虑这个问题。", "reconsideration"),
        ("我们换一种思路。", "alternative"),
    ],
)
def test_a_moment_has_its_class(text: str, kind: str):
    assert kind in kinds(text)


@pytest.mark.parametrize(
    "text",
    [
        "This goes against the assumption.",
        "The waiter brought the check.",
        "The checkered flag is black and white.",
        "Tap the checkbox to check the item.",
        "Wait for the light to turn green before crossing.",
        "The best action is to wait until the app opens.",
        "People wait in line at the counter.",
        "Action: WAIT",
        "Step 1: Check each option.",
        "Let me check each option one by one.",
        "I need to check the settings menu to find the option.",
        "She made a mistake on the test.",
        "To avoid a mistake, I write the steps down.",
        "The ball bounces again and again.",
        "However, the second graph is decreasing.",
        "Alternatively, you can tap the menu icon.",
        "Which is actually closer to zero.",
        "Alternate interior angles are equal.",
        "B. The sky is green. This is incorrect.",
        "Looking carefully at the chart, the bar for 2019 is 40.",
        "Let me think step by step.",
        "Please double-check your answer before submitting.",
        "Hmm, let me calculate 12*13.",
        "服务员在等待顾客。",
        "苹果、香蕉、橙子等等。",
        "这个三角形是不对称的。",
    ],
)
def test_a_trigger_word_alone_is_none(text: str):
    assert kinds(text) == []


@pytest.mark.parametrize(
    "text", ["I'm not sure, but the answer may be B.", "I don't know.", "It is unclear.", "我不确定。"]
)
def test_uncertainty_is_counted_and_is_no_moment(text: str):
    reading = read(text)
    assert reading.moments == ()
    assert len(reading.uncertainty) == 1


def test_two_different_weak_marks_close_together_are_a_weak_moment():
    assert moments("Hmm, the slope tells.") == ()
    assert moments("Instead, the slope tells.") == ()
    (moment,) = moments("Hmm. Instead, the slope tells.")
    assert moment.strength is Strength.WEAK
    assert moments("Hmm. " + "The line is long and straight. " * 2 + "It ends here. Instead, the slope tells.") == ()


def test_offsets_point_into_the_response():
    text = "The sum is 12.\n\n**Wait**, I forgot the İ factor. Let me recheck the graph."
    first, second = moments(text)
    assert text[first.start : first.end].startswith("Wait")
    assert first.sentence.endswith("I forgot the İ factor.")
    assert text[second.start : second.end].startswith("Let me recheck the graph")


def test_curly_apostrophes_and_capitals_are_read_alike():
    assert kinds("LET’S DOUBLE-CHECK THIS.") == kinds("let's double-check this.") == ["verification"]


def test_marks_of_one_sentence_are_one_moment_named_by_what_is_done():
    (moment,) = moments("Hmm, wait, let me recheck the graph.")
    assert moment.kind is MomentClass.VISUAL_LOOKBACK


def test_what_stands_in_quotes_does_not_count():
    assert kinds('The sign says "Wait, stop here" in red.') == []
    assert kinds("The button is labeled 'Let me double-check this'.") == []
    assert kinds("牌子上写着「等一下，我算错了」。") == []


def test_an_apostrophe_opens_no_quote():
    assert kinds("It's 5, isn't it. Wait, that's the radius. It's 6.") == ["interruption"]


def test_an_inch_mark_opens_no_quote():
    assert kinds('The side is 5". Wait, the side is 6" long.') == ["interruption"]


def test_wording_copied_from_the_question_does_not_count():
    question = "Anna said: Wait, I made a mistake in the second line. What did she mean?"
    assert kinds("Wait, I made a mistake in the second line. So she wants to correct it.", question) == []
    assert kinds("Wait, there is a mistake in my sum.", question) == ["correction"]


def test_only_the_thought_is_searched():
    assert kinds("<think>The sum is 3.</think>Wait, let me double-check this.") == []
    assert kinds("<think>Wait, the sum is 3.</think>The answer is 3.") == ["interruption"]


def test_a_thought_that_is_never_closed_reaches_to_the_end():
    assert kinds("Wait, first. <think>Let me double-check the sum") == ["verification"]


def test_a_thought_whose_beginning_is_in_the_prompt_is_the_text_before_its_end():
    assert kinds("Wait, the sum is 3.</think>Let me double-check this.") == ["interruption"]


def test_an_empty_thought_leaves_the_whole_text():
    assert kinds("<think>\n\n</think>\n\nWait, the sum is 3.") == ["interruption"]


@pytest.mark.parametrize("opened", ["◁think▷", "<|begin_of_thought|>", "[THINK]", "<|channel|>analysis<|message|>"])
def test_other_models_tags_are_known(opened: str):
    assert kinds(f"Let me double-check this. {opened}Wait, the sum is 3.") == ["interruption"]


def test_a_repetition_loop_does_not_count():
    loop = "Wait, let me check this again. The sum is twelve. " * 40
    reading = read(loop)
    assert reading.moments == ()
    assert reading.loop_share > 0.95


def test_a_moment_before_a_loop_counts():
    text = "Wait, the legend says 2019. " + "So the answer is red and the answer is red. " * 30
    assert kinds(text) == ["interruption"]


def test_a_loop_of_words_without_a_full_stop_is_found():
    reading = read("So the sum is wait wait no " + "wait no wait no " * 60)
    assert reading.loop_share > 0.8


def test_a_loop_that_only_counts_up_is_found():
    reading = read("".join(f"Wait, let me check the number {i}. " for i in range(60)))
    assert reading.moments == ()


def test_saying_it_twice_is_no_loop():
    text = "Let me double-check this. Two and two are four, and one is five. Let me double-check this. Five."
    assert len(moments(text)) == 2


def test_hedges_are_counted():
    assert read("Maybe it is 5, perhaps 6, probably 7.").hedges == 3
    assert read("也许是5，可能是6。").hedges == 2


def test_an_empty_response_has_nothing():
    reading = read("")
    assert (reading.moments, reading.words, reading.loop_share) == ((), 0, 0.0)


def test_reading_twice_as_much_takes_no_more_than_about_twice_as_long():
    words = "wait let me check the image again more carefully maybe i made a mistake no that is wrong but hmm".split()
    # A linear congruential walk: no loop, no cache.
    soup = " ".join(words[(i * i * 7 + i // 19) % len(words)] + ("." if i % 37 == 0 else "") for i in range(40_000))

    def seconds(text: str) -> float:
        start = time.process_time()
        read(text)
        return time.process_time() - start

    seconds(soup[:1000])
    half, whole = seconds(soup[: len(soup) // 2]), seconds(soup)
    assert whole < 4 * half + 0.5


@pytest.mark.parametrize("filler", ["a", " ", '"', "'", ".", "\n", "<think>", "等", "let me ", "İ", "\ud800 wait, "])
def test_a_hostile_megabyte_does_not_hang(filler: str):
    text = filler * (1_000_000 // len(filler))
    start = time.process_time()
    read(text, text[:2_000])
    assert time.process_time() - start < 20


def test_every_mark_can_be_reached_by_its_words():
    for language in ("english", "chinese"):
        for mark in lexicon(language).marks:  # type: ignore[arg-type]
            assert mark.words, mark.name
            assert all(re.fullmatch(r"[a-z0-9]+|[一-鿿]", word.decode()) for word in mark.words), mark.name


def test_names_of_marks_are_unique():
    names = [mark.name for language in ("english", "chinese") for mark in lexicon(language).marks]  # type: ignore[arg-type]
    assert len(names) == len(set(names))
