"""CPU seconds of a GRPO step: ours against a bare TRL script with the same model, data and settings, in one run.

    pytest -m slow benchmarks/test_grpo.py

Both sample the same completions: the seed is the same, and the learning rate so small that no update changes a token.
The bare script has what any script would have: TRL's trainer and a reward of three lines. Ours judges with the
benchmarks' comparisons, writes rollouts, verdicts, log and metrics, and checks every batch. They take turns, and the
quickest round of each counts, in CPU seconds: a busy machine stretches those the least. Those of the worker for
computer algebra, which is another process, are in the wall time only.
"""

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ahabench.trainer.base_model import Front, open_model
from ahabench.trainer.data import Records
from ahabench.trainer.grpo import banned_tokens, messages
from ahabench.trainer.grpo_run import build_trainer, load_items, trainer_with
from ahabench.trainer.recipe import Recipe, load_recipe, parse_recipe

ROUNDS = 3
STEPS = 8
OVERHEAD = 0.05
SETTINGS = ["reference_steps=60", f"max_steps={STEPS}", "learning_rate=1e-12", "min_learning_rate=0"]


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("tiny-cpu", [*SETTINGS, "kinds=[digit,mcq,math,iou]"])


def bare(recipe: Recipe, records: Records, front: Front, out: Path) -> Any:
    """The script that somebody would write with TRL alone."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from ahabench.harness.images import decode

    items = records.items
    rows = {
        "prompt": [messages(item, recipe.system_prompt) for item in items],
        "images": [[decode(image.read(), name=item.item.id) for image in item.item.images] for item in items],
        "gt": [item.gold for item in items],
    }

    def exact(completions: list[Any], gt: list[str], **columns: Any) -> list[float]:
        said = [completion[0]["content"].split("<answer>")[-1].split("</answer>")[0] for completion in completions]
        return [float(answer.strip() == gold) for answer, gold in zip(said, gt, strict=True)]

    return GRPOTrainer(
        model=str(front.checkpoint.path),
        reward_funcs=exact,
        args=GRPOConfig(
            output_dir=str(out),
            per_device_train_batch_size=recipe.micro_batch,
            gradient_accumulation_steps=recipe.train_batch // recipe.micro_batch,
            generation_batch_size=recipe.rollout_batch,
            num_generations=recipe.group_size,
            max_steps=STEPS,
            max_completion_length=recipe.max_new_tokens,
            temperature=recipe.temperature,
            beta=recipe.kl.init if recipe.kl else 0.0,
            loss_type=recipe.loss,
            learning_rate=recipe.learning_rate,
            bf16=False,
            gradient_checkpointing=False,
            generation_kwargs={"suppress_tokens": banned_tokens(front.config, front.tokenizer)},
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=recipe.seed,
        ),
        train_dataset=Dataset.from_dict(rows),
        processing_class=front.processor,
    )


def spent_on(build: Callable[..., Any], recipe: Recipe, records: Records, front: Front, out: Path) -> dict[str, Any]:
    out.mkdir()
    trainer = build(recipe, records, front, out)
    trainer.args.save_strategy = "no"
    cpu, start = time.process_time(), time.perf_counter()
    trainer.train()
    lengths = [row["completions/mean_length"] for row in trainer.state.log_history if "completions/mean_length" in row]
    return {
        "cpu_s": (time.process_time() - cpu) / STEPS,
        "wall_s": (time.perf_counter() - start) / STEPS,
        "lengths": lengths,
    }


@pytest.mark.slow
def test_a_step_costs_hardly_more_than_trls(
    recipe: Recipe,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    record_ratio: Callable[..., Any],
    pytestconfig: pytest.Config,
) -> None:
    torch.set_num_threads(1)
    front = open_model(recipe, tmp_path)
    records = Records(load_items(recipe).items[:256], ())
    spent: dict[str, list[dict[str, Any]]] = {"ahabench": [], "bare TRL": []}
    for turn in range(ROUNDS):
        pair = [("ahabench", build_trainer), ("bare TRL", bare)]
        for name, build in pair if turn % 2 else reversed(pair):
            spent[name].append(spent_on(build, recipe, records, front, tmp_path / f"{name} {turn}"))
    lengths = {json.dumps(one["lengths"]) for rounds in spent.values() for one in rounds}
    assert len(lengths) == 1, "both must have sampled the same completions"
    best = {name: min(one["cpu_s"] for one in rounds) for name, rounds in spent.items()}
    ours_s, reference_s = best["ahabench"], best["bare TRL"]
    record_ratio("GRPO step", reference="bare TRL", ours_s=ours_s, reference_s=reference_s, limit=1 + OVERHEAD)
    overhead = ours_s / reference_s - 1
    with capsys.disabled():
        print(f"\nGRPO step, {recipe.rollout_batch} completions a rollout, the quickest of {ROUNDS} rounds")
        for name, rounds in spent.items():
            walls = "  ".join(f"{one['wall_s']:.3f}" for one in rounds)
            print(f"{name:10}{best[name]:>8.3f} CPU s; wall s of each round: {walls}")
        print(f"overhead  {overhead:>8.1%}")
    if not pytestconfig.getoption("benchmark_disable"):  # a run that times nothing asserts nothing about time
        assert overhead < OVERHEAD


SMALLER = 8
GROUPS, GROUP, PICTURE_PX = 4, 8, 336
"""A rollout has 32 completions of prompts with 144 tokens of an image and some 120 of text."""
SETTINGS_OF_A_SHARED_PROMPT = {
    "group_size": GROUP,
    "prompts_per_rollout": GROUPS,
    "train_batch": GROUPS * GROUP,
    "micro_batch": GROUP,
    "max_new_tokens": 64,
    "max_steps": 1,
    "learning_rate": 1e-12,
    "min_learning_rate": 0,
    "freeze_vision": True,
    "bf16": False,
    "gradient_checkpointing": True,
    "save_steps": 1000,
}
"""The paper's, but for the sizes: a frozen tower, a KL term, gradient checkpointing."""
WAYS = {"TRL": {"share_prompts": False}, "shared": {}, "shared, groups kept": {"keep_groups": True}}
QUICKER = 1.5


def scaled(folder: Path) -> Path:
    """Write an untrained Qwen2.5-VL with the 3B's widths and depths divided by `SMALLER`, tower and decoder alike.

    Beside each other its parts cost what the large one's do: of the multiplications for an image's token, the tower's
    four patches take about half in both.
    """
    import torch
    import transformers

    from ahabench.trainer.reference import new_tokenizer
    from ahabench.trainer.tokenizer import TEMPLATE

    tokenizer = new_tokenizer()
    tokenizer.chat_template = TEMPLATE
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.Qwen2_5_VLForConditionalGeneration(_config(tokenizer))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    library: Any = transformers
    limits = {"min_pixels": 56 * 56, "max_pixels": PICTURE_PX**2}
    library.Qwen2_5_VLProcessor(
        library.Qwen2VLImageProcessor(**limits),
        tokenizer,
        library.Qwen2VLVideoProcessor(**limits),
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    return folder


def _config(tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLConfig

    from ahabench.trainer.tokenizer import IMAGE, VIDEO, VISION_END, VISION_START

    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    ids = dict(zip(names, tokenizer.convert_tokens_to_ids([IMAGE, VIDEO, VISION_START, VISION_END]), strict=True))
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 2048 // SMALLER,
        "intermediate_size": 11008 // SMALLER,
        "num_hidden_layers": 36 // SMALLER,
        "num_attention_heads": 16 // SMALLER,
        "num_key_value_heads": 1,
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6},
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "depth": 32 // SMALLER,
        "hidden_size": 1280 // SMALLER,
        "intermediate_size": 3420 // SMALLER,
        "num_heads": 16 // SMALLER,
        "out_hidden_size": 2048 // SMALLER,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [32 // SMALLER - 1],
    }
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, dtype="float32", **ids)


def pictured(folder: Path) -> Path:
    """Write records of one image and one question each."""
    folder.mkdir()
    rows = []
    for index in range(GROUPS):
        noise = random.Random(index).randbytes(3 * PICTURE_PX**2)
        Image.frombytes("RGB", (PICTURE_PX, PICTURE_PX), noise).save(folder / f"{index}.png")
        row = {"id": f"r{index}", "image": f"{index}.png", "verifier_type": "digit", "gt": 1}
        rows.append(row | {"question": f"How many squares are there in picture {index}?"})
    (folder / "records.json").write_text(json.dumps(rows))
    return folder / "records.json"


def odd_ids(completion_ids: list[list[int]], **columns: Any) -> list[float | None]:
    return [sum(token % 2 for token in ids) / len(ids) for ids in completion_ids]


def parts_of_a_step(recipe: Recipe, out: Path) -> dict[str, float]:
    """Return the CPU seconds of one step, by part."""
    out.mkdir()
    trainer = trainer_with(recipe, load_items(recipe), open_model(recipe, out), odd_ids, out)
    spent = dict.fromkeys(("generation", "reference", "forward"), 0.0)
    start = time.process_time()

    def timed(name: str, part: Callable[[Any], str]) -> None:
        method = getattr(trainer, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            key, begun = part(args[0]), time.process_time()
            found = method(*args, **kwargs)
            spent[key] += time.process_time() - begun
            return found

        setattr(trainer, name, call)

    timed("_generate", lambda _: "generation")
    timed("_get_per_token_logps_and_entropies", lambda model: "forward" if model is trainer.model else "reference")
    trainer.args.save_strategy = "no"
    trainer.train()
    spent["whole"] = time.process_time() - start
    return spent


@pytest.mark.slow
def test_a_step_is_quicker_with_shared_prompts(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    record_ratio: Callable[..., Any],
    pytestconfig: pytest.Config,
) -> None:
    """All but the generation, which is vLLM's where somebody trains in earnest, and knows shared prompts there."""
    torch.set_num_threads(1)
    timing = not pytestconfig.getoption("benchmark_disable")
    places = {"model": str(scaled(tmp_path / "model")), "data": str(pictured(tmp_path / "data"))}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for turn in range(2 if timing else 1):
        for name, way in list(WAYS.items())[:: 1 if turn % 2 else -1]:
            recipe = parse_recipe(places | SETTINGS_OF_A_SHARED_PROMPT | way, name=name)
            rounds[name].append(parts_of_a_step(recipe, tmp_path / f"{name} {turn}"))
    best = {name: min(found, key=lambda one: one["whole"] - one["generation"]) for name, found in rounds.items()}
    trained = {name: one["whole"] - one["generation"] for name, one in best.items()}
    with capsys.disabled():
        print(f"\nCPU s of a step of {GROUPS} x {GROUP} completions; times as quick as TRL's, without generation")
        print(f"{'':20}{'generation':>11}{'reference':>11}{'forward':>9}{'the rest':>10}{'quicker':>9}{'whole':>7}")
        for name, one in best.items():
            rest = trained[name] - one["reference"] - one["forward"]
            print(
                f"{name:20}{one['generation']:>11.2f}{one['reference']:>11.2f}{one['forward']:>9.2f}{rest:>10.2f}",
                end="",
            )
            print(f"{trained['TRL'] / trained[name]:>9.2f}{best['TRL']['whole'] / one['whole']:>7.2f}")
    for name in list(WAYS)[1:]:
        seconds = {"ours_s": trained[name], "reference_s": trained["TRL"]}
        record_ratio(f"GRPO step, {name}", reference="each completion alone", limit=1 / QUICKER, **seconds)
        if timing:  # a run that times nothing asserts nothing about time
            assert trained["TRL"] / trained[name] > QUICKER
