"""The folder that lmms-eval runs; tests/vllm/test_lmms_export.py runs it with lmms-eval itself."""

import importlib.util
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import yaml

from ahabench.harness import lmms_task, registry
from ahabench.harness.errors import UsageError
from ahabench.harness.lmms_export import export_tasks, task_name


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]
DOCS = [{"item_id": item_id} for item_id in ("a1", "a2", "b1", "b2", "c1", "c2")]


def read_yaml(folder: Path) -> dict[str, Any]:
    """Return the YAML with functions as the text behind the tag, as lmms-eval indexes it."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    found: dict[str, Any] = yaml.load((folder / "task.yaml").read_text(), Loader)
    return found


def import_utils(folder: Path) -> ModuleType:
    """Import utils.py from its path, as lmms-eval does."""
    spec = importlib.util.spec_from_file_location("utils", folder / "utils.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def golds(data: Path) -> dict[str, str]:
    task = registry.find_task("toy")
    return {item.id: item.gold or "" for item in task.items_of(task.read_folder(data / "toy", "test"))}


@pytest.fixture
def exported(ahabench: Run, toy: Path, tmp_path: Path) -> Path:
    ran = ahabench("export", "lmms-eval", "--task", "toy", "--data", toy, "--out", tmp_path / "tasks")
    assert (ran.code, ran.out) == (0, "ahabench_toy\n")
    return tmp_path / "tasks" / "ahabench_toy"


def test_the_yaml_says_what_the_numbers_are_made_with(exported: Path) -> None:
    config = read_yaml(exported)
    assert config["task"] == "ahabench_toy"
    assert config["metadata"]["version"] == "official@4 robust@2"
    assert config["metadata"]["ahabench"]["task"] == "toy@1"
    assert config["metadata"]["ahabench"]["prompt"] == "official@4"
    assert config["metadata"]["ahabench"]["scorer"] == "robust@2"
    assert [entry["metric"] for entry in config["metric_list"]] == ["accuracy", "pairs", "no_answer_rate"]


def test_lmms_evals_own_keys_are_not_overwritten_by_the_metadata(exported: Path) -> None:
    # lmms-eval 0.7.3 merges the metadata into {"task", "doc_id", "repeats", "split"} of each request.
    assert {"task", "doc_id", "repeats", "split"}.isdisjoint(read_yaml(exported)["metadata"])


def test_nothing_stops_a_response_or_cuts_its_reasoning_out(exported: Path) -> None:
    config = read_yaml(exported)
    assert config["generation_kwargs"]["until"] == []
    assert config["reasoning_tags"] == "none"


def test_every_function_that_the_yaml_names_is_there(exported: Path) -> None:
    config, utils = read_yaml(exported), import_utils(exported)
    named = [config[key] for key in ("doc_to_text", "doc_to_visual", "doc_to_messages", "process_results")]
    named += [entry["aggregation"] for entry in config["metric_list"]]
    assert all(callable(getattr(utils, name.removeprefix("utils."))) for name in named)


def test_prompts_and_pictures_are_ours(exported: Path, toy: Path) -> None:
    utils, task = import_utils(exported), registry.find_task("toy")
    first = next(iter(task.items_of(task.read_folder(toy / "toy", "test"))))
    doc = {"item_id": first.id}
    assert utils.doc_to_text(doc) == first.question
    (message,) = utils.doc_to_messages(doc)
    assert [part["type"] for part in message["content"]] == ["image", "text"]
    assert utils.doc_to_visual(doc)[0].mode == "RGB"


def test_metrics_are_ours(exported: Path, toy: Path) -> None:
    utils, gold = import_utils(exported), golds(toy)
    said = {"a1": gold["a1"], "a2": gold["a2"], "b1": gold["b1"], "b2": "-999", "c1": "nothing", "c2": gold["c2"]}
    values = [utils.process_results(doc, [said[doc["item_id"]]]) for doc in DOCS]
    # Right: a1, a2, b1, c2 of six; only pair a of three is right in both.
    assert utils.aggregate_0([value["accuracy"] for value in values]) == pytest.approx(4 / 6)
    assert utils.aggregate_1([value["pairs"] for value in values]) == pytest.approx(1 / 3)
    assert utils.aggregate_2([value["no_answer_rate"] for value in values]) == pytest.approx(1 / 6)


def test_an_item_that_comes_twice_counts_once(exported: Path, toy: Path) -> None:
    utils, gold = import_utils(exported), golds(toy)
    values = [utils.process_results(doc, [gold[doc["item_id"]] if doc["item_id"] == "a1" else "0 0"]) for doc in DOCS]
    rows = [value["accuracy"] for value in values]
    assert utils.aggregate_0([*rows, rows[0], rows[0]]) == pytest.approx(1 / 6)


def test_a_metric_on_whole_clusters_is_refused_for_a_part_of_one(
    exported: Path, toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    utils, gold = import_utils(exported), golds(toy)
    values = [utils.process_results(doc, [gold[doc["item_id"]]]) for doc in DOCS[:3]]
    assert utils.aggregate_0([value["accuracy"] for value in values]) == 1.0
    assert utils.aggregate_1([value["pairs"] for value in values]) is None
    assert "pairs is refused: a pair has a hole" in capsys.readouterr().err


def test_what_the_scorer_leaves_out_does_not_count(ahabench: Run, toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "tasks"
    assert (
        ahabench("export", "lmms-eval", "--task", "toy", "--scorer", "vlmevalkit", "--data", toy, "--out", out).code
        == 0
    )
    utils, gold = import_utils(out / "ahabench_toy"), golds(toy)
    values = [utils.process_results(doc, [gold[doc["item_id"]] if doc["item_id"] != "c2" else "0"]) for doc in DOCS]
    assert utils.aggregate_0([value["accuracy"] for value in values]) == 1.0
    assert "score" not in values[-1]["accuracy"]


def test_the_folder_can_be_moved(exported: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    exported.rename(moved)
    assert import_utils(moved).doc_to_visual({"item_id": "a1"})


def test_another_version_of_a_prompt_is_refused(exported: Path) -> None:
    utils = exported / "utils.py"
    utils.write_text(utils.read_text().replace("prompt_version=4", "prompt_version=3"))
    with pytest.raises(UsageError, match=r"was exported with the prompt official@3, .* has @4; export it again"):
        import_utils(exported).doc_to_text({"item_id": "a1"})


def test_exporting_again_replaces_the_folder(ahabench: Run, exported: Path, toy: Path) -> None:
    (exported / "stray").write_text("")
    ran = ahabench("export", "lmms-eval", "--task", "toy", "--data", toy, "--out", exported.parent)
    assert ran.code == 0
    assert sorted(path.name for path in exported.parent.iterdir()) == ["ahabench_toy"]
    assert not (exported / "stray").exists()


def test_a_folder_of_somebody_else_is_left_alone(ahabench: Run, toy: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "tasks" / "ahabench_toy"
    theirs.mkdir(parents=True)
    (theirs / "utils.py").write_text("mine")
    ran = ahabench("export", "lmms-eval", "--task", "toy", "--data", toy, "--out", tmp_path / "tasks")
    assert (ran.code, (theirs / "utils.py").read_text()) == (2, "mine")
    assert "is no export of ours" in ran.err


def test_an_export_that_fails_leaves_nothing_behind(ahabench: Run, toy: Path, tmp_path: Path) -> None:
    next((toy / "toy" / "images").iterdir()).unlink()
    ran = ahabench("export", "lmms-eval", "--task", "toy", "--data", toy, "--out", tmp_path / "tasks")
    assert ran.code == 2
    assert list((tmp_path / "tasks").iterdir()) == []


def test_a_name_cannot_break_out_of_the_files(toy: Path, tmp_path: Path) -> None:
    ours = registry.find_task("toy")
    hostile = """x'"\\\n!function os.system # {{ }} ../../y"""
    metrics = {"accuracy": ours.metrics["accuracy"], hostile: ours.metrics["pairs"]}
    task = replace(ours, name=hostile, metrics=metrics, scorers={hostile: ours.scorers["robust"]})
    (name,) = export_tasks([(task, "test")], tmp_path / "tasks", prompt="official", scorer=hostile, data=toy / "toy")
    (folder,) = (tmp_path / "tasks").iterdir()
    assert name == task_name(task, "test") == f"ahabench_{hostile}"
    assert os.sep not in folder.name
    config = read_yaml(folder)
    assert config["task"] == name
    assert config["metric_list"][1]["metric"] == hostile
    assert config["doc_to_text"] == "utils.doc_to_text"
    utils = import_utils(folder)
    assert (utils.EXPORTED.task, utils.EXPORTED.scorer) == (hostile, hostile)


def test_a_split_other_than_the_default_one_is_named() -> None:
    assert task_name(registry.find_task("mathvision"), "testmini") == "ahabench_mathvision_testmini"
    assert task_name(registry.find_task("mathvision"), "test") == "ahabench_mathvision"


def test_a_system_prompt_is_a_message_for_chat_adapters_and_the_head_of_the_text_for_others(
    ahabench: Run, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tasks"
    ran = ahabench("export", "lmms-eval", "--task", "logicvista", "--prompt", "think", "--data", data, "--out", out)
    assert ran.code == 0, ran.err
    utils = import_utils(out / "ahabench_logicvista")
    system, user = utils.doc_to_messages({"item_id": "v1_0"})
    told = system["content"][0]["text"]
    assert told.startswith("You are VL-Thinking")
    assert utils.doc_to_text({"item_id": "v1_0"}) == f"{told}\n\n{user['content'][-1]['text']}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lmms-eval"], "give --tasks all, or names such as"),
        (["lmms-eval", "--task", "toy", "--tasks", "all"], "give either --task NAME[:SPLIT], or --tasks all"),
        (["lmms-eval", "--task", "toy:hidden"], "its answers are not public"),
        (["lmms-eval", "--task", "toy", "--scorer", "official"], "compares an answer that a judge extracted"),
        (["lmms-eval", "--task", "toy", "--prompt", "offical"], "Did you mean 'official'?"),
        (["jsonl", "--task", "toy", "--prompt", "official"], "go with lmms-eval"),
        (["jsonl"], "`export jsonl` takes --task NAME[:SPLIT]"),
        (["lmm-eval", "--task", "toy"], "unknown export 'lmm-eval'. Did you mean 'lmms-eval'?"),
    ],
)
def test_an_export_that_makes_no_sense_is_refused(
    ahabench: Run, toy: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    ran = ahabench("export", *arguments, "--data", toy, "--out", tmp_path / "tasks")
    assert ran.code == 2
    assert message in ran.err
    assert not (tmp_path / "tasks").exists()


def test_the_runtime_keeps_one_copy_of_the_items_for_all_functions(exported: Path) -> None:
    # lmms-eval imports utils.py once per function.
    first, second = import_utils(exported).EXPORTED, import_utils(exported).EXPORTED
    assert lmms_task._open(first) is lmms_task._open(second)
