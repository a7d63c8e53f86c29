from pathlib import Path

import pytest

from ahabench.harness.errors import UsageError
from ahabench.trainer.recipe import Recipe, load_recipe
from ahabench.trainer.recipe_files import dump_recipe, shipped
from ahabench.trainer.sft_recipe import SftRecipe, load_sft_recipe


@pytest.mark.parametrize("name", shipped(SftRecipe))
def test_a_shipped_recipe_survives_being_written_and_read(name: str, tmp_path: Path) -> None:
    recipe = load_sft_recipe(name)
    (tmp_path / "again.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_sft_recipe(tmp_path / "again.yaml") == recipe


def test_the_papers_recipes_have_its_batch_and_frozen_vision() -> None:
    for name in ("sft-126k", "sft-25k", "sft-25k-qwen2-vl-7b"):
        recipe = load_sft_recipe(name)
        assert (recipe.batch, recipe.freeze_vision, recipe.epochs) == (128, True, 1)
    assert load_sft_recipe("sft-25k-qwen2-vl-7b").model == "Qwen/Qwen2-VL-7B-Instruct"


def test_the_two_kinds_of_recipes_are_told_apart() -> None:
    assert not set(shipped(Recipe)) & set(shipped(SftRecipe))
    with pytest.raises(UsageError, match="unknown recipe 'sft-126k'"):
        load_recipe("sft-126k")


def test_an_overlay_changes_single_values_of_a_block(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("model: m\ndata: d\nspikes: {window: 20, z: 4}\n")
    (tmp_path / "over.yaml").write_text("base: base.yaml\nspikes: {z: 5}\nlora: {rank: 4}\n")
    recipe = load_sft_recipe(tmp_path / "over.yaml", ["lora.alpha=8"])
    assert (recipe.model, recipe.spikes.window, recipe.spikes.z) == ("m", 20, 5)
    assert recipe.lora is not None
    assert (recipe.lora.rank, recipe.lora.alpha) == (4, 8)


def test_recipes_that_rest_on_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(UsageError, match="goes round in a circle"):
        load_sft_recipe(tmp_path / "a.yaml")
