"""The published card: agreement of every scorer with every file of published outputs, as Markdown."""

import re
from collections.abc import Iterator
from pathlib import Path

from ahabench.harness import registry
from ahabench.harness.agreement import Agreement, agreements, read_carried
from ahabench.harness.answers.compare import squeezed
from ahabench.harness.answers.numbers import mentions
from ahabench.harness.answers.text import clean
from ahabench.harness.dataset import Dataset, load
from ahabench.harness.errors import UsageError
from ahabench.harness.stats import cohen_kappa
from ahabench.harness.types import Item, Task

CARD = Path("leaderboards/published/agreement.md")
"""Where the card stands in the repository."""
SCORERS = ("robust", "official", "vlmevalkit")
FIELD = "official_correct"

_HEAD = """# Agreement with published verdicts

Each row compares a scorer's verdicts, without a judge, with those that were published with the outputs: for MathVista
and LogicVista GPT-4 read the answer and rules compared it; for MathVision rules did both; thirdparty__URSA-8B has
its authors' judge. FP: right for the scorer, wrong in the file; FN: the other way round; none: nothing was read.
"ceiling" is what a scorer that never guesses could reach: one minus the share of responses that were published as right
although neither the gold's label nor its content stands anywhere in them. `official` on MathVista and LogicVista, and
`vlmevalkit` on LogicVista, compare the extraction in the file.

Regenerate: `ahabench agreement OUTPUTS --report --data DATA`
"""
_COLUMNS = "| model | n | agree % | κ | FP | FN | none | ours % | published % | ceiling % |"
_RULE = "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"


def card(outputs: Path, data: Path | None) -> str:
    """Return the card for a folder of published outputs.

    Args:
        outputs: holds `<task>/*.jsonl` with responses and `official_correct`.
        data: where the items are, as for `dataset.load`.

    Raises:
        UsageError: the folder holds no such files, or they hold no such rows.
    """
    parts = [_HEAD]
    for task in registry.tasks().values():
        files = sorted((outputs / task.name).glob("*.jsonl"))
        if files:
            parts += _sections(task, files, data)
    if len(parts) == 1:
        raise UsageError(
            f"{outputs} holds no responses with verdicts in <task>/*.jsonl of a known task; "
            "give the folder of published outputs"
        )
    return "\n".join(parts)


def _sections(task: Task, files: list[Path], data: Path | None) -> Iterator[str]:
    dataset = load(task, data=data)
    ceilings = {file: _ceiling(dataset, file) for file in files}
    extracted = any(response.extraction is not None for file in files for _, response in read_carried(file, FIELD))
    for scorer in SCORERS:
        if registry.find_scorer(task, scorer).read is None and not extracted:
            # It compares what a judge extracted, and nobody did: there is nothing to measure.
            continue
        rows = [row for row in agreements(dataset, scorer, files, field=FIELD) if row.n]
        if rows:
            yield f"## {task.name} {dataset.split} · {rows[0].scorer}\n\n{_COLUMNS}\n{_RULE}"
            yield "\n".join(_row(row, ceilings[Path(row.file)]) for row in rows)
            yield _total(rows) + "\n"


def _row(row: Agreement, ceiling: float | None) -> str:
    kappa = "-" if row.kappa is None else f"{row.kappa:.3f}"
    shares = [_percent(value) for value in (row.accuracy, row.official_accuracy, ceiling)]
    counts = f"{row.false_positive} | {row.false_negative} | {row.no_answer}"
    return f"| {row.model} | {row.n} | {_percent(row.agreement, 2)} | {kappa} | {counts} | {' | '.join(shares)} |"


def _total(rows: list[Agreement]) -> str:
    n = sum(row.n for row in rows)
    positive, negative = sum(row.false_positive for row in rows), sum(row.false_negative for row in rows)
    none = sum(row.no_answer for row in rows)
    ours = sum(round((row.accuracy or 0) * row.n) for row in rows)
    both = ours - positive
    verdicts = [(True, True)] * both + [(True, False)] * positive + [(False, True)] * negative
    verdicts += [(False, False)] * (n - len(verdicts))
    kappa = cohen_kappa([first for first, _ in verdicts], [second for _, second in verdicts])
    shares = f"{_percent(ours / n)} | {_percent((both + negative) / n)}"
    agreed = f"{_percent((n - positive - negative) / n, 2)} | {'-' if kappa is None else f'{kappa:.3f}'}"
    return f"| **all** | {n} | {agreed} | {positive} | {negative} | {none} | {shares} | |"


def _ceiling(dataset: Dataset, file: Path) -> float | None:
    items = {item.id: item for item in dataset.items}
    n = absent = 0
    for row, response in read_carried(file, FIELD):
        if response.text is None or row[FIELD] is None or response.item_id not in items:
            continue
        n += 1
        absent += row[FIELD] and not _holds_gold(items[response.item_id], response.text)
    return 1 - absent / n if n else None


def _holds_gold(item: Item, text: str) -> bool:
    """Whether the gold's label, content or value stands anywhere in a text."""
    gold, plain = item.gold or "", clean(text)
    if squeezed(gold) in squeezed(plain) and (not item.labels or re.search(_standalone(gold), plain)):
        return True
    if gold in item.labels:
        if re.search(_standalone(gold), plain):
            return True
        content = item.choices[item.labels.index(gold)] if item.choices else ""
        return bool(content) and squeezed(content) in squeezed(plain)
    values = {f"{mention.quantity.value:.6g}" for mention in mentions(plain)}
    return any(f"{mention.quantity.value:.6g}" in values for mention in mentions(gold))


def _standalone(label: str) -> str:
    return rf"(?<![A-Za-z])(?:{re.escape(label)}|{re.escape(label.lower())})(?![A-Za-z])"


def _percent(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f}"
