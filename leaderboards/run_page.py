"""What the page of one run shows: scores, what its responses were like, curves, and the manifest."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ahabench.leaderboards import charts, exports
from ahabench.leaderboards.runs import BoardRun, EstimateRow, MetricsFile, TaskScore, model_name
from ahabench.leaderboards.table import SIX, Cell, name_of, parameters


def run_values(run: BoardRun, out: Path) -> dict[str, Any]:
    """Return what the template shows of a run.

    Args:
        run: the run.
        out: the site's folder, where `ahabench view` may have put the run's items.
    """
    scored = [(task, score) for task, score in run.tasks.items() if score.metrics is not None]
    known = sorted(scored, key=lambda one: list(SIX).index(one[0]) if one[0] in SIX else len(SIX))
    return {
        "run": run,
        "said": _said(run),
        "facts": _facts(run),
        "tasks": [(task, name_of(task), score, _cells(score)) for task, score in known],
        "gaps": [(name_of(task), score.gap) for task, score in run.tasks.items() if score.metrics is None],
        "quantities": _quantities([score.metrics for _, score in known if score.metrics is not None]),
        "curves": charts.curves(run.training),
        "items": f"../items/{run.slug}/index.html" if (out / "items" / run.slug / "index.html").exists() else None,
    }


def _said(run: BoardRun) -> list[str]:
    """Return what the model's card says of it, as far as it does."""
    card = run.card
    size = "" if run.parameters_b is None else f"{parameters(run)} parameters"
    return [
        *filter(None, (size, card.base and f"from {card.base}", card.date, card.licence and f"licence {card.licence}"))
    ]


def cell_of(found: EstimateRow | None) -> Cell:
    """Return an estimate as a cell."""
    if found is None or found.value is None:
        return Cell(gap="no value")
    return Cell(value=found.value, ci95=found.ci95, n=found.n)


def _cells(score: TaskScore) -> list[tuple[str, Cell]]:
    """Return the metrics of a benchmark, the headline first."""
    if score.metrics is None:
        return []
    names = sorted(score.metrics.metrics, key=lambda name: name != (score.metrics and score.metrics.headline))
    return [(name, cell_of(score.metrics.metrics[name])) for name in names]


def _quantities(found: Sequence[MetricsFile]) -> list[tuple[str, list[str]]]:
    """Return what responses were like, a line for each quantity that a benchmark knows, a text for each benchmark."""
    lines: list[tuple[str, list[str]]] = [("items", [f"{one.n_items:,}" for one in found])]
    if any(one.n_samples > 1 for one in found):
        lines.append(("responses per item", [str(one.n_samples) for one in found]))
    lines += _lines(found, lambda one: one.rates, "{} %", exports.share)
    finished = [one.bounds.get("finished") for one in found]
    if any(one is not None for one in finished):
        lines.append(("headline among finished responses %", list(map(exports.share, finished))))
    lines += _lines(found, lambda one: one.finish_reasons, "ended by “{}”", lambda count: f"{count:,}")
    lines += _lines(found, lambda one: one.tokens, "tokens: {}", lambda count: f"{count:,.0f}")
    for name in ("min", "median", "max"):
        sizes = [getattr(one.image_sizes, name, None) for one in found]
        if any(sizes):
            texts = ["×".join(map(str, size)) if size else "–" for size in sizes]
            lines.append((f"image, {name} (pixels)", texts))
    if any(one.excluded for one in found):
        lines.append(("items left out by the scorer", [", ".join(one.excluded) or "–" for one in found]))
    return lines


def _lines(
    found: Sequence[MetricsFile],
    part: Callable[[MetricsFile], Mapping[str, Any]],
    label: str,
    shown: Callable[[Any], str],
) -> list[tuple[str, list[str]]]:
    parts = [part(one) for one in found]
    names = dict.fromkeys(name for one in parts for name, value in one.items() if value is not None)
    return [
        (
            label.format(name.replace("_", " ")),
            ["–" if one.get(name) is None else shown(one[name]) for one in parts],
        )
        for name in names
    ]


def _facts(run: BoardRun) -> list[tuple[str, str]]:
    manifest = run.manifest
    facts = [
        ("model", model_name(manifest) or "not known"),
        ("weights", manifest.model.weights_digest or "not known"),
        ("revision", manifest.model.revision or "–"),
        ("adapter", manifest.model.adapter or "–"),
        ("images", "left out" if manifest.model.text_only else "shown"),
        ("engine", " ".join(filter(None, (manifest.engine.name, manifest.engine.version))) or "not known"),
        ("device, dtype", " ".join(filter(None, (manifest.engine.device, manifest.engine.dtype))) or "not known"),
        *((f"sampling: {name.replace('_', ' ')}", _shown(value)) for name, value in manifest.sampling),
        ("image pixels, least and most", f"{_shown(manifest.pixels.min)}, {_shown(manifest.pixels.max)}"),
        ("system prompt", "not known" if manifest.system_prompt is None else manifest.system_prompt or "none"),
        ("judge", manifest.judge.served_model or manifest.judge.model if manifest.judge else "none"),
        ("status", manifest.status),
        *(
            (f"data digest: {name_of(task)}", record.data_digest or "not known")
            for task, record in manifest.tasks.items()
        ),
        (
            "ahabench commit",
            f"{manifest.git.commit}{' + changes' if manifest.git.dirty else ''}" if manifest.git else "–",
        ),
    ]
    packages = ", ".join(f"{name} {version}" for name, version in sorted(manifest.packages.items()))
    return [*facts, ("packages", packages or "not known")]


def _shown(value: object) -> str:
    return "not known" if value is None else str(value)
