"""Generate: benchmarks and an engine to responses on disk. Nothing is scored here."""

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from ahabench.harness.dataset import Dataset
from ahabench.harness.disk import locked, refusals
from ahabench.harness.engines import EngineInfo, OpenEngine
from ahabench.harness.errors import AhabenchError, DatasetError, EngineError, UsageError
from ahabench.harness.identity import circumstances, difference, engine_difference, shown
from ahabench.harness.images import ImageFile
from ahabench.harness.manifest import MANIFEST, Manifest, PromptRecord, TaskRecord, read_manifest, write_manifest
from ahabench.harness.preflight import Probe, check_disk, probes
from ahabench.harness.progress import Progress, console_progress
from ahabench.harness.prompts import digest
from ahabench.harness.provenance import git, packages
from ahabench.harness.runlog import RESPONSES, Key, ResponseLog, read_responses
from ahabench.harness.seen import SeenImage, check_seen, images_digest, seen
from ahabench.harness.shards import Shard, check_whole, shard_folder, shard_folders, shard_items
from ahabench.harness.types import PromptStyle, Request, Response


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
    shard: Shard | None = None
    """The part of the items to generate for; all if `None`."""

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


@dataclass(slots=True)
class _Work:
    """One task with its requests and their prompts' digests, in the order of the items."""

    name: str
    protocol: str
    requests: dict[Key, Request] = field(default_factory=dict)
    prompts: dict[Key, str] = field(default_factory=dict)
    images: dict[str, tuple[SeenImage, ...]] = field(default_factory=dict)
    """Those of each item that is shown some; its samples share them."""
    n_items: int = 0
    systems: set[str] = field(default_factory=set)
    """The system prompts of all items, also of those in other shards."""
    failed: dict[Key, str] = field(default_factory=dict)
    """Why a request got no text."""

    def pending(self, log: ResponseLog) -> list[Request]:
        """Return the requests that have no row yet."""
        return [request for key, request in self.requests.items() if key not in log.done]


def run(
    plan: Plan,
    engine: OpenEngine,
    out: Path,
    *,
    progress: Progress | None = None,
    preflight: bool = False,
    allow_mixed: bool = False,
) -> Manifest:
    """Generate what a run directory still lacks, and return its manifest.

    The manifest is written first, with the status "running"; each response is on the disk before the next is counted.
    Whatever stops it, the same call goes on where it stopped: every (item, sample) ends up in the run exactly once.
    Responses that are errors are asked for again. A later call may add tasks to a run.

    What is there is reused only if it is known to be what would be generated: the same weights, prompt, sampling, pixel
    limits, engine, its version and dtype, and the same image bytes (see `seen`; rows that do not know theirs are taken
    as they are, with a word). An engine that was upgraded in the middle of a run is refused and not just noted, since
    half of a run would then be another program's: whoever wants that says `allow_mixed`, and the manifest says so too.

    Args:
        plan: what to generate.
        engine: what generates; its `info` is recorded.
        out: the run directory, which is made if need be; a shard stands in a folder of its own inside it.
        progress: is told how it goes; stderr if `None`.
        preflight: ask the requests that are the likeliest to fail first, and give up if they do; see whether the disk
            has room for the rest.
        allow_mixed: go on with a run that another version or dtype of the engine began.

    Returns:
        The manifest, whose status is "complete" if every item of every task in the run has a text for every sample, and
        "incomplete" otherwise.

    Raises:
        UsageError: the directory holds a run made with something else, is being written by another process, or the
            disk refuses or is too small.
        DatasetError: images are missing (nothing is generated then).
        EngineError: the engine gave up, or a request of the preflight failed; what it had answered is kept.
        KeyboardInterrupt: after the manifest says "incomplete", and one line how to go on.
    """
    progress = progress or console_progress()
    text_only = bool(engine.info.model.text_only)
    work = [_work(task, plan, text_only=text_only) for task in plan.tasks]
    _check_images(work)
    planned = _manifest(plan, engine.info, work)
    out = _folder(plan, out, planned, allow_mixed=allow_mixed)
    with ExitStack() as stack:
        with refusals(out):
            out.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(out / MANIFEST))
        manifest = _join(out, planned, progress, allow_mixed=allow_mixed)
        logs = [stack.enter_context(ResponseLog(out / part.name / RESPONSES)) for part in work]
        for part, log in zip(work, logs, strict=True):
            _check_rows(out, part, log, progress)
        asked_first: list[Probe] = []
        if preflight:
            owed = sum(len(part.pending(log)) for part, log in zip(work, logs, strict=True))
            check_disk(out, owed, engine.info.sampling.max_new_tokens)
            asked_first = probes({part.name: part.requests for part in work}) if owed else []
        write_manifest(out, manifest)
        try:
            _generate_all(work, logs, asked_first, engine, progress)
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


def _folder(plan: Plan, out: Path, planned: Manifest, *, allow_mixed: bool) -> Path:
    """Return the run directory of a plan; what stands beside it must not be another run's part.

    Raises:
        UsageError: it is divided in another way, or another shard was made with something else.
    """
    if plan.shard is None:
        check_whole(out)
        return out
    folder = shard_folder(out, plan.shard)
    for _, other in shard_folders(out):
        if other != folder:
            theirs = read_manifest(other)
            _refuse_another(other, theirs, planned, items=False)
            if not allow_mixed:
                _refuse_mixture(other, theirs, planned)
    return folder


def _generate_all(
    work: Sequence[_Work],
    logs: Sequence[ResponseLog],
    asked_first: Sequence[Probe],
    engine: OpenEngine,
    progress: Progress,
) -> None:
    """Ask for what is missing, the hardest requests of all tasks first."""
    for part, log in zip(work, logs, strict=True):
        _preflight([probe for probe in asked_first if probe.task == part.name], part, log, engine, progress)
    for part, log in zip(work, logs, strict=True):
        _generate(part, part.pending(log), log, engine, progress)


def _preflight(
    asked_first: Sequence[Probe], part: _Work, log: ResponseLog, engine: OpenEngine, progress: Progress
) -> None:
    """Ask the hardest requests of a task, unless an earlier call has. Their responses are kept as any others."""
    open_probes = [probe for probe in asked_first if probe.key not in log.done]
    for probe in open_probes:
        progress.note(f"preflight: {part.name} item {probe.key[0]!r} has {probe.what}")
    _generate(part, [part.requests[probe.key] for probe in open_probes], log, engine, progress)
    for probe in open_probes:
        if probe.key in part.failed:
            raise EngineError(
                f"preflight: {part.name} item {probe.key[0]!r}, with {probe.what}, failed: {part.failed[probe.key]}. "
                "Change what it needs, or add --no-preflight to go on without it"
            )


def _generate(
    part: _Work, pending: Sequence[Request], log: ResponseLog, engine: OpenEngine, progress: Progress
) -> None:
    if not pending:
        return
    wanted = {(request.item_id, request.sample_index) for request in pending}
    done = sum(key in log.done for key in part.requests)
    progress.start(part.name, done=done, total=done + len(pending))
    try:
        for response in engine.generate(pending):
            key = (response.item_id, response.sample_index)
            if key not in wanted or key in log.done:
                raise EngineError(f"the engine answered item {key[0]!r}, sample {key[1]}, which it was not asked")
            if response.text is None:
                part.failed[key] = response.error or "no reason given"
            log.append(_with_images(response, part), part.prompts[key])
            progress.advance(response)
    finally:
        progress.stop()
    for key in wanted - log.done:
        part.failed[key] = "the engine did not answer"


def _with_images(response: Response, part: _Work) -> Response:
    """Return a response that names the image bytes which its engine has read, if it has read any."""
    read = images_digest([image.digest for image in part.images.get(response.item_id, ())])
    return response if read is None else replace(response, images_sha256=read)


def _check_images(work: Sequence[_Work]) -> None:
    """Refuse a plan of which image files are missing, before hours are spent on the others."""
    for task in work:
        sources = [image.source for images in task.images.values() for image in images]
        files = [source.path for source in sources if isinstance(source, ImageFile)]
        missing = [path for path in files if not path.is_file()]
        if missing:
            raise DatasetError(
                f"{task.protocol}: {len(missing)} of {len(files)} images are missing, such as "
                f"{', '.join(map(str, missing[:3]))}; give the official folder with its images by --data DIR"
            )


def _work(task: TaskPlan, plan: Plan, *, text_only: bool) -> _Work:
    items = task.dataset.items
    mine = {item.id for item in (items if plan.shard is None else shard_items(items, plan.shard))}
    work = _Work(task.dataset.task.name, task.dataset.protocol)
    for item in items:
        prompt = task.prompt.render(item)
        if plan.system_prompt is not None:
            prompt = replace(prompt, system=plan.system_prompt)
        work.systems.add(prompt.system or "")
        if item.id not in mine:
            continue
        work.n_items += 1
        images = () if text_only else seen(item.images)
        if images:
            work.images[item.id] = images
        asked = digest(prompt, len(images))
        for sample in range(plan.samples):
            key = (item.id, sample)
            work.requests[key] = Request(item_id=item.id, sample_index=sample, prompt=prompt, images=images)
            work.prompts[key] = asked
    return work


def _manifest(plan: Plan, info: EngineInfo, work: Sequence[_Work]) -> Manifest:
    systems = {system for part in work for system in part.systems}
    tasks = {
        task.dataset.task.name: TaskRecord(
            split=task.dataset.split,
            source=task.dataset.source,
            revision=task.dataset.revision,
            data_digest=task.dataset.digest,
            n_items=part.n_items,
            limit=task.limit,
            prompt=PromptRecord(style=task.style, version=task.prompt.version),
        )
        for task, part in zip(plan.tasks, work, strict=True)
    }
    return Manifest(
        status="running",
        model=info.model,
        engine=info.engine,
        sampling=info.sampling.model_copy(update={"samples": plan.samples}),
        pixels=info.pixels,
        system_prompt=systems.pop() if len(systems) == 1 else None,
        tasks=tasks,
        shard=plan.shard.record if plan.shard is not None else None,
        packages=packages(),
        git=git(),
    )


def _join(out: Path, planned: Manifest, progress: Progress, *, allow_mixed: bool) -> Manifest:
    """Return the manifest to go on with: the run's own, if it has one and was made with the same, plus new tasks."""
    if not (out / MANIFEST).exists():
        stray = next((path for path in sorted(out.glob(f"*/{RESPONSES}")) if path.stat().st_size), None)
        if stray is not None:
            raise UsageError(
                f"{out} holds {stray.relative_to(out)} but no {MANIFEST}; restore it, or use another --out"
            )
        return planned
    old = read_manifest(out)
    _refuse_another(out, old, planned)
    mixed = list(old.mixed_engines)
    if not allow_mixed:
        _refuse_mixture(out, old, planned)
    if found := engine_difference(old, planned.engine):
        progress.note(f"{out} was made with {found} and goes on with {shown(found.second)}; {MANIFEST} names both")
        mixed.append(planned.engine)
    for name, was, is_now in circumstances(old, planned):
        progress.note(f"{out} was begun with {name} {was} and goes on with {is_now}; {MANIFEST} keeps naming the first")
    tasks = {**old.tasks, **planned.tasks}
    return old.model_copy(update={"status": "running", "tasks": tasks, "mixed_engines": mixed})


def _refuse_another(run: Path, old: Manifest, planned: Manifest, *, items: bool = True) -> None:
    if found := difference(old, planned, items=items):
        raise UsageError(
            f"the run {run} was made with {found}, this command has {shown(found.second)}; use another --out"
        )


def _refuse_mixture(run: Path, old: Manifest, planned: Manifest) -> None:
    if found := engine_difference(old, planned.engine):
        raise UsageError(
            f"the run {run} was made with {found}, this command has {shown(found.second)}; install the former, use "
            "another --out, or add --allow-mixed to go on with both"
        )


def _check_rows(out: Path, part: _Work, log: ResponseLog, progress: Progress) -> None:
    """Refuse to go on with rows that answer another prompt or image, as when one changed under the same name."""
    where = str(out / part.name)
    for key, recorded in log.prompts.items():
        wanted = part.prompts.get(key)
        if wanted is None or recorded not in {None, wanted}:
            why = "is not in this data set" if wanted is None else "was asked with another prompt"
            raise UsageError(f"item {key[0]!r}, sample {key[1]}, of {where} {why}; use another --out")
    unknown = sum(key[0] in part.images and key not in log.images for key in log.done)
    if unknown:
        progress.note(f"{where}: {unknown:,} responses do not say which image they answer, and are taken as they are")
    check_seen(where, log.images, part.images)


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
