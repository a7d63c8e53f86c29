"""Generate: benchmarks and an engine to responses on disk. Nothing is scored here."""

import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from platform import python_version

from ahabench.harness.dataset import Dataset
from ahabench.harness.disk import locked, refusals
from ahabench.harness.engines import EngineInfo, OpenEngine
from ahabench.harness.errors import AhabenchError, DatasetError, EngineError, UsageError
from ahabench.harness.images import ImageFile
from ahabench.harness.manifest import MANIFEST, GitRecord, Manifest, PromptRecord, TaskRecord
from ahabench.harness.progress import Progress, console_progress
from ahabench.harness.prompts import digest
from ahabench.harness.runlog import RESPONSES, Key, ResponseLog, read_manifest, read_responses, write_manifest
from ahabench.harness.types import PromptStyle, Request

_PACKAGES = (
    "ahabench",
    "accelerate",
    "datasets",
    "huggingface-hub",
    "numpy",
    "peft",
    "pillow",
    "safetensors",
    "tokenizers",
    "torch",
    "torchvision",
    "transformers",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPlan:
    """One benchmark to generate for."""

    dataset: Dataset
    """With the items to ask, which `limit` may have made fewer; its digest stays that of the whole split."""
    style: str
    """The name of the prompt style."""
    prompt: PromptStyle
    limit: int | None = None
    """The limit that was applied to the items, for the manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one command is to generate.

    Raises:
        UsageError: two splits of one task; `samples` below 1.
    """

    tasks: tuple[TaskPlan, ...]
    samples: int = 1
    """Responses per item."""
    system_prompt: str | None = None
    """Takes the place of the styles' own system prompts; `None` leaves them alone."""

    def __post_init__(self) -> None:
        """Check that each task has a folder of its own in the run."""
        names = [task.dataset.task.name for task in self.tasks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UsageError(
                f"{twice[0]} is asked for twice; a run holds one split of a task, give another its own --out"
            )
        if self.samples < 1:
            raise UsageError(f"samples is {self.samples}, wanted at least 1")


@dataclass(frozen=True, slots=True)
class _Work:
    """One task with its requests and their prompts' digests, in the order of the items."""

    name: str
    requests: dict[Key, Request]
    prompts: dict[Key, str]
    failed: dict[Key, str] = field(default_factory=dict)
    """Why a request got no text."""


def run(plan: Plan, engine: OpenEngine, out: Path, *, progress: Progress | None = None) -> Manifest:
    """Generate what a run directory still lacks, and return its manifest.

    The manifest is written first, with the status "running"; each response is on the disk before the next is counted.
    Whatever stops it, the same call goes on where it stopped: every (item, sample) ends up in the run exactly once.
    Responses that are errors are asked for again. A later call may add tasks to a run.

    Args:
        plan: what to generate.
        engine: what generates; its `info` is recorded.
        out: the run directory, which is made if need be.
        progress: is told how it goes; stderr if `None`.

    Returns:
        The manifest, whose status is "complete" if every item of every task in the run has a text for every sample, and
        "incomplete" otherwise.

    Raises:
        UsageError: the directory holds a run made with something else, is being written by another process, or the
            disk refuses.
        DatasetError: images are missing (nothing is generated then).
        EngineError: the engine gave up; what it had answered is kept.
        KeyboardInterrupt: after the manifest says "incomplete", and one line how to go on.
    """
    progress = progress or console_progress()
    text_only = bool(engine.info.model.text_only)
    if not text_only:
        _check_images(plan)
    work = [_work(task, plan, text_only=text_only) for task in plan.tasks]
    planned = _manifest(plan, engine.info, work)
    with ExitStack() as stack:
        with refusals(out):
            out.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(out / MANIFEST))
        manifest = _join(out, planned, progress)
        logs = [stack.enter_context(ResponseLog(out / part.name / RESPONSES)) for part in work]
        for part, log in zip(work, logs, strict=True):
            _check_prompts(out, part, log)
        write_manifest(out, manifest)
        try:
            for part, log in zip(work, logs, strict=True):
                _generate(part, log, engine, progress)
        except BaseException as error:
            # The first error is what the user must see, not what a full disk says to this.
            with suppress(AhabenchError):
                write_manifest(out, manifest.model_copy(update={"status": "incomplete"}))
            if isinstance(error, KeyboardInterrupt):
                progress.note(f"interrupted; what is written to {out} stays: run the same command again to go on")
            raise
        _report_failures(work, progress)
        status = "complete" if _is_complete(out, manifest, work, logs) else "incomplete"
        finished = manifest.model_copy(update={"status": status})
        write_manifest(out, finished)
        return finished


def _generate(part: _Work, log: ResponseLog, engine: OpenEngine, progress: Progress) -> None:
    pending = [request for key, request in part.requests.items() if key not in log.done]
    if not pending:
        return
    wanted = {(request.item_id, request.sample_index) for request in pending}
    progress.start(part.name, done=len(part.requests) - len(pending), total=len(part.requests))
    try:
        for response in engine.generate(pending):
            key = (response.item_id, response.sample_index)
            if key not in wanted or key in log.done:
                raise EngineError(f"the engine answered item {key[0]!r}, sample {key[1]}, which it was not asked")
            if response.text is None:
                part.failed[key] = response.error or "no reason given"
            log.append(response, part.prompts[key])
            progress.advance(response)
    finally:
        progress.stop()
    for key in wanted - log.done:
        part.failed[key] = "the engine did not answer"


def _check_images(plan: Plan) -> None:
    """Refuse a plan of which image files are missing, before hours are spent on the others."""
    for task in plan.tasks:
        files = [image.path for item in task.dataset.items for image in item.images if isinstance(image, ImageFile)]
        missing = [path for path in files if not path.is_file()]
        if missing:
            raise DatasetError(
                f"{task.dataset.protocol}: {len(missing)} of {len(files)} images are missing, such as "
                f"{', '.join(map(str, missing[:3]))}; give the official folder with its images by --data DIR"
            )


def _work(task: TaskPlan, plan: Plan, *, text_only: bool) -> _Work:
    requests: dict[Key, Request] = {}
    prompts: dict[Key, str] = {}
    for item in task.dataset.items:
        prompt = task.prompt.render(item)
        if plan.system_prompt is not None:
            prompt = replace(prompt, system=plan.system_prompt)
        images = () if text_only else item.images
        for sample in range(plan.samples):
            key = (item.id, sample)
            requests[key] = Request(item_id=item.id, sample_index=sample, prompt=prompt, images=images)
            prompts[key] = digest(prompt, len(images))
    return _Work(task.dataset.task.name, requests, prompts)


def _manifest(plan: Plan, info: EngineInfo, work: Sequence[_Work]) -> Manifest:
    systems = {request.prompt.system or "" for part in work for request in part.requests.values()}
    tasks = {
        task.dataset.task.name: TaskRecord(
            split=task.dataset.split,
            source=task.dataset.source,
            revision=task.dataset.revision,
            data_digest=task.dataset.digest,
            n_items=len(task.dataset.items),
            limit=task.limit,
            prompt=PromptRecord(style=task.style, version=task.prompt.version),
        )
        for task in plan.tasks
    }
    return Manifest(
        status="running",
        model=info.model,
        engine=info.engine,
        sampling=info.sampling.model_copy(update={"samples": plan.samples}),
        pixels=info.pixels,
        system_prompt=systems.pop() if len(systems) == 1 else None,
        tasks=tasks,
        packages=_packages(),
        git=_git(),
    )


def _join(out: Path, planned: Manifest, progress: Progress) -> Manifest:
    """Return the manifest to go on with: the run's own, if it has one and was made with the same, plus new tasks."""
    if not (out / MANIFEST).exists():
        stray = next((path for path in sorted(out.glob(f"*/{RESPONSES}")) if path.stat().st_size), None)
        if stray is not None:
            raise UsageError(
                f"{out} holds {stray.relative_to(out)} but no {MANIFEST}; restore it, or use another --out"
            )
        return planned
    old = read_manifest(out)
    before, now = _identity(old, planned), _identity(planned, old)
    for name in before:
        if before[name] != now[name]:
            raise UsageError(
                f"the run {out} was made with {name} {_shown(before[name])}, this command has {_shown(now[name])}; "
                "use another --out"
            )
    for name, was, is_now in _circumstances(old, planned):
        progress.note(f"{out} was begun with {name} {was} and goes on with {is_now}; {MANIFEST} keeps naming the first")
    return old.model_copy(update={"status": "running", "tasks": {**old.tasks, **planned.tasks}})


def _identity(manifest: Manifest, other: Manifest) -> dict[str, object]:
    """Return what must be equal for two manifests to be one run, by the name to show, for the tasks that both have."""
    fields: dict[str, object] = {}
    for part in ("model", "sampling", "pixels"):
        fields |= {f"{part}.{name}": value for name, value in getattr(manifest, part).model_dump().items()}
    # A checkpoint may have been moved; where its digest is unknown, its name must do.
    if manifest.model.weights_digest is not None and manifest.model.weights_digest == other.model.weights_digest:
        del fields["model.name"], fields["model.adapter"]
    fields |= {"engine": manifest.engine.name, "system_prompt": manifest.system_prompt}
    for name in sorted(manifest.tasks.keys() & other.tasks.keys()):
        task = manifest.tasks[name]
        fields |= {
            f"{name} split": task.split,
            f"{name} limit": task.limit,
            f"{name} n_items": task.n_items,
            f"{name} data_digest": task.data_digest,
            f"{name} prompt": f"{task.prompt.style}@{task.prompt.version}" if task.prompt else None,
        }
    return fields


def _circumstances(old: Manifest, new: Manifest) -> list[tuple[str, object, object]]:
    """Return what differs and may change a score a little, but does not make it another run."""
    pairs = [(name, getattr(old.engine, name), getattr(new.engine, name)) for name in ("version", "device", "dtype")]
    pairs += [(name, old.packages.get(name), new.packages.get(name)) for name in ("ahabench", "torch", "tokenizers")]
    return [(name, was, is_now) for name, was, is_now in pairs if was != is_now]


def _check_prompts(out: Path, part: _Work, log: ResponseLog) -> None:
    """Refuse to go on with rows that answer other prompts, as when a style changed without its version."""
    for key, recorded in log.prompts.items():
        wanted = part.prompts.get(key)
        if wanted is None or recorded not in {None, wanted}:
            why = "is not in this data set" if wanted is None else "was asked with another prompt"
            raise UsageError(f"item {key[0]!r}, sample {key[1]}, of {out / part.name} {why}; use another --out")


def _is_complete(out: Path, manifest: Manifest, work: Sequence[_Work], logs: Sequence[ResponseLog]) -> bool:
    texts = {part.name: len(log.done) - len(part.failed) for part, log in zip(work, logs, strict=True)}
    for name in manifest.tasks.keys() - texts.keys():
        path = out / name / RESPONSES
        texts[name] = sum(row.text is not None for row in read_responses(path)) if path.exists() else 0
    samples = manifest.sampling.samples or 1
    return all(texts[name] == task.n_items * samples for name, task in manifest.tasks.items())


def _report_failures(work: Sequence[_Work], progress: Progress) -> None:
    for part in work:
        if part.failed:
            (item_id, _), why = next(iter(part.failed.items()))
            progress.note(
                f"{part.name}: {len(part.failed)} of {len(part.requests)} responses failed, the first for item "
                f"{item_id!r}: {why}. Run the same command again to redo them."
            )


def _packages() -> dict[str, str]:
    versions = {"python": python_version()}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _git() -> GitRecord | None:
    """Return the state of ahabench's own source tree, `None` where it was installed from a package."""
    root = Path(__file__).resolve().parents[1]
    # Without this, git would find whatever repository holds the virtual environment.
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root)]
    try:
        commit = subprocess.run([*command, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        changes = subprocess.run(
            [*command, "status", "--porcelain"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return GitRecord(commit=commit.stdout.strip(), dirty=bool(changes.stdout.strip()))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
