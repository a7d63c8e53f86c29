"""The engine vllm on real tiny checkpoints, against the engine transformers: the same texts, tokens and sizes."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asked import Picture, additions, ask, picture
from PIL import Image

from ahabench.harness.engines import open_engine
from ahabench.harness.engines.transformers import TransformersEngine
from ahabench.harness.engines.vllm import VllmEngine, VllmOptions
from ahabench.harness.errors import EngineError
from ahabench.harness.images import ImageFile
from ahabench.harness.runlog import read_responses
from ahabench.harness.runner import run
from ahabench.harness.sampling import Sampling
from ahabench.harness.types import Request, Response

pytestmark = pytest.mark.engines

GREEDY = Sampling(max_new_tokens=16)
DRAWN = Sampling(max_new_tokens=16, temperature=1.0, top_p=0.9, top_k=40, seed=5)


def by_key(responses: Sequence[Response]) -> dict[tuple[str, int], Response]:
    return {(response.item_id, response.sample_index): response for response in responses}


def vllm(path: Path, options: Mapping[str, str], sampling: Sampling = GREEDY, **limits: int) -> VllmEngine:
    return VllmEngine(str(path), sampling=sampling, options=VllmOptions.model_validate(dict(options)), **limits)


def answers(engine: VllmEngine, requests: Sequence[Request]) -> dict[tuple[str, int], Response]:
    try:
        return by_key(list(engine.generate(requests)))
    finally:
        engine.close()


def transformers(path: Path, requests: Sequence[Request], **options: Any) -> dict[tuple[str, int], Response]:
    return by_key(list(TransformersEngine(str(path), sampling=GREEDY, **options).generate(requests)))


PICTURED = [
    *(ask(f"{n} x" + "y" * 5 * n, picture("red", 84 + 9 * n, 56), item=str(n)) for n in range(6)),
    ask("none"),
    ask("both", picture("red"), picture("blue", 112, 56)),
    ask("last", picture("green", 200, 300), image_last=True, system="Be brief."),
]


@pytest.fixture(scope="module")
def greedy(tiny_vlm: Path, cpu_options: dict[str, str]) -> Iterator[VllmEngine]:
    engine = vllm(tiny_vlm, cpu_options)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def drawn(tiny_vlm: Path, cpu_options: dict[str, str]) -> Iterator[VllmEngine]:
    engine = vllm(tiny_vlm, cpu_options, DRAWN)
    yield engine
    engine.close()


# Greedy text.


def test_greedy_responses_are_those_of_transformers_to_the_token_and_the_pixel(
    greedy: VllmEngine, tiny_vlm: Path
) -> None:
    assert by_key(list(greedy.generate(PICTURED))) == transformers(tiny_vlm, PICTURED)


def test_a_second_generation_uses_the_model_that_is_loaded(greedy: VllmEngine) -> None:
    first = by_key(list(greedy.generate(PICTURED[:2])))
    assert by_key(list(greedy.generate(PICTURED[:2]))) == first


def test_more_requests_than_fit_in_the_window_are_all_answered_once(
    tiny_vlm: Path, cpu_options: dict[str, str]
) -> None:
    engine = vllm(tiny_vlm, cpu_options | {"max_num_seqs": "2"})
    requests = [ask(f"{n}?", *([picture("red")] if n % 3 else []), item=str(n)) for n in range(80)]
    try:
        responses = list(engine.generate(requests))
    finally:
        engine.close()
    assert sorted(int(response.item_id) for response in responses) == list(range(80))
    few = [requests[n] for n in (0, 1, 40, 79)]
    assert {key: by_key(responses)[key] for key in ((r.item_id, 0) for r in few)} == transformers(tiny_vlm, few)


def test_two_copies_of_the_model_share_the_work(
    tiny_vlm: Path, cpu_options: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    # The offline LLM of vLLM 0.32 refuses this.
    assert answers(vllm(tiny_vlm, cpu_options | {"data_parallel_size": "2"}), PICTURED) == transformers(
        tiny_vlm, PICTURED
    )
    assert "Traceback" not in capfd.readouterr().err


def test_one_request_that_cannot_be_answered_fails_alone(greedy: VllmEngine, tiny_vlm: Path, tmp_path: Path) -> None:
    requests = [
        ask("a", picture("red")),
        ask("b", Picture(picture("red").data[:60])),
        ask("c", ImageFile(tmp_path / "gone.png")),
        ask("d", picture("red", 8000, 8)),
        ask("e" * 5000, item="e"),
        ask("f" * 5000, picture("red"), item="f"),
    ]
    found = by_key(list(greedy.generate(requests)))
    errors = {item: response.error or "" for (item, _), response in found.items() if response.finish_reason == "error"}
    assert sorted(errors) == ["b", "c", "d", "e", "f"]
    assert "image b cannot be decoded" in errors["b"]
    assert "gone.png cannot be read" in errors["c"]
    assert "aspect ratio" in errors["d"]
    assert "4096" in errors["e"]
    assert "4096" in errors["f"]
    assert found["a", 0] == transformers(tiny_vlm, requests[:1])["a", 0]


def test_a_text_ends_where_the_models_context_does(greedy: VllmEngine, tiny_vlm: Path) -> None:
    frame = next(iter(transformers(tiny_vlm, [ask("")]).values())).prompt_tokens or 0
    request = ask("x" * (4096 - frame - 5), item="five")
    (response,) = greedy.generate([request])
    assert (response.prompt_tokens, response.completion_tokens, response.finish_reason) == (4091, 5, "length")


def test_pixel_limits_resize_as_in_transformers(tiny_vlm: Path, cpu_options: dict[str, str]) -> None:
    request = ask("What is it?", picture("green", 112, 112))
    engine = vllm(tiny_vlm, cpu_options, max_pixels=4 * 784)
    assert engine.info.pixels.max == 4 * 784
    found = answers(engine, [request])
    assert found["What is it?", 0].image_sizes == ((56, 56),)
    assert found == transformers(tiny_vlm, [request], max_pixels=4 * 784)


def test_text_only_leaves_the_images_out(tiny_vlm: Path, cpu_options: dict[str, str]) -> None:
    engine = vllm(tiny_vlm, cpu_options | {"text_only": "true"})
    assert engine.info.model.text_only is True
    assert answers(engine, PICTURED[:2]) == transformers(tiny_vlm, PICTURED[:2], text_only=True)


def test_a_text_that_the_model_ends_is_stopped_and_counted_with_its_end(
    tiny_vlm: Path, cpu_options: dict[str, str], tmp_path: Path
) -> None:
    request = ask("When does it end?", picture("red"))
    tokens = by_hand(tiny_vlm, request)
    # Declare the first token that the model has not written before, from the third on, to be the end of a text.
    place = next(n for n in range(2, 16) if tokens[n] not in tokens[:n])
    path = shutil.copytree(tiny_vlm, tmp_path / "m")
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [3000, tokens[place]]}))
    found = answers(vllm(path, cpu_options), [request])
    response = found["When does it end?", 0]
    assert (response.finish_reason, response.completion_tokens) == ("stop", place + 1)
    assert found == transformers(path, [request])


def by_hand(path: Path, request: Request) -> list[int]:
    """Return the tokens that transformers writes, by its documented calls."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(path)
    pictures = [{"type": "image", "image": Image.open(io.BytesIO(image.read()))} for image in request.images]
    messages = [{"role": "user", "content": [*pictures, {"type": "text", "text": request.prompt.text}]}]
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    output = AutoModelForImageTextToText.from_pretrained(path).generate(**inputs, max_new_tokens=16, do_sample=False)
    tokens: list[int] = output[0, inputs["input_ids"].shape[1] :].tolist()
    return tokens


# Drawn text.


def share_equal(found: Mapping[tuple[str, int], Response], among: Mapping[tuple[str, int], Response]) -> float:
    return sum(among[key] == response for key, response in found.items()) / len(found)


NEARLY_ALL = 0.9
"""Of drawn texts: what else is in a batch changes vLLM's sums in their last bits, and a draw at a tie falls either way.

Without seeds of their own none would be equal.
"""


def test_a_drawn_text_does_not_depend_on_its_batch(drawn: VllmEngine) -> None:
    requests = [replace(one, sample_index=sample) for one in PICTURED[:4] for sample in range(6)]
    together = by_key(list(drawn.generate(requests)))
    # As after an interruption: the rest, in another order.
    assert share_equal(by_key(list(drawn.generate(requests[:2:-1]))), together) >= NEARLY_ALL


def test_samples_and_items_draw_different_texts(drawn: VllmEngine) -> None:
    same = [ask("Hm?", item=item, sample=sample) for item in ("a", "b") for sample in range(3)]
    assert len({response.text for response in drawn.generate(same)}) == 6


def test_a_generation_that_is_left_early_disturbs_no_later_one(drawn: VllmEngine) -> None:
    requests = [ask(f"{n}?", item=str(n)) for n in range(40)]
    whole = by_key(list(drawn.generate(requests)))
    left = drawn.generate(requests)
    next(left)
    left.close()  # type: ignore[attr-defined]
    assert share_equal(by_key(list(drawn.generate(requests[5:25]))), whole) >= NEARLY_ALL


# What trainers write.


def test_a_lora_adapter_is_applied(tiny_vlm: Path, cpu_options: dict[str, str], tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "lora", tiny_vlm, r".*language_model.*\.(q_proj|v_proj|down_proj)")
    engine = vllm(adapter, cpu_options)
    assert engine.info.model.adapter == f"lora on {tiny_vlm}"
    found = answers(engine, PICTURED[:4])
    assert found == transformers(adapter, PICTURED[:4])
    assert found != transformers(tiny_vlm, PICTURED[:4])


def test_an_adapter_of_the_vision_tower_is_applied_too(
    tiny_vlm: Path, cpu_options: dict[str, str], tmp_path: Path
) -> None:
    adapter = save_adapter(tmp_path / "lora", tiny_vlm, "all-linear")
    found = answers(vllm(adapter, cpu_options), PICTURED[:4])
    assert found == transformers(adapter, PICTURED[:4])
    assert found != transformers(tiny_vlm, PICTURED[:4])


def test_an_adapter_of_which_vllm_would_ignore_a_part_is_refused(tiny_vlm: Path, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "lora", tiny_vlm, ["q_proj", "qkv"])
    base = shutil.copytree(tiny_vlm, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    # A real architecture for which vLLM 0.32 applies adapters to the language model alone.
    (base / "config.json").write_text(json.dumps(config | {"architectures": ["AriaForConditionalGeneration"]}))
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": str(base)}))
    with pytest.raises(EngineError, match=r"changes 2 tensors outside the language model, such as \S*visual\.blocks"):
        VllmEngine(str(adapter), sampling=GREEDY)


def test_sharded_safetensors_are_loaded(tiny_vlm: Path, cpu_options: dict[str, str], tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText

    path = shutil.copytree(tiny_vlm, tmp_path / "sharded", ignore=shutil.ignore_patterns("*.safetensors"))
    AutoModelForImageTextToText.from_pretrained(tiny_vlm).save_pretrained(path, max_shard_size="100KB")
    assert len(list(path.glob("model-*-of-*.safetensors"))) > 1
    assert answers(vllm(path, cpu_options), PICTURED[:2]) == transformers(tiny_vlm, PICTURED[:2])


def save_adapter(folder: Path, base: Path, modules: str | list[str]) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules=modules, init_lora_weights=False)
    get_peft_model(AutoModelForImageTextToText.from_pretrained(base), config).save_pretrained(folder)
    return folder


# What it says of itself, and what it refuses.


def test_auto_opens_vllm_and_says_why(tiny_vlm: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = open_engine("auto", str(tiny_vlm), sampling=GREEDY)
    assert isinstance(engine, VllmEngine)
    assert "engine vllm: vLLM has Qwen2_5_VLForConditionalGeneration and runs on cpu" in caplog.messages
    assert (engine.info.engine.name, engine.info.engine.device, engine.info.engine.dtype) == ("vllm", "cpu", "float32")


def test_auto_opens_transformers_for_an_architecture_that_vllm_has_not(
    tiny_vlm: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = shutil.copytree(tiny_vlm, tmp_path / "m")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"architectures": ["Qwen9ForPoetry"]}))
    assert isinstance(open_engine("auto", str(path), sampling=GREEDY), TransformersEngine)
    assert "engine transformers: vLLM has no Qwen9ForPoetry" in caplog.messages


def test_a_model_that_vllm_cannot_run_is_one_line_with_the_cause_and_what_helps(
    checkpoints: Any, cpu_options: dict[str, str], tmp_path: Path
) -> None:
    narrow = checkpoints.save_llama(tmp_path / "narrow")  # 32 columns in 2 heads: 16 each, which vLLM has no kernel for
    with pytest.raises(EngineError) as raised:
        list(vllm(narrow, cpu_options).generate([ask("Hm?")]))
    message = str(raised.value)
    assert "\n" not in message
    assert re.match(r"vLLM (died|did not start): \w+Error: .*head_dim=16.*; --engine transformers may run it", message)


def test_a_context_that_the_model_does_not_have_is_refused(tiny_vlm: Path, cpu_options: dict[str, str]) -> None:
    with pytest.raises(EngineError, match=r"vLLM did not start: .*max_model_len"):
        list(vllm(tiny_vlm, cpu_options | {"max_model_len": "100000"}).generate(PICTURED[:1]))


def test_an_engine_that_dies_is_an_error_and_starts_again(tiny_vlm: Path, cpu_options: dict[str, str]) -> None:
    import psutil

    engine = vllm(tiny_vlm, cpu_options)
    others = set(psutil.Process().children(recursive=True))
    try:
        running = engine.generate([ask(f"{n}?", item=str(n)) for n in range(200)])
        first = next(running)
        for child in set(psutil.Process().children(recursive=True)) - others:
            if "VLLM" in child.name() or "EngineCore" in child.name():
                child.kill()
        with pytest.raises(EngineError, match="vLLM died"):
            list(running)
        assert first.text is not None
        assert by_key(list(engine.generate([ask("0?", item="0")]))).keys() == {("0", 0)}
    finally:
        engine.close()


# In a run.


def test_an_interrupted_run_goes_on_where_it_stopped(drawn: VllmEngine, tmp_path: Path) -> None:
    logs = [tmp_path / name / "sums" / "responses.jsonl" for name in ("whole", "broken")]
    for log in logs:
        run(additions(n_items=9, samples=2), drawn, log.parents[1])
    lines = logs[1].read_bytes().splitlines(keepends=True)
    logs[1].write_bytes(b"".join(lines[:5]) + lines[5][:40])
    run(additions(n_items=9, samples=2), drawn, logs[1].parents[1])
    whole, broken = (by_key(list(read_responses(log))) for log in logs)
    assert len(whole) == 18
    assert whole.keys() == broken.keys()
    assert share_equal(broken, whole) >= NEARLY_ALL
    assert logs[1].read_bytes().splitlines(keepends=True)[:5] == lines[:5]


def test_the_command_generates_by_vllm_and_prints_nothing_but_its_answer_on_stdout(
    tiny_vlm: Path, cpu_options: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    toy = Path(__file__).parents[1] / "harness" / "toy"
    command = [str(Path(sys.executable).with_name("ahabench")), "eval", str(tiny_vlm), "--engine", "vllm"]
    command += ["--tasks", "toy", "--data", str(toy / "data"), "--out", str(out), "--max-new-tokens", "8", "--json"]
    command += [word for name, value in cpu_options.items() for word in ("--engine-arg", f"{name}={value}")]
    environment = {**os.environ, "PYTHONPATH": str(toy)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    (row,) = json.loads(done.stdout)
    assert row["n_items"] == 6
    manifest = json.loads((out / "run.json").read_text())
    assert (manifest["status"], manifest["engine"]["name"]) == ("complete", "vllm")
    assert "Traceback" not in done.stderr
