import json
import re
from pathlib import Path
from typing import Any

import pytest

from ahabench.harness.errors import UsageError
from ahabench.trainer.training_page import HEIGHT, WIDTH, Curve, curves, examples, page, sections


def row(step: int, place: int, *, kind: str = "digit", reward: float | None = 0.0, text: str = "x") -> dict[str, Any]:
    return {
        "item_id": f"{kind}-{place}",
        "sample_index": step,
        "step": step,
        "kind": kind,
        "reward": reward,
        "response": text,
    }


def test_the_first_rollouts_means_are_the_point_of_step_0() -> None:
    rows = [
        {"step": 0, "baseline/reward": 0.1},
        {"step": 1, "reward": 0.2, "step_time": 3.0},
        {"step": 3, "reward": None},
    ]
    assert curves(rows) == [Curve(name="reward", points=((0, 0.1), (1, 0.2)))]


def test_a_curve_fills_its_drawing_and_rises_upwards() -> None:
    path = Curve(name="reward", points=((0, 0.0), (5, 1.0), (10, 0.5))).path
    # 4 px of edge; y counts downwards.
    assert path == f"4.0,{HEIGHT - 4:.1f} {WIDTH / 2:.1f},4.0 {WIDTH - 4:.1f},{HEIGHT / 2:.1f}"


def test_a_constant_curve_lies_in_the_middle() -> None:
    assert (
        Curve(name="beta", points=((0, 2.0), (1, 2.0))).path == f"4.0,{HEIGHT / 2:.1f} {WIDTH - 4:.1f},{HEIGHT / 2:.1f}"
    )


def test_every_curve_stands_under_one_title() -> None:
    names = ["reward", "reward/digit/mean", "kl", "aha/moments", "benchmark/all", "length/mcq", "something"]
    found = sections([Curve(name=name, points=((0, 1.0),)) for name in names])
    assert sorted(curve.name for _, members in found for curve in members) == sorted(names)
    assert found[-1][0] == "Other"
    assert [curve.name for curve in found[-1][1]] == ["something"]


def test_examples_are_of_the_first_the_middle_and_the_last_step_and_of_all_rewards() -> None:
    rows = [row(step, place, reward=place / 10) for step in (0, 2, 4, 6) for place in range(12)]
    found = examples(rows, [], [])
    assert sorted({one["step"] for one in found}) == [0, 4, 6]
    # Every second of the twelve.
    assert [one["reward"] for one in found if one["step"] == 0] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    from ahabench.harness.manifest import (
        EngineRecord,
        Manifest,
        ModelRecord,
        PixelsRecord,
        SamplingRecord,
        write_manifest,
    )

    manifest = Manifest(
        status="complete",
        model=ModelRecord(name="<b>model</b>", weights_digest="0" * 64, revision=None, adapter="", text_only=False),
        engine=EngineRecord(name="trl-grpo", version="1", device="cpu", dtype="float32"),
        sampling=SamplingRecord(max_new_tokens=8, temperature=1.0, top_p=1.0, top_k=0, repetition_penalty=1.0, seed=0),
        pixels=PixelsRecord(min=None, max=None),
        system_prompt=None,
        tasks={},
        packages={},
        git=None,
    )
    write_manifest(tmp_path, manifest)
    rows = [{"step": step, "reward": 0.1 * step, "kl": 0.0} for step in range(1, 4)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    (tmp_path / "rollouts").mkdir()
    hostile = row(0, 0, text="</pre><script>alert(1)</script>", reward=None)
    (tmp_path / "rollouts" / "responses.jsonl").write_text(json.dumps(hostile) + "\n")
    return tmp_path


def test_what_a_model_wrote_is_only_text(trained: Path) -> None:
    html = page(trained)
    assert "<script" not in html
    assert "&lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<b>model</b>" not in html
    assert "reward masked" in html


def test_a_rollout_stands_below_its_question_and_gold(trained: Path) -> None:
    asked = {"item_id": "digit-0", "step": 0, "question": "How many <cubes>?", "gold": "4"}
    (trained / "rollouts" / "items.jsonl").write_text(json.dumps(asked) + "\n")
    assert "<dt>question</dt><dd>How many &lt;cubes&gt;?</dd><dt>gold</dt><dd>4</dd>" in page(trained)


def test_the_page_loads_nothing(trained: Path) -> None:
    html = page(trained)
    assert "default-src 'none'" in html
    assert not re.search(r"(?:src|href)=|url\(|@import", html)


def test_an_alarm_stands_on_top(trained: Path) -> None:
    assert "Alarm:" not in page(trained)
    with (trained / "log.jsonl").open("a") as log:
        log.write('{"step": 0, "benchmark/all": 0.5}\n{"step": 3, "benchmark/all": 0.25}\n')
        log.write('{"step": 3, "benchmark/alarm": 1.0}\n')
    html = page(trained)
    assert "Alarm:" in html
    # The fixture's reward is a tenth of the step.
    assert "<li>step 3: reward 0.1 → 0.3, benchmark/all 0.5 → 0.25</li>" in html
    # A line at the last step, in reward and benchmark, each drawn twice, and in the constant kl, which is drawn once.
    assert html.count(f'<line x1="{WIDTH - 4:.1f}"') == 5


def test_what_matters_comes_first_and_what_stays_is_a_line(trained: Path) -> None:
    html = page(trained)
    assert html.index('aria-label="reward"') < html.index("<h2>Reward</h2>")
    assert "Constant: kl = 0<" in html


def test_a_run_of_supervised_fine_tuning_has_a_page_too(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')
    (tmp_path / "sft.json").write_text('{"status": "complete", "model": {"name": "m<b>"}}')
    html = page(tmp_path)
    assert "Training of m&lt;b&gt;" in html
    assert 'aria-label="loss"' in html
    assert "Rollouts" not in html


def test_a_torn_record_of_supervised_fine_tuning_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    (tmp_path / "sft.json").write_text("[")
    with pytest.raises(UsageError, match=r"sft.json is damaged"):
        page(tmp_path)


def test_a_folder_without_a_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no log.jsonl"):
        page(tmp_path)
