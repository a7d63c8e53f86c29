"""The manifest of a run: whole, bare, damaged, and from the future."""

import json
from pathlib import Path

import pytest

from ahabench.harness.errors import UsageError
from ahabench.harness.manifest import (
    EngineRecord,
    JudgeRecord,
    Manifest,
    ModelRecord,
    PromptRecord,
    SamplingRecord,
    TaskRecord,
    read_manifest,
    write_manifest,
)

FULL = Manifest(
    status="complete",
    model=ModelRecord(name="org/m", weights_digest="commit:ab", revision="ab", adapter="", text_only=False),
    engine=EngineRecord(name="transformers", version="5.23.0", device="cpu", dtype="float32"),
    sampling=SamplingRecord(max_new_tokens=2048, temperature=0.01, top_p=0.001, top_k=1, samples=1, seed=0),
    system_prompt="You are VL-Thinking🤔",
    tasks={
        "mathvista": TaskRecord(
            split="testmini", data_digest="cd", n_items=1000, prompt=PromptRecord(style="think", version=1)
        )
    },
    judge=JudgeRecord(model="reader", url="http://127.0.0.1:1/v1"),
    packages={"torch": "2.15.0"},
)


def test_a_manifest_comes_back_as_it_was(tmp_path: Path) -> None:
    write_manifest(tmp_path, FULL)
    assert read_manifest(tmp_path) == FULL


def test_a_manifest_of_a_bare_file_knows_nothing(tmp_path: Path) -> None:
    bare = Manifest(status="incomplete", tasks={"mathvista": TaskRecord(split="testmini", n_items=1000)})
    write_manifest(tmp_path, bare)
    data = json.loads((tmp_path / "run.json").read_bytes())
    assert data["schema_version"] == 1
    for part in ("model", "engine", "sampling", "pixels"):
        # No options are known to have been given, which is an empty object.
        assert [value for value in data[part].values() if value not in (None, {})] == [], part
    assert (data["system_prompt"], data["judge"], data["git"]) == (None, None, None)
    assert data["tasks"]["mathvista"]["prompt"] is None


def test_a_folder_without_a_manifest_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is no run: it has no run\.json"):
        read_manifest(tmp_path)


def test_a_manifest_of_a_newer_ahabench_asks_for_an_upgrade(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"schema_version": 2, "status": "queued", "shards": []}')
    with pytest.raises(UsageError, match=r"schema_version 2, this ahabench reads 1; upgrade"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "Expecting value"),
        ('{"schema_version": 1, "status": "comp', "Unterminated string"),
        ("[]", "object|dictionary|Manifest"),
        ('{"status": "complete", "modell": {}}', "modell"),
        ('{"status": "done"}', "status"),
        ('{"status": "complete", "sampling": {"temperature": "hot"}}', r"sampling\.temperature"),
        ("[" * 100_000, "recursion"),
        ("\ufffd\x00", "Expecting value"),
    ],
)
def test_a_damaged_manifest_is_an_error_with_the_next_step(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UsageError, match=rf"is damaged \(.*({complaint}).*\); restore it") as raised:
        read_manifest(tmp_path)
    assert "\n" not in str(raised.value)
