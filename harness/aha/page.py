"""The HTML report: one file, no script, nothing loaded; what a model wrote is only ever text in it."""

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from typing import Any

from ahabench.harness.aha.chart import HEIGHT, WIDTH, charts
from ahabench.harness.aha.lexicon import version
from ahabench.harness.aha.summary import ReadResponse
from ahabench.harness.report import interval, percent

SHOWN = 200
"""Responses with moments that a run shows."""
LONGEST = 20_000
"""Characters of a response that are shown."""

Part = tuple[str, str]
"""The class of a stretch of text, or "", and the text."""


def page(runs: Sequence[tuple[str, Mapping[str, Any], Sequence[ReadResponse]]]) -> str:
    """Return the report as HTML.

    The text of models and files is escaped, and a content security policy lets nothing run or load but the page's own
    style, by its digest.

    Args:
        runs: name, summary (with "training" where there is one) and responses of each.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    folder = files("ahabench.harness.aha")
    style = folder.joinpath("page.css.txt").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    template = environment.from_string(folder.joinpath("page.html.jinja").read_text(encoding="utf-8"))
    return template.render(
        title=", ".join(name for name, _, _ in runs),
        lexicon=version(),
        # Ours, and digested as it stands: escaping would change it.
        style=Markup(style),
        style_digest=b64encode(sha256(style.encode()).digest()).decode(),
        plot={"width": WIDTH, "height": HEIGHT},
        runs=[_run(*run) for run in runs],
    )


def facts(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a run's table says, as name and value in words."""
    accuracy, changes = summary["accuracy"], summary["changes"]
    yield "responses", f"{summary['n']:,}"
    yield "with a moment %", _share(summary["with_moment"])
    yield "moments", f"{summary['moments']:,} ({summary['strong']:,} strong)"
    yield "per 1,000 tokens", _number(summary["per_1000_tokens"])
    yield "per 1,000 words", _number(summary["per_1000_words"])
    if summary["moments"]:
        yield (
            "first, last moment at % of the thought",
            (f"{percent(summary['position']['first'])}, {percent(summary['position']['last'])}"),
        )
    yield "accuracy % with a moment", _share(accuracy["with"])
    yield "accuracy % without", _share(accuracy["without"])
    within = accuracy["within_prompt"]
    yield "difference within a prompt, points", f"{_share(within)} over {within['n']:,} prompts"
    yield (
        "wrong → right, right → wrong",
        (f"{changes['wrong_to_right']:,}, {changes['right_to_wrong']:,} (net {changes['net']:+,})"),
    )
    yield "wrong → other wrong, changed (unjudged)", f"{changes['wrong_to_wrong']:,}, {changes['changed']:,}"
    yield "unchanged, of which nothing new was said", f"{changes['unchanged']:,}, {changes['pseudo']:,}"
    yield "candidate answers found on both sides %", percent(changes["candidates_found"])
    yield "of them called answers by the text %", percent(changes["candidates_explicit"])
    yield "hedges per 1,000 words", _number(summary["hedges_per_1000_words"])
    yield "with a repetition loop %", _share(summary["with_loop"])
    yield "cut off %", _share(summary["truncated"])
    for rule in summary["published"].values():
        yield f"{rule['title']}: with a hit %", _share(rule["with_hit"])


def parts(one: ReadResponse) -> list[Part]:
    """Return a response as stretches of text with the class of the moment in each, or "loop", or ""."""
    text = one.told.text[:LONGEST]
    spans = [(moment.start, moment.end, moment.kind.value) for moment in one.reading.moments]
    spans += [(loop.start, loop.end, "loop") for loop in one.reading.loops]
    found: list[Part] = []
    at = 0
    for start, end, kind in sorted(spans):
        if start >= at and start < len(text):
            found += [("", text[at:start]), (kind, text[start:end])]
            at = end
    return [*found, ("", text[at:])]


def _run(name: str, summary: Mapping[str, Any], responses: Sequence[ReadResponse]) -> dict[str, Any]:
    told = [one for one in responses if one.has_moment]
    training = summary.get("training")
    return {
        "name": name,
        "facts": list(facts(summary)),
        "classes": [(kind, row["moments"], _share(row["with_moment"])) for kind, row in summary["by_class"].items()],
        "charts": charts(training) if training else [],
        "correlation": list(_correlation(training)) if training else [],
        "behaviours": _behaviours(summary["behaviours"]) if "behaviours" in summary else None,
        "steps": [_step(row) for row in training["steps"]] if training else [],
        "note": training["note"] if training else None,
        "shown": len(told[:SHOWN]),
        "left_out": len(told[SHOWN:]),
        "responses": [
            {
                "key": f"{one.told.item_id} #{one.told.sample_index}",
                "what": ", ".join(moment.kind.value for moment in one.reading.moments[:12]),
                "parts": parts(one),
            }
            for one in told[:SHOWN]
        ],
    }


def _step(row: Mapping[str, Any]) -> list[str]:
    return [
        str(row["step"]),
        f"{row['n']:,}",
        _number(row["reward"]),
        percent(row["with_moment"]),
        _number(row["per_1000_tokens"]),
    ]


def _correlation(training: Mapping[str, Any]) -> Iterator[tuple[str, str, str, int]]:
    for name, found in training["correlation"].items():
        if found["pearson"] is not None:
            label = name.removeprefix("published/").replace("_", " ")
            yield label, f"{found['pearson']:+.2f}", f"{found['spearman']:+.2f}", found["n"]


def _behaviours(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "judge": found["judge"]["model"],
        "rows": list(behaviour_rows(found)),
        "note": (
            f"{found['n']:,} responses judged, {found['failed']:,} failed, {found['unreadable']:,} replies unreadable."
        ),
    }


def behaviour_rows(found: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield name, the judge's share, and of responses: by both, by the judge alone, by the lexicon alone; and kappa."""
    for name in [*found["behaviours"], *(name for name in found["agreement"] if name not in found["behaviours"])]:
        share, agreed = found["behaviours"].get(name), found["agreement"].get(name)
        row = [name.replace("_", " "), "-" if share is None else _share(share["with"])]
        if agreed is None:
            yield [*row, "-", "-", "-", "-"]
            continue
        kappa = "-" if agreed["kappa"] is None else f"{agreed['kappa']:+.2f}"
        yield [*row, *(f"{agreed[key]:,}" for key in ("both", "only_judge", "only_lexicon")), kappa]


def _share(estimate: Mapping[str, Any]) -> str:
    return f"{percent(estimate['value'])} {interval(estimate['ci95'])}".strip()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
