"""Responses to the six sums of the stranger's benchmark, `toy`."""

import json
from pathlib import Path

RIGHT = {"a1": "2", "a2": "4", "b1": "6", "b2": "8", "c1": "100", "c2": "121"}
"""What is right, by item."""


def write(path: Path, answers: dict[str, str | None], **fields: object) -> Path:
    rows = [{"item_id": key, "response": text, **fields} for key, text in answers.items()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
