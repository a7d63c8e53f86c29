"""The installed command with a judge: what it is asked, and what is lost when it is down, dies, or talks nonsense."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_rows import RIGHT, write

Run = Callable[..., Any]
"""The fixture `ahabench`: returns how a command ended, as `code`, `out`, `err` and `error`."""


def statuses(run: Path, task: str = "toy") -> dict[str, tuple[str, str]]:
    rows = [json.loads(line) for line in (run / task / "verdicts.jsonl").read_text().splitlines()]
    return {row["item_id"]: (row["status"], row["rule"]) for row in rows}


def test_a_judge_that_is_down_stops_eval_before_it_generates(ahabench: Run, toy: Path, tmp_path: Path) -> None:
    said = write(tmp_path / "said.jsonl", RIGHT)
    judge = ("--judge", "http://127.0.0.1:1/v1", "--judge-model", "reader")
    for command in (
        ("eval", "m", "--tasks", "toy", "--engine", f"replay:{said}", "--out", tmp_path / "out"),
        ("score", said, "--task", "toy", "--out", tmp_path / "out"),
    ):
        done = ahabench(*command, "--data", toy, *judge)
        assert done.code == 2
        assert "the judge 'reader' at http://127.0.0.1:1/v1 cannot be used" in done.error
        assert not (tmp_path / "out").exists()


def test_a_judge_reads_only_what_the_rules_could_not(
    ahabench: Run, toy: Path, tmp_path: Path, serve: Callable[..., Any]
) -> None:
    server = serve(lambda call: json.dumps({"answer": {"two": "2", "eight": "9"}.get(call.quoted)}))
    file = write(tmp_path / "x.jsonl", RIGHT | {"a1": "two", "b2": "eight", "c1": "who knows"})
    judge = ("--judge", server.url, "--judge-model", "reader")
    done = ahabench("score", file, "--task", "toy", "--data", toy, *judge, "--json")
    assert done.code == 0, done.err
    assert sorted(call.quoted for call in server.readings) == ["eight", "two", "who knows"]
    assert statuses(tmp_path / "x") == {
        "a1": ("correct", "judge/same"),
        "a2": ("correct", "same"),
        "b1": ("correct", "same"),
        "b2": ("wrong", "judge/same"),
        "c1": ("no_answer", "judge: no answer"),
        "c2": ("correct", "same"),
    }
    (row,) = json.loads(done.out)
    assert row["judge"] == {"model": server.model, "failures": 0}


def test_a_judge_is_asked_about_what_nobody_has_read_even_if_it_was_cut_off(
    ahabench: Run, toy: Path, tmp_path: Path, serve: Callable[..., Any]
) -> None:
    server = serve(lambda call: json.dumps({"answer": None if call.quoted == "so" else call.quoted}))
    file = write(tmp_path / "x.jsonl", RIGHT | {"a1": "so"}, finish_reason="length")
    judge = ("--judge", server.url, "--judge-model", "reader", "--scorer", "official")
    done = ahabench("score", file, "--task", "toy", "--data", toy, *judge)
    assert done.code == 0, done.err
    assert len(server.readings) == 6
    found = statuses(tmp_path / "x")
    assert found.pop("a1") == ("truncated", "judge: no answer")
    assert set(found.values()) == {("correct", "judge/same")}
    assert f"judge {server.model}: no failures" in done.out


def test_a_judge_that_dies_halfway_loses_nothing_that_was_read(
    ahabench: Run, toy: Path, tmp_path: Path, serve: Callable[..., Any]
) -> None:
    def dies(call: Any) -> Any:
        if call.quoted.endswith(("two", "four")):
            return json.dumps({"answer": "2" if call.quoted.endswith("two") else "4"})
        while len(server.readings) < 6:  # the others have been asked as well: let the two replies arrive first
            time.sleep(0.01)
        time.sleep(0.5)
        server.http.socket.close()
        return (403, {}, b"closing down")

    server = serve(dies)
    file = write(tmp_path / "x.jsonl", {key: f"it is {word}" for key, word in zip(RIGHT, WORDS, strict=True)})
    command = ("score", file, "--task", "toy", "--data", toy, "--json", "--judge-model", "reader", "--judge")
    done = ahabench(*command, server.url)
    assert done.code == 0, done.err
    assert "toy test: the judge failed on 4 responses, they stay no_answer" in done.err
    found = statuses(tmp_path / "x")
    assert {key for key, (status, _) in found.items() if status == "correct"} == {"a1", "a2"}
    assert {status for key, (status, _) in found.items() if key not in {"a1", "a2"}} == {"no_answer"}
    assert all(rule.startswith("judge: ") for key, (_, rule) in found.items() if key not in {"a1", "a2"})
    (row,) = json.loads(done.out)
    assert row["judge"]["failures"] == 4
    # When it is back, only what failed is asked.
    back = serve(lambda call: json.dumps({"answer": RIGHT[WORDS_OF[call.quoted.split()[-1]]]}))
    again = ahabench(*command, back.url)
    assert len(back.readings) == 4
    assert json.loads(again.out)[0]["metrics"]["accuracy"]["value"] == 1


WORDS = ("two", "four", "six", "eight", "hundred", "odd")
WORDS_OF = dict(zip(WORDS, RIGHT, strict=True))


@pytest.mark.parametrize("reply", ["The answer is 2.", '{"answer": 2}', '{"answer": "2", "sure": true}', "", b"<html>"])
def test_garbage_from_a_judge_is_no_answer_with_its_cause(
    ahabench: Run, toy: Path, tmp_path: Path, serve: Callable[..., Any], reply: str | bytes
) -> None:
    file = write(tmp_path / "x.jsonl", RIGHT | {"a1": "two"})
    judge = ("--judge", serve(lambda _: reply).url, "--judge-model", "reader")
    done = ahabench("score", file, "--task", "toy", "--data", toy, *judge)
    assert done.code == 0, done.err
    status, rule = statuses(tmp_path / "x")["a1"]
    assert status == "no_answer"
    assert rule.startswith("judge: the reply is ")


def test_official_mathvista_with_a_judge_needs_no_extraction_in_the_file(
    ahabench: Run, data: Path, outputs: Path, tmp_path: Path, serve: Callable[..., Any]
) -> None:
    lines = (outputs / "mathvista" / "bard.jsonl").read_text().splitlines()
    by_text = {row["response"].strip(): row for row in map(json.loads, lines)}
    rows = [row for row in by_text.values() if 0 < len(row["official_extraction"]) < 100][:40]
    extraction = {row["response"].strip(): row["official_extraction"] for row in rows}

    def reader(call: Any) -> str:
        return json.dumps({"answer": extraction[call.quoted.strip()]})

    file = write(tmp_path / "x.jsonl", {row["item_id"]: row["response"] for row in rows})
    command = ("score", file, "--task", "mathvista", "--data", data, "--scorer", "official", "--allow-missing")
    assert "compares an answer that a judge extracted" in ahabench(*command).error
    done = ahabench(*command, "--judge", serve(reader).url, "--judge-model", "reader")
    assert done.code == 0, done.err
    found = {key: status == "correct" for key, (status, _) in statuses(tmp_path / "x", "mathvista").items()}
    assert found == {row["item_id"]: row["official_correct"] for row in rows}
