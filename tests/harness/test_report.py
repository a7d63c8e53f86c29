"""What tables say: percent with intervals, headline first, nothing cut."""

import json
from typing import Any

import pytest

from ahabench.harness import report


def estimate(value: float | None, n: int = 10, ci95: list[float] | None = None) -> dict[str, Any]:
    return {"value": value, "n": n, "stderr": None, "ci95": ci95}


def row(**fields: Any) -> dict[str, Any]:
    return {
        "task": "dynamath",
        "split": "sample",
        "prompt": "think@1",
        "scorer": "robust@3",
        "n_items": 5010,
        "n_samples": 1,
        "excluded": [],
        "missing": 0,
        "headline": "worst",
        "metrics": {"average": estimate(0.64831, 5010, [0.6, 0.7]), "worst": estimate(0.5, 501, [0.4567, 1.0])},
        "rates": {"no_answer": 0.0123, "truncated": 0.0, "timeout": 0.0, "length_limited": None},
        "breakdown": {"level": {"easy": {"worst": estimate(0.25, 4)}, "hard": {"worst": estimate(None, 0)}}},
        **fields,
    }


def test_fractions_become_percent_with_one_decimal() -> None:
    assert [report.percent(value) for value in (0.0, 1.0, 0.64831, None)] == ["0.0", "100.0", "64.8", "-"]
    assert report.interval([0.4567, 1.0]) == "[45.7, 100.0]"
    assert report.interval(None) == ""


def test_a_score_is_printed_with_its_protocol_interval_and_n(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_metrics([row()])
    printed = capsys.readouterr().out
    assert "dynamath sample · think@1 · robust@3" in printed
    lines = [line.split() for line in printed.splitlines()]
    assert ["worst", "50.0", "[45.7,", "100.0]", "501"] in lines
    assert ["average", "64.8", "[60.0,", "70.0]", "5,010"] in lines


def test_the_headline_stands_first(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_metrics([row()])
    printed = capsys.readouterr().out
    assert printed.index("worst") < printed.index("average")


def test_rates_of_unanswered_and_cut_off_responses_stand_below(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_metrics([row(excluded=["v1_382"], missing=3)])
    printed = capsys.readouterr().out
    assert "no answer 1.2 %" in printed
    assert "truncated 0.0 %" in printed
    assert "length limited - %" in printed
    assert "left out: v1_382" in printed
    assert "missing: 3" in printed


def test_an_unknown_number_is_a_dash_and_not_a_zero(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_metrics([row(metrics={"worst": estimate(None, 0)})])
    assert ["worst", "-", "0"] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_a_breakdown_has_one_line_per_value(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_breakdown(row())
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["easy", "25.0", "4"] in lines
    assert ["hard", "-", "0"] in lines


def test_what_was_left_out_by_the_judges_failure_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_metrics([row(judge={"model": "reader-2026-01-31", "failures": 17})])
    printed = capsys.readouterr().out
    assert "reader-2026-01-31" in printed
    assert "17" in printed


def limited(share: float | None) -> dict[str, Any]:
    """A row of which this share of the responses was cut off."""
    rates = {"no_answer": 0.0, "truncated": 0.1, "timeout": 0.0, "length_limited": share}
    return row(rates=rates, bounds={"score": 0.5, "finished": 0.625, "n_finished": 401})


def test_more_than_two_percent_cut_off_is_a_warning_with_both_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_metrics([limited(0.2004)])
    printed = " ".join(capsys.readouterr().out.split())
    assert "! 20.0 % of the responses were cut off at a length limit (more than 2 %)" in printed
    assert "worst is 50.0 % as it stands and 62.5 % among finished answers (n 401)" in printed


@pytest.mark.parametrize("share", [0.0, 0.02, None])
def test_up_to_two_percent_cut_off_is_no_warning(capsys: pytest.CaptureFixture[str], share: float | None) -> None:
    assert report.truncation_warning(limited(share)) is None
    report.print_metrics([limited(share)])
    assert "!" not in capsys.readouterr().out


def test_a_breakdown_has_the_truncation_rate_too(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_breakdown(limited(0.2004))
    assert "length limited 20.0 %, truncated 10.0 %" in capsys.readouterr().out


def test_tokens_and_the_sizes_of_images_stand_below(capsys: pytest.CaptureFixture[str]) -> None:
    tokens = {"prompt_per_item": 1312.4, "completion_per_item": 99.6, "completion_per_correct": 200.0}
    sizes = {"n": 5, "unknown": 2, "min": [28, 56], "median": [644, 476], "max": [1288, 980]}
    report.print_metrics([row(tokens=tokens, image_sizes=sizes)])
    printed = capsys.readouterr().out
    assert "tokens: prompt per item 1,312, completion per item 100, completion per correct answer 200" in printed
    assert "images as the model saw them, in pixels: min 28x56, median 644x476, max 1288x980" in printed
    assert "unknown for 2 responses" in printed


def test_what_is_not_known_of_tokens_and_images_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    tokens = {"prompt_per_item": None, "completion_per_item": None, "completion_per_correct": None}
    report.print_metrics([row(tokens=tokens, image_sizes=None)])
    printed = capsys.readouterr().out
    assert "tokens" not in printed
    assert "pixels" not in printed


def test_text_of_the_data_is_not_read_as_markup(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_breakdown(row(breakdown={"level": {"f[/x] on [b]": {"worst": estimate(0.25, 4)}}}))
    assert "f[/x] on [b]" in capsys.readouterr().out


def agreed(**fields: Any) -> dict[str, Any]:
    return {
        "file": "x.jsonl",
        "model": "m",
        "task": "toy",
        "scorer": "robust@2",
        "n": 3040,
        "agreement": 0.99967,
        "kappa": 0.9988,
        "false_positive": 1,
        "false_negative": 0,
        "no_answer": 4,
        "accuracy": 0.177,
        "official_accuracy": 0.1767,
        **fields,
    }


def test_a_protocol_stands_on_one_line_above_a_narrow_table(capsys: pytest.CaptureFixture[str]) -> None:
    name = {"task": "mathvision", "split": "testmini", "prompt": "vlmevalkit@1", "scorer": "vlmevalkit@1"}
    report.print_metrics([row(**name, metrics={"worst": estimate(0.5, 1)})])
    assert "mathvision testmini · vlmevalkit@1 · vlmevalkit@1" in capsys.readouterr().out.splitlines()


def test_agreement_is_printed_to_the_item(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_agreement([agreed(), agreed(model="none", n=0, agreement=None, kappa=None, accuracy=None)])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["m", "3040", "99.97", "0.999", "1", "0", "4", "17.7", "17.7"] in lines
    assert ["none", "0", "-", "-", "1", "0", "4", "-", "17.7"] in lines


def test_a_long_model_name_is_folded_and_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    name = "".join(f"part{n:03d}" for n in range(30))
    report.print_agreement([agreed(model=name)])
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert "part029" in printed
    assert "99.97" in printed


def test_json_is_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_json([{"name": "κ ≥ 1", "value": None}])
    assert json.loads(capsys.readouterr().out) == [{"name": "κ ≥ 1", "value": None}]


def test_half_a_character_leaves_json_that_reads_back(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_json([{"model": "half \ud83d, κ"}])
    assert json.loads(capsys.readouterr().out) == [{"model": "half \ud83d, κ"}]


def test_notes_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    report.note("slow down")
    assert tuple(capsys.readouterr()) == ("", "slow down\n")
