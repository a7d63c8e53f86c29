"""What the engine vllm decides before vLLM is imported, and how it reads a dead process's log."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from ahabench.harness.engines.vllm import RANKS, VllmOptions
from ahabench.harness.engines.vllm_core import _cause

LOG = """INFO 11-22 17:40:20 starting
(Worker pid=1) ERROR 11-22 17:40:28 [x.py:953] ValueError: Available memory on node 0 is less than desired.
(EngineCore pid=2) ERROR 11-22 17:40:29 [x.py:1] Exception: WorkerProc initialization failed.
RuntimeError: Engine core initialization failed. See root cause above.
"""


def test_the_cause_is_the_first_error_of_the_log_with_what_helps(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(LOG)
    cause = _cause(log)
    assert cause.startswith("ValueError: Available memory on node 0 is less than desired; lower gpu_memory_utilization")
    assert str(log) in cause
    assert "\n" not in cause


def test_a_log_without_an_error_is_named(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("Killed\n")
    assert _cause(log) == f"its log says no more: {log}"


def test_a_long_log_without_line_ends_is_read_in_linear_time(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("AError" * 400_000)
    assert "says no more" in _cause(log)


def test_ranks_are_in_order() -> None:
    assert list(RANKS) == sorted(RANKS)


def test_options_come_from_text() -> None:
    options = VllmOptions.model_validate({"tensor_parallel_size": "8", "enforce_eager": "true", "dtype": "bfloat16"})
    assert (options.tensor_parallel_size, options.enforce_eager, options.dtype) == (8, True, "bfloat16")


@pytest.mark.parametrize("wrong", [{"tensor_parallel_size": "0"}, {"distributed_executor_backend": "mpi"}, {"x": "1"}])
def test_options_that_vllm_cannot_take_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        VllmOptions.model_validate(wrong)


def test_every_option_is_described() -> None:
    assert [name for name, field in VllmOptions.model_fields.items() if not field.description] == []
