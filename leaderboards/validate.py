"""Check a submitted run: its files, that every item was answered exactly once, and that it scores what it claims."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ahabench.harness import registry
from ahabench.harness.errors import AhabenchError, DatasetError, IncompleteRunError, UsageError
from ahabench.harness.manifest import MANIFEST, Manifest, read_manifest
from ahabench.harness.rescore import items_of
from ahabench.harness.runlog import METRICS, RESPONSES, VERDICTS, Key, parse_response, read_rows
from ahabench.harness.score import MAX_SAMPLES, judge_responses, summarise
from ahabench.harness.types import Response
from ahabench.leaderboards.claims import Claims, check_asked
from ahabench.leaderboards.run_files import held, strange_files
from ahabench.leaderboards.runs import Reader, read_card, read_objects

CLOSE = 1e-9
SHOWN = 20
"""Problems of a run that are named; the last line counts the rest."""
LONGEST = 400
"""Characters of what is said of one problem: it may quote the submission."""


@dataclass(slots=True, kw_only=True)
class Findings:
    """What is wrong with a run, and what is missing or could not be checked."""

    run: str
    problems: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What its rows do not say, or cannot be held against here, and refuses no run."""
    tasks: dict[str, str] = field(default_factory=dict)
    """What was found of each task, in words."""

    @property
    def ok(self) -> bool:
        """Whether the run can be taken: nothing is wrong, and all was checked."""
        return not self.problems and not self.unchecked

    def as_row(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "run": self.run,
            "ok": self.ok,
            "problems": self.problems,
            "unchecked": self.unchecked,
            "notes": self.notes,
            "tasks": self.tasks,
        }


def validate(folder: Path, *, data: Path | None = None) -> list[Findings]:
    """Return the findings on a run, or on all that a folder of runs holds: what is no run is refused. Writes nothing.

    Args:
        folder: a run directory, or a folder of such.
        data: where the items are, as for `dataset.load`; the built-in suite needs none.

    Raises:
        UsageError: there is no such folder, or it is empty.
    """
    found = held(folder)
    strange = [Findings(run=name, problems=_short([what])) for name, what in found.strangers.items()]
    checked = [_validate(run, data) for run in found.runs]
    return sorted([*strange, *checked], key=lambda one: one.run)


def _validate(run: Path, data: Path | None) -> Findings:
    found = Findings(run=run.name)
    try:
        found.problems += strange_files(run)
        if not found.problems:
            manifest = read_manifest(run)
            Reader().read(run, "run")
            found.problems += _promises(run, manifest)
            found.unchecked += _absent(run, manifest)
            if found.ok:
                for task in manifest.tasks:
                    _check(found, run, manifest, task, data)
    except AhabenchError as error:
        found.problems.append(str(error))
    except OSError as error:
        found.problems.append(f"{error.filename or run} cannot be read: {error.strerror}")
    found.problems = _short(found.problems)
    found.unchecked = _short(found.unchecked)
    found.notes = _short(found.notes)
    return found


def _check(found: Findings, run: Path, manifest: Manifest, task: str, data: Path | None) -> None:
    try:
        problems = list(_task(found, run, manifest, task, data))
        found.problems += problems
        found.tasks[task] = "differs" if problems else "scores again to what is claimed"
    except DatasetError as error:
        found.unchecked.append(f"{task}: the items are not at hand, so its scores were not checked: {error}")
    except IncompleteRunError as error:
        found.unchecked.append(str(error))
    except AhabenchError as error:
        found.problems.append(f"{task}: {error}")


def _short(lines: list[str]) -> list[str]:
    shown = [line if len(line) <= LONGEST else f"{line[:LONGEST]}…" for line in lines[:SHOWN]]
    return shown if len(lines) <= SHOWN else [*shown, f"and {len(lines) - SHOWN:,} more"]


def _promises(run: Path, manifest: Manifest) -> Iterator[str]:
    """Yield what a manifest lacks of what a public number must say."""
    if manifest.status != "complete":
        yield f"{MANIFEST}: the run is {manifest.status}, wanted complete"
    if not manifest.tasks:
        yield f"{MANIFEST} names no benchmark"
    for what, value in (
        ("model.name", manifest.model.name),
        ("engine.name", manifest.engine.name),
        ("sampling.max_new_tokens", manifest.sampling.max_new_tokens),
        ("sampling.temperature", manifest.sampling.temperature),
    ):
        if value is None:
            yield f"{MANIFEST}: {what} is not known; a submission says it"
    if manifest.engine.name in {"transformers", "vllm"} and manifest.model.weights_digest is None:
        yield f"{MANIFEST}: model.weights_digest is not known; a submission says which weights answered"
    if read_card(run).name is None:
        yield "model.toml does not give the model's name"
    for task, record in manifest.tasks.items():
        if record.prompt is None:
            yield f"{MANIFEST}: {task} does not say its prompt style"
        if record.data_digest is None:
            yield f"{MANIFEST}: {task} has no data digest"
        if record.n_items < 1:
            yield f"{MANIFEST}: {task} has {record.n_items} items"
        if record.limit is not None and record.limit < 1:
            yield f"{MANIFEST}: {task} has the limit {record.limit}"
        for name in (METRICS, VERDICTS):
            if not (run / task / name).exists():
                yield f"{task}/{name} is missing; run `ahabench score` on the run"
    samples = manifest.sampling.samples
    if samples is not None and not 1 <= samples <= MAX_SAMPLES:
        yield f"{MANIFEST}: sampling.samples is {samples:,}, wanted 1 to {MAX_SAMPLES:,}"
    for folder in sorted(path.name for path in run.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if folder not in manifest.tasks:
            yield f"{folder}/ is no benchmark that {MANIFEST} names"


def _absent(run: Path, manifest: Manifest) -> Iterator[str]:
    for task in manifest.tasks:
        if not (run / task / RESPONSES).exists():
            yield f"{task}/{RESPONSES} is missing, so nothing can be scored again"


def _task(found: Findings, run: Path, manifest: Manifest, task: str, data: Path | None) -> Iterator[str]:
    """Yield how what a benchmark's rows, verdicts and metrics claim differs from what they must be."""
    claimed = _object(run / task / METRICS)
    scorer, _, version = str(claimed.get("scorer")).partition("@")
    rules = registry.find_scorer(registry.find_task(task), scorer)
    if version != str(rules.version):
        yield f"{task}: scored by {scorer}@{version}, this ahabench has {scorer}@{rules.version}; score it again"
        return
    if manifest.judge is not None:
        yield (
            f"{task}: a judge read a part of the answers, which cannot be repeated here; "
            "submit the run scored without it"
        )
        return
    record = manifest.tasks[task]
    dataset = items_of(record, task, data, run)
    if record.n_items != len(dataset.items):
        yield f"{task}: {MANIFEST} counts {record.n_items:,} items, there are {len(dataset.items):,}"
        return
    prompt = record.prompt
    named = f"{prompt.style}@{prompt.version}" if prompt else "unknown"
    known = {f"{style}@{one.version}" for style, one in dataset.task.prompts.items()}
    if prompt is None or named not in known:
        yield f"{task}: asked in {named}; this ahabench has {', '.join(sorted(known))}"
        return
    samples = manifest.sampling.samples
    responses, claims = _responses(run / task / RESPONSES, len(dataset.items) * (samples or MAX_SAMPLES))
    scores = judge_responses(dataset, scorer, responses, n_samples=samples)
    if scores.missing:
        item_id, index = scores.missing[0]
        raise IncompleteRunError(
            f"{task}: {len(scores.missing):,} responses are missing, the first is item {item_id} sample {index}"
        )
    asked = check_asked(dataset, dataset.task.prompts[prompt.style], manifest, claims)
    found.notes += asked.notes
    yield from asked.problems
    again, _ = summarise(scores, prompt=named)
    # Through JSON, as the claimed ones came.
    ours = {(row.item_id, row.sample_index): json.loads(json.dumps(row.as_row())) for row in scores.judged}
    yield from _turned(task, _verdicts(run / task / VERDICTS), ours)
    for name, value in again.items():
        if name not in claimed:
            yield f"{task}: {METRICS} has no {name!r}; score the run again"
        elif not _same(claimed[name], json.loads(json.dumps(value))):
            yield f"{task}: {name} in {METRICS} is not what the responses give"


def _responses(path: Path, most: int) -> tuple[list[Response], Claims]:
    found: list[Response] = []
    claims = Claims()
    for number, row in read_rows(path):
        response = parse_response(row, path, number)
        found.append(response)
        claims.note((response.item_id, response.sample_index), row, response.images_sha256)
        if len(found) > most:
            raise UsageError(f"{path} has more than the {most:,} responses that its items have")
    return found, claims


def _turned(
    task: str, claimed: Mapping[Key, Mapping[str, Any]], ours: Mapping[Key, Mapping[str, Any]]
) -> Iterator[str]:
    if claimed.keys() != ours.keys():
        yield f"{task}: {VERDICTS} has {len(claimed):,} rows, the responses give {len(ours):,}"
    different = 0
    first = ""
    for key, row in ours.items():
        theirs = claimed.get(key)
        names = [name for name, value in row.items() if theirs is not None and not _same(theirs.get(name), value)]
        if theirs is not None and names:
            different += 1
            first = first or (
                f"item {key[0]} sample {key[1]}: {names[0]} {theirs.get(names[0])!r} claimed, {row[names[0]]!r} found"
            )
    if different:
        yield f"{task}: {different:,} verdicts are not what the responses give, the first is {first}"


def _verdicts(path: Path) -> dict[Key, Mapping[str, Any]]:
    found: dict[Key, Mapping[str, Any]] = {}
    for number, row in read_objects(path):
        key = row.get("item_id"), row.get("sample_index")
        if not isinstance(key[0], str) or type(key[1]) is not int:
            raise UsageError(f"{path}:{number} is no verdict: item_id {key[0]!r}, sample_index {key[1]!r}")
        if (key[0], key[1]) in found:
            raise UsageError(f"{path}:{number} repeats item {key[0]!r}, sample {key[1]}")
        found[key[0], key[1]] = row
    return found


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} is a {type(found).__name__}, wanted an object")
    return found


def _same(first: object, second: object) -> bool:
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_same(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_same, first, second))
    if isinstance(first, float) and isinstance(second, int | float):
        return abs(first - second) <= CLOSE
    return first == second
