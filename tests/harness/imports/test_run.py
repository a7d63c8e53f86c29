"""`ahabench score --from`: other tools' logs as runs."""

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest

from ahabench.harness import registry
from ahabench.harness.dataset import load
from ahabench.harness.manifest import Manifest, read_manifest
from ahabench.harness.types import Item


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]
SAID = {"a1": "2", "a2": "so 4", "b1": "none", "b2": "-1", "c1": "100", "c2": "11"}
"""Three of six are right."""


def toy_items(data: Path) -> list[Item]:
    return list(load(registry.find_task("toy"), "test", data=data).items)


def write_samples(folder: Path, rows: Iterable[Mapping[str, Any]], task: str = "ahabench_toy") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"20261122_175959_samples_{task}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sample(place: int, item: Item, **more: Any) -> dict[str, Any]:
    """A row as lmms-eval 0.7.3 writes it for a task that we export."""
    return {
        "doc_id": place,
        "target": item.gold,
        "filtered_resps": SAID[item.id],
        "token_counts": [{"output_tokens": 4}],
        "doc_hash": "0",
        "accuracy": {"item_id": item.id, "correct": False, "extracted": None},
        "input": item.question,
    } | more


RESULTS = {
    "configs": {
        "ahabench_toy": {
            "generation_kwargs": {"until": [], "max_new_tokens": 64, "temperature": 0.0, "do_sample": False},
            "metadata": {"ahabench": {"task": "toy@1", "split": "test", "prompt": "official@4", "scorer": "robust@2"}},
        }
    },
    "config": {
        "model": "qwen2_5_vl",
        "model_args": "pretrained=org/model,max_pixels=12544,api_key=sk-1",
        "batch_size": 1,
        "torch_seed": 1234,
    },
    "model_name": "org/model",
    "lmms_eval_version": "0.7.3@abc",
}


@pytest.fixture
def lmms_log(toy: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "logs" / "org__model"
    path = write_samples(folder, [sample(place, item) for place, item in enumerate(toy_items(toy))])
    (folder / "20261122_175959_results.json").write_text(json.dumps(RESULTS))
    return path


def score_plain(ahabench: Run, toy: Path, tmp_path: Path) -> Any:
    """The metrics of the same responses in a file of our own format."""
    path = tmp_path / "plain.jsonl"
    path.write_text("".join(json.dumps({"item_id": key, "response": text}) + "\n" for key, text in SAID.items()))
    ran = ahabench("score", path, "--task", "toy", "--data", toy, "--json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)[0]["metrics"]


def test_a_log_of_lmms_eval_scores_as_the_same_responses_in_a_file(
    ahabench: Run, toy: Path, tmp_path: Path, lmms_log: Path
) -> None:
    ran = ahabench("score", "--from", "lmms-eval", lmms_log, "--data", toy, "--json", "--out", tmp_path / "run")
    assert ran.code == 0, ran.err
    metrics = json.loads(ran.out)[0]["metrics"]
    assert metrics["accuracy"]["value"] == 0.5
    assert metrics == score_plain(ahabench, toy, tmp_path)


def test_what_the_log_knows_stands_in_the_manifest_and_the_rest_is_unknown(
    ahabench: Run, toy: Path, tmp_path: Path, lmms_log: Path
) -> None:
    ahabench("score", "--from", "lmms-eval", lmms_log.parent.parent, "--data", toy, "--out", tmp_path / "run")
    manifest = read_manifest(tmp_path / "run")
    assert manifest.model.name == "org/model"
    assert (manifest.engine.name, manifest.engine.version) == ("lmms-eval:qwen2_5_vl", "0.7.3@abc")
    assert manifest.engine.options["model_args"] == "pretrained=org/model,max_pixels=12544,api_key=[redacted]"
    assert (manifest.sampling.max_new_tokens, manifest.sampling.temperature, manifest.sampling.samples) == (64, 0.0, 1)
    assert (manifest.sampling.top_p, manifest.system_prompt, manifest.model.weights_digest) == (None, None, None)
    assert (manifest.pixels.min, manifest.pixels.max) == (None, 12544)
    prompt = manifest.tasks["toy"].prompt
    assert prompt is not None
    assert (prompt.style, prompt.version) == ("official", 4)
    row = json.loads((tmp_path / "run" / "toy" / "responses.jsonl").read_text().splitlines()[0])
    assert (row["completion_tokens"], row["finish_reason"]) == (4, None)


def test_the_response_before_any_filter_is_scored(ahabench: Run, toy: Path, tmp_path: Path) -> None:
    rows = [
        sample(place, item, resps=[[f"<think>1</think>{item.gold}"]], filtered_resps="cut")
        for place, item in enumerate(toy_items(toy))
    ]
    path = write_samples(tmp_path / "logs", rows)
    ran = ahabench(
        "score", "--from", "lmms-eval", path, "--task", "toy", "--data", toy, "--json", "--out", tmp_path / "r"
    )
    assert json.loads(ran.out)[0]["metrics"]["accuracy"]["value"] == 1.0


def test_repeated_responses_are_samples(ahabench: Run, toy: Path, tmp_path: Path) -> None:
    rows = [
        sample(place, item, resps=[item.gold, "0"], filtered_resps=item.gold)
        for place, item in enumerate(toy_items(toy))
    ]
    path = write_samples(tmp_path / "logs", rows)
    ran = ahabench(
        "score", "--from", "lmms-eval", path, "--task", "toy", "--data", toy, "--json", "--out", tmp_path / "r"
    )
    metrics = json.loads(ran.out)[0]["metrics"]
    assert (metrics["avg@2"]["value"], metrics["pass@2"]["value"]) == (0.5, 1.0)


def test_a_request_that_a_server_refused_is_missing(ahabench: Run, toy: Path, tmp_path: Path) -> None:
    rows = [sample(place, item) for place, item in enumerate(toy_items(toy))]
    rows[2]["filtered_resps"] = "[LMMS_EVAL_REQUEST_FAILED after 5 retries] 503"
    path = write_samples(tmp_path / "logs", rows)
    ran = ahabench("score", "--from", "lmms-eval", path, "--task", "toy", "--data", toy, "--out", tmp_path / "run")
    assert ran.code == 5
    assert "1 of 6 rows have no response, the first is item 'b1': [LMMS_EVAL_REQUEST_FAILED" in ran.err
    assert read_manifest(tmp_path / "run").status == "incomplete"


def test_a_log_that_is_not_ours_is_matched_by_its_prompts(ahabench: Run, toy: Path, tmp_path: Path) -> None:
    rows = []
    for place, item in enumerate(toy_items(toy)):
        row = sample(place, item, input=f"Hint: solve it.\nQuestion: {item.question}")
        del row["accuracy"]
        rows.append(row)
    path = write_samples(tmp_path / "logs", rows, task="sums")
    ran = ahabench(
        "score", "--from", "lmms-eval", path, "--task", "toy", "--data", toy, "--json", "--out", tmp_path / "r"
    )
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)[0]["metrics"] == score_plain(ahabench, toy, tmp_path)


def test_an_import_may_be_repeated_and_the_run_scored_again(
    ahabench: Run, toy: Path, tmp_path: Path, lmms_log: Path
) -> None:
    command = ("score", "--from", "lmms-eval", lmms_log, "--data", toy, "--out", tmp_path / "run")
    assert ahabench(*command).code == 0
    first = (tmp_path / "run" / "run.json").read_bytes()
    assert ahabench(*command).code == 0
    assert (tmp_path / "run" / "run.json").read_bytes() == first
    assert ahabench("score", tmp_path / "run", "--data", toy).code == 0


def vlmevalkit_rows(data: Path) -> dict[str, list[Any]]:
    items = toy_items(data)
    return {
        "index": list(range(len(items))),
        "question": [f"{item.question}\nPlease answer." for item in items],
        "answer": [item.gold for item in items],
        "prediction": [SAID[item.id] for item in items],
    }


@pytest.mark.parametrize("suffix", [".xlsx", ".tsv"])
def test_a_table_of_vlmevalkit_scores_as_the_same_responses_in_a_file(
    ahabench: Run, toy: Path, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"Model-7B_Sums{suffix}"
    frame = pd.DataFrame(vlmevalkit_rows(toy))
    if suffix == ".xlsx":
        frame.to_excel(path, index=False)
    else:
        frame.to_csv(path, sep="\t", index=False, quoting=csv.QUOTE_ALL)
    ran = ahabench("score", "--from", "vlmevalkit", path, "--task", "toy", "--data", toy, "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)[0]["metrics"] == score_plain(ahabench, toy, tmp_path)
    assert read_manifest(path.with_suffix("")).engine.name == "vlmevalkit"


def test_missing_predictions_are_errors_with_their_cause(ahabench: Run, toy: Path, tmp_path: Path) -> None:
    rows = vlmevalkit_rows(toy)
    rows["prediction"][0] = None
    rows["prediction"][3] = "Failed to obtain answer via API."
    rows["prediction"][4] = "Failed to obtain answer: <class 'RuntimeError'> out of memory"
    pd.DataFrame(rows).to_excel(tmp_path / "m_Sums.xlsx", index=False)
    ran = ahabench("score", "--from", "vlmevalkit", tmp_path / "m_Sums.xlsx", "--task", "toy", "--data", toy)
    assert ran.code == 5
    responses = [
        json.loads(line) for line in (tmp_path / "m_Sums" / "toy" / "responses.jsonl").read_text().splitlines()
    ]
    failed = {row["item_id"]: row["error"] for row in responses if row["response"] is None}
    assert failed == {
        "a1": "the table has no prediction",
        "b2": "Failed to obtain answer via API.",
        "c1": "Failed to obtain answer: <class 'RuntimeError'> out of memory",
    }


def wemath_table(data: Path) -> pd.DataFrame:
    records = json.loads((data / "wemath" / "data" / "testmini.json").read_text())
    columns = {name: [record[name] for record in records] for name in ("question", "answer", "ID", "key")}
    # Not in the order of the official file: the names must do.
    shuffled = pd.DataFrame(columns | {"prediction": [f"Answer: {record['answer']}" for record in records]})
    return shuffled.sample(frac=1, random_state=0).assign(index=range(len(records)))


def test_real_tables_are_known_by_their_names_and_their_columns(ahabench: Run, data: Path, tmp_path: Path) -> None:
    work = tmp_path / "outputs" / "Qwen2.5-VL"
    work.mkdir(parents=True)
    wemath_table(data).to_excel(work / "Qwen2.5-VL_WeMath.xlsx", index=False)
    # It keeps each evaluation in a folder and links the last one's tables from the model's.
    (work / "T20261122-180000").mkdir()
    (work / "Qwen2.5-VL_WeMath.xlsx").rename(work / "T20261122-180000" / "Qwen2.5-VL_WeMath.xlsx")
    (work / "Qwen2.5-VL_WeMath.xlsx").symlink_to(work / "T20261122-180000" / "Qwen2.5-VL_WeMath.xlsx")
    (work / "Qwen2.5-VL_WeMath_gpt-4o-mini_score.xlsx").write_bytes(b"of no interest")
    logicvista_table(data).to_csv(work / "Qwen2.5-VL_LogicVista.tsv", sep="\t", index=False, quoting=csv.QUOTE_ALL)
    ran = ahabench(
        "score", "--from", "vlmevalkit", tmp_path / "outputs", "--data", data, "--json", "--out", tmp_path / "run"
    )
    assert ran.code == 0, ran.err
    values = {row["task"]: row["metrics"][row["headline"]]["value"] for row in json.loads(ran.out)}
    assert values == {"logicvista": 1.0, "wemath": 1.0}
    assert read_manifest(tmp_path / "run").model.name == "Qwen2.5-VL"


def logicvista_table(data: Path) -> pd.DataFrame:
    """LogicVista as VLMEvalKit has it: 447 rows, numbered without the item that has no answer."""
    records = json.loads((data / "logicvista" / "data" / "dataset.json").read_text()).values()
    answered = [record for record in records if record["answer"]]
    return pd.DataFrame(
        {
            "index": range(len(answered)),
            "question": [record["question"] for record in answered],
            "answer": [record["answer"] for record in answered],
            "prediction": [f"<answer>{record['answer']}</answer>" for record in answered],
        }
    )


def test_rows_that_cannot_be_mapped_are_refused_and_nothing_is_written(
    ahabench: Run, data: Path, tmp_path: Path
) -> None:
    # Without numbers, questions such as "Which comes next?" with one answer leave the item open.
    logicvista_table(data).drop(columns="index").to_excel(tmp_path / "m_LogicVista.xlsx", index=False)
    ran = ahabench("score", "--from", "vlmevalkit", tmp_path / "m_LogicVista.xlsx", "--data", data)
    assert ran.code == 2
    assert "of 447 rows cannot be mapped to items of logicvista test with certainty, the first is" in ran.err
    assert not (tmp_path / "m_LogicVista").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "lmmseval", "logs", "--out", "r"], "unknown log format 'lmmseval'. Did you mean 'lmms-eval'?"),
        (["--from", "lmms-eval", "nowhere", "--out", "r"], "nowhere does not exist"),
        (["--from", "lmms-eval", "logs"], "is a folder of logs; give --out RUN"),
        (["--from", "lmms-eval", "logs", "--out", "r", "--explain", "a1"], "leave --explain and --verdicts out"),
        (["--from", "vlmevalkit", "logs", "--out", "r"], "holds no <model>_<dataset>.xlsx, .tsv or .json"),
        (["--from", "vlmevalkit", "m.pkl", "--task", "toy"], "is a pickle"),
        (
            ["--from", "lmms-eval", "logs", "--task", "logicvista", "--out", "r"],
            "which is toy:test, not logicvista:test",
        ),
    ],
)
def test_an_import_that_makes_no_sense_is_refused(
    ahabench: Run,
    toy: Path,
    tmp_path: Path,
    lmms_log: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.pkl").write_bytes(b"")
    ran = ahabench("score", *arguments, "--data", toy)
    assert ran.code == 2
    assert message in ran.err
    assert not (tmp_path / "r").exists()


def test_a_run_of_an_engine_is_not_written_over(ahabench: Run, toy: Path, tmp_path: Path, lmms_log: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text(Manifest(status="complete").model_dump_json())
    ran = ahabench("score", "--from", "lmms-eval", lmms_log, "--data", toy, "--out", run)
    assert ran.code == 2
    assert "holds a run that is no import" in ran.err


def test_logs_of_two_models_are_refused(ahabench: Run, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "outputs"
    folder.mkdir()
    wemath_table(data).to_excel(folder / "One_WeMath.xlsx", index=False)
    logicvista_table(data).to_excel(folder / "Two_LogicVista.xlsx", index=False)
    ran = ahabench("score", "--from", "vlmevalkit", folder, "--data", data, "--out", tmp_path / "run")
    assert ran.code == 2
    assert "the logs are of 2 models (One, Two)" in ran.err
    assert not (tmp_path / "run").exists()


def test_logs_may_be_imported_into_one_run_one_after_the_other(ahabench: Run, data: Path, tmp_path: Path) -> None:
    wemath_table(data).to_excel(tmp_path / "One_WeMath.xlsx", index=False)
    logicvista_table(data).to_excel(tmp_path / "One_LogicVista.xlsx", index=False)
    for name in ("WeMath", "LogicVista"):
        file = tmp_path / f"One_{name}.xlsx"
        assert ahabench("score", "--from", "vlmevalkit", file, "--data", data, "--out", tmp_path / "run").code == 0
    manifest = read_manifest(tmp_path / "run")
    assert (sorted(manifest.tasks), manifest.model.name) == (["logicvista", "wemath"], "One")


def test_two_logs_of_one_task_are_refused(ahabench: Run, toy: Path, tmp_path: Path, lmms_log: Path) -> None:
    later = lmms_log.with_name(lmms_log.name.replace("20261122", "20261123"))
    later.write_bytes(lmms_log.read_bytes())
    ran = ahabench("score", "--from", "lmms-eval", lmms_log.parent, "--data", toy, "--out", tmp_path / "run")
    assert ran.code == 2
    assert "holds two logs of ahabench_toy" in ran.err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", ":1 is not JSON"),
        ("[1]", ":1 is not a JSON object"),
        ('{"doc_id": 0}', ":1 has neither 'resps' nor 'filtered_resps' with texts"),
    ],
)
def test_a_damaged_log_is_said_in_one_line(ahabench: Run, toy: Path, tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "x_samples_toy.jsonl"
    path.write_text(line + "\n")
    ran = ahabench("score", "--from", "lmms-eval", path, "--task", "toy", "--data", toy)
    assert ran.code == 2
    assert message in ran.err
    assert ran.err.count("\n") == 1
