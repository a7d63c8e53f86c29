"""The judge's cache on disk: what is kept, what is not, and what becomes of a damaged file."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from judging import MODEL, Serve, pairs, read_one

from ahabench.harness.errors import JudgeError
from ahabench.harness.judge import Judge

KEY = "sk-very-secret-0123456789"


def values(cache: Path) -> list[Any]:
    with closing(sqlite3.connect(cache)) as base:
        return [json.loads(value) for (value,) in base.execute("SELECT value FROM readings")]


def test_a_second_judge_asks_for_nothing_that_the_first_one_read(serve: Serve, tmp_path: Path) -> None:
    cache = tmp_path / "new folder" / "judge.sqlite"
    server = serve()
    with Judge(server.url, MODEL, cache=cache) as judge:
        first = {e.item_id: e.answer for e in judge.extract_all(pairs(10))}
        assert (judge.asked, judge.cache_hits) == (10, 0)
    with Judge(server.url, MODEL, cache=cache) as judge:
        second = {e.item_id: e.answer for e in judge.extract_all(pairs(10))}
        assert (judge.asked, judge.cache_hits) == (0, 10)
    assert first == second == {str(n): str(n * n) for n in range(10)}
    assert len(server.readings) == 10


def test_a_reading_is_on_disk_before_the_next_one_is_asked_for(serve: Serve, tmp_path: Path) -> None:
    cache = tmp_path / "judge.sqlite"
    with Judge(serve().url, MODEL, cache=cache, max_concurrency=1) as judge:
        extractions = judge.extract_all(pairs(5))
        next(extractions)
        assert values(cache) == [{"answer": "0"}]


def test_no_answer_is_cached_as_well(serve: Serve, tmp_path: Path) -> None:
    cache = tmp_path / "judge.sqlite"
    with Judge(serve(lambda _: '{"answer": null}').url, MODEL, cache=cache) as judge:
        assert [read_one(judge, "Who knows").cause for _ in range(2)] == [None, None]
        assert (judge.asked, judge.cache_hits) == (1, 1)
    assert values(cache) == [{"answer": None}]


def test_failures_are_not_cached(serve: Serve, tmp_path: Path) -> None:
    cache = tmp_path / "judge.sqlite"
    with Judge(serve(lambda _: (403, {}, b"no")).url, MODEL, cache=cache) as judge:
        assert read_one(judge, "It is 4.").failed
    assert values(cache) == []


def test_another_served_model_does_not_read_the_first_ones_cache(serve: Serve, tmp_path: Path) -> None:
    first, second = serve(model="one"), serve(lambda _: '{"answer": "5"}', model="two")
    for server, answer in ((first, "4"), (second, "5")):
        with Judge(server.url, MODEL, cache=tmp_path / "judge.sqlite") as judge:
            assert read_one(judge, "It is 4.").answer == answer


def test_another_question_or_option_is_another_reading(serve: Serve, tmp_path: Path) -> None:
    with Judge(serve().url, MODEL, cache=tmp_path / "judge.sqlite") as judge:
        read_one(judge, "It is 4.", question="How many?")
        read_one(judge, "It is 4.", question="How long?")
        read_one(judge, "It is 4.", question="How long?", choices=("4", "5"), labels=("A", "B"))
        assert (judge.asked, judge.cache_hits) == (3, 0)


def test_half_a_surrogate_pair_in_an_answer_can_be_written_and_read_back(serve: Serve, tmp_path: Path) -> None:
    with Judge(serve(lambda _: '{"answer": "4\\ud83d"}').url, MODEL, cache=tmp_path / "judge.sqlite") as judge:
        assert [read_one(judge, "It is 4.").answer for _ in range(2)] == ["4?", "4?"]


def test_the_key_is_in_no_file_even_if_the_server_repeats_it(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = serve(lambda call: json.dumps({"answer": call.authorization}))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Judge(server.url, MODEL, cache=tmp_path / "judge.sqlite") as judge:
        assert read_one(judge, "It is 4.").answer == "Bearer ***"
        assert KEY not in repr(judge)
        files = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert [call.authorization for call in server.readings] == [f"Bearer {KEY}"]
    assert b"Bearer ***" in files
    assert KEY.encode() not in files


def test_two_judges_can_share_a_cache_at_the_same_time(serve: Serve, tmp_path: Path) -> None:
    cache, server = tmp_path / "judge.sqlite", serve()
    with Judge(server.url, MODEL, cache=cache) as first, Judge(server.url, MODEL, cache=cache) as second:
        one, two = first.extract_all(pairs(20)), second.extract_all(pairs(20))
        found = [extraction.answer for both in zip(one, two, strict=True) for extraction in both]
    assert sorted(found, key=str) == sorted([str(n * n) for n in range(20)] * 2)


# Damage.


def check_refused(cache: Path) -> None:
    with pytest.raises(JudgeError) as caught:
        Judge("http://127.0.0.1:1/v1", MODEL, cache=cache)
    assert str(cache) in str(caught.value)
    assert "Delete it" in str(caught.value)


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    cache = tmp_path / "judge.sqlite"
    diary = b"This is a diary, not a database. " * 100
    cache.write_bytes(diary)
    check_refused(cache)
    assert cache.read_bytes() == diary


def test_another_programs_database_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    cache = tmp_path / "bookmarks.sqlite"
    with closing(sqlite3.connect(cache)) as base:
        base.execute("CREATE TABLE bookmarks (url TEXT)")
    before = cache.read_bytes()
    check_refused(cache)
    assert cache.read_bytes() == before


def test_a_folder_is_refused(tmp_path: Path) -> None:
    check_refused(tmp_path)


def test_a_damaged_page_is_refused(serve: Serve, tmp_path: Path) -> None:
    cache = tmp_path / "judge.sqlite"
    with Judge(serve().url, MODEL, cache=cache) as judge:
        assert len(list(judge.extract_all(pairs(200)))) == 200
    whole = cache.read_bytes()
    page = int.from_bytes(whole[16:18], "big")
    assert len(whole) > 4 * page
    cache.write_bytes(whole[: 2 * page] + b"\xff" * page + whole[3 * page :])
    check_refused(cache)


def test_a_damaged_value_is_an_error_and_no_answer(serve: Serve, tmp_path: Path) -> None:
    cache, server = tmp_path / "judge.sqlite", serve()
    with Judge(server.url, MODEL, cache=cache) as judge:
        read_one(judge, "It is 4.")
    with closing(sqlite3.connect(cache)) as base, base:
        base.execute("UPDATE readings SET value = 'B'")
    with Judge(server.url, MODEL, cache=cache) as judge, pytest.raises(JudgeError, match="Delete it"):
        read_one(judge, "It is 4.")
