"""The memory estimate against what is really allocated, byte by byte, on a CPU."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from ahabench.trainer.sizes import Load, Shape, activations, memory_gb, shape_of

TrainerOf = Callable[..., Any]
IMAGE_PX = 56 * 56
IMAGE_TOKENS = 4


def resized(untrained: Path, out: Path, *, layers: int, width: int, inner: int, kv: int, vocabulary: int) -> Path:
    """A copy of the untrained model with another shape, its weights drawn anew."""
    from transformers import AutoConfig, Qwen2_5_VLForConditionalGeneration

    shutil.copytree(untrained, out)
    config = AutoConfig.from_pretrained(untrained)
    text = config.text_config
    text.hidden_size = config.vision_config.out_hidden_size = width
    text.intermediate_size, text.num_hidden_layers, text.vocab_size = inner, layers, vocabulary
    text.num_attention_heads, text.num_key_value_heads = width // 32, kv // 32
    text.layer_types = ["full_attention"] * layers
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def models(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny reference's shape, and one with six times its weights and more keys and values than one head's."""
    larger = tmp_path_factory.mktemp("larger") / "model"
    return {
        "tiny": untrained,
        "larger": resized(untrained, larger, layers=4, width=256, inner=1024, kv=64, vocabulary=4000),
    }


def load_of(shape: Shape, **changes: Any) -> Load:
    values = {
        "micro_batch": 8,
        "completion_tokens": 8,
        "image_px": IMAGE_PX,
        "trained": shape.parameters - shape.vision,
        "reference": True,
        "checkpointing": False,
        "bf16": False,
        "on_gpu": False,
        "head_trained": True,
        "vllm": 0.0,
    }
    return Load(**(values | changes))


@pytest.mark.parametrize("mode", ["float32", "autocast", "bfloat16"])
def test_what_autograd_keeps_of_a_layer_is_the_formulas(mode: str, untrained: Path, tmp_path: Path) -> None:
    """The difference between two depths is what one layer keeps, whatever stands around the layers."""
    from transformers import AutoModelForImageTextToText

    kept, shapes = {}, {}
    for layers in (1, 2):
        sizes = {"width": 192, "inner": 448, "kv": 64, "vocabulary": 500}
        folder = resized(untrained, tmp_path / str(layers), layers=layers, **sizes)
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32").train()
        model = model.to(torch.bfloat16) if mode == "bfloat16" else model
        found = shape_of(str(folder))
        assert found is not None
        shapes[layers], kept[layers] = found, _kept(model, autocast=mode == "autocast")
    layer = 3 * 50 * activations_of_a_layer(shapes[1], mode)
    # Autocast keeps a layer's weights in bfloat16 too.
    copies = 2 * (shapes[2].parameters - shapes[1].parameters) if mode == "autocast" else 0
    assert kept[2] - kept[1] == pytest.approx(layer + copies, rel=0.01)


def activations_of_a_layer(shape: Shape, mode: str) -> float:
    """The formula's bytes of one token in one layer."""
    load = load_of(shape, micro_batch=1, completion_tokens=1, image_px=0, text_tokens=0, bf16=mode == "autocast")
    return activations(shape, load, plain=mode != "bfloat16")["all layers"] / shape.layers


def _kept(model: Any, *, autocast: bool) -> int:
    """Bytes that a forward pass of 3 x 50 tokens leaves for the backward pass, weights not counted."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    storages: dict[int, int] = {}
    alive: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        # A freed tensor's address would be used again.
        alive.append(tensor)
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.full((3, 50), 7)
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        model.model(input_ids=ids, attention_mask=torch.ones_like(ids))
    return sum(storages.values())


class Measured:
    """What a trainer allocates in one forward and backward pass, beyond what stood before."""

    def __init__(self, trainer: Any) -> None:
        self._loss, self._backward = trainer.compute_loss, trainer.accelerator.backward
        self._trainer = trainer
        self.prompt_tokens = 0
        self.peak = 0
        self.gradients = 0
        trainer.compute_loss, trainer.accelerator.backward = self.compute_loss, self.backward

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self.prompt_tokens = inputs["prompt_ids"].shape[1]
        self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self._profile.__enter__()
        return self._loss(model, inputs, *args, **kwargs)

    def backward(self, loss: Any, **kwargs: Any) -> None:
        self._backward(loss, **kwargs)
        self._profile.__exit__(None, None, None)
        level = 0
        for change in self._changes():
            level += change
            self.peak = max(self.peak, level)
        grads = (weight.grad for weight in self._trainer.model.parameters())
        self.gradients = sum(grad.nbytes for grad in grads if grad is not None)

    def _changes(self) -> Iterator[int]:
        found = self._profile.profiler
        assert found is not None
        events = [event for event in found.kineto_results.events() if event.name() == "[memory]"]
        yield from (event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))


@pytest.mark.parametrize(
    ("name", "checkpointing", "bf16"),
    [("tiny", False, False), ("larger", False, False), ("larger", True, False), ("larger", True, True)],
)
def test_a_steps_peak_is_that_of_the_formula(
    name: str, checkpointing: bool, bf16: bool, models: dict[str, Path], trainer_of: TrainerOf
) -> None:
    changes = {"gradient_checkpointing": checkpointing, "bf16": bf16}
    trainer = trainer_of(
        model=str(models[name]), max_steps=1, freeze_vision=True, share_prompts=False, save_steps=9, **changes
    )
    measured = Measured(trainer)
    trainer.train()
    shape = shape_of(str(models[name]))
    assert shape is not None
    text = measured.prompt_tokens - IMAGE_TOKENS
    load = load_of(shape, checkpointing=checkpointing, bf16=bf16, text_tokens=text)
    formula = sum(activations(shape, load, plain=True).values())
    # The peak is at the output head's backward pass, before the first gradient of a first micro-batch.
    assert formula == pytest.approx(measured.peak, rel=0.1)

    terms = memory_gb(shape, load, gpus=1, sharding="ddp", gpu_gb=1.0)
    moments = [value for state in trainer.optimizer.state.values() for value in state.values() if value.ndim]
    exact = {
        "weights": sum(weight.nbytes for weight in trainer.model.parameters()),
        "gradients": measured.gradients,
        "Adam": sum(moment.nbytes for moment in moments),
        "reference model": sum(weight.nbytes for weight in trainer.ref_model.parameters()),
    }
    for term, size in exact.items():
        assert terms[term] == pytest.approx(size / 1e9, rel=1e-6), term
