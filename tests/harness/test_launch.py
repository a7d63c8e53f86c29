"""`eval --plan`: tokens, memory and launch lines, counted by hand; nothing is loaded."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from plans import plan_of

from ahabench.harness.errors import UsageError
from ahabench.harness.launch import Launch, plan_launch, plan_text
from ahabench.harness.runner import Plan
from ahabench.harness.sampling import Sampling
from ahabench.harness.shards import Shard
from ahabench.harness.types import AnswerType, ImageSource, Item

COMMAND = ("eval", "org/Nobody-72B", "--tasks", "sums", "--out", "runs/x")


class Picture:
    def __init__(self, width: int, height: int) -> None:
        buffer = io.BytesIO()
        Image.new("RGB", (width, height)).save(buffer, "PNG")
        self._data = buffer.getvalue()

    def read(self) -> bytes:
        return self._data


class Gone:
    def read(self) -> bytes:
        raise OSError("gone")


def sums(*images: ImageSource, text: str = "x" * 40, **more: Any) -> Plan:
    """One item per image, each asked `text`."""
    items = [
        Item(id=str(n), question=text, gold=None, answer_type=AnswerType.INTEGER, images=(image,))
        for n, image in enumerate(images)
    ]
    return plan_of(items, **more)


def launch(plan: Plan, **changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "model": "org/Nobody-72B",
        "engine": "vllm",
        "options": {},
        "batch_size": None,
        "dtype": "auto",
        "text_only": False,
        "sampling": Sampling(max_new_tokens=100),
        "min_pixels": None,
        "max_pixels": None,
        "out": Path("runs/x"),
        "command": COMMAND,
    }
    return plan_launch(Launch(plan=plan, **fields | changes))


def test_tokens_are_estimated_from_text_and_image_sizes() -> None:
    # 40 bytes are 10 tokens; 280 x 56 px are 10 x 2 tokens of 28 x 28, and 1,120 x 560 px 40 x 20.
    row = launch(sums(Picture(280, 56), Picture(1120, 560)), sampling=Sampling(max_new_tokens=100))
    assert row["tasks"]["sums"] == {
        "items": 2,
        "requests": 2,
        "prompt_tokens": 2 * 10 + 20 + 800,
        "image_tokens": 20 + 800,
        "new_tokens_max": 200,
    }
    assert row["total"] == row["tasks"]["sums"]


def test_samples_multiply_everything_but_the_items() -> None:
    once, thrice = (launch(sums(Picture(56, 56), samples=n))["total"] for n in (1, 3))
    assert thrice == {key: value * (1 if key == "items" else 3) for key, value in once.items()}


def test_pixel_limits_bound_an_images_tokens() -> None:
    row = launch(sums(Picture(1120, 1120), Picture(28, 28)), min_pixels=4 * 784, max_pixels=100 * 784)
    assert row["total"]["image_tokens"] == 100 + 4


def test_images_that_cannot_be_read_are_not_counted_as_nothing() -> None:
    row = launch(sums(Gone()))
    assert row["total"]["image_tokens"] is None
    assert "not known" in plan_text(row)


def test_without_images_there_are_no_image_tokens() -> None:
    assert launch(sums(Picture(280, 280)), text_only=True)["total"]["image_tokens"] == 0


def test_a_large_model_is_split_over_the_gpus_of_a_copy() -> None:
    row = launch(sums(Picture(28, 28)), options={"tensor_parallel_size": "8"})
    # 72e9 parameters of 2 bytes, over 8
    assert row["weights"]["bytes"] == 144_000_000_000
    assert row["weights"]["bytes_per_gpu"] == 18_000_000_000
    assert row["gpus"] == 8
    assert row["launch"] == ["ahabench eval org/Nobody-72B --tasks sums --out runs/x"]


def test_copies_over_nodes_are_ray_through_vllm() -> None:
    options = {"tensor_parallel_size": "8", "data_parallel_size": "8", "distributed_executor_backend": "ray"}
    row = launch(sums(Picture(28, 28)), options=options)
    assert row["gpus"] == 64
    assert row["weights"]["bytes_per_gpu"] == 18_000_000_000
    commands = [line.split("#")[0].strip() for line in row["launch"] if not line.startswith("#")]
    assert commands == [
        "ray start --head --port=6379",
        "ray start --address=FIRST_NODE:6379",
        "ahabench eval org/Nobody-72B --tasks sums --out runs/x",
    ]


@pytest.mark.parametrize("written", [("--shard", "2/3"), ("--shard=2/3",)])
def test_shards_are_one_line_each_then_merge_and_score(written: tuple[str, ...]) -> None:
    row = launch(sums(Picture(28, 28), shard=Shard(2, 3)), command=(*COMMAND, *written))
    lines = [line.replace("--shard=", "--shard ") for line in row["launch"] if not line.startswith("#")]
    assert [line.rpartition(" ")[2] for line in lines[:3]] == ["1/3", "2/3", "3/3"]
    assert lines[3:] == ["ahabench merge runs/x", "ahabench score runs/x"]


def test_a_word_that_a_shell_would_read_is_quoted() -> None:
    row = launch(sums(Picture(28, 28)), command=("eval", "m; rm -rf /", "--out", "a b"))
    assert row["launch"] == ["ahabench eval 'm; rm -rf /' --out 'a b'"]


def test_an_unknown_engine_argument_is_refused_before_anything_runs() -> None:
    with pytest.raises(UsageError, match="Did you mean 'tensor_parallel_size'"):
        launch(sums(Picture(28, 28)), options={"tensor_parallel": "8"})


def test_a_config_without_weights_gives_the_parameters(tmp_path: Path) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": 100,
        "tie_word_embeddings": True,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    # Per layer 4 x 32 x 32 (attention), 3 x 32 x 64 (MLP), 2 x 32 (norms); embeddings 100 x 32; the last norm 32.
    parameters = 2 * (4 * 32 * 32 + 3 * 32 * 64 + 2 * 32) + 100 * 32 + 32
    row = launch(sums(Picture(28, 28)), model=str(tmp_path), dtype="float32")
    assert row["weights"]["bytes"] == 4 * parameters


def test_the_command_prints_the_plan_and_writes_nothing(
    ahabench: Callable[..., Any], toy: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = ahabench("eval", "org/Nobody-7B", "--tasks", "toy", "--data", toy, "--out", out, "--plan", "--json")
    assert (done.code, done.err) == (0, "")
    row = json.loads(done.out)
    assert row["weights"]["bytes"] == 14_000_000_000
    assert row["launch"] == [f"ahabench eval org/Nobody-7B --tasks toy --data {toy} --out {out} --json"]
    assert not out.exists()
