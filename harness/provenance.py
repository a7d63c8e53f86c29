"""Which code ran: versions of packages, and the state of our own source tree."""

import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from platform import python_version

from ahabench.harness.manifest import GitRecord

_PACKAGES = (
    "ahabench",
    "accelerate",
    "datasets",
    "huggingface-hub",
    "lmms-eval",
    "numpy",
    "openai",
    "peft",
    "pillow",
    "safetensors",
    "tokenizers",
    "torch",
    "torchvision",
    "transformers",
    "vllm",
)


def packages() -> dict[str, str]:
    """Return the versions of Python and of the packages that can change a response."""
    versions = {"python": python_version()}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def git() -> GitRecord | None:
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
