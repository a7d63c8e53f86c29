"""The transformers engine under requests that fail, too little memory, and interruptions."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from asked import Picture, additions, ask, picture, questions, texts

from ahabench.harness.engines.transformers import PATIENCE, TransformersEngine
from ahabench.harness.errors import EngineError
from ahabench.harness.images import ImageFile
from ahabench.harness.runner import run
from ahabench.harness.sampling import Sampling
from ahabench.harness.types import Request, Response

Make = Callable[[str], Path]
GREEDY = Sampling(max_new_tokens=16)
DRAWN = Sampling(max_new_tokens=16, temperature=1.0, top_p=0.9, top_k=40, seed=5)


def answers(path: Path, requests: Sequence[Request], sampling: Sampling = GREEDY, **options: Any) -> list[Response]:
    return list(TransformersEngine(str(path), sampling=sampling, **options).generate(requests))


# Interruptions.


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_an_interrupted_run_ends_with_the_responses_of_one_that_was_not(
    made: Make, tmp_path: Path, sampling: Sampling
) -> None:
    asked = additions(n_items=9, samples=2)
    logs = [tmp_path / name / "sums" / "responses.jsonl" for name in ("whole", "broken")]
    for log in logs:
        run(asked, TransformersEngine(str(made("llama")), sampling=sampling, batch_size=4), log.parents[1])
    lines = logs[1].read_bytes().splitlines(keepends=True)
    logs[1].write_bytes(b"".join(lines[:5]) + lines[5][:40])
    run(asked, TransformersEngine(str(made("llama")), sampling=sampling, batch_size=3), logs[1].parents[1])
    whole, broken = (sorted(log.read_bytes().splitlines()) for log in logs)
    assert len(whole) == 18
    assert whole == broken


# Requests that fail.


def test_an_image_that_cannot_be_read_fails_alone(made: Make, tmp_path: Path) -> None:
    broken = Picture(picture("red").data[:60])
    requests = [
        ask("a", picture("red")),
        ask("b", broken),
        ask("c", ImageFile(tmp_path / "gone.png")),
        ask("d", picture("red", 8000, 8)),  # Qwen's processor refuses sides of more than 200 to 1
        ask("e", picture("blue")),
    ]
    found = {response.item_id: response for response in answers(made("qwen"), requests)}
    assert {item: response.finish_reason for item, response in found.items() if response.text is None} == {
        "b": "error",
        "c": "error",
        "d": "error",
    }
    assert "image b cannot be decoded" in str(found["b"].error)
    assert "gone.png cannot be read" in str(found["c"].error)
    assert "aspect ratio" in str(found["d"].error)
    assert texts([found["a"]]) == texts(answers(made("qwen"), requests[:1]))


def test_a_model_that_answers_nothing_is_given_up(tmp_path: Path, llama: Callable[..., Path]) -> None:
    # The tokenizer knows tokens that the model has no embedding for.
    path = llama(tmp_path / "m", vocab_size=40, eos_token_id=1, pad_token_id=2)
    engine = TransformersEngine(str(path), sampling=GREEDY, batch_size=2)
    few = list(engine.generate(questions(PATIENCE - 1)))
    assert [response.text for response in few] == [None] * (PATIENCE - 1)
    assert "index out of range" in str(few[0].error)
    with pytest.raises(EngineError, match=f"{PATIENCE} requests in a row failed, the last one with IndexError"):
        list(engine.generate(questions(PATIENCE)))


# One MLP layer of 60,000 columns takes 240 kB a token: at 400 tokens a prompt, 100 MB a request, three times over.
_HUNGRY = """
import resource, sys
from pathlib import Path
import torch
from ahabench.harness.engines.transformers import TransformersEngine
from ahabench.harness.sampling import Sampling
from ahabench.harness.types import Prompt, Request
engine = TransformersEngine(sys.argv[1], sampling=Sampling(max_new_tokens=4), batch_size=16)
short = [Request(item_id=str(n), sample_index=0, prompt=Prompt(text=f"{n}" + "x" * 350), images=()) for n in range(16)]
long = Request(item_id="long", sample_index=0, prompt=Prompt(text="x" * 6000), images=())
list(engine.generate([Request(item_id="warm", sample_index=0, prompt=Prompt(text="x"), images=())]))
pages = int(Path("/proc/self/statm").read_text().split()[0])
if sys.argv[2] == "little":
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 1_500_000_000, resource.RLIM_INFINITY))
requests = [*short, long] if sys.argv[2] == "little" else short
for response in engine.generate(requests):
    print(response.item_id, response.completion_tokens, ascii(response.text), response.error or "")
"""


@pytest.mark.slow
def test_a_batch_too_large_for_memory_is_halved_until_it_fits(tmp_path: Path, llama: Callable[..., Path]) -> None:
    path = llama(tmp_path / "m", intermediate_size=60_000, num_hidden_layers=1, max_position_embeddings=8192)
    lines = {}
    for memory in ("much", "little"):
        command = [sys.executable, "-c", _HUNGRY, str(path), memory]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=dict(os.environ))
        assert done.returncode == 0, done.stderr
        lines[memory] = set(done.stdout.splitlines())
        if memory == "little":
            assert "out of memory with 16 requests at once: going on with 8" in done.stderr
    (failed,) = lines["little"] - lines["much"]
    assert lines["little"] - {failed} == lines["much"]
    assert failed.startswith("long None None RuntimeError: ")
    assert "memory" in failed
