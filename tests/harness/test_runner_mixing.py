"""What the runner refuses to put into one run: other models, settings, prompts, plans; shards of another make."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sums import PLAIN, Looking, Named, Told, dataset, go, pictured, plan, recording

from ahabench.harness.engines.replay import ReplayEngine
from ahabench.harness.errors import UsageError
from ahabench.harness.runner import Plan, TaskPlan, run
from ahabench.harness.shards import Shard, shard_items
from ahabench.harness.types import Prompt, PromptStyle

# Runs that must not be mixed.


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
