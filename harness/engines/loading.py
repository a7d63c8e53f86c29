"""Checkpoints into memory, by transformers."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ahabench.harness.checkpoint import Checkpoint, Kind
from ahabench.harness.errors import EngineError

_log = logging.getLogger(__name__)


def read_config(checkpoint: Checkpoint, *, trust_remote_code: bool) -> Any:
    """Return the configuration of a checkpoint, or of an adapter's base.

    Raises:
        EngineError: transformers cannot read it, or it needs remote code that is not trusted.
    """
    from transformers import AutoConfig

    folder, options = _where(checkpoint)
    with _failures(checkpoint):
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, **options)


def takes_images(config: Any) -> bool:
    """Return whether a model of this configuration is one for images and text.

    Where a type of model exists both with and without an image part, the checkpoint's architecture decides.
    """
    from transformers.models.auto import modeling_auto

    kind, architectures = str(getattr(config, "model_type", "")), getattr(config, "architectures", None) or []
    remote = getattr(config, "auto_map", None) or {}
    pictured = modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.get(kind)
    if pictured is None:
        return "AutoModelForImageTextToText" in remote
    textual = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind)
    return textual is None or textual == pictured or textual not in architectures


def load_front(checkpoint: Checkpoint, *, images: bool, trust_remote_code: bool) -> Any:
    """Return the processor of a model for images, the tokenizer of any other; it pads on the left.

    An adapter's own tokenizer or processor is taken where it was saved with one.

    Raises:
        EngineError: it is missing or damaged.
    """
    from transformers import AutoProcessor, AutoTokenizer

    folder, options = _where(checkpoint)
    marks = ("processor_config.json", "preprocessor_config.json") if images else ("tokenizer_config.json",)
    if checkpoint.base is not None and any((checkpoint.path / mark).is_file() for mark in marks):
        folder = str(checkpoint.path)
    if images and not any(Path(folder, mark).is_file() for mark in marks):
        raise EngineError(f"{checkpoint.name} has no image processor: {folder} lacks preprocessor_config.json")
    loader: Any = AutoProcessor if images else AutoTokenizer
    with _failures(checkpoint):
        front = loader.from_pretrained(folder, trust_remote_code=trust_remote_code, **options)
    if images and not hasattr(front, "image_processor"):
        raise EngineError(f"{checkpoint.name} has no image processor but a {type(front).__name__}")
    tokenizer = front.tokenizer if images else front
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise EngineError(f"the tokenizer of {checkpoint.name} has neither a padding nor an end-of-sequence token")
    return front


def limit_pixels(front: Any, name: str, *, min_pixels: int | None, max_pixels: int | None) -> tuple[int, int] | None:
    """Return the area, in pixels, between which a processor resizes images, after setting what is asked.

    Args:
        front: a processor.
        name: the model's, for the error.
        min_pixels: `None` leaves the checkpoint's own.
        max_pixels: `None` leaves the checkpoint's own.

    Returns:
        `None` where the processor knows no such limits and none are asked.

    Raises:
        EngineError: limits are asked and the processor knows none, or the smaller exceeds the larger.
    """
    processor = front.image_processor
    size = getattr(processor, "size", None) or {}
    edges = ("shortest_edge", "longest_edge")
    # In transformers 5 these two edges hold areas, in processors that take min_pixels and max_pixels.
    known = {"min_pixels", "max_pixels"} <= set(getattr(processor.valid_kwargs, "__annotations__", ()))
    if not known or any(dict(size).get(edge) is None for edge in edges):
        if min_pixels is None and max_pixels is None:
            return None
        raise EngineError(
            f"the processor of {name} ({type(processor).__name__}) has no pixel limits; leave them out, "
            "or take a preset's away with --min-pixels 0 --max-pixels 0"
        )
    low, high = (
        asked if asked is not None else int(dict(size)[edge])
        for asked, edge in zip((min_pixels, max_pixels), edges, strict=True)
    )
    if not 0 < low <= high:
        raise EngineError(f"{name} would resize images to at least {low} and at most {high} pixels; give other limits")
    if (min_pixels, max_pixels) != (None, None):
        processor.size = dict(zip(edges, (low, high), strict=True))
    return low, high


def end_tokens(own: int | list[int] | None, tokenizer: Any) -> set[int]:
    """Return the tokens that end a text: the model's and the tokenizer's.

    Both, because a fine-tune may end its turns with a token of which only one knows.

    Args:
        own: the `eos_token_id` of a model's generation settings.
        tokenizer: of transformers.
    """
    return {*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id} - {None}


def own_ends(checkpoint: Checkpoint, config: Any) -> int | list[int] | None:
    """Return the end-of-sequence tokens of a checkpoint's generation settings, or else of its configuration.

    Raises:
        EngineError: the settings are damaged.
    """
    from transformers import GenerationConfig

    folder = checkpoint.base.path if checkpoint.base is not None else checkpoint.path
    with _failures(checkpoint):
        if (folder / "generation_config.json").is_file():
            own: int | list[int] | None = GenerationConfig.from_pretrained(folder).eos_token_id
        else:
            own = getattr(config.get_text_config(), "eos_token_id", None)
    return own


def adapter_parts(checkpoint: Checkpoint) -> list[str]:
    """Return the names of an adapter's tensors.

    Raises:
        EngineError: they are not in a safetensors file, or it is damaged.
    """
    from safetensors import safe_open

    path = checkpoint.path / "adapter_model.safetensors"
    if not path.is_file():
        raise EngineError(f"{checkpoint.name} has no {path.name}: save it again with save_pretrained")
    opened: Any = safe_open
    with _failures(checkpoint), opened(path, framework="np") as file:
        return sorted(file.keys())


def load_model(
    checkpoint: Checkpoint,
    *,
    images: bool,
    dtype: Any,
    device: str,
    trust_remote_code: bool,
    attn_implementation: str | None = None,
) -> Any:
    """Return the model on its device, in evaluation mode, with its adapter.

    Its generation settings are dropped but for the special tokens: what is not asked for must not change a score.

    Raises:
        EngineError: it does not fit the installed transformers, lacks weights, or does not fit in memory.
    """
    import transformers

    library: Any = transformers
    if not sys.stderr.isatty():
        library.logging.disable_progress_bar()
    folder, options = _where(checkpoint)
    loader = library.AutoModelForImageTextToText if images else library.AutoModelForCausalLM
    attention = {"attn_implementation": attn_implementation} if attn_implementation else {}
    with _failures(checkpoint):
        model, report = loader.from_pretrained(
            folder,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # to name them: they are refused below
            **options,
            **attention,
        )
    _check_complete(checkpoint, report)
    own = model.generation_config
    model.generation_config = library.GenerationConfig(
        bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id
    )
    if checkpoint.base is not None:
        model = _with_adapter(model, checkpoint)
    with _failures(checkpoint):
        return model.to(device).eval()


def _where(checkpoint: Checkpoint) -> tuple[str, dict[str, str]]:
    """Return the folder for `from_pretrained`, and the options that a GGUF file needs."""
    if checkpoint.kind is Kind.GGUF:
        return str(checkpoint.path.parent), {"gguf_file": checkpoint.path.name}
    return str(checkpoint.base.path if checkpoint.base is not None else checkpoint.path), {}


def _check_complete(checkpoint: Checkpoint, report: Any) -> None:
    """Refuse a model of which a part would be random: transformers only warns."""
    absent = sorted(map(str, report["missing_keys"])) + sorted(str(key[0]) for key in report["mismatched_keys"])
    if absent:
        raise EngineError(
            f"{checkpoint.name} does not hold all weights of its model: {len(absent)} are missing or of another shape, "
            f"such as {absent[0]}. It was saved incompletely, or by another version of transformers."
        )
    if report["unexpected_keys"]:
        _log.warning(
            "%s holds weights that its model does not use, such as %s", checkpoint.name, min(report["unexpected_keys"])
        )


def _with_adapter(model: Any, checkpoint: Checkpoint) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise EngineError(f"{checkpoint.name} is an adapter and needs peft: pip install 'ahabench[train]'") from error
    with _failures(checkpoint), warnings.catch_warnings():
        # Otherwise an adapter that fits nowhere is scored as its base.
        warnings.filterwarnings("error", message=".*missing adapter keys")
        return PeftModel.from_pretrained(model, str(checkpoint.path))


@contextmanager
def _failures(checkpoint: Checkpoint) -> Iterator[None]:
    """Turn what the libraries raise over a checkpoint into an error with its next step."""
    try:
        yield
    except ImportError as error:
        extra = "gguf" if checkpoint.kind is Kind.GGUF else "train"
        hint = f"; pip install 'ahabench[{extra}]' may help" if checkpoint.kind is not Kind.MODEL else ""
        raise EngineError(f"{checkpoint.name} needs a package that is not installed: {_line(error)}{hint}") from error
    except EngineError:
        raise
    # Tokenizers raises Exception itself, safetensors and pickle have their own trees, peft warns.
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise EngineError(
                f"{checkpoint.name} brings its own code, which runs with your rights; read it, then add "
                "--trust-remote-code"
            ) from error
        raise EngineError(f"{checkpoint.name} cannot be loaded: {type(error).__name__}: {_line(error)}") from error


def _line(error: BaseException) -> str:
    """Return an error on one line of readable length."""
    return " ".join(str(error).split())[:300] or type(error).__name__
