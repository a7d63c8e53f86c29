"""The transformers engine on real tiny checkpoints, against transformers called by hand, one request at a time."""

import io
import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asked import ask, picture, questions, texts
from PIL import Image

from ahabench.harness.engines.transformers import TransformersEngine
from ahabench.harness.errors import EngineError, UsageError
from ahabench.harness.images import ImageFile
from ahabench.harness.sampling import Sampling
from ahabench.harness.types import (
    Request,
    Response,
)

Make = Callable[[str], Path]
GREEDY = Sampling(max_new_tokens=16)
DRAWN = Sampling(max_new_tokens=16, temperature=1.0, top_p=0.9, top_k=40, seed=5)


def answers(path: Path, requests: Sequence[Request], sampling: Sampling = GREEDY, **options: Any) -> list[Response]:
    return list(TransformersEngine(str(path), sampling=sampling, **options).generate(requests))


def inputs_by_hand(path: Path, request: Request, **options: Any) -> Any:
    """Return the model's inputs for one request, by transformers' documented calls and nothing of ours."""
    from transformers import AutoProcessor

    front = AutoProcessor.from_pretrained(path, **options)
    pictures = [{"type": "image", "image": Image.open(io.BytesIO(image.read()))} for image in request.images]
    words = [{"type": "text", "text": request.prompt.text}]
    content: Any = words + pictures if request.prompt.image_last else pictures + words
    system: Any = [{"type": "text", "text": request.prompt.system}]
    if not hasattr(front, "image_processor"):
        content, system = request.prompt.text, request.prompt.system
    messages = [{"role": "system", "content": system}] if request.prompt.system else []
    return front.apply_chat_template(
        [*messages, {"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )


def prompt_of(path: Path, request: Request, **options: Any) -> list[int]:
    tokens: list[int] = inputs_by_hand(path, request, **options)["input_ids"][0].tolist()
    return tokens


def by_hand(path: Path, request: Request, max_new_tokens: int = 16, **options: Any) -> list[int]:
    """Return the tokens that transformers writes for one request."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor

    inputs = inputs_by_hand(path, request, **options)
    multimodal = hasattr(AutoProcessor.from_pretrained(path), "image_processor")
    loader = AutoModelForImageTextToText if multimodal else AutoModelForCausalLM
    torch.manual_seed(0)
    output = loader.from_pretrained(path).generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    return output[0, inputs["input_ids"].shape[1] :].tolist()


def decoded(path: Path, tokens: list[int]) -> str:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path).decode(tokens, skip_special_tokens=True)


# Greedy text.


@pytest.mark.parametrize("name", ["llama", "qwen", "llava"])
def test_a_batch_is_answered_as_each_request_alone(made: Make, name: str) -> None:
    path = made(name)
    images = () if name == "llama" else (picture("red", 84, 56),)
    requests = questions(5, *images)
    expected = {(request.item_id, 0): decoded(path, by_hand(path, request)) for request in requests}
    assert texts(answers(path, requests, batch_size=3)) == expected


def test_images_change_the_answer_and_stand_where_the_prompt_wants_them(made: Make) -> None:
    path, red = made("qwen"), picture("red")
    requests = [
        ask("What is it?", red, item="first"),
        ask("What is it?", red, item="last", image_last=True),
        ask("What is it?", picture("blue"), item="blue"),
        ask("What is it?", red, picture("blue"), item="both"),
        ask("What is it?", item="none"),
    ]
    found = texts(answers(path, requests))
    assert found == {(request.item_id, 0): decoded(path, by_hand(path, request)) for request in requests}
    assert len(set(found.values())) == 5


def test_text_only_leaves_the_images_out(made: Make) -> None:
    seen = ask("What is it?", picture("red"))
    engine = TransformersEngine(str(made("qwen")), sampling=GREEDY, text_only=True)
    assert engine.info.model.text_only is True
    assert texts(list(engine.generate([seen]))) == {
        ("What is it?", 0): decoded(made("qwen"), by_hand(made("qwen"), replace(seen, images=())))
    }


def test_a_causal_model_is_text_only(made: Make) -> None:
    engine = TransformersEngine(str(made("llama")), sampling=GREEDY)
    assert engine.info.model.text_only is True
    blind, seeing = engine.generate([ask("Hm?", item="a"), ask("Hm?", ImageFile(Path("gone.png")), item="b")])
    assert blind.text == seeing.text


def test_a_repetition_penalty_is_applied(made: Make) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path, request = made("llama"), ask("Say it again.")
    tokenizer = AutoTokenizer.from_pretrained(path)
    messages = [{"role": "user", "content": "Say it again."}]
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    model = AutoModelForCausalLM.from_pretrained(path)
    with torch.no_grad():
        output = model.generate(**inputs, max_new_tokens=16, do_sample=False, repetition_penalty=1.8)
    expected = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    (response,) = answers(path, [request], replace(GREEDY, repetition_penalty=1.8))
    assert response.text == expected
    assert response.text != answers(path, [request])[0].text


def test_settings_that_the_checkpoint_brings_do_not_change_the_answer(made: Make, tmp_path: Path) -> None:
    path = shutil.copytree(made("llama"), tmp_path / "m")
    settings = json.loads((path / "generation_config.json").read_text())
    settings |= {"do_sample": True, "temperature": 9.0, "repetition_penalty": 1.9, "max_new_tokens": 2}
    (path / "generation_config.json").write_text(json.dumps(settings))
    assert texts(answers(path, questions(3))) == texts(answers(made("llama"), questions(3)))


# Where a text ends.


def test_a_text_that_the_model_ends_is_stopped_and_counted_with_its_end(made: Make, tmp_path: Path) -> None:
    request = ask("When does it end?")
    tokens = by_hand(made("llama"), request)
    # Declare the first token that the model has not written before, from the fourth on, to be the end of a text.
    place = next(n for n in range(3, 16) if tokens[n] not in tokens[:n])
    path = shutil.copytree(made("llama"), tmp_path / "m")
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [3000, tokens[place]]}))
    (response,) = answers(path, [request])
    assert response == Response(
        item_id="When does it end?",
        text=decoded(path, tokens[:place]),
        finish_reason="stop",
        completion_tokens=place + 1,
        prompt_tokens=len(prompt_of(path, request)),
        image_sizes=(),
    )


def test_a_text_that_is_cut_off_says_so(made: Make) -> None:
    (response,) = answers(made("llama"), [ask("Go on.")], Sampling(max_new_tokens=7))
    assert (response.finish_reason, response.completion_tokens) == ("length", 7)


def test_a_text_ends_where_the_models_context_does(made: Make) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(made("llama"))
    nothing = [{"role": "user", "content": ""}]
    frame = len(tokenizer.apply_chat_template(nothing, add_generation_prompt=True, return_dict=True)["input_ids"])
    requests = [ask("x" * (512 - frame - room), item=str(room)) for room in (5, 12, 0)] + [ask("short")]
    found = {response.item_id: response for response in answers(made("llama"), requests, batch_size=4)}
    assert (found["5"].completion_tokens, found["5"].finish_reason) == (5, "length")
    assert found["12"].completion_tokens == 12
    assert found["short"].completion_tokens == 16
    assert found["0"].text is None
    assert found["0"].error == "the prompt leaves no room for an answer in the model's context of 512 tokens"
    assert found["5"].text == answers(made("llama"), requests[:1])[0].text


# Drawn text.


def test_a_drawn_text_does_not_depend_on_its_batch(made: Make) -> None:
    requests = [replace(request, sample_index=s) for request in questions(4) for s in range(2)]
    engine = TransformersEngine(str(made("llama")), sampling=DRAWN, batch_size=1)
    alone = texts(list(engine.generate(requests)))
    assert texts(answers(made("llama"), requests, DRAWN, batch_size=5)) == alone
    # As after an interruption: the rest, in another order.
    assert texts(list(engine.generate(requests[:2:-1]))).items() <= alone.items()


def test_samples_seeds_and_items_draw_different_texts(made: Make) -> None:
    engine = TransformersEngine(str(made("llama")), sampling=DRAWN)
    same = [ask("Hm?", item=item, sample=sample) for item in ("a", "b") for sample in range(3)]
    first = list(engine.generate(same))
    assert len({response.text for response in first}) == 6
    other = answers(made("llama"), same, replace(DRAWN, seed=6))
    assert not {response.text for response in first} & {response.text for response in other}


def test_a_top_k_of_one_is_greedy(made: Make) -> None:
    near_greedy = Sampling(max_new_tokens=16, temperature=0.01, top_p=0.001, top_k=1)
    assert texts(answers(made("llama"), questions(4), near_greedy)) == texts(answers(made("llama"), questions(4)))


# Pixels.


@pytest.mark.filterwarnings("ignore:Passing `min_pixels`:FutureWarning")
@pytest.mark.parametrize("limits", [{"max_pixels": 4 * 784}, {"min_pixels": 20 * 784, "max_pixels": 64 * 784}])
def test_pixel_limits_resize_the_images(made: Make, limits: dict[str, int]) -> None:
    request = ask("What is it?", picture("green", 112, 112))  # 16 patches of 784 pixels
    engine = TransformersEngine(str(made("qwen")), sampling=GREEDY, **limits)
    assert engine.info.pixels.min == limits.get("min_pixels", 784)
    assert engine.info.pixels.max == limits["max_pixels"]
    (response,) = engine.generate([request])
    assert response.text == decoded(made("qwen"), by_hand(made("qwen"), request, **limits))
    assert response.text != answers(made("qwen"), [request])[0].text


def test_the_checkpoints_own_pixel_limits_are_recorded(made: Make) -> None:
    pixels = TransformersEngine(str(made("qwen")), sampling=GREEDY).info.pixels
    assert (pixels.min, pixels.max) == (28 * 28, 64 * 28 * 28)


def test_pixel_limits_for_a_processor_without_them_are_refused(made: Make) -> None:
    with pytest.raises(EngineError, match=r"the processor of \S+/llava \(CLIPImageProcessor\) has no pixel limits"):
        TransformersEngine(str(made("llava")), sampling=GREEDY, max_pixels=10_000)


def test_pixel_limits_that_cross_are_refused(made: Make) -> None:
    with pytest.raises(EngineError, match="to at least 99999 and at most 50176 pixels"):
        TransformersEngine(str(made("qwen")), sampling=GREEDY, min_pixels=99_999)


def test_a_response_says_how_long_its_prompt_was_and_how_large_its_images(made: Make) -> None:
    # Sides become multiples of 28 (14 px patches, merged 2 x 2).
    requests = [
        ask("one", picture("red", 100, 56)),
        ask("two", picture("red", 56, 56), picture("blue", 30, 90)),
        ask("none"),
    ]
    found = {response.item_id: response for response in answers(made("qwen"), requests)}
    assert {item: response.image_sizes for item, response in found.items()} == {
        "one": ((112, 56),),
        "two": ((56, 56), (28, 84)),
        "none": (),
    }
    for request in requests:
        assert found[request.item_id].prompt_tokens == len(prompt_of(made("qwen"), request))


def test_a_processor_of_fixed_sizes_tells_them_too(made: Make) -> None:
    (response,) = answers(made("llava"), [ask("What?", picture("red", 90, 60))])
    assert response.image_sizes == ((28, 28),)


# What the engine says of itself, and what it refuses.


def test_the_engine_describes_itself_without_loading_weights(made: Make, tmp_path: Path) -> None:
    import transformers

    path = shutil.copytree(made("llama"), tmp_path / "m")
    weights = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(weights[:1000])
    engine = TransformersEngine(str(path), sampling=DRAWN)
    assert engine.info.engine.model_dump() == {
        "name": "transformers",
        "version": transformers.__version__,
        "device": "cpu",
        "dtype": "float32",
        "url": None,
        "options": {},
    }
    assert engine.info.sampling.temperature == 1.0
    assert engine.info.sampling.top_k == 40
    assert list(engine.generate([])) == []
    with pytest.raises(EngineError, match=r"cannot be loaded: \S*Error"):
        list(engine.generate([ask("Hm?")]))


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"text_only": False}, EngineError, "takes no images (LlamaConfig)"),
        ({"device": "cuda:7"}, EngineError, "the device 'cuda:7' cannot be used"),
        ({"device": "toaster"}, EngineError, "the device 'toaster' cannot be used"),
        ({"dtype": "float61"}, UsageError, "unknown dtype 'float61'. Did you mean 'float16'?"),
        ({"batch_size": 0}, UsageError, "the batch size is 0, wanted at least 1"),
        ({"revision": "main"}, EngineError, "has no revision 'main'"),
    ],
)
def test_an_option_that_does_not_fit_is_refused(
    made: Make, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as raised:
        TransformersEngine(str(made("llama")), sampling=GREEDY, **options)
    assert message in str(raised.value)


def test_half_precision_is_recorded_and_used(made: Make) -> None:
    engine = TransformersEngine(str(made("qwen")), sampling=GREEDY, dtype="bfloat16")
    assert engine.info.engine.dtype == "bfloat16"
    (response,) = engine.generate([ask("What is it?", picture("red"))])
    assert response.completion_tokens == 16


def test_pixel_limits_without_images_are_told_to_change_nothing(made: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "ahabench"):
        TransformersEngine(str(made("llama")), sampling=GREEDY, max_pixels=100)
    assert "their pixel limits change nothing" in caplog.text
