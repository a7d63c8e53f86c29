"""Two engines on one checkpoint: what is identical, where texts part, whose verdicts differ, what cannot be told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness.errors import IncomparableRunsError, UsageError
from ahabench.harness.manifest import Manifest, read_manifest, write_manifest
from ahabench.harness.parity import parity

Run = Callable[..., Any]
FIRST = {"a1": "so 2", "a2": "so 4", "b1": "so 6", "b2": "so 8", "c1": "so 100", "c2": "nothing"}
# a2 parts after 3 characters and turns wrong, c1 after 6 (it goes on) and stays right, c2 after 0 and turns right.
SECOND = FIRST | {"a2": "so 5", "c1": "so 100 or 100", "c2": "121"}


@pytest.fixture
def run(ahabench: Run, toy: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a scored run of one engine: (name, answers, **fields of the manifest) -> its folder."""

    def make(name: str, answers: dict[str, str], **fields: Any) -> Path:
        said, out = tmp_path / f"{name}.jsonl", tmp_path / name
        said.write_text("".join(json.dumps({"item_id": key, "response": text}) + "\n" for key, text in answers.items()))
        command = ("eval", "m", "--tasks", "toy", "--engine", f"replay:{said}", "--data", toy, "--out", out)
        assert ahabench(*command, "--allow-missing").code == 0
        known = {
            "model": {"name": "m", "weights_digest": "sha256:aa", "adapter": ""},
            "engine": {"name": name, "version": "1.0", "dtype": "float32"},
            "sampling": {"temperature": 0.0, "max_new_tokens": 16, "samples": 1, "seed": 0},
            "pixels": {"min": 784, "max": 50176},
        }
        changed = {part: values | fields.pop(part, {}) for part, values in known.items()}
        manifest = read_manifest(out).model_dump() | changed | fields
        write_manifest(out, Manifest.model_validate(manifest))
        return out

    return make


def test_texts_and_verdicts_that_differ_are_counted(run: Callable[..., Path]) -> None:
    (found,) = parity(run("transformers", FIRST), run("vllm", SECOND))
    assert (found.n, found.identical) == (6, 3)
    assert (found.prefix_min, found.prefix_median, found.prefix_max) == (0, 3, 6)
    # a2 correct to wrong, c2 no_answer to correct.
    assert (found.verdicts_differ, found.only_first_correct, found.only_second_correct) == (2, 1, 1)
    assert (found.scorer, found.engines) == ("robust@2", ("transformers 1.0 float32", "vllm 1.0 float32"))


def test_a_run_agrees_with_itself(run: Callable[..., Path]) -> None:
    one = run("vllm", FIRST)
    (found,) = parity(one, one)
    assert (found.identical, found.verdicts_differ, found.prefix_min) == (6, 0, None)
    assert found.as_row()["identical_share"] == 1.0


def test_responses_that_one_run_lacks_are_counted_apart(run: Callable[..., Path]) -> None:
    less = {key: text for key, text in SECOND.items() if key not in {"a1", "c2"}}
    (found,) = parity(run("transformers", FIRST), run("vllm", less))
    assert (found.n, found.identical, found.only_in_first, found.only_in_second) == (4, 2, 2, 0)


def test_the_command_prints_a_table_and_json(run: Callable[..., Path], ahabench: Run) -> None:
    runs = run("transformers", FIRST), run("vllm", SECOND)
    printed = ahabench("agreement-engines", *runs)
    assert printed.code == 0, printed.err
    assert "A transformers 1.0 float32 · B vllm 1.0 float32" in printed.out
    line = next(line.split() for line in printed.out.splitlines() if line.split()[:2] == ["toy", "test"])
    assert line[2:] == ["6", "3", "50.0", "3", "(min", "0)", "2", "1", "1", "0"]
    (row,) = json.loads(ahabench("agreement-engines", *runs, "--json").out)
    assert (row["n"], row["identical"], row["identical_share"]) == (6, 3, 0.5)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"model": {"weights_digest": "sha256:bb"}}, "model.weights_digest 'sha256:aa', .* with 'sha256:bb'"),
        ({"sampling": {"max_new_tokens": 32}}, "sampling.max_new_tokens 16, .* with 32"),
        ({"system_prompt": "Think."}, "system_prompt '', .* with 'Think.'"),
        ({"pixels": {"max": 100352}}, "pixels.max 50176, .* with 100352"),
    ],
)
def test_what_is_not_the_engines_is_refused_by_its_name(
    run: Callable[..., Path], fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(IncomparableRunsError, match=field):
        parity(run("transformers", FIRST), run("vllm", FIRST, **fields))


def test_other_items_are_refused(run: Callable[..., Path]) -> None:
    first, second = run("transformers", FIRST), run("vllm", FIRST)
    tasks = read_manifest(second).model_dump()["tasks"]
    tasks["toy"]["data_digest"] = "ff"
    write_manifest(second, Manifest.model_validate(read_manifest(second).model_dump() | {"tasks": tasks}))
    with pytest.raises(IncomparableRunsError, match="toy data_digest"):
        parity(first, second)


@pytest.mark.parametrize(("asked", "what"), [("prompt_sha256", "prompt"), ("images_sha256", "images")])
def test_another_prompt_or_image_of_one_item_is_refused_by_the_item(
    run: Callable[..., Path], asked: str, what: str
) -> None:
    first, second = run("transformers", FIRST), run("vllm", FIRST)
    for folder, digest in ((first, "aa"), (second, "bb")):
        log = folder / "toy" / "responses.jsonl"
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        lines[2][asked] = digest
        log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(IncomparableRunsError, match=f"toy: item 'b1', sample 0, was asked with another {what}"):
        parity(first, second)


def test_a_server_whose_weights_nobody_knows_passes_with_a_word(
    run: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    served = run("openai", SECOND, model={"name": "served", "weights_digest": None}, pixels={"min": None, "max": None})
    (found,) = parity(run("vllm", FIRST), served)
    assert found.n == 6
    told = capsys.readouterr().err
    assert "taken for the same, since it is not known to differ: model.name 'm' and 'served'" in told
    assert "model.weights_digest 'sha256:aa' and None" in told


@pytest.mark.parametrize("fields", [{"seed": 7}, {"top_p": 0.9}, {"top_k": 5}])
def test_what_changes_nothing_at_temperature_zero_may_differ(run: Callable[..., Path], fields: dict[str, Any]) -> None:
    assert parity(run("transformers", FIRST), run("vllm", FIRST, sampling=fields))[0].identical == 6


def test_a_run_that_was_not_greedy_is_refused(run: Callable[..., Path]) -> None:
    warm = {"temperature": 0.7}
    with pytest.raises(UsageError, match=r"was drawn at temperature 0\.7; only greedy responses"):
        parity(run("transformers", FIRST, sampling=warm), run("vllm", FIRST, sampling=warm))


def test_verdicts_of_two_scorers_are_not_compared(run: Callable[..., Path], ahabench: Run, toy: Path) -> None:
    first, second = run("transformers", FIRST), run("vllm", FIRST)
    assert ahabench("score", second, "--data", toy, "--scorer", "vlmevalkit").code == 0
    with pytest.raises(IncomparableRunsError, match=r"robust@2 in .* and with vlmevalkit@1 in .*; score both again"):
        parity(first, second)


def test_without_verdicts_the_texts_are_compared_alone(
    run: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = run("transformers", FIRST), run("vllm", SECOND)
    (second / "toy" / "metrics.json").unlink()
    (found,) = parity(first, second)
    assert (found.identical, found.scorer, found.verdicts_differ) == (3, None, None)
    assert f"toy: no verdicts to compare; run `ahabench score` on {second}" in capsys.readouterr().err


def test_damaged_verdicts_are_an_error_with_the_next_step(run: Callable[..., Path]) -> None:
    first, second = run("transformers", FIRST), run("vllm", SECOND)
    (second / "toy" / "verdicts.jsonl").write_text('{"item_id": "a1"}\n')
    with pytest.raises(UsageError, match=r"verdicts\.jsonl is damaged .*; delete it and run `ahabench score` again"):
        parity(first, second)


def test_runs_without_a_common_task_are_refused(run: Callable[..., Path]) -> None:
    first, second = run("transformers", FIRST), run("vllm", SECOND)
    write_manifest(second, read_manifest(second).model_copy(update={"tasks": {}}))
    with pytest.raises(IncomparableRunsError, match="have no task in common"):
        parity(first, second)
