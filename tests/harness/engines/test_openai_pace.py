"""The engine for servers: how many requests are under way, and what stops them."""

import itertools
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from served import Bytes, Serve, ask, engine, png, request, threads
from unruly_server import Hang, Http

from ahabench.harness.types import Response

# How many at once.


def test_no_more_than_the_bound_are_under_way_or_in_memory(serve: Serve) -> None:
    reading, most = Counter[str](), []
    lock = threading.Lock()
    content = png(20, 20)

    @dataclass(frozen=True)
    class Watched:
        n: int

        def read(self) -> bytes:
            with lock:
                reading["begun"] += 1
                most.append(reading["begun"] - reading["done"])
            return content

    eight, ten, answered = threading.Barrier(8), threading.Event(), itertools.count()

    def answer(call: Any) -> str:
        # The first eight come together; nobody after them is answered before ten have been under way.
        if next(answered) < 8:
            eight.wait(timeout=60)
        else:
            if server.under_way >= 10:
                ten.set()
            ten.wait(timeout=60)
        return "fine"

    server = serve(answer)
    asked = engine(server.url, timeout_s=120, concurrency=12)
    for _ in asked.generate([request(n, images=(Watched(n),)) for n in range(150)]):
        with lock:
            reading["done"] += 1
    assert server.most <= 12
    assert server.most >= 10  # it grew from 8
    # A seat is given on just before its response is counted here, so the next image may be read in between.
    assert max(most) <= 12 + 1


def test_a_server_that_bears_two_at_once_gets_two(serve: Serve) -> None:
    def strict(call: Any) -> Any:
        if server.under_way > 2:
            return Http(429, b"too many")
        time.sleep(0.02)
        return "fine"

    server = serve(strict)
    said = ask(server.url, *map(request, range(120)), concurrency=64)
    assert Counter(one.text for one in said) == {"fine": 120}
    # Without adapting, nearly all of 64 would be refused again and again; each of the 120 may be refused twice at most.
    refused = len(server.calls) - 120
    assert refused < 120


def test_a_wish_to_be_left_alone_is_kept_by_all_requests(serve: Serve) -> None:
    hush = [Http(429, b"later", {"Retry-After": "1"})]
    server = serve(lambda _: hush.pop() if hush else "fine")
    said = ask(server.url, *map(request, range(6)), concurrency=1)
    assert [one.text for one in said] == ["fine"] * 6
    assert server.calls[1].at - server.calls[0].at >= 1


def test_images_are_encoded_while_others_are_waited_for(serve: Serve) -> None:
    eight = threading.Barrier(8)

    def answer(call: Any) -> str:
        # Nobody is answered before eight have asked: an engine that encodes between answers would wait for ever.
        eight.wait(timeout=60)
        return "fine"

    server = serve(answer)
    asked = engine(server.url, concurrency=8, max_pixels=400_000)
    image = Bytes(png(1200, 900))
    requests = [request(k, images=(image,)) for k in range(24)]
    assert [said.text for said in asked.generate(requests)] == ["fine"] * 24


MEASURE = """
import io, resource, sys
from dataclasses import dataclass
from PIL import Image
from ahabench.harness.engines.openai import OpenAIEngine, OpenAIOptions
from ahabench.harness.sampling import Sampling
from ahabench.harness.types import Prompt, Request

@dataclass(frozen=True)
class Noise:
    content: bytes

    def read(self):
        return self.content + bytes()

buffer = io.BytesIO()
Image.effect_noise((700, 700), 80).save(buffer, "PNG")
image = Noise(buffer.getvalue())
engine = OpenAIEngine(sys.argv[1], "", sampling=Sampling(), options=OpenAIOptions(concurrency=8))
def ask(n):
    requests = [Request(item_id=str(k), sample_index=0, prompt=Prompt(text="?"), images=(image,)) for k in range(n)]
    assert sum(said.text is not None for said in engine.generate(requests)) == n
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(len(image.content) // 1024, ask(40), ask(400))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_items(serve: Serve, tmp_path: Path) -> None:
    server = serve(keep_calls=False)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, server.url], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0, done.stderr
    image_kb, few_mb, many_mb = map(int, done.stdout.split())
    assert image_kb > 300
    # 400 images would be more than 150 MB as data URIs.
    assert many_mb - few_mb < 30


# Being stopped.


def test_closing_the_iterator_early_gives_up_what_is_under_way(serve: Serve) -> None:
    server = serve(lambda call: "fine" if call.text == "question 0" else Hang(60))
    generating = engine(server.url, timeout_s=60).generate([request(n) for n in range(50)])
    assert next(iter(generating)).item_id == "i0"
    began = time.monotonic()
    generating.close()
    assert time.monotonic() - began < 30  # of the server's 60
    assert threads() == []


def test_an_interrupt_stops_promptly_and_leaves_nothing_behind(serve: Serve) -> None:
    import os
    import signal

    def hang(call: Any) -> Hang:
        if call.text == "question 0":
            threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()
        return Hang(60)

    asked = engine(serve(hang).url, timeout_s=60)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(asked.generate([request(n) for n in range(50)]))
    assert time.monotonic() - began < 30  # of the server's 60
    assert threads() == []


def test_an_engine_may_be_asked_again(serve: Serve) -> None:
    server = serve()
    asked = engine(server.url)
    for n in range(3):
        assert [one.item_id for one in asked.generate([request(n)])] == [f"i{n}"]
    assert list(asked.generate([])) == []
    assert threads() == []


def test_it_works_where_an_event_loop_is_running_already(serve: Serve) -> None:
    import asyncio

    server = serve()

    async def notebook() -> list[Response]:
        return list(engine(server.url).generate([request()]))

    assert asyncio.run(notebook())[0].text == "answer to question 0"
