"""Trackers that a run reports to: refused before the model is loaded, and their files read back."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness.errors import UsageError
from ahabench.trainer import grpo_run, sft
from ahabench.trainer.recipe import parse_recipe
from ahabench.trainer.recipe_files import parse_as
from ahabench.trainer.sft_recipe import SftRecipe
from ahabench.trainer.trackers import check_trackers


def test_a_package_that_is_missing_is_one_line_before_anything_is_read(tmp_path: Path) -> None:
    from transformers.integrations import integration_utils

    there = integration_utils.get_available_reporting_integrations()
    missing = next(name for name in ("swanlab", "clearml", "dvclive", "wandb") if name not in there)
    # Neither the model nor the data are there, so the tracker is asked for first.
    values = {"model": "nowhere", "data": "nowhere.json", "report_to": [missing]}
    out = tmp_path / "out"
    wanted = rf"^report_to names {missing}, .* pip install {missing}, or leave it out.*$"
    with pytest.raises(UsageError, match=wanted):
        grpo_run.train(parse_recipe(values, name="test"), out)
    with pytest.raises(UsageError, match=wanted):
        sft.train(parse_as(SftRecipe, values, name="test"), out)
    assert not out.exists()


def test_an_unknown_tracker_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown tracker in report_to 'tensorbord'\. Did you mean 'tensorboard'\?"):
        check_trackers(["tensorbord"])


def test_no_tracker_asks_for_nothing() -> None:
    check_trackers([])


def test_the_event_file_of_tensorboard_has_the_logs_values(untrained: Path, records: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    rows = json.loads((records / "records.json").read_text())
    for row in rows:
        row["completion"] = "<answer>3</answer>"
    (tmp_path / "sft.json").write_text(json.dumps(rows))
    values: dict[str, Any] = {
        "model": str(untrained),
        "data": str(tmp_path / "sft.json"),
        "images": str(records),
        "batch": 4,
        "micro_batch": 4,
        "max_steps": 3,
        "bf16": False,
        "gradient_checkpointing": False,
        "probe_prompts": 0,
        "report_to": ["tensorboard"],
    }
    out = tmp_path / "out"
    sft.train(parse_as(SftRecipe, values, name="test"), out)
    (folder,) = (out / "runs").iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    logged = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    for name in ("loss", "grad_norm", "learning_rate"):
        wanted = {row["step"]: row[name] for row in logged if name in row}
        found = {event.step: event.value for event in events.Scalars(f"train/{name}")}
        assert len(found) == 3
        assert found.keys() == wanted.keys()
        # Event files hold single precision.
        assert all(math.isclose(found[step], wanted[step], rel_tol=1e-6) for step in wanted)
