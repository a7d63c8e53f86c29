"""The files of a run on a real disk: torn lines, full disks, second writers, damaged rows, and anybody's JSONL."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahabench.harness.errors import UsageError
from ahabench.harness.runlog import (
    ResponseLog,
    own_rows,
    parse_response,
    read_responses,
    read_rows,
    write_metrics,
    write_responses,
    write_verdicts,
)
from ahabench.harness.types import Response


def text(item_id: str, words: str = "42", sample: int = 0) -> Response:
    return Response(
        item_id=item_id, sample_index=sample, text=words, finish_reason="stop", completion_tokens=len(words)
    )


def failure(item_id: str) -> Response:
    return Response(item_id=item_id, text=None, finish_reason="error", error="OutOfMemoryError: 3 GiB")


def write_log(path: Path, *responses: Response) -> bytes:
    with ResponseLog(path) as log:
        for response in responses:
            log.append(response, "ab" * 32)
    return path.read_bytes()


def write_lines(path: Path, *rows: Any) -> Path:
    path.write_bytes(b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows))
    return path


# Appending.


def test_a_row_has_the_public_keys(tmp_path: Path) -> None:
    written = write_log(tmp_path / "responses.jsonl", text("7", "The answer is 4."))
    assert written.endswith(b"\n")
    assert json.loads(written) == {
        "item_id": "7",
        "sample_index": 0,
        "prompt_sha256": "ab" * 32,
        "response": "The answer is 4.",
        "finish_reason": "stop",
        "completion_tokens": 16,
    }


def test_an_error_row_says_why(tmp_path: Path) -> None:
    row = json.loads(write_log(tmp_path / "responses.jsonl", failure("7")))
    assert (row["response"], row["finish_reason"], row["error"]) == (None, "error", "OutOfMemoryError: 3 GiB")


@pytest.mark.parametrize(
    "words",
    ["", "\x00", "a\nb\r\nc\u2028d\x85e", "\ud83d", "\udcff broken", "🤔", '"\\', "x" * 5_000_000],
    ids=["empty", "NUL", "line ends", "half a pair", "lone surrogate", "emoji", "quotes", "5 MB"],
)
def test_a_text_comes_back_as_it_was(tmp_path: Path, words: str) -> None:
    path = tmp_path / "responses.jsonl"
    write_log(path, text("1", words), text("2"))
    assert [response.text for response in read_responses(path)] == [words, "42"]


@given(st.text(st.characters(codec=None)), st.text(st.characters(codec=None), min_size=1))
def test_any_text_and_id_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, words: str, item_id: str
) -> None:
    path = tmp_path_factory.mktemp("log") / "responses.jsonl"
    written = Response(item_id=item_id, sample_index=3, text=words, extraction=words)
    write_log(path, written)
    assert list(read_responses(path)) == [written]


def test_a_row_is_on_the_disk_when_append_returns(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    with ResponseLog(path) as log:
        log.append(text("1"), None)
        assert [response.item_id for response in read_responses(path)] == ["1"]


def test_a_second_row_for_a_key_is_refused(tmp_path: Path) -> None:
    with ResponseLog(tmp_path / "responses.jsonl") as log:
        log.append(text("1"), None)
        log.append(text("1", sample=1), None)
        with pytest.raises(ValueError, match="already has item '1', sample 0"):
            log.append(text("1", "43"), None)
        assert set(log.done) == {("1", 0), ("1", 1)}


# Going on after an interruption.


def test_a_last_line_torn_at_any_byte_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    first = write_log(path, text("1"))
    whole = write_log(path, text("2", "é\ud83d"))
    for cut in range(len(first), len(whole)):
        path.write_bytes(whole[:cut])
        with ResponseLog(path) as log:
            assert set(log.done) == {("1", 0)}, cut
        assert path.read_bytes() == first, cut


def test_a_tail_of_zeros_as_a_power_cut_leaves_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    first = write_log(path, text("1"))
    path.write_bytes(first + b"\x00" * 4096)
    with ResponseLog(path) as log:
        log.append(text("2"), None)
    assert [response.item_id for response in read_responses(path)] == ["1", "2"]


def test_error_rows_are_dropped_to_be_done_again(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    written = write_log(path, text("1"), failure("2"), text("3"))
    lines = written.splitlines(keepends=True)
    with ResponseLog(path) as log:
        assert set(log.done) == {("1", 0), ("3", 0)}
        assert path.read_bytes() == lines[0] + lines[2]
        log.append(text("2"), None)
    assert [(response.item_id, response.text) for response in read_responses(path)] == [
        ("1", "42"),
        ("3", "42"),
        ("2", "42"),
    ]


def test_a_torn_line_and_an_error_row_are_dropped_together(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    written = write_log(path, failure("1"), text("2"))
    path.write_bytes(written + b'{"item_id": "3", "resp')
    with ResponseLog(path) as log:
        assert set(log.done) == {("2", 0)}
    assert path.read_bytes() == written.splitlines(keepends=True)[1]


def test_a_damaged_line_before_the_last_is_an_error_and_nothing_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    first = write_log(path, text("1"))
    damaged = first + b"{oops}\n" + first.replace(b'"1"', b'"2"')
    path.write_bytes(damaged)
    with pytest.raises(UsageError, match=r"responses\.jsonl:2 is not JSON.*not the last line"):
        ResponseLog(path)
    assert path.read_bytes() == damaged


def test_a_key_that_stands_twice_in_the_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    path.write_bytes(write_log(path, text("1")) * 2)
    with pytest.raises(UsageError, match=r"responses\.jsonl:2 repeats item '1', sample 0, of line 1"):
        ResponseLog(path)


def test_the_prompts_digests_come_back(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    write_lines(path, {"item_id": "1", "response": "x", "prompt_sha256": "cd"}, {"item_id": "2", "response": "y"})
    with ResponseLog(path) as log:
        assert dict(log.prompts) == {("1", 0): "cd", ("2", 0): None}


# Reading anybody's JSONL.


def test_other_keys_are_ignored_and_defaults_filled_in(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl", {"item_id": 7, "response": "B", "official_correct": True, "model": "m"})
    assert list(read_responses(path)) == [Response(item_id="7", sample_index=0, text="B")]


@pytest.mark.parametrize(
    ("carried", "extraction"),
    [("B", "B"), (["a", "b"], "a, b"), ([], ""), (None, None), ("", "")],
    ids=["text", "list", "empty list", "null", "empty text"],
)
def test_an_official_extraction_is_kept(tmp_path: Path, carried: Any, extraction: str | None) -> None:
    path = write_lines(tmp_path / "x.jsonl", {"item_id": "1", "response": "B", "official_extraction": carried})
    assert [response.extraction for response in read_responses(path)] == [extraction]


def test_windows_line_ends_a_byte_order_mark_and_blank_lines_are_read(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "x.jsonl",
        b'\xef\xbb\xbf{"item_id": "1", "response": "A"}\r\n',
        b"\r\n  \n",
        b'{"item_id": "2", "response": "B"}',
    )
    assert [(number, row["item_id"]) for number, row in read_rows(path)] == [(1, "1"), (4, "2")]


def test_samples_of_one_item_are_different_rows(tmp_path: Path) -> None:
    rows = [{"item_id": "1", "sample_index": index, "response": "A"} for index in (1, 0)]
    path = write_lines(tmp_path / "x.jsonl", *rows)
    assert [response.sample_index for response in read_responses(path)] == [1, 0]


ROW = {"item_id": "1", "response": "A"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"item_id,response\n", "is not JSON"),
        (b'{"item_id": "2", "respo', "is not JSON"),
        (b'{"item_id": "2", "response": "\xff"}\n', "is not UTF-8"),
        (b'["2", "A"]\n', "is not a JSON object but a list"),
        (b"null\n", "is not a JSON object but null"),
        (b"[" * 100_000 + b"]" * 100_000 + b"\n", "is not JSON"),
        (b'{"item_id": ' + b"9" * 5000 + b', "response": "A"}\n', "is not JSON"),
        ({"response": "A"}, "has no 'item_id'"),
        ({"item_id": "2", "answer": "A"}, "has no 'response'; its keys are 'item_id', 'answer'"),
        ({"item_id": "2", "response": 4}, "has 4 as 'response', wanted a string or null"),
        ({"item_id": "2", "response": ["A"]}, "has a list as 'response'"),
        ({"item_id": 1.5, "response": "A"}, "has 1.5 as 'item_id'"),
        ({"item_id": True, "response": "A"}, "has true as 'item_id'"),
        ({"item_id": None, "response": "A"}, "has null as 'item_id'"),
        ({"item_id": "2", "response": "A", "sample_index": -1}, "has -1 as 'sample_index'"),
        ({"item_id": "2", "response": "A", "sample_index": "0"}, "has \"0\" as 'sample_index'"),
        ({"item_id": "2", "response": "A", "finish_reason": 1}, "has 1 as 'finish_reason'"),
        ({"item_id": "2", "response": "A", "completion_tokens": 1.0}, "has 1.0 as 'completion_tokens'"),
        ({"item_id": "2", "response": "A", "completion_tokens": 10**400}, f"has 1{'0' * 36}... as 'completion_tokens'"),
        ({"item_id": "2", "response": "A", "official_extraction": 3}, "has 3 as 'official_extraction'"),
        ({"item_id": "2", "response": "A", "official_extraction": [3]}, "has a list as 'official_extraction'"),
        ({"item_id": 1, "response": "A"}, "repeats item '1', sample 0, of line 1"),
    ],
)
def test_a_bad_line_is_an_error_with_its_number(tmp_path: Path, line: Any, message: str) -> None:
    path = write_lines(tmp_path / "x.jsonl", ROW, b"\n", line)
    with pytest.raises(UsageError) as raised:
        list(read_responses(path))
    assert str(raised.value).startswith(f"{path}:3 {message}")
    assert "\n" not in str(raised.value)


def test_rows_before_a_bad_line_are_read_first(tmp_path: Path) -> None:
    responses = read_responses(write_lines(tmp_path / "x.jsonl", ROW, b"oops\n"))
    assert next(responses).item_id == "1"
    with pytest.raises(UsageError):
        next(responses)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        list(read_responses(tmp_path / "x.jsonl"))


def test_every_published_file_is_read_whole(outputs: Path) -> None:
    sizes = {"dynamath": 5010, "logicvista": 448, "mathvision": 3040, "mathvista": 1000}
    files = sorted(outputs.glob("*/*.jsonl"))
    assert len(files) == 30
    for file in files:
        assert sum(1 for _ in read_responses(file)) == sizes[file.parent.name], file


# Derived files.


def test_verdicts_keep_their_order_and_hold_no_time(tmp_path: Path) -> None:
    rows = [
        {"item_id": "10", "sample_index": 0, "status": "correct", "extracted": "B", "rule": "boxed/choice", "aha": {}},
        {"item_id": "9", "sample_index": 0, "status": "no_answer", "extracted": None, "rule": "none", "aha": {}},
    ]
    for name in ("a", "b"):
        write_verdicts(tmp_path / name / "verdicts.jsonl", rows)
    written = (tmp_path / "a" / "verdicts.jsonl").read_bytes()
    assert [json.loads(line) for line in written.splitlines()] == rows
    assert written == (tmp_path / "b" / "verdicts.jsonl").read_bytes()


def test_a_file_whose_writing_fails_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    write_verdicts(path, [{"item_id": "1"}])

    def rows() -> Iterator[dict[str, object]]:
        yield {"item_id": "2"}
        raise RuntimeError("the scorer broke")

    with pytest.raises(RuntimeError):
        write_verdicts(path, rows())
    assert json.loads(path.read_bytes()) == {"item_id": "1"}
    assert os.listdir(tmp_path) == ["verdicts.jsonl"]


def test_a_number_that_is_not_finite_never_reaches_metrics(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_metrics(path, {"value": 0.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_metrics(path, {"value": float("nan")})
    assert json.loads(path.read_bytes()) == {"value": 0.5}


def test_responses_of_a_file_become_a_runs_rows(tmp_path: Path) -> None:
    path = tmp_path / "run" / "mathvista" / "responses.jsonl"
    responses = [Response(item_id="2", text="B", extraction="b"), Response(item_id="1", text=None)]
    write_responses(path, responses)
    assert list(read_responses(path)) == responses
    with ResponseLog(path) as log:
        assert set(log.done) == {("2", 0)}


def test_parse_response_names_the_line_that_it_was_given() -> None:
    with pytest.raises(UsageError, match=r"^some/file\.jsonl:12 has no 'response'"):
        parse_response({"item_id": "1"}, Path("some/file.jsonl"), 12)


# What engines say beside the text.


def test_what_an_engine_measured_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    measured = Response(
        item_id="1", text="B", prompt_tokens=731, image_sizes=((644, 476), (28, 56)), images_sha256="ab" * 32
    )
    nothing_shown = Response(item_id="2", text="B", image_sizes=())
    write_log(path, measured, nothing_shown)
    row = json.loads(path.read_text().splitlines()[0])
    assert (row["prompt_tokens"], row["image_sizes"]) == (731, [[644, 476], [28, 56]])
    assert list(read_responses(path)) == [measured, nothing_shown]
    with ResponseLog(path) as log:
        assert dict(log.images) == {("1", 0): "ab" * 32}


@pytest.mark.parametrize(
    "sizes", [[[1, 2, 3]], [[1]], [1, 2], "1x2", [[1.5, 2]], [["1", "2"]], [[True, 2]], [[0, 2]], [[-1, 2]], {"w": 1}]
)
def test_sizes_that_are_none_are_refused(tmp_path: Path, sizes: Any) -> None:
    path = write_lines(tmp_path / "x.jsonl", {"item_id": "1", "response": "A", "image_sizes": sizes})
    with pytest.raises(UsageError, match="as 'image_sizes', wanted a list of"):
        list(read_responses(path))


@pytest.mark.parametrize("tail", [b'{"item_id": "3", "resp', b"\x00" * 40, b"oops\n"])
def test_a_runs_own_rows_are_read_without_a_torn_last_line_and_the_file_stays(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "responses.jsonl"
    whole = write_log(path, text("1"), text("2"))
    path.write_bytes(whole + tail)
    found = list(own_rows(path))
    assert [own.response.item_id for own in found] == ["1", "2"]
    assert [whole[own.offset : own.offset + len(own.raw)] for own in found] == whole.splitlines(keepends=True)
    assert path.read_bytes() == whole + tail
