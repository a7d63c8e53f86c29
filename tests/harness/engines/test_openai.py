"""The engine for servers against a real HTTP server on this machine: what is asked, and what is read."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from served import Bytes, Serve, ask, engine, png, request, sent_image
from unruly_server import MODEL, Http, completion

from ahabench.harness.engines.sampler import row_seed
from ahabench.harness.images import ImageFile
from ahabench.harness.sampling import Sampling
from ahabench.harness.types import Response

# What is asked.


def test_a_response_has_the_servers_text_finish_reason_and_counts_of_tokens(serve: Serve) -> None:
    server = serve(lambda _: completion("42", finish_reason="length"))
    assert ask(server.url) == [
        Response(item_id="i0", text="42", finish_reason="length", completion_tokens=3, prompt_tokens=7, image_sizes=())
    ]


def test_a_greedy_request_has_only_fields_that_every_server_takes(serve: Serve) -> None:
    server = serve()
    ask(server.url, request(system="Think."), sampling=Sampling(max_new_tokens=99))
    assert server.calls[0].body == {
        "model": MODEL,
        "messages": [{"role": "system", "content": "Think."}, {"role": "user", "content": "question 0"}],
        "temperature": 0,
        "max_tokens": 99,
    }


def test_sampling_is_sent_as_it_was_asked_for(serve: Serve) -> None:
    server = serve()
    sampling = Sampling(temperature=0.5, top_p=0.9, top_k=20, repetition_penalty=1.05, seed=3)
    ask(server.url, sampling=sampling)
    body = server.calls[0].body
    names = ("temperature", "top_p", "top_k", "repetition_penalty")
    assert [body[name] for name in names] == [0.5, 0.9, 20, 1.05]
    assert "min_p" not in body


def test_vllm_is_told_also_what_changes_nothing_since_it_would_take_the_models_own_settings(
    serve: Serve,
) -> None:
    server = serve(owner="vllm", version="0.32.0")
    ask(server.url)
    body = server.calls[0].body
    names = ("temperature", "top_p", "top_k", "repetition_penalty", "min_p")
    assert [body[name] for name in names] == [0, 1, -1, 1, 0]


def test_each_sample_of_an_item_has_its_own_seed_that_does_not_depend_on_company(serve: Serve) -> None:
    server = serve()
    sampling = Sampling(temperature=1.0, seed=5)
    ask(server.url, request(1), request(2, sample=0), request(2, sample=1), sampling=sampling)
    seeds = {(call.text, call.body["seed"]) for call in server.calls}
    # The upper 31 of 64 bits: 2 ** 33 of the possible seeds share each.
    wanted = {("question 2", row_seed(5, request(2, sample=s)) // 2**33) for s in (0, 1)}
    assert len(seeds) == 3
    assert wanted < seeds
    assert all(0 <= seed < 2**31 for _, seed in seeds)


def test_images_precede_the_text_or_follow_it_as_the_prompt_says(serve: Serve) -> None:
    server = serve()
    picture = Bytes(png(30, 30))
    ask(server.url, request(images=(picture,)), concurrency=1)
    ask(server.url, request(images=(picture,), image_last=True), concurrency=1)
    kinds = [[part["type"] for part in call.content] for call in server.calls]
    assert kinds == [["image_url", "text"], ["text", "image_url"]]


def test_without_images_for_a_model_that_takes_none(serve: Serve) -> None:
    server = serve()
    asked = engine(server.url, text_only=True)
    (said,) = asked.generate([request(images=(Bytes(png(30, 30)),))])
    assert server.calls[0].content == "question 0"
    assert said.image_sizes == ()
    assert asked.info.model.text_only is True


def test_half_a_surrogate_pair_in_a_question_does_not_stop_it(serve: Serve) -> None:
    server = serve()
    (said,) = ask(server.url, request(text="a\ud800b"))
    assert said.text == "answer to a?b"


def test_a_server_that_wants_the_newer_name_for_the_limit_of_tokens_gets_it(serve: Serve) -> None:
    refusal = {
        "error": {
            "message": "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
            "param": "max_tokens",
        }
    }

    def answer(call: Any) -> Any:
        return Http(400, json.dumps(refusal).encode()) if "max_tokens" in call.body else "fine"

    server = serve(answer)
    said = ask(server.url, request(0), request(1), request(2), concurrency=1)
    assert [one.text for one in said] == ["fine"] * 3
    names = ["max_tokens" if "max_tokens" in call.body else "max_completion_tokens" for call in server.calls]
    assert names == ["max_tokens", *["max_completion_tokens"] * 3]


def test_a_limit_of_tokens_that_is_too_large_is_no_question_of_its_name(serve: Serve) -> None:
    said = b"'max_tokens' or 'max_completion_tokens' is too large: 9999. The maximum context length is 4096 tokens"
    server = serve(lambda _: Http(400, said))
    (response,) = ask(server.url)
    assert response.error == f"HTTP 400: {said.decode()}"
    assert len(server.calls) == 1


# Images.


def test_the_bytes_of_an_image_go_untouched_where_no_limit_is_given(serve: Serve) -> None:
    server = serve()
    files = {"image/png": png(50, 40), "image/jpeg": png(50, 40, format="JPEG"), "image/webp": png(9, 9, format="WEBP")}
    for content in files.values():
        (said,) = ask(server.url, request(images=(Bytes(content),)))
        assert said.image_sizes is None  # the server may resize it and does not say so
    assert [sent_image(call) for call in server.calls] == [
        (f"data:{mime};base64", content) for mime, content in files.items()
    ]


def test_an_image_within_the_limits_goes_untouched(serve: Serve) -> None:
    server = serve()
    content = png(100, 90)
    (said,) = ask(server.url, request(images=(Bytes(content),)), min_pixels=8000, max_pixels=10_000)
    assert sent_image(server.calls[0])[1] == content
    assert said.image_sizes == ((100, 90),)


@pytest.mark.parametrize(
    ("size", "limits", "wanted"),
    [
        # 307,200 px are 3.92 times too many: edges / 1.98 are 323 and 242, so 11 and 8 patches of 28.
        ((640, 480), (None, 78_400), (308, 224)),
        # 1,200 px are a sixth of 7,200: edges x 2.45 are 98 and 73.5, so 4 and 3 patches, rounded up.
        ((40, 30), (7_200, 78_400), (112, 84)),
    ],
)
def test_an_image_beyond_the_limits_is_resized_and_its_size_recorded(
    serve: Serve, size: tuple[int, int], limits: tuple[int | None, int], wanted: tuple[int, int]
) -> None:
    from PIL import Image

    server = serve()
    asked = engine(server.url, min_pixels=limits[0], max_pixels=limits[1])
    (said,) = asked.generate([request(images=(Bytes(png(*size)),))])
    head, content = sent_image(server.calls[0])
    assert head == "data:image/png;base64"
    assert Image.open(io.BytesIO(content)).size == wanted
    assert said.image_sizes == (wanted,)
    assert (asked.info.pixels.min, asked.info.pixels.max) == limits


def test_a_turned_or_transparent_image_goes_as_every_engine_sees_it(serve: Serve) -> None:
    from PIL import Image

    server = serve()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    turned = png(60, 20, format="JPEG", exif=exif)
    clear = io.BytesIO()
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(clear, "PNG")
    ask(server.url, request(images=(Bytes(turned),)))
    ask(server.url, request(images=(Bytes(clear.getvalue()),)))
    first, second = (Image.open(io.BytesIO(sent_image(call)[1])) for call in server.calls)
    assert first.size == (20, 60)
    assert second.convert("RGB").getpixel((4, 4)) == (255, 255, 255)


def test_an_image_that_cannot_be_read_is_an_error_of_its_item_alone(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    broken = [request(n, images=(Bytes(png(30, 30)[:200]),)) for n in range(20)]
    missing = request(20, images=(ImageFile(tmp_path / "gone.png"),))
    said = {one.item_id: one for one in ask(server.url, *broken, missing, request(21))}
    assert said["i21"].text == "answer to question 21"
    assert "cannot be decoded" in str(said["i0"].error)
    assert "gone.png" in str(said["i20"].error)
    assert len(server.calls) == 1


# What is read.


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_that_the_server_keeps_apart_is_put_before_the_content(serve: Serve, name: str) -> None:
    server = serve(lambda _: completion("\n\n4", message={name: "2 and 2"}))
    assert ask(server.url)[0].text == "<think>2 and 2</think>\n\n4"


def test_reasoning_that_was_cut_off_is_not_closed(serve: Serve) -> None:
    server = serve(lambda _: completion(None, message={"reasoning_content": "2 and"}, finish_reason="length"))
    assert ask(server.url)[0].text == "<think>2 and"


@pytest.mark.parametrize(
    ("said", "text", "reason"),
    [
        (completion("", finish_reason="stop"), "", "stop"),
        (completion(None, finish_reason="length"), "", "length"),
        (completion("4", finish_reason="MAX_TOKENS"), "4", "length"),
        (completion("4", finish_reason="end_turn"), "4", "stop"),
        (completion(None, finish_reason="content_filter"), "", "content_filter"),
        (completion(None, message={"refusal": "I will not."}), "I will not.", "stop"),
        (completion("4", finish_reason=None), "4", None),
        (completion("4", usage=None), "4", "stop"),
    ],
)
def test_what_a_model_may_do_is_a_response(serve: Serve, said: Any, text: str, reason: str | None) -> None:
    (one,) = ask(serve(lambda _: said).url)
    assert (one.text, one.finish_reason, one.error) == (text, reason, None)
