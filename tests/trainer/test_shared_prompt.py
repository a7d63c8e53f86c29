"""Prompts that are computed once, against TRL's own way of computing each completion alone."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from PIL import Image
from trl.trainer.grpo_trainer import GRPOTrainer

from ahabench.trainer.grpo import LOG
from ahabench.trainer.shared_prompt import shareable

TrainerOf = Callable[..., Any]
SIZES = [(56, 56), (112, 56), (56, 112), (84, 84), (112, 112)]
ROUNDING = 1e-4
"""Of the largest gradient of a weight, or of a loss of the order of 1. Single precision rounds each of some thousand
terms of a sum at 6e-8, and both ways add them in another order. A completion that sees its neighbour is off by far
more: see the test that lets it."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records whose images differ in size and number; some have none."""
    folder = tmp_path_factory.mktemp("pictures")
    draw, rows = Random(0), []
    for index in range(12):
        count = (1, 2, 1, 0)[index % 4]
        names = [f"{index}-{place}.png" for place in range(count)]
        for name in names:
            size = draw.choice(SIZES)
            Image.frombytes("RGB", size, draw.randbytes(3 * size[0] * size[1])).save(folder / name)
        images = {"image": names if count > 1 else names[0]} if names else {}
        question = "How many squares?" + " What is the number?" * (index % 3)
        rows.append({"id": f"p{index}", "verifier_type": "digit", "question": question, "gt": 1} | images)
    (folder / "records.json").write_text(json.dumps(rows))
    return folder


def of_kind(pictures: Path, folder: Path, keep: Callable[[dict[str, Any]], bool]) -> Path:
    rows = [row for row in json.loads((pictures / "records.json").read_text()) if keep(row)]
    path = folder / "kept.json"
    path.write_text(json.dumps(rows))
    return path


KINDS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "one image": lambda row: isinstance(row.get("image"), str),
    "images of several sizes, two in some prompts": lambda row: "image" in row,
    "some prompts without an image": lambda row: True,
    "no image": lambda row: "image" not in row,
}


def lengths_reward(completion_ids: list[list[int]], **columns: Any) -> list[float | None]:
    return [float(len(set(ids)) % 5) for ids in completion_ids]


def rollout(trainer: Any) -> dict[str, Any]:
    """A rollout as TRL makes it, its groups adjacent, and a policy that has moved since."""
    torch.manual_seed(3)
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    batch: dict[str, Any] = trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    return batch


def losses_and_gradients(trainer: Any, batch: dict[str, Any], *, share: bool) -> tuple[float, dict[str, torch.Tensor]]:
    trainer._share_prompts = share
    trainer.model.zero_grad(set_to_none=True)
    loss = trainer._compute_loss(trainer.model, batch)
    loss.backward()
    found = {name: one.grad for name, one in trainer.model.named_parameters() if one.grad is not None}
    return loss.item(), found


def worst(ours: dict[str, torch.Tensor], trls: dict[str, torch.Tensor]) -> float:
    """The largest difference of two gradients, in units of the largest gradient of the same weight."""
    assert ours.keys() == trls.keys()
    # A bias of the keys has no gradient but rounding: a softmax does not feel it.
    scale = max(float(one.abs().max()) for one in trls.values())
    return max(
        float((ours[name] - trls[name]).abs().max()) / max(float(trls[name].abs().max()), 1e-4 * scale) for name in trls
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frozen", [True, False], ids=["frozen tower", "trained tower"])
def test_loss_and_gradients_are_trls(
    kind: str, frozen: bool, trainer_of: TrainerOf, pictures: Path, tmp_path: Path
) -> None:
    if kind == "no image" and frozen:
        pytest.skip("without images the tower has no gradient either way")
    data = of_kind(pictures, tmp_path, KINDS[kind])
    trainer = trainer_of(
        lengths_reward,
        data=str(data),
        images=str(pictures),
        prompts_per_rollout=3,
        train_batch=12,
        micro_batch=12,
        max_new_tokens=12,
        freeze_vision=frozen,
        kl={"init": 0.5, "target": None},
    )
    batch = rollout(trainer)
    assert len({tuple(row) for row in batch["prompt_ids"].tolist()}) > 1 or kind == "one image"
    assert batch["advantages"].abs().max() > 0.5
    ours, our_gradients = losses_and_gradients(trainer, batch, share=True)
    trls, trl_gradients = losses_and_gradients(trainer, batch, share=False)
    assert ours == pytest.approx(trls, abs=ROUNDING)
    assert worst(our_gradients, trl_gradients) < ROUNDING
    assert any("visual" in name for name in our_gradients) is (not frozen and kind != "no image")


@pytest.fixture
def mixed(trainer_of: TrainerOf, pictures: Path, tmp_path: Path) -> Callable[..., Any]:
    def build(**overrides: Any) -> Any:
        data = of_kind(pictures, tmp_path, KINDS["images of several sizes, two in some prompts"])
        batches = {"prompts_per_rollout": 3, "train_batch": 12, "micro_batch": 12, "max_new_tokens": 12}
        return trainer_of(lengths_reward, data=str(data), images=str(pictures), **batches | overrides)

    return build


@pytest.mark.parametrize(
    "changed",
    [
        {"gradient_checkpointing": True},
        {"lora": {"rank": 4, "alpha": 8}, "gradient_checkpointing": True},
        {"lora": {"rank": 4, "alpha": 8, "target_modules": r".*\.(?:qkv|q_proj)"}},
        {"loss": "dapo", "kl": None},
    ],
    ids=["gradient checkpointing", "adapters and checkpointing", "adapters in the tower", "dapo without KL"],
)
def test_gradients_are_trls_with(changed: dict[str, Any], mixed: Callable[..., Any]) -> None:
    trainer = mixed(**changed)
    batch = rollout(trainer)
    ours, our_gradients = losses_and_gradients(trainer, batch, share=True)
    trls, trl_gradients = losses_and_gradients(trainer, batch, share=False)
    assert trl_gradients
    assert ours == pytest.approx(trls, abs=ROUNDING)
    assert worst(our_gradients, trl_gradients) < ROUNDING


def test_bfloat16_differs_no_more_than_trl_differs_from_itself(mixed: Callable[..., Any]) -> None:
    """Rounding to 8 bits: what the order of the sums does, and what another padding does to TRL's own."""
    trainer = mixed()
    batch = rollout(trainer)
    exact = losses_and_gradients(trainer, batch, share=False)[1]

    def off(share: bool) -> float:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            gradients = losses_and_gradients(trainer, batch, share=share)[1]
        squares = [(float((gradients[name] - exact[name]).norm()), float(exact[name].norm())) for name in exact]
        return float(sum(a**2 for a, _ in squares) ** 0.5 / sum(b**2 for _, b in squares) ** 0.5)

    assert off(share=True) < 1.5 * off(share=False)


def logps(trainer: Any, batch: dict[str, Any], *, share: bool, size: int | None = None) -> tuple[Any, Any]:
    trainer._share_prompts = share
    with torch.no_grad():
        found = trainer._get_per_token_logps_and_entropies(
            trainer.model,
            torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
            torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
            batch["completion_ids"].shape[1],
            batch_size=size,
            compute_entropy=True,
            **{key: batch[key] for key in ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")},
        )
    return found[0], found[1]


@pytest.mark.parametrize("size", [None, 12, 5, 1])
def test_log_probabilities_and_entropies_are_trls_in_portions_of(size: int | None, mixed: Callable[..., Any]) -> None:
    trainer = mixed()
    batch = rollout(trainer)
    ours, our_entropies = logps(trainer, batch, share=True, size=size)
    trls, trl_entropies = logps(trainer, batch, share=False, size=size)
    torch.testing.assert_close(ours, trls, rtol=0, atol=ROUNDING)
    torch.testing.assert_close(our_entropies, trl_entropies, rtol=0, atol=ROUNDING)
    assert ours.min() < -1


def test_completions_of_any_length_even_none_are_trls(mixed: Callable[..., Any]) -> None:
    trainer = mixed()
    batch = rollout(trainer)
    kept = torch.tensor([12, 0, 3, 7] * 3)
    batch["completion_mask"] = (torch.arange(batch["completion_ids"].shape[1]) < kept[:, None]).int()
    ours, our_entropies = logps(trainer, batch, share=True)
    trls, trl_entropies = logps(trainer, batch, share=False)
    torch.testing.assert_close(ours, trls, rtol=0, atol=ROUNDING)
    torch.testing.assert_close(our_entropies, trl_entropies, rtol=0, atol=ROUNDING)
    assert not ours[1].any()


def test_a_completion_does_not_see_its_neighbours(mixed: Callable[..., Any]) -> None:
    trainer = mixed()
    batch = rollout(trainer)
    before, _ = logps(trainer, batch, share=True)
    batch["completion_ids"][0] = (batch["completion_ids"][0] + 1) % 200
    after, _ = logps(trainer, batch, share=True)
    assert torch.equal(before[1:], after[1:])
    assert not torch.allclose(before[0], after[0], atol=0.1)


def test_the_tolerance_would_show_a_completion_that_sees_its_neighbours(
    mixed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ahabench.trainer import shared_prompt

    def causal(rows: Any, blocks: torch.Tensor) -> torch.Tensor:
        length = blocks.shape[1]
        return torch.ones(length, length, dtype=torch.bool).tril().expand(len(rows), 1, -1, -1)

    trainer = mixed()
    batch = rollout(trainer)
    monkeypatch.setattr(shared_prompt, "_mask", causal)
    _, our_gradients = losses_and_gradients(trainer, batch, share=True)
    _, trl_gradients = losses_and_gradients(trainer, batch, share=False)
    assert worst(our_gradients, trl_gradients) > 100 * ROUNDING


class Watched:
    """Counts what a model's vision tower and decoder were given."""

    def __init__(self, model: Any) -> None:
        self.calls, self.patches, self.tokens = 0, 0, 0
        backbone = shareable(model)
        self._hooks = [
            backbone.visual.register_forward_pre_hook(self._tower),
            backbone.language_model.register_forward_pre_hook(self._decoder, with_kwargs=True),
        ]

    def _tower(self, module: Any, args: Any) -> None:
        self.calls += 1
        self.patches += len(args[0])

    def _decoder(self, module: Any, args: Any, kwargs: Any) -> None:
        self.tokens += kwargs["inputs_embeds"].shape[:2].numel()


def test_the_tower_sees_each_image_of_a_micro_batch_once(mixed: Callable[..., Any]) -> None:
    trainer = mixed()
    batch = rollout(trainer)
    groups = [batch["image_grid_thw"].prod(dim=1).split(batch["num_images"])[place] for place in (0, 4, 8)]
    watched = Watched(trainer.model)
    losses_and_gradients(trainer, batch, share=True)
    assert watched.patches == sum(int(one.sum()) for one in groups)
    assert watched.calls == 1
    losses_and_gradients(trainer, batch, share=False)
    assert watched.patches == 5 * sum(int(one.sum()) for one in groups)  # once, and four times more
    assert watched.calls == 2


@pytest.mark.parametrize(("recipe", "times"), [({}, 1), ({"share_prompts": False}, 4)])
def test_a_recipe_may_leave_it_to_trl(recipe: dict[str, bool], times: int, mixed: Callable[..., Any]) -> None:
    trainer = mixed(prompts_per_rollout=1, train_batch=4, micro_batch=4, max_steps=1, **recipe)
    watched = Watched(trainer.ref_model)
    (batch,) = micro_batches(trainer)
    assert watched.patches * 4 == times * len(batch["pixel_values"])


def test_the_decoder_sees_a_prompt_once_and_no_padding(mixed: Callable[..., Any]) -> None:
    trainer = mixed(prompts_per_rollout=1, train_batch=4, micro_batch=4)
    batch = rollout(trainer)
    watched = Watched(trainer.model)
    logps(trainer, batch, share=True)
    prompt, completions = int(batch["prompt_mask"][0].sum()), int(batch["completion_mask"].sum())
    # The prompt's last token stands before each of the four completions.
    assert watched.tokens == prompt - 1 + 4 + completions


def test_a_model_with_other_attention_is_left_to_trl(trainer_of: TrainerOf, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(lengths_reward)
    batch = rollout(trainer)
    asked: list[int] = []
    trls = GRPOTrainer._get_per_token_logps_and_entropies
    monkeypatch.setattr(
        GRPOTrainer,
        "_get_per_token_logps_and_entropies",
        lambda self, *args, **kwargs: asked.append(1) or trls(self, *args, **kwargs),
    )
    losses_and_gradients(trainer, batch, share=True)
    assert not asked
    trainer.model.set_attn_implementation("eager")
    assert shareable(trainer.model) is None
    losses_and_gradients(trainer, batch, share=True)
    assert asked


def micro_batches(trainer: Any) -> Iterator[dict[str, Any]]:
    compute = trainer._compute_loss
    seen: list[dict[str, Any]] = []
    trainer._compute_loss = lambda model, inputs: seen.append(inputs) or compute(model, inputs)
    trainer.train()
    yield from seen


def test_kept_groups_meet_in_a_micro_batch(mixed: Callable[..., Any]) -> None:
    trainer = mixed(keep_groups=True, prompts_per_rollout=4, train_batch=8, micro_batch=4, max_steps=4)
    found = list(micro_batches(trainer))
    assert len(found) == 8
    for batch in found:
        assert len({tuple(row) for row in batch["prompt_ids"].tolist()}) == 1
        assert all(torch.equal(grid, batch["image_grid_thw"].chunk(4)[0]) for grid in batch["image_grid_thw"].chunk(4))
        assert batch["advantages"].sum().abs() < 1e-4  # a whole group


def test_with_one_step_per_rollout_kept_groups_change_no_step(mixed: Callable[..., Any], tmp_path: Path) -> None:
    same = {"prompts_per_rollout": 4, "train_batch": 16, "micro_batch": 4, "max_steps": 3}
    logs = []
    for name, keep in (("kept", True), ("scattered", False)):
        mixed(keep_groups=keep, out=tmp_path / name, **same).train()
        rows = [json.loads(line) for line in (tmp_path / name / LOG).read_text().splitlines()]
        logs.append([(row["loss"], row["grad_norm"], row["kl"]) for row in rows if "loss" in row])
    assert len(logs[0]) == 3
    # Of the first step: from the second on, the completions of one are drawn after the other's random numbers.
    assert logs[0][0] == pytest.approx(logs[1][0], rel=1e-3, abs=1e-5)


def test_a_run_with_kept_groups_goes_on_from_the_middle_of_a_rollout(mixed: Callable[..., Any], tmp_path: Path) -> None:
    same = {"keep_groups": True, "prompts_per_rollout": 4, "train_batch": 8, "micro_batch": 4, "max_steps": 4}
    straight = mixed(save_steps=1, out=tmp_path / "straight", **same)
    straight.train()
    resumed = mixed(out=tmp_path / "resumed", **same)
    resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-1"))
    expected = dict(straight.model.named_parameters())
    assert all(torch.equal(value, expected[name]) for name, value in resumed.model.named_parameters())


@pytest.fixture
def qwen2_vl(untrained: Path, tmp_path: Path) -> Path:
    """A Qwen2-VL with the decoder's sizes and the processor of the untrained Qwen2.5-VL."""
    import transformers

    library: Any = transformers
    values = json.loads((untrained / "config.json").read_text())
    ids = {name: value for name, value in values.items() if name.endswith("_token_id")}
    text = {name: value for name, value in values["text_config"].items() if name != "model_type"}
    vision = {"depth": 2, "embed_dim": 96, "hidden_size": 96, "num_heads": 3, "mlp_ratio": 2}
    config = library.Qwen2VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)
    torch.manual_seed(0)
    folder = tmp_path / "qwen2-vl"
    library.Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    processor = library.AutoProcessor.from_pretrained(untrained)
    parts = (processor.image_processor, processor.tokenizer, processor.video_processor)
    library.Qwen2VLProcessor(*parts, chat_template=processor.chat_template).save_pretrained(folder)
    return folder


def test_gradients_are_trls_with_a_qwen2_vl(qwen2_vl: Path, mixed: Callable[..., Any]) -> None:
    trainer = mixed(model=str(qwen2_vl))
    assert type(trainer.model).__name__ == "Qwen2VLForConditionalGeneration"
    batch = rollout(trainer)
    watched = Watched(trainer.model)
    ours, our_gradients = losses_and_gradients(trainer, batch, share=True)
    assert watched.patches < len(batch["pixel_values"])
    trls, trl_gradients = losses_and_gradients(trainer, batch, share=False)
    assert ours == pytest.approx(trls, abs=ROUNDING)
    assert worst(our_gradients, trl_gradients) < ROUNDING


@pytest.mark.skipif("AHABENCH_DATA" not in os.environ, reason="AHABENCH_DATA names no folder with real images")
def test_gradients_are_trls_on_benchmark_images(trainer_of: TrainerOf, shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "mathvision" / "images"
    found = sorted(folder.glob("*.jpg"))[:6]
    if len(found) < 6:
        pytest.skip("mathvision's images are not there")
    rows = [
        {"id": path.stem, "image": path.name, "verifier_type": "digit", "question": "How many squares?", "gt": 1}
        for path in found
    ]
    (tmp_path / "real.json").write_text(json.dumps(rows))
    batches = {"prompts_per_rollout": 3, "train_batch": 12, "micro_batch": 12}
    paths = {"data": str(tmp_path / "real.json"), "images": str(folder)}
    # Up to 8 x 8 tokens an image.
    trainer = trainer_of(lengths_reward, max_pixels=224 * 224, **paths, **batches)
    batch = rollout(trainer)
    assert len({tuple(grid) for grid in batch["image_grid_thw"].tolist()}) > 1
    ours, our_gradients = losses_and_gradients(trainer, batch, share=True)
    trls, trl_gradients = losses_and_gradients(trainer, batch, share=False)
    assert ours == pytest.approx(trls, abs=ROUNDING)
    assert worst(our_gradients, trl_gradients) < ROUNDING
