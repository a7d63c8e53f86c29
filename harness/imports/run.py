"""Logs of other tools as a run of ours, scored."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ahabench.harness import registry, rescore
from ahabench.harness.dataset import Dataset, load
from ahabench.harness.errors import UsageError, unknown_name
from ahabench.harness.imports import lmms_eval, vlmevalkit
from ahabench.harness.imports.logs import IMPORTED, Log
from ahabench.harness.imports.matching import item_ids
from ahabench.harness.judge import Judge
from ahabench.harness.manifest import MANIFEST, Manifest, Record, TaskRecord, read_manifest, write_manifest
from ahabench.harness.report import note
from ahabench.harness.runlog import RESPONSES, write_responses
from ahabench.harness.score import check_answers, check_scorable
from ahabench.harness.types import Response, Task

Part = TypeVar("Part", bound=Record)


TOOLS: Mapping[str, Callable[[Path], list[Log]]] = {
    lmms_eval.TOOL: lmms_eval.read_logs,
    vlmevalkit.TOOL: vlmevalkit.read_logs,
}
"""What `ahabench score --from` takes."""


class _Imported(NamedTuple):
    log: Log
    dataset: Dataset
    responses: list[Response]


def score_logs(
    tool: str,
    path: Path,
    *,
    task: tuple[Task, str] | None,
    scorer: str,
    data: Path | None,
    out: Path,
    judge: Judge | None = None,
    allow_missing: bool = False,
) -> list[dict[str, Any]]:
    """Write another tool's logs as a run, score it, and return the metrics.

    What the logs know of model, prompt and sampling stands in the manifest; the rest is unknown there.

    Args:
        tool: one of `TOOLS`.
        path: a log, or a folder of logs.
        task: the benchmark and split that the log answers; `None` goes by the log's own name.
        scorer: a scorer that every benchmark has.
        data: where the items are, as for `dataset.load`.
        out: the run directory to write; it may hold an earlier import.
        judge: reads what the rules could not.
        allow_missing: aggregate although items have no row.

    Raises:
        UsageError: a log cannot be read or is of no benchmark that is known, rows cannot be mapped to items with
            certainty, the scorer needs a judge, or `out` holds something else.
        IncompleteRunError: items have no response and that is not allowed; the verdicts are written all the same.
    """
    logs = _chosen(_read(tool, path), path, task)
    for _, (found, split) in logs:
        check_answers(found, split)
        registry.find_scorer(found, scorer)
    parts = [_imported(log, load(found, split, data=data)) for log, (found, split) in logs]
    for part in parts:
        check_scorable(part.dataset, scorer, part.responses, has_judge=judge is not None)
    manifest = _manifest(parts, _earlier(out))
    for part in parts:
        write_responses(out / part.dataset.task.name / RESPONSES, part.responses)
    write_manifest(out, manifest)
    return rescore.score_run(
        out,
        scorer=scorer,
        data=data,
        judge=judge,
        allow_missing=allow_missing,
        only=[part.dataset.task.name for part in parts],
    )


def _read(tool: str, path: Path) -> list[Log]:
    if tool not in TOOLS:
        raise unknown_name("log format", tool, list(TOOLS))
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    return TOOLS[tool](path)


def _chosen(logs: Sequence[Log], path: Path, task: tuple[Task, str] | None) -> list[tuple[Log, tuple[Task, str]]]:
    """Return the logs with the splits that they answer, one per benchmark.

    Raises:
        UsageError: none is left, or two answer one benchmark.
    """
    chosen: dict[str, tuple[Log, tuple[Task, str]]] = {}
    for log in logs:
        pair = registry.parse_tasks(log.answers)[0] if log.answers else task if len(logs) == 1 else None
        if pair is None:
            note(
                f"{log.source} is left out: {log.foreign!r} is no benchmark that is known; import it alone, with --task"
            )
            continue
        if task is not None and _named(pair) != _named(task):
            if len(logs) == 1:
                raise UsageError(f"{log.source} answers {log.foreign!r}, which is {_named(pair)}, not {_named(task)}")
            continue
        if (other := chosen.get(pair[0].name)) is not None:
            names = f"{other[0].source.name} and {log.source.name}"
            raise UsageError(f"{path} holds two logs of {pair[0].name}: {names}; give one file")
        chosen[pair[0].name] = log, pair
    if not chosen:
        hint = f"of {_named(task)}" if task else "of a benchmark that is known; name it with --task"
        raise UsageError(f"{path} has no log {hint}")
    return list(chosen.values())


def _named(pair: tuple[Task, str]) -> str:
    return f"{pair[0].name}:{pair[1]}"


def _imported(log: Log, dataset: Dataset) -> _Imported:
    responses = [
        Response(
            item_id=item_id,
            sample_index=index,
            text=said.text,
            finish_reason="error" if said.text is None else None,
            completion_tokens=said.completion_tokens,
            error=said.error,
        )
        for row, item_id in zip(log.rows, item_ids(dataset, log.rows), strict=True)
        for index, said in enumerate(row.said)
    ]
    failed = [response for response in responses if response.text is None]
    if failed:
        note(
            f"{log.source.name}: {len(failed):,} of {len(responses):,} rows have no response, the first is item "
            f"{failed[0].item_id!r}: {failed[0].error}"
        )
    return _Imported(log, dataset, responses)


def _manifest(parts: Sequence[_Imported], earlier: Manifest | None) -> Manifest:
    """Return what all logs agree on, those that the run holds already included."""
    counts = [max(1 + response.sample_index for response in part.responses) for part in parts]
    manifests = [_manifest_of(part, count) for part, count in zip(parts, counts, strict=True)]
    names = {name for manifest in manifests for name in manifest.tasks}
    if earlier is not None and (kept := {name: record for name, record in earlier.tasks.items() if name not in names}):
        manifests.append(earlier.model_copy(update={"tasks": kept}))
    models = sorted({manifest.model.name for manifest in manifests if manifest.model.name is not None})
    if len(models) > 1:
        raise UsageError(f"the logs are of {len(models)} models ({', '.join(models)}); give each its own --out")
    engine = _common([manifest.engine for manifest in manifests])
    return Manifest(
        status="complete" if all(manifest.status == "complete" for manifest in manifests) else "incomplete",
        model=_common([manifest.model for manifest in manifests]),
        engine=engine.model_copy(update={"options": _options(manifests)}),
        sampling=_common([manifest.sampling for manifest in manifests]),
        pixels=_common([manifest.pixels for manifest in manifests]),
        tasks={name: record for manifest in reversed(manifests) for name, record in manifest.tasks.items()},
    )


def _manifest_of(part: _Imported, samples: int) -> Manifest:
    log, dataset = part.log, part.dataset
    record = TaskRecord(
        split=dataset.split,
        source=dataset.source,
        revision=dataset.revision,
        data_digest=dataset.digest,
        n_items=len(dataset.items),
        prompt=log.prompt,
    )
    texts = sum(response.text is not None for response in part.responses)
    return Manifest(
        status="complete" if texts == len(dataset.items) * samples else "incomplete",
        model=log.model,
        engine=log.engine,
        sampling=log.sampling.model_copy(update={"samples": samples}),
        pixels=log.pixels,
        tasks={dataset.task.name: record},
    )


def _common(records: Sequence[Part]) -> Part:
    """Return what the records agree on; the rest is unknown."""
    first = records[0]
    differing = {
        name: None
        for name, field in type(first).model_fields.items()
        if field.default is None and any(getattr(record, name) != getattr(first, name) for record in records)
    }
    return first.model_copy(update=differing)


def _options(manifests: Sequence[Manifest]) -> dict[str, str]:
    """Return what the tools were told; what differs between logs is left out, but for the tools' names."""
    options = [manifest.engine.options for manifest in manifests]
    shared = dict(sorted(set.intersection(*(set(one.items()) for one in options))))
    return shared | {IMPORTED: ", ".join(sorted({one[IMPORTED] for one in options}))}


def _earlier(out: Path) -> Manifest | None:
    """Return the manifest of an import to go on with; `None` where nothing stands yet.

    Raises:
        UsageError: something else stands there, that must not be lost.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file, wanted a run directory")
    if (out / MANIFEST).exists():
        manifest = read_manifest(out)
        if IMPORTED not in manifest.engine.options:
            raise UsageError(f"--out {out} holds a run that is no import, which would be lost; give a new folder")
        return manifest
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"--out {out} is not empty and holds no run; give a new folder")
    return None
