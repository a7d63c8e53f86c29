"""The pixel sizes of images after a processor's resizing."""

from collections.abc import Mapping, Sequence
from typing import Any

Sizes = tuple[tuple[int, int], ...]
"""(width, height) in pixels of each image of one request."""


def sizes_in_batch(front: Any, inputs: Mapping[str, Any], counts: Sequence[int]) -> list[Sizes | None]:
    """Return the sizes that a processor has given the images of each request; `None` where its output does not tell.

    Args:
        front: the processor.
        inputs: what it returned: "image_grid_thw", ``[N, 3]`` patches in time, height and width, in Qwen's family;
            elsewhere "pixel_values", whose shape tells if it is ``[N, C, H, W]``, one picture each.
        counts: images of each request; they sum to N.
    """
    total = sum(counts)
    grid, pixels = inputs.get("image_grid_thw"), inputs.get("pixel_values")
    sizes: list[tuple[int, int]]
    if total == 0:
        sizes = []
    elif grid is not None and len(grid) == total:
        patch = int(front.image_processor.patch_size)
        sizes = [(int(width) * patch, int(height) * patch) for _, height, width in grid.tolist()]
    elif grid is None and pixels is not None and pixels.ndim == 4 and len(pixels) == total:
        sizes = [(int(pixels.shape[3]), int(pixels.shape[2]))] * total
    else:
        return [None if count else () for count in counts]
    ends = [sum(counts[: place + 1]) for place in range(len(counts))]
    return [tuple(sizes[end - count : end]) for end, count in zip(ends, counts, strict=True)]


def sizes_by_rule(front: Any, images: Sequence[tuple[int, int]], limits: tuple[int, int] | None) -> Sizes | None:
    """Return the sizes that Qwen's rule gives to images; `None` for processors that do not follow it.

    Sides become multiples of patch times merge (28 px in Qwen2.5-VL), the area comes between the limits:
    `smart_resize` of transformers, models/qwen2_vl/image_processing_qwen2_vl.py.

    Args:
        front: the processor.
        images: (width, height) of each.
        limits: areas in pixels, as `limit_pixels`.

    Raises:
        ValueError: an image's sides differ more than 200 to 1.
    """
    processor = getattr(front, "image_processor", None)
    if processor is None or limits is None or not type(processor).__name__.startswith("Qwen2VLImageProcessor"):
        return None
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    factor = int(processor.patch_size) * int(processor.merge_size)
    low, high = limits
    resized = (smart_resize(height, width, factor=factor, min_pixels=low, max_pixels=high) for width, height in images)
    return tuple((int(width), int(height)) for height, width in resized)
