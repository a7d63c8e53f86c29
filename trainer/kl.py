"""The coefficient of the KL term, driven towards a target.

The rule is OpenRLHF's `AdaptiveKLController` (Ziegler et al., arXiv:1909.08593, section 2.2), with the values of
VLAA-Thinking (arXiv:2504.11468, appendix C.1): begin at 1e-3, target 5e-4; its horizon of 10,000 is OpenRLHF's default.

Two things differ from OpenRLHF. It measures the KL on fresh rollouts; here it is TRL's estimate of every optimiser step
(k3, the mean over tokens). It moves once per rollout with n = its completions; here each step moves with n = its own,
which compounds to nearly the same: 1.042 instead of 1.041 at most for a rollout of the paper's.
"""

import math
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

MAX_ERROR = 0.2
"""Largest relative error that counts; a KL far off moves the coefficient no faster."""


def next_coefficient(coefficient: float, *, kl: float, target: float, horizon: int, n: int) -> float:
    """Return the coefficient after n samples whose mean KL was `kl`.

    Args:
        coefficient: the one that was in force, above 0.
        kl: mean KL per token, in nats.
        target: the KL that is wanted, in nats, above 0.
        horizon: the samples over which a constant error of `MAX_ERROR` moves the coefficient by about that share.
        n: completions since the last change.

    >>> next_coefficient(1.0, kl=0.002, target=0.001, horizon=10_000, n=1_000)  # error 1, clipped to 0.2; 1 + 0.2 / 10
    1.02
    """
    error = min(MAX_ERROR, max(-MAX_ERROR, kl / target - 1.0))
    return coefficient * (1.0 + error * n / horizon)


class KLController(TrainerCallback, ExportableState):
    """Keeps the coefficient, and moves it whenever a step's KL is logged.

    A checkpoint's trainer_state.json holds it; Trainer restores it where `restore_callback_states_from_checkpoint` is
    set. The trainer asks for `coefficient` before every step, so the object may be replaced by a restored one.

    Args:
        init: the first coefficient, above 0.
        target: the KL that is wanted, in nats; `None` keeps the coefficient as it is.
        horizon: as for `next_coefficient`.
        n: completions in an optimiser step.
    """

    def __init__(self, init: float, target: float | None, horizon: int, n: int) -> None:
        self.init = init
        self.target = target
        self.horizon = horizon
        self.n = n
        self.coefficient = init

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Move the coefficient by the KL of the step that has just ended."""
        kl = (logs or {}).get("kl")
        if self.target is not None and kl is not None and math.isfinite(kl):
            self.coefficient = next_coefficient(
                self.coefficient, kl=kl, target=self.target, horizon=self.horizon, n=self.n
            )

    def state(self) -> dict[str, dict[str, Any]]:
        """Return what a checkpoint keeps."""
        return {
            "args": {"init": self.init, "target": self.target, "horizon": self.horizon, "n": self.n},
            "attributes": {"coefficient": self.coefficient},
        }
