"""Verdicts as they stand in a run, and what tells of which responses and by which scorer they are."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ahabench.harness.digests import rows_digest
from ahabench.harness.errors import UsageError
from ahabench.harness.judged import Judged
from ahabench.harness.runlog import MAX_COUNT, METRICS, RESPONSES, VERDICTS, Key
from ahabench.harness.types import Status, Verdict

Asked = tuple[str | None, str | None]
"""The digests of prompt and images that a response answers."""
_Settled = tuple[Verdict, Mapping[str, Any]]
_decode = json.JSONDecoder().raw_decode
_STATUSES = {status.value: status for status in Status}
_DAMAGE = (OSError, ValueError, OverflowError, RecursionError, KeyError, TypeError, AttributeError)
"""What reading a file ends with that is not what it should be."""


class Recorded(NamedTuple):
    """What a `metrics.json` says of the verdicts beside it."""

    scorer: str
    digests: tuple[str | None, str | None]
    """Of responses and verdicts; `None` where an older ahabench wrote it."""
    headline: float | None
    """The headline's value."""
    lexicon: str | None
    """By which aha moments were counted."""


class Stored(NamedTuple):
    """Responses with the verdicts on disk."""

    judged: list[Judged]
    """Without image sizes and prompt tokens, which no comparison looks at."""
    asked: dict[Key, Asked]
    places: dict[Key, int]
    """Where each response stands in its file, in bytes."""
    digests: tuple[str, str]
    """Of responses and verdicts, as `metrics.json` has them."""


def read_recorded(folder: Path) -> Recorded | None:
    """Return whose a run's verdicts on a task are, and on what; `None` where there are none.

    Raises:
        UsageError: `metrics.json` is damaged.
    """
    if not (folder / METRICS).exists() or not (folder / VERDICTS).exists():
        return None
    try:
        row = json.loads((folder / METRICS).read_bytes())
        headline = (row.get("metrics") or {}).get(row.get("headline"), {}).get("value")
        lexicon = (row.get("aha") or {}).get("lexicon")
        return Recorded(
            scorer=str(row["scorer"]),
            digests=(row.get("responses_sha256"), row.get("verdicts_sha256")),
            headline=None if headline is None else float(headline),
            lexicon=None if lexicon is None else str(lexicon),
        )
    except _DAMAGE as error:
        raise _damaged(folder / METRICS, error) from error


def read_stored(folder: Path, excluded: frozenset[str]) -> Stored | None:
    """Return the verdicts on disk with what the responses say beside their texts; `None` where they do not match.

    Rows are not checked one by one as `own_rows` does it: the digest tells that they are those that were.

    Raises:
        UsageError: the verdicts are damaged.
    """
    verdicts, verdicts_sha256 = _verdicts(folder)
    digests = []
    read = Stored([], {}, {}, ("", ""))
    offset = 0
    try:
        with (folder / RESPONSES).open("rb") as file:
            for line in file:
                digests.append(hashlib.sha256(line).digest())
                row, _ = _decode(line.decode())
                key = (str(row["item_id"]), row.get("sample_index") or 0)
                read.asked[key] = (row.get("prompt_sha256"), row.get("images_sha256"))
                read.places[key] = offset
                offset += len(line)
                if key[0] not in excluded:
                    verdict, aha = verdicts.pop(key)
                    reason, tokens = row.get("finish_reason"), row.get("completion_tokens")
                    if not isinstance(reason, str | None) or not isinstance(tokens, int | None):
                        return None
                    if tokens is not None and tokens > MAX_COUNT:
                        return None
                    read.judged.append(
                        Judged(
                            item_id=key[0],
                            sample_index=key[1],
                            verdict=verdict,
                            finish_reason=reason,
                            completion_tokens=tokens,
                            aha=aha,
                        )
                    )
    except _DAMAGE:
        # What is wrong, if anything is, whoever reads them with care will say.
        return None
    return None if verdicts else read._replace(digests=(rows_digest(digests), verdicts_sha256))


def read_verdicts_alone(folder: Path, lexicon: str | None) -> Iterator[Judged]:
    """Yield the verdicts of a run that holds no responses, such as `ahabench board strip` leaves.

    Args:
        folder: of the task.
        lexicon: by which aha moments were counted, where the rows do not say.

    Raises:
        UsageError: the verdicts are damaged.
    """
    for (item_id, index), (verdict, aha) in _verdicts(folder)[0].items():
        yield Judged(
            item_id=item_id,
            sample_index=index,
            verdict=verdict,
            finish_reason=None,
            aha={**aha, "lexicon": aha["lexicon"] or lexicon},
        )


def _verdicts(folder: Path) -> tuple[dict[Key, _Settled], str]:
    """Return verdict and aha counts by key, and the file's SHA-256. Equal ones are one object: most say the same."""
    path = folder / VERDICTS
    sha = hashlib.sha256()
    found: dict[Key, _Settled] = {}
    known: dict[tuple[str, str | None, str], Verdict] = {}
    counts: dict[tuple[object, object], Mapping[str, Any]] = {}
    number = 0
    try:
        with path.open("rb") as file:
            for line in file:
                number += 1
                sha.update(line)
                row, _ = _decode(line.decode())
                said = (row["status"], row.get("extracted"), row.get("rule", ""))
                if said not in known:
                    known[said] = Verdict(status=_STATUSES[said[0]], extracted=said[1], rule=said[2])
                aha = row.get("aha") or {}
                # All that a comparison looks at.
                read = (aha.get("lexicon"), aha.get("moments"))
                if read not in counts:
                    counts[read] = {"lexicon": read[0], "moments": read[1]}
                found[str(row["item_id"]), int(row["sample_index"])] = (known[said], counts[read])
        if len(found) < number:
            raise ValueError(f"{number - len(found):,} rows repeat another's item and sample")
    except _DAMAGE as error:
        raise _damaged(path, error, number) from error
    return found, sha.hexdigest()


def _damaged(path: Path, error: Exception, number: int = 0) -> UsageError:
    where = f"line {number}: " if number else ""
    why = f"{where}no {error}" if isinstance(error, KeyError) else f"{where}{error}"
    # What a run without responses holds is the only copy.
    again = "delete it and run `ahabench score` again"
    if not (path.parent / RESPONSES).exists():
        again = "without responses it cannot be made again, so take the run anew from where it came"
    return UsageError(f"{path} is damaged ({why}); {again}")
