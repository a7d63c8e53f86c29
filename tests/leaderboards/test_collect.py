"""Which runs are read, and which stand in one table."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness.errors import UsageError
from ahabench.leaderboards.collect import collect, comparable
from ahabench.leaderboards.runs import size_of

MakeRun = Callable[..., Path]
Edit = Callable[[Path, Callable[[Any], None]], None]


def tables(*runs: Path) -> list[list[str]]:
    return [[run.slug for run in group.runs] for group in comparable(collect(runs))]


def test_runs_of_one_protocol_share_a_table(make_run: MakeRun) -> None:
    assert tables(make_run("a", bool), make_run("b", bool)) == [["a", "b"]]


def test_a_folder_of_runs_stands_for_its_runs(make_run: MakeRun) -> None:
    make_run("b", bool)
    folder = make_run("a", bool).parent
    assert [run.slug for run in collect([folder])] == ["a", "b"]


def test_another_prompt_style_is_another_table(make_run: MakeRun) -> None:
    assert tables(make_run("a", bool), make_run("b", bool, style="official")) == [["a"], ["b"]]


def test_another_version_of_the_prompt_is_another_table(make_run: MakeRun) -> None:
    assert tables(make_run("a", bool), make_run("b", bool, style_version=2)) == [["a"], ["b"]]


@pytest.mark.parametrize("key", ["scorer", "prompt"])
def test_another_version_in_the_metrics_is_another_table(make_run: MakeRun, edit: Edit, key: str) -> None:
    first, second = make_run("a", bool), make_run("b", bool)
    edit(second / "mathvista" / "metrics.json", lambda metrics: metrics.update({key: f"{metrics[key]}1"}))
    assert tables(first, second) == [["a"], ["b"]]


def test_other_items_are_another_table(make_run: MakeRun, edit: Edit) -> None:
    first, second = make_run("a", bool), make_run("b", bool)
    edit(second / "run.json", lambda run: run["tasks"]["mathvista"].update(data_digest="f" * 64))
    assert tables(first, second) == [["a"], ["b"]]


def test_runs_on_different_benchmarks_may_share_a_table(make_run: MakeRun) -> None:
    assert tables(make_run("a", bool), make_run("b", bool, tasks=("logicvista",))) == [["a", "b"]]


def test_a_run_that_is_named_twice_is_refused(make_run: MakeRun) -> None:
    run = make_run("a", bool)
    with pytest.raises(UsageError, match="named twice"):
        collect([run, run.parent])


def test_a_shard_is_refused(make_run: MakeRun, edit: Edit) -> None:
    run = make_run("a", bool)
    edit(run / "run.json", lambda manifest: manifest.update(shard={"index": 1, "count": 2}))
    with pytest.raises(UsageError, match="ahabench merge"):
        collect([run])


def test_a_benchmark_whose_name_leaves_the_folder_is_refused(make_run: MakeRun, edit: Edit) -> None:
    run = make_run("a", bool)
    edit(run / "run.json", lambda manifest: manifest["tasks"].update({"../../x": manifest["tasks"]["mathvista"]}))
    with pytest.raises(UsageError, match="benchmark named"):
        collect([run])


def test_a_place_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"run\.json"):
        collect([tmp_path])


def test_a_folder_of_runs_gives_no_run_that_is_hidden_or_a_link(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(".evil", bool)
    make_run("elsewhere", bool).rename(tmp_path / "elsewhere")
    folder = make_run("a", bool).parent
    (folder / "b").symlink_to(tmp_path / "elsewhere")
    assert [run.slug for run in collect([folder])] == ["a"]
    assert capsys.readouterr().err == (
        f"{folder}: left out: .evil is hidden; a run is a folder that everybody sees\n"
        f"{folder}: left out: b is a link; a run is a folder of plain files\n"
    )


def test_a_run_that_is_a_link_is_taken_by_its_name(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "b").symlink_to(make_run("a", bool))
    assert [run.slug for run in collect([tmp_path / "b"])] == ["a"]
    with pytest.raises(UsageError, match="holds none; b is a link"):
        collect([tmp_path])


def test_a_number_that_is_not_finite_is_refused(make_run: MakeRun) -> None:
    run = make_run("a", bool)
    path = run / "mathvista" / "metrics.json"
    path.write_text(path.read_text().replace('"value": 0.99', '"value": NaN, "x": 0.99', 1))
    with pytest.raises(UsageError, match="damaged"):
        collect([run])


def test_the_folders_of_the_machine_are_not_told(make_run: MakeRun) -> None:
    run = make_run("a", bool, model="/home/somebody/secret/Model-3B")
    assert [one.name for one in collect([run])] == ["Model-3B"]


def test_the_same_name_is_told_apart_by_the_folder(make_run: MakeRun) -> None:
    runs = [make_run(name, bool, model="org/m") for name in ("a", "b")]
    assert [one.name for one in collect(runs)] == ["org/m (a)", "org/m (b)"]


def test_folders_of_one_name_get_different_pages_whatever_their_order(make_run: MakeRun, tmp_path: Path) -> None:
    first = make_run("A b", bool)
    second = first.rename(tmp_path / "A b")
    both = [second, make_run("A b", bool)]
    assert [run.slug for run in collect(both)] == ["a-b", "a-b-2"]
    assert collect(both) == collect(both[::-1])


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("Qwen2.5-VL-3B", 3.0),
        ("org/SmolLM2-135M-Instruct.Q4_1.gguf", 0.135),
        ("InternVL2_5-1.5b", 1.5),
        ("Qwen2.5-VL", None),
        ("GPT-4Big", None),
    ],
)
def test_a_size_is_read_out_of_a_name(name: str, size: float | None) -> None:
    assert size_of(name) == size


@pytest.mark.parametrize("step", ["1e400", "NaN", "true", "null", '"1"', "-Infinity"])
def test_a_training_log_without_a_step_is_refused(make_run: MakeRun, step: str) -> None:
    run = make_run("a", bool)
    (run / "log.jsonl").write_text(f'{{"step": {step}, "reward": 0.5}}\n')
    with pytest.raises(UsageError, match=r"log\.jsonl:1 has no number as 'step'"):
        collect([run])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("metrics", {"accuracy": {"value": 7.5, "n": 120}}),
        ("metrics", {"accuracy": {"value": 0.5, "n": 120, "ci95": [0.9, 0.1]}}),
        ("metrics", {"accuracy": {"value": 0.5, "n": 10**30}}),
        ("breakdown", {"a": {"b": {"accuracy": {"value": 1e308, "n": 1}}}}),
        ("rates", {"no_answer": 1e308}),
        ("tokens", {"completion_per_item": -1}),
        ("bounds", {"finished": "<b>"}),
        ("image_sizes", {"min": 5}),
    ],
)
def test_a_number_that_nothing_can_measure_is_refused(
    make_run: MakeRun, edit: Callable[..., None], key: str, value: object
) -> None:
    run = make_run("a", bool)
    edit(run / "mathvista" / "metrics.json", lambda metrics: metrics.update({key: value}))
    with pytest.raises(UsageError, match=rf"metrics\.json is damaged \({key}"):
        collect([run])
