"""YAML that a user writes: plain values, and no key twice."""

from pathlib import Path
from typing import Any

import yaml

from ahabench.harness.errors import UsageError


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML brings no types
    """Refuses a key that stands twice: PyYAML would take the last and say nothing."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                why = f"the key {key.value!r} stands twice"
                raise yaml.constructor.ConstructorError(None, None, why, key.start_mark)
            seen.add(str(key.value))
        return dict(super().construct_mapping(node, deep))


def read_yaml(path: Path, *, name: str | None = None) -> Any:
    """Return what a file holds: any plain value, `None` where it is empty.

    Args:
        path: of the file.
        name: what an error calls it; the path if `None`.

    Raises:
        UsageError: it cannot be read, is not YAML, or names a key twice.
    """
    try:
        return _Loader(path.read_text(encoding="utf-8")).get_single_data()
    except OSError as error:
        raise UsageError(f"{name or path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"{name or path} is not YAML: {' '.join(str(error).split())}") from error
