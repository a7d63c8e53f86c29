"""The log-probabilities of a group's completions with their prompt computed once.

TRL (1.16) sends every completion through the model with a prompt and an image of its own, padded to the longest prompt
and the longest completion of the rollout: `G` times the vision tower, `G` times the prompt, and the padding. Here the
completions of one prompt stand behind it in one row, and an attention mask keeps them from seeing each other:

    prompt without its last token | last token, completion 1 | last token, completion 2 | ...

The prompt's last token is repeated, because what it predicts is each completion's first. All completions have the
positions that they would have alone. So every log-probability is a sum of the same terms as before, in another order,
and the prompt's and the image's gradients are the sums over the completions; nothing is approximated. It is one call of
the model for as many completions as TRL's own, with other inputs, so that adapters, gradient checkpointing, DDP, ZeRO
and FSDP see nothing new.

The mask is dense: a row costs the square of its length. Where completions are long and the prompt is short, that is
more than a shared prompt saves; `best_layout` counts both and shares less, or not at all.

Shared prompts are nothing new: arXiv:2506.05433 (Prefix Grouper) has them for language models.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, chain, pairwise
from math import gcd
from typing import Any, NamedTuple

import torch
from torch import Tensor
from trl.trainer.utils import (
    split_pixel_values_by_grid,
    split_tensor_dict,
    unsplit_pixel_values_by_grid,
)

from ahabench.trainer.grpo_checkpoints import ResumableTrainer

IGNORED = -100
"""The label of a position that is not scored."""
SEEN_BY_ALL, PADDING = 0, -1
"""What the parts of a row are numbered that are no completion; completions are 1, 2, ..."""
OWN_KEYS = {"pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids"}
"""What may come with the tokens; a model that wants more is left to TRL."""


class Row(NamedTuple):
    """One row of the batch that the model gets: some completions of one prompt, by their places in the micro-batch."""

    members: tuple[int, ...]

    @property
    def first(self) -> int:
        """The completion whose prompt and images are taken for all."""
        return self.members[0]

    def length(self, prompts: Sequence[int], completions: Sequence[int]) -> int:
        """Return its tokens, from those of every completion and of its prompt."""
        return prompts[self.first] - 1 + sum(1 + completions[member] for member in self.members)


class Cost(NamedTuple):
    """Multiplications of one decoder layer: per token, and per pair of tokens."""

    token: int
    pair: int

    def of(self, rows: int, length: int) -> int:
        """Return what rows of a length take."""
        return rows * length * (self.token + self.pair * length)


class SharedPromptTrainer(ResumableTrainer):
    """TRL's trainer, which computes a prompt once for all its completions in a micro-batch.

    Args:
        share_prompts: whether it does.
        keep_groups: whether a rollout is shuffled by groups and not by completions, so that a group's completions are
            trained on in one micro-batch, as far as they fit. This changes which completions make an optimiser step
            where a rollout feeds several; where it feeds one, only the order of a sum.
        args: as TRL's.
        kwargs: as TRL's.
    """

    def __init__(self, *args: Any, share_prompts: bool = True, keep_groups: bool = False, **kwargs: Any) -> None:
        self._share_prompts = share_prompts
        self._keep_groups = keep_groups
        super().__init__(*args, **kwargs)

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **images: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        given = {key: value for key, value in images.items() if value is not None}
        backbone = shareable(model) if self._share_prompts and given.keys() <= OWN_KEYS else None
        if backbone is None or compute_aux_loss or not _plain(attention_mask, logits_to_keep, given):
            found: tuple[Tensor, Tensor | None, Tensor | None] = super()._get_per_token_logps_and_entropies(
                model,
                input_ids,
                attention_mask,
                logits_to_keep,
                batch_size=batch_size,
                compute_entropy=compute_entropy,
                compute_aux_loss=compute_aux_loss,
                **images,
            )
            return found
        size = batch_size or len(input_ids)
        logps: list[Tensor] = []
        entropies: list[Tensor] = []
        for part in _parts(input_ids, attention_mask, logits_to_keep, given, size):
            packed = pack(part, backbone)
            with self.accelerator.autocast():
                outputs = model(**packed.inputs, fused_lm_head=True)
            logps.append(packed.unpack(outputs.log_probs))
            if compute_entropy:
                entropies.append(packed.unpack(outputs.entropy))
        return torch.cat(logps), torch.cat(entropies) if compute_entropy else None, None

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        settings: Any = self.args
        if not self._keep_groups or self.model is None or not self.model.training:
            return super()._prepare_inputs(generation_batch)
        every = settings.steps_per_generation * self.num_iterations
        if self._step % every == 0 or self._buffered_inputs is None:
            batch = split_pixel_values_by_grid(self._generate_and_score_completions(generation_batch))
            shuffled = shuffle_groups(batch, settings.num_generations)
            parts: list[Any] = split_tensor_dict(shuffled, settings.steps_per_generation)
            self._buffered_inputs = [unsplit_pixel_values_by_grid(part) for part in parts]
        return self._buffered_inputs[self._step % settings.steps_per_generation]


def shuffle_groups(batch: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Return a rollout's rows with the groups in a random order and each group's rows together, in theirs.

    Args:
        batch: lists and tensors with one element per completion, a group's adjacent; scalars and `None` stay.
        size: completions of a group. Where they are spread over processes, the part that is here keeps together.
    """
    n_rows = len(next(value for value in batch.values() if value is not None))
    block = gcd(n_rows, size)
    order = (torch.randperm(n_rows // block)[:, None] * block + torch.arange(block)).flatten()

    def moved(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[order] if value.ndim else value
        return None if value is None else [value[place] for place in order.tolist()]

    return {key: moved(value) for key, value in batch.items()}


def shareable(model: Any) -> Any:
    """Return the part of a model that knows the positions of images, `None` where prompts cannot be shared.

    They can in Qwen2-VL and Qwen2.5-VL with PyTorch's own attention and no sliding window.
    """
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel
    from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLModel

    backbone = next((part for part in model.modules() if isinstance(part, Qwen2VLModel | Qwen2_5_VLModel)), None)
    if backbone is None:
        return None
    text = backbone.config.get_text_config()
    usual = text._attn_implementation == "sdpa" and set(text.layer_types) == {"full_attention"}
    return backbone if usual else None


class Part(NamedTuple):
    """Some completions with their prompts and images."""

    prompts: Tensor
    """[B, P], padded on the left."""
    prompt_mask: Tensor
    """[B, P], true for a token."""
    completions: Tensor
    """[B, T], padded on the right."""
    completion_mask: Tensor
    """[B, T]"""
    token_types: tuple[Tensor, ...] | None
    """Per completion [tokens of its prompt], 1 for a token of an image."""
    pixels: tuple[Tensor, ...]
    """Per completion [patches, values], all images of its prompt; empty where no prompt has an image."""
    grids: tuple[Tensor, ...]
    """Per completion [images, 3]."""


class Packed(NamedTuple):
    """The model's inputs, and where in its output the completions' tokens are."""

    inputs: dict[str, Tensor]
    places: Tensor
    """[tokens], into the flattened output; completion by completion."""
    completion_mask: Tensor
    """[B, T]"""

    def unpack(self, values: Tensor) -> Tensor:
        """Return the values of the completions' tokens, [B, T]; 0 where there is no token, as TRL has it."""
        empty = values.new_zeros(self.completion_mask.shape)
        return empty.masked_scatter(self.completion_mask, values.flatten()[self.places])


def pack(part: Part, backbone: Any) -> Packed:
    """Return the inputs that score some completions in the cheapest layout.

    Args:
        part: the completions.
        backbone: the model's part that knows the positions of images.
    """
    prompts = [ids[mask] for ids, mask in zip(part.prompts, part.prompt_mask, strict=True)]
    lengths: list[int] = part.completion_mask.sum(dim=1).tolist()
    groups = same_prompts(prompts, part.pixels, part.grids)
    rows = best_layout(groups, list(map(len, prompts)), lengths, cost_of(backbone.config.get_text_config()))
    inputs, places = _lay_out(part, rows, prompts, lengths, backbone)
    return Packed(inputs, places, part.completion_mask)


def same_prompts(prompts: Sequence[Tensor], pixels: Sequence[Tensor], grids: Sequence[Tensor]) -> list[list[int]]:
    """Return which completions have one prompt and one set of images, compared to the last value, in their order."""
    groups: dict[tuple[int, ...], list[list[int]]] = {}
    for place, prompt in enumerate(prompts):
        alike = groups.setdefault(tuple(prompt.tolist()), [])
        for group in alike:
            first = group[0]
            if not pixels or (torch.equal(grids[first], grids[place]) and torch.equal(pixels[first], pixels[place])):
                group.append(place)
                break
        else:
            alike.append([place])
    return sorted(chain.from_iterable(groups.values()))


def cost_of(config: Any) -> Cost:
    """Return the multiplications of one decoder layer of a language model with this configuration."""
    hidden, heads = config.hidden_size, config.num_attention_heads
    head = hidden // heads
    attention = 2 * hidden * heads * head + 2 * hidden * config.num_key_value_heads * head
    # A pair of tokens has a score, which weighs a value, in each head.
    return Cost(token=attention + 3 * hidden * config.intermediate_size, pair=2 * heads * head)


def best_layout(
    groups: Sequence[Sequence[int]], prompts: Sequence[int], completions: Sequence[int], cost: Cost
) -> list[Row]:
    """Return the rows that cost the least among those with at most 1, 2, ... completions each.

    Args:
        groups: the completions of each prompt.
        prompts: tokens of each completion's prompt.
        completions: tokens of each completion.
        cost: of a row.
    """

    def price(rows: list[Row]) -> int:
        return cost.of(len(rows), max(row.length(prompts, completions) for row in rows))  # the shorter ones are padded

    largest = max(map(len, groups))
    return min(([*_rows(groups, most)] for most in range(1, largest + 1)), key=price)


def _rows(groups: Sequence[Sequence[int]], most: int) -> list[Row]:
    rows: list[Row] = []
    for group in groups:
        n_rows = -(-len(group) // most)
        rows += [Row(tuple(group[start::n_rows])) for start in range(n_rows)]
    return rows


def _lay_out(
    part: Part, rows: Sequence[Row], prompts: Sequence[Tensor], lengths: Sequence[int], backbone: Any
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the model's inputs for a layout, and where each completion's tokens are in its output."""
    longest = max(row.length(list(map(len, prompts)), lengths) for row in rows)
    ids = part.prompts.new_zeros(len(rows), longest)
    labels = torch.full_like(ids, IGNORED)
    positions = ids.new_zeros(3, len(rows), longest)
    blocks = torch.full_like(ids, PADDING)
    found: dict[int, Tensor] = {}
    for place, row in enumerate(rows):
        prompt, at = prompts[row.first], prompt_positions(part, row.first, prompts[row.first], backbone)
        start = len(prompt) - 1
        ids[place, :start], positions[:, place, :start], blocks[place, :start] = prompt[:-1], at[:, :-1], SEEN_BY_ALL
        for block, member in enumerate(row.members, start=SEEN_BY_ALL + 1):
            end = start + 1 + lengths[member]
            completion = part.completions[member, : lengths[member]]
            ids[place, start], ids[place, start + 1 : end] = prompt[-1], completion
            labels[place, start + 1 : end] = completion
            positions[:, place, start:end] = at[:, -1:] + torch.arange(end - start, device=ids.device)
            blocks[place, start:end] = block
            # What stands at a place predicts the next, so that a row has one prediction less than tokens.
            found[member] = torch.arange(start, end - 1, device=ids.device) + place * (longest - 1)
            start = end
    inputs = {"input_ids": ids, "labels": labels, "position_ids": positions, "attention_mask": _mask(rows, blocks)}
    if any(map(len, part.pixels)):
        inputs["pixel_values"] = torch.cat([part.pixels[row.first] for row in rows])
        inputs["image_grid_thw"] = torch.cat([part.grids[row.first] for row in rows])
    return inputs, torch.cat([found[member] for member in range(len(lengths))])


def _mask(rows: Sequence[Row], blocks: Tensor) -> Tensor:
    """Return what may see what: [R, S] where every row has one completion, as usual, otherwise [R, 1, S, S]."""
    if all(len(row.members) == 1 for row in rows):
        return (blocks != PADDING).long()
    length = blocks.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=blocks.device).tril()
    # Padding sees itself: a softmax over nothing would not be a number.
    own = blocks[:, :, None] == blocks[:, None, :]
    return ((own | (blocks == SEEN_BY_ALL)[:, None, :]) & causal)[:, None]


def prompt_positions(part: Part, place: int, prompt: Tensor, backbone: Any) -> Tensor:
    """Return the rotary positions of a completion's prompt, [3, tokens]; those of text where no types are known."""
    if part.token_types is None:
        return torch.arange(len(prompt), device=prompt.device).expand(3, -1)
    found, _ = backbone.get_rope_index(
        prompt[None],
        mm_token_type_ids=part.token_types[place][None],
        image_grid_thw=part.grids[place] if part.grids else None,
    )
    positions: Tensor = found[:, 0]
    return positions


def _plain(attention_mask: Tensor, logits_to_keep: int, given: Mapping[str, Any]) -> bool:
    """Return whether the prompts end in text, and the completions are text without gaps."""
    completions = attention_mask[:, -logits_to_keep:]
    gapless = bool((completions[:, 1:] <= completions[:, :-1]).all())
    ended = attention_mask.shape[1] > logits_to_keep and bool(attention_mask[:, -logits_to_keep - 1].all())
    types = given.get("mm_token_type_ids")
    text = types is None or not bool(types[:, -logits_to_keep - 1 :].any())
    # Without types the images' positions are not known.
    return gapless and ended and text and ("pixel_values" not in given or {*given} >= OWN_KEYS)


def _parts(
    input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, given: Mapping[str, Any], size: int
) -> Iterator[Part]:
    """Yield TRL's completions in portions, each with the images of its prompts."""
    width = input_ids.shape[1] - logits_to_keep
    mask = attention_mask.bool()
    pixels: tuple[Tensor, ...] = ()
    grids: tuple[Tensor, ...] = ()
    if "pixel_values" in given:
        counts = given["num_images"]
        patches = given["image_grid_thw"].prod(dim=-1).tolist()
        shares = [sum(patches[start:end]) for start, end in pairwise(accumulate(counts, initial=0))]
        pixels = torch.split(given["pixel_values"], shares)
        grids = torch.split(given["image_grid_thw"], counts)
    types = given.get("mm_token_type_ids")
    for start in range(0, len(input_ids), size):
        rows = slice(start, start + size)
        of_prompts = mask[rows, :width]
        yield Part(
            prompts=input_ids[rows, :width],
            prompt_mask=of_prompts,
            completions=input_ids[rows, width:],
            completion_mask=mask[rows, width:],
            token_types=None
            if types is None
            else tuple(row[kept] for row, kept in zip(types[rows, :width], of_prompts, strict=True)),
            pixels=pixels[rows],
            grids=grids[rows],
        )
