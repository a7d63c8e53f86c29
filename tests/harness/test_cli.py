"""The installed command: bad input, exit codes, pipes, signals, full disks, and strangers' commands.

Most tests run `main` in this process, which is what the script calls; those about processes start the script.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_rows import RIGHT, write

TOY = Path(__file__).parent / "toy"
SCRIPT = str(Path(sys.executable).with_name("ahabench"))
COMMANDS = ("agreement", "eval", "export", "score", "tasks")


Run = Callable[..., Any]
"""The fixture `ahabench`: returns how a command ended, as `code`, `out`, `err` and `error`."""


def script(*arguments: object, **options: Any) -> "subprocess.CompletedProcess[str]":
    command = [SCRIPT, *map(str, arguments)]
    return subprocess.run(command, **{"capture_output": True, "text": True, "timeout": 120, "check": False, **options})


# Help and strangers' commands.


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=lambda words: " ".join(words) or "root")
def test_help_is_for_every_command(command: tuple[str, ...]) -> None:
    done = script(*command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert " ".join(("ahabench", *command)) in done.stdout
    assert command or all(name in done.stdout for name in COMMANDS)


def test_no_command_at_all_prints_the_help(ahabench: Run) -> None:
    done = ahabench()
    assert (done.code, done.err) == (2, "")
    assert all(name in done.out for name in COMMANDS)


@pytest.mark.parametrize(
    ("command", "why", "help"),
    [
        (("evaluate",), "'evaluate'", "`ahabench --help`"),
        (("eval",), "model", "`ahabench eval --help`"),
        (("eval", "m", "--tasks", "all", "--out", "x", "--limit", "few"), "--limit", "`ahabench eval --help`"),
        (("eval", "m", "--tasks", "all", "--out", "x", "--max-pixels", "-1"), "--max-pixels", "`ahabench eval --help`"),
        (("tasks", "--jason"), "--jason", "`ahabench tasks --help`"),
        (("tasks", "wemath", "dynamath"), "dynamath", "`ahabench tasks --help`"),
    ],
)
def test_what_typer_refuses_is_one_line_as_every_error(
    ahabench: Run, command: tuple[str, ...], why: str, help: str
) -> None:
    done = ahabench(*command)
    assert (done.code, done.out) == (2, "")
    assert why in done.error
    assert help in done.error


def test_an_error_cannot_move_the_cursor(ahabench: Run) -> None:
    done = ahabench("score", "a\x1b[2Jb\nerror: c")
    assert done.code == 2
    assert done.error.rstrip("\n").isprintable()


def test_two_packages_with_a_command_of_ours_run_ours(toy: Path, tmp_path: Path) -> None:
    info = tmp_path / "site" / "second_tasks-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: second-tasks\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ahabench.commands]\ntasks = toy_task:shout\n")
    done = script("tasks", "wemath", env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TOY), str(info.parent)])})
    assert done.returncode == 0
    assert "wemath" in done.stdout
    assert "another package has one too: toy_task:shout" in done.stderr


def test_a_strangers_command_runs_among_ours(toy: Path) -> None:
    assert script("shout", "hello").stdout == "HELLO\n"
    assert "Say a word loudly" in script("--help").stdout


def test_a_command_that_cannot_be_loaded_takes_no_other_along(toy: Path) -> None:
    assert script("--help").returncode == 0
    assert script("tasks").returncode == 0
    done = script("unfinished")
    assert done.returncode == 2
    assert done.stderr.startswith("error: the command 'unfinished' of toy_task_unfinished:app cannot be loaded")
    assert done.stderr.count("\n") == 1


# Bad input: one line, exit code 2, nothing written.

EVAL = ("eval", "m", "--out", "{out}", "--data", "{data}", "--engine", "replay:{said}", "--tasks")
SCORE = ("score", "{said}", "--out", "{out}", "--data", "{data}", "--task")


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ((*EVAL, "toi"), "unknown task 'toi'. Did you mean 'toy'?"),
        ((*SCORE, "mathvsta"), "unknown task 'mathvsta'. Did you mean 'mathvista'?"),
        (("tasks", "wematch"), "unknown task 'wematch'. Did you mean 'wemath'?"),
        (("agreement", "{said}", "--task", "toyy", "--data", "{data}"), "unknown task 'toyy'. Did you mean 'toy'?"),
        ((*EVAL, "toy:tests"), "unknown split of toy 'tests'. Did you mean 'test'?"),
        ((*SCORE, "toy:tst"), "unknown split of toy 'tst'. Did you mean 'test'?"),
        ((*EVAL, "toy", "--scorer", "robus"), "unknown scorer of toy 'robus'. Did you mean 'robust'?"),
        ((*SCORE, "toy", "--scorer", "offical"), "unknown scorer of toy 'offical'. Did you mean 'official'?"),
        ((*EVAL, "toy", "--prompt", "oficial"), "unknown prompt style of toy 'oficial'. Did you mean 'official'?"),
        ((*EVAL, "toy", "--preset", "vla"), "unknown preset 'vla'. Did you mean 'vlaa'?"),
        ((*EVAL, "toy", "--engine", "transformer"), "unknown engine 'transformer'. Did you mean 'transformers'?"),
        ((*EVAL, "toy", "--engine", "replay"), "replay:PATH"),
        ((*EVAL, "toy", "--engine", "replay:{out}/x"), "nothing to replay"),
        ((*EVAL, "toy", "--scorer", "official"), "the scorer 'official' compares an answer that a judge extracted"),
        ((*SCORE, "toy", "--scorer", "official"), "the scorer 'official' compares an answer that a judge extracted"),
        ((*EVAL, "toy,toy:hidden"), "toy is named twice"),
        ((*SCORE, "toy,wemath"), "--task takes one task, found 'toy,wemath'"),
        ((*EVAL, "toy", "--data", "{out}/data"), "is not a folder"),
        ((*SCORE, "toy", "--data", "{out}/data"), "is not a folder"),
        ((*SCORE, "toy", "--data", "{empty}"), "items.json is missing; is --data the official folder?"),
        (SCORE[:-1], "give --task NAME"),
        (("score", "{out}/none.jsonl", "--task", "toy", "--data", "{data}"), "none.jsonl cannot be read"),
        (("score", "{data}"), "is no run: it has no run.json"),
        (("score", "{data}", "--verdicts", "x"), "--verdicts and --out go with a FILE"),
        ((*SCORE, "toy", "--verdicts", "right"), "has no 'right'; its keys are"),
        (("agreement", "{data}", "--task", "toy", "--data", "{data}"), "is a folder; give its files, or --report"),
        (("export", "jsonl", "--task", "toy", "--data", "{data}", "--out", "{said}"), "is a file, wanted a folder"),
        (("merge", "{out}"), "is no folder; give the --out of `eval --shard`"),
        (("export", "json", "--task", "toy", "--out", "{out}"), "unknown export 'json'. Did you mean 'jsonl'?"),
        ((*SCORE, "toy", "--judge", "http://127.0.0.1:1/v1"), "--judge URL goes with --judge-model NAME"),
        ((*SCORE, "toy", "--judge-model", "x"), "--judge-model goes with --judge URL"),
        ((*SCORE, "toy", "--judge", "localhost", "--judge-model", "x"), "judge URL 'localhost' is not usable"),
        ((*EVAL, "toy", "--top-p", "0"), "top_p is 0.0"),
        ((*EVAL, "toy", "--repetition-penalty", "0"), "repetition_penalty is 0.0"),
        (("eval", "{empty}", "--tasks", "toy", "--data", "{data}", "--out", "{out}"), "is no checkpoint"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    ahabench: Run, toy: Path, tmp_path: Path, command: tuple[str, ...], why: str
) -> None:
    (tmp_path / "empty").mkdir()
    said = write(tmp_path / "said.jsonl", RIGHT)
    names = {"out": tmp_path / "out", "data": toy, "said": said, "empty": tmp_path / "empty"}
    done = ahabench(*(word.format(**names) for word in command))
    assert done.code == 2, done.err
    assert why in done.error
    assert done.out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{'item_id': 'a2'}", ":2 is not JSON: "),
        ('{"item_id": "a2", "response"', ":2 is not JSON: "),
        ('["a2", "4"]', ":2 is not a JSON object but a list"),
        ('{"item_id": "a1", "response": "3"}', ":2 repeats item 'a1', sample 0, of line 1"),
        ('{"item_id": "a9", "response": "3"}', "toy test has no item 'a9'; its ids look like 'a1'"),
        ('{"item": "a2", "response": "3"}', ":2 has no 'item_id'"),
        ('{"item_id": "a2", "answer": "3"}', ":2 has no 'response'"),
        ('{"item_id": "a2", "response": 3}', ":2 has 3 as 'response', wanted a string or null"),
        ('{"item_id": "a2", "response": "4", "sample_index": -1}', ":2 has -1 as 'sample_index'"),
        ('{"item_id": "a2", "response": "\xe9"}', ":2 is not UTF-8"),
        ("[" * 100_000, ":2 is not JSON"),
    ],
)
@pytest.mark.parametrize("command", ["score", "agreement"])
def test_a_bad_row_is_named_by_its_line(
    ahabench: Run, toy: Path, tmp_path: Path, command: str, line: str, why: str
) -> None:
    file = tmp_path / "x.jsonl"
    rows = ['{"item_id": "a1", "response": "2", "official_correct": true}', line]
    if line.endswith("}"):
        rows[1] = line[:-1] + ', "official_correct": true}' if line.startswith('{"') else line
    file.write_bytes("\n".join(rows).encode("latin-1"))
    done = ahabench(command, file, "--task", "toy", "--data", toy)
    assert done.code == 2
    assert why in done.error
    assert not (tmp_path / "x").exists()


def test_a_data_folder_that_lacks_items_is_refused(ahabench: Run, data: Path, outputs: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    records = json.loads((data / "logicvista" / "data" / "dataset.json").read_text())
    records.pop("v1_447")
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(records))
    file = outputs / "logicvista" / "GPT4.jsonl"
    done = ahabench(
        "score", file, "--task", "logicvista", "--data", tmp_path / "data", "--out", tmp_path / "out", "--verdicts", "x"
    )
    assert done.code == 2
    assert "logicvista test has 447 items here, the task declares 448" in done.error
    assert not (tmp_path / "out").exists()


def test_images_that_are_missing_stop_eval_before_it_generates(
    ahabench: Run, data: Path, outputs: Path, tmp_path: Path
) -> None:
    said = outputs / "mathvista" / "bard.jsonl"
    done = ahabench(
        "eval", "m", "--tasks", "mathvista", "--engine", f"replay:{said}", "--data", data, "--out", tmp_path / "out"
    )
    assert done.code == 2
    assert "1000 of 1000 images are missing" in done.error
    assert not (tmp_path / "out").exists()


# Pipes, signals, disks.


@pytest.mark.parametrize(
    "command", [("tasks", "--json"), ("tasks",), ("tasks", "mathvista"), ("--help",), ("eval", "--help")], ids=" ".join
)
def test_a_reader_that_goes_away_is_no_failure(command: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [SCRIPT, *command], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_stdout_that_the_shell_closed_is_no_traceback() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", '"$0" tasks >&-', SCRIPT], stderr=subprocess.PIPE, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_stderr_that_the_shell_closed_leaves_stdout_to_the_answer() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", '"$0" tasks nothing 2>&-', SCRIPT],
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("command", [("tasks", "--json"), ("tasks",)], ids=" ".join)
def test_a_full_disk_behind_stdout_is_one_line(command: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [SCRIPT, *command], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False
        )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_an_interrupt_is_130_and_leaves_no_half_written_run(
    toy: Path, tmp_path: Path, serve: Callable[..., Any]
) -> None:
    def slowly(call: Any) -> str:
        time.sleep(3)
        return "{}"

    server = serve(slowly)
    file = write(tmp_path / "x.jsonl", dict.fromkeys(RIGHT, "no number"))
    judge = ("--judge", server.url, "--judge-model", "reader")
    process = subprocess.Popen(
        [SCRIPT, "score", str(file), "--task", "toy", "--data", str(toy), *judge], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not server.readings and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    assert err == "interrupted; the same command goes on where it stopped\n"
    assert not (tmp_path / "x").exists()


def test_a_home_that_cannot_be_written_is_one_line(
    ahabench: Run, toy: Path, tmp_path: Path, serve: Callable[..., Any]
) -> None:
    (tmp_path / "home").touch()
    judge = ("--judge", serve().url, "--judge-model", "reader")
    done = ahabench("score", write(tmp_path / "x.jsonl", RIGHT), "--task", "toy", "--data", toy, *judge)
    assert done.code in {0, 2}
    assert done.code == 0 or done.error
