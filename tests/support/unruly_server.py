"""An OpenAI-compatible HTTP server in threads of this process, which behaves as badly as a test wants it to."""

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "tiny-vlm"


@dataclass(frozen=True)
class Call:
    """A request for a completion, as the server got it."""

    body: dict[str, Any]
    headers: Message
    at: float

    @property
    def content(self) -> Any:
        """What the user says: a string, or parts."""
        return self.body["messages"][-1]["content"]

    @property
    def text(self) -> str:
        """The words of the user."""
        if isinstance(self.content, str):
            return self.content
        return " ".join(part["text"] for part in self.content if part["type"] == "text")


@dataclass(frozen=True)
class Http:
    """HTTP's whole answer."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Drop:
    """Break the connection after so many bytes of a good answer; 0 sends nothing."""

    after: int


@dataclass(frozen=True)
class Hang:
    """Say nothing for so long, then answer well."""

    seconds: float


Answer = str | dict[str, Any] | Http | Drop | Hang
"""A completion's content, a completion's JSON, or misbehaviour."""


def completion(content: str | None = "fine", **changes: Any) -> dict[str, Any]:
    """Return a completion as vLLM writes it; `message` adds to the message, other names to the whole."""
    message = {"role": "assistant", "content": content, **changes.pop("message", {})}
    choice = {"index": 0, "message": message, "finish_reason": changes.pop("finish_reason", "stop")}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return {
        "id": "c-1",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [choice],
        "usage": usage,
    } | changes


class UnrulyServer:
    """Serves completions as `answer` says, a list of models, and its version.

    `most` is the largest number of completions that were under way at once.
    """

    def __init__(
        self,
        answer: Callable[[Call], Answer] = lambda call: f"answer to {call.text}",
        *,
        models: Sequence[str] | Http = (MODEL,),
        owner: str = "somebody",
        version: str | None = None,
        port: int = 0,
        keep_calls: bool = True,
    ) -> None:
        self.answer = answer
        self.models = models
        self.owner = owner
        self.version = version
        self.calls: list[Call] = []
        self.keep_calls = keep_calls
        self.under_way = self.most = 0
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        unruly = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                unruly._connections.add(self.connection)

            def finish(self) -> None:
                unruly._connections.discard(self.connection)
                super().finish()

            def do_GET(self) -> None:
                unruly.list(self)

            def do_POST(self) -> None:
                unruly.complete(self)

            def log_message(self, *_: object) -> None:
                pass

        class QuietServer(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256
            allow_reuse_address = True

            def handle_error(self, *_: object) -> None:
                """Stay silent: clients that hang up early are what some tests are about."""

        self._http = QuietServer(("127.0.0.1", port), Handler)
        self.port = self._http.server_port
        self.url = f"http://127.0.0.1:{self.port}/v1"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        """Stop at once, as a killed process does: no listener, and every connection broken."""
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def list(self, handler: BaseHTTPRequestHandler) -> None:
        if handler.path == "/v1/models":
            said = self.models
            if not isinstance(said, Http):
                rows = [{"id": name, "object": "model", "owned_by": self.owner} for name in said]
                said = Http(body=json.dumps({"object": "list", "data": rows}).encode())
        elif handler.path == "/version" and self.version is not None:
            said = Http(body=json.dumps({"version": self.version}).encode())
        else:
            said = Http(404, b'{"detail": "Not Found"}')
        self._send(handler, said)

    def complete(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        call = Call(body, handler.headers, time.monotonic())
        with self._lock:
            if self.keep_calls:
                self.calls.append(call)
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        try:
            said = self.answer(call) if handler.path == "/v1/chat/completions" else Http(404, b"no such path")
            if isinstance(said, Hang):
                self.closing.wait(said.seconds)
                said = "late"
            drop = said if isinstance(said, Drop) else None
            if isinstance(said, str | Drop):
                said = completion(said if isinstance(said, str) else "x" * 1000)
            if isinstance(said, dict):
                said = Http(body=json.dumps(said).encode(), headers={"Content-Type": "application/json"})
        finally:
            with self._lock:
                self.under_way -= 1
        self._send(handler, said, drop)

    def _send(self, handler: BaseHTTPRequestHandler, said: Http, drop: Drop | None = None) -> None:
        if drop is not None and drop.after == 0:
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        handler.send_response(said.status)
        for name, value in {**said.headers, "Content-Length": str(len(said.body))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(said.body[: drop.after] if drop else said.body)
        if drop is not None:
            handler.wfile.flush()
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
