"""Check a submitted run: its files, that every item was answered exactly once, and that it scores what it claims."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ahabench.harness import registry
from ahabench.harness.errors import AhabenchError, DatasetError, UsageError
from ahabench.harness.manifest import MANIFEST, Manifest, read_manifest
from ahabench.harness.rescore import items_of
from ahabench.harness.runlog import METRICS, RESPONSES, VERDICTS, read_responses
from ahabench.harness.score import judge_responses, summarise
from ahabench.leaderboards.runs import Reader, read_card, read_objects

CARRIED = ("metrics", "n_items", "n_samples", "excluded", "missing", "headline", "rates", "breakdown")
"""The keys of `metrics.json` that a re-scoring must give again."""
CLOSE = 1e-9
LARGEST = 2_000_000_000
"""Bytes that a file of a run may have."""
_FILES = {MANIFEST, "model.toml", "README.md", "LICENSE", "log.jsonl"}
_TASK_FILES = {RESPONSES, VERDICTS, METRICS}


@dataclass(slots=True, kw_only=True)
class Findings:
    """What is wrong with a run, and what could not be checked."""

    run: str
    problems: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
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
            "tasks": self.tasks,
        }


def validate(folder: Path, *, data: Path | None = None) -> list[Findings]:
    """Return the findings on a run, or on each run of a folder of runs. Writes nothing there.

    Args:
        folder: a run directory, or a folder of such.
        data: where the items are, as for `dataset.load`; the built-in suite needs none.

    Raises:
        UsageError: the folder holds no run.
    """
    if (folder / MANIFEST).exists():
        return [_validate(folder, data)]
    runs = sorted(one for one in folder.iterdir() if (one / MANIFEST).exists()) if folder.is_dir() else []
    if not runs:
        raise UsageError(f"{folder} is no run and holds none: no {MANIFEST} in it or in a folder of it")
    return [_validate(run, data) for run in runs]


def _validate(run: Path, data: Path | None) -> Findings:
    found = Findings(run=run.name)
    try:
        found.problems += _strange_files(run)
        manifest = read_manifest(run)
        Reader().read(run, "run")
        found.problems += _promises(run, manifest)
        if found.problems:
            return found
    except AhabenchError as error:
        found.problems.append(str(error))
        return found
    for task in manifest.tasks:
        try:
            problems = list(_task(run, manifest, task, data))
            found.problems += problems
            found.tasks[task] = "differs" if problems else "scores again to what is claimed"
        except DatasetError as error:
            found.unchecked.append(f"{task}: the items are not at hand, so its scores were not checked: {error}")
        except AhabenchError as error:
            found.problems.append(f"{task}: {error}")
    return found


def _strange_files(run: Path) -> Iterator[str]:
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.is_symlink():
            yield f"{name} is a link: a run holds plain files"
        elif path.is_dir():
            if path.parent != run:
                yield f"{name} is a folder within a benchmark's"
        elif not path.name.startswith("."):
            known = _FILES if path.parent == run else _TASK_FILES
            if path.name not in known:
                yield f"{name} is no file of a run"
            elif path.stat().st_size > LARGEST:
                yield f"{name} has more than {LARGEST:,} bytes"


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
        for name in sorted(_TASK_FILES):
            if not (run / task / name).exists():
                yield f"{task}/{name} is missing"


def _task(run: Path, manifest: Manifest, task: str, data: Path | None) -> Iterator[str]:
    """Yield how a benchmark's claimed verdicts and metrics differ from those that its responses give."""
    claimed = json.loads((run / task / METRICS).read_bytes())
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
    dataset = items_of(manifest.tasks[task], task, data, run)
    responses = list(read_responses(run / task / RESPONSES))
    scores = judge_responses(dataset, scorer, responses, n_samples=manifest.sampling.samples)
    if scores.missing:
        item_id, index = scores.missing[0]
        yield f"{task}: {len(scores.missing):,} responses are missing, the first is item {item_id} sample {index}"
        return
    verdicts = {(str(row["item_id"]), row["sample_index"]): row for _, row in read_objects(run / task / VERDICTS)}
    ours = {(row.item_id, row.sample_index): row.as_row() for row in scores.judged}
    if verdicts.keys() != ours.keys():
        yield f"{task}: {VERDICTS} has {len(verdicts):,} rows, the responses give {len(ours):,}"
    different = [
        key
        for key, row in ours.items()
        if key in verdicts and any(verdicts[key].get(name) != row[name] for name in ("status", "extracted", "rule"))
    ]
    if different:
        key = different[0]
        yield (
            f"{task}: {len(different):,} verdicts are not what the responses give, the first is item {key[0]} sample "
            f"{key[1]}: {verdicts[key].get('status')} claimed, {ours[key]['status']} found"
        )
    prompt = manifest.tasks[task].prompt
    again, _ = summarise(scores, prompt=f"{prompt.style}@{prompt.version}" if prompt else "unknown")
    for name in CARRIED:
        if not _same(claimed.get(name), json.loads(json.dumps(again[name]))):
            yield f"{task}: {name} in {METRICS} is not what the responses give"


def _same(first: object, second: object) -> bool:
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_same(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_same, first, second))
    if isinstance(first, float) and isinstance(second, int | float):
        return abs(first - second) <= CLOSE
    return first == second
