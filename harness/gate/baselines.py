"""Named runs to compare with: copied whole, with digests, into a folder that can be committed or cached.

    <baselines>/<name>/baseline.json    which files there are, with their SHA-256
    <baselines>/<name>/<run>/           a run as `ahabench eval` left it; several are seeds of one side

The responses are what counts: verdicts are copied along, and made again by `compare` once the scorer has moved on.
"""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from ahabench.harness.disk import refusals, replace_file
from ahabench.harness.errors import IncompleteRunError, UsageError, unknown_name
from ahabench.harness.gate.sides import Run
from ahabench.harness.manifest import MANIFEST
from ahabench.harness.runlog import METRICS, RESPONSES, VERDICTS

BASELINE = "baseline.json"
SCHEMA_VERSION: Final = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_CHUNK = 1 << 20


class Baseline(BaseModel):
    """What `baseline.json` says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str
    files: dict[str, str]
    """SHA-256, hexadecimal, of each manifest and each file of responses, by its path in the baseline's folder."""

    @property
    def digest(self) -> str:
        """The SHA-256 of all of it: what makes one baseline equal to another, whatever its name."""
        text = json.dumps(self.files, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


class Kept(NamedTuple):
    """A baseline, and what is wrong with it."""

    baseline: Baseline
    faults: tuple[str, ...]
    """A phrase for each file that is gone, was changed, or was added."""


def set_baseline(runs: Sequence[Run], name: str, folder: Path, *, replace: bool = False) -> Baseline:
    """Return the baseline that was made of copies of these runs.

    It appears once it is whole; an interrupted copy leaves the old one, if there was one.

    Args:
        runs: complete runs of one side, from `sides.open_side`.
        name: letters, digits, dots, dashes and underscores.
        folder: where baselines are kept.
        replace: whether a baseline of that name may go.

    Raises:
        UsageError: the name is none, or is taken, a run holds verdicts alone, or the disk refuses.
        IncompleteRunError: a run lacks responses.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a baseline; use letters, digits, dots, dashes and underscores")
    for run in runs:
        if run.manifest.status != "complete":
            raise IncompleteRunError(f"{run.path} is {run.manifest.status}; a baseline is made of complete runs")
    target = folder / name
    if target.exists() and not replace:
        raise UsageError(f"there is a baseline {name!r} in {folder} already; --replace takes its place")
    with refusals(folder):
        folder.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder))
        try:
            for run, copy in zip(runs, _names(runs), strict=True):
                _copy(run, made / copy)
            baseline = Baseline(name=name, files=_digests(made))
            _write(made, baseline)
            if target.exists():
                shutil.rmtree(target)
            made.chmod(0o755)
            made.rename(target)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    return baseline


def list_baselines(folder: Path) -> list[Baseline]:
    """Return the baselines of a folder by name; none where there is no folder.

    Raises:
        UsageError: a `baseline.json` is damaged.
    """
    if not folder.is_dir():
        return []
    return [_read(path.parent) for path in sorted(folder.glob(f"*/{BASELINE}")) if not path.parent.name.startswith(".")]


def verify_baseline(name: str, folder: Path) -> Kept:
    """Return a baseline with what has become of its files since it was made.

    Raises:
        UsageError: there is no such baseline, or its `baseline.json` is damaged.
    """
    known = sorted(path.parent.name for path in folder.glob(f"*/{BASELINE}"))
    if not known:
        raise UsageError(f"{folder} holds no baseline {name!r}, nor any; make one with `ahabench baseline set`")
    if name not in known:
        raise unknown_name(f"baseline in {folder}", name, known)
    baseline = _read(folder / name)
    now = _digests(folder / name)
    faults = [f"{path} is missing" for path in baseline.files if path not in now]
    faults += [f"{path} was changed" for path, sha in baseline.files.items() if now.get(path, sha) != sha]
    faults += [f"{path} was added" for path in now if path not in baseline.files]
    return Kept(baseline, tuple(faults))


def check_baseline(name: str, folder: Path) -> Baseline:
    """Return a baseline that is as it was made.

    Raises:
        UsageError: it is not, or as `verify_baseline`.
    """
    found = verify_baseline(name, folder)
    if found.faults:
        raise UsageError(f"the baseline {name!r} is not as it was made: {'; '.join(found.faults)}")
    return found.baseline


def _names(runs: Sequence[Run]) -> list[str]:
    """Return a folder name for each copy: the run's own, numbered where two are the same."""
    names = [run.path.resolve().name for run in runs]
    if len(set(names)) < len(names):
        return [f"{number}-{name}" for number, name in enumerate(names, start=1)]
    return names


def _copy(run: Run, target: Path) -> None:
    target.mkdir()
    shutil.copyfile(run.path / MANIFEST, target / MANIFEST)
    for task in run.manifest.tasks:
        if Path(task).name != task:
            raise UsageError(f"{run.path}: {task!r} is no name of a task")
        (target / task).mkdir()
        if not (run.path / task / RESPONSES).exists():
            raise UsageError(
                f"{run.path} holds no responses to {task}; a baseline keeps them, so that a newer scorer can score it"
            )
        for name in (RESPONSES, VERDICTS, METRICS):
            source = run.path / task / name
            if source.exists():
                shutil.copyfile(source, target / task / name)


def _digests(folder: Path) -> dict[str, str]:
    """Return the digests of what cannot be made again: manifests and responses."""
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in sorted(_kept(folder))}


def _kept(folder: Path) -> Iterator[Path]:
    yield from folder.glob(f"*/{MANIFEST}")
    yield from folder.glob(f"*/*/{RESPONSES}")


def _sha256(path: Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha.update(chunk)
    return sha.hexdigest()


def _write(folder: Path, baseline: Baseline) -> None:
    text = json.dumps(baseline.model_dump(mode="json"), indent=2)
    replace_file(folder / BASELINE, [text.encode("ascii") + b"\n"])


def _read(folder: Path) -> Baseline:
    path = folder / BASELINE
    try:
        found = Baseline.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError, ValidationError) as error:
        raise UsageError(f"{path} is damaged ({' '.join(str(error).split())}); set the baseline again") from error
    # A baseline that was copied under another name is that other one.
    return found.model_copy(update={"name": folder.name})
