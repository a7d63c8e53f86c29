"""What a gate demands."""

from pathlib import Path

import pytest

from ahabench.harness.errors import UsageError
from ahabench.harness.gate.policy import Policy, parse_margin


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return tmp_path / "policy.yaml"


def test_the_most_exact_margin_counts() -> None:
    policy = Policy(margin=parse_margin("mathvista=2, dynamath=4,dynamath:average=1,*=3"))
    names = [("mathvista", "accuracy"), ("dynamath", "worst"), ("dynamath", "average"), ("wemath", "score_strict")]
    assert [policy.margin_of(*name) for name in names] == [0.02, 0.04, 0.01, 0.03]


def test_a_number_alone_is_the_margin_of_all() -> None:
    assert parse_margin("1.5") == {"*": 1.5}


def test_a_benchmark_without_a_margin_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"no margin for wemath; add wemath=POINTS or \*=POINTS"):
        Policy(margin={"mathvista": 2}).margin_of("wemath", "score_strict")


# Each list holds the one before it nine times: written out, nine billion words.
LISTS = [f"x{n}: &x{n} [{', '.join(['word' if n == 0 else f'*x{n - 1}'] * 9)}]" for n in range(10)]
BOMB = f"allow: [{{{', '.join(LISTS)}}}]"


@pytest.mark.parametrize("text", ["", "two", "mathvista=", "mathvista=2,mathvista=3", "2,3"])
def test_a_margin_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--margin"):
        parse_margin(text)


@pytest.mark.parametrize("points", ["-1", "100", "nan", "inf"])
def test_a_margin_out_of_range_is_refused(points: str) -> None:
    with pytest.raises(UsageError, match="wanted points from 0 to 100"):
        Policy().changed({"margin": parse_margin(points)})


def test_a_file_is_read(written: Path) -> None:
    written.write_text("margin: {mathvista: 1}\nalpha: 0.01\ninconclusive: fail\non_significant_drop: fail\n")
    policy = Policy.read(written)
    assert (policy.margin, policy.alpha) == ({"mathvista": 1}, 0.01)
    assert (policy.inconclusive, policy.on_significant_drop) == ("fail", "fail")


def test_a_file_may_give_one_number_as_margin(written: Path) -> None:
    written.write_text("margin: 3\n")
    assert Policy.read(written).margin_of("wemath", "score_strict") == 0.03


def test_an_empty_file_is_the_default(written: Path) -> None:
    written.write_text("")
    assert Policy.read(written) == Policy()


def test_flags_go_before_the_file(written: Path) -> None:
    written.write_text("margin: 3\nalpha: 0.01\n")
    policy = Policy.read(written).changed({"margin": {"*": 1.0}, "alpha": None})
    assert (policy.margin, policy.alpha) == ({"*": 1.0}, 0.01)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("margn: 2", "margn: Extra inputs are not permitted; a policy has margin, alpha"),
        ("alpha: 0.7", "alpha: Input should be less than 0.5"),
        ("inconclusive: warn", "inconclusive: Input should be 'skip' or 'fail'"),
        ("margin: {a: -2}", "the margin of a is -2"),
        ("[1", "is not YAML"),
        ("- 1", "policy.yaml: Input should be a valid dictionary"),
        ("margin: yes", "margin: Input should be a valid dictionary; wanted points, or points by benchmark"),
        ("margin: {mathvista: yes}", "margin.mathvista: Input should be a valid number; wanted points"),
        ("allow_missing: 'no'", "allow_missing: Input should be a valid boolean"),
        ("margin: {mathvista: 2, mathvista: 90}", "'mathvista' stands twice"),
        ("alpha: 0.01\nalpha: 0.4", "'alpha' stands twice"),
        ("? [margin]\n: 2", "is not YAML"),
        ("margin: &all\n  x: *all", "margin.x: Input should be a valid number"),
        ("[" * 20_000, "is not YAML"),
        (BOMB, "allow.0: Input should be a valid string"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_a_file_that_is_no_policy_is_refused(written: Path, text: str, why: str) -> None:
    written.write_text(text)
    with pytest.raises(UsageError) as caught:
        Policy.read(written)
    assert why in str(caught.value)


def test_a_missing_file_is_refused(written: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        Policy.read(written)
