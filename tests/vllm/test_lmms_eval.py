"""The engine that runs lmms-eval's adapters, with lmms-eval itself."""

import io
import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from asked import texts
from PIL import Image
from plans import plan_of

from ahabench.harness.engines.lmms_adapter import SystemPlace, find_adapter
from ahabench.harness.engines.lmms_eval import PATIENCE, LmmsEvalEngine, LmmsEvalOptions
from ahabench.harness.engines.transformers import TransformersEngine
from ahabench.harness.errors import EngineError, UsageError
from ahabench.harness.runner import Plan, run
from ahabench.harness.sampling import Sampling
from ahabench.harness.types import AnswerType, Item, Prompt, Request

pytestmark = pytest.mark.engines

GREEDY = Sampling(max_new_tokens=12)
DRAWN = Sampling(max_new_tokens=12, temperature=1.0, top_p=0.9, seed=3)
PIXELS = {"min_pixels": 28 * 28, "max_pixels": 112 * 112}

ADAPTERS = '''
import subprocess

from lmms_eval.api.instance import GenerationResult, TokenCounts
from lmms_eval.api.model import lmms

seen = []


class Scripted(lmms):
    """Answers by the text of the request."""

    def __init__(self, pretrained="", batch_size=1, broken=False, **kwargs):
        super().__init__()
        print("a line on stdout")
        subprocess.run(["echo", "a line of a child"], check=True)
        self.broken = broken

    def generate_until(self, requests):
        return [self._answer(*request.args) for request in requests]

    def _answer(self, text, settings, doc_to_visual, doc_id, task, split):
        pictures = doc_to_visual(self.task_dict[task][split][doc_id])
        seen.append((text, dict(settings), [picture.size for picture in pictures]))
        if self.broken or "fail" in text:
            raise RuntimeError("first line\\nsecond line")
        if "exit" in text:
            raise SystemExit(1)
        if "server" in text:
            return "[LMMS_EVAL_REQUEST_FAILED after 5 retries] 503"
        if "swallow" in text:
            from loguru import logger

            logger.error("Error out of luck in generating")
            return ""
        return GenerationResult("said " + text, TokenCounts(input_tokens=7, output_tokens=2))

    def loglikelihood(self, requests):
        raise NotImplementedError

    def generate_until_multi_round(self, requests):
        raise NotImplementedError


class Talking(Scripted):
    is_simple = False

    def _answer(self, text, doc_to_messages, settings, doc_id, task, split):
        messages = doc_to_messages(self.task_dict[task][split][doc_id])
        seen.append(messages)
        return "heard"


class Own(Talking):
    def __init__(self, system_prompt="its own", **kwargs):
        super().__init__(**kwargs)
        self.system_prompt = system_prompt

    def generate_until(self, requests):
        seen.append(self.system_prompt)
        return super().generate_until(requests)
'''


@dataclass(frozen=True)
class Picture:
    data: bytes

    def read(self) -> bytes:
        return self.data


def picture(shade: int) -> Picture:
    buffer = io.BytesIO()
    Image.new("RGB", (84, 56), (shade, 0, 90)).save(buffer, "PNG")
    return Picture(buffer.getvalue())


def ask(text: str, *, system: str | None = None, sample: int = 0, image: Picture | None = None) -> Request:
    prompt = Prompt(text=text, system=system)
    return Request(item_id=text, sample_index=sample, prompt=prompt, images=(image,) if image else ())


@pytest.fixture
def adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module with adapters of ours, which lmms-eval knows as scripted, talking and own."""
    from lmms_eval.models import MODEL_REGISTRY_V2
    from lmms_eval.models.registry_v2 import ModelManifest

    name = f"adapters_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(ADAPTERS))
    monkeypatch.syspath_prepend(tmp_path)
    for manifest in (
        ModelManifest("scripted", simple_class_path=f"{name}.Scripted"),
        ModelManifest("talking", chat_class_path=f"{name}.Talking"),
        ModelManifest("own", chat_class_path=f"{name}.Own"),
    ):
        MODEL_REGISTRY_V2.register_manifest(manifest, overwrite=True)
    import importlib

    return importlib.import_module(name)


def scripted(adapter: str = "scripted", *, sampling: Sampling = GREEDY, **options: Any) -> LmmsEvalEngine:
    return LmmsEvalEngine(adapter, "some/model", sampling=sampling, options=LmmsEvalOptions(**options))


def plan(texts: Sequence[str]) -> Plan:
    """Return a benchmark of texts without pictures."""
    items = [Item(id=text, question=text, gold="", answer_type=AnswerType.TEXT) for text in texts]
    return plan_of(items, name="texts")


def rows(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "texts" / "responses.jsonl").read_text().splitlines()]


def test_its_greedy_texts_are_those_of_our_own_engine(tiny_vlm: Path) -> None:
    requests = [ask(f"what is {n}?", system="be brief" if n % 2 else None, image=picture(40 * n)) for n in range(5)]
    theirs = LmmsEvalEngine("qwen2_5_vl", str(tiny_vlm), sampling=GREEDY, **PIXELS)
    # lmms-eval's adapter has this number format hard-wired.
    ours = TransformersEngine(str(tiny_vlm), sampling=GREEDY, dtype="bfloat16", batch_size=1, **PIXELS)
    assert texts(list(theirs.generate(requests))) == texts(list(ours.generate(requests)))


def test_it_says_what_it_is_before_it_loads_anything(tiny_vlm: Path) -> None:
    options = LmmsEvalOptions(model_args="attn_implementation=eager", device="cpu")
    engine = LmmsEvalEngine("qwen2_5_vl", str(tiny_vlm), sampling=GREEDY, max_pixels=112 * 112, options=options)
    info = engine.info
    assert (info.engine.name, info.engine.version, info.engine.device) == ("lmms-eval:qwen2_5_vl", "0.7.3", "cpu")
    assert info.engine.options["attn_implementation"] == "eager"
    assert info.engine.options["system_prompt_goes_to"] == "system message"
    assert info.model.weights_digest == TransformersEngine(str(tiny_vlm), sampling=GREEDY).info.model.weights_digest
    # The adapter's own lower limit is 256 patches of 28 x 28.
    assert (info.pixels.min, info.pixels.max) == (256 * 28 * 28, 112 * 112)


def test_a_secret_in_model_args_is_not_recorded(adapters: Any) -> None:
    engine = scripted(model_args="api_key=sk-123,hf_token=hf_1,base_url=http://h/v1")
    assert engine.info.engine.options["api_key"] == engine.info.engine.options["hf_token"] == "[redacted]"
    assert engine.info.engine.options["base_url"] == "http://h/v1"


def test_each_sample_is_drawn_by_its_own_seed_whatever_else_is_asked(tiny_vlm: Path) -> None:
    requests = [ask("draw", sample=sample, image=picture(90)) for sample in range(3)]
    engine = LmmsEvalEngine("qwen2_5_vl", str(tiny_vlm), sampling=DRAWN, **PIXELS)
    together = texts(list(engine.generate(requests)))
    assert len(set(together.values())) == 3
    assert texts(list(engine.generate(requests[2:]))) == {("draw", 2): together["draw", 2]}


def test_an_image_that_cannot_be_read_is_that_requests_error(tiny_vlm: Path) -> None:
    requests = [ask("a", image=picture(1)), ask("b", image=Picture(b"no image")), ask("c", image=picture(2))]
    found = {r.item_id: r for r in LmmsEvalEngine("qwen2_5_vl", str(tiny_vlm), sampling=GREEDY).generate(requests)}
    assert [name for name, response in found.items() if response.text is not None] == ["a", "c"]
    assert "image b cannot be decoded" in (found["b"].error or "")


def test_a_simple_adapter_gets_the_system_prompt_at_the_head_of_the_text(adapters: Any) -> None:
    (response,) = scripted().generate([ask("why?", system="think", image=picture(5))])
    text, settings, sizes = adapters.seen[-1]
    assert (text, sizes) == ("think\n\nwhy?", [(84, 56)])
    assert (settings["until"], settings["max_new_tokens"], settings["do_sample"]) == ([], 12, False)
    assert (response.text, response.finish_reason) == ("said think\n\nwhy?", None)
    assert (response.completion_tokens, response.prompt_tokens) == (2, 7)


def test_a_chat_adapter_gets_a_system_message(adapters: Any) -> None:
    list(scripted("talking").generate([ask("why?", system="think", image=picture(5))]))
    system, user = adapters.seen[-1]
    assert system == {"role": "system", "content": [{"type": "text", "text": "think"}]}
    assert [part["type"] for part in user["content"]] == ["image", "text"]


def test_an_adapter_with_a_system_prompt_of_its_own_gets_ours_there_and_only_there(adapters: Any) -> None:
    requests = [ask("a", system="think"), ask("b")]
    list(scripted("own").generate(requests))
    prompts = [entry for entry in adapters.seen if isinstance(entry, str)]
    roles = [[message["role"] for message in entry] for entry in adapters.seen if not isinstance(entry, str)]
    assert prompts == ["think", "its own"]
    assert roles == [["user"], ["user"]]


@pytest.mark.parametrize(
    ("adapter", "place"),
    [
        ("qwen2_5_vl", SystemPlace.MESSAGE),
        # Puts its own system prompt before any message: with ours as a message there would be two.
        ("qwen3_vl", SystemPlace.SETTING),
        ("openai", SystemPlace.MESSAGE),
        ("claude", SystemPlace.SETTING),
        ("dummy", SystemPlace.HEAD),
    ],
)
def test_where_a_system_prompt_goes_is_read_from_the_adapter(adapter: str, place: SystemPlace) -> None:
    if adapter == "claude":
        pytest.importorskip("anthropic")
    assert find_adapter(adapter).system is place


def test_what_an_adapter_or_its_processes_print_does_not_reach_stdout(
    adapters: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    list(scripted().generate([ask("a")]))
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "a line on stdout" in captured.err
    assert "a line of a child" in captured.err


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("fail", "RuntimeError: first line"),
        ("exit", "SystemExit: 1"),
        ("server", "[LMMS_EVAL_REQUEST_FAILED after 5 retries] 503"),
        ("swallow", "nothing was generated, and the adapter logged: Error out of luck in generating"),
    ],
)
def test_one_request_that_fails_becomes_an_error_and_the_others_are_answered(
    adapters: Any, text: str, cause: str
) -> None:
    found = {r.item_id: r for r in scripted().generate([ask("a"), ask(text), ask("b"), ask("c")])}
    assert found[text].text is None
    assert found[text].error == cause
    assert [found[name].text for name in "abc"] == ["said a", "said b", "said c"]


def test_an_adapter_that_answers_nothing_stops_the_run_in_one_line(adapters: Any, tmp_path: Path) -> None:
    engine = scripted(model_args="broken=True")
    with pytest.raises(EngineError) as raised:
        run(plan(["a", "b"]), engine, tmp_path / "run")
    assert str(raised.value) == "all 2 requests failed, the last one with RuntimeError: first line"


def test_what_was_answered_before_an_adapter_broke_is_kept_and_the_run_goes_on(adapters: Any, tmp_path: Path) -> None:
    names = ["good", *(f"fail {n}" for n in range(PATIENCE)), "late"]
    with pytest.raises(EngineError, match=rf"{PATIENCE} requests in a row failed, the last one with RuntimeError"):
        run(plan(names), scripted(chunk_size=1), tmp_path / "run")
    assert [row["item_id"] for row in rows(tmp_path / "run")] == ["good"]
    with pytest.raises(EngineError):
        run(plan(names), scripted(chunk_size=1), tmp_path / "run")
    assert len([entry for entry in adapters.seen if entry[0] == "good"]) == 1


def test_rows_are_written_chunk_by_chunk(adapters: Any) -> None:
    answers = scripted(chunk_size=2).generate([ask(name) for name in "abcdef"])
    next(answers)
    assert len(adapters.seen) == 2


def test_an_adapter_that_cannot_open_its_model_says_so_in_one_line(tmp_path: Path) -> None:
    engine = LmmsEvalEngine("qwen2_5_vl", str(tmp_path), sampling=GREEDY)
    with pytest.raises(EngineError) as raised:
        list(engine.generate([ask("a")]))
    assert str(raised.value).startswith(f"the adapter 'qwen2_5_vl' of lmms-eval cannot open {tmp_path}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("adapter", "arguments", "message"),
    [
        ("qwen2_5_v", {}, "lmms-eval has no model adapter 'qwen2_5_v'. Did you mean 'qwen2_5_vl'"),
        (
            "qwen2_5_vl",
            {"sampling": Sampling(repetition_penalty=1.1)},
            "ignores repetition_penalty (1.1 was asked for)",
        ),
        ("dummy", {"max_pixels": 784}, "the adapter 'dummy' of lmms-eval has no pixel limits; take max_pixels away"),
        ("qwen2_5_vl", {"options": LmmsEvalOptions(model_args="pretrained=x")}, "model_args has pretrained"),
        ("qwen2_5_vl", {"options": LmmsEvalOptions(model_args="x")}, "model_args is 'x', wanted name=value"),
    ],
)
def test_what_an_adapter_would_ignore_is_refused(adapter: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        LmmsEvalEngine(adapter, "m", **({"sampling": GREEDY} | arguments))
    assert message in str(raised.value)


def test_a_server_is_asked_through_the_adapter_for_servers(vllm_server: str) -> None:
    options = LmmsEvalOptions(model_args=f"base_url={vllm_server},api_key=none,timeout=60,max_retries=1")
    engine = LmmsEvalEngine("openai", "tiny", sampling=GREEDY, options=options)
    (response,) = engine.generate([ask("what?", system="be brief", image=picture(7))])
    assert response.text
    assert response.completion_tokens == 12
    assert engine.info.model.weights_digest is None
