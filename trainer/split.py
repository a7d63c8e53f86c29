"""The difficulty split: records whose distilled trace reflects go to RL, the others to SFT; nothing goes to both.

The rule of arXiv:2504.11468, section 2 and appendix A.2, is a keyword list, tried as substrings on the whole answer, so
that "against" and "checkered" count; our own counter (`harness/aha`) is the alternative. GeoQA170K goes to RL alone:
that the paper says, and that its records without a keyword go there too is our reading of it.

    sft.jsonl    the records as they stood, trace included (`trainer/sft_data.py` reads them)
    rl.jsonl     the records without the trace, with their "verifier_type" (`trainer/data.py` reads them)
    split.json   the rule, the digest of the input, the counts
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from pydantic import Field

from ahabench.harness.aha.lexicon import published_rules, version
from ahabench.harness.aha.moments import moments
from ahabench.harness.disk import replace_file
from ahabench.harness.errors import DatasetError, UsageError, unknown_name
from ahabench.harness.stats import cohen_kappa
from ahabench.trainer.data import Kind, only_file, raw_records, record_text
from ahabench.trainer.recipe_files import Part

SFT, RL, COUNTS = "sft.jsonl", "rl.jsonl", "split.json"
PAPER_RULE, OURS = "vlaa_data_split", "ahabench"
SKIPS_SHOWN = 20
"""Reasons for skipping that `split.json` keeps."""

KINDS = {
    "clevr_math": Kind.DIGIT,
    "geoqa170k": Kind.MCQ,
    "arxivqa": Kind.MCQ,
    "synthesis": Kind.MATH,
    "coco": Kind.IOU,
    "vg": Kind.IOU,
    "docvqa": Kind.OPEN_ENDED,
    "vizwiz": Kind.OPEN_ENDED,
    "allava_laion": Kind.OPEN_ENDED,
}
"""The reward of each source (arXiv:2504.11468, section 4.1), by the folder of its images."""

Hits = Callable[[str, str], int]
"""Trace and question to the number of hits."""


class SplitConfig(Part):
    """The settings of a split."""

    records: Path
    """A JSON array or JSONL, or a folder with one such file."""
    rule: str = PAPER_RULE
    """A published rule's name, or "ahabench" for moments by our lexicon."""
    min_hits: int = Field(default=1, ge=1)
    """Hits from which a record goes to RL."""
    together: Literal["prompt", "image"] = "prompt"
    """What may not stand on both sides: an image with its question, or an image. All go to RL if one does."""
    rl_only: tuple[str, ...] = ("geoqa170k",)
    """Sources that go to RL whatever their traces say."""
    trace: str = "ds_answer"
    """The key of the distilled trace."""
    verifier_types: dict[str, Kind] = Field(default_factory=dict)
    """By source, over those of the paper, for RL records that have none."""
    skip_bad: bool = False
    """Leave out bad records instead of refusing the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Divided:
    """Both sides, in the order of the input."""

    sft: tuple[Mapping[str, Any], ...]
    rl: tuple[Mapping[str, Any], ...]
    report: Mapping[str, Any]
    """What `split.json` says."""


class _Record(NamedTuple):
    row: Mapping[str, Any]
    source: str
    unit: tuple[str, ...]
    hits: int | None
    """`None` where there is no trace to look at."""
    other_hits: int | None


def split_file(config: SplitConfig, out: Path) -> Divided:
    """Split a file of records into `out`, and return what was written.

    Raises:
        UsageError: the input is not there, the rule is unknown, or `out` already holds a split.
        DatasetError: a record cannot be used and `skip_bad` is off, or none is left.
    """
    for name in (SFT, RL, COUNTS):
        if (out / name).exists():
            raise UsageError(f"{out / name} exists already; give an empty --out folder")
    file = only_file(config.records)
    found = split(raw_records(file), config, name=file.name)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    report = {"schema_version": 1, "records": file.name, "sha256": digest, **found.report}
    replace_file(out / SFT, _lines(found.sft))
    replace_file(out / RL, _lines(found.rl))
    # Last: where it stands, the split is whole.
    replace_file(out / COUNTS, [json.dumps(report, indent=2).encode() + b"\n"])
    return Divided(sft=found.sft, rl=found.rl, report=report)


def split(rows: Iterable[Mapping[str, Any]], config: SplitConfig, *, name: str) -> Divided:
    """Return the records divided by the rule; otherwise as `split_file`.

    Args:
        rows: the records.
        config: all but its `records` is used.
        name: what to call the source of the records in an error.
    """
    rule, other = _rule(config.rule), _rule(_other(config.rule))
    records: list[_Record] = []
    skipped: list[str] = []
    seen: set[str] = set()
    for number, row in enumerate(rows):
        try:
            record = _read(row, config, (rule, other), f"{name}, record {number}")
            if (known := str(row["id"])) in seen:
                raise DatasetError(f"{name}, record {number}, repeats the id {known!r}")
        except DatasetError as error:
            if not config.skip_bad:
                raise
            skipped.append(str(error))
            continue
        seen.add(known)
        records.append(record)
    if not records:
        raise DatasetError(f"{name} has no usable record" + (f"; the first: {skipped[0]}" if skipped else ""))
    own = [_goes_to_rl(record, config) for record in records]
    units = {record.unit for record, goes in zip(records, own, strict=True) if goes}
    to_rl = [record.unit in units for record in records]
    rl = tuple(_rl_row(record, config) for record, goes in zip(records, to_rl, strict=True) if goes)
    return Divided(
        sft=tuple(record.row for record, goes in zip(records, to_rl, strict=True) if not goes),
        rl=rl,
        report={
            "rule": _rule_row(config),
            "lexicon": version(),
            "together": config.together,
            "rl_only": list(config.rl_only),
            "n": len(records),
            "sft": to_rl.count(False),
            "rl": len(rl),
            "drawn_along": sum(goes and not of_itself for goes, of_itself in zip(to_rl, own, strict=True)),
            "without_verifier_type": sum("verifier_type" not in row for row in rl),
            "sources": _by_source(records, to_rl),
            "other_rule": _compared(records, config),
            "skipped": {"n": len(skipped), "first": skipped[:SKIPS_SHOWN]},
        },
    )


def _rule(name: str) -> Hits:
    if name == OURS:
        return lambda trace, question: len(moments(trace, question))
    rules = {rule.name: rule for rule in published_rules()}
    if name not in rules:
        raise unknown_name("rule", name, [OURS, *rules])
    return lambda trace, _: rules[name].count(trace)


def _other(name: str) -> str:
    return PAPER_RULE if name == OURS else OURS


def _read(row: Mapping[str, Any], config: SplitConfig, rules: tuple[Hits, Hits], where: str) -> _Record:
    record_text(row, "id", where)
    where = f"{where} ({row['id']})"
    question = record_text(row, "question", where)
    images = _images(row, where)
    source = PurePosixPath(images[0]).parts[0] if images else str(row["id"]).partition("-")[0]
    trace = row.get(config.trace)
    if trace is None and source not in config.rl_only:
        raise DatasetError(f"{where}: wanted a text as {config.trace!r}, found none")
    text = None if trace is None else record_text(row, config.trace, where)
    _line(row, where)
    prompt = " ".join(question.removeprefix("<image>").split())
    return _Record(
        row=row,
        source=source,
        unit=tuple(images) if images and config.together == "image" else (*images, "", prompt),
        hits=None if text is None else rules[0](text, question),
        other_hits=None if text is None else rules[1](text, question),
    )


def _images(row: Mapping[str, Any], where: str) -> list[str]:
    """Return the image paths of a record in one spelling."""
    value = row["images"] if row.get("images") is not None else row.get("image")
    if value is None:
        return []
    paths = value if isinstance(value, list) else [value]
    for path in paths:
        if not isinstance(path, str) or not PurePosixPath(path).parts:
            raise DatasetError(f"{where}: wanted a path as 'image', found {path!r:.80}")
        if ".." in PurePosixPath(path).parts or PurePosixPath(path).is_absolute():
            raise DatasetError(f"{where}: its image {path!r:.80} leaves the image folder")
    return [str(PurePosixPath(path)) for path in paths]


def _goes_to_rl(record: _Record, config: SplitConfig) -> bool:
    return record.source in config.rl_only or (record.hits or 0) >= config.min_hits


def _rl_row(record: _Record, config: SplitConfig) -> dict[str, Any]:
    """Return a record for RL: the policy must find its own trace, so the distilled one stays out."""
    row = {key: value for key, value in record.row.items() if key != config.trace}
    kind = config.verifier_types.get(record.source) or KINDS.get(record.source)
    if row.get("verifier_type") is None:
        row.pop("verifier_type", None)
        row |= {"verifier_type": kind.value} if kind else {}
    return row


def _rule_row(config: SplitConfig) -> dict[str, Any]:
    titles = {rule.name: rule.title for rule in published_rules()}
    return {"name": config.rule, "title": titles.get(config.rule, OURS), "min_hits": config.min_hits}


def _by_source(records: Sequence[_Record], to_rl: Sequence[bool]) -> dict[str, dict[str, int]]:
    sides: dict[str, Counter[bool]] = defaultdict(Counter)
    for record, goes in zip(records, to_rl, strict=True):
        sides[record.source][goes] += 1
    return {
        source: {"records": count.total(), "sft": count[False], "rl": count[True]}
        for source, count in sorted(sides.items())
    }


def _compared(records: Sequence[_Record], config: SplitConfig) -> dict[str, Any]:
    """Return how the rule and the other one agree on whether a trace reflects, before anything else is looked at."""
    traced = [record for record in records if record.hits is not None]
    ours = [(record.hits or 0) >= config.min_hits for record in traced]
    theirs = [(record.other_hits or 0) >= config.min_hits for record in traced]
    both = sum(a and b for a, b in zip(ours, theirs, strict=True))
    return {
        "name": _other(config.rule),
        "n": len(traced),
        "both": both,
        "only_rule": sum(ours) - both,
        "only_other": sum(theirs) - both,
        "kappa": cohen_kappa(ours, theirs),
    }


def _lines(rows: Sequence[Mapping[str, Any]]) -> Iterable[bytes]:
    return (_line(row, "") for row in rows)


def _line(row: Mapping[str, Any], where: str) -> bytes:
    try:
        return json.dumps(row, allow_nan=False).encode("ascii") + b"\n"
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{where} cannot be written as JSON: {error}") from error
