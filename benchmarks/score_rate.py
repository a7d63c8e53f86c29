"""Score JSONL rows from stdin with one scorer, in this process's main thread; JSON on stdout says how long it took.

    python score_rate.py robust DATA < rows      ahabench's `robust`, without worker processes
    python score_rate.py math-verify < rows      math-verify, called directly on every response
    python score_rate.py lmms-eval < rows        lmms-eval's own rule scorer, with the Python that has it

A row has item_id, response, gold and labels. What is printed has the verdicts, in the rows' order, and the wall and CPU
seconds of the scoring alone: not of start-up, imports, reading, and one response that is judged before, so that what a
library imports with its first comparison is no part of the rate. CPU seconds are those of child processes too.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

Judge = Callable[[dict[str, Any]], bool]


def robust(folder: Path) -> Judge:
    from ahabench.harness import registry
    from ahabench.harness.dataset import load, without_images
    from ahabench.harness.score import judge_one
    from ahabench.harness.types import Response

    task = registry.find_task("mathvision")
    scorer = registry.find_scorer(task, "robust")
    items = {item.id: item for item in without_images(load(task, data=folder).items)}

    def judge(row: dict[str, Any]) -> bool:
        response = Response(item_id=row["item_id"], text=row["response"])
        return judge_one(scorer, items[row["item_id"]], response).correct

    return judge


def math_verify() -> Judge:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, StringExtractionConfig, parse, verify

    formulas = (LatexExtractionConfig(), ExprExtractionConfig())

    def judge(row: dict[str, Any]) -> bool:
        # Of the settings that were tried, those that agree best: letters beside formulas where there are options.
        configs = (*formulas, StringExtractionConfig(strings=tuple(row["labels"]))) if row["labels"] else formulas
        return bool(verify(parse(f"${row['gold']}$", configs), parse(row["response"], configs)))

    return judge


def lmms_eval() -> Judge:
    # Read when it is imported: no judge model.
    os.environ["USE_LLM_JUDGE"] = "False"
    from lmms_eval.tasks._task_utils.reasoning_utils import compute_score

    def judge(row: dict[str, Any]) -> bool:
        # As its own task for MathVision calls it: make_reasoning_process_results.
        score = compute_score(
            data_source="mathvision", solution_str=row["response"].strip(), ground_truth=str(row["gold"])
        )
        return score["acc_score"] == 1.0

    return judge


def cpu_s() -> float:
    """Return the user and system time that this process and its children, ended or not, have used."""
    me = psutil.Process()
    return sum(sum(process.cpu_times()[:4]) for process in (me, *me.children(recursive=True)))


def main() -> None:
    scorer, *folders = sys.argv[1:]
    rows = [json.loads(line) for line in sys.stdin]
    # Libraries print what they please: stdout carries the result alone.
    out, sys.stdout = sys.stdout, sys.stderr
    judge = {"robust": robust, "math-verify": math_verify, "lmms-eval": lmms_eval}[scorer](*map(Path, folders))
    judge(rows[0] | {"response": "\\boxed{\\frac{x}{2}}"})
    cpu, start = cpu_s(), time.perf_counter()
    verdicts = [judge(row) for row in rows]
    wall = time.perf_counter() - start
    json.dump({"wall_s": wall, "cpu_s": cpu_s() - cpu, "verdicts": verdicts}, out)


if __name__ == "__main__":
    main()
