"""The commands end to end, in this process: what they print, what they write, and what they refuse."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_rows import RIGHT, write

from ahabench.harness import plans, registry
from ahabench.harness.manifest import read_manifest, write_manifest

Run = Callable[..., Any]
"""The fixture `ahabench`: returns how a command ended, as `code`, `out`, `err` and `error`."""


def bytes_of(folder: Path) -> dict[str, bytes]:
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


# tasks


def test_tasks_lists_every_benchmark_with_its_size(ahabench: Run) -> None:
    done = ahabench("tasks")
    assert (done.code, done.err) == (0, "")
    for name, size in (("mathvista", "1,000"), ("mathvision", "3,040"), ("dynamath", "5,010"), ("wemath", "1,740")):
        assert any(name in line and size in line for line in done.out.splitlines()), name


def test_tasks_in_json_says_what_each_scorer_needs_and_leaves_out(ahabench: Run) -> None:
    (row,) = json.loads(ahabench("tasks", "logicvista", "--json").out)
    assert row["splits"]["test"]["n_items"] == 448
    assert row["scorers"]["robust"]["excluded"] == ["v1_382"]
    assert row["scorers"]["official"] == {"version": 1, "needs_judge": True, "excluded": []}
    assert "v1_382" in row["bad_items"]


@pytest.mark.parametrize("name", ["dynamath", "logicvista", "mathverse", "mathvision", "mathvista", "wemath"])
def test_a_task_is_shown_with_its_known_bad_items(ahabench: Run, name: str) -> None:
    done = ahabench("tasks", name)
    assert done.code == 0
    for item_id, reason in registry.find_task(name).bad_items.items():
        assert item_id in done.out
        assert " ".join(reason.split())[:30] in " ".join(done.out.split())


def test_a_defect_is_printed_as_it_is_written(ahabench: Run, toy: Path) -> None:
    assert "[the sum] is *odd*" in ahabench("tasks", "toy").out


# eval, with recorded responses: no model is needed


def test_eval_writes_a_run_and_prints_its_metrics(ahabench: Run, toy: Path, tmp_path: Path) -> None:
    said = write(tmp_path / "said.jsonl", RIGHT | {"a2": "5"}, finish_reason="stop")
    run = tmp_path / "run"
    done = ahabench(
        "eval", "their-model", "--tasks", "toy", "--engine", f"replay:{said}", "--data", toy, "--out", run, "--json"
    )
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)
    assert (row["task"], row["split"], row["prompt"], row["scorer"]) == ("toy", "test", "official@4", "robust@2")
    assert row["metrics"]["accuracy"]["value"] == pytest.approx(5 / 6)
    assert json.loads((run / "toy" / "metrics.json").read_text()) == row
    manifest = read_manifest(run)
    assert (manifest.status, manifest.engine.name, manifest.model.name) == ("complete", "replay", "their-model")


def test_eval_again_generates_nothing_and_score_writes_the_same_bytes(ahabench: Run, toy: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    said = write(tmp_path / "said.jsonl", RIGHT)
    command = ("eval", "m", "--tasks", "toy", "--engine", f"replay:{said}", "--data", toy, "--out", run, "--json")
    first = ahabench(*command)
    before = bytes_of(run)
    assert ahabench(*command).out == first.out
    assert bytes_of(run) == before
    for name in ("verdicts.jsonl", "metrics.json"):
        (run / "toy" / name).unlink()
    assert ahabench("score", run, "--data", toy, "--json").out == first.out
    assert bytes_of(run) == before


def test_eval_with_holes_is_incomplete_and_goes_on_later(ahabench: Run, toy: Path, tmp_path: Path) -> None:
    run, said = tmp_path / "run", tmp_path / "said.jsonl"
    command = ("eval", "m", "--tasks", "toy", "--engine", f"replay:{said}", "--data", toy, "--out", run)
    write(said, {key: RIGHT[key] for key in ("a1", "a2", "b1")})
    holes = ahabench(*command)
    assert holes.code == 5
    assert "error: toy test: 3 of 6 responses are missing" in holes.err
    assert read_manifest(run).status == "incomplete"
    assert not (run / "toy" / "metrics.json").exists()
    allowed = ahabench(*command, "--allow-missing")
    assert allowed.code == 0
    assert "pairs is refused: a pair has a hole" in allowed.err
    write(said, RIGHT)
    assert ahabench(*command).code == 0
    assert read_manifest(run).status == "complete"
    keys = [json.loads(line)["item_id"] for line in (run / "toy" / "responses.jsonl").read_text().splitlines()]
    assert sorted(keys) == sorted(RIGHT)


def test_eval_of_a_limited_number_takes_whole_clusters_and_says_how_many(
    ahabench: Run, toy: Path, tmp_path: Path
) -> None:
    said = write(tmp_path / "said.jsonl", RIGHT)
    command = ("eval", "m", "--tasks", "toy", "--engine", f"replay:{said}", "--data", toy, "--limit", 5)
    done = ahabench(*command, "--out", tmp_path / "run", "--json")
    assert "toy test: 4 items of --limit 5" in done.err
    (row,) = json.loads(done.out)
    assert (row["n_items"], row["metrics"]["pairs"]["n"]) == (4, 2)
    assert ahabench("score", tmp_path / "run", "--data", toy, "--json").out == done.out


def test_eval_of_several_samples_asks_for_each_and_prints_their_metrics(
    ahabench: Run, toy: Path, tmp_path: Path
) -> None:
    said = tmp_path / "said.jsonl"
    rows = [
        {"item_id": key, "sample_index": n, "response": text if n else "0"}
        for key, text in RIGHT.items()
        for n in (0, 1)
    ]
    said.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ("eval", "m", "--tasks", "toy", "--engine", f"replay:{said}", "--data", toy, "--samples", 2)
    (row,) = json.loads(ahabench(*command, "--out", tmp_path / "run", "--json").out)
    values = {name: row["metrics"][name]["value"] for name in ("avg@2", "pass@2", "maj@2")}
    assert values == {"avg@2": 0.5, "pass@2": 1, "maj@2": 0.5}


@pytest.mark.parametrize("scorer", ["robust", "official"])
def test_eval_of_withheld_answers_keeps_the_responses_and_says_so(
    ahabench: Run, toy: Path, tmp_path: Path, scorer: str
) -> None:
    said, run = write(tmp_path / "said.jsonl", RIGHT), tmp_path / "run"
    command = ("eval", "m", "--tasks", "toy:hidden", "--engine", f"replay:{said}", "--data", toy, "--scorer", scorer)
    done = ahabench(*command, "--out", run, "--json")
    assert (done.code, json.loads(done.out)) == (0, [])
    assert "toy hidden: its answers are not public; responses written to " in done.err
    assert "send them to the authors" in done.err
    assert len((run / "toy" / "responses.jsonl").read_text().splitlines()) == 6
    assert not (run / "toy" / "verdicts.jsonl").exists()
    assert not (run / "toy" / "metrics.json").exists()
    assert "its answers are not public" in ahabench("score", run, "--data", toy).error


def test_score_of_a_file_for_withheld_answers_is_refused_and_writes_nothing(
    ahabench: Run, toy: Path, tmp_path: Path
) -> None:
    file = write(tmp_path / "x.jsonl", RIGHT, official_correct=True)
    for command in ("score", "agreement"):
        done = ahabench(command, file, "--task", "toy:hidden", "--data", toy)
        assert done.code == 2
        assert "toy hidden: its answers are not public" in done.error
    assert not (tmp_path / "x").exists()


def test_a_task_with_withheld_answers_keeps_no_other_from_its_score(
    ahabench: Run, toy: Path, data: Path, outputs: Path, tmp_path: Path
) -> None:
    (toy / "logicvista").symlink_to(data / "logicvista")
    said, run = tmp_path / "said", tmp_path / "run"
    engine = f"replay:{write(tmp_path / 'x.jsonl', RIGHT)}"
    ahabench("eval", "m", "--tasks", "toy:hidden", "--engine", engine, "--data", toy, "--out", run)
    manifest = read_manifest(run)
    ahabench("score", outputs / "logicvista" / "GIT.jsonl", "--task", "logicvista", "--data", toy, "--out", said)
    # What an engine that answers both leaves behind.
    (said / "logicvista").rename(run / "logicvista")
    (run / "logicvista" / "metrics.json").unlink()
    write_manifest(run, manifest.model_copy(update={"tasks": {**manifest.tasks, **read_manifest(said).tasks}}))
    done = ahabench("score", run, "--data", toy, "--json")
    assert done.code == 0, done.err
    assert "toy hidden: its answers are not public" in done.err
    assert [row["task"] for row in json.loads(done.out)] == ["logicvista"]
    assert (run / "logicvista" / "metrics.json").exists()


def test_eval_with_missing_images_generates_nothing(ahabench: Run, toy: Path, tmp_path: Path) -> None:
    (toy / "toy" / "images" / "dot.png").unlink()
    said = write(tmp_path / "said.jsonl", RIGHT)
    done = ahabench(
        "eval", "m", "--tasks", "toy", "--engine", f"replay:{said}", "--data", toy, "--out", tmp_path / "run"
    )
    assert done.code == 2
    assert "6 of 6 images are missing" in done.error
    assert not (tmp_path / "run").exists()


def test_score_and_agreement_open_no_image(ahabench: Run, toy: Path, tmp_path: Path) -> None:
    shutil.rmtree(toy / "toy" / "images")
    file = write(tmp_path / "x.jsonl", RIGHT, official_correct=True)
    assert ahabench("score", file, "--task", "toy", "--data", toy, "--out", tmp_path / "run").code == 0
    assert ahabench("agreement", file, "--task", "toy", "--data", toy).code == 0


def test_a_preset_and_another_prompt_are_not_both_taken(
    ahabench: Run, data: Path, outputs: Path, tmp_path: Path
) -> None:
    said = outputs / "logicvista" / "GPT4.jsonl"
    command = ("eval", "m", "--tasks", "logicvista", "--engine", f"replay:{said}", "--data", data, "--limit", 3)
    done = ahabench(*command, "--preset", "vlaa", "--prompt", "think", "--out", tmp_path / "run", "--allow-missing")
    if done.code == 0:
        prompt = read_manifest(tmp_path / "run").tasks["logicvista"].prompt
        assert prompt is not None
        assert prompt.style == "think"
    else:
        assert "--prompt" in done.error


# score, agreement, export


def test_score_names_its_default_run_after_the_file(ahabench: Run, toy: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "claude3.5.jsonl", RIGHT)
    done = ahabench("score", file, "--task", "toy", "--data", toy)
    assert done.code == 0
    assert (tmp_path / "claude3.5" / "toy" / "metrics.json").exists()
    assert "toy test" in done.out
    assert "robust@2" in done.out


def test_score_says_what_its_scorer_leaves_out(ahabench: Run, toy: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl", RIGHT)
    done = ahabench("score", file, "--task", "toy", "--data", toy, "--scorer", "vlmevalkit")
    assert "toy test: left out by vlmevalkit@1: c2" in done.err


def test_score_says_what_its_scorer_leaves_out_of_an_incomplete_run_too(
    ahabench: Run, toy: Path, tmp_path: Path
) -> None:
    file = write(tmp_path / "x.jsonl", {"a1": "2"})
    done = ahabench("score", file, "--task", "toy", "--data", toy, "--scorer", "vlmevalkit")
    assert done.code == 5
    assert "toy test: left out by vlmevalkit@1: c2" in done.err


def test_score_of_a_run_with_a_torn_last_line_is_refused_and_changes_nothing(
    ahabench: Run, toy: Path, tmp_path: Path
) -> None:
    ahabench("score", write(tmp_path / "x.jsonl", RIGHT), "--task", "toy", "--data", toy)
    path = tmp_path / "x" / "toy" / "responses.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    before = bytes_of(tmp_path / "x")
    done = ahabench("score", tmp_path / "x", "--data", toy)
    assert done.code == 2
    assert "responses.jsonl:6 is not JSON" in done.error
    assert bytes_of(tmp_path / "x") == before


@pytest.mark.parametrize(
    "options", [("--scorer", "official"), ("--scorer", "offical"), ("--judge", "http://127.0.0.1:1/v1")], ids=" ".join
)
def test_carried_verdicts_take_neither_a_scorer_nor_a_judge(
    ahabench: Run, toy: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    file = write(tmp_path / "x.jsonl", RIGHT, right=True)
    done = ahabench("score", file, "--task", "toy", "--data", toy, "--verdicts", "right", *options)
    assert done.code == 2
    assert "leave --scorer and --judge out" in done.error
    assert not (tmp_path / "x").exists()


def test_score_of_logicvista_leaves_out_the_question_without_a_question(
    ahabench: Run, data: Path, outputs: Path, tmp_path: Path
) -> None:
    command = ("score", outputs / "logicvista" / "pix2struct.jsonl", "--task", "logicvista", "--data", data)
    done = ahabench(*command, "--out", tmp_path / "robust", "--json")
    assert json.loads(done.out)[0]["n_items"] == 447
    assert "v1_382" in done.err
    official = ahabench(*command, "--out", tmp_path / "official", "--json", "--scorer", "official")
    assert json.loads(official.out)[0]["n_items"] == 448
    assert official.err == ""


def test_score_of_another_data_set_is_not_comparable(ahabench: Run, toy: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl", RIGHT)
    ahabench("score", file, "--task", "toy", "--data", toy)
    items = toy / "toy" / "items.json"
    items.write_text(items.read_text().replace("3 + 3?", "3 + 3 = ?"))
    done = ahabench("score", tmp_path / "x", "--data", toy)
    assert done.code == 4
    assert "answered other items of toy test" in done.error


def test_score_breaks_down_by_tag_when_asked(ahabench: Run, toy: Path, tmp_path: Path) -> None:
    command = ("score", write(tmp_path / "x.jsonl", RIGHT), "--task", "toy", "--data", toy)
    assert "by kind" not in ahabench(*command).out
    assert "by kind" in ahabench(*command, "--breakdown").out


@pytest.mark.parametrize("task", ["dynamath", "wemath"])
def test_a_missing_row_refuses_the_metrics_on_whole_groups(
    ahabench: Run, data: Path, tmp_path: Path, task: str
) -> None:
    from ahabench.harness.dataset import load

    items = load(registry.find_task(task), data=data).items
    file = write(tmp_path / "x.jsonl", {item.id: item.gold for item in items[:-1]}, right=True)
    command = ("score", file, "--task", task, "--data", data, "--verdicts", "right", "--json")
    refused = ahabench(*command)
    assert refused.code == 5
    assert f"1 of {len(items):,} responses are missing, the first is item {items[-1].id}" in refused.error
    assert (tmp_path / "x" / task / "verdicts.jsonl").exists()
    assert not (tmp_path / "x" / task / "metrics.json").exists()
    allowed = ahabench(*command, "--allow-missing")
    assert allowed.code == 0
    metrics = json.loads(allowed.out)[0]["metrics"]
    on_groups = {"worst", "best", "rr", "score_strict", "score_loose", "ik", "ig", "cm_strict", "rm_strict"} & set(
        metrics
    )
    assert len(on_groups) >= 3
    for name in on_groups:
        assert metrics[name]["value"] is None
        assert f"{name} is refused: " in allowed.err
    assert metrics["average" if task == "dynamath" else "s1"]["value"] == 1


def test_export_is_read_back_as_the_same_items(ahabench: Run, toy: Path, tmp_path: Path) -> None:
    ahabench("score", write(tmp_path / "x.jsonl", RIGHT), "--task", "toy", "--data", toy)
    done = ahabench("export", "jsonl", "--task", "toy", "--data", toy, "--out", tmp_path / "out")
    assert (done.code, done.out) == (0, f"{tmp_path / 'out' / 'items.jsonl'}\n")
    # Its digest must be that of the run, or this would be exit code 4.
    assert ahabench("score", tmp_path / "x", "--data", tmp_path / "out").code == 0


def test_an_export_that_fails_can_be_done_again(ahabench: Run, toy: Path, tmp_path: Path) -> None:
    image = toy / "toy" / "images" / "dot.png"
    image.rename(toy / "dot.png")
    command = ("export", "jsonl", "--task", "toy", "--data", toy, "--out", tmp_path / "out")
    assert ahabench(*command).code == 2
    (toy / "dot.png").rename(image)
    assert ahabench(*command).code == 0


def test_a_table_of_agreement_survives_any_model_name(ahabench: Run, toy: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl", RIGHT, official_correct=True, model="[/bold] a [red]model[/red]")
    done = ahabench("agreement", file, "--task", "toy", "--data", toy)
    assert done.code == 0
    assert "[/bold] a [red]model[/red]" in done.out


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["table", "json"])
def test_half_a_character_in_a_model_name_can_be_printed(
    ahabench: Run, toy: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    file = write(tmp_path / "x.jsonl", RIGHT, official_correct=True, model="half \ud83d")
    assert ahabench("agreement", file, "--task", "toy", "--data", toy, *options).code == 0


@pytest.mark.parametrize(
    ("flag", "preset", "limit"),
    [(None, None, None), (None, 9, 9), (7, 9, 7), (7, None, 7), (0, 9, None), (0, None, None)],
)
def test_no_pixels_at_all_take_a_presets_limit_away(flag: int | None, preset: int | None, limit: int | None) -> None:
    assert plans.pixel_limit(flag, preset) == limit
