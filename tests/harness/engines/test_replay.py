"""Replaying what somebody's model said."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness.engines import open_engine
from ahabench.harness.engines.replay import ReplayEngine
from ahabench.harness.errors import UsageError
from ahabench.harness.images import ImageFile
from ahabench.harness.manifest import EngineRecord, Manifest, ModelRecord, PixelsRecord, SamplingRecord, write_manifest
from ahabench.harness.prompts import digest
from ahabench.harness.sampling import Sampling
from ahabench.harness.types import Prompt, Request, Response

HOW_MANY, HOW_FAR = Prompt(text="How many?"), Prompt(text="How far?")


def ask(item: str, prompt: Prompt = HOW_MANY, sample: int = 0) -> Request:
    return Request(item_id=item, sample_index=sample, prompt=prompt, images=())


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(item: str, text: str | None, **fields: Any) -> dict[str, Any]:
    return {"item_id": item, "response": text, **fields}


def test_requests_are_answered_by_item_and_sample(tmp_path: Path) -> None:
    said = write(
        tmp_path / "said.jsonl",
        row("1", "one", finish_reason="length", completion_tokens=7, official_extraction=["a", "b"]),
        row("2", "two", sample_index=1),
    )
    assert list(ReplayEngine(said).generate([ask("2", sample=1), ask("1")])) == [
        Response(item_id="2", sample_index=1, text="two"),
        Response(item_id="1", text="one", finish_reason="length", completion_tokens=7, extraction="a, b"),
    ]


def test_a_request_without_a_recording_is_an_error_response(tmp_path: Path) -> None:
    said = write(tmp_path / "said.jsonl", row("1", "one"))
    (response,) = ReplayEngine(said).generate([ask("1", sample=1)])
    assert (response.item_id, response.sample_index, response.text, response.finish_reason) == ("1", 1, None, "error")
    assert response.error == f"no recording of it in {said}: none"


def test_a_recording_that_answers_another_image_is_no_response(tmp_path: Path) -> None:
    image = ImageFile(tmp_path / "dot.png")
    image.path.write_bytes(b"picture")
    known = hashlib.sha256(hashlib.sha256(b"picture").digest()).hexdigest()
    said = write(tmp_path / "said.jsonl", row("1", "one", images_sha256=known, image_sizes=[[28, 56]]), row("2", "two"))
    requests = [replace(ask(item), images=(image,)) for item in ("1", "2")]
    first, second = ReplayEngine(said).generate(requests)
    assert (first.text, first.images_sha256, first.image_sizes) == ("one", known, ((28, 56),))
    image.path.write_bytes(b"another picture")
    first, second = ReplayEngine(said).generate(requests)
    assert (first.text, first.error) == (None, f"the recording in {said} answers another image")
    # This one does not know which image it answers.
    assert second.text == "two"
    image.path.unlink()
    first, _ = ReplayEngine(said).generate(requests)
    assert f"image {image.path} cannot be read" in (first.error or "")


def test_a_recorded_error_stays_one(tmp_path: Path) -> None:
    said = write(tmp_path / "said.jsonl", row("1", None, error="OutOfMemoryError"), row("2", None))
    first, second = ReplayEngine(said).generate([ask("1"), ask("2")])
    assert (first.text, first.finish_reason, first.error) == (None, "error", "OutOfMemoryError")
    assert second.error == f"recorded without a text in {said}"


def test_an_answer_to_another_prompt_is_no_answer(tmp_path: Path) -> None:
    said = write(tmp_path / "said.jsonl", row("1", "three", prompt_sha256=digest(HOW_MANY, 0)))
    same, other = ReplayEngine(said).generate([ask("1"), ask("1", HOW_FAR)])
    assert same.text == "three"
    assert other.error == f"no recording of it in {said}: only one for another prompt"


def test_benchmarks_that_share_ids_are_told_apart_by_the_prompt(tmp_path: Path) -> None:
    write(tmp_path / "run" / "mathvista" / "responses.jsonl", row("1", "three", prompt_sha256=digest(HOW_MANY, 0)))
    write(tmp_path / "run" / "mathvision" / "responses.jsonl", row("1", "a mile", prompt_sha256=digest(HOW_FAR, 0)))
    engine = ReplayEngine(tmp_path / "run")
    assert [response.text for response in engine.generate([ask("1", HOW_FAR), ask("1", HOW_MANY)])] == [
        "a mile",
        "three",
    ]


def test_benchmarks_that_cannot_be_told_apart_are_not_guessed(tmp_path: Path) -> None:
    for task in ("mathvista", "mathvision"):
        write(tmp_path / "run" / task / "responses.jsonl", row("1", task))
    (response,) = ReplayEngine(tmp_path / "run").generate([ask("1")])
    assert response.text is None
    assert "2 recordings of it" in str(response.error)


def test_a_run_says_whose_its_responses_are(tmp_path: Path) -> None:
    manifest = Manifest(
        status="complete",
        model=ModelRecord(name="org/m", weights_digest="commit:ab", text_only=True),
        engine=EngineRecord(name="vllm", version="0.33"),
        sampling=SamplingRecord(temperature=0.6, seed=4),
        pixels=PixelsRecord(max=1003520),
    )
    write_manifest(tmp_path / "run", manifest)
    task = write(tmp_path / "run" / "mathvista" / "responses.jsonl", row("1", "one")).parent
    for source in (tmp_path / "run", task):
        info = open_engine(f"replay:{source}", "ignored", sampling=Sampling(temperature=0.1)).info
        assert (info.model, info.sampling, info.pixels) == (manifest.model, manifest.sampling, manifest.pixels)
        assert info.engine.name == "replay"


def test_a_bare_file_knows_only_the_name_it_is_given(tmp_path: Path) -> None:
    info = open_engine(f"replay:{write(tmp_path / 'x:y.jsonl', row('1', 'one'))}", "gpt-4", sampling=Sampling()).info
    assert info.model == ModelRecord(name="gpt-4")
    assert info.sampling == SamplingRecord()


@pytest.mark.parametrize(("name", "message"), [("gone", "nothing to replay"), ("empty", "has no responses.jsonl")])
def test_where_nothing_was_recorded_nothing_is_replayed(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=message):
        ReplayEngine(tmp_path / name)


def test_a_damaged_recording_is_an_error_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "said.jsonl", row("1", "one"))
    path.write_text(path.read_text() + "{")
    with pytest.raises(UsageError, match=r"said\.jsonl:2 is not JSON"):
        ReplayEngine(path)


def test_published_outputs_are_replayed(outputs: Path) -> None:
    engine = ReplayEngine(outputs / "logicvista" / "BLIP2.jsonl", model="BLIP2")
    responses = list(engine.generate([ask("v1_0"), ask("v1_447")]))
    assert responses[0].text == "D"
    assert responses[0].extraction == "d"
    assert responses[1].text is not None
