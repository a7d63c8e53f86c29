"""Score what is on disk: a run again, or somebody's responses as a new run."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ahabench.harness import registry
from ahabench.harness.agreement import carried_verdicts
from ahabench.harness.dataset import Dataset, load, subset
from ahabench.harness.digests import file_digest
from ahabench.harness.errors import IncomparableRunsError, IncompleteRunError, UsageError
from ahabench.harness.explain import explain
from ahabench.harness.judge import JUDGE_PROMPT_VERSION, Judge
from ahabench.harness.manifest import MANIFEST, JudgeRecord, Manifest, TaskRecord, read_manifest, write_manifest
from ahabench.harness.report import note, note_excluded, truncation_warning
from ahabench.harness.runlog import (
    METRICS,
    RESPONSES,
    VERDICTS,
    read_responses,
    responses_digest,
    write_metrics,
    write_responses,
    write_verdicts,
)
from ahabench.harness.score import (
    Scores,
    check_answers,
    check_known,
    check_scorable,
    collect,
    judge_responses,
    summarise,
)
from ahabench.harness.types import Response, Task


def score_run(
    run: Path,
    *,
    scorer: str,
    data: Path | None,
    judge: Judge | None = None,
    allow_missing: bool = False,
    only: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Write verdicts and metrics beside the responses of every task of a run, and return the metrics.

    Nothing is written before every task has been judged. A split whose answers are withheld is said and left out.

    Args:
        run: a directory with `run.json`.
        scorer: a scorer that every task of the run has.
        data: where the items are, as for `dataset.load`.
        judge: reads what the rules could not.
        allow_missing: aggregate although responses are missing.
        only: these tasks of the run; all if `None`.

    Raises:
        UsageError: the directory is no run or a shard of one, lacks the task, holds nothing but splits whose answers
            are withheld, or has a damaged row.
        IncomparableRunsError: the items are not those that the run answered.
        IncompleteRunError: responses are missing and that is not allowed; the verdicts are written all the same.
    """
    manifest = read_manifest(run)
    if manifest.shard is not None:
        raise UsageError(
            f"{run} is shard {manifest.shard.index} of {manifest.shard.count} and has no score of its own; "
            f"join the shards with `ahabench merge {run.absolute().parent}` and score that"
        )
    names = list(manifest.tasks) if only is None else list(only)
    for name in names:
        if name not in manifest.tasks:
            raise UsageError(f"{run} holds no responses to {name}; it has {', '.join(manifest.tasks) or 'none'}")
    names = _with_answers(manifest, names)
    prepared = [items_of(manifest.tasks[name], name, data, run) for name in names]
    # Before they are read: where somebody writes meanwhile, the verdicts are then not taken for those of the new file.
    digests = [responses_digest(run / name / RESPONSES) for name in names]
    judged = _judge_all(run, prepared, scorer, judge, manifest.sampling.samples)
    rows, incomplete = [], []
    for name, scores, digest in zip(names, judged, digests, strict=True):
        prompt = manifest.tasks[name].prompt
        style = f"{prompt.style}@{prompt.version}" if prompt else "unknown"
        try:
            rows.append(_derive(run / name, scores, style, allow_missing, judge, digest))
        except IncompleteRunError as error:
            incomplete.append(error)
    record = _judge_record(manifest, names, judge)
    if record != manifest.judge:
        write_manifest(run, manifest.model_copy(update={"judge": record}))
    if incomplete:
        raise incomplete[0]
    return rows


def score_file(
    file: Path,
    task: Task,
    split: str,
    *,
    scorer: str,
    data: Path | None,
    out: Path,
    judge: Judge | None = None,
    allow_missing: bool = False,
    field: str | None = None,
) -> dict[str, Any]:
    """Score a JSONL file of responses, write it as a run, and return the metrics.

    What a bare file does not know (prompt, sampling, engine) stays unknown in the manifest. Several benchmarks' files
    may go into one run.

    Args:
        file: rows with item_id and response, and perhaps sample_index, finish_reason, official_extraction.
        task: the benchmark that the file answers.
        split: its split.
        scorer: one of the task's scorers; not used with `field`.
        data: where the items are, as for `dataset.load`.
        out: the run directory to write; it may hold an earlier scoring of the same responses, and other benchmarks'.
        judge: reads what the rules could not.
        allow_missing: aggregate although items have no row.
        field: aggregate the verdicts that the rows carry under this key, instead of scoring.

    Raises:
        UsageError: a row is malformed or names an item that the task has not; the answers of the split are withheld;
            `out` is an engine's run.
        IncompleteRunError: items have no row and that is not allowed; the verdicts are written all the same.
    """
    check_answers(task, split)
    dataset = load(task, split, data=data)
    responses = list(read_responses(file))
    old = _earlier(out, file, task, responses)
    if field is not None:
        scores = collect(dataset, f"file:{field}", carried_verdicts(file, field))
    else:
        scores = judge_responses(dataset, scorer, responses, judge=judge)
    others = {name: record for name, record in old.tasks.items() if name != task.name}
    whole = not scores.missing and not (others and old.status != "complete")
    manifest = old.model_copy(
        update={
            "status": "complete" if whole else "incomplete",
            "tasks": {**old.tasks, task.name: _record(dataset)},
            "judge": _judge_record(old, [task.name], judge),
        }
    )
    folder = out / task.name
    write_responses(folder / RESPONSES, responses)
    write_manifest(out, manifest)
    return _derive(folder, scores, "unknown", allow_missing, judge, responses_digest(folder / RESPONSES))


def explain_item(
    source: Path, item_id: str, *, task: tuple[Task, str] | None, scorer: str, data: Path | None
) -> list[dict[str, Any]]:
    """Return how each response to an item is read and compared, as `explain.explain`. Writes nothing.

    Args:
        source: a run directory or a JSONL of responses.
        item_id: the item.
        task: the task and split of a file; which of a run's tasks, if it has several.
        scorer: the scorer to explain.
        data: where the items are, as for `dataset.load`.

    Raises:
        UsageError: the task has no such item, or nobody answered it.
    """
    if source.is_dir():
        manifest = read_manifest(source)
        name = task[0].name if task else next(iter(manifest.tasks), "")
        if name not in manifest.tasks or (task is None and len(manifest.tasks) > 1):
            raise UsageError(f"{source} holds {', '.join(manifest.tasks) or 'no tasks'}; name one with --task")
        dataset, file = items_of(manifest.tasks[name], name, data, source), source / name / RESPONSES
    elif task is None:
        raise UsageError(f"{source} does not say which benchmark it answers; give --task NAME")
    else:
        dataset, file = load(task[0], task[1], data=data), source
    check_known(dataset, [item_id])
    found = registry.find_scorer(dataset.task, scorer)
    item = next(item for item in dataset.items if item.id == item_id)
    rows = [explain(found, item, response) for response in read_responses(file) if response.item_id == item_id]
    if not rows:
        raise UsageError(f"{file} has no response to item {item_id!r}")
    return rows


def _with_answers(manifest: Manifest, names: Sequence[str]) -> list[str]:
    """Return the tasks whose answers are public; the others are said.

    Raises:
        UsageError: there are none.
    """
    public, withheld = [], []
    for name in names:
        try:
            check_answers(registry.find_task(name), manifest.tasks[name].split)
            public.append(name)
        except UsageError as error:
            withheld.append(error)
    if withheld and not public:
        raise withheld[0]
    for refusal in withheld:
        note(str(refusal))
    return public


def _judge_all(
    run: Path, prepared: Sequence[Dataset], scorer: str, judge: Judge | None, n_samples: int | None
) -> list[Scores]:
    """Return the scores of every task; whatever refuses one does so before the judge is asked about another."""
    responses = [list(read_responses(run / dataset.task.name / RESPONSES)) for dataset in prepared]
    for dataset, said in zip(prepared, responses, strict=True):
        check_scorable(dataset, scorer, said, has_judge=judge is not None)
    return [
        judge_responses(dataset, scorer, said, judge=judge, n_samples=n_samples)
        for dataset, said in zip(prepared, responses, strict=True)
    ]


def _derive(
    folder: Path, scores: Scores, prompt: str, allow_missing: bool, judge: Judge | None, digest: str
) -> dict[str, Any]:
    """Write verdicts and metrics, which name both files they belong to; stale ones of an incomplete run are removed."""
    write_verdicts(folder / VERDICTS, (row.as_row() for row in scores.judged))
    if scores.judge_failures:
        note(
            f"{scores.dataset.protocol}: the judge failed on {scores.judge_failures:,} responses, "
            "they stay no_answer; run `ahabench score` again when it is back"
        )
    note_excluded(scores.dataset.protocol, scores.scorer, scores.excluded)
    try:
        metrics, refused = summarise(scores, prompt=prompt, allow_missing=allow_missing)
    except IncompleteRunError:
        (folder / METRICS).unlink(missing_ok=True)
        raise
    metrics |= {"responses_sha256": digest, "verdicts_sha256": file_digest(folder / VERDICTS)}
    if judge is not None:
        metrics["judge"] = {"model": judge.served_model, "failures": scores.judge_failures}
    for line in refused:
        note(line)
    if warning := truncation_warning(metrics):
        note(f"{scores.dataset.protocol}: {warning}")
    write_metrics(folder / METRICS, metrics)
    return metrics


def items_of(record: TaskRecord, name: str, data: Path | None, run: Path) -> Dataset:
    """Return the items that a run was to answer, all shards together.

    Args:
        record: the task in the run's manifest.
        name: the task.
        data: where the items are, as for `dataset.load`.
        run: the run directory, for the error.

    Raises:
        IncomparableRunsError: the items there are not those of the run.
    """
    dataset = load(registry.find_task(name), record.split, data=data, revision=record.revision)
    if record.data_digest is not None and record.data_digest != dataset.digest:
        raise IncomparableRunsError(
            f"{run} answered other items of {dataset.protocol}: data digest {record.data_digest[:12]} there, "
            f"{dataset.digest[:12]} here. Give the --data or hub revision of the run."
        )
    if record.limit is None:
        return dataset
    return replace(dataset, items=subset(dataset.items, record.limit))


def _record(dataset: Dataset) -> TaskRecord:
    return TaskRecord(
        split=dataset.split,
        source=dataset.source,
        revision=dataset.revision,
        data_digest=dataset.digest,
        n_items=len(dataset.items),
    )


def _judge_record(manifest: Manifest, names: Sequence[str], judge: Judge | None) -> JudgeRecord | None:
    """Return whose readings stand in the run's verdicts, once these tasks have been scored with `judge`."""
    if judge is not None:
        return JudgeRecord(
            model=judge.model, url=judge.url, served_model=judge.served_model, prompt_version=JUDGE_PROMPT_VERSION
        )
    return manifest.judge if manifest.tasks.keys() - set(names) else None


def _earlier(out: Path, file: Path, task: Task, responses: list[Response]) -> Manifest:
    """Return the manifest of the run of files to go on with, a new one where there is none.

    Raises:
        UsageError: something else stands there, that must not be lost.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file, wanted a run directory")
    if not (out / MANIFEST).exists():
        if out.exists() and any(out.iterdir()):
            raise UsageError(f"--out {out} is not empty and holds no run; give a new folder for {file.name}")
        return Manifest(status="complete")
    manifest = read_manifest(out)
    if manifest.engine.name is not None:
        raise UsageError(
            f"--out {out} is a run of an engine, its {task.name} responses would be lost; give a new folder"
        )
    path = out / task.name / RESPONSES
    if path.exists() and list(read_responses(path)) != [_as_kept(response) for response in responses]:
        # They are a copy of an earlier FILE, which the user may have corrected since.
        note(f"{out} held other {task.name} responses; it has those of {file.name} now")
    return manifest


def _as_kept(response: Response) -> Response:
    """Return a response as it comes back from a run's file, where only what has no text has an error."""
    return response if response.text is None else replace(response, error=None)
