"""A training run as one HTML file: curves of everything that was logged, findings, and example rollouts.

No script, nothing loaded; what a model wrote is only ever text in it. A pure function of the run's files: of GRPO, or
of supervised fine-tuning, which has no rollouts.
"""

import json
import math
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from ahabench.harness.dataset import read_jsonl
from ahabench.harness.disk import replace_file
from ahabench.harness.errors import UsageError
from ahabench.harness.manifest import read_manifest
from ahabench.harness.runlog import RESPONSES, VERDICTS
from ahabench.trainer.run_folder import ITEMS, LOG
from ahabench.trainer.task import TASK

REPORT = "report.html"
SFT_RECORD = "sft.json"
"""What a run of supervised fine-tuning has instead of a manifest."""
WIDTH, HEIGHT, EDGE = 280, 90, 4
"""Of a curve's drawing, in pixels."""
EXAMPLES = 6
"""Rollouts that are shown of each of the first, middle and last step."""
LONGEST = 6_000
"""Characters of a response that are shown."""
_BASELINE = "baseline/"
_LEFT_OUT = ("step", "epoch", "step_time", "total_flos", "num_tokens")
_OVERVIEW = (
    "reward",
    "benchmark/all",
    "reward/answered",
    "completions/mean_length",
    "kl",
    "aha/with_moment",
    "loss",
    "mean_token_accuracy",
    "grad_norm",
)
"""What is shown first, as far as a run has it; no more than six."""
_TITLES = (
    ("Reward", ("reward", "rewards/", "reward/no_signal", "reward_std")),
    ("Benchmark", ("benchmark/",)),
    (
        "KL, entropy, loss",
        ("kl", "beta", "entropy", "loss", "policy_loss", "grad_norm", "learning_rate", "clip_ratio/"),
    ),
    ("Lengths and truncation", ("completions/", "length/", "truncated/")),
    ("Moments and repetition", ("aha/", "repetition")),
    ("Calibration of the open-ended scorer", ("calibration/",)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One number over the steps."""

    name: str
    points: tuple[tuple[int, float], ...]
    """(step, value), by step; at least one."""

    @property
    def path(self) -> str:
        """The points of an SVG polyline, WIDTH x HEIGHT, larger values higher."""
        low, high = self.low, self.high
        tall = HEIGHT - 2 * EDGE
        return " ".join(
            f"{self.x(step):.1f},{EDGE + tall * (1 - ((value - low) / (high - low) if high > low else 0.5)):.1f}"
            for step, value in self.points
        )

    @property
    def low(self) -> float:
        """The least value."""
        return min(value for _, value in self.points)

    @property
    def high(self) -> float:
        """The largest value."""
        return max(value for _, value in self.points)

    @property
    def constant(self) -> bool:
        """Whether there is nothing to draw."""
        return self.low == self.high

    def x(self, step: int) -> float:
        """Where a step lies in the drawing."""
        first, last = self.points[0][0], self.points[-1][0]
        return EDGE + (WIDTH - 2 * EDGE) * (step - first) / max(1, last - first)

    @property
    def first(self) -> float:
        """The value of the first step that has one."""
        return self.points[0][1]

    @property
    def last(self) -> float:
        """The value of the last step that has one."""
        return self.points[-1][1]


def curves(rows: Iterable[Mapping[str, Any]]) -> list[Curve]:
    """Return the curve of every number that a run logged, by name; "baseline/x" is the point of "x" at step 0."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        for name, value in row.items():
            plain = name.removeprefix(_BASELINE)
            if plain in _LEFT_OUT or isinstance(value, bool):
                continue
            if isinstance(value, int | float) and math.isfinite(value):
                found.setdefault(plain, {})[int(row["step"])] = float(value)
    return [Curve(name=name, points=tuple(sorted(points.items()))) for name, points in sorted(found.items())]


def sections(found: Sequence[Curve]) -> list[tuple[str, list[Curve]]]:
    """Return the curves under their titles; what fits no title comes last."""
    left = list(found)
    out: list[tuple[str, list[Curve]]] = []
    for title, heads in _TITLES:
        mine = [curve for curve in left if any(_belongs(curve.name, head) for head in heads)]
        left = [curve for curve in left if curve not in mine]
        out.append((title, mine))
    return [(title, members) for title, members in [*out, ("Other", left)] if members]


def overview(found: Sequence[Curve]) -> list[Curve]:
    """Return the curves that a reader wants first."""
    by_name = {curve.name: curve for curve in found}
    return [by_name[name] for name in _OVERVIEW if name in by_name][:6]


def alarms(found: Sequence[Curve]) -> list[str]:
    """Return one line per evaluation that set the alarm off, with how reward and benchmark stood then and at first."""
    by_name = {curve.name: curve for curve in found}
    raised = [step for step, _ in by_name["benchmark/alarm"].points] if "benchmark/alarm" in by_name else []
    return [
        f"step {step}: "
        + ", ".join(
            f"{name} {curve.first:.4g} → {[value for at, value in curve.points if at <= step][-1]:.4g}"
            for name in ("reward", "benchmark/all")
            if (curve := by_name.get(name)) is not None and curve.points[0][0] <= step
        )
        for step in raised
    ]


def examples(
    responses: Sequence[Mapping[str, Any]], verdicts: Sequence[Mapping[str, Any]], items: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return a few rollouts of the first, the middle and the last step that has any, spread over kinds and rewards."""
    rules = {(row["item_id"], row["sample_index"]): row for row in verdicts}
    asked = {row["item_id"]: row for row in items}
    steps = sorted({row["step"] for row in responses})
    shown = sorted({steps[0], steps[len(steps) // 2], steps[-1]}) if steps else []
    found = []
    for step in shown:
        of_step = sorted(
            (row for row in responses if row["step"] == step),
            key=lambda row: (row["kind"], -1.0 if row["reward"] is None else row["reward"], row["item_id"]),
        )
        # Evenly over the sorted rows: every kind, low rewards and high ones.
        chosen = [of_step[len(of_step) * k // EXAMPLES] for k in range(min(EXAMPLES, len(of_step)))]
        found += [
            _example(row, rules.get((row["item_id"], row["sample_index"]), {}), asked.get(row["item_id"], {}))
            for row in chosen
        ]
    return found


def page(run: Path) -> str:
    """Return the report of a training run as HTML.

    Raises:
        UsageError: the folder holds no log of a training.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    if not (run / LOG).is_file():
        raise UsageError(f"{run} holds no {LOG}; give the folder of a training run")
    rows = list(read_jsonl(run / LOG))
    rollouts = run / TASK.name
    written = [rollouts / name for name in (RESPONSES, VERDICTS, ITEMS)]
    told = [list(read_jsonl(path)) if path.is_file() else [] for path in written]
    model, status = _about(run)
    drawn = curves(rows)
    folder = files("ahabench.trainer")
    style = folder.joinpath("training.css.txt").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    template = environment.from_string(folder.joinpath("training.html.jinja").read_text(encoding="utf-8"))
    return template.render(
        # Ours, and digested as it stands: escaping would change it.
        style=Markup(style),
        style_digest=b64encode(sha256(style.encode()).digest()).decode(),
        model=model,
        status=status,
        steps=max((row["step"] for row in rows), default=0),
        alarms=alarms(drawn),
        alarmed=[step for curve in drawn if curve.name == "benchmark/alarm" for step, _ in curve.points],
        overview=overview(drawn),
        sections=sections(drawn),
        examples=examples(*told),
        width=WIDTH,
        height=HEIGHT,
    )


def write_page(run: Path) -> Path:
    """Write the report of a training run into its folder, and return the file."""
    target = run / REPORT
    replace_file(target, [page(run).encode()])
    return target


def _about(run: Path) -> tuple[str, str]:
    """Return a run's model and status."""
    if not (run / SFT_RECORD).is_file():
        manifest = read_manifest(run)
        return str(manifest.model.name), manifest.status
    try:
        record = json.loads((run / SFT_RECORD).read_bytes())
        return str(record["model"]["name"]), str(record["status"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{run / SFT_RECORD} is damaged") from error


def _belongs(name: str, head: str) -> bool:
    return name == head or name.startswith(head if head.endswith("/") else f"{head}/")


def _example(row: Mapping[str, Any], verdict: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "step": row["step"],
        "key": f"{row['item_id']} #{row['sample_index']}",
        "kind": row["kind"],
        "reward": "masked" if row["reward"] is None else f"{row['reward']:.3g}",
        "rule": verdict.get("rule", ""),
        "question": str(asked.get("question", ""))[:LONGEST],
        "gold": str(asked.get("gold", ""))[:LONGEST],
        "text": row["response"][:LONGEST],
    }
