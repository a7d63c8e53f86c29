"""A training run as one HTML file: curves of everything that was logged, findings, and example rollouts.

No script, nothing loaded; what a model wrote is only ever text in it. A pure function of the run's files.
"""

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
from ahabench.trainer.resuming import LOG
from ahabench.trainer.task import TASK

REPORT = "report.html"
WIDTH, HEIGHT, EDGE = 280, 90, 4
"""Of a curve's drawing, in pixels."""
EXAMPLES = 6
"""Rollouts that are shown of each of the first, middle and last step."""
LONGEST = 6_000
"""Characters of a response that are shown."""
_BASELINE = "baseline/"
_LEFT_OUT = ("step", "epoch", "step_time", "total_flos", "num_tokens")
_TITLES = (
    ("Reward", ("reward", "rewards/", "frac_reward_zero_std", "reward_std")),
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
        first, last = self.points[0][0], self.points[-1][0]
        inner, tall = WIDTH - 2 * EDGE, HEIGHT - 2 * EDGE
        return " ".join(
            f"{EDGE + inner * (step - first) / max(1, last - first):.1f},"
            f"{EDGE + tall * (1 - ((value - low) / (high - low) if high > low else 0.5)):.1f}"
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
            if plain in _LEFT_OUT or plain.startswith("train_") or isinstance(value, bool):
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


def examples(responses: Sequence[Mapping[str, Any]], verdicts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a few rollouts of the first, the middle and the last step that has any, spread over kinds and rewards."""
    rules = {(row["item_id"], row["sample_index"]): row for row in verdicts}
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
        found += [_example(row, rules.get((row["item_id"], row["sample_index"]), {})) for row in chosen]
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
    told = [list(read_jsonl(path)) if path.is_file() else [] for path in (rollouts / RESPONSES, rollouts / VERDICTS)]
    manifest = read_manifest(run)
    folder = files("ahabench.trainer")
    style = folder.joinpath("training.css.txt").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    template = environment.from_string(folder.joinpath("training.html.jinja").read_text(encoding="utf-8"))
    return template.render(
        # Ours, and digested as it stands: escaping would change it.
        style=Markup(style),
        style_digest=b64encode(sha256(style.encode()).digest()).decode(),
        model=manifest.model.name,
        status=manifest.status,
        steps=max((row["step"] for row in rows), default=0),
        alarm=any(row.get("benchmark/alarm") for row in rows),
        sections=sections(curves(rows)),
        examples=examples(*told),
        width=WIDTH,
        height=HEIGHT,
    )


def write_page(run: Path) -> Path:
    """Write the report of a training run into its folder, and return the file."""
    target = run / REPORT
    replace_file(target, [page(run).encode()])
    return target


def _belongs(name: str, head: str) -> bool:
    return name == head or name.startswith(head if head.endswith("/") else f"{head}/")


def _example(row: Mapping[str, Any], verdict: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "step": row["step"],
        "key": f"{row['item_id']} #{row['sample_index']}",
        "kind": row["kind"],
        "reward": "masked" if row["reward"] is None else f"{row['reward']:.3g}",
        "rule": verdict.get("rule", ""),
        "text": row["response"][:LONGEST],
    }
