"""Whole runs of a real checkpoint: shards, preflight, what each row says, and what becomes of it in the numbers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Run = Callable[..., Any]


@pytest.fixture
def pictured(toy: Path) -> Path:
    """The toy benchmark with an image that Qwen's processor shows as 112x56: its sides are multiples of 28 already."""
    Image.new("RGB", (112, 56), "red").save(toy / "toy" / "images" / "dot.png")
    return toy


@pytest.fixture
def command(made: Callable[[str], Path], pictured: Path) -> tuple[object, ...]:
    # One at a time: the padding of a batch changes the last bits, and shards form other batches.
    generation = ("--max-new-tokens", 6, "--batch-size", 1, "--device", "cpu", "--engine", "transformers")
    return ("eval", made("qwen"), "--tasks", "toy", "--data", pictured, *generation)


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "toy" / "responses.jsonl").read_text().splitlines()]


def test_shards_of_a_checkpoint_are_merged_into_what_one_run_gives(
    ahabench: Run, command: tuple[object, ...], pictured: Path, tmp_path: Path
) -> None:
    whole, divided = tmp_path / "whole", tmp_path / "divided"
    done = ahabench(*command, "--out", whole, "--json")
    assert done.code == 0, done.err
    for index in (1, 2):
        assert ahabench(*command, "--out", divided, "--shard", f"{index}/2").code == 0
    assert ahabench("merge", divided, "--data", pictured).code == 0
    assert ahabench("score", divided, "--data", pictured, "--json").out == done.out
    (found,) = json.loads(ahabench("agreement-engines", whole, divided, "--json").out)
    assert (found["n"], found["identical"], found["verdicts_differ"]) == (6, 6, 0)


def test_rows_and_numbers_say_what_the_model_saw_and_spent(
    ahabench: Run, command: tuple[object, ...], pictured: Path, tmp_path: Path
) -> None:
    done = ahabench(*command, "--out", tmp_path / "run", "--json")
    assert done.code == 0, done.err
    (metrics,) = json.loads(done.out)
    found = rows(tmp_path / "run")
    assert [row["image_sizes"] for row in found] == [[[112, 56]]] * 6
    # One image in all items, and it was read.
    assert len({row["images_sha256"] for row in found}) == 1
    assert metrics["image_sizes"] == {"n": 6, "unknown": 0, "min": [112, 56], "median": [112, 56], "max": [112, 56]}
    assert metrics["tokens"]["prompt_per_item"] == pytest.approx(sum(row["prompt_tokens"] for row in found) / 6)
    assert metrics["tokens"]["completion_per_item"] == pytest.approx(sum(row["completion_tokens"] for row in found) / 6)
    assert sum(metrics["finish_reasons"].values()) == 6
    # The prompt is written one byte a token: the image's 112 * 56 / 28**2 = 8 tokens are counted as well.
    question = {"a1": "1 + 1?", "c1": "50 + 50?"}
    by_id = {row["item_id"]: row["prompt_tokens"] for row in found}
    assert by_id["c1"] - by_id["a1"] == len(question["c1"]) - len(question["a1"])
    assert by_id["a1"] > len(question["a1"]) + 8


def test_a_model_that_never_ends_is_printed_with_a_warning_and_both_bounds(
    ahabench: Run, command: tuple[object, ...], tmp_path: Path
) -> None:
    done = ahabench(*command, "--max-new-tokens", 1, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    if all(row["finish_reason"] == "length" for row in rows(tmp_path / "run")):
        assert "toy test: 100.0 % of the responses were cut off at a length limit" in done.err
        assert "accuracy is 0.0 % as it stands and - % among finished answers (n 0)" in " ".join(done.out.split())
    else:
        pytest.fail("the checkpoint of random weights ends a text at its first token; give it another seed")


def test_a_preflight_finds_a_prompt_that_the_chat_template_refuses(
    ahabench: Run, toy: Path, llama: Callable[..., Path], tokenizer: Callable[..., Any], tmp_path: Path
) -> None:
    # A template with a rule of its own, that a short trial does not meet.
    template = "{% for m in messages %}{% if '50' in m['content'] %}{{ raise_exception('no fifties') }}{% endif %}"
    model = llama(tmp_path / "strict", tokenizer(template + "{{ m['content'] }}{% endfor %}"))
    done = ahabench("eval", model, "--tasks", "toy", "--data", toy, "--out", tmp_path / "run", "--device", "cpu")
    assert done.code == 2
    assert "error: preflight: toy item 'c1', with the longest prompt (8 characters), failed" in done.err
    assert "no fifties" in done.err
    assert len(rows(tmp_path / "run")) == 1


def test_a_preflight_finds_an_image_that_cannot_be_decoded_first(
    ahabench: Run, command: tuple[object, ...], pictured: Path, tmp_path: Path
) -> None:
    # The header promises a picture, so it is the largest; its body is cut off.
    images = pictured / "toy" / "images"
    Image.effect_noise((300, 300), 90).save(images / "large.png")
    whole = (images / "large.png").read_bytes()
    (images / "large.png").write_bytes(whole[: len(whole) // 2])
    items = json.loads((pictured / "toy" / "items.json").read_text())
    items[0]["image"] = "large.png"
    (pictured / "toy" / "items.json").write_text(json.dumps(items))
    done = ahabench(*command, "--out", tmp_path / "run")
    assert done.code == 2
    assert (
        "error: preflight: toy item 'a1', with the largest image (300x300 pixels), failed: image a1 cannot" in done.err
    )
    assert "--no-preflight" in done.err
    assert len(rows(tmp_path / "run")) <= 2
    going_on = ahabench(*command, "--out", tmp_path / "run", "--no-preflight")
    assert going_on.code == 5
    assert "1 of 6 responses failed" in going_on.err
