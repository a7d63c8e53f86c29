"""Images as a model sees them: RGB on white, upright, bounded, whatever the container."""

import io
import random
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ahabench.harness.errors import DatasetError
from ahabench.harness.images import MAX_PIXELS, ImageFile, TableImage, decode, smart_resize

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, container: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, container, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> list[Any]:
    """Return the decoded pixels, row by row from the top left."""
    image = decode(data, name="x")
    assert image.mode == "RGB"
    return [image.getpixel((x, y)) for y in range(image.height) for x in range(image.width)]


def in_row(mode: str, *values: Any) -> Image.Image:
    image = Image.new(mode, (len(values), 1))
    for x, value in enumerate(values):
        image.putpixel((x, 0), value)
    return image


def palette(*values: int) -> Image.Image:
    image = in_row("P", *values)
    image.putpalette([*RED, *BLUE])
    return image


def noise(width: int, height: int) -> Image.Image:
    return Image.frombytes("RGB", (width, height), random.Random(0).randbytes(3 * width * height))


def png_of_size(width: int, height: int) -> bytes:
    """Return a well-formed PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


# Colours.


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded(in_row("RGB", RED, BLUE)), [RED, BLUE]),
        (encoded(in_row("L", 0, 100)), [(0, 0, 0), (100, 100, 100)]),
        (encoded(in_row("1", 0, 1)), [(0, 0, 0), WHITE]),
        (encoded(palette(0, 1)), [RED, BLUE]),
        (encoded(in_row("CMYK", (0, 0, 0, 0)), "TIFF"), [WHITE]),
    ],
    ids=["colour", "grey", "black and white", "palette", "CMYK"],
)
def test_every_mode_becomes_rgb(data: bytes, expected: list[Any]) -> None:
    assert pixels(data) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded(in_row("RGBA", (*BLUE, 0), (*BLUE, 255))), [WHITE, BLUE]),
        (encoded(in_row("LA", (0, 0), (0, 255))), [WHITE, (0, 0, 0)]),
        (encoded(palette(0, 1), transparency=1), [RED, WHITE]),
        (encoded(in_row("L", 0, 100), transparency=100), [(0, 0, 0), WHITE]),
    ],
    ids=["colour", "grey", "palette", "one grey value"],
)
def test_what_is_transparent_is_white(data: bytes, expected: list[Any]) -> None:
    assert pixels(data) == expected


def test_what_is_half_transparent_is_mixed_with_white() -> None:
    # 0 * 128/255 + 255 * 127/255 = 127
    assert pixels(encoded(in_row("RGBA", (0, 0, 0, 128)))) == [(127, 127, 127)]


def test_a_colour_that_a_png_makes_transparent_is_white() -> None:
    assert pixels(encoded(in_row("RGB", RED, BLUE), transparency=BLUE)) == [RED, WHITE]


def test_sixteen_bits_of_grey_become_eight() -> None:
    # 32768 / 65535 * 255 = 127.5
    assert pixels(encoded(in_row("I;16", 0, 32768)))[1][0] in {127, 128}


# Orientation. The picture, as it should be seen:   1 2
#                                                   3 4
#                                                   5 6

UPRIGHT = [[10, 20], [30, 40], [50, 60]]

# What a camera stores under each orientation so that the viewer's turn or flip gives UPRIGHT (EXIF 2.32, tag 0x0112).
STORED: dict[int, list[list[int]]] = {
    1: [[10, 20], [30, 40], [50, 60]],
    2: [[20, 10], [40, 30], [60, 50]],  # mirrored left to right
    3: [[60, 50], [40, 30], [20, 10]],  # upside down
    4: [[50, 60], [30, 40], [10, 20]],  # mirrored top to bottom
    5: [[10, 30, 50], [20, 40, 60]],  # rows stored as columns
    6: [[20, 40, 60], [10, 30, 50]],  # to be turned clockwise
    7: [[60, 40, 20], [50, 30, 10]],
    8: [[50, 30, 10], [60, 40, 20]],  # to be turned counter-clockwise
}


@pytest.mark.parametrize("orientation", STORED)
def test_a_turned_photograph_stands_upright(orientation: int) -> None:
    rows = STORED[orientation]
    image = Image.new("L", (len(rows[0]), len(rows)))
    image.putdata([value for row in rows for value in row])
    exif = Image.Exif()
    exif[0x0112] = orientation
    seen = decode(encoded(image, exif=exif), name="x")
    assert seen.size == (2, 3)
    assert [seen.getpixel((x, y)) for y in range(3) for x in range(2)] == [(v, v, v) for row in UPRIGHT for v in row]


# Containers.


def test_the_container_is_read_from_the_bytes_and_not_from_the_name(tmp_path: Path) -> None:
    path = tmp_path / "photograph.png"
    path.write_bytes(encoded(Image.new("RGB", (16, 16), RED), "JPEG", quality=100))
    red, green, blue = pixels(ImageFile(path).read())[0]
    assert red > 250
    assert green < 5
    assert blue < 5


@pytest.mark.parametrize("container", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_common_containers_are_read(container: str) -> None:
    image = decode(encoded(Image.new("RGB", (16, 8), WHITE), container), name="x")
    assert (image.size, image.getpixel((3, 3))) == ((16, 8), WHITE)


def test_the_first_picture_of_an_animation_is_taken() -> None:
    first, second = Image.new("RGB", (4, 4), RED), Image.new("RGB", (4, 4), BLUE)
    assert pixels(encoded(first, "GIF", save_all=True, append_images=[second])) == [RED] * 16


# Refusals.


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00" * 100, b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"GIF89a", b"\x89PNG\r\n\x1a\n"],
    ids=["empty", "zeros", "SVG", "a GIF's beginning", "a PNG's beginning"],
)
def test_what_is_no_image_is_an_error_with_its_name(data: bytes) -> None:
    with pytest.raises(DatasetError, match="image pid 7 cannot be decoded"):
        decode(data, name="pid 7")


@pytest.mark.parametrize("container", ["PNG", "JPEG"])
def test_an_image_that_is_cut_off_is_an_error(container: str) -> None:
    data = encoded(noise(64, 64), container)
    with pytest.raises(DatasetError, match="cannot be decoded"):
        decode(data[: len(data) // 2], name="x")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(10_001, 10_000), (20_000, 20_000), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb_is_refused_by_its_header(size: tuple[int, int]) -> None:
    assert size[0] * size[1] > MAX_PIXELS
    with pytest.raises(DatasetError, match=r"pixels|bomb"):
        decode(png_of_size(*size), name="x")


def flip(data: bytearray, rng: random.Random) -> bytes:
    """Return the bytes with a few of them changed, mostly in the header, and sometimes cut off."""
    for _ in range(rng.randint(1, 6)):
        data[rng.randrange(min(len(data), 300))] = rng.randrange(256)
    return bytes(data[: rng.randrange(len(data))] if rng.random() < 0.2 else data)


@pytest.mark.parametrize("container", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_damaged_bytes_give_an_image_or_an_error_and_nothing_else(container: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif} if container in {"PNG", "JPEG", "WEBP"} else {}
    whole = encoded(noise(40, 30), container, **options)
    rng = random.Random(container)
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(400):
            try:
                assert decode(flip(bytearray(whole), rng), name="x").mode == "RGB"
            except DatasetError:
                refused += 1
    assert refused > 0


# Where the bytes come from.


def test_a_missing_file_is_an_error_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"gone\.png cannot be read: No such file"):
        ImageFile(tmp_path / "gone.png").read()


def cells(tmp_path: Path) -> list[tuple[str, Any, bytes]]:
    data = encoded(in_row("RGB", RED))
    (tmp_path / "cell.png").write_bytes(data)
    return [
        ("bytes", {"bytes": data, "path": None}, data),
        ("path", {"bytes": None, "path": str(tmp_path / "cell.png")}, data),
    ]


def test_a_cell_holds_bytes_or_a_path(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    for name, cell, expected in cells(tmp_path):
        table = datasets.Dataset.from_dict({"image": [cell]}).cast_column("image", datasets.Image(decode=False))
        assert TableImage(table, 0, "image").read() == expected, name


def test_an_empty_cell_is_an_error_with_its_row() -> None:
    with pytest.raises(DatasetError, match="row 1 has no image in column 'image'"):
        TableImage([{"image": {}}, {"image": None}], 1, "image").read()


def test_every_image_at_hand_decodes(data: Path) -> None:
    paths = [path for path in sorted(data.rglob("*")) if path.suffix in {".png", ".jpg", ".jpeg"}]
    assert len(paths) > 3000
    for path in paths[::40]:
        assert decode(path.read_bytes(), name=path.name).mode == "RGB"


# Resizing as Qwen's processors do.


@pytest.mark.parametrize(
    ("size", "limits", "wanted"),
    [
        pytest.param((56, 84), (0, 10**9), (56, 84), id="multiples of 28"),
        pytest.param((60, 100), (0, 10**9), (56, 112), id="to the nearest: 2.14 and 3.57 patches"),
        # 10,000 px are 12.8 patches; edges / 1.26 are 79.2, so 2 patches each.
        pytest.param((100, 100), (0, 8 * 784), (56, 56), id="shrunk, rounded down"),
        # Edges x 1.77 are 177.1, so 7 patches each.
        pytest.param((100, 100), (40 * 784, 60 * 784), (196, 196), id="grown, rounded up"),
        pytest.param((3, 2000), (0, 10**9), (28, 1988), id="no edge below a patch, and 71.4 patches"),
    ],
)
def test_sizes_are_multiples_of_a_patch_within_the_limits(
    size: tuple[int, int], limits: tuple[int, int], wanted: tuple[int, int]
) -> None:
    assert smart_resize(*size, min_pixels=limits[0], max_pixels=limits[1]) == wanted


def test_sizes_are_those_of_transformers() -> None:
    module = pytest.importorskip("transformers.models.qwen2_vl.image_processing_qwen2_vl")
    draw = random.Random(0)
    for _ in range(5000):
        low = draw.randint(784, 2_000_000)
        high = draw.randint(low, 6_000_000)
        width, height = draw.randint(16, 3000), draw.randint(16, 3000)
        theirs = module.smart_resize(height, width, factor=28, min_pixels=low, max_pixels=high)
        assert smart_resize(width, height, min_pixels=low, max_pixels=high) == theirs[::-1]


def test_a_size_that_it_gives_is_left_alone_by_it() -> None:
    draw = random.Random(1)
    for _ in range(2000):
        size = smart_resize(draw.randint(30, 3000), draw.randint(30, 3000), min_pixels=50_000, max_pixels=500_000)
        assert smart_resize(*size, min_pixels=3136, max_pixels=12_845_056) == size
