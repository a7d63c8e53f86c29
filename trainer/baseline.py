"""What the reference model can do before any reward: as it comes, and forced to think.

The warm-up taught it to answer many questions without thinking. GRPO soon finds that thinking pays, so a part of any
gain is a choice between two ways that the base had already. `force_careful` makes that choice for the base: what GRPO
gains above it is skill, the rest is the choice. Print both beside every result.
"""

import shutil
from pathlib import Path

from ahabench.harness.errors import UsageError
from ahabench.trainer.tokenizer import GENERATION_START, THINK

_TEMPLATE_FILE = "chat_template.jinja"


def force_careful(base: Path, out: Path) -> Path:
    """Write a copy of a checkpoint whose chat template opens every answer with `<think>`, and return its folder.

    Only the template differs, so `ahabench eval` measures the forced model as it measures any other. A hasty completion
    begins with `<answer>`, so this is the same as forbidding that token at the first place. The responses lack the
    opening tag, which is part of the prompt now.

    Args:
        base: a reference checkpoint, trained further or not.
        out: made if it is not there.

    Raises:
        UsageError: the base is no reference checkpoint: its template does not end as ours does.
    """
    path = base / _TEMPLATE_FILE
    template = path.read_text(encoding="utf-8") if path.is_file() else ""
    if template.count(GENERATION_START) != 1 or GENERATION_START + THINK in template:
        raise UsageError(f"{base} is no reference checkpoint: {_TEMPLATE_FILE} does not end as the reference model's")
    shutil.copytree(base, out, dirs_exist_ok=True)
    forced = template.replace(GENERATION_START, GENERATION_START + THINK)
    (out / _TEMPLATE_FILE).write_text(forced, encoding="utf-8")
    return out
