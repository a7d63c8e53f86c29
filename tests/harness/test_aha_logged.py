"""The numbers of a training step."""

import pytest

from ahabench.harness.aha.lexicon import published_rules
from ahabench.harness.aha.logged import logged

CHECKS = "The sum is 5. Let me double-check: 2 + 3 is 5."
WAITS = "Wait. The axis starts at 2. I was wrong, and I misread the label."
PLAIN = "People wait at the counter."


def test_counts_are_means_over_the_completions() -> None:
    found = logged([CHECKS, PLAIN, PLAIN, PLAIN], tokens=[10, 20, 30, 40])
    assert found["aha/with_moment"] == 0.25
    assert found["aha/class/verification"] == 0.25
    # One moment in 100 tokens.
    assert found["aha/per_1000_tokens"] == 10.0


def test_all_lexicons_stand_side_by_side() -> None:
    found = logged([PLAIN, CHECKS])
    # "wait" in "People wait" counts for the substring rules, and not for ours.
    assert found["aha/rule/simplerl_zoo"] == 0.5
    assert found["aha/rule/vlaa_data_split"] == 1.0
    assert found["aha/with_moment"] == 0.5
    assert {f"aha/rule/{rule.name}" for rule in published_rules()} <= found.keys()


def test_every_step_has_the_same_names() -> None:
    assert logged([PLAIN], tokens=[5]).keys() == logged([CHECKS, WAITS], tokens=[5, 6]).keys()


def test_wording_copied_from_the_question_does_not_count() -> None:
    asked = "Anna said: I was wrong, and I misread the label. Why?"
    assert logged([WAITS])["aha/class/correction"] > 0
    assert logged(["I was wrong, and I misread the label. So she said."], [asked])["aha/moments"] == 0


def test_an_empty_batch_says_nothing_and_a_lopsided_one_is_refused() -> None:
    assert logged([]) == {}
    with pytest.raises(ValueError, match="1 lengths for 2"):
        logged([PLAIN, PLAIN], tokens=[1])
    with pytest.raises(ValueError, match="zip"):
        logged([PLAIN, PLAIN], ["?"])
