"""What a gate demands: margins, the error that it accepts, and what to do about doubt."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ahabench.harness.errors import UsageError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

ANY = "*"
DEFAULT_MARGIN = 2.0
"""Points."""


class Policy(BaseModel):
    """A policy file, or what flags say. Margins are in points (2 is 2 of 100), all else in fractions."""

    # Strict, because a lenient float takes "yes" for a margin of one point.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    margin: dict[str, float] = {ANY: DEFAULT_MARGIN}
    """The largest drop that is accepted, in points, by "TASK:METRIC", "TASK" or "*"; the most exact name counts."""
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """One-sided: the chance of a PASS where the true drop is the margin, and of a FAIL there."""
    inconclusive: Literal["skip", "fail"] = "skip"
    """What a test in JUnit and pytest does where the data cannot decide. The command ends with 3 either way."""
    on_significant_drop: Literal["pass", "fail"] = "pass"
    """Whether a drop within the margin fails where it is significant (Holm over all rows)."""
    allow: list[str] = []
    """Fields in which the runs may differ."""
    metrics: list[str] = []
    """Metrics to compare beside each benchmark's headline, as "TASK:METRIC"."""
    allow_missing: bool = False
    """Whether to compare what both sides have, where a run lacks responses."""

    def margin_of(self, task: str, metric: str) -> float:
        """Return the margin of a row, as a fraction.

        Raises:
            UsageError: none is given for it.
        """
        for name in (f"{task}:{metric}", task, ANY):
            if name in self.margin:
                return self.margin[name] / 100
        raise UsageError(f"no margin for {task}; add {task}=POINTS or *=POINTS to --margin")

    def changed(self, values: Mapping[str, object]) -> Self:
        """Return the policy with the values that are not `None` in place of its own.

        Raises:
            UsageError: a value is out of its range.
        """
        given = {name: value for name, value in values.items() if value is not None}
        return type(self)._checked(self.model_dump() | given, "the flags")

    @classmethod
    def _checked(cls, values: object, where: str) -> Self:
        try:
            policy = cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            place = [where, ".".join(str(part) for part in first["loc"]), first["msg"]]
            raise UsageError(": ".join(filter(None, place)) + cls._hint(first)) from error
        for name, points in policy.margin.items():
            if not 0 <= points < 100:
                raise UsageError(f"{where}: the margin of {name} is {points:g}, wanted points from 0 to 100")
        return policy

    @classmethod
    def _hint(cls, error: "ErrorDetails") -> str:
        if error["type"] == "extra_forbidden" or not error["loc"]:
            return f"; a policy has {', '.join(cls.model_fields)}"
        return (
            '; wanted points, or points by benchmark such as {mathvista: 2, "*": 3}' if "margin" in error["loc"] else ""
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the policy in a YAML (or JSON) file.

        Raises:
            UsageError: there is none, or it is no policy.
        """
        from ahabench.harness.yaml_files import read_yaml

        values = read_yaml(path)
        points = values.get("margin") if isinstance(values, dict) else None
        if isinstance(points, int | float) and not isinstance(points, bool):
            values["margin"] = {ANY: points}
        return cls._checked({} if values is None else values, str(path))


def parse_margin(text: str) -> dict[str, float]:
    """Return the margins of "2" or "mathvista=2,dynamath:average=1,*=3", in points by name.

    Raises:
        UsageError: a part is no number of points, or a name stands twice.

    >>> parse_margin("mathvista=2,*=3")
    {'mathvista': 2.0, '*': 3.0}
    """
    margins: dict[str, float] = {}
    for part in text.split(","):
        name, _, points = part.strip().rpartition("=")
        try:
            value = float(points)
        except ValueError as error:
            raise UsageError(f"--margin {text!r}: {points!r} is no number of points") from error
        if (name or ANY) in margins:
            raise UsageError(f"--margin {text!r} names {name or ANY} twice")
        margins[name or ANY] = value
    return margins
