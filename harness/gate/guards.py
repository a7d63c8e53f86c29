"""Whether two runs may be compared: what changes scores must be the same on both sides, or be accepted by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ahabench.harness.errors import unknown_name
from ahabench.harness.identity import PACE, shown
from ahabench.harness.manifest import EngineRecord, Manifest

GUARDS = ("tasks", "items", "prompt", "sampling", "tokens", "pixels", "engine", "scorer", "judge", "complete")
"""What is checked, in the order in which it is shown."""

_OPTION = "engine.option."
_NONE_IS_KNOWN = ("judge.", "limit", _OPTION, "engine.mixed")
"""Fields in which None says that there is none, not that nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """One field that two sides must share, and what each says."""

    guard: str
    """One of `GUARDS`."""
    field: str
    """As `--allow` takes it, such as "engine.version"."""
    task: str | None
    """`None` where it concerns the whole run."""
    a: object
    b: object
    allowed: bool = False
    """Whether the user accepts the difference."""

    @property
    def same(self) -> bool:
        """Whether both sides say the same, if only that they do not know."""
        return self.a == self.b

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against comparing."""
        return self.same or self.allowed

    @property
    def unknown(self) -> bool:
        """Whether neither side says anything."""
        return self.a is None and self.b is None and not self.field.startswith(_NONE_IS_KNOWN)

    def __str__(self) -> str:
        """Return the field with both values, for a sentence."""
        where = f"{self.task} " if self.task else ""
        return f"{where}{self.field}: {shown(self.a)} in A, {shown(self.b)} in B"


def guards_of(a: Manifest, b: Manifest, tasks: Sequence[str]) -> list[Guard]:
    """Return every field of two manifests that must be the same, those of each task included.

    Left out are what is compared (the weights), what says how fast an engine was, and the seed of the sampling.

    Args:
        a: the baseline's manifest.
        b: the candidate's.
        tasks: the tasks to compare, which both have.
    """
    found = []
    first, second = _fields(a), _fields(b)
    for field in dict.fromkeys([*first, *second]):
        found.append(_guard(field, None, first.get(field), second.get(field)))
    for task in tasks:
        first, second = _task_fields(a, task), _task_fields(b, task)
        found += [_guard(field, task, first[field], second[field]) for field in first]
    return found


def missing_tasks(a: Manifest, b: Manifest, tasks: Sequence[str] | None) -> Guard:
    """Return the guard that the candidate has every benchmark of the baseline, or each side those that were named."""
    # More do no harm, where none was named.
    first = a.tasks.keys() if tasks is None else a.tasks.keys() & set(tasks)
    second = b.tasks.keys() & (first if tasks is None else set(tasks))
    return Guard(guard="tasks", field="tasks", task=None, a=sorted(first), b=sorted(second))


def allow(guards: Sequence[Guard], names: Sequence[str], *, extra: Sequence[str] = ()) -> list[Guard]:
    """Return the guards with those accepted that are named, by field ("engine.version") or by guard ("engine").

    Args:
        guards: what was checked.
        names: what the user accepts.
        extra: fields that are checked elsewhere, and may be named too.

    Raises:
        UsageError: a name is none of these.
    """
    known = {guard.field for guard in guards} | {*GUARDS, *extra}
    for name in names:
        if name not in known and not name.startswith(_OPTION):
            raise unknown_name("field to allow", name, sorted(known))
    return [replace(one, allowed=one.field in names or one.guard in names) for one in guards]


def circumstances(a: Manifest, b: Manifest) -> list[str]:
    """Return what differs and is compared all the same, one phrase each."""
    notes = []
    if a.model.chat_template_sha256 != b.model.chat_template_sha256:
        notes.append("the chat templates differ: each checkpoint is compared with its own")
    if a.engine.device != b.engine.device:
        notes.append(f"the devices differ: {shown(a.engine.device)} in A, {shown(b.engine.device)} in B")
    for package in ("torch", "transformers"):
        first, second = a.packages.get(package), b.packages.get(package)
        if first != second:
            notes.append(f"{package} differs: {shown(first)} in A, {shown(second)} in B")
    return notes


def _guard(field: str, task: str | None, a: object, b: object) -> Guard:
    return Guard(guard=_group(field), field=field, task=task, a=a, b=b)


def _group(field: str) -> str:
    if field == "sampling.max_new_tokens":
        return "tokens"
    if field in {"split", "data_digest", "limit", "n_items"}:
        return "items"
    if field in {"system_prompt", "text_only"}:
        return "prompt"
    return field.partition(".")[0]


def _fields(manifest: Manifest) -> Mapping[str, object]:
    sampling = manifest.sampling.model_dump(exclude={"seed"})
    fields: dict[str, object] = {f"sampling.{name}": value for name, value in sampling.items()}
    fields |= {f"pixels.{name}": value for name, value in manifest.pixels.model_dump().items()}
    fields |= {"system_prompt": manifest.system_prompt, "text_only": manifest.model.text_only}
    engine = manifest.engine
    fields |= {"engine.name": engine.name, "engine.version": engine.version, "engine.dtype": engine.dtype}
    fields |= {f"{_OPTION}{name}": value for name, value in engine.options.items() if name not in PACE}
    fields["engine.mixed"] = sorted(_words(other) for other in manifest.mixed_engines) or None
    judge = manifest.judge
    fields |= {
        "judge.model": judge.served_model or judge.model if judge else None,
        "judge.prompt_version": judge.prompt_version if judge else None,
    }
    return fields


def _task_fields(manifest: Manifest, name: str) -> Mapping[str, object]:
    task = manifest.tasks[name]
    return {
        "split": task.split,
        "data_digest": task.data_digest,
        "limit": task.limit,
        "n_items": task.n_items,
        "prompt": f"{task.prompt.style}@{task.prompt.version}" if task.prompt else None,
    }


def _words(engine: EngineRecord) -> str:
    return " ".join(word for word in (engine.name, engine.version, engine.dtype) if word)
