"""What rows say they answer, held against what the items and the manifest's prompt ask."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sums import Looking

from ahabench.harness import registry
from ahabench.harness.dataset import load, write_export
from ahabench.harness.manifest import Manifest, PromptRecord, TaskRecord
from ahabench.harness.rescore import score_run
from ahabench.harness.runner import Plan, TaskPlan
from ahabench.harness.runner import run as generate
from ahabench.leaderboards.claims import Claims, check_asked
from ahabench.leaderboards.validate import Findings, validate

MakeRun = Callable[..., Path]
Edit = Callable[[Path, Callable[[Any], None]], None]
ALL = "all 120 responses"
ZEROS = "0" * 64


def found(run: Path) -> Findings:
    (one,) = validate(run)
    return one


def change_rows(run: Path, **changes: object) -> None:
    """Change keys of all rows; `None` takes them away."""
    path = run / "mathvista" / "responses.jsonl"
    rows = [{**json.loads(line), **changes} for line in path.read_text().splitlines()]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def generated(folder: Path, *, style: str, system: str | None, text_only: bool) -> Path:
    """A run of the real runner with recorded texts, scored."""
    said, out = folder / "said.jsonl", folder / "run"
    task = registry.find_task("mathvista")
    dataset = load(task, registry.MINI)
    texts = [json.dumps({"item_id": item.id, "response": "<answer>1</answer>"}) for item in dataset.items]
    said.write_text("\n".join(texts) + "\n")
    part = TaskPlan(dataset=dataset, style=style, prompt=registry.find_prompt(task, style))
    engine = Looking(said, model={"text_only": text_only}, sampling={"max_new_tokens": 64})
    generate(Plan(tasks=(part,), system_prompt=system), engine, out)
    score_run(out, scorer="robust", data=None)
    (out / "model.toml").write_text('name = "A"\n')
    return out


@pytest.mark.parametrize("text_only", [False, True])
@pytest.mark.parametrize("system", [None, "", "Be brief."])
@pytest.mark.parametrize("style", ["think", "official"])
def test_what_the_runner_writes_is_taken(tmp_path: Path, style: str, system: str | None, text_only: bool) -> None:
    run = generated(tmp_path, style=style, system=system, text_only=text_only)
    assert (found(run).ok, found(run).notes, found(run).problems) == (True, [], [])


def test_a_digest_of_zeros_is_no_prompt(run: Path) -> None:
    change_rows(run, prompt_sha256=ZEROS)
    assert found(run).problems == [
        "mathvista: prompt_sha256 of 120 responses is not of the manifest's prompt of these items, "
        "the first is item mini-vista-1 sample 0"
    ]


@pytest.mark.parametrize("value", [7, ["x"], {"a": None}, ""])
def test_what_is_no_digest_is_no_prompt(run: Path, value: object) -> None:
    change_rows(run, prompt_sha256=value)
    assert "prompt_sha256 of 120 responses" in found(run).problems[0]


def test_a_prompt_is_recomputed_as_the_row_of_one_item_by_hand(run: Path) -> None:
    style = registry.find_task("mathvista").prompts["think"]
    prompt, *others = [style.render(item) for item in load(registry.find_task("mathvista"), registry.MINI).items]
    asked = {"image_last": prompt.image_last, "n_images": 1, "system": None, "text": prompt.text}
    text = json.dumps(asked, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    # The first item's own digest, in all rows.
    change_rows(run, prompt_sha256=hashlib.sha256(text.encode()).hexdigest())
    (problem,) = found(run).problems
    wrong = sum(other.text != prompt.text for other in others)
    assert wrong > 100
    assert f"of {wrong} responses is not of the manifest's prompt" in problem
    assert problem.endswith("the first is item mini-vista-2 sample 0")


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.update(system_prompt="Be brief."),
        # The style's own system prompt, which was taken away in these rows.
        lambda manifest: manifest.update(system_prompt=None),
        lambda manifest: manifest["model"].update(text_only=True),
    ],
    ids=["system prompt", "system prompt of the style", "images"],
)
def test_a_manifest_that_tells_another_way_of_asking_is_found(
    run: Path, edit: Edit, change: Callable[[Any], None]
) -> None:
    edit(run / "run.json", change)
    assert "prompt_sha256 of 120 responses is not of the manifest's prompt" in found(run).problems[0]


def test_another_prompt_style_is_found(run: Path, edit: Edit) -> None:
    version = registry.find_task("mathvista").prompts["official"].version
    edit(
        run / "run.json",
        lambda manifest: manifest["tasks"]["mathvista"].update(prompt={"style": "official", "version": version}),
    )
    edit(run / "mathvista" / "metrics.json", lambda metrics: metrics.update(prompt=f"official@{version}"))
    (problem,) = found(run).problems
    assert "prompt_sha256 of 120 responses" in problem


def test_rows_that_name_other_images_are_found(run: Path) -> None:
    change_rows(run, images_sha256=ZEROS)
    assert found(run).problems == [
        "mathvista: images_sha256 of 120 responses is not of the images of these items, "
        "the first is item mini-vista-1 sample 0"
    ]


def test_images_of_a_model_that_saw_none_are_found(tmp_path: Path) -> None:
    run = generated(tmp_path, style="think", system=None, text_only=True)
    change_rows(run, images_sha256=ZEROS)
    assert "images_sha256 of 120 responses is not of an item that was shown no image" in found(run).problems[0]


def test_rows_that_do_not_say_what_they_answer_are_said_and_taken(run: Path) -> None:
    change_rows(run, prompt_sha256=None, images_sha256=None)
    one = found(run)
    assert one.ok
    assert one.notes == [
        f"mathvista: prompts not checked: {ALL} do not say which they answer",
        f"mathvista: images not checked: {ALL} do not say which they answer",
    ]


def test_images_that_are_not_at_hand_are_said(run: Path, tmp_path: Path) -> None:
    task = registry.find_task("mathvista")
    write_export(load(task, registry.MINI), tmp_path / "data" / "mathvista")
    for image in (tmp_path / "data" / "mathvista" / "images").iterdir():
        image.unlink()
    (one,) = validate(run, data=tmp_path / "data")
    assert one.ok
    (note,) = one.notes
    assert note.startswith("mathvista: images not checked: image ")
    assert "cannot be read" in note


def test_other_bytes_from_another_place_are_said_and_not_held_against_a_run(run: Path, edit: Edit) -> None:
    change_rows(run, images_sha256=ZEROS)
    edit(run / "run.json", lambda manifest: manifest["tasks"]["mathvista"].update(source="folder"))
    one = found(run)
    assert one.ok
    assert one.notes == [
        f"mathvista: images not checked: {ALL} name others than are here, and the run read them from folder, not from "
        "built-in"
    ]


def test_an_item_without_an_image_needs_no_digest_of_one() -> None:
    task = registry.find_task("mathvista")
    dataset = load(task, registry.MINI)
    bare = replace(dataset, items=(replace(dataset.items[0], images=()),))
    record = TaskRecord(split="mini", n_items=1, prompt=PromptRecord(style="think", version=1))
    manifest = Manifest(status="complete", tasks={"mathvista": record})
    claims = Claims()
    claims.note((bare.items[0].id, 0), {"prompt_sha256": None}, None)
    assert check_asked(bare, task.prompts["think"], manifest, claims).notes == [
        "mathvista: prompts not checked: all 1 responses do not say which they answer"
    ]
