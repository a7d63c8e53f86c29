"""A static host on this machine alone, with the byte ranges that Inspect's viewer reads its logs by."""

import io
import os
import re
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO

from ahabench.harness.errors import UsageError

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def server(folder: Path, port: int) -> ThreadingHTTPServer:
    """Return a server of a folder at 127.0.0.1, which is yet to be run.

    Args:
        folder: what to serve; nothing above it.
        port: 0 takes a free one.

    Raises:
        UsageError: the port is taken, or not ours to take.
    """
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, directory=str(folder)))
    except OSError as error:
        raise UsageError(f"port {port} cannot be used ({error.strerror}); --port 0 takes a free one") from error


def part_of(header: str, size: int) -> tuple[int, int] | None:
    """Return the first and the last byte that a Range header asks for; `None` where it asks for nothing that exists.

    >>> part_of("bytes=-4", 10), part_of("bytes=2-", 10), part_of("bytes=2-99", 10), part_of("bytes=10-", 10)
    ((6, 9), (2, 9), (2, 9), None)
    """
    found = _RANGE.fullmatch(header.strip())
    if found is None or found[1] == found[2] == "":
        return None
    if found[1] == "":
        first, last = max(0, size - int(found[2])), size - 1
    else:
        first, last = int(found[1]), min(size - 1, int(found[2])) if found[2] else size - 1
    return (first, last) if first <= last else None


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        """Answer a range with that part of the file; everything else as the parent does."""
        path = self.translate_path(self.path)
        header = self.headers.get("Range")
        if header is None or not os.path.isfile(path):
            return super().send_head()
        size = os.path.getsize(path)
        asked = part_of(header, size)
        if asked is None:
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        first, last = asked
        with open(path, "rb") as file:
            file.seek(first)
            data = file.read(last - first + 1)
        self.send_response(HTTPStatus.PARTIAL_CONTENT)
        self.send_header("Content-Type", self.guess_type(path))
        self.send_header("Content-Range", f"bytes {first}-{first + len(data) - 1}/{size}")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        return io.BytesIO(data)

    def end_headers(self) -> None:
        """Say that ranges are understood."""
        self.send_header("Accept-Ranges", "bytes")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: stdout and stderr are the command's."""
