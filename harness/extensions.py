"""What folders above this one, or other packages, add by entry point: found by name, imported when it is asked for."""

from importlib.metadata import entry_points
from typing import Any

from ahabench.harness.errors import UsageError, unknown_name


def names(group: str) -> list[str]:
    """Return the names that installed packages declare in a group, sorted."""
    return sorted({point.name for point in entry_points(group=group)})


def load(group: str, name: str) -> Any:
    """Return what an installed package declares under a name.

    Raises:
        UsageError: nobody declares it, or it cannot be imported.
    """
    points = sorted(entry_points(group=group, name=name), key=lambda point: point.value)
    if not points:
        raise unknown_name(group, name, names(group))
    try:
        return points[0].load()
    except ImportError as error:
        raise UsageError(f"{name!r} of {points[0].value} cannot be loaded: {error}") from error
