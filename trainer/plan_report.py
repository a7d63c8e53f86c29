"""A training plan in words: what would be drawn, how many steps that makes, and what it takes."""

from collections.abc import Iterator

from ahabench.trainer.plan import TrainPlan


def lines(plan: TrainPlan) -> Iterator[str]:
    """Yield the report; problems and warnings come last."""
    machine = f"{plan.gpus} GPUs of {plan.gpu_gb:.0f} GB, {plan.sharding}" if plan.gpus else "on the CPU"
    yield f"{plan.recipe}, {machine}"
    if plan.items is not None:
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in plan.kinds.items())
        missing = "" if plan.data == "found" else " (as published; the file is not here)"
        yield f"items        {plan.items:,}: {kinds}{missing}"
    if plan.rollouts is not None:
        yield f"rollouts     {plan.rollouts:,} of each episode"
    if plan.steps is not None:
        each = f", {plan.steps_per_rollout} from each rollout" if plan.steps_per_rollout else ""
        yield f"steps        {plan.steps:,}{each}, {plan.warmup_steps} of them to warm up"
    yield f"micro-batches {plan.accumulation} of each process in a step"
    if plan.memory_gb is not None and plan.total_gb is not None:
        formula = {name: f" ({text})" for name, text in plan.formula.items()}
        large = [(name, value) for name, value in plan.memory_gb.items() if value >= 0.05]
        terms = " + ".join(f"{name} {value:.1f}{formula.get(name, '')}" for name, value in large)
        yield f"memory       about {plan.total_gb:.0f} GB a process = {terms}"
        yield (
            f"             of P = {plan.formula['P']} parameters, T = {plan.formula['T']} trained; an estimate, not "
            "measured on a GPU; the other terms: ahabench.trainer.sizes"
        )
    yield f"command      {plan.command}"
    for warning in plan.warnings:
        yield f"warning: {warning}"
    for problem in plan.problems:
        yield f"cannot work: {problem}"
