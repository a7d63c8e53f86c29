"""Write our tasks as a folder that lmms-eval runs with `--include_path`. Written for lmms-eval 0.7.3."""

import json
import re
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ahabench.harness import registry
from ahabench.harness.dataset import Dataset, load, write_export
from ahabench.harness.disk import refusals, replace_file
from ahabench.harness.errors import UsageError
from ahabench.harness.lmms_task import NO_ANSWER
from ahabench.harness.sampling import Sampling
from ahabench.harness.score import check_answers
from ahabench.harness.types import Task

TAG = "ahabench"
"""What lmms-eval's `--tasks` takes for all of them."""
MARK = "# Written by ahabench"
"""How a utils.py of ours begins; only a folder with one is ever replaced."""

_DOCS = "docs.parquet"
_YAML = "task.yaml"
_UTILS = "utils.py"
_SPLIT = "test"


def export_tasks(
    pairs: Sequence[tuple[Task, str]], out: Path, *, prompt: str, scorer: str, data: Path | None
) -> list[str]:
    """Write one folder per task into `out`, and return the tasks' names in lmms-eval.

    A folder holds the items with their images, a table of them, the YAML, and a utils.py that calls `lmms_task`; it can
    be moved. Exporting again replaces it.

    Args:
        pairs: tasks with a split each.
        out: the folder for `--include_path`.
        prompt: a prompt style that every task has.
        scorer: a scorer that every task has and that needs no judge.
        data: where the items are, as for `dataset.load`.

    Raises:
        UsageError: a task lacks the prompt or the scorer, its answers are withheld, the scorer needs a judge, or
            something that is not ours stands where a folder is to be written.
        DatasetError: items or images are missing.
    """
    for task, split in pairs:
        registry.find_prompt(task, prompt)
        registry.check_scorer(task, scorer, has_judge=False)
        check_answers(task, split)
    names = []
    for task, split in pairs:
        name = task_name(task, split)
        _write(load(task, split, data=data), out / re.sub(r"[^\w.-]", "_", name), name, prompt=prompt, scorer=scorer)
        names.append(name)
    return names


def task_name(task: Task, split: str) -> str:
    """Return what a split is called in lmms-eval: ahabench_TASK, with the split unless it is the default one."""
    return f"{TAG}_{task.name}" + ("" if split == task.default_split else f"_{split}")


def _write(dataset: Dataset, folder: Path, name: str, *, prompt: str, scorer: str) -> None:
    """Write a task's folder under another name and put it in the place of an older one."""
    if folder.exists() and not _is_ours(folder):
        raise UsageError(f"{folder} exists and is no export of ours; give another --out")
    new = folder.with_name(f".{folder.name}.new")
    with refusals(new):
        try:
            if new.exists():
                shutil.rmtree(new)
            new.mkdir(parents=True)
            write_export(dataset, new)
            _write_docs(dataset, new / _DOCS)
            replace_file(new / _UTILS, [_utils(dataset, prompt, scorer).encode()])
            replace_file(new / _YAML, [_yaml(dataset, name, prompt, scorer).encode()])
            if folder.exists():
                shutil.rmtree(folder)
            new.replace(folder)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise


def _is_ours(folder: Path) -> bool:
    utils = folder / _UTILS
    return utils.is_file() and utils.read_text(encoding="utf-8", errors="replace").startswith(MARK)


def _write_docs(dataset: Dataset, path: Path) -> None:
    """Write the table that lmms-eval iterates over. Parquet: its reader of JSON takes some strings for dates."""
    import pyarrow
    import pyarrow.parquet

    columns = {
        "item_id": [item.id for item in dataset.items],
        "question": [_utf8(item.question) for item in dataset.items],
        "target": [_utf8(item.gold or "") for item in dataset.items],
    }
    table = pyarrow.table({name: pyarrow.array(values, pyarrow.string()) for name, values in columns.items()})
    pyarrow.parquet.write_table(table, path)


def _utf8(text: str) -> str:
    """Return a text without lone surrogates, which a table cannot hold; prompts and scores do not come from it."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _yaml(dataset: Dataset, name: str, prompt: str, scorer: str) -> str:
    """Return the task's YAML. Every value is written as JSON, which YAML contains: nothing in a name can break out."""
    task, style, rules = _parts(dataset, prompt, scorer)
    greedy = Sampling()
    values: dict[str, Any] = {
        "task": name,
        "tag": [TAG],
        "dataset_path": "parquet",
        "dataset_kwargs": {"data_files": {_SPLIT: _DOCS}},
        "test_split": _SPLIT,
        "output_type": "generate_until",
        "doc_to_target": "target",
        # Without "until", lmms-eval stops at the first empty line.
        "generation_kwargs": {
            "until": [],
            "max_new_tokens": greedy.max_new_tokens,
            "temperature": 0,
            "do_sample": False,
            "num_beams": 1,
        },
        # By default lmms-eval cuts the reasoning out before a response is scored; our scorers read it themselves.
        "reasoning_tags": "none",
        "score_key": "score",
        "cluster_key": "cluster",
        # No key of lmms-eval's own, such as "split", may stand here: it would take the place of the real one.
        "metadata": {
            "version": f"{prompt}@{style} {scorer}@{rules}",
            TAG: {
                "ahabench": version("ahabench"),
                "task": f"{task.name}@{task.version}",
                "split": dataset.split,
                "prompt": f"{prompt}@{style}",
                "scorer": f"{scorer}@{rules}",
                "source": dataset.source,
                "revision": dataset.revision,
                "data_digest": dataset.digest,
                "n_items": len(dataset.items),
            },
        },
    }
    lines = [f"{MARK} {version('ahabench')}: `ahabench export lmms-eval`. Export again instead of editing."]
    lines += [f"{key}: {json.dumps(value)}" for key, value in values.items()]
    functions = ("doc_to_text", "doc_to_visual", "doc_to_messages", "process_results")
    lines += [f"{name}: !function utils.{name}" for name in functions]
    lines.append("metric_list:")
    for place, metric in enumerate(_metrics(task)):
        higher = json.dumps(metric != NO_ANSWER)
        lines += [f"  - metric: {json.dumps(metric)}", f"    aggregation: !function utils.aggregate_{place}"]
        lines.append(f"    higher_is_better: {higher}")
    return "\n".join(lines) + "\n"


def _utils(dataset: Dataset, prompt: str, scorer: str) -> str:
    """Return the task's utils.py. Names stand in it as Python literals."""
    task, style, rules = _parts(dataset, prompt, scorer)
    head = f'''\
{MARK} {version("ahabench")}: `ahabench export lmms-eval`. Export again instead of editing.
"""Prompts, scores and metrics of a task of ahabench for lmms-eval."""

from pathlib import Path

from ahabench.harness import lmms_task

EXPORTED = lmms_task.Exported(
    folder=Path(__file__).resolve().parent,
    task={task.name!a},
    task_version={task.version},
    split={dataset.split!a},
    prompt={prompt!a},
    prompt_version={style},
    scorer={scorer!a},
    scorer_version={rules},
)


def doc_to_text(doc):
    return lmms_task.text(EXPORTED, doc)


def doc_to_visual(doc):
    return lmms_task.pictures(EXPORTED, doc)


def doc_to_messages(doc):
    return lmms_task.messages(EXPORTED, doc)


def process_results(doc, results):
    return lmms_task.settle(EXPORTED, doc, results)
'''
    aggregates = [
        f"\n\ndef aggregate_{place}(values):\n    return lmms_task.aggregate(EXPORTED, {metric!a}, values)\n"
        for place, metric in enumerate(_metrics(task))
    ]
    return head + "".join(aggregates)


def _parts(dataset: Dataset, prompt: str, scorer: str) -> tuple[Task, int, int]:
    task = dataset.task
    return task, registry.find_prompt(task, prompt).version, registry.find_scorer(task, scorer).version


def _metrics(task: Task) -> list[str]:
    """Return the metrics, the headline first."""
    return [task.headline, *(name for name in task.metrics if name != task.headline), NO_ANSWER]
