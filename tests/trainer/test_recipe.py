import re
from pathlib import Path

import pytest

from ahabench.harness.errors import UsageError
from ahabench.trainer.data import Kind
from ahabench.trainer.recipe import Recipe, load_recipe, parse_recipe
from ahabench.trainer.recipe_files import dump_recipe, method_of, shipped


@pytest.mark.parametrize("name", shipped(Recipe))
def test_a_shipped_recipe_survives_being_written_and_read(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    (tmp_path / "copy.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "copy.yaml") == recipe


def test_the_papers_recipe_has_the_papers_numbers() -> None:
    recipe = load_recipe("vlaa-qwen2.5-vl-3b")
    assert (recipe.group_size, recipe.temperature, recipe.episodes, recipe.inner_epochs) == (4, 0.8, 1, 1)
    assert (recipe.prompts_per_rollout, recipe.train_batch) == (512, 256)
    # 512 prompts x 4; eight optimiser steps of 256.
    assert recipe.rollout_batch == 2048 == 8 * recipe.train_batch
    assert recipe.kl is not None
    assert (recipe.kl.init, recipe.kl.target) == (1e-3, 5e-4)
    assert (recipe.min_learning_rate, recipe.warmup, recipe.loss) == (5e-7, 0.03, "grpo")
    # 25,195 prompts make 49 whole rollouts.
    assert 25_195 // recipe.prompts_per_rollout == 49


def test_the_papers_system_prompt_has_the_authors_spaces() -> None:
    prompt = load_recipe("vlaa-qwen2.5-vl-3b").system_prompt
    assert "within <think> </think> and <answer> </answer> tags" in prompt
    assert prompt.endswith("<think> reasoning process here </think> <answer> answer here </answer>")
    assert "\n" not in prompt


def test_overrides_go_before_the_file() -> None:
    recipe = load_recipe("tiny-cpu", ["seed=7", "kl.target=0.3", "kinds=[digit, mcq]", "learning_rate=1e-3"])
    assert (recipe.seed, recipe.kinds, recipe.learning_rate) == (7, (Kind.DIGIT, Kind.MCQ), 1e-3)
    assert recipe.kl is not None
    assert (recipe.kl.init, recipe.kl.target) == (0.01, 0.3)


def test_null_takes_the_kl_term_away() -> None:
    assert load_recipe("tiny-cpu", ["kl=null"]).kl is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learning_rat=1", "unknown recipe key 'learning_rat'. Did you mean 'learning_rate'?"),
        ("kl.targt=1", "unknown recipe key 'targt'. Did you mean 'target'?"),
        ("model.name=x", "the recipe key 'model' has no parts"),
        ("seed", "wanted key=value, found 'seed'"),
        ("=1", "wanted key=value"),
        ("seed=[", "the value of seed cannot be read"),
        ("learning_rate=-1", "learning_rate: Input should be greater than 0, found -1"),
        ("group_size=1", "group_size: Input should be greater than or equal to 2"),
        ("loss=ppo", "loss: Input should be 'grpo', 'dr_grpo' or 'dapo', found 'ppo'"),
        ("train_batch=192", "a rollout has prompts_per_rollout x group_size = 128 completions, wanted a multiple of"),
        ("micro_batch=48", "train_batch is 64, wanted a multiple of micro_batch, 48"),
        ("min_learning_rate=1", "min_learning_rate 1.0 is above learning_rate"),
        ("learning_rate=.inf", "learning_rate: Input should be a finite number, found inf"),
        ("kl.target=.nan", "kl.target: Input should be a finite number, found nan"),
        ("seed=2147483648", "seed: Input should be less than 2147483648"),
        ("kinds=[]", "kinds: Tuple should have at least 1 item"),
        ("lora={target_modules: '(('}", "lora.target_modules: '((' is no regular expression"),
        ("extra_rewards={length: 1, length_free_tokens: 48}", "length_free_tokens is not below max_new_tokens"),
    ],
)
def test_a_wrong_setting_is_one_line(override: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)) as refused:
        load_recipe("tiny-cpu", [override])
    assert "\n" not in str(refused.value)


def test_limits_of_pixels_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match="min_pixels 9 is above max_pixels 8"):
        load_recipe("tiny-cpu", ["min_pixels=9", "max_pixels=8"])


def test_a_recipe_of_ones_own_is_for_what_its_base_is_for(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: sft-tiny-cpu")
    (tmp_path / "again.yaml").write_text("base: mine.yaml")
    (tmp_path / "circle.yaml").write_text("base: circle.yaml")
    (tmp_path / "other.yaml").write_text("base: tiny-cpu")
    found = {path.stem: method_of(path) for path in tmp_path.glob("*.yaml")}
    assert found == {"mine": "sft", "again": "sft", "circle": "grpo", "other": "grpo"}


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'tiny-cpu'"):
        load_recipe("tiny-gpu")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: [", "is not YAML"),
        ("- model", "holds no keys and values"),
        ("model: x\ndata: y\nmodle: z", "unknown recipe key 'modle'. Did you mean 'model'?"),
        ("data: y", "model: Field required"),
        ("model: x\ndata: y\nkl: {init: 1}\nkl: {init: 2}", "the key 'kl' stands twice"),
        ("model: x\ndata: y\nkl: {init: 1, init: 2}", "the key 'init' stands twice"),
        ("!!python/object/apply:os.system ['touch owned']", "is not YAML"),
    ],
)
def test_a_bad_file_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UsageError, match=re.escape(message)) as refused:
        load_recipe(tmp_path / "bad.yaml")
    assert "\n" not in str(refused.value)


def test_a_value_that_unfolds_without_end_is_one_line(tmp_path: Path) -> None:
    lists = ["&a0 [x, x, x, x, x, x, x, x, x, x]"]
    lists += [f"&a{depth} [{', '.join([f'*a{depth - 1}'] * 10)}]" for depth in range(1, 12)]
    (tmp_path / "bomb.yaml").write_text(f"base: tiny-cpu\nseed: [{', '.join(lists)}]\n")
    with pytest.raises(UsageError, match="seed: Input should be a valid integer") as refused:
        load_recipe(tmp_path / "bomb.yaml")
    assert len(str(refused.value)) < 1_000


def test_remote_code_is_not_trusted_unless_the_recipe_says_so() -> None:
    assert not parse_recipe({"model": "a/b", "data": "x.json"}, name="test").trust_remote_code


def test_every_setting_has_a_default_but_the_model_and_the_data() -> None:
    assert [name for name, field in Recipe.model_fields.items() if field.is_required()] == ["model", "data"]
