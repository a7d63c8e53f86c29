import json
import shlex
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ahabench.harness.errors import UsageError
from ahabench.trainer import commands
from ahabench.trainer.data import Kind
from ahabench.trainer.plan import ACCELERATE, Machine, TrainPlan, plan, usual_gpus
from ahabench.trainer.plan_report import lines
from ahabench.trainer.recipe import Recipe, load_recipe
from ahabench.trainer.recipe_files import RECIPES, shipped
from ahabench.trainer.sft_recipe import SftRecipe
from ahabench.trainer.sizes import KNOWN, SHARDINGS, Load, memory_gb, shape_of

EIGHT = Machine(gpus=8, gpu_gb=80.0)
CPU = Machine(gpus=0, gpu_gb=80.0)
# The sizes of the sources in the paper's table 1, by reward.
SIZES = {"digit": 2_000, "mcq": 6_499 + 1_000, "math": 6_696, "iou": 2_000 + 2_000, "open_ended": 1_000 + 1_000 + 3_000}
GOLDS = {"digit": "3", "mcq": "A", "math": "x", "iou": "[0.1, 0.2, 0.7, 0.5]", "open_ended": "a dog"}


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many records of each kind as the released file has, without pictures."""
    path = tmp_path_factory.mktemp("released") / "VLAA-Thinking-GRPO-25K.json"
    rows = [
        {"id": f"{kind}-{n}", "question": "What?", "gt": GOLDS[kind], "verifier_type": kind}
        for kind, size in SIZES.items()
        for n in range(size)
    ]
    path.write_text(json.dumps(rows))
    return path


def planned(name: str, *overrides: str, machine: Machine = EIGHT) -> TrainPlan:
    """Return a plan by the published sizes, without the problem that the file is not here."""
    found = plan(name, list(overrides), machine)
    assert "VLAA-Thinking-GRPO-25K.json do not exist" in found.problems[0]
    return replace(found, problems=found.problems[1:])


def test_the_papers_records_make_392_steps(released: Path) -> None:
    found = plan("vlaa-qwen2.5-vl-3b", [f"data={released}"], EIGHT)
    assert (found.data, found.kinds) == ("found", dict(sorted(SIZES.items())))
    # 25,195 / 512 = 49.2; 2,048 completions / 256 = 8; 49 x 8.
    assert (found.items, found.rollouts, found.steps_per_rollout, found.steps) == (25_195, 49, 8, 392)
    # 3 % of 392 is 11.76; 256 completions are 8 processes x 4 x 8; 25,195 - 49 x 512 = 107.
    assert (found.warmup_steps, found.accumulation) == (12, 8)
    assert found.problems == ()
    assert "107 items of each episode are never drawn" in found.warnings[0]


@pytest.mark.parametrize("name", [name for name in shipped(Recipe) if not name.startswith("tiny-cpu")])
def test_every_recipe_of_the_paper_works_on_eight_gpus(name: str) -> None:
    found = planned(name)
    assert found.problems == ()
    assert found.total_gb is not None
    assert found.total_gb < 80
    assert found.steps == found.rollouts * 8


@pytest.mark.parametrize("name", [name for name in shipped(SftRecipe) if name != "sft-tiny-cpu"])
def test_every_sft_recipe_of_the_paper_is_planned(name: str) -> None:
    found = plan(name, [], EIGHT)
    # 126,413 / 128 = 987.6 and 25,000 / 128 = 195.3; the last batch is a small one.
    assert found.steps == (988 if "126k" in name else 196)
    assert found.data == "declared"
    assert len(found.problems) == 1
    assert "do not exist; get the file" in found.problems[0]


@pytest.mark.parametrize(
    ("name", "left_out", "rollouts"),
    [
        ("table5-rules", {"open_ended"}, 39),  # 20,195 / 512 = 39.4
        ("table5-no-digit", {"open_ended", "digit"}, 35),  # 18,195 / 512 = 35.5
        ("table5-no-math", {"open_ended", "math"}, 26),  # 13,499 / 512 = 26.4
        ("table5-no-mcq", {"open_ended", "mcq"}, 24),  # 12,696 / 512 = 24.8
        ("table5-no-iou", {"open_ended", "iou"}, 31),  # 16,195 / 512 = 31.6
        ("table5-mixed", set(), 49),
    ],
)
def test_an_ablation_leaves_out_its_reward(name: str, left_out: set[str], rollouts: int) -> None:
    assert set(load_recipe(name).kinds) == set(Kind) - left_out
    assert planned(name).rollouts == rollouts


@pytest.mark.parametrize(
    ("name", "lowest", "warmup", "kl"),
    [
        ("table6-basic", 0.0, 0.0, None),
        ("table6-lr1", 8e-7, 0.1, None),
        ("table6-lr2", 5e-7, 0.03, None),
        ("table6-lr2-kl1", 5e-7, 0.03, (1e-2, 5e-3)),
        ("table6-lr2-kl2", 5e-7, 0.03, (1e-3, 5e-4)),
    ],
)
def test_table_6_has_the_papers_rates_and_kl(
    name: str, lowest: float, warmup: float, kl: tuple[float, float] | None
) -> None:
    recipe = load_recipe(name)
    assert (recipe.min_learning_rate, recipe.warmup) == (lowest, warmup)
    assert (None if recipe.kl is None else (recipe.kl.init, recipe.kl.target)) == kl


def test_the_chosen_settings_are_the_base_recipe() -> None:
    assert load_recipe("table6-lr2-kl2") == load_recipe("vlaa-qwen2.5-vl-3b") == load_recipe("table5-mixed")


def test_missing_data_are_a_problem_and_the_published_sizes_stand_in() -> None:
    found = plan("vlaa-qwen2.5-vl-3b", [], EIGHT)
    assert found.kinds == dict(sorted(SIZES.items()))
    assert found.data == "declared"
    assert found.steps == 392
    assert "VLAA-Thinking-GRPO-25K.json do not exist" in found.problems[0]


def test_a_missing_image_is_a_problem(tmp_path: Path) -> None:
    row = {"id": "1", "image": "gone.png", "question": "?", "gt": "3", "verifier_type": "digit"}
    (tmp_path / "data.json").write_text(json.dumps([row]))
    settings = [f"data={tmp_path / 'data.json'}", "skip_bad_records=false"]
    (problem,) = plan("vlaa-qwen2.5-vl-3b", settings, EIGHT).problems
    assert "gone.png is missing" in problem


def test_batches_that_do_not_divide_are_refused() -> None:
    found = planned("vlaa-qwen2.5-vl-3b", machine=Machine(gpus=3, gpu_gb=80.0))
    assert any("wanted a multiple of micro_batch x processes = 4 x 3" in problem for problem in found.problems)


def test_too_little_memory_is_refused() -> None:
    (problem,) = planned("vlaa-qwen2.5-vl-7b", machine=Machine(gpus=8, gpu_gb=24.0)).problems
    assert "GB per GPU are needed and 24 are there" in problem


def test_vllm_without_a_gpu_is_refused() -> None:
    assert any("want a GPU" in problem for problem in planned("qwen2-vl-2b", machine=CPU).problems)


def test_vllm_that_is_not_installed_here_is_warned_of() -> None:
    if find_spec("vllm") is not None:
        pytest.skip("vLLM is installed here")
    found = planned("vlaa-qwen2.5-vl-3b")
    assert any("would not start: vLLM is not installed here" in text for text in found.warnings)
    assert not any("vLLM" in text for text in planned("vlaa-qwen2.5-vl-3b", "vllm=off").warnings)


@pytest.mark.parametrize(
    ("watch", "why"),
    [
        ("watch={benchmarks: [mathvsta]}", "unknown task 'mathvsta'"),
        ("watch={prompt: thing, suite: mini}", "'thing'"),
        ("watch={data: /nowhere/at/all}", "watch.data is /nowhere/at/all, and there is no such folder"),
    ],
)
def test_a_benchmark_that_cannot_be_watched_is_refused(watch: str, why: str) -> None:
    (problem,) = plan("tiny-cpu", [watch], CPU).problems
    assert why in problem


@pytest.mark.parametrize("name", ["tiny-cpu-watched", "tiny-cpu-hacked"])
def test_the_watched_recipes_work_on_a_cpu(name: str) -> None:
    assert plan(name, [], CPU).problems == ()


def test_an_unknown_tracker_is_warned_of() -> None:
    assert any("unknown tracker" in text for text in plan("tiny-cpu", ["report_to=[tensorbord]"], CPU).warnings)


def test_sequences_beyond_the_models_context_are_refused(untrained: Path) -> None:
    # 512 of text and 1,280 of the largest image leave 4,096 - 1,792 = 2,304.
    longest = [f"model={untrained}", "max_new_tokens=2304"]
    assert plan("tiny-cpu", longest, CPU).problems == ()
    (problem,) = plan("tiny-cpu", [f"model={untrained}", "max_new_tokens=2305"], CPU).problems
    assert (
        "a sequence may have 4,097 tokens, the model was made for 4,096; lower max_pixels or max_new_tokens" in problem
    )


def test_a_reward_models_own_code_wants_consent() -> None:
    asked = "reward_model={kind: xcomposer, model: internlm/internlm-xcomposer2d5-7b-reward}"
    with pytest.raises(UsageError, match="read it, then set trust_remote_code: true"):
        plan("vlaa-qwen2.5-vl-3b", [asked], EIGHT)


@pytest.mark.parametrize("kind", ["xcomposer", "classify-server"])
def test_the_lines_that_a_recipe_offers_for_the_papers_scorer_work(kind: str) -> None:
    text = (RECIPES / "vlaa-qwen2.5-vl-3b.yaml").read_text(encoding="utf-8")
    (line,) = (line for line in text.splitlines() if f"kind: {kind}" in line)
    asked = shlex.split(line.lstrip("# "))
    recipe = load_recipe("vlaa-qwen2.5-vl-3b", asked)
    assert recipe.reward_model.kind == kind


def test_a_group_size_that_does_not_divide_is_refused() -> None:
    # 512 x 5 = 2,560 completions are ten batches of 256; 512 x 3 = 1,536 are six; of 511 x 5 = 2,555 none.
    for fits in ("group_size=5", "group_size=3"):
        assert planned("vlaa-qwen2.5-vl-3b", fits).problems == ()
    with pytest.raises(UsageError, match="wanted a multiple of train_batch, 256"):
        plan("vlaa-qwen2.5-vl-3b", ["group_size=5", "prompts_per_rollout=511"], EIGHT)


def test_a_checkpoint_within_a_rollout_is_warned_of() -> None:
    assert any("no multiple of the 8 steps" in text for text in planned("qwen2-vl-2b", "save_steps=50").warnings)


def test_the_tiny_recipe_works_on_a_cpu() -> None:
    found = plan("tiny-cpu", [], CPU)
    assert found.problems == ()
    assert found.memory_gb is None
    assert found.command == "ahabench train grpo tiny-cpu --out DIR"


def test_a_recipe_of_the_built_in_model_is_planned_for_the_cpu_if_nobody_says() -> None:
    for recipe in ("tiny-cpu", "sft-tiny-cpu"):
        done = CliRunner().invoke(commands.train, ["plan", recipe])
        assert (done.exit_code, done.stdout.splitlines()[0]) == (0, f"{recipe}, on the CPU")
    assert usual_gpus("vlaa-qwen2.5-vl-3b", []) == 8


def test_open_ended_records_that_are_paid_by_similarity_are_warned_of() -> None:
    paid = "can be raised by describing the picture"
    assert any(paid in text for text in planned("vlaa-qwen2.5-vl-3b").warnings)
    judge = 'reward_model={kind: judge-server, model: NAME, url: "http://127.0.0.1:8000/v1"}'
    assert not any(paid in text for text in planned("vlaa-qwen2.5-vl-3b", judge).warnings)


def test_the_least_sharding_that_fits_is_taken() -> None:
    taken = [planned(name).sharding for name in ("vlaa-qwen2.5-vl-3b", "vlaa-qwen2.5-vl-7b")]
    assert taken == ["zero2", "zero3"]
    assert planned("qwen2-vl-2b", machine=Machine(gpus=8, gpu_gb=141.0)).sharding == "ddp"


def test_the_memory_is_that_of_the_formula() -> None:
    shape = KNOWN["Qwen/Qwen2.5-VL-3B-Instruct"]
    load = Load(
        micro_batch=4,
        completion_tokens=1024,
        image_px=1_003_520,
        trained=shape.parameters - shape.vision,
        reference=True,
        checkpointing=True,
        bf16=True,
        on_gpu=True,
        head_trained=True,
        vllm=0.3,
    )
    terms = memory_gb(shape, load, gpus=8, sharding="zero2", gpu_gb=80.0)
    assert load.tokens == 512 + 1280 + 1024
    # 2 x 3.7546; 2 x (3.7546 - 0.6687) / 8; 12 x 3.0859 / 8; 2 x 3.7546; 4 x 2,816 x 2,048 x (36 + 2) x 2;
    # 4 x 2,816 x (20 x 2,048 + 8 x 11,008 + 4 x 256) = 1.465 is less than 4,096 x 32,768 x 2 + 4 x 2,048 x 151,936.
    wanted = [7.509, 0.7715, 4.629, 7.509, 1.753, 0.0, 0.0, 1.513, 24.0, 2.0]
    assert list(terms.values()) == pytest.approx(wanted, rel=1e-3)


def test_the_report_shows_the_formula_of_what_stays_in_memory() -> None:
    report = "\n".join(lines(planned("vlaa-qwen2.5-vl-3b")))
    # As above: 3.7546 billion parameters, 0.6687 of them in the frozen tower.
    assert "weights 7.5 (2 P) + gradients 0.8 (2 T / 8) + Adam 4.6 (12 T / 8) + reference model 7.5 (2 P)" in report
    assert "of P = 3.755e+09 parameters, T = 3.086e+09 trained" in report


@pytest.mark.parametrize("name", ["tiny-cpu", "sft-tiny-cpu"])
def test_damaged_images_are_found_where_all_are_decoded(name: str, records: Path, tmp_path: Path) -> None:
    data = shutil.copytree(records, tmp_path / "data")
    rows = json.loads((data / "records.json").read_text())
    (data / "records.json").write_text(json.dumps([row | {"completion": "<answer>1</answer>"} for row in rows]))
    for index in (3, 5):
        image = data / "images" / f"{index}.png"
        image.write_bytes(image.read_bytes()[:60])
    asked = [f"data={data}", "model=reference"] + (
        ["batch=8", "micro_batch=8"] if name.startswith("sft") else ["prompts_per_rollout=16"]
    )
    assert plan(name, asked, CPU).problems == ()
    (problem,) = plan(name, asked, CPU, decode=True).problems
    assert problem.startswith("the images of 2 records cannot be decoded; the first: image ")


def test_built_in_data_are_nothing_to_get() -> None:
    found = plan("tiny-cpu", ["prompts_per_rollout=4000"], CPU)
    assert found.problems == ("mini has 2,000 records, wanted at least prompts_per_rollout = 4,000",)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_known_sizes_are_those_of_the_architecture(name: str) -> None:
    import torch
    import transformers

    library: Any = transformers
    shape = KNOWN[name]
    new = "2.5" in name
    # heads, key-value heads and the inner width, from the models' config.json.
    heads, kv, inner = {1536: (12, 2, 8960), 2048: (16, 2, 11008), 3584: (28, 4, 18944)}[shape.width]
    text = {
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": inner,
        "vocab_size": shape.vocabulary,
    }
    tied = shape.width < 3584
    own = {"hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": shape.width} if new else {}
    vision = own or {"embed_dim": 1280, "mlp_ratio": 4, "hidden_size": shape.width}
    family = "Qwen2_5_VL" if new else "Qwen2VL"
    config = getattr(library, f"{family}Config")(
        text_config=text | {"tie_word_embeddings": tied},
        vision_config=vision | {"depth": 32, "num_heads": 16},
        tie_word_embeddings=tied,
    )
    with torch.device("meta"):
        model = getattr(library, f"{family}ForConditionalGeneration")(config)
    assert sum(weight.numel() for weight in model.parameters()) == shape.parameters
    towers = [weight.numel() for name, weight in model.named_parameters() if "visual." in name]
    assert sum(towers) == shape.vision


def test_the_size_of_a_folder_is_read_from_its_configuration(untrained: Path) -> None:
    from safetensors.torch import load_file

    shape = shape_of(str(untrained))
    assert shape is not None
    assert shape.parameters == sum(weight.numel() for weight in load_file(untrained / "model.safetensors").values())
    assert 0 < shape.vision < shape.parameters


def test_the_base_model_is_as_large_as_the_instructed_one() -> None:
    assert shape_of("Qwen/Qwen2-VL-7B") == KNOWN["Qwen/Qwen2-VL-7B-Instruct"]
    assert shape_of("somebody/model") is None


def test_fsdp_keeps_float32_weights_and_shares_all_of_them() -> None:
    shape = KNOWN["Qwen/Qwen2.5-VL-3B-Instruct"]
    found = planned("vlaa-qwen2.5-vl-3b", machine=Machine(gpus=8, gpu_gb=80.0, sharding="fsdp"))
    assert found.memory_gb is not None
    assert found.memory_gb["weights"] == pytest.approx(4 * shape.parameters / 8 / 1e9)
    assert "bfloat16 copies" not in found.memory_gb
    assert "fsdp.yaml" in found.command


def test_every_sharding_has_its_accelerate_file() -> None:
    assert all((ACCELERATE / f"{name}.yaml").is_file() for name in SHARDINGS)


def test_the_command_prints_the_plan_and_refuses_what_cannot_work(released: Path) -> None:
    asked = ["plan", "vlaa-qwen2.5-vl-3b", f"data={released}"]
    done = CliRunner().invoke(commands.train, asked)
    assert done.exit_code == 0
    assert "steps        392, 8 from each rollout, 12 of them to warm up" in done.stdout
    assert "accelerate launch" in done.stdout
    refused = CliRunner().invoke(commands.train, [*asked, "--gpus", "3", "--json"])
    assert isinstance(refused.exception, UsageError)
    assert json.loads(refused.stdout)["problems"]
