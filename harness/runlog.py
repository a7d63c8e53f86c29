"""The files of a run: its manifest, its responses, and what is derived from them.

    <run>/run.json                 the manifest
    <run>/<task>/responses.jsonl   appended row by row, each on the disk before the next is begun
    <run>/<task>/verdicts.jsonl    derived
    <run>/<task>/metrics.json      derived

The names of files and keys are public: other tools read them.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, KeysView, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from ahabench.harness.digests import rows_digest
from ahabench.harness.disk import locked, refusals, replace_file, write_all
from ahabench.harness.errors import UsageError
from ahabench.harness.types import Response

RESPONSES = "responses.jsonl"
VERDICTS = "verdicts.jsonl"
METRICS = "metrics.json"
MAX_COUNT = 2**53
"""Of tokens or samples: what every reader of JSON and every float can hold."""

Key = tuple[str, int]
"""(item_id, sample_index)."""


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the line number and the object of each row that `read_responses` would read, with all its keys.

    Raises:
        UsageError: as `read_responses`.
    """
    for number, row, _ in _rows(path):
        yield number, row


def read_responses(path: Path) -> Iterator[Response]:
    """Yield the responses of a run's responses.jsonl, or of anybody's JSONL with "item_id" and "response".

    Reads line by line; blank lines are skipped.

    Raises:
        UsageError: with the path and the line number, if a line is no row as `parse_response` wants it, or repeats
            another's (item_id, sample_index); or if the file cannot be read.
    """
    for _, _, response in _rows(path):
        yield response


def parse_response(row: Mapping[str, Any], path: Path, number: int) -> Response:
    """Return the response in a row.

    Args:
        row: "item_id" (string or integer) and "response" (string, or null where nothing was generated); optional are
            "sample_index" (0), "finish_reason", "completion_tokens", "prompt_tokens", "image_sizes" ([[width, height],
            ...] in pixels), "images_sha256", "error" and "official_extraction" (a string, or a list that is joined with
            ", "). Other keys are ignored.
        path: the file, for the error.
        number: the line in it, from 1.

    Raises:
        UsageError: a key is missing or its value has another type.
    """
    where = f"{path}:{number}"
    for key in ("item_id", "response"):
        if key not in row:
            raise UsageError(f"{where} has no {key!r}; its keys are {', '.join(map(repr, row)) or 'none'}")
    item_id = row["item_id"]
    if isinstance(item_id, bool) or not isinstance(item_id, str | int):
        raise _wrong_type(where, "item_id", item_id, "a string or an integer")
    sample_index = _count(row, "sample_index", where)
    return Response(
        item_id=str(item_id),
        sample_index=sample_index or 0,
        text=_text(row, "response", where),
        finish_reason=_text(row, "finish_reason", where),
        completion_tokens=_count(row, "completion_tokens", where),
        prompt_tokens=_count(row, "prompt_tokens", where),
        image_sizes=_sizes(row.get("image_sizes"), where),
        images_sha256=_text(row, "images_sha256", where),
        error=_text(row, "error", where),
        extraction=_extraction(row.get("official_extraction"), where),
    )


def responses_digest(path: Path) -> str:
    """Return the digest of a file of responses by which `metrics.json` says what was scored; see `digests.rows_digest`.

    Raises:
        UsageError: the file cannot be read.
    """
    return rows_digest(hashlib.sha256(raw).digest() for _, raw in _lines(path))


def write_responses(path: Path, responses: Iterable[Response]) -> None:
    """Replace a responses.jsonl by these responses, of whose prompts nothing is known, in their order.

    Raises:
        UsageError: the disk is full or refuses; the old file is then still there.
    """
    replace_file(path, (_line(_response_row(response, None)) for response in responses))


def write_verdicts(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Replace a verdicts.jsonl by these rows, in their order: {"item_id", "sample_index", "status", "extracted", ...}.

    Raises:
        UsageError: the disk is full or refuses; the old file is then still there.
    """
    replace_file(path, (_line(row) for row in rows))


def write_metrics(path: Path, metrics: Mapping[str, object]) -> None:
    """Replace a metrics.json; keys keep their order.

    Raises:
        UsageError: the disk is full or refuses; the old file is then still there.
        ValueError: a number is not finite.
    """
    replace_file(path, [json.dumps(metrics, indent=2, ensure_ascii=True, allow_nan=False).encode() + b"\n"])


class ResponseLog:
    """A task's responses.jsonl, open for appending by this process alone.

    Opening drops a torn last line and the rows of errors, so that both are done again. Whatever `append` has returned
    from is on the disk.

    Raises:
        UsageError: another process writes it, a line before the last is damaged, or the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, which is made if need be."""
        self._path = path
        self._prompts: dict[Key, str | None] = {}
        self._images: dict[Key, str] = {}
        self._stack = ExitStack()
        try:
            with refusals(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                self._stack.enter_context(locked(path))
                self._recover()
                self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
                self._stack.callback(os.close, self._file)
        except BaseException:
            self.close()
            raise

    @property
    def done(self) -> KeysView[Key]:
        """The (item_id, sample_index) pairs that have a row."""
        return self._prompts.keys()

    @property
    def prompts(self) -> Mapping[Key, str | None]:
        """The prompt's SHA-256 of each row, `None` where the row has none."""
        return self._prompts

    @property
    def images(self) -> Mapping[Key, str]:
        """The digest of the images of each row that was found and has one."""
        return self._images

    def append(self, response: Response, prompt_sha256: str | None) -> None:
        """Write one row and wait until it is on the disk.

        Raises:
            UsageError: the disk is full or refuses. The file then ends with the last whole row.
            ValueError: the key has a row already.
        """
        key = (response.item_id, response.sample_index)
        if key in self._prompts:
            raise ValueError(f"{self._path} already has item {key[0]!r}, sample {key[1]}")
        line = _line(_response_row(response, prompt_sha256))
        with refusals(self._path):
            size = os.fstat(self._file).st_size
            try:
                write_all(self._file, line)
                os.fsync(self._file)
            except BaseException as error:
                interrupted = not isinstance(error, OSError)
                if interrupted and os.fstat(self._file).st_size == size + len(line):
                    self._prompts[key] = prompt_sha256
                else:
                    with suppress(OSError):
                        os.ftruncate(self._file, size)
                raise
        self._prompts[key] = prompt_sha256

    def close(self) -> None:
        """Close the file and let others write it."""
        self._stack.close()

    def __enter__(self) -> Self:
        """Return the log itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _recover(self) -> None:
        """Read the keys, then drop a torn last line and the rows of errors, if there are any."""
        if not self._path.exists():
            return
        dropped: set[int] = set()
        last = 0
        for own in own_rows(self._path):
            last = own.number
            response = own.response
            if response.text is None:
                dropped.add(own.number)
            else:
                key = (response.item_id, response.sample_index)
                self._prompts[key] = own.row.get("prompt_sha256")
                if response.images_sha256 is not None:
                    self._images[key] = response.images_sha256
        if dropped or any(number > last for number, _ in _lines(self._path)):
            kept = (raw for number, raw in _lines(self._path) if number <= last and number not in dropped)
            replace_file(self._path, kept)


class OwnRow(NamedTuple):
    """A row that `ResponseLog` wrote, and where it stands."""

    number: int
    """The line, from 1."""
    offset: int
    """Bytes before the line."""
    raw: bytes
    """The line with its end."""
    row: dict[str, Any]
    response: Response


def own_rows(path: Path) -> Iterator[OwnRow]:
    """Yield the rows of a run's own responses.jsonl, without a last line that was torn as its writer was killed.

    Raises:
        UsageError: a line before the last is damaged, or repeats another's (item_id, sample_index).
    """
    seen: dict[Key, int] = {}
    torn: UsageError | None = None
    offset = 0
    for number, raw in _lines(path):
        if torn is not None:
            raise UsageError(f"{torn}. It is not the last line, so no interruption left it: repair or delete it.")
        try:
            if not raw.endswith(b"\n"):
                raise UsageError(f"{path}:{number} is cut off")
            row = _parse_object(raw, path, number)
            response = parse_response(row, path, number)
        except UsageError as error:
            torn = error
            continue
        _note_key(seen, response, path, number)
        yield OwnRow(number, offset, raw, row, response)
        offset += len(raw)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any], Response]]:
    seen: dict[Key, int] = {}
    for number, raw in _lines(path):
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        if not raw.strip():
            continue
        row = _parse_object(raw, path, number)
        response = parse_response(row, path, number)
        _note_key(seen, response, path, number)
        yield number, row, response


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield line numbers from 1 and lines with their ends. Only a newline ends a line."""
    try:
        with path.open("rb") as file:
            yield from enumerate(file, start=1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def _parse_object(raw: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        # json.loads(bytes) would guess UTF-16 where there are NULs.
        row = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}:{number} is not UTF-8: {error.reason} at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}:{number} is not JSON: {_one_line(error)}") from error
    if not isinstance(row, dict):
        raise UsageError(f"{path}:{number} is not a JSON object but {_shown(row)}")
    return row


def _text(row: Mapping[str, Any], key: str, where: str) -> str | None:
    value = row.get(key)
    if value is None or isinstance(value, str):
        return value
    raise _wrong_type(where, key, value, "a string or null")


def _count(row: Mapping[str, Any], key: str, where: str) -> int | None:
    value = row.get(key)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT):
        return value
    raise _wrong_type(where, key, value, f"an integer from 0 to {MAX_COUNT:,}, or null")


def _sizes(value: Any, where: str) -> tuple[tuple[int, int], ...] | None:
    if value is None:
        return None
    if isinstance(value, list) and all(isinstance(size, list) and len(size) == 2 for size in value):
        sides = [side for size in value for side in size]
        if all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides):
            return tuple((width, height) for width, height in value)
    raise _wrong_type(where, "image_sizes", value, "a list of [width, height] in pixels, or null")


def _extraction(value: Any, where: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return ", ".join(value)
    raise _wrong_type(where, "official_extraction", value, "a string, a list of strings, or null")


def _wrong_type(where: str, key: str, value: object, wanted: str) -> UsageError:
    return UsageError(f"{where} has {_shown(value)} as {key!r}, wanted {wanted}")


def _note_key(seen: dict[Key, int], response: Response, path: Path, number: int) -> None:
    key = (response.item_id, response.sample_index)
    first = seen.setdefault(key, number)
    if first != number:
        raise UsageError(f"{path}:{number} repeats item {key[0]!r}, sample {key[1]}, of line {first}; keep one of them")


def _response_row(response: Response, prompt_sha256: str | None) -> dict[str, object]:
    row: dict[str, object] = {
        "item_id": response.item_id,
        "sample_index": response.sample_index,
        "prompt_sha256": prompt_sha256,
        "response": response.text,
        "finish_reason": response.finish_reason,
        "completion_tokens": response.completion_tokens,
    }
    for name in ("prompt_tokens", "image_sizes", "images_sha256"):
        if (value := getattr(response, name)) is not None:
            row[name] = value
    if response.text is None:
        row["error"] = response.error
    if response.extraction is not None:
        row["official_extraction"] = response.extraction
    return row


def _line(row: Mapping[str, object]) -> bytes:
    # ASCII, so that a lone surrogate in a model's text survives.
    return json.dumps(row, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n"


def _shown(value: object) -> str:
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _one_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
