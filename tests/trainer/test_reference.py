"""The reference checkpoint as its users meet it."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ahabench.harness import registry
from ahabench.harness.dataset import load
from ahabench.harness.engines import open_engine
from ahabench.harness.images import decode
from ahabench.harness.sampling import Sampling
from ahabench.harness.types import Request
from ahabench.tasks.mini.suite import MAKERS, held_out
from ahabench.trainer.baseline import force_careful
from ahabench.trainer.reference import N_SAMPLES, make_reference, warmup_samples
from ahabench.trainer.tokenizer import IMAGE

FEW = 4


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def untaught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reference(tmp_path_factory.mktemp("reference") / "untaught", steps=0)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few steps: enough to see what does and does not change the weights."""
    return make_reference(tmp_path_factory.mktemp("reference") / "taught", steps=FEW)


@pytest.fixture(scope="module")
def model(untaught: Path) -> Any:
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(untaught)


@pytest.fixture(scope="module")
def processor(untaught: Path) -> Any:
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(untaught)


def inputs_for(processor: Any, *content: dict[str, str], size: tuple[int, int] = (56, 56)) -> Any:
    messages = [{"role": "user", "content": list(content)}]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    pictures = [Image.new("RGB", size)] * sum(part["type"] == "image" for part in content)
    return processor(text=[text], images=[pictures] if pictures else None, return_tensors="pt")


def test_it_is_a_qwen_of_under_two_million_parameters(model: Any) -> None:
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert sum(weight.numel() for weight in model.parameters()) < 2_000_000


def test_its_heads_are_as_wide_as_vllm_wants_them(model: Any) -> None:
    config = model.config.text_config
    assert config.hidden_size // config.num_attention_heads >= 32


def test_it_writes_after_a_picture(model: Any, processor: Any) -> None:
    inputs = inputs_for(processor, {"type": "image"}, {"type": "text", "text": "What is the third?"})
    written = model.generate(**inputs, max_new_tokens=5, do_sample=False)
    assert inputs["input_ids"].shape[1] < written.shape[1] <= inputs["input_ids"].shape[1] + 5


@pytest.mark.parametrize(
    ("size", "tokens"),
    [
        ((56, 56), 4),  # 2 x 2 cells of 28 pixels
        ((560, 560), 16),  # shrunk to four times the area: 112 x 112
        ((28, 28), 4),  # grown to 56 x 56
    ],
)
def test_a_picture_takes_a_few_tokens_whatever_its_size(processor: Any, size: tuple[int, int], tokens: int) -> None:
    inputs = inputs_for(processor, {"type": "image"}, {"type": "text", "text": "What?"}, size=size)
    image_token = processor.tokenizer.convert_tokens_to_ids(IMAGE)
    assert inputs["input_ids"][0].tolist().count(image_token) == tokens


def test_the_picture_follows_the_question_wherever_the_message_has_it(processor: Any) -> None:
    picture, question = {"type": "image"}, {"type": "text", "text": "What is the third?"}
    first, last = inputs_for(processor, picture, question), inputs_for(processor, question, picture)
    assert first["input_ids"].tolist() == last["input_ids"].tolist()
    text = processor.tokenizer.decode(first["input_ids"][0])
    assert text.index("What is the third?") < text.index(IMAGE)


def test_a_message_of_plain_text_is_written_as_it_is(processor: Any) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == ("<|im_start|>system\nBe brief.<|im_end|><|im_start|>user\nHello<|im_end|><|im_start|>assistant\n")


def test_a_seed_gives_the_same_weights_again_and_another_seed_others(taught: Path, tmp_path: Path) -> None:
    again = make_reference(tmp_path / "again", steps=FEW)
    other = make_reference(tmp_path / "other", steps=FEW, seed=1)
    assert digest(again) == digest(taught)
    assert digest(other) != digest(taught)
    assert (other / "tokenizer.json").read_bytes() == (taught / "tokenizer.json").read_bytes()


def test_the_number_of_threads_changes_no_weight_and_stays(taught: Path, tmp_path: Path) -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        again = make_reference(tmp_path / "again", steps=FEW)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert digest(again) == digest(taught)


def test_the_callers_random_numbers_are_left_alone(tmp_path: Path) -> None:
    import torch

    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    make_reference(tmp_path / "made", steps=1)
    assert torch.equal(torch.rand(3), expected)


def test_progress_is_told_at_the_end(tmp_path: Path) -> None:
    lines: list[str] = []
    make_reference(tmp_path / "made", steps=2, progress=lines.append)
    assert len(lines) == 1
    assert lines[0].startswith("warm-up 2/2: loss ")


def test_a_shorter_warm_up_learns_from_the_first_samples_of_a_longer_one() -> None:
    few, more = warmup_samples(0, steps=2), warmup_samples(0, steps=4)
    assert len(few) == 32
    assert [sample.record["id"] for sample in few] == [sample.record["id"] for sample in more[:32]]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_warm_up_shares_no_picture_with_the_held_out_items(seed: int) -> None:
    samples = warmup_samples(seed)
    assert len(samples) == N_SAMPLES
    seen = {sample.record["image"].pixels().tobytes() for sample in samples}
    held = {drawn.picture.pixels().tobytes() for name in MAKERS for drawn in held_out(name)}
    assert not seen & held
    scenes = {sample.problem.scene for sample in samples}
    assert not scenes & {drawn.problem.scene for name in MAKERS for drawn in held_out(name)}


@pytest.mark.slow
def test_a_third_of_the_warm_up_teaches_it_to_read_held_out_pictures(tmp_path: Path) -> None:
    base = make_reference(tmp_path / "base", steps=450)
    careful = force_careful(base, tmp_path / "careful")
    task = registry.find_task("mathvista")
    items = load(task, "mini").items
    render = task.prompts["think"].render
    engine = open_engine("transformers", str(careful), sampling=Sampling(max_new_tokens=12))
    requests = [Request(item_id=i.id, sample_index=0, prompt=render(i), images=i.images) for i in items]
    texts = {response.item_id: response.text or "" for response in engine.generate(requests)}
    read = 0
    for item, drawn in zip(items, held_out("mathvista"), strict=True):
        assert decode(item.images[0].read(), name=item.id).size == (56, 56)
        one, two, three, four = (cell.words for cell in drawn.problem.scene)
        read += texts[item.id].startswith(f" first {one} second {two} third {three} fourth {four} .")
    assert read >= 0.8 * len(items)
