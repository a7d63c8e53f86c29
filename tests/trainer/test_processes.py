import pytest

from ahabench.harness.errors import TrainingError, UsageError
from ahabench.trainer import processes


def test_a_process_that_was_not_launched_speaks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    processes.note_once("hello")
    assert capsys.readouterr().err == "hello\n"


@pytest.mark.parametrize(("rank", "said"), [("0", "hello\n"), ("1", ""), ("10", "")])
def test_of_several_processes_the_first_speaks(
    rank: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", rank)
    processes.note_once("hello")
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("rank", "error", "ends_with"),
    [
        ("0", TrainingError("no judge"), TrainingError),
        ("1", TrainingError("no judge"), SystemExit),
        ("1", processes.OneProcessError("no memory"), processes.OneProcessError),
        ("1", UsageError("no such data"), UsageError),
    ],
)
def test_of_what_all_have_heard_of_the_first_speaks(
    rank: str, error: Exception, ends_with: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", rank)
    with pytest.raises(ends_with) as ended, processes.speaking_once():
        raise error
    assert ended.value is error or ended.value.code == TrainingError.exit_code


@pytest.mark.parametrize(("launched", "bf16"), [("no", False), ("no", True), ("bf16", True)])
def test_the_recipe_decides_on_the_precision(launched: str, bf16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
    processes.settings(bf16=bf16)


@pytest.mark.parametrize(("launched", "bf16"), [("bf16", False), ("fp16", False), ("fp16", True)])
def test_another_precision_than_the_recipes_is_refused(
    launched: str, bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
    with pytest.raises(UsageError, match=f"the launch asks for mixed_precision {launched}"):
        processes.settings(bf16=bf16)


def test_processes_on_cpus_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CPU", "DEEPSPEED", "FSDP"):
        monkeypatch.delenv(f"ACCELERATE_USE_{name}", raising=False)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert processes.settings(bf16=False) == {"use_cpu": True, "ddp_backend": None, "ddp_timeout": 12 * 3600}


def test_deepspeed_on_cpus_talks_through_gloo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    found = processes.settings(bf16=False)
    assert (found["use_cpu"], found["ddp_backend"]) == (False, "gloo")


def test_fsdp_without_an_accelerator_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UsageError, match="FSDP was asked for"):
        processes.join()


def test_a_launch_of_one_process_for_several_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    # What accelerate 1.15 sets for `launch --cpu --num_processes 2`.
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    processes._warn_of_one()
    assert "has started this one alone" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "0")
    processes._warn_of_one()
    assert capsys.readouterr().err == ""
