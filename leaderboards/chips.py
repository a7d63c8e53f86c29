"""What a row must be told apart by: the settings in which runs of one table differ, and what always matters."""

from collections.abc import Sequence

from ahabench.leaderboards.runs import BoardRun

DIFFERING = {
    "max tokens": ("sampling", "max_new_tokens"),
    "temperature": ("sampling", "temperature"),
    "top-p": ("sampling", "top_p"),
    "top-k": ("sampling", "top_k"),
    "repetition penalty": ("sampling", "repetition_penalty"),
    "min pixels": ("pixels", "min"),
    "max pixels": ("pixels", "max"),
    "engine": ("engine", "name"),
    "engine version": ("engine", "version"),
    "dtype": ("engine", "dtype"),
}
"""What may differ between rows of a table, and is then said of each by a chip."""


def chips_of(runs: Sequence[BoardRun]) -> dict[str, tuple[str, ...]]:
    """Return the chips of each run of a table, by its slug."""
    said: dict[str, list[str]] = {run.slug: [] for run in runs}
    for run in runs:
        if run.manifest.status != "complete":
            said[run.slug].append(f"run {run.manifest.status}")
        if run.manifest.model.text_only:
            said[run.slug].append("text only")
    for label, (part, name) in DIFFERING.items():
        values = {run.slug: getattr(getattr(run.manifest, part), name) for run in runs}
        if len(set(values.values())) > 1:
            for slug, value in values.items():
                said[slug].append(f"{label} {'not known' if value is None else value}")
    systems = {run.slug: run.manifest.system_prompt for run in runs}
    if len(set(systems.values())) > 1:
        for slug, text in systems.items():
            said[slug].append(
                "system prompt not known" if text is None else "own system prompt" if text else "no system prompt"
            )
    return {slug: tuple(chips) for slug, chips in said.items()}
