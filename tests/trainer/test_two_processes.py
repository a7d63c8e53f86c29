"""Two processes on a CPU, joined through gloo: recorded completions teach them what they teach one."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest

from ahabench.trainer.recipe_files import RECIPES

pytestmark = pytest.mark.slow

ACCELERATE = RECIPES / "accelerate"
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch"]
RECORDED = Path(__file__).parent / "launched" / "recorded.py"
GROUP = 4
# Two rollouts of two prompts; nothing is clipped, so that gradients can be compared.
BASE = {
    "group_size": GROUP,
    "prompts_per_rollout": 2,
    "train_batch": 8,
    "micro_batch": 8,
    "max_steps": 2,
    "max_grad_norm": 1e6,
    "save_steps": 100,
}
CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "group-across": {"group_size": 8, "prompts_per_rollout": 1},
    "token-mean": {"loss": "dapo", "kl": None},
    "accumulated": {"micro_batch": 4},
    "lora": {"lora": {"rank": 4, "alpha": 8}},
    "frozen": {"freeze_vision": True},
}


def run(command: list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user would, far from the checkout."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ACCELERATE", "RANK"))}
    return subprocess.run(
        command,
        cwd=cwd,
        env=inherited | {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )


Cases = dict[str, dict[str, Any]]
Table = dict[str, list[list[int]]]


class Sides(NamedTuple):
    one: Path
    two: Path


@pytest.fixture(scope="module")
def table(records: Path, untrained: Path) -> Table:
    """Eight completions for every record, of words that the model may write; some are cut off."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(untrained)
    words = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))
    rng = Random(7)

    def completion() -> list[int]:
        drawn = rng.choices(words, k=rng.randint(1, 7))
        return drawn if rng.random() < 0.3 else [*drawn, tokenizer.eos_token_id]

    ids = [row["id"] for row in json.loads((records / "records.json").read_text())]
    return {item_id: [completion() for _ in range(8)] for item_id in ids}


def train(
    folder: Path, cases: Cases, table: Table, config: str | None, *options: str, again: str | None = None
) -> Path:
    """Train some cases in a folder: on one process, or on two as an accelerate file says, with half the batch each."""
    if config is not None:
        cases = {name: values | {"micro_batch": values["micro_batch"] // 2} for name, values in cases.items()}
    out = folder / "out"
    out.mkdir(exist_ok=True)
    asked = folder / "asked.json"
    asked.write_text(json.dumps({"cases": cases, "table": table, "out": str(out), "again": again}))
    python = [sys.executable]
    if config is not None:
        python = [*LAUNCH, "--config_file", str(ACCELERATE / config), *options]
    done = run([*python, str(RECORDED), str(asked)], folder)
    assert done.returncode == 0, done.stderr[-3_000:]
    return out


@pytest.fixture(scope="module")
def cases(settings: dict[str, Any]) -> Cases:
    return {name: settings | BASE | changed for name, changed in CASES.items()}


@pytest.fixture(scope="module")
def sides(cases: Cases, table: Table, tmp_path_factory: pytest.TempPathFactory) -> Sides:
    """All cases on one process, and on two."""
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    return Sides(train(one, cases, table, None), train(two, cases, table, "cpu.yaml"))


def shares(out: Path) -> list[list[list[Any]]]:
    return [json.loads(path.read_text()) for path in sorted(out.glob("share-*.json"))]


def steps(out: Path) -> list[dict[str, Any]]:
    return [row for line in (out / "log.jsonl").read_text().splitlines() if "loss" in (row := json.loads(line))]


@pytest.mark.parametrize("case", CASES)
def test_both_processes_together_get_each_prompt_and_sample_once(case: str, sides: Sides) -> None:
    (alone,) = shares(sides.one / case)
    halves = shares(sides.two / case)
    assert len(halves) == 2
    assert len(halves[0]) == len(halves[1]) == 8
    together = [key for half in halves for key in half]
    assert sorted(together) == sorted(alone)
    # Two steps of eight different completions.
    assert len({tuple(key) for key in together}) == 16


def test_a_group_may_lie_across_processes(sides: Sides) -> None:
    first, second = shares(sides.two / "group-across")
    assert {item for item, _ in first} == {item for item, _ in second}
    assert [sample for _, sample in first] == [0, 1, 2, 3] * 2
    assert [sample for _, sample in second] == [4, 5, 6, 7] * 2


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_one_process_with_twice_the_batch(case: str, sides: Sides) -> None:
    import torch
    from safetensors.torch import load_file

    one, two = (load_file(side / case / "gradients-1.safetensors") for side in sides)
    assert one.keys() == two.keys()
    largest = max(float(gradient.abs().max()) for gradient in one.values())
    assert largest > 1e-4
    for name, gradient in one.items():
        # Sums in another order: float32 keeps some seven digits of the largest terms.
        torch.testing.assert_close(two[name], gradient, rtol=1e-3, atol=1e-5 * largest, msg=name)


@pytest.mark.parametrize("case", CASES)
def test_losses_are_those_of_one_process_with_twice_the_batch(case: str, sides: Sides) -> None:
    one, two = steps(sides.one / case), steps(sides.two / case)
    assert [row["step"] for row in two] == [1, 2]
    names = ["loss", "grad_norm", "reward", "reward_std", "beta", "learning_rate"]
    if case != "accumulated":
        # TRL's means over the tokens of a micro-batch, averaged: other micro-batches, other means.
        names += ["entropy", "kl"] if "kl" in one[0] else ["entropy"]
    for alone, joined in zip(one, two, strict=True):
        for name in names:
            assert joined[name] == pytest.approx(alone[name], rel=1e-3, abs=1e-5), name


def test_what_is_frozen_gets_no_gradient(sides: Sides) -> None:
    from safetensors.torch import load_file

    names = {case: set(load_file(sides.two / case / "gradients-1.safetensors")) for case in CASES}
    assert any("visual" in name for name in names["full"])
    assert not any("visual" in name for name in names["frozen"])
    assert names["lora"]
    assert all("lora_" in name and "visual" not in name for name in names["lora"])


def weights(run: Path) -> dict[str, Any]:
    """Return the trained weights of a run by name; of an adapter alone where there is one."""
    from safetensors.torch import load_file
    from transformers import AutoModelForImageTextToText

    final = run / "final"
    if (final / "adapter_model.safetensors").is_file():
        return load_file(final / "adapter_model.safetensors")
    return dict(AutoModelForImageTextToText.from_pretrained(final).state_dict())


@pytest.mark.parametrize("config", ["fsdp.yaml", "zero2.yaml", "zero3.yaml"])
def test_what_is_shared_out_learns_what_is_not_and_goes_on(
    config: str, cases: Cases, table: Table, sides: Sides, tmp_path: Path
) -> None:
    import torch

    if config != "fsdp.yaml" and find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed; pip install deepspeed")
    asked = {name: cases[name] | {"save_steps": 1} for name in ("full", "lora")}
    options = ["--num_processes", "2", "--mixed_precision", "no", "--main_process_port", "0"]
    out = train(tmp_path, asked, table, config, *options, again="checkpoint-2")
    for case in asked:
        first, second = steps(sides.one / case)
        # The second step comes again.
        for alone, joined in zip([first, second, second], steps(out / case), strict=True):
            for name in ("loss", "grad_norm", "reward", "kl"):
                assert joined[name] == pytest.approx(alone[name], rel=1e-3, abs=1e-5), (case, name)
        wanted, found = weights(sides.one / case), weights(out / case)
        assert found.keys() == wanted.keys()
        for name, weight in wanted.items():
            # Steps of 3e-4 and 1.5e-4.
            torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-5, msg=name)
