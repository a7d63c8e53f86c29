"""A real tiny checkpoint and a real vLLM server, for the environment `engines` of tox: vLLM and lmms-eval on a CPU."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

# What vLLM wants on a CPU: one core is enough for such a model, nothing is compiled, little memory is reserved.
CPU_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
}
CPU_OPTIONS = {"enforce_eager": "true", "gpu_memory_utilization": "0.15"}
"""What the engine `vllm` wants to be told on a CPU that it shares: as `--engine-arg` takes it."""

START_S = 300


@pytest.fixture(scope="session", autouse=True)
def _environment() -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed; `tox -e engines` makes an environment that has it")
    for name, value in CPU_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@pytest.fixture(autouse=True)
def _torn_images_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another test may have imported lmms_eval, which makes Pillow fill up torn images for the whole process."""
    from PIL import ImageFile

    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)


@pytest.fixture(scope="session")
def cpu_options() -> dict[str, str]:
    """Options for `open_engine("vllm", ...)` on a CPU."""
    return dict(CPU_OPTIONS)


@pytest.fixture(scope="session")
def checkpoints() -> ModuleType:
    """The functions that make tiny checkpoints for the tests of the engine `transformers`."""
    path = Path(__file__).parents[1] / "harness" / "engines" / "conftest.py"
    spec = importlib.util.spec_from_file_location("ahabench_tiny_checkpoints", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_vlm(checkpoints: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2.5-VL of random weights: head_dim 32, one token per byte, a context of 4,096 tokens."""
    folder: Path = checkpoints.save_qwen(tmp_path_factory.mktemp("vllm") / "tiny-qwen2.5-vl")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 4096
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def vllm_server(tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL, with /v1, of a server of `tiny_vlm`, which it calls "tiny"."""
    port = _free_port()
    log = tmp_path_factory.mktemp("server") / "log.txt"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(tiny_vlm)]
    command += ["--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    command += ["--enforce-eager", "--gpu-memory-utilization", "0.15", "--max-num-seqs", "16"]
    command += ["--generation-config", "vllm", "--limit-mm-per-prompt", '{"image": 4, "video": 0}']
    with _serving(command, f"http://127.0.0.1:{port}/health", log, dict(os.environ)):
        yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture(scope="session")
def free_port() -> int:
    """A port on which nothing listens yet."""
    return _free_port()


@pytest.fixture(scope="session")
def serving(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[list[str], str, dict[str, str]], AbstractContextManager[None]]:
    """Runs a server, given its command, the address that answers once it is up, and its environment."""
    return lambda command, health, environment: _serving(
        command, health, tmp_path_factory.mktemp("server") / "log.txt", environment
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _serving(command: list[str], health: str, log: Path, environment: dict[str, str]) -> Iterator[None]:
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        try:
            _wait(server, health, log)
            yield
        finally:
            server.terminate()
            try:
                server.wait(timeout=30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"the vLLM server did not come up:\n{log.read_text(errors='replace')[-3000:]}", pytrace=False)
