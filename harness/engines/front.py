"""A checkpoint without its weights: all that is needed to write prompts, prepare images and say what is asked."""

import logging
from dataclasses import dataclass
from typing import Any

from ahabench.harness.checkpoint import Checkpoint, Kind, find_checkpoint, weights_digest
from ahabench.harness.engines.chat import Chat
from ahabench.harness.engines.loading import limit_pixels, load_front, read_config, takes_images
from ahabench.harness.errors import EngineError
from ahabench.harness.manifest import ModelRecord, PixelsRecord

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """What two engines that run the same checkpoint have in common."""

    checkpoint: Checkpoint
    config: Any
    """Transformers' configuration."""
    multimodal: bool
    """Whether the model takes images."""
    images: bool
    """Whether it is sent images."""
    processor: Any
    """The processor of a model for images, the tokenizer of any other."""
    tokenizer: Any
    limits: tuple[int, int] | None
    """Areas in pixels, as `limit_pixels`."""
    chat: Chat

    @property
    def context(self) -> int | None:
        """Tokens of prompt and answer together that the model was made for."""
        length = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        return int(length) if length is not None else None

    def model_record(self) -> ModelRecord:
        """Return what the manifest says of the model. Reads the weight files, to digest them."""
        return ModelRecord(
            name=self.checkpoint.name,
            weights_digest=weights_digest(self.checkpoint),
            revision=self.checkpoint.revision,
            adapter=self.checkpoint.adapter,
            chat_template_sha256=self.chat.template_sha256,
            text_only=not self.images,
        )

    def pixels_record(self) -> PixelsRecord:
        """Return what the manifest says of the images."""
        low, high = self.limits or (None, None)
        return PixelsRecord(min=low, max=high)


def open_front(
    model: str,
    *,
    min_pixels: int | None,
    max_pixels: int | None,
    revision: str | None,
    trust_remote_code: bool,
    text_only: bool | None,
) -> Front:
    """Return a checkpoint's front; the arguments are `TransformersEngine`'s.

    Raises:
        EngineError: the checkpoint cannot be used, or an argument does not fit it.
    """
    checkpoint = find_checkpoint(model, revision=revision)
    config = read_config(checkpoint, trust_remote_code=trust_remote_code)
    multimodal = checkpoint.kind is not Kind.GGUF and takes_images(config)
    if text_only is False and not multimodal:
        raise EngineError(f"{model} takes no images ({type(config).__name__}); leave them out with text_only")
    images = multimodal and not text_only
    processor = load_front(checkpoint, images=multimodal, trust_remote_code=trust_remote_code)
    limits = None
    if images:
        limits = limit_pixels(processor, checkpoint.name, min_pixels=min_pixels, max_pixels=max_pixels)
    elif (min_pixels, max_pixels) != (None, None):
        _log.warning("the images are left out, so their pixel limits change nothing")
    return Front(
        checkpoint=checkpoint,
        config=config,
        multimodal=multimodal,
        images=images,
        processor=processor,
        tokenizer=processor.tokenizer if multimodal else processor,
        limits=limits,
        chat=Chat(processor, images=images),
    )
