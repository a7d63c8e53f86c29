"""What a test says when steps leave those that were recorded with other versions, perhaps, of torch or TRL."""

from collections.abc import Mapping
from importlib import metadata


def explained(difference: str, recorded: Mapping[str, str], *, again: str) -> str:
    """Return the difference with the versions that differ from the recorded ones, or that none does.

    Args:
        difference: what left the recorded steps, and where.
        recorded: the version of each package by its name.
        again: the command that records anew.
    """
    here = {name: metadata.version(name) for name in recorded}
    others = [f"{name} {was} (here {here[name]})" for name, was in recorded.items() if was != here[name]]
    if not others:
        same = ", ".join(f"{name} {version}" for name, version in recorded.items())
        return (
            f"{difference}. Recorded with the same versions ({same}): the code changed, or the processor's arithmetic"
        )
    return (
        f"{difference}. Recorded with other versions: {', '.join(others)}. Install those to tell their change from "
        f"ours; if it is theirs, record anew with `{again}` and commit the comparison with the old baseline"
    )
