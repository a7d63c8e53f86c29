"""Our tasks inside lmms-eval itself, and its logs back again."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness import registry, rescore
from ahabench.harness.answers.robust import ROBUST
from ahabench.harness.dataset import load
from ahabench.harness.imports.run import score_logs
from ahabench.harness.lmms_export import export_tasks

pytestmark = pytest.mark.engines

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d494844520000000100000001080200000090"
    "7753de0000000c49444154789c63f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
)
"""One red pixel."""

Evaluate = Callable[..., dict[str, Any]]


def responses_of(path: Path) -> dict[str, str]:
    """Return published responses by item."""
    rows = map(json.loads, path.read_text().splitlines())
    return {row["item_id"]: row["response"] or "" for row in rows}


@pytest.fixture(scope="session")
def mathvision(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MathVision's questions with a picture of one pixel each."""
    folder = tmp_path_factory.mktemp("data") / "mathvision"
    (folder / "images").mkdir(parents=True)
    for name in ("test.jsonl", "testmini.jsonl"):
        shutil.copy(data / "mathvision" / name, folder / name)
    for line in (folder / "testmini.jsonl").read_text().splitlines():
        (folder / json.loads(line)["image"]).write_bytes(PNG)
    return folder.parent


@pytest.fixture
def evaluate() -> Evaluate:
    """Runs lmms-eval on tasks with recorded responses, found by a key of the document, or by its number."""
    from lmms_eval.api.model import lmms
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    class Replay(lmms):  # type: ignore[misc]
        def __init__(self, said: Mapping[str, str], key: str | None) -> None:
            super().__init__()
            self.said, self.key = said, key

        def generate_until(self, requests: list[Any]) -> list[str]:
            if self.key is None:
                return [self.said[str(request.args[3])] for request in requests]
            docs = [self.task_dict[request.args[4]][request.args[5]][request.args[3]] for request in requests]
            return [self.said[doc[self.key]] for doc in docs]

        def loglikelihood(self, requests: list[Any]) -> list[Any]:
            raise NotImplementedError

        def generate_until_multi_round(self, requests: list[Any]) -> list[Any]:
            raise NotImplementedError

    def run(
        folder: Path, task: str, said: Mapping[str, str], *, key: str | None = "item_id", **more: Any
    ) -> dict[str, Any]:
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        found: dict[str, Any] = simple_evaluate(
            model=Replay(said, key), tasks=[task], task_manager=manager, bootstrap_iters=0, **more
        )
        return found

    return run


def score(name: str, said: Mapping[str, str], folder: Path, data: Path, scorer: str) -> dict[str, Any]:
    """Return our metrics for a file of the same responses; the verdicts stand in `folder`."""
    task, split = registry.parse_tasks(name)[0]
    ids = {item.id for item in load(task, split, data=data).items}
    file = folder / "said.jsonl"
    file.write_text("".join(json.dumps({"item_id": k, "response": v}) + "\n" for k, v in said.items() if k in ids))
    return rescore.score_file(file, task, split, scorer=scorer, data=data, out=folder / "run")


@pytest.mark.parametrize("scorer", ["robust", "vlmevalkit", "official"])
def test_every_verdict_and_metric_of_mathvision_is_ours(
    evaluate: Evaluate, mathvision: Path, outputs: Path, tmp_path: Path, scorer: str
) -> None:
    said = responses_of(outputs / "mathvision" / "Qwen-VL-Max-CoT.jsonl")
    pair = registry.parse_tasks("mathvision:testmini")
    (name,) = export_tasks(pair, tmp_path / "tasks", prompt="official", scorer=scorer, data=mathvision)
    theirs = evaluate(tmp_path / "tasks", name, said)
    ours = score("mathvision:testmini", said, tmp_path, mathvision, scorer)
    rows = map(json.loads, (tmp_path / "run" / "mathvision" / "verdicts.jsonl").read_text().splitlines())
    verdicts = {row["item_id"]: (row["status"], row["extracted"], row["rule"]) for row in rows}
    logged = [sample["accuracy"] for sample in theirs["samples"][name]]
    assert {row["item_id"]: (row["status"], row["extracted"], row["rule"]) for row in logged} == verdicts
    assert len(logged) == 304
    assert theirs["results"][name]["accuracy,none"] == pytest.approx(ours["metrics"]["accuracy"]["value"], abs=1e-12)
    # Ours is clustered with the item as the cluster, which is what they compute from "score".
    assert theirs["results"][name]["accuracy_stderr_clustered,none"] == pytest.approx(
        ours["metrics"]["accuracy"]["stderr"], rel=1e-6
    )
    assert theirs["versions"][name] == f"official@1 {scorer}@{pair[0][0].scorers[scorer].version}"


def test_a_metric_that_a_paper_defines_is_ours_and_left_out_items_do_not_count(
    evaluate: Evaluate, data: Path, outputs: Path, tmp_path: Path
) -> None:
    said = responses_of(outputs / "logicvista" / "miniGPTvicuna7B.jsonl")
    (name,) = export_tasks(
        registry.parse_tasks("logicvista"), tmp_path / "tasks", prompt="think", scorer="robust", data=data
    )
    theirs = evaluate(tmp_path / "tasks", name, said)["results"][name]
    ours = score("logicvista", said, tmp_path, data, "robust")
    assert ours["excluded"] == ["v1_382"]
    assert theirs["accuracy,none"] == pytest.approx(ours["metrics"]["accuracy"]["value"], abs=1e-12)
    assert theirs["no_answer_rate,none"] == pytest.approx(ours["rates"]["no_answer"], abs=1e-12)


def test_formulas_are_compared_from_threads(evaluate: Evaluate, mathvision: Path, tmp_path: Path) -> None:
    # Where math-verify's own time limit, a signal, would raise: four threads, and answers that only algebra decides.
    items = load(*registry.parse_tasks("mathvision:testmini")[0], data=mathvision).items
    said = {item.id: rf"\boxed{{{item.gold}\cos(0)}}" if (item.gold or "").isdigit() else "" for item in items}
    (name,) = export_tasks(
        registry.parse_tasks("mathvision:testmini"), tmp_path / "t", prompt="official", scorer="robust", data=mathvision
    )
    samples = evaluate(tmp_path / "t", name, said, process_docs_parallel=4)["samples"][name]
    decided = [row["accuracy"]["item_id"] for row in samples if row["accuracy"]["rule"] == "boxed/same expression"]
    assert decided == [item_id for item_id, text in said.items() if text]
    assert len(decided) > 100


def test_the_command_line_runs_our_task_with_a_real_model_and_its_log_comes_back(
    tiny_vlm: Path, mathvision: Path, tmp_path: Path
) -> None:
    pair = registry.parse_tasks("mathvision:testmini")
    (name,) = export_tasks(pair, tmp_path / "tasks", prompt="think", scorer="robust", data=mathvision)
    command = [sys.executable, "-m", "lmms_eval", "--model", "qwen2_5_vl", "--tasks", name, "--limit", "4"]
    command += ["--model_args", f"pretrained={tiny_vlm},device=cpu,device_map=cpu,min_pixels=784,max_pixels=12544"]
    command += ["--include_path", str(tmp_path / "tasks"), "--gen_kwargs", "max_new_tokens=12"]
    command += ["--log_samples", "--output_path", str(tmp_path / "logs")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path, env=dict(os.environ))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "no_answer_rate" in done.stdout
    (row,) = score_logs(
        "lmms-eval",
        tmp_path / "logs",
        task=None,
        scorer="robust",
        data=mathvision,
        out=tmp_path / "run",
        allow_missing=True,
    )
    assert (row["task"], row["split"], row["prompt"], row["scorer"]) == (
        "mathvision",
        "testmini",
        "think@1",
        f"robust@{ROBUST.version}",
    )
    assert (row["n_items"], row["missing"]) == (4, 300)
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert manifest["engine"]["name"] == "lmms-eval:qwen2_5_vl"
    assert (manifest["sampling"]["max_new_tokens"], manifest["pixels"]) == (12, {"min": 784, "max": 12544})


OWN = {
    "mathvision_testmini": ("mathvision/mathvision_testmini.yaml", "testmini", "decoded_image"),
    "wemath_testmini_reasoning": ("wemath/reasoning/wemath_testmini_thinking.yaml", "testmini", "image_path"),
    "logicvista_reasoning": ("logicvista/reasoning/logicvista_thinking.yaml", "test", "image"),
}
"""Tasks of lmms-eval's own: where in its package they stand, their split, their column of pictures."""


def official_rows(name: str, data: Path, mathvision: Path) -> list[dict[str, Any]]:
    """Return the rows of the authors' file, which is what the hub's table has."""
    if name.startswith("mathvision"):
        lines = (mathvision / "mathvision" / "testmini.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]
    if name.startswith("wemath"):
        found: list[dict[str, Any]] = json.loads((data / "wemath" / "data" / "testmini.json").read_text())
        return found
    records = json.loads((data / "logicvista" / "data" / "dataset.json").read_text()).values()
    return [{"question": record["question"], "answer": record["answer"]} for record in records]


@pytest.mark.parametrize("name", OWN)
def test_a_log_of_lmms_evals_own_task_is_scored_item_by_item(
    evaluate: Evaluate, data: Path, mathvision: Path, tmp_path: Path, name: str
) -> None:
    import lmms_eval
    import pyarrow
    import pyarrow.parquet
    from lmms_eval.loggers import EvaluationTracker

    file, split, column = OWN[name]
    rows = official_rows(name, data, mathvision)
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    table = [{**row, column: {"bytes": PNG, "path": None}} for row in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), tasks / "docs.parquet")
    # Their own task, but for where its data stand.
    theirs = Path(lmms_eval.__file__).parent / "tasks" / file
    lines = [f"include: {json.dumps(str(theirs))}", f"task: {json.dumps(name)}", 'dataset_path: "parquet"']
    lines += [f'dataset_kwargs: {{"data_files": {{{json.dumps(split)}: "docs.parquet"}}}}']
    (tasks / "own.yaml").write_text("\n".join(lines))
    said = {str(n): f"<answer>{row['answer']}</answer>" if n % 3 else "no idea" for n, row in enumerate(rows)}
    # MathVision's own score needs a package that lmms-eval 0.7.3 fails to import.
    found = evaluate(tasks, name, said, key=None, predict_only=name.startswith("mathvision"))
    tracker = EvaluationTracker(output_path=str(tmp_path / "logs"))
    tracker.general_config_tracker.log_experiment_args("replay", "pretrained=org/model", "", "", False)
    samples = found.pop("samples")
    tracker.save_results_aggregated(found, samples, "20261122_180000")
    tracker.save_results_samples(name, samples[name])
    root = mathvision if name.startswith("mathvision") else data
    score_logs("lmms-eval", tmp_path / "logs", task=None, scorer="robust", data=root, out=tmp_path / "run")
    (responses,) = (tmp_path / "run").glob("*/responses.jsonl")
    kept = [json.loads(line) for line in responses.read_text().splitlines()]
    items = {item.id: item for item in load(registry.find_task(responses.parent.name), split, data=root).items}
    assert len(kept) == len(items) == len(rows)
    assert [row["response"] for row in kept] == list(said.values())
    # Every answer lies with the item that it was made from: the file's rows are in the items' order.
    assert [row["item_id"] for row in kept] == list(items)
