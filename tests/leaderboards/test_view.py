"""A run as Inspect's logs, its viewer over our own host, and rows for other tools."""

import json
import random
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness import registry
from ahabench.harness.dataset import load
from ahabench.harness.errors import IncomparableRunsError, UsageError
from ahabench.harness.imports.lmms_eval import read_logs
from ahabench.leaderboards.rows import write_lmms_eval_log, write_parquet
from ahabench.leaderboards.serving import part_of, server

MakeRun = Callable[..., Path]
Edit = Callable[[Path, Callable[[Any], None]], None]
SAID = "<think>It is 3. Wait, let me check the picture again: 4.</think><answer>none</answer>"


@pytest.fixture(scope="module")
def run(make_lasting_run: MakeRun) -> Path:
    return make_lasting_run("view", lambda number: number < 30, text=SAID)


@pytest.fixture(scope="module")
def logs(run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    log = pytest.importorskip("inspect_ai.log", reason="inspect-ai is not installed")
    from ahabench.leaderboards import view

    return [log.read_eval_log(str(path)) for path in view.write_logs(run, tmp_path_factory.mktemp("x") / "logs")]


def test_every_response_is_a_sample(logs: list[Any]) -> None:
    assert [len(log.samples) for log in logs] == [120]


def test_a_sample_says_what_was_asked_answered_and_decided(logs: list[Any]) -> None:
    sample = logs[0].samples[119]
    assert [message.role for message in sample.messages] == ["user", "assistant"]
    assert [part.type for part in sample.messages[0].content] == ["image", "text"]
    thought, answer = sample.messages[1].content
    assert thought.reasoning == "It is 3. Wait, let me check the picture again: 4."
    assert answer.text == "<answer>none</answer>"
    assert sample.scores["verdict"].value == "I"
    assert sample.metadata["response"] == SAID
    assert sample.metadata["status"] in {"wrong", "no_answer"}


def test_the_places_of_aha_moments_are_those_of_the_response(logs: list[Any]) -> None:
    moments = logs[0].samples[119].metadata["aha"]
    assert moments
    assert all(SAID[one["start"] : one["end"]] == one["text"] for one in moments)


def test_right_answers_are_told_from_wrong_ones(logs: list[Any]) -> None:
    assert [sample.scores["verdict"].value for sample in logs[0].samples].count("C") == 30


def test_many_responses_are_shared_out(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = pytest.importorskip("inspect_ai.log", reason="inspect-ai is not installed")
    from ahabench.leaderboards import view

    monkeypatch.setattr(view, "SHARD", 50)
    paths = view.write_logs(run, tmp_path / "logs", images=False)
    found = [log.read_eval_log(str(path)) for path in paths]
    assert [len(one.samples) for one in found] == [50, 50, 20]
    assert len({sample.id for one in found for sample in one.samples}) == 120


def test_a_second_run_says_what_flipped(make_run: MakeRun, tmp_path: Path) -> None:
    log = pytest.importorskip("inspect_ai.log", reason="inspect-ai is not installed")
    from ahabench.leaderboards import view

    # Right are items 0 to 29, and before 10 to 34: 0 to 9 are fixed, 30 to 34 broken, 105 the same.
    now, before = make_run("now", lambda n: n < 30), make_run("before", lambda n: 10 <= n < 35)
    (path,) = view.write_logs(now, tmp_path / "logs", images=False, against=before)
    samples = log.read_eval_log(str(path)).samples
    by_place = {int(sample.id.rpartition("-")[2]) - 1: sample.scores["flip"].value for sample in samples}
    flips = [by_place[place] for place in range(120)]
    assert (flips[:10], flips[30:35]) == (["fixed"] * 10, ["broken"] * 5)
    assert flips.count("same") == 105


def test_a_second_run_on_other_items_is_refused(make_run: MakeRun, edit: Edit, tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai", reason="inspect-ai is not installed")
    from ahabench.leaderboards import view

    now, before = make_run("now", bool), make_run("before", bool)
    edit(before / "run.json", lambda run: run["tasks"]["mathvista"].update(data_digest="f" * 64))
    with pytest.raises(IncomparableRunsError, match="other items of mathvista"):
        view.write_logs(now, tmp_path / "logs", images=False, against=before)


def test_pictures_can_be_left_out(run: Path, tmp_path: Path) -> None:
    log = pytest.importorskip("inspect_ai.log", reason="inspect-ai is not installed")
    from ahabench.leaderboards import view

    (path,) = view.write_logs(run, tmp_path / "logs", images=False)
    kinds = {part.type for sample in log.read_eval_log(str(path)).samples for part in sample.messages[0].content}
    assert kinds == {"text"}


@pytest.mark.parametrize("foreign", ["thesis.tex", "logs/notes.txt", "logs"])
def test_a_folder_that_is_no_earlier_bundle_is_not_replaced(tmp_path: Path, foreign: str) -> None:
    pytest.importorskip("inspect_ai", reason="inspect-ai is not installed")
    from ahabench.leaderboards import view

    (tmp_path / "logs").mkdir()
    if "." in foreign:
        (tmp_path / foreign).touch()
    with pytest.raises(UsageError, match="no earlier bundle"):
        view.bundle(tmp_path / "none", tmp_path)
    assert (tmp_path / foreign).exists()


def test_an_earlier_bundle_is_replaced(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai", reason="inspect-ai is not installed")
    from ahabench.leaderboards import view

    view.write_logs(run, tmp_path / "logs", images=False)
    view.bundle(tmp_path / "logs", tmp_path / "view")
    old = tmp_path / "view" / "logs" / "old.eval"
    old.touch()
    view.bundle(tmp_path / "logs", tmp_path / "view")
    assert (tmp_path / "view" / "index.html").exists()
    assert not old.exists()


def test_a_port_that_is_taken_is_said_at_once(run: Path) -> None:
    with server(run, 0) as host, pytest.raises(UsageError, match="--port 0 takes a free one"):
        server(run, host.server_address[1])


@pytest.mark.slow
def test_the_browser_shows_a_sample_and_asks_nobody_else(run: Path, tmp_path: Path, browser: Any) -> None:
    pytest.importorskip("inspect_ai", reason="inspect-ai is not installed")
    from ahabench.leaderboards import view

    assert len(view.write_logs(run, tmp_path / "logs")) == 1
    view.bundle(tmp_path / "logs", tmp_path / "view")
    with server(tmp_path / "view", 0) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{host.server_address[1]}/"
        page = browser.new_page()
        others: list[str] = []
        page.on(
            "request",
            lambda one: others.append(one.url) if not one.url.startswith((address, "data:", "blob:")) else None,
        )
        page.goto(f"{address}#/logs/mathvista-0001.eval/samples/sample/mini-vista-120/1/")
        page.get_by_text("let me check the picture again").first.wait_for(state="attached", timeout=30_000)
        page.close()
        host.shutdown()
    assert others == []


@pytest.mark.slow
def test_the_browser_filters_by_tags_and_verdicts(run: Path, tmp_path: Path, browser: Any) -> None:
    pytest.importorskip("inspect_ai", reason="inspect-ai is not installed")
    from ahabench.leaderboards import view

    view.write_logs(run, tmp_path / "logs", images=False)
    view.bundle(tmp_path / "logs", tmp_path / "view")
    items = load(registry.find_task("mathvista"), registry.MINI).items
    # The first 30 are right.
    wanted = sum(item.tags["grade"] == ("college",) for item in items[30:])
    with server(tmp_path / "view", 0) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{host.server_address[1]}/#/tasks/mathvista-0001.eval")
        page.locator(".cm-content").first.click(timeout=30_000)
        page.keyboard.type('metadata.tags.grade == "college" and verdict == "I"')
        page.get_by_text(f"{wanted} / 120 Samples").wait_for(timeout=30_000)
        page.close()
        host.shutdown()


@pytest.mark.slow
def test_a_sample_costs_its_own_bytes_and_an_index_of_the_others(
    make_run: MakeRun, tmp_path: Path, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("inspect_ai", reason="inspect-ai is not installed")
    from ahabench.leaderboards import view

    monkeypatch.setattr(view, "SHARD", 20)
    words = random.Random(0)
    # Text that does not compress, so that what is read too much weighs.
    words_of_all = str(words.getrandbits(64))
    text = f"<think>{words_of_all} {' '.join(str(words.getrandbits(64)) for _ in range(1_000))}</think>none"
    tasks = ("mathvista", "mathvision", "logicvista")
    big = make_run("big", lambda _: False, tasks=tasks, text=text)
    assert len(view.write_logs(big, tmp_path / "logs")) == 18
    view.bundle(tmp_path / "logs", tmp_path / "view")
    size = sum(path.stat().st_size for path in (tmp_path / "view" / "logs").iterdir())
    with server(tmp_path / "view", 0) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{host.server_address[1]}/"
        fetched: list[int] = []

        def opened(way: str, shown: str) -> None:
            page = browser.new_page()
            page.on(
                "response",
                lambda one: (
                    fetched.append(int(one.headers["content-length"]))
                    if "/logs/" in one.url and one.request.method == "GET"
                    else None
                ),
            )
            page.goto(f"{address}{way}")
            page.get_by_text(shown).first.wait_for(state="attached", timeout=30_000)
            page.close()

        opened("#/logs/mathvista-0006.eval/samples/sample/mini-vista-120/1/", words_of_all)
        one_log = sum(fetched)
        opened("", "mini 0006")
        host.shutdown()
    assert size > 18 * 20 * 5_000
    # One of 360 samples, and one of 18 indexes.
    assert one_log < size / 18
    # All indexes: some 20 numbered lines each, and no sample.
    assert sum(fetched) - one_log < size / 8
    assert len(fetched) < 18 * 8


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "x.bin").write_bytes(b"0123456789")
    with server(tmp_path, 0) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_address[1]}"
        serving.shutdown()


def get(url: str, asked: str | None = None) -> tuple[int, bytes]:
    request = urllib.request.Request(url, headers={"Range": asked} if asked else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, b""


@pytest.mark.parametrize(
    ("asked", "status", "found"),
    [
        (None, 200, b"0123456789"),
        ("bytes=2-4", 206, b"234"),
        ("bytes=7-", 206, b"789"),
        ("bytes=-3", 206, b"789"),
        ("bytes=5-99", 206, b"56789"),
        ("bytes=10-", 416, b""),
        ("bytes=4-2", 416, b""),
    ],
)
def test_the_host_serves_ranges(host: str, asked: str | None, status: int, found: bytes) -> None:
    assert get(f"{host}/x.bin", asked) == (status, found)


@pytest.mark.parametrize("way", ["/../secret", "/%2e%2e/secret", "//../secret"])
def test_the_host_serves_nothing_above_its_folder(host: str, tmp_path: Path, way: str) -> None:
    (tmp_path.parent / "secret").write_bytes(b"s")
    assert get(host + way, "bytes=0-")[0] == 404


def test_a_range_of_an_empty_file_is_none() -> None:
    assert part_of("bytes=0-", 0) is None
    assert part_of("bytes=-1", 0) is None


def test_parquet_has_a_row_per_response(run: Path, tmp_path: Path) -> None:
    import pandas as pd
    import pyarrow.parquet as pq

    (path,) = write_parquet(run, tmp_path)
    frame = pd.read_parquet(path)
    assert len(frame) == 120
    assert (frame["status"] == "correct").sum() == 30
    assert frame["response"].iloc[119] == SAID
    assert json.loads(frame["tags"].iloc[0])
    # The run says neither; a column is what it is all the same, or files of several runs do not go together.
    schema = pq.read_schema(path)
    types = dict(zip(schema.names, map(str, schema.types), strict=True))
    assert (types["prompt_tokens"], types["system"].removeprefix("large_")) == ("int64", "string")


def test_an_lmms_eval_log_is_read_back_as_one(run: Path, tmp_path: Path) -> None:
    path, _ = write_lmms_eval_log(run, tmp_path)
    (log,) = read_logs(path)
    assert len(log.rows) == 120
    assert [row.said[0].text for row in log.rows][119] == SAID
