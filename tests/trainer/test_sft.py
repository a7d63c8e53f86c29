"""Supervised fine-tuning: where the loss is, what stays frozen, what stops a run, and the way on to GRPO."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ahabench.harness.errors import UsageError
from ahabench.trainer.recipe_files import parse_as
from ahabench.trainer.sft_recipe import SftRecipe, Spikes

COMPLETIONS = [f"<think>the {number}</think><answer>{number}</answer>" for number in range(4)]


@pytest.fixture(scope="module")
def demonstrations(records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The records' pictures with completions of different lengths."""
    rows = json.loads((records / "records.json").read_text())
    for index, row in enumerate(rows):
        row["completion"] = COMPLETIONS[index % 4].replace("the", "the " * (1 + index % 3))
    file = tmp_path_factory.mktemp("demonstrations") / "sft.json"
    file.write_text(json.dumps(rows))
    return file


@pytest.fixture
def small(untrained: Path, records: Path, demonstrations: Path) -> dict[str, Any]:
    """A recipe of steps that take a fraction of a second."""
    return {
        "model": str(untrained),
        "data": str(demonstrations),
        "images": str(records),
        "batch": 4,
        "micro_batch": 2,
        "max_steps": 2,
        "learning_rate": 1e-3,
        "warmup": 0,
        "freeze_vision": False,
        "bf16": False,
        "gradient_checkpointing": False,
        "probe_prompts": 2,
        "probe_tokens": 4,
    }


Build = Callable[..., tuple[Any, Any, Any]]


@pytest.fixture
def build(small: dict[str, Any], tmp_path: Path) -> Build:
    """Return a trainer with its items and the front of its model."""

    def built(**overrides: Any) -> tuple[Any, Any, Any]:
        from ahabench.trainer import sft
        from ahabench.trainer.base_model import open_model

        recipe = parse_as(SftRecipe, small | overrides, name="test")
        front = open_model(recipe, tmp_path)
        sft.ensure_template(front)
        found = sft.load_items(recipe)
        return sft.build_trainer(recipe, found, front, tmp_path), found.items, front

    return built


def recipe_of(values: dict[str, Any]) -> SftRecipe:
    return parse_as(SftRecipe, values, name="test")


def test_the_loss_is_on_the_completion_and_the_end_of_its_turn_alone(build: Build) -> None:
    trainer, items, front = build()
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(6)])
    for item, ids, labels in zip(items, batch["input_ids"], batch["labels"], strict=False):
        # The template ends a turn with one token and nothing behind it.
        wanted = [*front.tokenizer(item.completion)["input_ids"], front.tokenizer.eos_token_id]
        assert labels[labels != -100].tolist() == wanted
        image = front.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        assert (ids == image).sum() == 4  # 56 x 56 pixels are 2 x 2 tokens
        assert (labels == image).sum() == 0


def test_the_loss_is_the_mean_over_those_tokens(build: Build) -> None:
    import torch
    from transformers import AutoModelForImageTextToText

    trainer, _, front = build()
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(4)])
    plain = AutoModelForImageTextToText.from_pretrained(front.checkpoint.path).eval()
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        logits = plain(**inputs).logits[:, :-1].log_softmax(-1)
        found = trainer.compute_loss(trainer.model, dict(batch))
    targets = batch["labels"][:, 1:]
    taken = [float(logits[row, place, token]) for (row, place), token in _with_loss(targets)]
    assert float(found) == pytest.approx(-sum(taken) / len(taken), rel=1e-5)


def _with_loss(targets: Any) -> list[tuple[tuple[int, int], int]]:
    return [
        ((row, place), int(token))
        for row, tokens in enumerate(targets)
        for place, token in enumerate(tokens)
        if token != -100
    ]


def test_the_count_of_tokens_with_loss_is_said(build: Build) -> None:
    from ahabench.trainer.sft import check_loss_tokens

    trainer, items, front = build()
    counts = check_loss_tokens(trainer, items, front)
    lengths = [len(front.tokenizer(item.completion)["input_ids"]) + 1 for item in items[:8]]
    assert (counts.rows, counts.loss) == (8, sum(lengths))
    assert counts.all > 2 * counts.loss


def test_a_template_that_drops_the_reasoning_is_refused(build: Build) -> None:
    from ahabench.trainer.sft import check_loss_tokens

    trainer, items, front = build()
    kept = front.processor.chat_template
    front.processor.chat_template = kept.replace("{{ part['text'] }}", "{{ part['text'].split('</think>')[-1] }}")
    assert front.processor.chat_template != kept
    with pytest.raises(UsageError, match="is not on its completion alone"):
        check_loss_tokens(trainer, items, front)


def test_a_template_that_ends_no_turn_is_refused(build: Build) -> None:
    from ahabench.trainer.sft import check_loss_tokens

    trainer, items, front = build()
    front.processor.chat_template = front.processor.chat_template.replace("<|im_end|>", "\n")
    with pytest.raises(UsageError, match="nothing teaches to stop"):
        check_loss_tokens(trainer, items, front)


def _weights(model: Any) -> dict[str, Any]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def test_a_frozen_vision_tower_does_not_move(build: Build) -> None:
    trainer, _, _ = build(freeze_vision=True)
    before = _weights(trainer.model)
    trainer.train()
    moved = {name for name, weight in trainer.model.named_parameters() if not weight.equal(before[name])}
    assert any("language_model" in name for name in moved)
    assert not any("visual" in name for name in moved)
    assert any("visual" in name for name in before)


def test_training_lowers_the_loss(build: Build) -> None:
    trainer, _, _ = build(max_steps=12, learning_rate=3e-3)
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert len(losses) == 12
    assert losses[-1] < 0.8 * losses[0]


def test_a_loss_that_is_not_finite_stops_before_the_weights_move(build: Build) -> None:
    import torch

    from ahabench.harness.errors import TrainingError

    trainer, _, _ = build()
    with torch.no_grad():
        trainer.model.model.language_model.norm.weight.fill_(float("nan"))
    before = _weights(trainer.model)
    with pytest.raises(TrainingError, match=r"the loss of step 1 is not finite; .* a lower learning_rate"):
        trainer.train()
    assert all(
        torch.equal(weight.nan_to_num(), before[name].nan_to_num()) for name, weight in trainer.model.named_parameters()
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"batch": 32, "micro_batch": 2}, "has 24 records, wanted at least batch = 32"),
        ({"max_text_tokens": 5}, "has 0 short enough records"),
        ({"batch": 4, "micro_batch": 3}, "wanted a multiple of micro_batch"),
        ({"learning_rate": 1e-6, "min_learning_rate": 1e-5}, "is above learning_rate"),
        ({"spikes": {"window": 2}}, "spikes.window"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused(
    small: dict[str, Any], changes: dict[str, Any], why: str, tmp_path: Path
) -> None:
    from ahabench.trainer.sft import train

    with pytest.raises(UsageError, match=why):
        train(recipe_of(small | changes), tmp_path / "out")


def test_long_records_are_left_out_and_counted(small: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import AutoTokenizer

    from ahabench.trainer.sft import load_items, short_enough

    tokenizer = AutoTokenizer.from_pretrained(small["model"])
    recipe = recipe_of(small)
    found = load_items(recipe)

    def length(item: Any) -> int:
        return len(tokenizer(f"{recipe.system_prompt}\n{item.question}\n{item.completion}")["input_ids"])

    lengths = sorted(length(item) for item in found.items)
    kept = short_enough(recipe.model_copy(update={"max_text_tokens": lengths[11]}), found, tokenizer)
    assert len(kept.items) == sum(each <= lengths[11] for each in lengths) < 24
    assert f"{24 - len(kept.items)} records longer" in capsys.readouterr().err


def _watch(**settings: Any) -> tuple[Callable[[float], bool], Any]:
    """Return what feeds a loss to a watch and says whether that asks for a checkpoint."""
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from ahabench.trainer.sft_watch import SpikeWatch

    watch, state = SpikeWatch(**Spikes(**settings).model_dump()), TrainerState()
    args = TrainingArguments(output_dir="unused", learning_rate=2e-5)

    def feed(loss: float) -> bool:
        control = TrainerControl()
        state.global_step += 1
        watch.on_log(args, state, control, {"loss": loss})
        return bool(control.should_save)

    return feed, state


def test_a_spike_is_saved_and_explained(capsys: pytest.CaptureFixture[str]) -> None:
    feed, _ = _watch(window=8)
    assert not any(feed(loss) for loss in (1.0, 1.1, 0.9, 1.0, 1.1, 0.9, 1.0, 1.0))
    # The median is 1.0, the median deviation 0.05, so the spread 0.07413: 2 lies 13.5 of them above.
    assert feed(2.0)
    said = capsys.readouterr().err
    assert "the loss of step 9 is 2, 13.5 robust deviations above the 1 of the 8 steps before" in said
    assert "a lower learning_rate (now 2e-05)" in said
    assert "no SFT at all" in said


def test_a_falling_curve_and_its_ripples_are_no_spikes() -> None:
    feed, _ = _watch(window=8)
    assert not any(feed(3 * 0.97**step * (1.1 if step % 5 == 0 else 1.0)) for step in range(80))


def test_a_very_even_curve_does_not_make_a_ripple_a_spike() -> None:
    feed, _ = _watch(window=8)
    # All deviations are 0, but 5 % of the median is the least spread: 1.29 lies 5.8 of them above.
    assert not any(feed(loss) for loss in [*[1.0] * 8, 1.29])


def test_a_loss_that_stays_up_stops_the_run_at_the_end_of_patience() -> None:
    from ahabench.harness.errors import TrainingError

    feed, state = _watch(window=8, patience=3)
    for loss in [*[1.0] * 8, 4.0, 4.0]:
        feed(loss)
    with pytest.raises(TrainingError, match="spike 3 in a row"):
        feed(4.0)
    assert state.global_step == 11


def test_a_single_spike_is_forgiven() -> None:
    feed, _ = _watch(window=8, patience=2)
    asked = [feed(loss) for loss in [*[1.0] * 8, 4.0, 1.0, 4.0, 1.0]]
    assert asked == [False] * 8 + [True, False, True, False]


def test_a_real_collapse_is_saved_and_the_run_says_so(small: dict[str, Any], tmp_path: Path) -> None:
    from ahabench.harness.errors import TrainingError
    from ahabench.trainer.sft import train

    # The rate climbs from nothing to a thousand times what the model bears.
    wild = {"learning_rate": 2.0, "warmup": 0.95, "max_steps": 200, "max_grad_norm": 1e9, "probe_prompts": 0}
    spikes = {"window": 8, "patience": 2}
    with pytest.raises(TrainingError, match=r"spike 2 in a row; .*; what was reached is in") as stopped:
        train(recipe_of(small | wild | {"spikes": spikes}), tmp_path / "out")
    saved = Path(str(stopped.value).rpartition(" ")[2])
    assert (saved / "model.safetensors").is_file()
    assert json.loads((tmp_path / "out" / "sft.json").read_text())["status"] == "incomplete"
    assert stopped.value.exit_code == 5


@pytest.fixture
def bare(untrained: Path, tmp_path: Path) -> Path:
    """The untrained model without a chat template."""
    folder = tmp_path / "bare"
    shutil.copytree(untrained, folder)
    (folder / "chat_template.jinja").unlink()
    return folder


def test_a_base_without_a_template_is_warned_about_and_trained(
    small: dict[str, Any], bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoProcessor

    from ahabench.trainer.sft import train

    final = train(recipe_of(small | {"model": str(bare)}), tmp_path / "out")
    said = capsys.readouterr().err
    assert "has no chat template and gets Qwen's. The method starts from an aligned model" in said
    processor = AutoProcessor.from_pretrained(final)
    text = processor.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    # Qwen's format, by hand.
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_a_base_of_an_unknown_family_without_a_template_is_refused(untrained: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import AutoConfig, PreTrainedTokenizerFast

    from ahabench.harness.checkpoint import find_checkpoint
    from ahabench.trainer.base_model import Front
    from ahabench.trainer.sft import ensure_template

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    front = Front(find_checkpoint(str(untrained)), tokenizer, AutoConfig.from_pretrained(untrained), None)
    with pytest.raises(UsageError, match="has no chat template; add the one of its family"):
        ensure_template(front)


def test_a_base_that_keeps_to_no_format_is_warned_about(
    small: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ahabench.trainer.sft import train

    train(recipe_of(small), tmp_path / "out")
    assert "gave 0 of 2 answers in the form <answer>...</answer>" in capsys.readouterr().err
    record = json.loads((tmp_path / "out" / "sft.json").read_text())
    assert (record["status"], record["base_format_rate"], record["data"]["n_items"]) == ("complete", 0.0, 24)


def test_grpo_from_such_a_base_is_warned_about(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ahabench.harness.errors import TrainingError
    from ahabench.trainer import grpo_run
    from ahabench.trainer.recipe import parse_recipe

    # An untrained model finds no tags in eight tokens.
    with pytest.raises(TrainingError, match="no group had two different rewards"):
        grpo_run.train(parse_recipe(settings | {"max_steps": 1}, name="test"), tmp_path / "out")
    said = capsys.readouterr().err
    assert "warning: 0.0% of the untrained model's completions have exactly one <answer>" in said
    assert "starts from an aligned model" in said


def test_an_adapter_is_saved_and_refused_as_a_start(small: dict[str, Any], tmp_path: Path) -> None:
    from ahabench.trainer.sft import train

    adapter = train(recipe_of(small | {"lora": {"rank": 2}, "probe_prompts": 0}), tmp_path / "adapter")
    assert (adapter / "adapter_model.safetensors").is_file()
    with pytest.raises(UsageError, match=r"is no whole checkpoint.*merge an adapter into its base"):
        train(recipe_of(small | {"model": str(adapter)}), tmp_path / "next")


def test_a_text_only_model_learns_from_records_without_images(tmp_path: Path, untrained: Path) -> None:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from ahabench.trainer.sft import train

    tokenizer = AutoTokenizer.from_pretrained(untrained)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes, **ends)).save_pretrained(tmp_path / "llama")
    tokenizer.save_pretrained(tmp_path / "llama")
    rows = [{"id": str(n), "question": "How many?", "completion": f"<answer>{n}</answer>"} for n in range(4)]
    (tmp_path / "sft.json").write_text(json.dumps(rows))
    values = {"model": str(tmp_path / "llama"), "data": str(tmp_path / "sft.json"), "batch": 2, "micro_batch": 2}
    quick = {"max_steps": 2, "bf16": False, "gradient_checkpointing": False, "probe_prompts": 1, "probe_tokens": 2}
    final = train(recipe_of(values | quick), tmp_path / "out")
    assert (final / "model.safetensors").is_file()


@pytest.mark.slow
def test_the_command_leads_on_to_grpo(tmp_path: Path) -> None:
    from ahabench.harness.checkpoint import weights_digest
    from ahabench.harness.manifest import read_manifest
    from ahabench.trainer import commands

    small = ["reference_steps=60", "max_steps=3", "batch=16", "micro_batch=16", "probe_prompts=4"]
    done = CliRunner().invoke(commands.train, ["sft", "sft-tiny-cpu", *small, "--out", str(tmp_path / "sft")])
    assert done.exit_code == 0, done.output
    final = tmp_path / "sft" / "final"
    assert done.stdout == f"{final}\n"
    assert weights_digest(final) != weights_digest(tmp_path / "sft" / "base")
    chained = [f"model={final}", "kinds=[digit,mcq]", "prompts_per_rollout=8", "train_batch=16", "micro_batch=16"]
    rest = ["max_new_tokens=32", "temperature=1", "max_steps=2", "--out", str(tmp_path / "grpo")]
    done = CliRunner().invoke(commands.train, ["grpo", "tiny-cpu", *chained, *rest])
    assert done.exit_code == 0, done.output
    assert read_manifest(tmp_path / "grpo").model.weights_digest == weights_digest(final)
