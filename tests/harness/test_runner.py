"""Generation to disk with the real replay engine: resuming, being killed, refusing to mix runs, saying what failed."""

import hashlib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness import dataset as data
from ahabench.harness.dataset import Dataset
from ahabench.harness.disk import locked
from ahabench.harness.engines import EngineInfo
from ahabench.harness.engines.replay import ReplayEngine
from ahabench.harness.errors import DatasetError, EngineError, UsageError
from ahabench.harness.images import ImageFile
from ahabench.harness.manifest import EngineRecord, Manifest, ModelRecord, PixelsRecord, SamplingRecord
from ahabench.harness.progress import Lines
from ahabench.harness.prompts import digest
from ahabench.harness.runlog import read_manifest, read_responses
from ahabench.harness.runner import Plan, TaskPlan, run
from ahabench.harness.shards import Shard, shard_items
from ahabench.harness.types import AnswerType, Item, Prompt, PromptStyle, Request, Response, Split, Task

PLAIN = PromptStyle(version=3, render=lambda item: Prompt(text=item.question))
THINK = PromptStyle(version=1, render=lambda item: Prompt(text=item.question, system="Think first."))


def dataset(name: str = "sums", n_items: int = 6, **fields: Any) -> Dataset:
    task = Task(
        name=name,
        title=name,
        version=1,
        paper="",
        licence="",
        splits={"test": Split(n_items=n_items, hub=None)},
        default_split="test",
        read_folder=lambda folder, split: (),
        to_item=lambda row: row["item"],
        prompts={"plain": PLAIN, "think": THINK},
        scorers={},
        metrics={},
        headline="accuracy",
    )
    items = tuple(
        Item(id=str(n), question=f"{name}: {n} + {n}?", gold=str(2 * n), answer_type=AnswerType.INTEGER)
        for n in range(n_items)
    )
    made = Dataset(task=task, split="test", items=items, source="folder", revision=None, digest=data.digest(items))
    return replace(made, **fields)


def plan(*sets: Dataset, style: str = "plain", **fields: Any) -> Plan:
    tasks = tuple(TaskPlan(dataset=one, style=style, prompt=one.task.prompts[style]) for one in sets or (dataset(),))
    return Plan(tasks=tasks, **fields)


def recording(path: Path, n_items: int = 6, samples: int = 1) -> Path:
    """Write what somebody's model said: item n, sample s."""
    rows = [
        {"item_id": str(n), "sample_index": s, "response": f"{n}/{s}:".ljust(20, "x"), "finish_reason": "stop"}
        for n in range(n_items)
        for s in range(samples)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Told:
    """What the progress was told."""

    def __init__(self) -> None:
        self.stream = StringIO()
        self.lines = Lines(self.stream)

    def __str__(self) -> str:
        return self.stream.getvalue()


def go(plan: Plan, engine: Any, out: Path) -> tuple[Manifest, str]:
    told = Told()
    manifest = run(plan, engine, out, progress=told.lines)
    return manifest, str(told)


def rows(out: Path, task: str = "sums") -> dict[tuple[str, int], str | None]:
    return {(row.item_id, row.sample_index): row.text for row in read_responses(out / task / "responses.jsonl")}


# A run from beginning to end.


def test_every_item_and_sample_is_generated_once(tmp_path: Path) -> None:
    engine = ReplayEngine(recording(tmp_path / "said.jsonl", samples=2))
    manifest, _ = go(plan(samples=2), engine, tmp_path / "run")
    assert manifest.status == "complete"
    assert rows(tmp_path / "run") == {(str(n), s): f"{n}/{s}:".ljust(20, "x") for n in range(6) for s in range(2)}


def test_the_manifest_says_what_was_asked(tmp_path: Path) -> None:
    whole = dataset(n_items=6)
    part = TaskPlan(dataset=replace(whole, items=whole.items[:4]), style="think", prompt=THINK, limit=4)
    engine = ReplayEngine(recording(tmp_path / "said.jsonl"), model="somebody")
    manifest, _ = go(Plan(tasks=(part,)), engine, tmp_path / "run")
    assert manifest == read_manifest(tmp_path / "run")
    assert manifest.model.name == "somebody"
    assert manifest.model.weights_digest is None
    assert manifest.engine.name == "replay"
    assert manifest.system_prompt == "Think first."
    assert manifest.tasks["sums"].model_dump() == {
        "split": "test",
        "source": "folder",
        "revision": None,
        "data_digest": whole.digest,
        "n_items": 4,
        "limit": 4,
        "prompt": {"style": "think", "version": 1},
    }
    assert manifest.packages["python"] == ".".join(map(str, sys.version_info[:3]))


def test_each_row_names_the_prompt_that_was_asked(tmp_path: Path) -> None:
    engine = ReplayEngine(recording(tmp_path / "said.jsonl"))
    go(plan(system_prompt="Be brief."), engine, tmp_path / "run")
    lines = (tmp_path / "run" / "sums" / "responses.jsonl").read_text().splitlines()
    asked = Prompt(text="sums: 0 + 0?", system="Be brief.")
    assert json.loads(lines[0])["prompt_sha256"] == digest(asked, 0)
    assert read_manifest(tmp_path / "run").system_prompt == "Be brief."


def test_no_system_prompt_is_known_to_be_none(tmp_path: Path) -> None:
    manifest, _ = go(plan(), ReplayEngine(recording(tmp_path / "said.jsonl")), tmp_path / "run")
    assert manifest.system_prompt == ""


def test_two_tasks_may_share_item_ids(tmp_path: Path) -> None:
    first = go(plan(), ReplayEngine(recording(tmp_path / "said.jsonl")), tmp_path / "run")[0]
    both, _ = go(
        plan(dataset("sums"), dataset("products")), ReplayEngine(recording(tmp_path / "said.jsonl")), tmp_path / "both"
    )
    assert rows(tmp_path / "both", "products") == rows(tmp_path / "both", "sums") == rows(tmp_path / "run")
    assert (first.status, both.status) == ("complete", "complete")


def test_two_splits_of_a_task_need_two_runs() -> None:
    with pytest.raises(UsageError, match="sums is asked for twice"):
        plan(dataset(), dataset(split="train"))


# Going on.


def test_a_second_call_generates_only_what_is_missing(tmp_path: Path) -> None:
    said, out = recording(tmp_path / "said.jsonl"), tmp_path / "run"
    go(plan(), ReplayEngine(said), out)
    log = out / "sums" / "responses.jsonl"
    whole = log.read_bytes()
    lines = whole.splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:2]) + lines[2][:30])
    _, told = go(plan(), ReplayEngine(said), out)
    assert log.read_bytes() == whole
    assert "4 of 6 responses to generate" in told


def test_a_complete_run_asks_the_engine_nothing(tmp_path: Path) -> None:
    go(plan(), ReplayEngine(recording(tmp_path / "said.jsonl")), tmp_path / "run")
    before = (tmp_path / "run" / "sums" / "responses.jsonl").read_bytes()
    manifest, told = go(plan(), ReplayEngine(recording(tmp_path / "said.jsonl", n_items=0)), tmp_path / "run")
    assert manifest.status == "complete"
    assert told == ""
    assert (tmp_path / "run" / "sums" / "responses.jsonl").read_bytes() == before


def test_failed_requests_make_the_run_incomplete_and_are_redone(tmp_path: Path) -> None:
    out = tmp_path / "run"
    manifest, told = go(plan(), ReplayEngine(recording(tmp_path / "half.jsonl", n_items=4)), out)
    assert manifest.status == read_manifest(out).status == "incomplete"
    assert "sums: 2 of 6 responses failed, the first for item '4': no recording" in told
    assert [key for key, words in rows(out).items() if words is None] == [("4", 0), ("5", 0)]
    manifest, told = go(plan(), ReplayEngine(recording(tmp_path / "whole.jsonl")), out)
    assert manifest.status == "complete"
    assert "2 of 6 responses to generate" in told
    assert None not in rows(out).values()


def test_a_later_call_may_add_a_task(tmp_path: Path) -> None:
    out, said = tmp_path / "run", recording(tmp_path / "said.jsonl")
    go(plan(dataset("sums")), ReplayEngine(said), out)
    manifest, _ = go(plan(dataset("products")), ReplayEngine(said), out)
    assert set(manifest.tasks) == {"sums", "products"}
    assert manifest.status == "complete"


def test_a_run_with_an_unfinished_task_stays_incomplete_when_another_is_added(tmp_path: Path) -> None:
    out = tmp_path / "run"
    go(plan(dataset("sums")), ReplayEngine(recording(tmp_path / "half.jsonl", n_items=3)), out)
    manifest, _ = go(plan(dataset("products")), ReplayEngine(recording(tmp_path / "whole.jsonl")), out)
    assert manifest.status == "incomplete"


def test_a_run_is_written_by_one_process(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    with locked(out / "run.json"), pytest.raises(UsageError, match="is being written by another process"):
        go(plan(), ReplayEngine(recording(tmp_path / "said.jsonl")), out)


# Runs that must not be mixed.


class Named:
    """A replay that claims to be another engine, as a real one would describe itself."""

    def __init__(self, said: Path, **parts: Any) -> None:
        self._replay = ReplayEngine(said)
        self.info = EngineInfo(
            model=ModelRecord(**({"name": "m", "weights_digest": "sha256:aa", "adapter": ""} | parts.get("model", {}))),
            engine=EngineRecord(**({"name": "transformers", "version": "5.1"} | parts.get("engine", {}))),
            sampling=SamplingRecord(**({"temperature": 0.0, "seed": 0} | parts.get("sampling", {}))),
            pixels=PixelsRecord(**parts.get("pixels", {})),
        )

    def generate(self, requests: Sequence[Request]) -> Iterator[Response]:
        return self._replay.generate(requests)


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ({"model": {"weights_digest": "sha256:bb"}}, "model.weights_digest 'sha256:aa', this command has 'sha256:bb'"),
        ({"model": {"text_only": True}}, "model.text_only None"),
        ({"engine": {"name": "vllm"}}, "engine 'transformers', this command has 'vllm'"),
        ({"sampling": {"temperature": 0.6}}, "sampling.temperature 0.0, this command has 0.6"),
        ({"sampling": {"seed": 1}}, "sampling.seed 0"),
        ({"pixels": {"max": 1003520}}, "pixels.max None"),
    ],
)
def test_another_model_or_setting_is_refused_by_its_name(tmp_path: Path, parts: dict[str, Any], field: str) -> None:
    said, out = recording(tmp_path / "said.jsonl"), tmp_path / "run"
    go(plan(), Named(said), out)
    before = {path: path.read_bytes() for path in out.rglob("*.json*")}
    with pytest.raises(UsageError, match=re.escape(field)) as raised:
        go(plan(), Named(said, **parts), out)
    assert str(raised.value).endswith("use another --out")
    assert {path: path.read_bytes() for path in out.rglob("*.json*")} == before


@pytest.mark.parametrize(
    ("other", "field"),
    [
        (plan(style="think"), "system_prompt"),
        (plan(system_prompt="Be brief."), "system_prompt ''"),
        (plan(samples=2), "sampling.samples 1, this command has 2"),
        (plan(dataset(split="train")), "sums split 'test', this command has 'train'"),
        (plan(dataset(digest="ff")), "sums data_digest"),
        (plan(dataset(n_items=5)), "sums n_items 6, this command has 5"),
        (
            Plan(tasks=(TaskPlan(dataset=dataset(), style="plain", prompt=replace(PLAIN, version=4)),)),
            "sums prompt 'plain@3', this command has 'plain@4'",
        ),
        (Plan(tasks=(TaskPlan(dataset=dataset(), style="plain", prompt=PLAIN, limit=6),)), "sums limit None"),
    ],
)
def test_another_plan_is_refused_by_the_field_that_differs(tmp_path: Path, other: Plan, field: str) -> None:
    said, out = recording(tmp_path / "said.jsonl"), tmp_path / "run"
    go(plan(), ReplayEngine(said), out)
    with pytest.raises(UsageError, match=re.escape(field)):
        go(other, ReplayEngine(said), out)


def test_a_refused_plan_leaves_error_rows_where_they_are(tmp_path: Path) -> None:
    out = tmp_path / "run"
    go(plan(), ReplayEngine(recording(tmp_path / "half.jsonl", n_items=3)), out)
    before = (out / "sums" / "responses.jsonl").read_bytes()
    with pytest.raises(UsageError):
        go(plan(samples=2), ReplayEngine(recording(tmp_path / "whole.jsonl")), out)
    assert (out / "sums" / "responses.jsonl").read_bytes() == before


def test_a_checkpoint_that_was_moved_goes_on(tmp_path: Path) -> None:
    said, out = recording(tmp_path / "said.jsonl"), tmp_path / "run"
    go(plan(), Named(said), out)
    manifest, _ = go(plan(), Named(said, model={"name": "elsewhere/m"}), out)
    assert manifest.model.name == "m"


def test_another_device_goes_on_with_a_word(tmp_path: Path) -> None:
    said, out = recording(tmp_path / "said.jsonl"), tmp_path / "run"
    go(plan(), Named(said, engine={"device": "cuda:0"}), out)
    _, told = go(plan(), Named(said, engine={"device": "cuda:1"}), out)
    assert "was begun with device cuda:0 and goes on with cuda:1" in told


@pytest.mark.parametrize(
    ("engine", "difference"),
    [
        ({"version": "5.2"}, "transformers version '5.1', this command has '5.2'"),
        ({"dtype": "bfloat16"}, "transformers dtype 'float32', this command has 'bfloat16'"),
        ({"options": {"attention": "eager"}}, "transformers option attention None, this command has 'eager'"),
    ],
)
def test_an_engine_that_changed_in_the_middle_is_refused_with_both_values_and_the_ways_on(
    tmp_path: Path, engine: dict[str, Any], difference: str
) -> None:
    said, out = recording(tmp_path / "said.jsonl"), tmp_path / "run"
    go(plan(), Named(said, engine={"dtype": "float32"}), out)
    with pytest.raises(UsageError, match=re.escape(difference)) as raised:
        go(plan(), Named(said, engine={"dtype": "float32", **engine}), out)
    assert "install the former, use another --out, or add --allow-mixed" in str(raised.value)


def test_an_option_that_only_sets_the_pace_may_change(tmp_path: Path) -> None:
    said, out = recording(tmp_path / "said.jsonl"), tmp_path / "run"
    go(plan(), Named(said, engine={"options": {"batch_size": "16"}}), out)
    assert go(plan(), Named(said, engine={"options": {"batch_size": "8"}}), out)[0].status == "complete"


def test_a_mixture_that_was_allowed_is_recorded_and_goes_on_with_either(tmp_path: Path) -> None:
    out = tmp_path / "run"
    go(plan(), Named(recording(tmp_path / "half.jsonl", n_items=3)), out)
    newer, whole = {"version": "5.2"}, recording(tmp_path / "said.jsonl")
    told = Told()
    manifest = run(plan(), Named(whole, engine=newer), out, progress=told.lines, allow_mixed=True)
    assert "was made with transformers version '5.1' and goes on with '5.2'" in str(told)
    assert (manifest.engine.version, [engine.version for engine in manifest.mixed_engines]) == ("5.1", ["5.2"])
    for engine in ({}, newer):
        assert go(plan(), Named(whole, engine=engine), out)[0] == manifest


def test_a_prompt_that_changed_without_its_version_is_refused(tmp_path: Path) -> None:
    said, out = recording(tmp_path / "said.jsonl"), tmp_path / "run"
    go(plan(), ReplayEngine(said), out)
    reworded = PromptStyle(version=3, render=lambda item: Prompt(text=f"Please: {item.question}"))
    with pytest.raises(UsageError, match=r"item '0', sample 0, of .*sums was asked with another prompt"):
        go(Plan(tasks=(TaskPlan(dataset=dataset(), style="plain", prompt=reworded),)), ReplayEngine(said), out)


def test_responses_without_a_manifest_are_not_gone_on_with(tmp_path: Path) -> None:
    said, out = recording(tmp_path / "said.jsonl"), tmp_path / "run"
    go(plan(), ReplayEngine(said), out)
    (out / "run.json").unlink()
    with pytest.raises(UsageError, match=r"holds sums/responses\.jsonl but no run\.json"):
        go(plan(), ReplayEngine(said), out)


# Images.


def with_images(*paths: Path) -> Dataset:
    made = dataset(n_items=len(paths))
    items = zip(made.items, paths, strict=True)
    return replace(made, items=tuple(replace(item, images=(ImageFile(path),)) for item, path in items))


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


class Looking(Named):
    """Looks at each image as it answers."""

    def generate(self, requests: Sequence[Request]) -> Iterator[Response]:
        for request in requests:
            for image in request.images:
                image.read()
            yield from super().generate([request])


def pictured(tmp_path: Path, n_items: int = 3) -> Dataset:
    for n in range(n_items):
        (tmp_path / f"{n}.png").write_bytes(f"picture {n}".encode())
    return with_images(*(tmp_path / f"{n}.png" for n in range(n_items)))


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


# Shards.


def test_a_shard_knows_the_system_prompt_of_the_whole_run(tmp_path: Path) -> None:
    # Only one item has a system prompt of its own: no shard may take its own items' for the run's.
    style = PromptStyle(version=1, render=lambda item: Prompt(text="?", system="Hm." if item.id == "0" else None))
    task = TaskPlan(dataset=dataset(), style="plain", prompt=style)
    said = recording(tmp_path / "said.jsonl")
    for index in (1, 2):
        manifest, _ = go(Plan(tasks=(task,), shard=Shard(index, 2)), ReplayEngine(said), tmp_path / "run")
        assert manifest.system_prompt is None
        assert manifest.tasks["sums"].n_items == 3


def test_a_shard_by_another_version_than_its_siblings_is_refused_before_it_begins(tmp_path: Path) -> None:
    said, out = recording(tmp_path / "said.jsonl"), tmp_path / "run"
    first, second = (replace(plan(), shard=Shard(index, 2)) for index in (1, 2))
    go(first, Named(said), out)
    newer = Named(said, engine={"version": "5.2"})
    with pytest.raises(UsageError, match=r"shard-1-of-2 was made with transformers version '5\.1', this .* '5\.2'"):
        go(second, newer, out)
    assert not (out / "shard-2-of-2" / "sums").exists()
    assert run(second, newer, out, progress=Told().lines, allow_mixed=True).status == "complete"


def test_a_shard_looks_for_its_own_images_only(tmp_path: Path) -> None:
    items = pictured(tmp_path, 6)
    mine = {item.id for item in shard_items(items.items, Shard(1, 2))}
    for n in range(6):
        if str(n) not in mine:
            (tmp_path / f"{n}.png").unlink()
    divided = replace(plan(items), shard=Shard(1, 2))
    assert go(divided, Looking(recording(tmp_path / "said.jsonl")), tmp_path / "run")[0].status == "complete"


# Engines that misbehave.


class Sick(Named):
    """Answers two requests and then does something else."""

    def __init__(self, said: Path, then: Response | Exception | None) -> None:
        super().__init__(said)
        self._then = then

    def generate(self, requests: Sequence[Request]) -> Iterator[Response]:
        yield from self._replay.generate(requests[:2])
        if isinstance(self._then, Exception):
            raise self._then
        if self._then is not None:
            yield self._then


def test_an_engine_that_gives_up_leaves_what_it_had_answered(tmp_path: Path) -> None:
    said, out = recording(tmp_path / "said.jsonl"), tmp_path / "run"
    with pytest.raises(EngineError, match="the device is lost"):
        go(plan(), Sick(said, EngineError("the device is lost")), out)
    assert read_manifest(out).status == "incomplete"
    assert len(rows(out)) == 2
    assert go(plan(), Named(said), out)[0].status == "complete"


def test_requests_without_an_answer_make_the_run_incomplete(tmp_path: Path) -> None:
    manifest, told = go(plan(), Sick(recording(tmp_path / "said.jsonl"), None), tmp_path / "run")
    assert manifest.status == "incomplete"
    assert "4 of 6 responses failed" in told
    assert "the engine did not answer" in told


@pytest.mark.parametrize("item_id", ["0", "99"], ids=["answered already", "never asked"])
def test_an_answer_that_nobody_asked_for_is_an_error(tmp_path: Path, item_id: str) -> None:
    stray = Response(item_id=item_id, text="?")
    with pytest.raises(EngineError, match=f"answered item '{item_id}', sample 0, which it was not asked"):
        go(plan(), Sick(recording(tmp_path / "said.jsonl"), stray), tmp_path / "run")
    assert len(rows(tmp_path / "run")) == 2
