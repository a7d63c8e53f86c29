"""Scoring what is on disk: published files, a benchmark of six sums, and what must not be lost."""

import json
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dynamath_published import DYNAMATH
from toy_rows import RIGHT

from ahabench.harness import registry
from ahabench.harness.errors import IncomparableRunsError, IncompleteRunError, UsageError
from ahabench.harness.judge import JUDGE_PROMPT_VERSION, Judge
from ahabench.harness.manifest import EngineRecord, Manifest, SamplingRecord, TaskRecord, read_manifest, write_manifest
from ahabench.harness.rescore import score_file, score_run

TOY = Path(__file__).parent / "toy"
SCRIPT = str(Path(sys.executable).with_name("ahabench"))
DERIVED = ("verdicts.jsonl", "metrics.json")
SKILLS = ("inductive", "deductive", "numerical", "spatial", "mechanical")
# Percent, recomputed from the authors' result files.
LOGICVISTA = {
    "GPT4": ("32.59", "22.43", "54.84", "24.21", "21.52", "41.89"),
    "LLAVA13B": ("24.11", "18.69", "31.18", "20.00", "27.85", "24.32"),
    "BLIP2": ("21.43", "17.76", "23.66", "23.16", "24.05", "18.92"),
    "instructBLIP-vicuna-7B": ("14.96", "4.67", "21.51", "24.21", "2.53", "22.97"),
    "miniGPTvicuna7B": ("11.16", "10.28", "9.68", "7.37", "3.80", "27.03"),
    "pix2struct": ("8.93", "12.15", "6.45", "2.11", "7.59", "17.57"),
    "GIT": ("4.24", "4.67", "4.30", "0.00", "8.86", "4.05"),
}


@pytest.fixture
def data_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a stranger's benchmark, whose "robust" takes the last number for the answer."""
    monkeypatch.syspath_prepend(str(TOY))
    monkeypatch.setenv("PYTHONPATH", str(TOY))
    registry.tasks.cache_clear()
    yield TOY / "data"
    registry.tasks.cache_clear()


def write(path: Path, *samples: dict[str, str | None], **fields: object) -> Path:
    rows = [
        {"item_id": key, "sample_index": n, "response": text, **fields}
        for n, answers in enumerate(samples)
        for key, text in answers.items()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def score(file: Path, data: Path, out: Path, *, task: str = "toy", **options: Any) -> dict[str, Any]:
    found = registry.find_task(task)
    return score_file(
        file, found, found.default_split, data=data, out=out, **{"scorer": "robust", "field": None, **options}
    )


def made_run(folder: Path, *tasks: str, samples: int = 1, **fields: Any) -> Path:
    """Write what an engine leaves behind: responses to the six sums, under each task's name."""
    records = {name: TaskRecord(split=registry.find_task(name).default_split, n_items=6, **fields) for name in tasks}
    sampling = SamplingRecord(samples=samples)
    manifest = Manifest(status="complete", engine=EngineRecord(name="transformers"), tasks=records, sampling=sampling)
    write_manifest(folder, manifest)
    for name in tasks:
        write(folder / name / "responses.jsonl", *[RIGHT] * samples)
    return folder


def bytes_of(folder: Path) -> dict[str, bytes]:
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


# Published verdicts.


@pytest.mark.parametrize("model", DYNAMATH)
def test_published_dynamath_verdicts_give_the_published_numbers(
    data: Path, outputs: Path, tmp_path: Path, model: str
) -> None:
    file = outputs / "dynamath" / f"{model}.jsonl"
    row = score(file, data, tmp_path / "run", task="dynamath", field="official_correct")
    found = [f"{100 * row['metrics'][name]['value']:.2f}" for name in ("average", "worst", "rr", "best")]
    assert found == list(DYNAMATH[model])
    assert (row["scorer"], row["n_items"], row["missing"]) == ("file:official_correct", 5010, 0)


@pytest.mark.parametrize("model", LOGICVISTA)
def test_published_logicvista_verdicts_give_the_published_numbers(
    data: Path, outputs: Path, tmp_path: Path, model: str
) -> None:
    file = outputs / "logicvista" / f"{model}.jsonl"
    row = score(file, data, tmp_path / "run", task="logicvista", field="official_correct")
    by_skill = [row["breakdown"]["skill"][skill]["accuracy"]["value"] for skill in SKILLS]
    found = [f"{100 * value:.2f}" for value in (row["metrics"]["accuracy"]["value"], *by_skill)]
    assert found == list(LOGICVISTA[model])
    assert (row["n_items"], row["excluded"]) == (448, [])


# A file of responses.


def test_a_scored_file_is_a_run_that_knows_only_what_the_file_says(data_folder: Path, tmp_path: Path) -> None:
    row = score(write(tmp_path / "x.jsonl", RIGHT), data_folder, tmp_path / "run")
    assert row["metrics"]["accuracy"]["value"] == 1
    assert row["prompt"] == "unknown"
    manifest = read_manifest(tmp_path / "run")
    assert manifest.status == "complete"
    assert (manifest.model, manifest.engine, manifest.sampling) == (
        type(manifest.model)(),
        EngineRecord(),
        SamplingRecord(),
    )
    assert manifest.tasks["toy"].n_items == 6
    assert manifest.tasks["toy"].prompt is None
    assert set(bytes_of(tmp_path / "run")) == {"run.json", *(f"toy/{name}" for name in ("responses.jsonl", *DERIVED))}
    assert json.loads((tmp_path / "run" / "toy" / "metrics.json").read_text()) == row


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_rows_changes_no_verdict_and_no_metric(data_folder: Path, tmp_path: Path, seed: int) -> None:
    file = write(tmp_path / "x.jsonl", RIGHT | {"b1": "7"}, RIGHT)
    score(file, data_folder, tmp_path / "one")
    lines = file.read_text().splitlines(keepends=True)
    random.Random(seed).shuffle(lines)
    file.write_text("".join(lines))
    score(file, data_folder, tmp_path / "two")
    for name in DERIVED:
        assert (tmp_path / "one" / "toy" / name).read_bytes() == (tmp_path / "two" / "toy" / name).read_bytes()


def test_scoring_again_from_the_responses_alone_writes_the_same_bytes(data_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    score(write(tmp_path / "x.jsonl", RIGHT, RIGHT | {"a1": "?"}), data_folder, run)
    before = bytes_of(run)
    for name in DERIVED:
        (run / "toy" / name).unlink()
    score_run(run, scorer="robust", data=data_folder)
    assert bytes_of(run) == before


def test_the_responses_of_a_scored_file_survive_whole(data_folder: Path, tmp_path: Path) -> None:
    odd = RIGHT | {"a1": "half \ud83d a pair, a\u2028line, a\0nul, \u0130"}
    file = write(tmp_path / "x.jsonl", odd, finish_reason="stop", completion_tokens=7, official_extraction="2")
    score(file, data_folder, tmp_path / "run", scorer="official")
    rows = [json.loads(line) for line in (tmp_path / "run" / "toy" / "responses.jsonl").read_text().split("\n") if line]
    assert {row["item_id"]: row["response"] for row in rows} == odd
    assert {(row["finish_reason"], row["completion_tokens"], row["official_extraction"]) for row in rows} == {
        ("stop", 7, "2")
    }


def test_missing_items_leave_verdicts_but_no_metrics(data_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    part = write(tmp_path / "x.jsonl", {key: RIGHT[key] for key in ("a1", "a2")})
    score(part, data_folder, run, allow_missing=True)
    assert (run / "toy" / "metrics.json").exists()
    with pytest.raises(IncompleteRunError, match=r"4 of 6 responses are missing, the first is item b1"):
        score(part, data_folder, run)
    assert len((run / "toy" / "verdicts.jsonl").read_text().splitlines()) == 2
    assert not (run / "toy" / "metrics.json").exists(), "metrics that were allowed to have holes"
    assert read_manifest(run).status == "incomplete"


def test_what_is_refused_writes_nothing(data_folder: Path, tmp_path: Path) -> None:
    for name, answers, scorer in (("id", RIGHT | {"d4": "3"}, "robust"), ("judge", RIGHT, "official")):
        with pytest.raises(UsageError):
            score(write(tmp_path / "x.jsonl", answers), data_folder, tmp_path / name, scorer=scorer)
        assert not (tmp_path / name).exists()


def test_a_run_of_an_engine_is_not_overwritten_by_a_file(data_folder: Path, tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", "toy")
    before = bytes_of(run)
    with pytest.raises(UsageError, match="is a run of an engine"):
        score(write(tmp_path / "x.jsonl", RIGHT), data_folder, run)
    assert bytes_of(run) == before


def test_a_folder_with_other_things_is_not_written_to(data_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty and holds no run"):
        score(write(tmp_path / "x.jsonl", RIGHT), data_folder, tmp_path / "notes")
    assert set(bytes_of(tmp_path / "notes")) == {"thesis.txt"}


def test_a_file_cannot_be_the_run(data_folder: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "responses", RIGHT)
    with pytest.raises(UsageError, match="is a file, wanted a run directory"):
        score(file, data_folder, file)
    assert len(file.read_text().splitlines()) == 6


def test_another_benchmarks_file_does_not_push_the_first_out_of_its_run(data_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    manifest = Manifest(status="incomplete", tasks={"wemath": TaskRecord(split="testmini", n_items=1740)})
    write_manifest(run, manifest)
    score(write(tmp_path / "x.jsonl", RIGHT), data_folder, run)
    joined = read_manifest(run)
    assert joined.tasks["wemath"] == manifest.tasks["wemath"]
    assert joined.tasks["toy"].n_items == 6
    assert joined.status == "incomplete", "the first still is"


def test_a_corrected_file_replaces_its_responses_and_says_so(
    data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    score(write(tmp_path / "x.jsonl", RIGHT), data_folder, run)
    before = bytes_of(run)
    score(write(tmp_path / "the-same.jsonl", RIGHT), data_folder, run)
    assert bytes_of(run) == before
    assert capsys.readouterr().err == ""

    corrected = score(write(tmp_path / "y.jsonl", RIGHT | {"a1": "3"}), data_folder, run)

    assert corrected["metrics"]["accuracy"]["value"] == pytest.approx(5 / 6)
    assert "held other toy responses; it has those of y.jsonl now" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_one_clear_error(data_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()
    with pytest.raises(UsageError):
        score(write(tmp_path / "x.jsonl", RIGHT), data_folder, tmp_path / "a-file" / "run")


# A run.


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is no run: it has no run.json"):
        score_run(tmp_path, scorer="robust", data=None)


def test_a_task_that_the_run_has_not_is_refused(data_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no responses to wemath; it has toy"):
        score_run(made_run(tmp_path / "run", "toy"), scorer="robust", data=data_folder, only=["wemath"])


def test_other_items_than_the_run_answered_are_not_comparable(data_folder: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(data_folder, tmp_path / "data")
    items = changed / "toy" / "items.json"
    run = tmp_path / "run"
    score(write(tmp_path / "x.jsonl", RIGHT), data_folder, run)
    before = bytes_of(run)
    items.write_text(items.read_text().replace('"answer": "8"', '"answer": "9"'))
    with pytest.raises(IncomparableRunsError, match=r"answered other items of toy test: data digest \w{12} there"):
        score_run(run, scorer="robust", data=changed)
    assert bytes_of(run) == before


def test_the_samples_of_a_run_are_all_expected(data_folder: Path, tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", "toy", samples=2)
    (row,) = score_run(run, scorer="robust", data=data_folder)
    assert {"avg@2", "pass@2", "maj@2"} <= set(row["metrics"])
    write(run / "toy" / "responses.jsonl", RIGHT)
    with pytest.raises(IncompleteRunError, match="6 of 12 responses are missing"):
        score_run(run, scorer="robust", data=data_folder)


def test_a_limited_run_is_scored_over_its_sample_of_whole_clusters(data_folder: Path, tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", "toy", limit=2)
    path = run / "toy" / "responses.jsonl"
    with pytest.raises(UsageError, match="has no item"):
        score_run(run, scorer="robust", data=data_folder)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    (pair,) = [
        letter
        for letter in "abc"
        if _fits(run, path, [row for row in rows if row["item_id"][0] == letter], data_folder)
    ]
    assert json.loads((run / "toy" / "metrics.json").read_text())["n_items"] == 2, pair


def _fits(run: Path, path: Path, rows: list[dict[str, Any]], data: Path) -> bool:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    try:
        score_run(run, scorer="robust", data=data)
    except UsageError:
        return False
    return True


def test_a_scorer_that_one_task_of_a_run_refuses_changes_no_task(data_folder: Path, data: Path, tmp_path: Path) -> None:
    both = tmp_path / "data"
    both.mkdir()
    shutil.copytree(data_folder / "toy", both / "toy")
    (both / "dynamath").symlink_to(data / "dynamath")
    run = made_run(tmp_path / "run", "dynamath", "toy")
    write(run / "dynamath" / "responses.jsonl", {"1_v1": "2"})
    before = bytes_of(run)
    with pytest.raises(UsageError, match="toy: the scorer 'official' compares"):
        score_run(run, scorer="official", data=both, allow_missing=True)
    assert bytes_of(run) == before


# The judge in a run.


def test_the_judge_is_recorded_in_full(data_folder: Path, tmp_path: Path, serve: Callable[..., Any]) -> None:
    server = serve()
    with Judge(server.url, "reader") as judge:
        row = score(write(tmp_path / "x.jsonl", RIGHT | {"a1": "two"}), data_folder, tmp_path / "run", judge=judge)
    assert row["judge"] == {"model": server.model, "failures": 0}
    record = read_manifest(tmp_path / "run").judge
    assert record is not None
    assert (record.model, record.url, record.served_model) == ("reader", server.url, server.model)
    assert record.prompt_version == JUDGE_PROMPT_VERSION


def test_a_run_scored_again_without_a_judge_no_longer_names_one(
    data_folder: Path, tmp_path: Path, serve: Callable[..., Any]
) -> None:
    run = made_run(tmp_path / "run", "toy")
    with Judge(serve().url, "reader") as judge:
        score_run(run, scorer="robust", data=data_folder, judge=judge)
    assert read_manifest(run).judge is not None
    (row,) = score_run(run, scorer="robust", data=data_folder)
    assert "judge" not in row
    assert read_manifest(run).judge is None


# A full disk.


def _small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))


def test_a_full_disk_keeps_the_old_files_and_says_so_in_one_line(data_folder: Path, tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", "toy")
    score_run(run, scorer="robust", data=data_folder)
    (run / "toy" / "metrics.json").write_text("old metrics")
    before = bytes_of(run)
    assert len(before["toy/verdicts.jsonl"]) < 1500, "fits, so that the metrics are what does not"
    command = [SCRIPT, "score", str(run), "--data", str(data_folder)]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=_small_files, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the disk is full: ")
    assert done.stderr.count("\n") == 1
    assert bytes_of(run) == before


def test_a_disk_that_is_full_from_the_start_leaves_no_torn_file(data_folder: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl", {key: text + " " * 400 for key, text in RIGHT.items()})
    command = [SCRIPT, "score", str(file), "--task", "toy", "--data", str(data_folder), "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=_small_files, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the disk is full: ")
    assert bytes_of(tmp_path / "run") == {}
