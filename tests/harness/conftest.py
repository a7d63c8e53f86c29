"""What tests of the harness share: a chat server on this machine, the command, a stranger's package."""

import json
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from judging import SERVED, last_word

from ahabench.harness import dataset, registry, rescore
from ahabench.harness.cli import main
from ahabench.harness.manifest import Manifest, write_manifest
from ahabench.harness.runlog import RESPONSES, write_responses
from ahabench.harness.types import Response

TOY = Path(__file__).parent / "toy"

HttpAnswer = tuple[int, dict[str, str], bytes]
"""Status, headers, body."""
Reply = Callable[["Call"], str | bytes | HttpAnswer | None]
"""What the server says: a completion's content, a whole body, or all of HTTP's answer."""


@dataclass
class Call:
    """A request as the server got it."""

    body: dict[str, Any]
    authorization: str | None
    at: float

    @property
    def prompt(self) -> str:
        """All that the model would read."""
        return "\n".join(message["content"] for message in self.body["messages"])

    @property
    def quoted(self) -> str:
        """The response that a judge is to read, found as a reader would: from the first marker to its own end."""
        mark = re.search(r"^<<<RESPONSE (\w+)>>>\n", self.prompt, re.MULTILINE)
        assert mark, "the prompt has no marker"
        rest = self.prompt[mark.end() :]
        return rest[: rest.index(f"\n<<<END {mark[1]}>>>")]

    @property
    def number(self) -> int:
        """The first number of the quoted response."""
        found = re.search(r"\d+", self.quoted)
        assert found, "the response has no number"
        return int(found[0])

    @property
    def is_probe(self) -> bool:
        """Whether it is the judge's question before all others."""
        return "What is 2 + 3?" in self.prompt


class Server:
    """An HTTP server in threads of this process.

    Probes are answered well whatever `reply` does, unless `probed` is false.
    """

    def __init__(self, reply: Reply, probed: bool, model: str) -> None:
        self.calls: list[Call] = []
        self.reply = reply
        self.probed = probed
        self.model = model
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                call = Call(sent, self.headers["Authorization"], time.monotonic())
                server.calls.append(call)
                status, headers, body = server.answer(call) if self.path == "/v1/chat/completions" else (404, {}, b"")
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        class QuietServer(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_: object) -> None:
                """Stay silent: clients that hang up early are what some tests are about."""

        self.http = QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def readings(self) -> list[Call]:
        """The calls that are no probes."""
        return [call for call in self.calls if not call.is_probe]

    def answer(self, call: Call) -> HttpAnswer:
        """Return the reply as HTTP's answer."""
        said = last_word(call) if self.probed and call.is_probe else self.reply(call)
        if isinstance(said, tuple):
            return said
        if isinstance(said, bytes):
            return 200, {}, said
        message = {"role": "assistant", "content": said}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return 200, {}, json.dumps({"object": "chat.completion", "model": self.model, "choices": choices}).encode()

    def close(self) -> None:
        """Stop listening."""
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    """Start servers: `serve(reply, probed=True, model=SERVED)`, where the reply is that of a good judge by default."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with ExitStack() as stack:

        def start(reply: Reply = last_word, *, probed: bool = True, model: str = SERVED) -> Server:
            server = Server(reply, probed, model)
            stack.callback(server.close)
            return server

        yield start


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that an error is."""
        assert self.err.startswith("error: "), self.err
        assert self.err.count("\n") == 1, self.err
        return self.err


Run = Callable[..., Ran]


@pytest.fixture
def ahabench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command as the installed script does; `~` is an empty folder."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["ahabench", *map(str, arguments)])
        code: object = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        printed = capsys.readouterr()
        return Ran(int(str(code or 0)), printed.out, printed.err)

    return run


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A stranger's package with a benchmark of six sums and two commands is installed; this is a copy of its data."""
    monkeypatch.syspath_prepend(str(TOY))
    monkeypatch.setenv("PYTHONPATH", str(TOY))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    registry.tasks.cache_clear()
    yield shutil.copytree(TOY / "data", tmp_path / "data")
    registry.tasks.cache_clear()


@pytest.fixture
def mini_run(tmp_path: Path) -> Callable[..., Path]:
    """Makes scored runs on the built-in suite, as one engine would leave them, from what was answered wrong.

    `mini_run(name, wrong, task="mathvista", samples=1, finish={}, texts={}, **fields)`: `wrong` are places of items, or
    (place, sample) pairs; `finish` and `texts` go by place and take the place of what is said else; `fields` go into
    the manifest. `task=None` with `tasks={task: wrong}` makes a run of several benchmarks.
    """

    def make(
        name: str,
        wrong: Iterable[object] = (),
        *,
        task: str = "mathvista",
        tasks: dict[str, Iterable[object]] | None = None,
        samples: int = 1,
        finish: dict[int, str] | None = None,
        texts: dict[int, str | None] | None = None,
        tokens: int | None = 10,
        score: bool = True,
        **fields: Any,
    ) -> Path:
        run, records = tmp_path / name, {}
        for one, missed in (tasks or {task: wrong}).items():
            split = dataset.load(registry.find_task(one), "mini")
            records[one] = {
                "split": "mini",
                "source": split.source,
                "data_digest": split.digest,
                "n_items": len(split.items),
                "prompt": {"style": "think", "version": 1},
            }
            missed = set(missed)
            rows = []
            for place, item in enumerate(split.items):
                for sample in range(samples):
                    is_wrong = place in missed or (place, sample) in missed
                    said = "I cannot tell." if is_wrong else f"I see it.\n<answer>{item.gold}</answer>"
                    rows.append(
                        Response(
                            item_id=item.id,
                            sample_index=sample,
                            text=(texts or {}).get(place, said),
                            finish_reason=(finish or {}).get(place, "stop"),
                            completion_tokens=tokens,
                        )
                    )
            write_responses(run / one / RESPONSES, rows)
        known: dict[str, Any] = {
            "status": "complete",
            "model": {"name": name, "weights_digest": f"sha256:{name}", "text_only": False},
            "engine": {"name": "vllm", "version": "0.32.0", "dtype": "bfloat16"},
            "sampling": {"temperature": 0.0, "max_new_tokens": 64, "samples": samples, "seed": 0},
            "pixels": {"min": 784, "max": 50176},
            "system_prompt": "Think.",
        }
        changed = {part: known[part] | fields.pop(part, {}) for part in ("model", "engine", "sampling", "pixels")}
        for one, values in (fields.pop("records", None) or {}).items():
            records[one] = {**records[one], **values}
        write_manifest(run, Manifest.model_validate(known | changed | {"tasks": records} | fields))
        if score:
            rescore.score_run(run, scorer="robust", data=None, allow_missing=True)
        return run

    return make
