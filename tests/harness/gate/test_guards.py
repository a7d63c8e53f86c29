"""What must be the same on both sides, and how a difference is accepted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness.errors import UsageError
from ahabench.harness.gate.comparison import Comparison, Outcome
from ahabench.harness.runlog import RESPONSES

Make = Callable[..., Path]
Compared = Callable[..., Comparison]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"sampling": {"temperature": 0.7}}, "sampling.temperature"),
        ({"sampling": {"max_new_tokens": 128}}, "sampling.max_new_tokens"),
        ({"pixels": {"max": 100_352}}, "pixels.max"),
        ({"engine": {"name": "transformers"}}, "engine.name"),
        ({"engine": {"version": "0.33.0"}}, "engine.version"),
        ({"engine": {"dtype": "float16"}}, "engine.dtype"),
        ({"engine": {"options": {"quantization": "fp8"}}}, "engine.option.quantization"),
        ({"mixed_engines": [{"name": "vllm", "version": "0.31.0"}]}, "engine.mixed"),
        ({"system_prompt": "Do not think."}, "system_prompt"),
        ({"model": {"text_only": True}}, "text_only"),
        ({"judge": {"model": "j", "url": "http://j/v1", "prompt_version": 1}}, "judge.model"),
        ({"records": {"mathvista": {"prompt": {"style": "think", "version": 2}}}}, "prompt"),
        ({"records": {"mathvista": {"data_digest": "0" * 64}}}, "data_digest"),
        ({"records": {"mathvista": {"limit": 50}}}, "limit"),
        ({"sampling": {"temperature": None}}, "sampling.temperature"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_runs_that_differ_in_what_changes_scores_are_not_compared(
    compared: Compared, mini_run: Make, fields: dict[str, Any], field: str
) -> None:
    found = compared(mini_run("a"), mini_run("b", **fields, score=False))
    assert (found.outcome, found.exit_code, found.rows) == (Outcome.NOT_COMPARABLE, 4, ())
    assert field in [guard.field for guard in found.mismatches]


@pytest.mark.parametrize(
    "fields",
    [
        {"engine": {"options": {"batch_size": "8"}}},
        {"engine": {"device": "NVIDIA H100"}},
        {"sampling": {"seed": 7}},
        {"packages": {"torch": "2.14.1"}},
        {"model": {"name": "elsewhere/b"}},
    ],
    ids=str,
)
def test_what_changes_no_scores_may_differ(compared: Compared, mini_run: Make, fields: dict[str, Any]) -> None:
    assert compared(mini_run("a"), mini_run("b", **fields)).outcome is Outcome.PASS


@pytest.mark.parametrize("name", ["engine.version", "engine"])
def test_a_difference_is_accepted_by_name(compared: Compared, mini_run: Make, name: str) -> None:
    found = compared(mini_run("a"), mini_run("b", engine={"version": "0.33.0"}), allow=[name])
    assert found.outcome is Outcome.PASS
    assert "accepted: engine.version: '0.32.0' in A, '0.33.0' in B" in found.notes


def test_accepting_one_difference_accepts_no_other(compared: Compared, mini_run: Make) -> None:
    b = mini_run("b", engine={"version": "0.33.0"}, system_prompt="")
    found = compared(mini_run("a"), b, allow=["engine.version"])
    assert [guard.field for guard in found.mismatches] == ["system_prompt"]


def test_a_name_that_is_no_field_is_refused(compared: Compared, mini_run: Make) -> None:
    with pytest.raises(UsageError, match=r"unknown field to allow 'engine.versoin'. Did you mean 'engine.version'"):
        compared(mini_run("a"), mini_run("b"), allow=["engine.versoin"])


def test_what_neither_side_knows_is_equal_with_a_note(compared: Compared, mini_run: Make) -> None:
    unknown = {"engine": {"name": None, "version": None, "dtype": None}, "pixels": {"min": None, "max": None}}
    found = compared(mini_run("a", **unknown), mini_run("b", **unknown))
    assert found.outcome is Outcome.PASS
    (note,) = [text for text in found.notes if text.startswith("taken as equal")]
    assert "engine" in note
    assert "pixels" in note
    assert "tokens" not in note


def test_a_benchmark_that_the_candidate_lacks_is_not_passed_over(compared: Compared, mini_run: Make) -> None:
    a = mini_run("a", tasks={"mathvista": [], "logicvista": []})
    b = mini_run("b")
    found = compared(a, b)
    assert (found.outcome, [guard.field for guard in found.mismatches]) == (Outcome.NOT_COMPARABLE, ["tasks"])
    assert compared(a, b, allow=["tasks"]).outcome is Outcome.PASS
    assert compared(a, b, tasks=["mathvista"]).outcome is Outcome.PASS


def test_a_benchmark_that_is_named_is_not_passed_over_either(compared: Compared, mini_run: Make) -> None:
    a, b = mini_run("a", tasks={"mathvista": [], "logicvista": []}), mini_run("b")
    for sides in ((a, b), (b, a)):
        found = compared(*sides, tasks=["logicvista", "mathvista"])
        assert (found.exit_code, [guard.field for guard in found.mismatches]) == (4, ["tasks"])
        assert compared(*sides, tasks=["logicvista", "mathvista"], allow=["tasks"]).outcome is Outcome.PASS


def test_a_benchmark_that_only_the_candidate_has_does_no_harm(compared: Compared, mini_run: Make) -> None:
    found = compared(mini_run("a"), mini_run("b", tasks={"mathvista": [], "logicvista": range(120)}))
    assert [row.task for row in found.rows] == ["mathvista"]
    assert found.outcome is Outcome.PASS


def test_runs_without_a_common_benchmark_are_not_compared(compared: Compared, mini_run: Make) -> None:
    assert compared(mini_run("a"), mini_run("b", task="logicvista")).outcome is Outcome.NOT_COMPARABLE


def test_a_task_that_no_run_has_is_refused(compared: Compared, mini_run: Make) -> None:
    with pytest.raises(UsageError, match=r"unknown task of these runs 'mathvsta'. Did you mean 'mathvista'"):
        compared(mini_run("a"), mini_run("b"), tasks=["mathvsta"])


@pytest.mark.parametrize("field", ["prompt_sha256", "images_sha256"])
def test_responses_to_other_prompts_or_images_are_not_compared(compared: Compared, mini_run: Make, field: str) -> None:
    a, b = mini_run("a"), mini_run("b")
    for run, digest in ((a, "aa"), (b, "bb")):
        path = run / "mathvista" / RESPONSES
        first, *rest = path.read_text().splitlines()
        path.write_text("\n".join([json.dumps({**json.loads(first), field: digest}), *rest]) + "\n")
    found = compared(a, b)
    assert [guard.field for guard in found.mismatches] == [field]
    assert found.exit_code == 4
    assert compared(a, b, allow=[field]).outcome is Outcome.PASS


def test_the_same_weights_are_an_a_a_comparison(compared: Compared, mini_run: Make) -> None:
    same = {"model": {"weights_digest": "sha256:same"}}
    found = compared(mini_run("a", **same), mini_run("b", **same))
    assert any("same weights (A/A)" in text for text in found.notes)


def test_what_is_refused_is_not_explained_as_noise(compared: Compared, mini_run: Make) -> None:
    same = {"model": {"weights_digest": "sha256:same"}}
    a, b = mini_run("a", **same), mini_run("b", **same, system_prompt="Other.")
    assert compared(a, b).notes == ()
    notes = compared(a, b, allow=["system_prompt"]).notes
    assert any("what moved is what was accepted, or noise" in text for text in notes)
