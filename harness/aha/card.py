"""The published card: how well ours and every published rule find moments, as Markdown."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ahabench.harness.aha.lexicon import MomentClass, published_rules, version
from ahabench.harness.aha.quality import (
    OURS,
    SEED,
    Passage,
    Quality,
    Share,
    class_quality,
    finders,
    halves,
    main_class,
    quality,
    read_passages,
    wilson,
)
from ahabench.harness.errors import UsageError
from ahabench.harness.runlog import read_rows

CARD = Path("leaderboards/published/aha.md")
"""Where the card stands in the repository."""
FEW = 10
"""Below so many labelled passages a class is not judged."""

_HEAD = """# How well moments are found

A passage counts as found when at least one moment is found in it. In brackets: 95 % intervals (Wilson's for precision
and recall of unweighted passages, and where all cases agree; otherwise percentiles of a bootstrap over the traces that
the passages were cut from).
Published rules are applied as their authors apply them, to the whole text. Lexicon {version}.

Regenerate: `ahabench aha --report PASSAGES --labels LABELS --outputs OUTPUTS`
"""
_PASSAGES = """
## Labelled passages: the held-out half

{n} of {total} passages that were cut from real reasoning traces, {true} of them with a moment; many of the others are
hard negatives. Passages of one trace stay in one half. The halves are drawn with seed {seed} (`quality.halves`); the
lexicon was written on the other half. The first scoring of this one gave 97.0 % and 100 %. Since then the lexicon was
changed, without reading what was missed or found in this half: a bug in the blanks of a look-back mark was mended, so
that "let me recheck the graph" looks back at the picture; words such as "they" or "students" veto a mark only where
they are its subject, and the veto on "I realize" was narrowed in the same way; marks that stand side by side are merged
into one moment. Which of these passages are found stayed the same. Naming a passage by one class was defined on the
other half, too. Candidates were drawn with keywords that overlap the published rules, so every recall here is
optimistic; sources and labels are confounded.
"""
_LABELS = """
## Published outputs of vision-language models

{n} responses from a stratified, seeded sample, read and labelled by one person: responses in which ahabench found a
moment (drawn with probability {found:.3f}), in which a published rule or a looser cue fired ({cue:.3f}), and the rest
({rest:.5f}). Shares are weighted by one over these, so they speak for all responses. Intervals are of a bootstrap over
the responses; no moment was found in the last stratum, and they cannot show what a single one there would weigh. An
earlier sample of the first stratum and the one of the second were read to mend rules; after this one a single rule
("make sure that there") was narrowed. Most true moments are those of two models that check themselves against given
options.
"""
_COLUMNS = "| rule | precision % | recall % | F1 % |\n|---|--:|--:|--:|"


def card(passages: Path, labels: Path | None = None, outputs: Path | None = None) -> str:
    """Return the card.

    Args:
        passages: labelled passages, as `quality.read_passages` wants them.
        labels: our labels of published outputs, keys and labels only.
        outputs: the folder with those outputs, `<task>/<model>.jsonl`.

    Raises:
        UsageError: a file is not what it should be, or a labelled response is not there.
    """
    everything = read_passages(passages)
    tuned, held_out = halves(everything)
    parts = [_HEAD.format(version=version())]
    parts.append(
        _PASSAGES.format(n=len(held_out), total=len(everything), true=_true(held_out), seed=SEED)
        + f"\n{_COLUMNS}\n{_rows(held_out)}\n"
    )
    parts.append("\n".join(_classes(held_out)))
    parts.append("\n".join(_sources(everything)))
    parts.append(f"\n## The half that it was written on ({len(tuned)} passages)\n\n{_COLUMNS}\n{_rows(tuned)}\n")
    if labels is not None and outputs is not None:
        drawn, rates = read_labels(labels, outputs)
        parts.append(_LABELS.format(n=len(drawn), **rates) + f"\n{_COLUMNS}\n{_rows(drawn)}\n")
        parts.append("\n".join(_strata(labels, drawn)))
    parts.append("\n## The rules\n")
    parts += [f"- {rule.title}: {rule.source}" for rule in published_rules()]
    return "\n".join(parts) + "\n"


def read_labels(labels: Path, outputs: Path) -> tuple[list[Passage], dict[str, float]]:
    """Return the labelled responses with their texts, and each stratum's probability.

    Raises:
        UsageError: a labelled response is not in the outputs.
    """
    rows = [_label(row, labels, number) for number, row in _plain_rows(labels)]
    texts: dict[tuple[str, str], dict[str, str]] = {}
    found = []
    for row in rows:
        file = (row["task"], row["model"])
        if file not in texts:
            path = outputs / row["task"] / f"{row['model']}.jsonl"
            texts[file] = {str(said["item_id"]): said["response"] or "" for _, said in read_rows(path)}
        if row["item_id"] not in texts[file]:
            raise UsageError(f"{outputs} has no response of {row['model']} to {row['task']} {row['item_id']}")
        found.append(
            Passage(
                item_id=row["item_id"],
                question="",
                text=texts[file][row["item_id"]],
                moment=row["moment"],
                kind=row["class"],
                source="/".join((*file, row["item_id"])),
                weight=1 / row["probability"],
            )
        )
    return found, {row["stratum"]: row["probability"] for row in rows}


def _plain_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import json

    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        yield from ((number, json.loads(line)) for number, line in enumerate(lines, start=1) if line.strip())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {error}") from error


def _label(row: dict[str, Any], path: Path, number: int) -> dict[str, Any]:
    wanted = {"task": str, "model": str, "item_id": str, "stratum": str, "probability": float, "moment": bool}
    for key, kind in wanted.items():
        if not isinstance(row.get(key), kind):
            raise UsageError(f"{path}:{number} has {row.get(key)!r} as {key!r}, wanted {kind.__name__}")
    return row


def _rows(passages: Sequence[Passage]) -> str:
    lines: list[str] = []
    for name, finds in finders().items():
        measured = quality(name, passages, [finds(passage) for passage in passages])
        lines.append(_row(f"**{name}**" if not lines else name, measured))
    return "\n".join(lines)


def _row(name: str, measured: Quality) -> str:
    return f"| {name} | {_cell(measured.precision)} | {_cell(measured.recall)} | {_cell(measured.f1)} |"


def _classes(passages: Sequence[Passage]) -> Iterator[str]:
    """Yield the table by class: what is found of each, and how well ours names it."""
    counts = Counter(passage.kind for passage in passages if passage.moment)
    rules = list(finders().items())
    yield "\nBy class: the share of its passages in which a rule finds anything, %.\n"
    yield "| rule | " + " | ".join(f"{kind.value} ({counts[kind.value]})" for kind in _kinds()) + " |"
    yield "|---|" + "--:|" * len(_kinds())
    for name, finds in rules:
        cells = []
        for kind in _kinds():
            those = [passage for passage in passages if passage.kind == kind.value]
            cells.append(_cell(wilson(sum(map(finds, those)), len(those))))
        yield f"| {name} | {' | '.join(cells)} |"
    few = [kind.value for kind in _kinds() if counts[kind.value] < FEW]
    if few:
        yield f"\nToo few passages (fewer than {FEW}) to decide: {', '.join(few)}."
    yield "\nHow ahabench names the class, where a passage counts for every class of which it has a moment.\n"
    yield "| class | n | precision % | recall % | F1 % |\n|---|--:|--:|--:|--:|"
    for kind_name, measured in class_quality(passages).items():
        yield _row(f"{kind_name} | {counts[kind_name]}", measured)
    named = sum(passage.moment and main_class(passage) == passage.kind for passage in passages)
    share = _cell(wilson(named, sum(counts.values())))
    yield "\nThe same where a passage, as it has one label, has one name: of its moments' classes the most specific, an"
    yield f"interruption last (`lexicon.PRIORITY`). {share} % of the passages with a moment get their label.\n"
    yield "| class | n | precision % | recall % | F1 % |\n|---|--:|--:|--:|--:|"
    for kind_name, measured in class_quality(passages, one_each=True).items():
        yield _row(f"{kind_name} | {counts[kind_name]}", measured)
    yield ""


def _sources(passages: Sequence[Passage]) -> Iterator[str]:
    """Yield the table by where passages come from, of both halves, since one holds too few of each."""
    by_source: dict[str, list[Passage]] = defaultdict(list)
    for passage in passages:
        by_source[passage.source.split(":")[0] if ":" in passage.source else "others"].append(passage)
    yield "\nahabench by source, both halves, since sources differ in what they hold.\n"
    yield "| source | passages | with a moment | precision % | recall % | F1 % |\n|---|--:|--:|--:|--:|--:|"
    for source, those in sorted(by_source.items(), key=lambda pair: -len(pair[1])):
        measured = quality(OURS, those, [finders()[OURS](passage) for passage in those])
        yield _row(f"{source} | {len(those)} | {_true(those)}", measured)
    yield ""


def _strata(labels: Path, drawn: Sequence[Passage]) -> Iterator[str]:
    strata = [row["stratum"] for _, row in _plain_rows(labels)]
    counts: dict[str, list[int]] = {}
    for stratum, passage in zip(strata, drawn, strict=True):
        seen = counts.setdefault(stratum, [0, 0])
        seen[0] += 1
        seen[1] += passage.moment
    yield "\n| stratum | labelled | with a moment |\n|---|--:|--:|"
    for stratum, (n, true) in counts.items():
        yield f"| {stratum} | {n} | {true} |"


def _kinds() -> tuple[MomentClass, ...]:
    return tuple(kind for kind in MomentClass if kind is not MomentClass.UNCERTAINTY)


def _true(passages: Sequence[Passage]) -> int:
    return sum(passage.moment for passage in passages)


def _cell(share: Share) -> str:
    if share.value is None:
        return "-"
    if share.low is None or share.high is None:
        return f"{100 * share.value:.1f}"
    return f"{100 * share.value:.1f} [{100 * share.low:.0f}, {100 * share.high:.0f}]"
