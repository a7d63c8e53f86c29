"""Finding checkpoints and telling them apart, on folders as save_pretrained, PEFT, DeepSpeed and FSDP leave them."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness.checkpoint import WHOLE_BELOW, Kind, find_checkpoint, weight_files, weights_digest
from ahabench.harness.errors import EngineError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def safetensors(path: Path, values: bytes = b"\x01\x02\x03\x04") -> Path:
    """Write a file with one tensor of bytes, by the format's own description."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(values)], "data_offsets": [0, len(values)]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + values)
    return path


def model(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    (folder / "tokenizer.json").write_text("{}")
    safetensors(folder / "model.safetensors")
    return folder


def adapter(folder: Path, base: Path | str, **config: Any) -> Path:
    folder.mkdir(parents=True)
    settings = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": 8, **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    safetensors(folder / "adapter_model.safetensors", b"\x09")
    return folder


# What can be found.


def test_a_folder_of_save_pretrained_is_found(tmp_path: Path) -> None:
    found = find_checkpoint(str(model(tmp_path / "m")))
    assert (found.kind, found.path, found.revision, found.adapter) == (Kind.MODEL, tmp_path / "m", None, "")


def test_a_gguf_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "m.Q4_1.gguf").write_bytes(b"GGUF")
    assert find_checkpoint(str(tmp_path / "m.Q4_1.gguf")).kind is Kind.GGUF


def test_an_adapter_is_found_with_its_base(tmp_path: Path) -> None:
    base = model(tmp_path / "base")
    found = find_checkpoint(str(adapter(tmp_path / "lora", base)))
    assert found.kind is Kind.ADAPTER
    assert found.base is not None
    assert found.base.path == base
    assert found.adapter == f"lora on {base}"


def test_a_base_beside_its_adapter_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model(tmp_path / "out" / "base")
    folder = adapter(tmp_path / "out" / "lora", "../base")
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint(str(folder)).adapter == "lora on ../base"


def test_shards_are_listed_once_each_in_order(tmp_path: Path) -> None:
    folder = model(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    shards = [safetensors(folder / f"model-{n}-of-2.safetensors") for n in (1, 2)]
    weight_map = {"a": shards[1].name, "b": shards[0].name, "c": shards[1].name}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert weight_files(folder) == shards


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub with org/m at COMMIT, as its client lays it out; the hub itself is out of reach."""
    import huggingface_hub.constants

    cache = tmp_path / "hub"
    repository = cache / "models--org--m"
    model(repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return repository


def test_a_name_on_the_hub_is_found_in_the_cache_with_its_commit(hub: Path) -> None:
    found = find_checkpoint("org/m")
    assert (found.name, found.path, found.revision) == ("org/m", hub / "snapshots" / COMMIT, COMMIT)
    assert weights_digest(found) == f"commit:{COMMIT}"


def test_a_commit_on_the_hub_can_be_named(hub: Path) -> None:
    assert find_checkpoint("org/m", revision=COMMIT).revision == COMMIT
    with pytest.raises(EngineError, match="org/m is no folder here, and the hub cannot be reached"):
        find_checkpoint("org/m", revision="f" * 40)


def test_an_adapter_may_have_its_base_on_the_hub(hub: Path, tmp_path: Path) -> None:
    found = find_checkpoint(str(adapter(tmp_path / "lora", "org/m")))
    assert found.base is not None
    assert (found.base.revision, found.adapter) == (COMMIT, "lora on org/m")


# What cannot, and what to do about it.


def lacks_everything(folder: Path) -> None:
    folder.mkdir()


def lacks_weights(folder: Path) -> None:
    (model(folder) / "model.safetensors").unlink()


def lacks_config(folder: Path) -> None:
    (model(folder) / "config.json").unlink()


def deepspeed(folder: Path) -> None:
    lacks_weights(folder)
    (folder / "zero_to_fp32.py").write_text("")
    (folder / "global_step40").mkdir()


def fsdp(folder: Path) -> None:
    lacks_weights(folder)
    (folder / "pytorch_model_fsdp_0").mkdir()
    (folder / "pytorch_model_fsdp_0" / "__0_0.distcp").write_bytes(b"")


def training_output(folder: Path) -> None:
    folder.mkdir()
    for step in (90, 400, 1000):
        model(folder / f"checkpoint-{step}")
    (folder / "checkpoint-2000").mkdir()


def holds_gguf(folder: Path) -> None:
    folder.mkdir()
    (folder / "m.gguf").write_bytes(b"GGUF")


def lacks_a_shard(folder: Path) -> None:
    weight_map = {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}
    lacks_weights(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    safetensors(folder / "model-1-of-2.safetensors")


def reaches_outside(folder: Path) -> None:
    safetensors(folder.parent / "other.safetensors")
    lacks_weights(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../other.safetensors"}}))


def has_a_damaged_index(folder: Path) -> None:
    lacks_weights(folder)
    (folder / "model.safetensors.index.json").write_text("{")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lacks_everything, r"it lacks config\.json and weights .* Give a folder written by save_pretrained"),
        (lacks_weights, r"it lacks weights \(model\.safetensors or its shards\)\. Give"),
        (lacks_config, r"it lacks config\.json\. Give"),
        (
            deepspeed,
            r"DeepSpeed shards; convert them with `python -m deepspeed\.utils\.zero_to_fp32 \S+/m \S+/m-merged",
        ),
        (fsdp, r"FSDP shards; convert them with `accelerate merge-weights \S+/m/pytorch_model_fsdp_0 \S+/m-merged`"),
        (training_output, r"Give a checkpoint inside it, such as \S+/m/checkpoint-1000$"),
        (holds_gguf, r"Give the file itself: \S+/m/m\.gguf$"),
        (lacks_a_shard, r"lacks 1 of 2 weight files, such as model-2-of-2\.safetensors"),
        (reaches_outside, r"index\.json is damaged: it has no weight_map of file names"),
        (has_a_damaged_index, r"index\.json is damaged: Expecting"),
    ],
)
def test_a_folder_that_is_no_checkpoint_is_told_what_it_lacks(
    tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    make(tmp_path / "m")
    with pytest.raises(EngineError, match=message) as raised:
        find_checkpoint(str(tmp_path / "m"))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "name",
    ["/nowhere/at/all", "../m", "~/no/such/model", "a/b/c", "", "org/m;rm -rf", "~nobody-here/m", "/" + "x" * 999],
)
def test_a_path_that_is_not_there_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(EngineError, match=re.escape(f"there is no checkpoint at {name};")):
        find_checkpoint(name)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"is a file, but no \.gguf file"):
        find_checkpoint(str(safetensors(tmp_path / "model.safetensors")))


def test_a_revision_of_a_local_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="stands on this machine and has no revision 'v2'"):
        find_checkpoint(str(model(tmp_path / "m")), revision="v2")


@pytest.mark.parametrize("base", ["gone", "lora", "other"])
def test_an_adapter_whose_base_cannot_be_used_is_refused(
    tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    adapter(tmp_path / "other", model(tmp_path / "base"))
    folder = adapter(tmp_path / "lora", "/gone" if base == "gone" else tmp_path / base)
    with pytest.raises(EngineError, match=r"the base of adapter \S+/lora cannot be used: .*(no checkpoint|merge it)"):
        find_checkpoint(str(folder))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('{"peft_type": "LORA"}', "names no base_model_name_or_path"),
        ('{"base_model_name_or_path": 3}', "names no base_model_name_or_path"),
        ("[]", "is damaged: it holds no object"),
        ("{", "is damaged"),
    ],
)
def test_a_damaged_adapter_config_is_an_error(tmp_path: Path, settings: str, message: str) -> None:
    folder = adapter(tmp_path / "lora", model(tmp_path / "base"))
    (folder / "adapter_config.json").write_text(settings)
    with pytest.raises(EngineError, match=message):
        find_checkpoint(str(folder))


def test_an_adapter_without_weights_is_refused(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "lora", model(tmp_path / "base"))
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(EngineError, match=r"an adapter without weights: it lacks adapter_model\.safetensors"):
        find_checkpoint(str(folder))


# The digest.


def test_the_digest_does_not_depend_on_where_the_checkpoint_stands(tmp_path: Path) -> None:
    first = weights_digest(model(tmp_path / "a"))
    assert re.fullmatch("sha256:[0-9a-f]{64}", first)
    assert weights_digest(model(tmp_path / "b" / "c")) == first


def flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: flip_last_byte(folder / "model.safetensors"),
        lambda folder: safetensors(folder / "model.safetensors", b"\x01\x02\x03\x04\x00"),
        lambda folder: (folder / "config.json").write_text('{"model_type": "llama", "rope_theta": 1}'),
        lambda folder: (folder / "tokenizer.json").write_text('{"added_tokens": []}'),
        lambda folder: (folder / "chat_template.jinja").write_text("{{ messages }}"),
        lambda folder: (folder / "generation_config.json").write_text('{"eos_token_id": 2}'),
        lambda folder: (folder / "preprocessor_config.json").write_text("{}"),
        lambda folder: (folder / "modeling_mine.py").write_text(""),
    ],
    ids=["weight", "shape", "config", "tokenizer", "chat template", "end of text", "processor", "remote code"],
)
def test_the_digest_changes_with_whatever_changes_an_answer(tmp_path: Path, change: Callable[[Path], Any]) -> None:
    before = weights_digest(model(tmp_path / "m"))
    change(tmp_path / "m")
    assert weights_digest(tmp_path / "m") != before


def test_the_digest_ignores_what_changes_no_answer(tmp_path: Path) -> None:
    folder = model(tmp_path / "m")
    before = weights_digest(folder)
    (folder / "README.md").write_text("A model.")
    (folder / "optimizer.pt").write_bytes(b"state")
    (folder / "trainer_state.json").write_text("{}")
    (folder / "runs").mkdir()
    # transformers prefers safetensors, so this is never loaded.
    (folder / "pytorch_model.bin").write_bytes(b"old")
    assert weights_digest(folder) == before


def test_the_digest_of_an_adapter_covers_its_base_by_content(tmp_path: Path) -> None:
    base = model(tmp_path / "base")
    first = weights_digest(adapter(tmp_path / "one", base))
    shutil.copytree(base, tmp_path / "copy")
    assert weights_digest(adapter(tmp_path / "two", tmp_path / "copy")) == first
    flip_last_byte(tmp_path / "copy" / "model.safetensors")
    assert weights_digest(tmp_path / "two") != first
    assert weights_digest(adapter(tmp_path / "three", base, r=16)) != first
    assert weights_digest(base) != first


def test_a_gguf_file_is_digested_by_content(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF1")
    (tmp_path / "b.gguf").write_bytes(b"GGUF1")
    (tmp_path / "c.gguf").write_bytes(b"GGUF2")
    first, same, other = (weights_digest(tmp_path / f"{name}.gguf") for name in "abc")
    assert first == same != other


@pytest.mark.parametrize("where", ["header", "first", "middle", "last", "size"])
def test_a_large_file_is_digested_by_its_header_and_samples(tmp_path: Path, where: str) -> None:
    folder = model(tmp_path / "m")
    path = safetensors(folder / "model.safetensors", bytes(WHOLE_BELOW + 1000))
    size = path.stat().st_size
    start = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    before = weights_digest(folder)
    with path.open("r+b") as file:
        if where == "size":
            file.truncate(size + 1)
        else:
            # The tensor's name is the third character of the header.
            file.seek({"header": 10, "first": start, "middle": size // 2, "last": size - 1}[where])
            # A stretch in the middle: single bytes between the samples go unseen in a large file.
            file.write({"header": b"v", "middle": b"\xff" * 70_000}.get(where, b"\xff"))
    assert weights_digest(folder) != before
