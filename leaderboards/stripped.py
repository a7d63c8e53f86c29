"""A run without texts: what may be shown where neither questions nor responses may be, and all that a board reads."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from ahabench.harness.disk import replace_file
from ahabench.harness.errors import UsageError
from ahabench.harness.manifest import EngineRecord, Manifest, read_manifest, write_manifest
from ahabench.harness.runlog import METRICS, VERDICTS
from ahabench.leaderboards.charts import CURVES, FIRST
from ahabench.leaderboards.runs import CARD, TRAINING_LOG, Reader, place_free, read_objects


def strip(run: Path, out: Path) -> Path:
    """Write a run as numbers and keys, and return its folder.

    Left are the manifest without this machine's folders and addresses, the card, the metrics, the verdicts as item,
    sample, status and number of aha moments, and the curves of a training log. A board of it is that of the run; it
    cannot be scored again, and `board validate` says so.

    Args:
        run: a scored run.
        out: a folder that does not exist yet, or is empty.

    Raises:
        UsageError: the run is damaged or a shard, a benchmark is not scored, or `out` holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not empty; give a new folder")
    found, manifest = Reader().read(run, "run"), read_manifest(run)
    for task, score in found.tasks.items():
        if score.metrics is None or score.outcomes is None:
            raise UsageError(f"{run} is not scored on {task}; run `ahabench score {run}` first")
    for task in manifest.tasks:
        replace_file(out / task / METRICS, [(run / task / METRICS).read_bytes()])
        replace_file(out / task / VERDICTS, _verdicts(run / task / VERDICTS))
    if found.training:
        replace_file(out / TRAINING_LOG, map(_line, map(_curves, found.training)))
    if (run / CARD).exists():
        shutil.copyfile(run / CARD, out / CARD)
    # Last, because a folder with a manifest is a run.
    write_manifest(out, place_free_manifest(manifest))
    return out


def place_free_manifest(manifest: Manifest) -> Manifest:
    """Return a manifest that names no folder and no address of the machine that made it."""
    model, judge = manifest.model, manifest.judge
    return manifest.model_copy(
        update={
            "model": model.model_copy(update={"name": place_free(model.name), "adapter": _adapter(model.adapter)}),
            "engine": _engine(manifest.engine),
            "mixed_engines": [_engine(one) for one in manifest.mixed_engines],
            "merged": [],
            "judge": judge and judge.model_copy(update={"model": place_free(judge.model), "url": ""}),
        }
    )


def _engine(engine: EngineRecord) -> EngineRecord:
    options = {name: place_free(value) or "" for name, value in engine.options.items()}
    return engine.model_copy(update={"url": None, "options": options})


def _adapter(adapter: str | None) -> str | None:
    """Return "lora on base" for "lora on /folders/base"."""
    if adapter is None:
        return None
    kind, on, base = adapter.partition(" on ")
    return f"{kind}{on}{place_free(base)}"


def _verdicts(path: Path) -> Iterator[bytes]:
    for _, row in read_objects(path):
        aha = row.get("aha")
        moments = {"aha": {"moments": aha["moments"]}} if isinstance(aha, dict) and "moments" in aha else {}
        yield _line({**{name: row[name] for name in ("item_id", "sample_index", "status")}, **moments})


def _curves(step: Mapping[str, float]) -> dict[str, float]:
    """Return what a page shows of a step, to six digits."""
    shown = {"step", *CURVES, *(f"{FIRST}{name}" for name in CURVES)}
    return {name: float(f"{value:.6g}") for name, value in step.items() if name in shown}


def _line(row: Mapping[str, object]) -> bytes:
    return json.dumps(row, ensure_ascii=True).encode() + b"\n"
