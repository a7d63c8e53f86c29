"""Map the rows of another tool's log to our items: by names they share, or where question and answer leave no doubt."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence

from ahabench.harness.dataset import Dataset
from ahabench.harness.errors import UsageError
from ahabench.harness.imports.logs import LogRow
from ahabench.harness.types import Item

ENOUGH = 10
"""Rows that only one item fits, and that stand where the order says: then the log has our order."""
LONGEST = 50_000
"""Characters of a row's text in which a question is looked for; prompts are far shorter."""
EVIDENT = 0.9
"""The share of rows that must have a question or an answer to compare, before an order can be proven."""

_IMAGE_MARK = re.compile(r"<image ?\d{0,2}>")

Names = Callable[[Item], str]

_BY_ID: Names = lambda item: item.id  # noqa: E731

NAMES: Mapping[str, Sequence[tuple[tuple[str, ...], Names]]] = {
    "dynamath": [(("qid", "varid"), lambda item: item.id.replace("_v", "/", 1))],
    "mathverse": [(("problem_index", "problem_version"), lambda item: item.id.replace("_", "/", 1))],
    "mathvision": [(("id",), _BY_ID)],
    "mathvista": [(("pid",), _BY_ID)],
    "wemath": [
        (("question number",), _BY_ID),
        (("ID", "key"), lambda item: f"{item.group}/{item.tags['key'][0]}"),
    ],
}
"""By task: fields of a row that together, joined by "/", name an item, and the item's name in that form.

They are the names in the authors' own files, which both tools keep: lmms-eval where its log has the document (older
versions, and what some of its tasks log with a score), VLMEvalKit in columns of its tables
(vlmeval/dataset/image_mcq.py and image_vqa.py@e8e78f0).
"""


def item_ids(dataset: Dataset, rows: Sequence[LogRow]) -> list[str]:
    """Return the item of each row.

    A row that names its item is believed unless both its question and its answer are others. Otherwise, the rows may
    stand in our order: that is proven when every row agrees with the item at its number in question and answer, and
    the log covers the split or `ENOUGH` of its rows fit no other item. Failing that, a row must fit exactly one item.

    Raises:
        UsageError: rows cannot be mapped with certainty, or two are of one item; with how many and the first.
    """
    named = _named(dataset, rows)
    if named is None:
        fits = _Fits(dataset.items)
        named = _ordered(dataset.items, rows, fits) or _unmistakable(dataset, rows, fits)
    seen: dict[str, LogRow] = {}
    for row, item_id in zip(rows, named, strict=True):
        first = seen.setdefault(item_id, row)
        if first is not row:
            raise UsageError(f"{row.place} answers item {item_id!r}, as {first.place} does; keep one of them")
    return named


def _named(dataset: Dataset, rows: Sequence[LogRow]) -> list[str] | None:
    """Return the items that the rows name; `None` where they name none."""
    ways = [(("item_id",), _BY_ID), *NAMES.get(dataset.task.name, ())]
    for fields, name_of in ways:
        if not rows or not all(name in row.fields for row in rows for name in fields):
            continue
        items = {name_of(item): item for item in dataset.items}
        found = [items.get("/".join(row.fields[name] for name in fields)) for row in rows]
        wrong = [
            (row, "it names none" if item is None else f"item {item.id!r} has another question and answer")
            for row, item in zip(rows, found, strict=True)
            if item is None or (_asks(row, item) is False and _expects(row, item) is False)
        ]
        if wrong:
            raise _refusal(dataset, rows, wrong)
        return [item.id for item in found if item is not None]
    return None


def _ordered(items: Sequence[Item], rows: Sequence[LogRow], fits: "_Fits") -> list[str] | None:
    """Return the items by the rows' numbers, where the order of the log is proven to be ours."""
    answered = [item for item in items if item.gold]
    by_id = {int(item.id): item for item in items if item.id.isdecimal()}
    orders = [
        by_id,
        *({n + start: item for n, item in enumerate(kept)} for kept in (items, answered) for start in (0, 1)),
    ]
    for order in orders:
        if (found := _follows(order, rows, fits)) is not None:
            return [item.id for item in found]
    return None


def _follows(order: Mapping[int, Item], rows: Sequence[LogRow], fits: "_Fits") -> list[Item] | None:
    found, evident = [], 0
    for row in rows:
        item = order.get(row.number) if row.number is not None else None
        if item is None:
            return None
        verdicts = (_asks(row, item), _expects(row, item))
        if False in verdicts:
            return None
        evident += True in verdicts
        found.append(item)
    if evident < EVIDENT * len(rows):
        return None
    if len({item.id for item in found}) == len(order):
        return found
    alone = 0
    for row, item in zip(rows, found, strict=True):
        alone += fits.of(row) == [item]
        if alone >= ENOUGH:
            return found
    return None


def _unmistakable(dataset: Dataset, rows: Sequence[LogRow], fits: "_Fits") -> list[str]:
    found, wrong = [], []
    for row in rows:
        candidates = fits.of(row)
        if len(candidates) == 1:
            found.append(candidates[0].id)
        elif candidates:
            ids = ", ".join(item.id for item in candidates[:3]) + (", ..." if len(candidates) > 3 else "")
            wrong.append((row, f"{len(candidates)} items have its question and answer ({ids})"))
        else:
            wrong.append((row, "no item has its question and answer"))
    if wrong:
        raise _refusal(dataset, rows, wrong)
    return found


def _refusal(dataset: Dataset, rows: Sequence[LogRow], wrong: Sequence[tuple[LogRow, str]]) -> UsageError:
    row, why = wrong[0]
    return UsageError(
        f"{len(wrong):,} of {len(rows):,} rows cannot be mapped to items of {dataset.protocol} with certainty, the "
        f"first is {row.place}: {why}. Is it the right --task and split, and the same data?"
    )


class _Fits:
    """Finds the items that agree with a row in both question and answer."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._by_gold: dict[str, list[Item]] = {}
        self._asked = [item for item in items if _flat(item.question)]
        self._questions = {item.id: _flat(item.question) for item in self._asked}
        for item in self._asked:
            for form in _golds(item):
                self._by_gold.setdefault(form, []).append(item)

    def of(self, row: LogRow) -> list[Item]:
        """Return them in our order; none where the row has no question to go by."""
        if not row.question:
            return []
        pool: Iterable[Item] = self._asked
        if row.golds:
            forms = {_form(gold) for gold in row.golds}
            pool = {item.id: item for form in sorted(forms) for item in self._by_gold.get(form, ())}.values()
        text = _flat(row.question)
        return [item for item in pool if self._questions[item.id] in text]


def _asks(row: LogRow, item: Item) -> bool | None:
    """Return whether a row asks an item's question; `None` where one of them has none to show."""
    question = _flat(item.question)
    if not row.question or not question:
        return None
    return question in _flat(row.question)


def _expects(row: LogRow, item: Item) -> bool | None:
    """Return whether a row expects an item's answer; `None` where one of them has none."""
    if not row.golds or not item.gold:
        return None
    return not {_form(gold) for gold in row.golds}.isdisjoint(_golds(item))


def _golds(item: Item) -> set[str]:
    """Return the forms in which tools write an item's answer: ours, the option's text, the published one."""
    golds = [item.gold or "", *item.tags.get("published_gold", ())]
    if item.gold in item.labels and item.choices:
        golds.append(item.choices[item.labels.index(item.gold)])
    return {_form(gold) for gold in golds if gold}


def _form(gold: str) -> str:
    """Return an answer as it compares: a table may have made 5.0 or "5" of "5"."""
    text = "".join(unicodedata.normalize("NFKC", gold).casefold().split())
    try:
        return repr(float(text))
    except ValueError:
        return text


def _flat(text: str) -> str:
    """Return a text without marks for images, which some tools take out, and every run of white space as one space."""
    return " ".join(unicodedata.normalize("NFKC", _IMAGE_MARK.sub(" ", text[:LONGEST])).split())
