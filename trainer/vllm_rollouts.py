"""What vLLM reads when it makes rollouts for TRL: the very prompts and images that are trained on.

TRL (1.16) lets two things pass unseen, which are looked after here. The third, a server that is not what TRL takes it
for, is looked after in `vllm_checks`.

- In colocate mode it hands vLLM prompts in which every image has its tokens already, and vLLM expands the first of them
  once more (huggingface/trl#6294): `SamePrompts`.
- vLLM's image processor is the checkpoint's, and knows nothing of a recipe's pixel limits: `fitted`.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ahabench.harness.errors import EngineError
from ahabench.trainer.recipe import Recipe

if TYPE_CHECKING:
    from PIL.Image import Image

    from ahabench.trainer.base_model import Front

MAX_FITS = 8


class SamePrompts:
    """TRL's rollouts by vLLM, which read the very prompts that are trained on; all else is TRL's.

    Args:
        rollouts: TRL's `VLLMGeneration`.
        image_token: the id that stands for one part of an image; `None` where the model has none.
    """

    def __init__(self, rollouts: Any, image_token: int | None) -> None:
        self._rollouts = rollouts
        self._image_token = image_token

    def __getattr__(self, name: str) -> Any:
        """Return what TRL's has."""
        return getattr(self._rollouts, name)

    def generate(
        self,
        prompts: list[list[int]],
        images: list[list[Any] | None] | None,
        num_generations: int,
        profiler: Any = None,
    ) -> tuple[Any, ...]:
        """Return what TRL's does.

        Raises:
            EngineError: vLLM has read another prompt than the one given, which happens where it resizes images
                differently.
        """
        if self._rollouts.mode != "colocate" or images is None or self._image_token is None:
            found: tuple[Any, ...] = self._rollouts.generate(prompts, images, num_generations, profiler)
            return found
        short = [unexpanded(ids, self._image_token) for ids in prompts]
        found = self._rollouts.generate(short, images, num_generations, profiler)
        for given, read in zip(prompts, found[0], strict=True):
            if list(read) != list(given):
                token = self._image_token
                raise EngineError(
                    f"vLLM has read another prompt than the one that is trained on: {len(read)} tokens, "
                    f"{list(read).count(token)} of images; wanted {len(given)} and {list(given).count(token)}"
                )
        return found


def unexpanded(ids: Sequence[int], image_token: int) -> list[int]:
    """Return a prompt with one image token for each image, as vLLM wants it.

    >>> unexpanded([1, 7, 7, 7, 2, 7, 7, 3], 7)
    [1, 7, 2, 7, 3]
    """
    before = [None, *ids]
    return [token for token, last in zip(ids, before, strict=False) if not token == last == image_token]


def fitting(recipe: Recipe, front: "Front") -> Callable[["Image"], "Image"] | None:
    """Return what brings an image to a recipe's pixel limits before the trainer and vLLM see it.

    `None` where the limits are the checkpoint's own, which both keep by themselves, or vLLM makes no rollouts.
    """
    if recipe.vllm == "off" or front.pixels is None or (recipe.min_pixels, recipe.max_pixels) == (None, None):
        return None
    processor, pixels = front.processor.image_processor, front.pixels
    patch = processor.patch_size * processor.merge_size
    return lambda image: fitted(image, pixels, patch)


def fitted(image: "Image", pixels: tuple[int, int], patch: int) -> "Image":
    """Return an image of a size that a processor with these limits, or wider ones, leaves as it is.

    Args:
        image: of any size.
        pixels: the smallest and the largest area.
        patch: edge in pixels of what is one token; both edges become multiples of it.
    """
    from PIL.Image import Resampling
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    size = image.size
    if max(size) > 200 * min(size):
        return image  # the processor refuses it, and says so
    # More than once, because a thin image is still too large after the first time.
    for _ in range(MAX_FITS):
        high, wide = smart_resize(size[1], size[0], factor=patch, min_pixels=pixels[0], max_pixels=pixels[1])
        if (wide, high) == size:
            break
        size = (wide, high)
    return image if size == image.size else image.resize(size, Resampling.BICUBIC)


def image_tokens(processor: Any, image: "Image") -> int:
    """Return how many tokens of a prompt an image takes."""
    message = {"role": "user", "content": [{"type": "image", "image": image}]}
    read = processor.apply_chat_template([[message]], tokenize=True, return_dict=True)
    return list(read["input_ids"][0]).count(processor.image_token_id)
