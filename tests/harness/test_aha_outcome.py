"""What became of the answer at a moment, on texts whose outcome is plain to a reader."""

import time

import pytest

from ahabench.harness.aha.moments import moments
from ahabench.harness.aha.outcome import Change, Turn, candidates, same_form, turns


def led_to(text: str, right: str | None) -> tuple[Turn, ...]:
    return turns(text, moments(text), lambda value: None if right is None else value == right)


@pytest.mark.parametrize(
    ("before", "after", "right", "change"),
    [
        ("12", "14", "14", Change.WRONG_TO_RIGHT),
        ("14", "12", "14", Change.RIGHT_TO_WRONG),
        ("12", "13", "14", Change.WRONG_TO_WRONG),
        ("12", "12", "14", Change.UNCHANGED),
        ("12", "12.0", "14", Change.UNCHANGED),
        ("12", "13", None, Change.CHANGED),
    ],
)
def test_the_candidates_around_a_moment_tell_what_changed(before: str, after: str, right: str | None, change: Change):
    (turn,) = led_to(f"So the answer is {before}. Wait, I forgot the base. So the answer is {after}.", right)
    assert turn.change is change
    assert turn.explicit


def test_without_a_candidate_before_it_nothing_is_known():
    (turn,) = led_to("Wait, I misread the axis. So the answer is 12.", "12")
    assert turn.change is Change.UNKNOWN


def test_each_moment_has_its_own_pair():
    first, second = led_to(
        "The answer is 3. Wait, I forgot one of the red cubes. The answer is 4. "
        "Hold on, that cube was counted before already. The answer is 3.",
        "4",
    )
    assert (first.change, second.change) == (Change.WRONG_TO_RIGHT, Change.RIGHT_TO_WRONG)


def test_the_last_value_of_a_step_is_a_less_sure_candidate():
    (turn,) = led_to("3 + 4 = 8. Wait, that's wrong. 3 + 4 = 7.", "7")
    assert turn.change is Change.WRONG_TO_RIGHT
    assert not turn.explicit


def test_reflection_that_repeats_what_stood_before_is_pseudo():
    step = "The base is three and the height is four so the area of this triangle equals 6."
    (turn,) = led_to(f"{step} Let me double-check. {step}", "6")
    assert turn.change is Change.UNCHANGED
    assert turn.pseudo


def test_reflection_that_says_something_new_is_not_pseudo():
    (turn,) = led_to(
        "The area is 6. Let me double-check. Counting unit squares inside, four whole ones and four halves make 6.", "6"
    )
    assert turn.change is Change.UNCHANGED
    assert not turn.pseudo


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (r"Thus \boxed{\frac{1}{2}}.", [r"\frac{1}{2"]),
        ("<answer> (B) </answer>", ["b"]),
        ("The answer should be 1,200.", ["1200"]),
        ("Option C seems to be the correct one.", ["c"]),
        ("所以答案是7。", ["7"]),
        ("We get 3 + 4 = 7.\n", ["7"]),
        ("In 2019 there were many.", []),
    ],
)
def test_candidates_are_read(text: str, values: list[str]):
    assert [candidate.value for candidate in candidates(text)] == values


@pytest.mark.parametrize(("one", "other"), [("(B)", "b"), ("1,200.0", "1200"), ("$45^\\circ$", "45"), ("5%", "5")])
def test_the_same_answer_has_the_same_form(one: str, other: str):
    assert same_form(one) == same_form(other)


@pytest.mark.parametrize(
    "filler", ["<answer> ", "<answer>", "answer   ", "=  ", "\\boxed{", "x = 5. ", "the answer is 5. ", "1,", "= 1,"]
)
def test_a_hostile_text_does_not_hang(filler: str):
    text = filler * (300_000 // len(filler)) + " " * 100_000
    start = time.process_time()
    candidates(text)
    assert time.process_time() - start < 10


def test_many_moments_and_candidates_take_linear_time():
    def name(i: int) -> str:
        return "".join(chr(97 + i // 26**power % 26) for power in range(4))

    text = " ".join(f"So {name(i)} = {i}. Wait, I misread the line {name(i)} of it." for i in range(20_000))
    found = moments(text)
    assert len(found) == 20_000
    start = time.process_time()
    made = turns(text, found, lambda value: None)
    assert time.process_time() - start < 20
    assert all(turn.change is Change.CHANGED for turn in made[:-1])


def test_a_response_without_moments_has_no_turns():
    assert turns("The answer is 5.", (), lambda value: None) == ()
