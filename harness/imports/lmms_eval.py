"""Read the sample logs of lmms-eval (`--log_samples`). Written for 0.7.3; older logs have the document besides.

    <date>_samples_<task>.jsonl    one row per document: "doc_id", "target", "filtered_resps", "resps" where it differs,
                                   "token_counts", "input" (the prompt's text), the metrics by name, and, before 0.7,
                                   "doc" (the data set's row without media)
    <date>_results.json            beside it: the command's arguments and the tasks' configurations

(loggers/evaluation_tracker.py, 0.7.3)
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ahabench.harness.errors import UsageError
from ahabench.harness.imports.logs import IMPORTED, Log, LogRow, Said, without_secrets
from ahabench.harness.manifest import EngineRecord, ModelRecord, PixelsRecord, PromptRecord, SamplingRecord

TOOL = "lmms-eval"

TASKS: Mapping[str, str] = {
    "dynamath_reasoning": "dynamath:sample",
    "logicvista_reasoning": "logicvista:test",
    "mathverse_testmini": "mathverse:testmini",
    "mathverse_testmini_reasoning": "mathverse:testmini",
    "mathverse_testmini_text_dominant": "mathverse:text_dominant",
    "mathverse_testmini_text_lite": "mathverse:text_lite",
    "mathverse_testmini_text_only": "mathverse:text_only",
    "mathverse_testmini_vision_dominant": "mathverse:vision_dominant",
    "mathverse_testmini_vision_intensive": "mathverse:vision_intensive",
    "mathverse_testmini_vision_only": "mathverse:vision_only",
    "mathvision_reason_test": "mathvision:test",
    "mathvision_reason_test_reasoning": "mathvision:test",
    "mathvision_reason_testmini": "mathvision:testmini",
    "mathvision_reason_testmini_reasoning": "mathvision:testmini",
    "mathvision_test": "mathvision:test",
    "mathvision_testmini": "mathvision:testmini",
    "mathvista_test": "mathvista:test",
    "mathvista_testmini_cot": "mathvista:testmini",
    "mathvista_testmini_cot_reasoning": "mathvista:testmini",
    "mathvista_testmini_format": "mathvista:testmini",
    "mathvista_testmini_solution": "mathvista:testmini",
    "wemath_testmini_reasoning": "wemath:testmini",
}
"""lmms-eval's tasks (0.7.3) and the splits of ours that they ask; what we export is known by its configuration."""

_SAMPLES = re.compile(r"(?P<date>.*)_samples_(?P<task>.+)\.jsonl")
# What adapters of servers answer in place of an error.
_FAILURES = ("[LMMS_EVAL_REQUEST_FAILED", "[LMMS_EVAL_BUDGET_EXCEEDED")
_MODEL_ARGUMENTS = ("pretrained", "model_version", "model")
# What lmms-eval calls the id that the authors' files call otherwise: in what some tasks log with a score.
_RENAMED = {"question_id": "pid"}


def read_logs(path: Path) -> list[Log]:
    """Return the logs in a samples file, or in every samples file of a results folder.

    Raises:
        UsageError: there is none, two are of one task, or a row is not what lmms-eval writes.
    """
    files = sorted(path.rglob("*_samples_*.jsonl")) if path.is_dir() else [path]
    if not files:
        raise UsageError(f"{path} holds no *_samples_*.jsonl; run lmms-eval with --log_samples --output_path")
    logs = [_log(file) for file in files]
    seen: dict[str, Path] = {}
    for log in logs:
        if (first := seen.setdefault(log.foreign, log.source)) is not log.source:
            raise UsageError(
                f"{path} holds two logs of {log.foreign}: {first.name} and {log.source.name}; give one file"
            )
    return logs


def _log(file: Path) -> Log:
    match = _SAMPLES.fullmatch(file.name)
    task = match["task"] if match else file.stem
    results = _results(file.with_name(f"{match['date']}_results.json")) if match else {}
    config, settings = _part(results, "config"), _part(results, "configs", task)
    generation = _part(settings, "generation_kwargs")
    arguments = str(config.get("model_args") or "")
    batch_size = config.get("batch_size")
    rows = tuple(_row(row, f"{file}:{number}", counted=batch_size in {1, "1"}) for number, row in _objects(file))
    exported = _part(settings, "metadata", "ahabench")
    pixels = dict(re.findall(r"\b(min_pixels|max_pixels)=(\d+)", arguments))
    return Log(
        source=file,
        tool=TOOL,
        foreign=task,
        answers=_exported_name(exported) or TASKS.get(task),
        rows=rows,
        model=ModelRecord(name=_model(results, arguments)),
        engine=_engine(results, config, arguments, task),
        sampling=_sampling(generation, rows, config),
        pixels=PixelsRecord(**{name.removesuffix("_pixels"): int(value) for name, value in pixels.items()}),
        prompt=_prompt(exported),
    )


def _exported_name(exported: Mapping[str, Any]) -> str | None:
    """Return "task:split" of a task that `ahabench export lmms-eval` wrote."""
    task, split = exported.get("task"), exported.get("split")
    return f"{task.partition('@')[0]}:{split}" if isinstance(task, str) and isinstance(split, str) else None


def _prompt(exported: Mapping[str, Any]) -> PromptRecord | None:
    style, _, version = str(exported.get("prompt") or "").partition("@")
    return PromptRecord(style=style, version=int(version)) if version.isdecimal() else None


def _model(results: Mapping[str, Any], arguments: str) -> str | None:
    name = results.get("model_name")
    if isinstance(name, str) and name:
        return name
    found = dict(re.findall(r"(?:^|,)\s*(\w+)=([^,]*)", arguments))
    return next((found[key] for key in _MODEL_ARGUMENTS if found.get(key)), None)


def _engine(results: Mapping[str, Any], config: Mapping[str, Any], arguments: str, task: str) -> EngineRecord:
    adapter, version = config.get("model"), str(results.get("lmms_eval_version") or "")
    options = {IMPORTED: TOOL, "task": task}
    if arguments:
        options["model_args"] = without_secrets(arguments)
    return EngineRecord(
        name=f"{TOOL}:{adapter}" if isinstance(adapter, str) else TOOL,
        # It says "unknown@unknown" where it was not installed from git.
        version=version if version and "unknown" not in version else None,
        options=options,
    )


def _sampling(generation: Mapping[str, Any], rows: tuple[LogRow, ...], config: Mapping[str, Any]) -> SamplingRecord:
    """Return what the configuration says; what it leaves out, the adapter decided."""
    temperature = _number(generation.get("temperature"))
    if temperature is None and generation.get("do_sample") is False:
        temperature = 0.0
    whole = {name: _number(generation.get(name)) for name in ("max_new_tokens", "top_k")}
    return SamplingRecord(
        **{name: int(value) for name, value in whole.items() if value is not None},
        temperature=temperature,
        top_p=_number(generation.get("top_p")),
        repetition_penalty=_number(generation.get("repetition_penalty")),
        samples=max((len(row.said) for row in rows), default=None),
        seed=config["torch_seed"] if isinstance(config.get("torch_seed"), int) else None,
    )


def _row(row: Mapping[str, Any], place: str, *, counted: bool) -> LogRow:
    number, target = row.get("doc_id"), row.get("target")
    doc = row.get("doc")
    fields = {name: _cell(value) for name, value in doc.items()} if isinstance(doc, dict) else {}
    for value in row.values():
        # Some tasks, and all that we export, log what names the item with a score.
        if isinstance(value, dict) and value is not doc:
            fields |= {_RENAMED.get(name, name): _cell(part) for name, part in value.items() if name != "id"}
    asked = row.get("input")
    if not isinstance(asked, str) or not asked:
        asked = fields.get("question")
    return LogRow(
        place=place,
        number=number if isinstance(number, int) and not isinstance(number, bool) else None,
        fields={name: value for name, value in fields.items() if value},
        question=asked,
        golds=(str(target),) if target not in {None, "", "None"} else (),
        said=_said(row, place, counted=counted),
    )


def _said(row: Mapping[str, Any], place: str, *, counted: bool) -> tuple[Said, ...]:
    """Return the responses as the model gave them: "resps" has them whole where a filter cut something out."""
    found = row.get("resps", row.get("filtered_resps"))
    while isinstance(found, list) and len(found) == 1:
        found = found[0]
    texts = found if isinstance(found, list) else [found]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise UsageError(
            f"{place} has neither 'resps' nor 'filtered_resps' with texts; is it a sample log of lmms-eval?"
        )
    counts = row.get("token_counts") if counted else None
    count = counts[0] if isinstance(counts, list) and len(counts) == 1 and isinstance(counts[0], dict) else {}
    tokens = count.get("output_tokens") if len(texts) == 1 else None
    return tuple(
        Said(text=None, error=text[:300])
        if text.startswith(_FAILURES)
        else Said(text=text, completion_tokens=tokens if isinstance(tokens, int) and tokens > 0 else None)
        for text in texts
    )


def _objects(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                row = json.loads(line.decode("utf-8"))
                if not isinstance(row, dict):
                    raise UsageError(f"{file}:{number} is not a JSON object")
                yield number, row
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file}:{number} is not JSON: {error}") from error


def _results(file: Path) -> dict[str, Any]:
    """Return the results beside a log; nothing where they are missing or damaged: they only add to what is known."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _part(whole: Mapping[str, Any], *names: str) -> dict[str, Any]:
    found: Any = whole
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _cell(value: object) -> str:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
