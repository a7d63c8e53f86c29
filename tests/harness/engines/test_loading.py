"""Checkpoints that load: adapters, GGUF, own code; and those that must not: incomplete, hostile, half there."""

import json
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness.engines.transformers import TransformersEngine
from ahabench.harness.errors import EngineError
from ahabench.harness.sampling import Sampling
from ahabench.harness.types import Prompt, Request

Make = Callable[[str], Path]
QUESTIONS = [Request(item_id=str(n), sample_index=0, prompt=Prompt(text="x" * n), images=()) for n in (1, 20)]


def said(path: Path, **options: Any) -> list[str | None]:
    engine = TransformersEngine(str(path), sampling=Sampling(max_new_tokens=12), **options)
    responses = sorted(engine.generate(QUESTIONS), key=lambda response: response.item_id)
    return [response.text for response in responses]


def tensors(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(path))


def save(tensors: dict[str, Any], path: Path) -> None:
    from safetensors.torch import save_file

    save_file(tensors, path, metadata={"format": "pt"})


# Adapters.


def test_an_adapter_answers_as_its_base_with_the_weights_merged(made: Make, tmp_path: Path) -> None:
    lora, base = made("lora"), made("llama")
    settings = json.loads((lora / "adapter_config.json").read_text())
    merged = shutil.copytree(base, tmp_path / "merged")
    weights, parts = tensors(base / "model.safetensors"), tensors(lora / "adapter_model.safetensors")
    for name in [name for name in parts if name.endswith("lora_A.weight")]:
        # W + alpha / r * B A (Hu et al., arXiv:2106.09685, section 4.1)
        change = parts[name.replace("lora_A", "lora_B")] @ parts[name]
        target = name.removeprefix("base_model.model.").replace("lora_A.weight", "weight")
        weights[target] = weights[target] + settings["lora_alpha"] / settings["r"] * change
    save(weights, merged / "model.safetensors")
    assert said(lora) == said(merged) != said(base)


def test_an_adapter_is_named_with_its_base_and_digested_apart(made: Make) -> None:
    whole, adapted = (TransformersEngine(str(made(name)), sampling=Sampling()).info.model for name in ("llama", "lora"))
    assert (whole.adapter, adapted.adapter) == ("", f"lora on {made('llama')}")
    assert whole.weights_digest != adapted.weights_digest
    assert whole.chat_template_sha256 == adapted.chat_template_sha256


def test_the_tokenizer_that_an_adapter_was_saved_with_is_used(
    made: Make, tmp_path: Path, tokenizer: Callable[..., Any]
) -> None:
    path = shutil.copytree(made("lora"), tmp_path / "lora")
    before = TransformersEngine(str(path), sampling=Sampling()).info.model.chat_template_sha256
    tokenizer("{% for m in messages %}{{ m['content'] }}{% endfor %}!").save_pretrained(path)
    assert TransformersEngine(str(path), sampling=Sampling()).info.model.chat_template_sha256 != before


def test_an_adapter_of_another_model_is_refused_instead_of_ignored(made: Make, tmp_path: Path) -> None:
    path = shutil.copytree(made("lora"), tmp_path / "lora")
    parts = tensors(path / "adapter_model.safetensors")
    save({name.replace("layers", "blocks"): part for name, part in parts.items()}, path / "adapter_model.safetensors")
    with pytest.raises(EngineError, match="missing adapter keys"):
        said(path)


def test_an_adapter_without_peft_says_what_to_install(made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)  # import peft then fails, as where it is not installed
    with pytest.raises(EngineError, match=r"is an adapter and needs peft: pip install 'ahabench\[train\]'"):
        said(made("lora"))


# GGUF.


def test_a_gguf_file_answers_as_the_checkpoint_it_was_made_from(made: Make) -> None:
    assert said(made("llama.gguf")) == said(made("llama"))


def test_a_gguf_file_is_text_only_and_digested(made: Make) -> None:
    model = TransformersEngine(str(made("llama.gguf")), sampling=Sampling()).info.model
    assert model.text_only is True
    assert str(model.weights_digest).startswith("sha256:")


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(EngineError, match=r"m\.gguf cannot be loaded"):
        said(tmp_path / "m.gguf")


# Checkpoints with a part missing.


def test_a_checkpoint_without_one_of_its_weights_is_refused(made: Make, tmp_path: Path) -> None:
    path = shutil.copytree(made("llama"), tmp_path / "m")
    weights = tensors(path / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save(weights, path / "model.safetensors")
    with pytest.raises(EngineError, match=r"1 are missing .* such as model\.layers\.1\.mlp\.up_proj\.weight"):
        said(path)


def test_a_weight_of_another_shape_is_refused(made: Make, tmp_path: Path) -> None:
    path = shutil.copytree(made("llama"), tmp_path / "m")
    weights = tensors(path / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"][:16].clone()
    save(weights, path / "model.safetensors")
    with pytest.raises(EngineError, match=r"1 are missing or of another shape, such as model\.norm\.weight"):
        said(path)


def test_weights_that_nobody_uses_are_told(made: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = shutil.copytree(made("llama"), tmp_path / "m")
    weights = tensors(path / "model.safetensors")
    save({**weights, "value_head.weight": weights["model.norm.weight"].clone()}, path / "model.safetensors")
    with caplog.at_level(logging.WARNING, "ahabench"):
        assert said(path) == said(made("llama"))
    assert "holds weights that its model does not use, such as value_head.weight" in caplog.text


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("qwen", "processor_config.json", r"m has no image processor: \S+/m lacks preprocessor_config\.json"),
        ("llama", "tokenizer.json", "m cannot be loaded: .*tokenizer"),
    ],
)
def test_a_checkpoint_without_one_of_its_files_is_refused(
    made: Make, tmp_path: Path, name: str, file: str, message: str
) -> None:
    path = shutil.copytree(made(name), tmp_path / "m")
    (path / file).unlink()
    with pytest.raises(EngineError, match=message) as raised:
        said(path)
    assert "\n" not in str(raised.value)


def test_a_damaged_config_is_refused(made: Make, tmp_path: Path) -> None:
    path = shutil.copytree(made("llama"), tmp_path / "m")
    (path / "config.json").write_text('{"model_type": ')
    with pytest.raises(EngineError, match="m cannot be loaded"):
        said(path)


def test_a_model_type_that_transformers_does_not_know_is_refused(made: Make, tmp_path: Path) -> None:
    path = shutil.copytree(made("llama"), tmp_path / "m")
    (path / "config.json").write_text('{"model_type": "from_the_future"}')
    with pytest.raises(EngineError, match="from_the_future"):
        said(path)


# Code that comes with a checkpoint.


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __reduce__(self) -> Any:
        return (Path.touch, (self._target,))


def test_a_pickle_that_runs_code_is_refused(made: Make, tmp_path: Path) -> None:
    import torch

    path = shutil.copytree(made("llama"), tmp_path / "m")
    (path / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Bomb(tmp_path / "ran")}, path / "pytorch_model.bin")
    with pytest.raises(EngineError, match="m cannot be loaded"):
        said(path)
    assert not (tmp_path / "ran").exists()


def with_own_code(made: Make, path: Path) -> Path:
    """Make a checkpoint whose model class is a file beside it, which leaves a trace when it is imported."""
    shutil.copytree(made("llama"), path)
    (path / "modeling_mine.py").write_text(
        "from pathlib import Path\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        f"Path({str(path / 'ran')!r}).touch()\n"
        "class MineConfig(LlamaConfig):\n"
        "    model_type = 'mine'\n"
        "class MineForCausalLM(LlamaForCausalLM):\n"
        "    config_class = MineConfig\n"
    )
    config = json.loads((path / "config.json").read_text())
    classes = {"AutoConfig": "modeling_mine.MineConfig", "AutoModelForCausalLM": "modeling_mine.MineForCausalLM"}
    (path / "config.json").write_text(json.dumps(config | {"model_type": "mine", "auto_map": classes}))
    return path


def test_own_code_is_not_run_unless_it_is_trusted(made: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers.dynamic_module_utils as dynamic

    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    path = with_own_code(made, tmp_path / "mine")
    with pytest.raises(EngineError, match=r"brings its own code, which runs with your rights.*--trust-remote-code"):
        said(path)
    assert not (path / "ran").exists()
    assert said(path, trust_remote_code=True) == said(made("llama"))
    assert (path / "ran").exists()


# What trainers leave: shards.


@pytest.mark.parametrize("name", ["llama", "qwen"])
def test_sharded_safetensors_answer_as_the_whole(made: Make, tmp_path: Path, name: str) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    path = shutil.copytree(made(name), tmp_path / "m", ignore=shutil.ignore_patterns("*.safetensors"))
    loader: Any = AutoModelForCausalLM if name == "llama" else AutoModelForImageTextToText
    loader.from_pretrained(made(name)).save_pretrained(path, max_shard_size="30KB")
    assert len(list(path.glob("model-*-of-*.safetensors"))) > 2
    assert said(path) == said(made(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "qwen"])
def test_fsdp_shards_are_refused_with_a_command_that_makes_them_a_checkpoint(
    made: Make, tmp_path: Path, name: str
) -> None:
    import torch.distributed.checkpoint as sharded
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    loader: Any = AutoModelForCausalLM if name == "llama" else AutoModelForImageTextToText
    path = shutil.copytree(made(name), tmp_path / "m", ignore=shutil.ignore_patterns("*.safetensors"))
    # As accelerate saves FSDP's SHARDED_STATE_DICT (accelerate/utils/fsdp_utils.py, save_fsdp_model).
    weights = {"model": loader.from_pretrained(made(name)).state_dict()}
    sharded.save(weights, checkpoint_id=path / "pytorch_model_fsdp_0")
    with pytest.raises(EngineError) as raised:
        TransformersEngine(str(path), sampling=Sampling())
    found = re.search(r"convert them with `accelerate (merge-weights \S+ \S+)`", str(raised.value))
    assert found is not None
    command = [str(Path(sys.executable).with_name("accelerate")), *found[1].split()]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    merged = Path(command[-1])
    for file in path.glob("*.*"):
        if file.is_file():
            shutil.copy(file, merged)
    assert said(merged) == said(made(name))
