"""The base as it comes and forced to think."""

from dataclasses import replace
from pathlib import Path

import pytest

from ahabench.harness import registry
from ahabench.harness.dataset import load
from ahabench.harness.errors import UsageError
from ahabench.harness.types import Item, Result
from ahabench.tasks.mini.suite import levels
from ahabench.trainer.baseline import accuracies, answer_suite, force_careful
from ahabench.trainer.reference import make_reference


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reference(tmp_path_factory.mktemp("reference") / "base", steps=0)


def items_of(task: str) -> tuple[Item, ...]:
    return load(registry.find_task(task), "mini").items


def test_the_forced_model_differs_in_its_template_only(base: Path, tmp_path: Path) -> None:
    forced = force_careful(base, tmp_path / "forced")
    names = {path.name for path in base.iterdir()}
    assert {path.name for path in forced.iterdir()} == names
    changed = {name for name in names if (base / name).read_bytes() != (forced / name).read_bytes()}
    assert changed == {"chat_template.jinja"}


def test_the_forced_model_thinks_first(base: Path, tmp_path: Path) -> None:
    from transformers import AutoProcessor

    forced = force_careful(base, tmp_path / "forced")
    messages = [{"role": "user", "content": [{"type": "text", "text": "What?"}]}]
    plain, careful = (
        AutoProcessor.from_pretrained(folder).apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        for folder in (base, forced)
    )
    assert careful == plain + "<think>"


def test_a_past_turn_is_written_the_same_when_forced(base: Path, tmp_path: Path) -> None:
    from transformers import AutoProcessor

    forced = force_careful(base, tmp_path / "forced")
    messages = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "<answer> 3</answer>"}]
    plain, careful = (
        AutoProcessor.from_pretrained(folder).apply_chat_template(messages, tokenize=False) for folder in (base, forced)
    )
    assert careful == plain


def test_a_forced_model_is_not_forced_again(base: Path, tmp_path: Path) -> None:
    forced = force_careful(base, tmp_path / "forced")
    with pytest.raises(UsageError, match="is no reference checkpoint"):
        force_careful(forced, tmp_path / "twice")


def test_another_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "chat_template.jinja").write_text("{{ messages }}")
    for folder in ("other", "absent"):
        with pytest.raises(UsageError, match=f"{folder} is no reference checkpoint"):
            force_careful(tmp_path / folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_item_gets_one_result_and_a_model_that_knows_nothing_gets_none_right(base: Path) -> None:
    results = answer_suite(base, tasks=("logicvista",), max_new_tokens=4)
    assert set(results) == {"logicvista"}
    assert [result.item.id for result in results["logicvista"]] == [item.id for item in items_of("logicvista")]
    # A fresh model repeats its last token; with four tokens there is no room for an answer tag.
    assert all(result.scores == (0.0,) for result in results["logicvista"])


def test_accuracy_is_the_share_of_right_items_overall_by_task_and_by_level() -> None:
    results, right = {}, {"mathvista": 0.0, "logicvista": 1.0}
    for name, score in right.items():
        results[name] = [Result(item=item, scores=(score,)) for item in items_of(name)]
    found = accuracies(results)
    assert found["mathvista"].value == 0.0
    assert found["logicvista"].value == 1.0
    # Both have 120 items, 40 of each level.
    assert found["all"].value == 0.5
    assert found["all"].n == 240
    for level in (1, 2, 3):
        assert found[f"level {level}"].value == 0.5
        assert found[f"level {level}"].n == 80


def test_a_levels_accuracy_counts_that_levels_items() -> None:
    task = registry.find_task("mathvista")
    level_of = levels(task)
    items = items_of("mathvista")
    results = {"mathvista": [Result(item=item, scores=(float(level_of[item.id] == 2),)) for item in items]}
    found = accuracies(results)
    assert [found[f"level {level}"].value for level in (1, 2, 3)] == [0.0, 1.0, 0.0]


def test_clusters_of_two_tasks_stay_apart() -> None:
    one = [replace(item, group="same") for item in items_of("mathvista")[:2]]
    other = [replace(item, group="same") for item in items_of("logicvista")[:2]]
    results = {
        "mathvista": [Result(item=item, scores=(1.0,)) for item in one],
        "logicvista": [Result(item=item, scores=(0.0,)) for item in other],
    }
    # One cluster would leave no standard error; two clusters with means 1 and 0 have one.
    assert accuracies(results)["all"].stderr is not None
    assert accuracies({"mathvista": results["mathvista"]})["all"].stderr is None
