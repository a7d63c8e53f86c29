"""The shipped accelerate files, read by accelerate's own classes and, where it is installed, by DeepSpeed's."""

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ahabench.trainer.recipe_files import RECIPES

FILES = sorted((RECIPES / "accelerate").glob("*.yaml"))


def launched(path: Path, *options: str) -> argparse.Namespace:
    """Return what `accelerate launch` makes of a file."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    parser = launch_command_parser()
    asked = parser.parse_args(["--config_file", str(path), *options, "train.py"])
    return _validate_launch_command(asked)[0]


def file(name: str) -> Path:
    return RECIPES / "accelerate" / f"{name}.yaml"


def test_the_files_are_those_that_the_documentation_names() -> None:
    assert [path.stem for path in FILES] == ["cpu", "ddp", "fsdp", "zero2", "zero3"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_accelerate_reads_its_files(path: Path) -> None:
    from accelerate.commands.config.config_args import ClusterConfig

    config = ClusterConfig.from_yaml_file(yaml_file=str(path))
    found = (config.num_machines, config.num_processes, config.mixed_precision, config.use_cpu)
    assert found == ((1, 2, "no", True) if path.stem == "cpu" else (1, 8, "bf16", False))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_file_starts_as_many_processes_as_it_says(path: Path) -> None:
    args = launched(path)
    # What neither of these claims, accelerate starts as one process, whatever else it says.
    assert [args.multi_gpu, args.use_deepspeed, args.use_fsdp].count(True) == 1
    assert args.num_processes == (2 if path.stem == "cpu" else 8)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_second_machine_takes_the_same_file(path: Path) -> None:
    more = ["--num_machines", "2", "--num_processes", "16", "--machine_rank", "1"]
    args = launched(path, *more, "--main_process_ip", "10.0.0.1", "--main_process_port", "29500")
    assert (args.num_machines, args.num_processes, args.machine_rank) == (2, 16, 1)
    assert (args.main_process_ip, args.main_process_port) == ("10.0.0.1", 29500)
    # DeepSpeed's own launcher would want ssh to the others.
    assert not args.use_deepspeed or args.deepspeed_multinode_launcher == "standard"


@pytest.fixture
def fsdp(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The plugin that a launched process makes."""
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.launch import prepare_multi_gpu_env

    for name, value in prepare_multi_gpu_env(launched(file("fsdp"), "--main_process_port", "0")).items():
        if name.startswith(("FSDP_", "ACCELERATE_")):
            monkeypatch.setenv(name, value)
    return FullyShardedDataParallelPlugin()


def test_fsdp_shares_out_each_layer_and_saves_the_whole_model(fsdp: Any, untrained: Path) -> None:
    from torch.distributed.fsdp.fully_sharded_data_parallel import StateDictType
    from transformers import AutoModelForImageTextToText

    assert fsdp.fsdp_version == 2
    assert fsdp.reshard_after_forward is True
    assert fsdp.state_dict_type is StateDictType.FULL_STATE_DICT
    assert fsdp.activation_checkpointing is False
    model = AutoModelForImageTextToText.from_pretrained(untrained)
    fsdp.set_auto_wrap_policy(model)
    wrapped = fsdp.auto_wrap_policy.keywords["transformer_layer_cls"]
    assert {layer.__name__ for layer in wrapped} == {"Qwen2_5_VLDecoderLayer", "Qwen2_5_VLVisionBlock"}


@pytest.mark.parametrize(("name", "stage"), [("zero2", 2), ("zero3", 3)])
def test_the_deepspeed_files_ask_for_their_stage(name: str, stage: int) -> None:
    from accelerate.commands.config.config_args import ClusterConfig

    asked = ClusterConfig.from_yaml_file(yaml_file=str(file(name))).deepspeed_config
    assert asked["zero_stage"] == stage
    # Else a checkpoint holds no whole model.
    assert asked["zero3_save_16bit_model"] is (stage == 3)


@pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is not installed; pip install deepspeed")
@pytest.mark.parametrize(("name", "stage"), [("zero2", 2), ("zero3", 3)])
def test_deepspeed_reads_what_a_launched_process_asks(name: str, stage: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.utils import DeepSpeedPlugin
    from accelerate.utils.launch import prepare_deepspeed_cmd_env
    from deepspeed.runtime.config import DeepSpeedConfig

    args = launched(file(name), "--main_process_port", "0")
    # As `launch_command` does it.
    args.deepspeed_fields_from_accelerate_config = "zero_stage,zero3_init_flag,zero3_save_16bit_model,mixed_precision"
    for key, value in prepare_deepspeed_cmd_env(args)[1].items():
        if key.startswith("ACCELERATE_"):
            monkeypatch.setenv(key, value)
    plugin = DeepSpeedPlugin()
    plugin.set_mixed_precision("bf16")
    sizes = {"train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 8, "train_batch_size": 32}
    config = DeepSpeedConfig({**plugin.deepspeed_config, **sizes})
    assert config.zero_optimization_stage == stage
    assert config.bfloat16_config.enabled
    assert config.zero_config.offload_optimizer is None or config.zero_config.offload_optimizer.device == "none"
