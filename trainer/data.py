"""Training records in the schema of VLAA-Thinking-GRPO-25K, read into items that say which reward is theirs.

A record is a JSON object: "id", "image" (a path below the image folder; "images" for several), "question" (the options
inline), "gt", "verifier_type", and where they apply "caption" and "meta". The schema and its oddities (answers such as
"(a)", "A)" and "... †Answer: y = 2x") are those of arXiv:2504.11468, section 2 and appendix C.1. A file is a JSON array
or JSONL.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Self

from ahabench.harness.dataset import read_json, read_jsonl
from ahabench.harness.errors import DatasetError, UsageError
from ahabench.harness.images import ImageFile, decode
from ahabench.harness.types import AnswerType, ImageSource, Item
from ahabench.trainer.boxes import BoxFormat, BoxUnits, read_box


class Kind(StrEnum):
    """The reward of a record (arXiv:2504.11468, section 4.1), by its `verifier_type`."""

    DIGIT = "digit"
    MCQ = "mcq"
    MATH = "math"
    IOU = "iou"
    OPEN_ENDED = "open_ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainItem:
    """A question to train on: an item, and which reward decides about its completions."""

    item: Item
    kind: Kind
    caption: str | None = None
    """A description of the image, which the policy does not see."""
    boxes: BoxFormat | None = None
    """Given where, and only where, `kind` is IOU."""

    @property
    def gold(self) -> str:
        """The reference answer, which every training item has."""
        assert self.item.gold is not None
        return self.item.gold

    @classmethod
    def of_item(cls, item: Item) -> Self:
        """Return the training item of an item that was one, which its tags say; the caption is lost."""
        kind = Kind(item.tags["verifier_type"][0])
        return cls(item=item, kind=kind, boxes=BoxFormat.of_tags(item.tags) if kind is Kind.IOU else None)


class Records(NamedTuple):
    """What a source of records holds."""

    items: tuple[TrainItem, ...]
    skipped: tuple[str, ...]
    """Why each bad record was left out."""


_ANSWER_TYPES = {
    Kind.DIGIT: AnswerType.INTEGER,
    Kind.MCQ: AnswerType.CHOICE,
    Kind.MATH: AnswerType.EXPRESSION,
    Kind.IOU: AnswerType.LIST,
    Kind.OPEN_ENDED: AnswerType.TEXT,
}
_SPELLINGS = {"open": Kind.OPEN_ENDED, "openended": Kind.OPEN_ENDED, "choice": Kind.MCQ} | {
    kind.value.replace("_", ""): kind for kind in Kind
}
"""The released file's spellings of IoU and open-ended were not seen: case, "-", "_" and spaces are ignored."""

_MATH_ANSWER = "†Answer:"
_LETTER = re.compile(r"[(\[]?\s*([A-Ja-j])\s*[)\].:]*(?:\s.*)?$", re.DOTALL)
_SEVERAL = re.compile(r"[A-J](?:\s*,\s*[A-J]){1,9}$")
_INTEGER = re.compile(r"[+-]?\d{1,15}$")
_OPTION = re.compile(r"^[ \t]*\(?([A-J])[ \t]*[):.][ \t]*(\S.*)$", re.MULTILINE)
_CONTROL_TOKEN = re.compile(r"<\|[a-z_]{1,40}\|>")
LABELS = "ABCDEFGHIJ"


def load_records(
    path: Path,
    *,
    images: Path | None = None,
    box_units: BoxUnits | None = None,
    skip_bad: bool = False,
) -> Records:
    """Return the items of a JSON or JSONL file, or of the only such file in a folder, and why others were skipped.

    Args:
        path: the file or folder.
        images: where the records' image paths start; the file's folder if `None`.
        box_units: the units of boxes whose record declares none.
        skip_bad: leave out records that are not what their `verifier_type` wants, instead of refusing the file.

    Raises:
        UsageError: there is no such file, or a folder has none or several.
        DatasetError: a record is not what its `verifier_type` wants, and `skip_bad` is off; or no record is left.
    """
    file = only_file(path)
    return read_records(
        raw_records(file), name=file.name, images=images or file.parent, box_units=box_units, skip_bad=skip_bad
    )


def raw_records(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the records of a JSON or JSONL file, or of the only such file in a folder, as they stand there.

    Raises:
        UsageError: there is no such file, or a folder has none or several.
        DatasetError: it is no JSON array of objects, or not JSON at all.
    """
    file = only_file(path)
    if file.suffix == ".jsonl":
        yield from read_jsonl(file)
        return
    rows = read_json(file)
    if not isinstance(rows, list):
        raise DatasetError(f"{file} is no JSON array of records")
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DatasetError(f"{file}, record {number}, is no object")
        yield row


def read_records(
    rows: Iterable[Mapping[str, Any]],
    *,
    name: str,
    images: Path | None = None,
    box_units: BoxUnits | None = None,
    skip_bad: bool = False,
) -> Records:
    """Return the items of records, and why others were skipped.

    Args:
        rows: the records; an image may also be an `ImageSource`.
        name: what to call their source in an error.
        images: where the records' image paths start; paths are refused if `None`.
        box_units: the units of boxes whose record declares none.
        skip_bad: leave out bad records instead of raising.

    Raises:
        DatasetError: as `load_records`.
    """
    items: list[TrainItem] = []
    skipped: list[str] = []
    seen: set[str] = set()
    for number, row in enumerate(rows):
        try:
            found = to_train_item(row, where=f"{name}, record {number}", images=images, box_units=box_units)
            if found.item.id in seen:
                raise DatasetError(f"{name}, record {number}, repeats the id {found.item.id!r}")
        except DatasetError as error:
            if not skip_bad:
                raise
            skipped.append(str(error))
            continue
        seen.add(found.item.id)
        items.append(found)
    if not items:
        raise DatasetError(f"{name} has no usable record" + (f"; the first: {skipped[0]}" if skipped else ""))
    return Records(tuple(items), tuple(skipped))


def to_train_item(
    row: Mapping[str, Any], *, where: str, images: Path | None = None, box_units: BoxUnits | None = None
) -> TrainItem:
    """Return the item of one record.

    Raises:
        DatasetError: a key is missing or its value is not what the `verifier_type` wants.
    """
    where = f"{where} ({row['id']})" if isinstance(row.get("id"), str) else where
    kind = _kind(row, where)
    question = read_question(row, where)
    raw_gold = row.get("gt", row.get("answer"))
    if isinstance(raw_gold, bool) or not isinstance(raw_gold, str | int | float | list):
        raise DatasetError(f"{where}: wanted a text or a number as 'gt', found {raw_gold!r}")
    if isinstance(raw_gold, float) and raw_gold.is_integer():
        raw_gold = int(raw_gold)
    gold, labels, choices = _gold(kind, str(raw_gold), question, where)
    caption = row.get("caption")
    item = Item(
        id=record_text(row, "id", where),
        question=question,
        gold=gold,
        answer_type=AnswerType.CHOICES if kind is Kind.MCQ and "," in gold else _ANSWER_TYPES[kind],
        images=record_images(row, images, where),
        labels=labels,
        choices=choices,
        tags={"verifier_type": (kind.value,)},
    )
    boxes = _boxes(row, item, box_units, where) if kind is Kind.IOU else None
    return TrainItem(
        item=replace(item, tags={**item.tags, **(boxes.as_tags() if boxes else {})}),
        kind=kind,
        caption=caption if isinstance(caption, str) and caption.strip() else None,
        boxes=boxes,
    )


def inline_options(question: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    r"""Return the labels and texts of the options that stand in a question, one on a line; empty where there are none.

    >>> inline_options("How many?\nChoices:\nA: 3\nB: 5")
    (('A', 'B'), ('3', '5'))
    """
    runs: list[list[tuple[str, str]]] = []
    for label, text in _OPTION.findall(question):
        if label == "A":
            runs.append([])
        if runs and label == LABELS[len(runs[-1])]:
            runs[-1].append((label, text.strip()))
    if not runs or len(runs[-1]) < 2:
        return (), ()
    # A question may mention "A: ..." before its options, so the last run is theirs.
    return tuple(label for label, _ in runs[-1]), tuple(text for _, text in runs[-1])


def _gold(kind: Kind, gold: str, question: str, where: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    gold = gold.strip()
    if kind is Kind.MATH:
        gold = gold.rpartition(_MATH_ANSWER)[2].strip()
    if not gold:
        raise DatasetError(f"{where}: its 'gt' is empty")
    if kind is Kind.DIGIT and not _INTEGER.match(gold):
        raise DatasetError(f"{where}: wanted an integer as the 'gt' of digit, found {gold[:40]!r}")
    if kind is not Kind.MCQ:
        return gold, (), ()
    labels, choices = inline_options(question)
    letters = _letters(gold)
    if not letters or (labels and not set(letters) <= set(labels)):
        wanted = f"one of {', '.join(labels)}" if labels else "an option's letter"
        raise DatasetError(f"{where}: wanted {wanted} as the 'gt' of mcq, found {gold[:40]!r}")
    # Where the options stand in the picture only, there are at least four.
    last = max(LABELS.index(letter) for letter in letters)
    return ", ".join(letters), labels or tuple(LABELS[: max(4, last + 1)]), choices


def _letters(gold: str) -> list[str]:
    """Return the options that a gold names: one, perhaps with its text, or several with commas between."""
    if _SEVERAL.match(gold):
        return [part.strip() for part in gold.split(",")]
    one = _LETTER.match(gold)
    return [one[1].upper()] if one else []


def _boxes(row: Mapping[str, Any], item: Item, default: BoxUnits | None, where: str) -> BoxFormat:
    meta = row.get("meta") if isinstance(row.get("meta"), Mapping) else {}
    assert isinstance(meta, Mapping)
    gold = _units(meta.get("box_units", default), where)
    answer = _units(meta.get("answer_units", gold), where)
    size = _image_size(meta, item, where) if gold != answer and BoxUnits.PIXEL in {gold, answer} else None
    if read_box(item.gold or "", gold, size) is None:
        raise DatasetError(f"{where}: wanted a box [x1, y1, x2, y2] in {gold} units as 'gt', found {item.gold!r}")
    return BoxFormat(gold=gold, answer=answer, image_size=size)


def _units(value: object, where: str) -> BoxUnits:
    known = ", ".join(BoxUnits)
    if value is None:
        raise DatasetError(f"{where} declares no box units; give meta.box_units, or box_units in the recipe: {known}")
    try:
        return BoxUnits(str(value))
    except ValueError as error:
        raise DatasetError(f"{where}: unknown box units {value!r}; known: {known}") from error


def _image_size(meta: Mapping[str, Any], item: Item, where: str) -> tuple[int, int]:
    size = meta.get("image_size")
    if isinstance(size, Sequence) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size):
        return size[0], size[1]
    if len(item.images) != 1:
        raise DatasetError(f"{where}: pixel boxes need one image or meta.image_size = [width, height]")
    width, height = decode(item.images[0].read(), name=item.id).size
    return width, height


def read_question(row: Mapping[str, Any], where: str) -> str:
    """Return the question of a record without the mark of its image's place; raises as `plain_text`."""
    return plain_text(row, "question", where).removeprefix("<image>").strip()


def plain_text(row: Mapping[str, Any], key: str, where: str) -> str:
    """Return a text of a record that a model is to read as it stands.

    Raises:
        DatasetError: it is missing or holds a token that a model gives a meaning of its own.
    """
    text = record_text(row, key, where)
    if token := _CONTROL_TOKEN.search(text):
        # It would be read as a token of the model's, such as the place of an image.
        raise DatasetError(f"{where}: its {key} holds the control token {token[0]!r}; remove it")
    return text


def record_images(row: Mapping[str, Any], folder: Path | None, where: str) -> tuple[ImageSource, ...]:
    """Return the images of a record, unread.

    Raises:
        DatasetError: one is missing, or its path leaves the folder.
    """
    values = row["images"] if row.get("images") is not None else row.get("image")
    if values is None:
        return ()
    found: list[ImageSource] = []
    for value in values if isinstance(values, list | tuple) else [values]:
        if isinstance(value, str) and folder is not None:
            path = folder / value
            if ".." in Path(value).parts or Path(value).is_absolute():
                raise DatasetError(f"{where}: its image {value!r} leaves the image folder")
            if not _is_file(path):
                raise DatasetError(f"{where}: its image {str(path)[:200]} is missing; name the folder with images=DIR")
            found.append(ImageFile(path))
        elif callable(getattr(value, "read", None)):
            found.append(value)
        else:
            raise DatasetError(f"{where}: wanted a path or an image as 'image', found {type(value).__name__}")
    return tuple(found)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        # A name longer than the file system has any.
        return False


def check_decodable(images: Iterable[tuple[str, Sequence[ImageSource]]]) -> None:
    """Decode images, which takes a while where there are many.

    Args:
        images: the id of each record, with its images.

    Raises:
        DatasetError: some cannot be decoded; with how many, and the first.
    """

    def why(record: tuple[str, Sequence[ImageSource]]) -> str | None:
        name, sources = record
        try:
            for source in sources:
                decode(source.read(), name=name)
        except DatasetError as error:
            return str(error)
        return None

    with ThreadPoolExecutor() as pool:
        broken = [found for found in pool.map(why, images) if found is not None]
    if broken:
        raise DatasetError(f"the images of {len(broken):,} records cannot be decoded; the first: {broken[0]}")


def _kind(row: Mapping[str, Any], where: str) -> Kind:
    value = row.get("verifier_type")
    spelling = re.sub(r"[\s_-]", "", value).lower() if isinstance(value, str) else ""
    if spelling not in _SPELLINGS:
        raise DatasetError(f"{where}: unknown verifier_type {value!r}; known: {', '.join(Kind)}")
    return _SPELLINGS[spelling]


def record_text(row: Mapping[str, Any], key: str, where: str) -> str:
    """Return a text of a record; a number becomes one.

    Raises:
        DatasetError: it is missing, empty or something else.
    """
    value = row.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise DatasetError(f"{where}: wanted a text as {key!r}, found {value!r}")
    return value


def only_file(path: Path) -> Path:
    """Return a file, or the only JSON or JSONL file of a folder.

    Raises:
        UsageError: there is none, or several.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise UsageError(f"the training data {path} do not exist")
    files = sorted(file for file in path.iterdir() if file.suffix in {".json", ".jsonl"})
    if len(files) != 1:
        raise UsageError(f"{path} holds {len(files)} JSON files, wanted one; name the file itself")
    return files[0]
