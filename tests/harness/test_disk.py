"""Writing on real disks that refuse, and beside real other processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ahabench.harness.errors import UsageError
from ahabench.harness.manifest import Manifest, read_manifest, write_manifest
from ahabench.harness.runlog import ResponseLog, read_responses
from ahabench.harness.types import Response

WHOLE = Manifest(status="complete")


def run_python(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


# Other processes.

_OPEN_IT = """
import sys
from pathlib import Path
from ahabench.harness.errors import UsageError
from ahabench.harness.runlog import ResponseLog
try:
    ResponseLog(Path(sys.argv[1])).close()
    print("opened")
except UsageError as error:
    print(error)
"""


def test_a_second_process_is_refused_until_the_first_has_closed(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    with ResponseLog(path) as log:
        log.append(Response(item_id="1", text="x"), None)
        assert "is being written by another process" in run_python(_OPEN_IT, path).stdout
    assert run_python(_OPEN_IT, path).stdout == "opened\n"


def test_a_log_that_could_not_be_opened_holds_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    path.write_text('{oops}\n{"item_id": "1", "response": "x"}\n')
    with pytest.raises(UsageError):
        ResponseLog(path)
    path.unlink()
    ResponseLog(path).close()


# Disks that refuse.

# Appends rows of 5,000 bytes until the disk refuses; prints how many append() confirmed, then the error.
_FILL = """
import resource, sys
from pathlib import Path
from ahabench.harness.errors import UsageError
from ahabench.harness.runlog import ResponseLog
from ahabench.harness.types import Response
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
log = ResponseLog(Path(sys.argv[1]))
for number in range(1000):
    try:
        log.append(Response(item_id=str(number), text="x" * 5000), None)
    except UsageError as error:
        print(number)
        print(error)
        print(len(Path(sys.argv[1]).read_bytes().split(b"\\n")) - 1, Path(sys.argv[1]).read_bytes()[-1:])
        sys.exit()
"""


def test_a_file_that_may_not_grow_keeps_whole_rows_and_can_be_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    confirmed, message, state = run_python(_FILL, path, "23000").stdout.splitlines()
    # Four rows of 5,000 and some bytes fit into 23,000, and the fifth is cut by the kernel in the middle.
    assert confirmed == "4"
    assert "the disk is full" in message
    assert "run the same command again to go on" in message
    assert state == r"4 b'\n'"
    with ResponseLog(path) as log:
        log.append(Response(item_id="4", text="x"), None)
    assert [response.item_id for response in read_responses(path)] == ["0", "1", "2", "3", "4"]


def test_a_full_disk_keeps_whole_rows(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=64k none "$1" && exec "$2" -c "$3" "$1/responses.jsonl"'
    arguments = ["sh", str(tmp_path), sys.executable, _FILL]
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        pytest.skip("needs unshare(1)")
    if done.returncode != 0 and ("unshare" in done.stderr or "mount" in done.stderr):
        pytest.skip(f"this system lets nobody mount a small disk: {done.stderr.strip()}")
    confirmed, message, state = done.stdout.splitlines()
    assert 0 < int(confirmed) < 14  # 14 rows of 5,000 bytes would be more than 64 KiB
    assert "the disk is full" in message
    assert "No space left on device" in message
    assert state == rf"{confirmed} b'\n'"


def test_a_folder_that_cannot_be_made_is_an_error_with_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file/responses\.jsonl cannot be written"):
        ResponseLog(tmp_path / "file" / "responses.jsonl")


def test_a_manifest_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    write_manifest(tmp_path, WHOLE)
    code = """
import resource, sys
from pathlib import Path
from ahabench.harness.manifest import read_manifest, write_manifest
run = Path(sys.argv[1])
manifest = read_manifest(run)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
try:
    write_manifest(run, manifest.model_copy(update={"status": "running"}))
except Exception as error:
    print(type(error).__name__, error)
"""
    assert run_python(code, tmp_path).stdout.startswith("UsageError the disk is full")
    assert read_manifest(tmp_path) == WHOLE
    assert os.listdir(tmp_path) == ["run.json"]
