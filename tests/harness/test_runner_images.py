"""Images in a run: missing or replaced ones, and the hardest requests before all others."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sums import Looking, Named, Told, dataset, go, pictured, plan, recording, rows, with_images

from ahabench.harness.dataset import Dataset
from ahabench.harness.engines.replay import ReplayEngine
from ahabench.harness.errors import DatasetError, EngineError, UsageError
from ahabench.harness.manifest import read_manifest
from ahabench.harness.prompts import digest
from ahabench.harness.runner import run
from ahabench.harness.types import Prompt, Request, Response

# Images.


def test_missing_images_are_named_before_anything_is_generated(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"there")
    gone = [tmp_path / f"{n}.png" for n in range(1, 6)]
    with pytest.raises(DatasetError) as raised:
        go(
            plan(with_images(tmp_path / "0.png", *gone)),
            ReplayEngine(recording(tmp_path / "said.jsonl")),
            tmp_path / "run",
        )
    assert f"sums test: 5 of 6 images are missing, such as {gone[0]}, {gone[1]}, {gone[2]};" in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_a_text_only_model_needs_no_images(tmp_path: Path) -> None:
    said = recording(tmp_path / "said.jsonl", n_items=2)
    engine = Named(said, model={"text_only": True})
    manifest, _ = go(plan(with_images(tmp_path / "0.png", tmp_path / "1.png")), engine, tmp_path / "run")
    assert manifest.status == "complete"
    line = (tmp_path / "run" / "sums" / "responses.jsonl").read_text().splitlines()[0]
    assert json.loads(line)["prompt_sha256"] == digest(Prompt(text="sums: 0 + 0?"), 0)


def test_each_row_names_the_image_bytes_that_the_engine_read(tmp_path: Path) -> None:
    items, out = pictured(tmp_path), tmp_path / "run"
    go(plan(items, samples=2), Looking(recording(tmp_path / "said.jsonl", n_items=3, samples=2)), out)
    lines = [json.loads(line) for line in (out / "sums" / "responses.jsonl").read_text().splitlines()]
    for line in lines:
        once = hashlib.sha256(f"picture {line['item_id']}".encode()).digest()
        assert line["images_sha256"] == hashlib.sha256(once).hexdigest()
    assert len(lines) == 6


def test_an_image_replaced_in_its_place_is_never_answered_from_old_rows(tmp_path: Path) -> None:
    items, said, out = pictured(tmp_path), recording(tmp_path / "said.jsonl"), tmp_path / "run"
    go(plan(items), Looking(said), out)
    before = (out / "sums" / "responses.jsonl").read_bytes()
    (tmp_path / "1.png").write_bytes(b"another picture")
    with pytest.raises(UsageError, match=r"item '1', sample 0, of .*sums was asked with another image"):
        go(plan(items), Looking(said), out)
    assert (out / "sums" / "responses.jsonl").read_bytes() == before
    (tmp_path / "1.png").write_bytes(b"picture 1")
    assert go(plan(items), Looking(said), out)[0].status == "complete"


def test_an_image_of_what_is_still_to_be_generated_may_change(tmp_path: Path) -> None:
    items, out = pictured(tmp_path), tmp_path / "run"
    go(plan(items), Looking(recording(tmp_path / "half.jsonl", n_items=1)), out)
    (tmp_path / "2.png").write_bytes(b"another picture")
    assert go(plan(items), Looking(recording(tmp_path / "said.jsonl")), out)[0].status == "complete"


def test_rows_that_do_not_know_their_image_are_kept_with_one_note(tmp_path: Path) -> None:
    items, said, out = pictured(tmp_path), recording(tmp_path / "said.jsonl"), tmp_path / "run"
    go(plan(items), Named(said), out)
    _, told = go(plan(items), Looking(said), out)
    assert told.count("\n") == 1
    assert "3 responses do not say which image they answer, and are taken as they are" in told


# Trying the hardest first.


def sized(tmp_path: Path, *sizes: tuple[int, int]) -> Dataset:
    from PIL import Image

    for n, size in enumerate(sizes):
        Image.new("L", size).save(tmp_path / f"{n}.png")
    made = with_images(*(tmp_path / f"{n}.png" for n in range(len(sizes))))
    longer = replace(made.items[1], question=made.items[1].question * 40)
    return replace(made, items=(made.items[0], longer, *made.items[2:]))


class Asked(Looking):
    """Remembers each call."""

    def __init__(self, said: Path, **parts: Any) -> None:
        super().__init__(said, **parts)
        self.calls: list[list[str]] = []

    def generate(self, requests: Sequence[Request]) -> Iterator[Response]:
        self.calls.append([request.item_id for request in requests])
        return super().generate(requests)


def test_the_largest_image_and_the_longest_prompt_are_asked_first_and_kept(tmp_path: Path) -> None:
    items = sized(tmp_path, (8, 8), (4, 4), (2, 2), (30, 3))
    engine, out, told = Asked(recording(tmp_path / "said.jsonl")), tmp_path / "run", Told()
    manifest = run(plan(items), engine, out, progress=told.lines, preflight=True)
    assert manifest.status == "complete"
    assert engine.calls == [["3", "1"], ["0", "2"]]
    assert "preflight: sums item '3' has the largest image (30x3 pixels)" in str(told)
    assert "preflight: sums item '1' has the longest prompt (480 characters)" in str(told)
    assert list(rows(out)) == [("3", 0), ("1", 0), ("0", 0), ("2", 0)]


def test_a_preflight_that_fails_stops_the_run_and_names_the_request(tmp_path: Path) -> None:
    items = sized(tmp_path, (8, 8), (4, 4), (2, 2))
    out = tmp_path / "run"
    said = tmp_path / "said.jsonl"
    said.write_text(json.dumps({"item_id": "1", "response": "fine"}) + "\n")
    engine = Asked(said)
    with pytest.raises(
        EngineError, match=r"preflight: sums item '0', with the largest image \(8x8 pixels\), failed: no"
    ):
        run(plan(items), engine, out, progress=Told().lines, preflight=True)
    assert engine.calls == [["0", "1"]]
    assert read_manifest(out).status == "incomplete"
    assert rows(out)["1", 0] == "fine"


def test_a_preflight_is_not_repeated_when_a_run_goes_on(tmp_path: Path) -> None:
    items, out = sized(tmp_path, (8, 8), (4, 4), (2, 2)), tmp_path / "run"
    said = recording(tmp_path / "said.jsonl", n_items=2)
    assert run(plan(items), Asked(said), out, progress=Told().lines, preflight=True).status == "incomplete"
    engine = Asked(recording(tmp_path / "said.jsonl"))
    run(plan(items), engine, out, progress=Told().lines, preflight=True)
    assert engine.calls == [["2"]]


def test_one_preflight_serves_all_tasks(tmp_path: Path) -> None:
    wordy = dataset("products")
    wordy = replace(wordy, items=(replace(wordy.items[0], question="long " * 99), *wordy.items[1:]))
    engine = Asked(recording(tmp_path / "said.jsonl"))
    both = plan(sized(tmp_path, (8, 8), (4, 4)), wordy)
    run(both, engine, tmp_path / "run", progress=Told().lines, preflight=True)
    assert engine.calls == [["0"], ["0"], ["1"], ["1", "2", "3", "4", "5"]]


def test_a_run_that_the_disk_cannot_hold_is_refused_before_it_begins(tmp_path: Path) -> None:
    # 6 responses of a quadrillion tokens.
    engine = Asked(recording(tmp_path / "said.jsonl"), sampling={"max_new_tokens": 10**15})
    with pytest.raises(UsageError, match=r"preflight: .*run has room for .*, and 6 responses may take 36,000\.0 TB"):
        run(plan(), engine, tmp_path / "run", progress=Told().lines, preflight=True)
    assert engine.calls == []
    assert not (tmp_path / "run" / "run.json").exists()
