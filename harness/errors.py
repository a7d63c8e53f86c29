"""Every error that a user can meet.

    AhabenchError                 exit code 2 unless said otherwise
    ├── UsageError                a flag, a name or a file of the user's
    ├── DatasetError              benchmark data that is not what the task declares
    ├── EngineError               a checkpoint or a server that cannot be used
    ├── JudgeError                a judge that is needed and cannot be used
    ├── IncomparableRunsError     exit code 4
    ├── IncompleteRunError        exit code 5
    └── TrainingError             exit code 5

A message names the object, the value found, the value wanted, and the next step.
"""

from difflib import get_close_matches


class AhabenchError(Exception):
    """Base of every error that is printed as one line."""

    exit_code = 2


class UsageError(AhabenchError):
    """The command cannot be carried out as it was given."""


class DatasetError(AhabenchError):
    """The benchmark's data are missing, damaged or not those that the task declares."""


class EngineError(AhabenchError):
    """The checkpoint or the server cannot generate."""


class JudgeError(AhabenchError):
    """A judge was asked for, or is needed, and does not answer."""


class IncomparableRunsError(AhabenchError):
    """Two runs differ in something that changes scores."""

    exit_code = 4


class IncompleteRunError(AhabenchError):
    """Some (item, sample) pairs have no response, so the run has no score."""

    exit_code = 5


class TrainingError(AhabenchError):
    """Training cannot go on; what was reached is saved."""

    exit_code = 5


def unknown_name(kind: str, name: str, known: list[str]) -> UsageError:
    """Return the error for a name that is not known, with the nearest one that is."""
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UsageError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(known)}.")
