"""Trains as the command does, but on process 1 the reward fails: python failing.py RECIPE.json OUT"""

import json
import sys
from pathlib import Path
from typing import Any

from ahabench.harness import cli
from ahabench.trainer.grpo_run import train
from ahabench.trainer.processes import is_main, speaking_once
from ahabench.trainer.recipe import parse_recipe
from ahabench.trainer.rewards import MixedReward


def judge(*given: Any) -> Any:
    raise ZeroDivisionError("no judge today")


def main() -> None:
    if not is_main():
        MixedReward.judge = judge  # type: ignore[method-assign]
    recipe, out = Path(sys.argv[1]), Path(sys.argv[2])
    with speaking_once():
        train(parse_recipe(json.loads(recipe.read_text()), name="failing"), out)


if __name__ == "__main__":
    # With the command's own ending.
    cli._run = lambda arguments: main()  # type: ignore[assignment,return-value]
    cli.main()
