"""Images as servers get them."""

import base64
import io
from typing import Any

import pytest
from PIL import Image

from ahabench.harness.engines import data_uri as module
from ahabench.harness.engines.data_uri import SentImage, data_uri
from ahabench.harness.errors import DatasetError


def encoded(picture: Image.Image, format: str, **save: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **save)
    return buffer.getvalue()


def noise(width: int, height: int) -> Image.Image:
    return Image.merge("RGB", [Image.effect_noise((width, height), 80) for _ in range(3)])


def send(data: bytes, low: int | None = None, high: int | None = None) -> SentImage:
    return data_uri(data, name="it", min_pixels=low, max_pixels=high)


def content(sent: SentImage) -> tuple[str, bytes]:
    head, _, rest = sent.uri.partition(";base64,")
    return head, base64.b64decode(rest, validate=True)


@pytest.mark.parametrize(("format", "mime"), [("PNG", "png"), ("JPEG", "jpeg"), ("WEBP", "webp")])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_plain_image_goes_as_its_own_bytes(format: str, mime: str, mode: str) -> None:
    data = encoded(noise(31, 17).convert(mode), format)
    sent = send(data)
    assert content(sent) == (f"data:image/{mime}", data)
    assert (sent.width, sent.height) == (31, 17)


@pytest.mark.parametrize("format", ["BMP", "TIFF", "GIF"])
def test_a_format_that_servers_refuse_goes_as_png_without_loss(format: str) -> None:
    picture = noise(31, 17).convert("P" if format == "GIF" else "RGB")
    head, data = content(send(encoded(picture, format)))
    assert head == "data:image/png"
    assert Image.open(io.BytesIO(data)).tobytes() == picture.convert("RGB").tobytes()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded(noise(9, 9).convert("RGBA"), "PNG"), id="alpha"),
        pytest.param(encoded(noise(9, 9).convert("P"), "PNG", transparency=3), id="transparent colour"),
        pytest.param(encoded(Image.new("I;16", (9, 9), 40_000), "PNG"), id="16 bits"),
        pytest.param(encoded(noise(9, 9).convert("CMYK"), "JPEG"), id="inks"),
    ],
)
def test_what_servers_may_read_differently_goes_as_every_engine_sees_it(data: bytes) -> None:
    head, sent = content(send(data))
    assert head == "data:image/png"
    assert Image.open(io.BytesIO(sent)).mode == "RGB"


def test_the_first_picture_of_an_animation_is_sent() -> None:
    data = encoded(noise(9, 9), "WEBP", save_all=True, append_images=[noise(9, 9)])
    head, sent = content(send(data))
    assert head == "data:image/png"
    assert getattr(Image.open(io.BytesIO(sent)), "n_frames", 1) == 1


@pytest.mark.parametrize(("low", "high"), [(None, 99), (101, None), (1, 99), (101, 500)])
def test_an_area_outside_the_limits_is_brought_within_them(low: int | None, high: int | None) -> None:
    # The smallest size in patches is 28 x 28; limits below that cannot be kept.
    scale = 28 * 28
    sent = send(encoded(noise(280, 280), "PNG"), low and low * scale, high and high * scale)
    area = sent.width * sent.height / scale
    assert (low or 0) <= area <= (high or area)
    assert (sent.width % 28, sent.height % 28) == (0, 0)
    assert Image.open(io.BytesIO(content(sent)[1])).size == (sent.width, sent.height)


def test_an_area_at_a_limit_is_within_it() -> None:
    data = encoded(noise(100, 100), "PNG")
    assert content(send(data, 10_000, 10_000))[1] == data


def test_a_resized_image_is_the_picture_still() -> None:
    halves = Image.new("RGB", (560, 280), "red")
    halves.paste("blue", (280, 0, 560, 280))
    sent = Image.open(io.BytesIO(content(send(encoded(halves, "PNG"), high=50_000))[1]))
    assert sent.getpixel((5, 5)) == (255, 0, 0)
    assert sent.getpixel((sent.width - 5, 5)) == (0, 0, 255)


def test_a_png_that_would_be_too_long_goes_as_jpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PNG_BYTES", 10_000)
    head, data = content(send(encoded(noise(300, 300), "BMP")))
    assert head == "data:image/jpeg"
    assert Image.open(io.BytesIO(data)).size == (300, 300)


def test_an_image_that_is_cut_off_is_refused() -> None:
    with pytest.raises(DatasetError, match="it cannot be decoded"):
        send(encoded(noise(90, 90), "PNG")[:3000])
