"""Tables of VLMEvalKit, honest and hostile."""

import csv
import datetime
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pytest

from ahabench.harness.errors import UsageError
from ahabench.harness.imports import sheets
from ahabench.harness.imports.sheets import read_table


def xlsx(path: Path, rows: Sequence[Sequence[Any]]) -> Path:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(list(row))
    book.save(path)
    return path


def tsv(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t", quoting=csv.QUOTE_ALL).writerows(rows)
    return path


def rows_of(path: Path) -> list[Mapping[str, str | None]]:
    return [dict(cells) for _, cells in read_table(path)]


def with_part(path: Path, name: str, change: Any) -> Path:
    """Write a workbook again with one part changed."""
    with zipfile.ZipFile(path) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    parts[name] = change(parts[name])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for part, content in parts.items():
            archive.writestr(part, content)
    return path


def test_what_pandas_writes_is_read_back(tmp_path: Path) -> None:
    frame = pd.DataFrame({"index": [0, 1], "answer": [5, 2.5], "prediction": ["=1+1 is\n2\ttabs", None]})
    frame.to_excel(tmp_path / "a.xlsx", index=False)
    frame.to_csv(tmp_path / "a.tsv", sep="\t", index=False, quoting=csv.QUOTE_ALL)
    wanted = [
        {"index": "0", "answer": "5", "prediction": "=1+1 is\n2\ttabs"},
        {"index": "1", "answer": "2.5", "prediction": None},
    ]
    assert rows_of(tmp_path / "a.xlsx") == wanted
    assert [row | {"answer": (row["answer"] or "").removesuffix(".0")} for row in rows_of(tmp_path / "a.tsv")] == wanted


def test_json_of_records_is_read_with_nan_as_empty(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"index": 7, "prediction": "a"}, {"index": 8, "prediction": NaN}]')
    assert rows_of(tmp_path / "a.json") == [
        {"index": "7", "prediction": "a"},
        {"index": "8", "prediction": None},
    ]


def test_a_formula_is_the_text_that_a_model_wrote(tmp_path: Path) -> None:
    path = xlsx(tmp_path / "a.xlsx", [["prediction"], ['=HYPERLINK("http://x","y")'], ["=1/0"]])
    assert [row["prediction"] for row in rows_of(path)] == ['=HYPERLINK("http://x","y")', "=1/0"]


def test_an_escaped_control_character_comes_back(tmp_path: Path) -> None:
    assert rows_of(xlsx(tmp_path / "a.xlsx", [["p"], ["a_x000D_b"]])) == [{"p": "a\rb"}]


def test_cells_of_other_kinds_become_text(tmp_path: Path) -> None:
    path = xlsx(tmp_path / "a.xlsx", [["a", "b", "c"], [True, 7.0, datetime.datetime(2006, 11, 2)]])
    assert rows_of(path) == [{"a": "True", "b": "7", "c": "2006-11-02 00:00:00"}]


def test_a_response_longer_than_pythons_csv_allows_is_read(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    long = "x" * 300_000
    assert rows_of(tsv(tmp_path / "a.tsv", [["prediction"], [long]])) == [{"prediction": long}]
    assert csv.field_size_limit() == before


def test_rows_are_numbered_as_in_the_file_and_empty_ones_skipped(tmp_path: Path) -> None:
    path = xlsx(tmp_path / "a.xlsx", [["p"], ["a"], [None], ["b"]])
    assert [number for number, _ in read_table(path)] == [2, 4]


def test_a_pickle_is_refused_unopened(tmp_path: Path) -> None:
    # What a pickle of os.mkdir("boom") consists of.
    (tmp_path / "a.pkl").write_bytes(f"cos\nmkdir\n(S'{tmp_path / 'boom'}'\ntR.".encode())
    with pytest.raises(UsageError, match=r"is a pickle, which can run any code when it is read: refused"):
        read_table(tmp_path / "a.pkl")
    assert not (tmp_path / "boom").exists()


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = with_part(
        xlsx(tmp_path / "a.xlsx", [["p"], ["a"]]),
        "xl/worksheets/sheet1.xml",
        lambda part: part.replace(b"</worksheet>", b"<!--" + b" " * 20_000_000 + b"--></worksheet>"),
    )
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(sheets, "MAX_UNPACKED_BYTES", 10_000_000)
    with pytest.raises(UsageError, match=r"would unpack to 20,\d{3},\d{3} bytes"):
        rows_of(path)


def test_entities_are_refused(tmp_path: Path) -> None:
    bomb = b'<!DOCTYPE s [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>'
    path = with_part(
        xlsx(tmp_path / "a.xlsx", [["p"], ["a"]]),
        "xl/worksheets/sheet1.xml",
        lambda part: part.replace(b"<worksheet", bomb + b"<worksheet", 1),
    )
    with pytest.raises(UsageError, match=r"has a document type in xl/worksheets/sheet1\.xml"):
        rows_of(path)


def test_a_sheet_that_claims_a_million_rows_costs_nothing(tmp_path: Path) -> None:
    path = with_part(
        xlsx(tmp_path / "a.xlsx", [["p"], ["a"]]),
        "xl/worksheets/sheet1.xml",
        lambda part: part.replace(b'ref="A1:A2"', b'ref="A1:XFD1048576"'),
    )
    assert rows_of(path) == [{"p": "a"}]


def test_too_many_rows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheets, "MAX_ROWS", 3)
    with pytest.raises(UsageError, match="more than 3 rows"):
        rows_of(tsv(tmp_path / "a.tsv", [["p"], *(["a"] for _ in range(5))]))


def test_a_file_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheets, "MAX_FILE_BYTES", 3)
    with pytest.raises(UsageError, match="more than 3: refused"):
        read_table(tsv(tmp_path / "a.tsv", [["prediction"]]))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xlsx", b"no archive", "is no XLSX that can be read"),
        ("a.tsv", b"p\n\xff\xfe", "is not UTF-8"),
        ("a.tsv", b"", "has no header row"),
        ("a.json", b"{}", "is not a list of records"),
        ("a.json", b"[" * 100_000, "is not JSON"),
        ("a.csv", b"p\n", "wanted .xlsx, .tsv, .json"),
    ],
)
def test_what_is_no_table_is_said_in_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as raised:
        rows_of(tmp_path / name)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_damaged_workbook_is_said_in_one_line(tmp_path: Path) -> None:
    path = with_part(xlsx(tmp_path / "a.xlsx", [["p"], ["a"]]), "xl/workbook.xml", lambda part: part[:40])
    with pytest.raises(UsageError) as raised:
        rows_of(path)
    assert "\n" not in str(raised.value)


def test_an_archive_without_a_workbook_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x", "y")
    (tmp_path / "a.xlsx").write_bytes(buffer.getvalue())
    with pytest.raises(UsageError, match="is no XLSX that can be read"):
        rows_of(tmp_path / "a.xlsx")
