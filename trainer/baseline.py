"""What the reference model can do before any reward: as it comes, and forced to think.

The warm-up taught it to answer many questions without thinking. GRPO soon finds that thinking pays, so a part of any
gain is a choice between two ways that the base had already. `force_careful` makes that choice for the base: what GRPO
gains above it is skill, the rest is the choice. Print both beside every result.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ahabench.harness import registry
from ahabench.harness.accounting import results_of
from ahabench.harness.dataset import Dataset, load
from ahabench.harness.engines import open_engine
from ahabench.harness.errors import UsageError
from ahabench.harness.metrics import accuracy
from ahabench.harness.sampling import Sampling
from ahabench.harness.score import judge_responses
from ahabench.harness.types import Estimate, Request, Result
from ahabench.tasks.mini.suite import MAKERS, levels
from ahabench.trainer.tokenizer import GENERATION_START, THINK

SPLIT = "mini"
SCORER = "robust"
STYLE = "think"
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


def answer_suite(
    checkpoint: Path, *, tasks: Sequence[str] = tuple(MAKERS), max_new_tokens: int = 64
) -> dict[str, list[Result]]:
    """Return greedy results on the built-in splits, by task: prompt style `think`, scorer `robust`.

    Args:
        checkpoint: a folder.
        tasks: names of benchmarks.
        max_new_tokens: of a completion; the reference model needs some 40.

    Raises:
        EngineError: the checkpoint cannot be used.
        UsageError: there is no such task.
    """
    engine = open_engine("transformers", str(checkpoint), sampling=Sampling(max_new_tokens=max_new_tokens))
    datasets = {name: load(registry.find_task(name), SPLIT) for name in tasks}
    found = {}
    for name, dataset in datasets.items():
        responses = list(engine.generate(_requests(dataset)))
        scores = judge_responses(dataset, SCORER, responses, workers=1)
        found[name] = results_of(dataset.items, scores.judged)
    return found


def accuracies(results: Mapping[str, Sequence[Result]]) -> dict[str, Estimate]:
    """Return the share of right answers: "all", each task, and "level 1" to "level 3" over all tasks.

    Every item counts the same, whatever the benchmark's own headline metric is; intervals are clustered as there.
    """
    parts: dict[str, list[Result]] = {"all": []}
    for task, of_task in results.items():
        level_of = levels(registry.find_task(task))
        for result in of_task:
            # Two tasks may use one id.
            item = replace(result.item, id=f"{task}/{result.item.id}", group=f"{task}/{result.item.cluster}")
            named = replace(result, item=item)
            for part in ("all", task, f"level {level_of[result.item.id]}"):
                parts.setdefault(part, []).append(named)
    return {part: accuracy(members) for part, members in sorted(parts.items()) if members}


def _requests(dataset: Dataset) -> list[Request]:
    render = dataset.task.prompts[STYLE].render
    return [Request(item_id=item.id, sample_index=0, prompt=render(item), images=item.images) for item in dataset.items]
