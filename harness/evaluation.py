"""Generate and score: what `ahabench eval` does once its options are read."""

from pathlib import Path
from typing import Any

from ahabench.harness import rescore
from ahabench.harness.engines import OpenEngine
from ahabench.harness.errors import IncompleteRunError
from ahabench.harness.judge import Judge
from ahabench.harness.report import note
from ahabench.harness.runner import Plan, run


def evaluate(
    plan: Plan,
    engine: OpenEngine,
    out: Path,
    *,
    scorer: str,
    data: Path | None,
    judge: Judge | None = None,
    allow_missing: bool = False,
    preflight: bool = True,
    allow_mixed: bool = False,
) -> list[dict[str, Any]]:
    """Generate what a run lacks, score every split whose answers are public, and return the metrics.

    A shard is not scored: its share of the items has no score that anybody could compare. It says what comes next.

    Args:
        plan: what to generate.
        engine: what generates.
        out: the run directory; with a shard, the one that holds the shards.
        scorer: as for `rescore.score_run`.
        data: as for `rescore.score_run`.
        judge: as for `rescore.score_run`.
        allow_missing: as for `rescore.score_run`.
        preflight: as for `runner.run`; recorded responses cost nothing and are not tried first.
        allow_mixed: as for `runner.run`.

    Raises:
        AhabenchError: as `runner.run` and `rescore.score_run`.
        IncompleteRunError: responses of a shard are missing.
    """
    recorded = engine.info.engine.name == "replay"
    manifest = run(plan, engine, out, preflight=preflight and not recorded, allow_mixed=allow_mixed)
    if plan.shard is not None:
        folder = out / plan.shard.folder
        if manifest.status != "complete" and not allow_missing:
            raise IncompleteRunError(f"{folder} is incomplete; run the same command again to go on")
        note(f"{folder} is {manifest.status}; when all {plan.shard.count} shards are: ahabench merge {out}")
        return []
    scored = []
    for task in plan.tasks:
        dataset = task.dataset
        if dataset.task.splits[dataset.split].answers_public:
            scored.append(dataset.task.name)
        else:
            note(
                f"{dataset.protocol}: its answers are not public; responses written to {out / dataset.task.name}; "
                "send them to the authors"
            )
    if not scored:
        return []
    return rescore.score_run(out, scorer=scorer, data=data, judge=judge, allow_missing=allow_missing, only=scored)
