"""Rows of the tables in which VLMEvalKit keeps results: XLSX, TSV and JSON, read with hostile files in mind."""

import csv
import json
import re
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ahabench.harness.errors import UsageError

MAX_FILE_BYTES = 512 * 2**20
MAX_UNPACKED_BYTES = 512 * 2**20
"""Of all parts of an XLSX together, as its directory declares them; Python's zipfile reads no more than that."""
MAX_PARTS = 1_000
MAX_ROWS = 200_000
MAX_COLUMNS = 512
MAX_CELL = 16 * 2**20
"""Characters of a TSV cell."""
EXCEL_CELL = 32_767
"""Characters of an XLSX cell: longer text was cut when the file was written."""

_ESCAPED = re.compile(r"_x00([01][0-9A-Fa-f])_")
_csv_limit = threading.Lock()


def read_table(path: Path) -> Iterator[tuple[int, Mapping[str, str | None]]]:
    """Yield the number of each row in the file, from 2, and its cells by column; `None` is an empty cell.

    An XLSX's first sheet is read. Formulas are not evaluated: text that began with "=" was stored as one, and comes
    back as it was.

    Raises:
        UsageError: it is none of these, is damaged, or exceeds a limit of this module.
    """
    suffix = path.suffix.lower()
    if suffix == ".pkl":
        raise UsageError(
            f"{path} is a pickle, which can run any code when it is read: refused. Give the .xlsx beside it "
            "(VLMEvalKit writes one when a run is complete), or set its PRED_FORMAT to tsv"
        )
    if suffix not in _READERS:
        raise UsageError(f"{path} is no result file of VLMEvalKit that can be read; wanted {', '.join(_READERS)}")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    if size > MAX_FILE_BYTES:
        raise UsageError(f"{path} has {size:,} bytes, more than {MAX_FILE_BYTES:,}: refused")
    return _named(path, _READERS[suffix](path))


def _named(path: Path, rows: Iterator[Sequence[str | None]]) -> Iterator[tuple[int, Mapping[str, str | None]]]:
    columns = [str(name or "").strip() for name in next(rows, ())]
    if not any(columns):
        raise UsageError(f"{path} has no header row")
    for number, cells in enumerate(rows, start=2):
        if number > MAX_ROWS:
            raise UsageError(f"{path} has more than {MAX_ROWS:,} rows: refused")
        row = {name: cell for name, cell in zip(columns, cells, strict=False) if name}
        if any(cell is not None for cell in row.values()):
            yield number, row


def _tsv(path: Path) -> Iterator[Sequence[str | None]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t")
            while True:
                # The limit is the whole process's; Python's own cuts off at 131,072 characters.
                with _csv_limit:
                    before = csv.field_size_limit(MAX_CELL)
                    try:
                        cells = next(reader, None)
                    finally:
                        csv.field_size_limit(before)
                if cells is None:
                    return
                yield [cell if cell != "" else None for cell in cells[:MAX_COLUMNS]]
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
    except csv.Error as error:
        raise UsageError(f"{path} is no TSV: {error}") from error


def _json(path: Path) -> Iterator[Sequence[str | None]]:
    try:
        records = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise UsageError(f"{path} is not a list of records")
    columns = list(dict.fromkeys(name for record in records for name in record))[:MAX_COLUMNS]
    yield columns
    for record in records:
        # pandas writes an empty cell as NaN.
        cells = (record.get(name) for name in columns)
        yield [None if cell != cell else _text(cell) for cell in cells]


def _xlsx(path: Path) -> Iterator[Sequence[str | None]]:
    _check_archive(path)
    from openpyxl import load_workbook

    try:
        # data_only would give a formula's cached value, which is not the text that a model wrote.
        book = load_workbook(path, read_only=True, data_only=False, keep_links=False)
        try:
            sheet = book.worksheets[0]
            # The declared size of a sheet is whatever the file says.
            sheet.reset_dimensions()
            for cells in sheet.iter_rows(values_only=True):
                yield [_text(cell) for cell in cells[:MAX_COLUMNS]]
        finally:
            book.close()
    except UsageError:
        raise
    except Exception as error:
        # openpyxl lets whatever its parsers meet in a damaged file come through.
        raise UsageError(f"{path} is no XLSX that can be read: {type(error).__name__}: {error}") from error


def _check_archive(path: Path) -> None:
    """Refuse an archive that would unpack to too much, or whose XML declares entities."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            unpacked = sum(part.file_size for part in parts)
            if len(parts) > MAX_PARTS or unpacked > MAX_UNPACKED_BYTES:
                raise UsageError(
                    f"{path} would unpack to {unpacked:,} bytes in {len(parts):,} parts, allowed are "
                    f"{MAX_UNPACKED_BYTES:,} in {MAX_PARTS:,}: refused"
                )
            for part in parts:
                if part.filename.endswith((".xml", ".rels")) and _declares_entities(archive, part):
                    raise UsageError(f"{path} has a document type in {part.filename}, which no XLSX needs: refused")
    except (OSError, zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise UsageError(f"{path} is no XLSX that can be read: {error}") from error


def _declares_entities(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> bool:
    tail = b""
    with archive.open(part) as stream:
        while block := stream.read(2**20):
            if b"<!DOCTYPE" in tail + block or b"<!ENTITY" in tail + block:
                return True
            tail = block[-16:]
    return False


def _text(cell: Any) -> str | None:
    if cell is None or cell == "":
        return None
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    # Control characters cannot stand in XML; writers escape them, openpyxl leaves that as it is.
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), cell) if isinstance(cell, str) else str(cell)


_READERS = {".xlsx": _xlsx, ".tsv": _tsv, ".json": _json}
