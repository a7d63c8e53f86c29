"""A run's responses as rows for other tools: Parquet, and the sample logs of lmms-eval."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ahabench.harness.disk import replace_file
from ahabench.harness.manifest import Manifest, read_manifest
from ahabench.leaderboards.run_items import Answered, answered, chosen_tasks
from ahabench.leaderboards.runs import model_name

INTEGERS = frozenset({"sample_index", "completion_tokens", "prompt_tokens"})
"""Columns of Parquet that are not text."""


def write_parquet(run: Path, out: Path, *, data: Path | None = None) -> list[Path]:
    """Write one <task>.parquet for each task of a run, a row per response, and return the files.

    Columns: task, split, item_id, sample_index, cluster, question, gold, prompt, system, response, finish_reason,
    completion_tokens, prompt_tokens, status, extracted, rule, and tags as JSON: numbers are integers, all else is text,
    also where a run says none. No images.

    Raises:
        UsageError: a file is damaged, or the disk refuses.
        DatasetError: the items are not at hand.
    """
    import io

    import pandas as pd

    manifest, written = read_manifest(run), []
    for task in chosen_tasks(manifest, run, None):
        frame = pd.DataFrame(list(map(_row, answered(run, manifest, task, data=data))))
        frame = frame.astype({name: "Int64" if name in INTEGERS else "string" for name in frame})
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        path = out / f"{task}.parquet"
        replace_file(path, [buffer.getvalue()])
        written.append(path)
    return written


def write_lmms_eval_log(run: Path, out: Path, *, data: Path | None = None) -> list[Path]:
    """Write a run as lmms-eval logs samples (0.7.3), one ahabench_samples_<task>.jsonl per task, and return the files.

    The metric of a row is "ahabench", 1.0 or 0.0, and its "filtered_resps" is the text that was scored.

    Raises:
        UsageError: a file is damaged, or the disk refuses.
        DatasetError: the items are not at hand.
    """
    manifest, written = read_manifest(run), []
    for task in chosen_tasks(manifest, run, None):
        path = out / f"ahabench_samples_{task}_{manifest.tasks[task].split}.jsonl"
        rows = _samples(answered(run, manifest, task, data=data))
        replace_file(path, (json.dumps(row, ensure_ascii=True).encode() + b"\n" for row in rows))
        written.append(path)
    results = out / "ahabench_results.json"
    replace_file(results, [json.dumps(_results(manifest), indent=2).encode() + b"\n"])
    return [*written, results]


def _row(one: Answered) -> dict[str, Any]:
    verdict = one.verdict or {}
    return {
        "task": one.task,
        "split": one.split,
        "item_id": one.item.id,
        "sample_index": one.response.sample_index,
        "cluster": one.item.cluster,
        "question": one.item.question,
        "gold": one.item.gold,
        "prompt": one.prompt.text if one.prompt else None,
        "system": one.prompt.system if one.prompt else None,
        "response": one.response.text.encode("utf-8", "replace").decode() if one.response.text is not None else None,
        "finish_reason": one.response.finish_reason,
        "completion_tokens": one.response.completion_tokens,
        "prompt_tokens": one.response.prompt_tokens,
        "status": verdict.get("status"),
        "extracted": verdict.get("extracted"),
        "rule": verdict.get("rule"),
        "tags": json.dumps({name: list(values) for name, values in one.item.tags.items()}, ensure_ascii=False),
    }


def _samples(rows: Iterator[Answered]) -> Iterator[dict[str, Any]]:
    """Yield one row per item: lmms-eval has the samples of a document together."""
    place = -1
    waiting: list[Answered] = []
    for one in rows:
        if waiting and waiting[0].item.id != one.item.id:
            place += 1
            yield _sample(place, waiting)
            waiting = []
        waiting.append(one)
    if waiting:
        yield _sample(place + 1, waiting)


def _sample(place: int, said: list[Answered]) -> dict[str, Any]:
    first = said[0]
    texts = [one.response.text or "" for one in said]
    right = [one.verdict["status"] == "correct" for one in said if one.verdict is not None]
    return {
        "doc_id": place,
        "doc": {"id": first.item.id, "question": first.item.question, "answer": first.item.gold},
        "target": first.item.gold or "",
        "input": first.prompt.text if first.prompt else first.item.question,
        "resps": [texts],
        "filtered_resps": texts,
        "token_counts": [[{"output_tokens": one.response.completion_tokens} for one in said]],
        "ahabench": sum(right) / len(right) if right else None,
    }


def _results(manifest: Manifest) -> dict[str, Any]:
    return {
        "config": {"model": "ahabench", "model_args": f"pretrained={model_name(manifest) or 'unknown'}"},
        "model_name": model_name(manifest) or "unknown",
    }
