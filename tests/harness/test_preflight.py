"""Which requests are the hardest, and whether the disk has room."""

import io
from pathlib import Path

import pytest
from PIL import Image

from ahabench.harness.errors import UsageError
from ahabench.harness.images import ImageFile
from ahabench.harness.preflight import Probe, check_disk, probes
from ahabench.harness.types import ImageSource, Prompt, Request


class Stored:
    """An image in a table."""

    def __init__(self, size: tuple[int, int]) -> None:
        stream = io.BytesIO()
        Image.new("L", size).save(stream, "PNG")
        self._data = stream.getvalue()

    def read(self) -> bytes:
        return self._data


def request(item_id: str, text: str, *images: ImageSource, system: str | None = None, sample: int = 0) -> Request:
    return Request(item_id=item_id, sample_index=sample, prompt=Prompt(text=text, system=system), images=images)


def owed(*requests: Request) -> dict[tuple[str, int], Request]:
    return {(one.item_id, one.sample_index): one for one in requests}


def test_the_size_counts_and_not_the_file(tmp_path: Path) -> None:
    # Noise takes more bytes than an even picture of four times its pixels.
    Image.effect_noise((50, 50), 90).save(tmp_path / "noise.png")
    Image.new("L", (100, 100)).save(tmp_path / "even.png")
    noise, even = ImageFile(tmp_path / "noise.png"), ImageFile(tmp_path / "even.png")
    assert noise.path.stat().st_size > even.path.stat().st_size
    found = probes({"t": owed(request("noise", "?", noise), request("even", "?", even), request("text", "???"))})
    assert [probe.key[0] for probe in found] == ["even", "text"]


def test_a_system_prompt_is_part_of_the_length() -> None:
    found = probes({"t": owed(request("a", "12345"), request("b", "123", system="456"))})
    assert found == [Probe(task="t", key=("b", 0), what="the longest prompt (6 characters)")]


def test_a_request_that_is_the_hardest_twice_is_asked_once() -> None:
    found = probes({"t": owed(request("a", "?", Stored((2, 2))), request("b", "???", Stored((3, 2)), Stored((1, 1))))})
    what = "the largest image (3x2 pixels) and the longest prompt (3 characters)"
    assert found == [Probe(task="t", key=("b", 0), what=what)]


def test_tasks_are_compared_with_each_other() -> None:
    first = owed(request("a", "????", Stored((9, 9))))
    second = owed(request("a", "?", Stored((9, 10))), request("b", "??", Stored((1, 1))))
    assert [(probe.task, probe.key) for probe in probes({"x": first, "y": second})] == [
        ("y", ("a", 0)),
        ("x", ("a", 0)),
    ]


def test_an_image_that_cannot_be_read_is_left_to_the_engine(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    images = (ImageFile(tmp_path / "broken.png"), ImageFile(tmp_path / "gone.png"))
    assert [probe.what for probe in probes({"t": owed(request("a", "?", *images))})] == [
        "the longest prompt (1 characters)"
    ]


def test_nothing_is_the_hardest_of_nothing() -> None:
    assert probes({"t": {}}) == []


def test_a_disk_with_room_for_the_longest_responses_passes(tmp_path: Path) -> None:
    check_disk(tmp_path / "not" / "yet" / "there", 10, 10)


def test_a_disk_without_is_refused_with_both_sizes(tmp_path: Path) -> None:
    # 1,000 * (1,000 + 6 * 10**12) bytes
    with pytest.raises(
        UsageError, match=r"has room for [\d.,]+ .B, and 1,000 responses may take 6,000\.0 TB; make room"
    ):
        check_disk(tmp_path / "not" / "yet", 1_000, 10**12)
