"""The engine for servers against a real `vllm serve` of a real, tiny, untrained checkpoint."""

import io
from dataclasses import dataclass
from pathlib import Path

import pytest

from ahabench.harness.engines.openai import OpenAIEngine, OpenAIOptions
from ahabench.harness.engines.transformers import TransformersEngine
from ahabench.harness.errors import EngineError
from ahabench.harness.sampling import Sampling
from ahabench.harness.types import Prompt, Request, Response

pytestmark = pytest.mark.engines

GREEDY = Sampling(max_new_tokens=12)
PATCH = 28


@dataclass(frozen=True)
class Picture:
    """Ramps of colour, as PNG."""

    width: int
    height: int

    def read(self) -> bytes:
        from PIL import Image

        ramp = Image.linear_gradient("L").resize((self.width, self.height))
        picture = Image.merge("RGB", (ramp, ramp.rotate(180), ramp.transpose(Image.Transpose.FLIP_LEFT_RIGHT)))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return buffer.getvalue()


@pytest.fixture(autouse=True)
def _without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def request(
    name: str, text: str = "How many?", *images: Picture, sample: int = 0, system: str | None = None
) -> Request:
    return Request(item_id=name, sample_index=sample, prompt=Prompt(text=text, system=system), images=images)


def ask(
    url: str, *requests: Request, sampling: Sampling = GREEDY, max_pixels: int | None = None
) -> dict[tuple[str, int], Response]:
    engine = OpenAIEngine(
        url, "tiny", sampling=sampling, max_pixels=max_pixels, options=OpenAIOptions(timeout_s=60, attempts=2)
    )
    return {(said.item_id, said.sample_index): said for said in engine.generate(requests)}


def test_greedy_text_and_counts_are_those_of_the_checkpoint_in_process(vllm_server: str, tiny_vlm: Path) -> None:
    asked = [
        request("plain"),
        request("system", "What is 2 + 2?", system="Think first."),
        request("picture", "What is it?", Picture(56, 84)),
        request("two", "Which is larger?", Picture(84, 84), Picture(56, 56)),
    ]
    served = ask(vllm_server, *asked)
    engine = TransformersEngine(str(tiny_vlm), sampling=GREEDY, dtype="float32", device="cpu")
    local = {(said.item_id, said.sample_index): said for said in engine.generate(asked)}
    for key, said in served.items():
        assert said.error is None
        # Bytes that are no whole character yet are kept back by vLLM, where the text ends, and written as U+FFFD here.
        assert str(said.text).rstrip("\ufffd") == str(local[key].text).rstrip("\ufffd"), key
        assert said.finish_reason == local[key].finish_reason
        assert said.completion_tokens == local[key].completion_tokens
        assert said.prompt_tokens == local[key].prompt_tokens


def test_an_image_is_read_at_the_size_that_is_recorded(vllm_server: str) -> None:
    picture = Picture(280, 140)
    bare = ask(vllm_server, request("bare"))["bare", 0]
    small = ask(vllm_server, request("small", "How many?", picture), max_pixels=20 * PATCH**2)["small", 0]
    # 50 patches are 2.5 times too many: edges / 1.58 are 177 and 88.5, so 6 and 3 patches.
    assert small.image_sizes == ((6 * PATCH, 3 * PATCH),)
    assert bare.prompt_tokens is not None
    # One token per patch, and one before and behind them.
    assert small.prompt_tokens == bare.prompt_tokens + 18 + 2


def test_the_samples_of_an_item_differ_and_come_again(vllm_server: str) -> None:
    sampling = Sampling(max_new_tokens=12, temperature=1.0, seed=7)
    asked = [request(name, sample=sample) for name in ("a", "b") for sample in range(3)]
    first = {key: said.text for key, said in ask(vllm_server, *asked, sampling=sampling).items()}
    assert len(set(first.values())) == 6
    # Alone, as when an interrupted run goes on.
    assert ask(vllm_server, asked[4], sampling=sampling)["b", 1].text == first["b", 1]


def test_top_k_reaches_the_server(vllm_server: str) -> None:
    only_the_likeliest = Sampling(max_new_tokens=12, temperature=1.0, top_k=1)
    drawn = ask(vllm_server, request("a"), sampling=only_the_likeliest)
    assert drawn["a", 0].text == ask(vllm_server, request("a"))["a", 0].text


def test_a_prompt_beyond_the_context_is_an_error_of_its_item_alone(vllm_server: str) -> None:
    # One token per byte, and a context of 4,096.
    said = ask(vllm_server, request("long", "x" * 5000), request("short"))
    assert said["short", 0].text is not None
    assert said["long", 0].text is None
    assert "HTTP 400" in str(said["long", 0].error)
    assert "4096" in str(said["long", 0].error)


def test_the_record_names_vllm_and_its_version(vllm_server: str) -> None:
    import vllm

    info = OpenAIEngine(vllm_server, "", sampling=GREEDY).info
    assert info.model.name == "tiny"
    assert info.engine.version == f"vllm {vllm.__version__}"
    assert info.engine.options == {"extended": "true"}


def test_a_model_that_is_not_served_is_refused(vllm_server: str) -> None:
    with pytest.raises(EngineError, match="does not serve 'large'; it serves tiny"):
        OpenAIEngine(vllm_server, "large", sampling=GREEDY)


def test_more_requests_than_the_server_takes_at_once_are_all_answered(vllm_server: str) -> None:
    picture = Picture(56, 56)
    asked = [request(f"i{n}", f"Count to {n}.", *([picture] if n % 3 == 0 else [])) for n in range(96)]
    said = ask(vllm_server, *asked, sampling=Sampling(max_new_tokens=4))
    assert [one.error for one in said.values()] == [None] * 96
    assert len(said) == 96
