"""Train `tiny-cpu` with copies of the trainer in which changes are planted, and evaluate what came out.

    python tests/gate/train.py OUT                     the trainer as it is
    python tests/gate/train.py OUT --changes all       every change of changes.yaml besides
    python tests/gate/train.py OUT --record            and replace golden.json and baseline/ by what it did
    python tests/gate/train.py OUT --record --base     after making base/ anew

Every change has a folder in OUT with the whole trainer package, its source changed; a child process finds it before the
installed one. Nothing is replaced while a program runs, so what is trained with is what a wrong commit would hold.

    OUT/<change>/copy            the trainer
    OUT/<change>/golden          20 short steps, compared with golden.json; those of a fault end where they differ
    OUT/<change>/training        `tiny-cpu`, 16 steps from base/
    OUT/<change>/run             the mini suite, answered by the trained model
    OUT/<change>/result.json     {"golden": null or the first difference, "stopped": null or the error of the training}
"""

import argparse
import json
import multiprocessing
import os
import shutil
import sys
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

HERE = Path(__file__).parent
BASE, BASELINE, GOLDEN, CHANGES = HERE / "base", HERE / "baseline", HERE / "golden.json", HERE / "changes.yaml"
UNCHANGED = "unchanged"
STEPS = 16
MAX_NEW_TOKENS = 64
MEASURED = ("loss", "grad_norm", "beta", "learning_rate", "reward", "completions/mean_length")
"""Not TRL's "kl" and "entropy": they are means over a micro-batch's tokens, which depend on its size."""
RELATIVE, ABSOLUTE = 1e-3, 1e-5
"""As in tests/trainer/test_golden.py."""
SHORT = {
    "max_steps": 20,
    "prompts_per_rollout": 4,
    "train_batch": 8,
    "micro_batch": 8,
    "kinds": ["digit", "mcq", "math", "iou"],
}
Change = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--changes", default="", help="names with semicolons, or all")
    parser.add_argument("--only", choices=["golden", "gate"], help="one of the two parts")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--base", action="store_true", help="with --record: make the base anew too, in a minute")
    asked = parser.parse_args()
    asked.out = asked.out.absolute()
    changes = {UNCHANGED: {"fault": False}, **planted()}
    names = [UNCHANGED, *(list(planted()) if asked.changes == "all" else filter(None, asked.changes.split(";")))]
    if asked.record and asked.base:
        make_base()
    preload()
    for name in names:
        copy_trainer(asked.out / name / "copy", changes[name])
    parts = [asked.only] if asked.only else ["golden", "gate"]
    if asked.record and "golden" in parts:
        GOLDEN.unlink(missing_ok=True)
    run_all([(asked.out / name, changes[name], parts) for name in names], jobs=asked.jobs)
    if asked.record:
        record(asked.out / UNCHANGED)


def planted() -> dict[str, Change]:
    import yaml

    found: dict[str, Change] = yaml.safe_load(CHANGES.read_text(encoding="utf-8"))
    return found


def preload() -> None:
    """Import what takes seconds, once for all children; nothing of the trainer, which each has its own copy of."""
    import datasets  # noqa: F401
    import torch  # noqa: F401
    import transformers
    import trl.trainer.grpo_trainer  # noqa: F401

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    assert not any(name.startswith("ahabench.trainer") for name in sys.modules)


def copy_trainer(folder: Path, change: Change) -> None:
    """Write the trainer package with the change's edit under `folder`, as a part of the namespace ahabench."""
    from importlib.util import find_spec

    spec = find_spec("ahabench.trainer")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    package = folder / "ahabench" / "trainer"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(spec.submodule_search_locations[0], package, ignore=ignored)
    if "file" in change:
        path = package / change["file"]
        text = path.read_text(encoding="utf-8")
        if text.count(change["old"]) != 1:
            raise SystemExit(f"{change['old']!r} stands {text.count(change['old'])} times in trainer/{change['file']}")
        path.write_text(text.replace(change["old"], change["new"]), encoding="utf-8")


def run_all(work: list[tuple[Path, Change, list[str]]], *, jobs: int) -> None:
    fork = multiprocessing.get_context("fork")
    running: dict[int, tuple[Path, BaseProcess]] = {}
    todo = list(work)
    while todo or running:
        while todo and len(running) < jobs:
            folder, change, parts = todo.pop(0)
            child: BaseProcess = fork.Process(target=run_one, args=(folder, change, parts))
            child.start()
            running[child.sentinel] = (folder, child)
        for sentinel in wait(list(running)):
            assert isinstance(sentinel, int)
            folder, child = running.pop(sentinel)
            child.join()
            if child.exitcode:
                raise SystemExit(f"{folder.name}: exit {child.exitcode}\n{(folder / 'stderr').read_text()[-3000:]}")
            print(json.dumps({"change": folder.name, **json.loads((folder / "result.json").read_text())}), flush=True)


def run_one(folder: Path, change: Change, parts: list[str]) -> None:
    log = os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.path.insert(0, str(folder / "copy"))
    import torch

    import ahabench.trainer

    assert Path(ahabench.trainer.__file__).is_relative_to(folder / "copy"), ahabench.trainer.__file__
    torch.set_num_threads(change.get("threads", 1))
    result: dict[str, Any] = {}
    if "golden" in parts:
        result["golden"] = short_steps(folder / "golden", change)
    if "gate" in parts:
        result["stopped"] = train_and_answer(folder, change)
    (folder / "result.json").write_text(json.dumps(result))


def recipe_of(change: Change, folder: Path, **overrides: Any) -> Any:
    """Return `tiny-cpu` from the committed base, with what a test and a change have otherwise."""
    from ahabench.trainer.recipe import load_recipe, parse_recipe

    values = load_recipe("tiny-cpu").model_dump(mode="json") | {"model": str(BASE), **overrides}
    values |= change.get("recipe", {})
    if isinstance(values["micro_batch"], float):
        values["micro_batch"] = int(values["micro_batch"] * values["train_batch"])
    if change.get("records"):
        values["data"] = str(written_records(folder))
    return parse_recipe(values, name="gate")


def written_records(folder: Path) -> Path:
    """Write the built-in training records as users have theirs, once, and return the file."""
    from ahabench.tasks.mini.training import train_samples, write_records
    from ahabench.trainer.task import MINI_RECORDS

    file = folder.parent / "records" / "train.json"
    return file if file.exists() else write_records(train_samples(MINI_RECORDS), file.parent)


def short_steps(out: Path, change: Change) -> str | None:
    """Return where the steps first differ from the golden ones, or how they stopped; `None` if they never do."""
    from transformers import TrainerCallback

    from ahabench.harness.errors import AhabenchError
    from ahabench.trainer.base_model import open_model
    from ahabench.trainer.grpo_run import build_trainer, load_items

    golden = json.loads(GOLDEN.read_text())["steps"] if GOLDEN.exists() else []
    steps: list[dict[str, float]] = []
    differences: list[str] = []

    class Watch(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" not in logs:
                return
            steps.append({"step": state.global_step} | {name: logs[name] for name in MEASURED if name in logs})
            if len(steps) <= len(golden) and (found := difference(steps[-1], golden[len(steps) - 1])):
                differences.append(found)
                control.should_training_stop = change["fault"]

    out.mkdir()
    recipe = recipe_of(change, out, **SHORT)
    trainer = build_trainer(recipe, load_items(recipe), open_model(recipe, out), out)
    trainer.args.save_strategy = "no"
    trainer.add_callback(Watch())
    try:
        trainer.train()
    except AhabenchError as error:
        differences.append(str(error))
    (out / "steps.json").write_text(json.dumps(steps))
    return differences[0] if differences else None


def difference(found: dict[str, float], wanted: dict[str, float]) -> str | None:
    for name in wanted:
        value = found.get(name)
        if value is None or abs(value - wanted[name]) > max(ABSOLUTE, RELATIVE * abs(wanted[name])):
            shown = "none" if value is None else f"{value:.4g}"
            return f"step {wanted['step']}: {name} is {shown}, wanted {wanted[name]:.4g}"
    return None


def train_and_answer(folder: Path, change: Change) -> str | None:
    """Train and evaluate; return the error of a training that stopped itself."""
    from ahabench.harness.errors import AhabenchError
    from ahabench.trainer.grpo_run import train

    recipe = recipe_of(change, folder, max_steps=STEPS)
    try:
        final = train(recipe, folder / "training")
    except AhabenchError as error:
        return str(error)
    answer(final, folder / "run")
    return None


def answer(checkpoint: Path, run: Path) -> None:
    from ahabench.harness import plans, registry
    from ahabench.harness.engines import open_engine
    from ahabench.harness.evaluation import evaluate
    from ahabench.harness.runner import Plan
    from ahabench.harness.sampling import Sampling

    tasks = tuple(
        plans.plan_task(task, split, style="think", data=None, limit=None)
        for task, split in registry.parse_tasks("all", suite="mini")
    )
    engine = open_engine("transformers", str(checkpoint), sampling=Sampling(max_new_tokens=MAX_NEW_TOKENS))
    evaluate(Plan(tasks=tasks), engine, run, scorer="robust", data=None)


def make_base() -> None:
    """Make the reference model and keep it in half precision: 1.7 MB, and the same start on every machine."""
    fork = multiprocessing.get_context("fork")
    child = fork.Process(target=make_base_here)
    child.start()
    child.join()
    assert child.exitcode == 0, child.exitcode


def make_base_here() -> None:
    import torch
    from transformers import AutoModelForImageTextToText

    from ahabench.trainer.reference import make_reference

    shutil.rmtree(BASE, ignore_errors=True)
    make_reference(BASE, progress=lambda line: print(line, file=sys.stderr, flush=True))
    model = AutoModelForImageTextToText.from_pretrained(BASE, dtype=torch.float16)
    model.save_pretrained(BASE)


def record(folder: Path) -> None:
    """Keep the unchanged trainer's steps, and its run without what is derived from the responses."""
    from importlib import metadata

    from ahabench.harness.manifest import read_manifest, write_manifest

    if (folder / "golden" / "steps.json").exists():
        steps = json.loads((folder / "golden" / "steps.json").read_text())
        versions = {name: metadata.version(name) for name in ("torch", "transformers", "trl")}
        lines = ",\n".join(f"    {json.dumps(row)}" for row in steps)
        GOLDEN.write_text(f'{{\n  "versions": {json.dumps(versions)},\n  "steps": [\n{lines}\n  ]\n}}\n')
    if (folder / "run").exists():
        shutil.rmtree(BASELINE, ignore_errors=True)
        derived = shutil.ignore_patterns("verdicts.jsonl", "metrics.json", "*.lock")
        shutil.copytree(folder / "run", BASELINE, ignore=derived)
        manifest = read_manifest(BASELINE)
        # Not where it stood on somebody's disk.
        model = manifest.model.model_copy(update={"name": f"tiny-cpu, {STEPS} steps"})
        write_manifest(BASELINE, manifest.model_copy(update={"model": model}))


if __name__ == "__main__":
    main()
