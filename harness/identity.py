"""What must be equal for two manifests to be one run, and what may differ with a word."""

from typing import NamedTuple

from ahabench.harness.manifest import EngineRecord, Manifest

_PACKAGES = ("ahabench", "torch", "tokenizers")
PACE = {
    "batch_size",
    "chunk_size",
    "concurrency",
    "data_parallel_size",
    "device",
    "distributed_executor_backend",
    "enable_prefix_caching",
    "gpu_memory_utilization",
    "max_num_batched_tokens",
    "max_num_seqs",
    "pipeline_parallel_size",
    "tensor_parallel_size",
}
"""Options that say how fast an engine runs and on what, and are changed when memory ran out in the middle of a run."""


class Difference(NamedTuple):
    """A field in which two manifests differ."""

    name: str
    first: object
    second: object

    def __str__(self) -> str:
        """Return the name with the first value, as a sentence goes on."""
        return f"{self.name} {shown(self.first)}"


def difference(first: Manifest, second: Manifest, *, items: bool = True) -> Difference | None:
    """Return the first field in which two manifests are not one run; `None` where they are.

    Compared are the weights' digest and whatever else says what the model is, its chat template, sampling, pixel
    limits, the system prompt, the engine's name, and for the tasks that both have: split, data, limit and prompt. A
    checkpoint may have been moved; where its digest is unknown, its name must do. What an engine's version may change
    is `engine_difference`.

    Args:
        first: one manifest.
        second: another.
        items: whether they must have been asked the same number of items, as shards are not.
    """
    before, now = compared(first, second, items=items), compared(second, first, items=items)
    for name in before:
        if before[name] != now[name]:
            return Difference(name, before[name], now[name])
    return None


def compared(manifest: Manifest, other: Manifest, *, items: bool = True) -> dict[str, object]:
    """Return the values of a manifest that must be equal to those of another, by the name to show.

    The names are the same for both, whichever comes first.
    """
    fields: dict[str, object] = {}
    for part in ("model", "sampling", "pixels"):
        fields |= {f"{part}.{name}": value for name, value in getattr(manifest, part).model_dump().items()}
    if manifest.model.weights_digest is not None and manifest.model.weights_digest == other.model.weights_digest:
        del fields["model.name"], fields["model.adapter"]
    fields |= {"engine": manifest.engine.name, "system_prompt": manifest.system_prompt}
    if items:
        fields["shard"] = manifest.shard and f"{manifest.shard.index}/{manifest.shard.count}"
    for name in sorted(manifest.tasks.keys() & other.tasks.keys()):
        task = manifest.tasks[name]
        fields |= {f"{name} split": task.split, f"{name} limit": task.limit}
        fields |= {f"{name} n_items": task.n_items} if items else {}
        fields |= {
            f"{name} data_digest": task.data_digest,
            f"{name} prompt": f"{task.prompt.style}@{task.prompt.version}" if task.prompt else None,
        }
    return fields


def engine_difference(run: Manifest, engine: EngineRecord) -> Difference | None:
    """Return how an engine differs from every engine that has answered in a run so far, in what changes texts.

    That is its version, its dtype, and its options but those that only set its pace. Each changes at least low bits:
    an upgrade in the middle of a run would leave a number that no version gives. `None` where one of the run's engines
    is the same in all.
    """
    known = [run.engine, *run.mixed_engines]
    now = _program(engine)
    if any(_program(one) == now for one in known):
        return None
    last = _program(known[-1])
    name = next(name for name in (*now, *last) if last.get(name) != now.get(name))
    return Difference(f"{engine.name} {name}", last.get(name), now.get(name))


def circumstances(first: Manifest, second: Manifest) -> list[Difference]:
    """Return what differs and may change a score a little, but does not make it another run."""
    before, now = first.engine.model_dump(), second.engine.model_dump()
    apart = {"name", "version", "dtype", "options"}
    differences = [Difference(name, before[name], now[name]) for name in before if name not in apart]
    differences += [Difference(name, first.packages.get(name), second.packages.get(name)) for name in _PACKAGES]
    return [one for one in differences if one.first != one.second]


def shown(value: object) -> str:
    """Return a value as an error shows it, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _program(engine: EngineRecord) -> dict[str, str | None]:
    options = {f"option {name}": value for name, value in engine.options.items() if name not in PACE}
    return {"version": engine.version, "dtype": engine.dtype, **options}
