"""The keys of a recipe that TRL's rollouts by vLLM take, under TRL's names (`GRPOConfig` of TRL 1.16)."""

from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from ahabench.trainer.recipe_files import Part


class VllmSettings(Part):
    """Where and how vLLM makes the rollouts. Keys of the mode that is not chosen have no effect."""

    vllm: Literal["off", "colocate", "server"] = "off"
    """off: transformers. colocate: vLLM in the training processes, on their GPUs. server: `vllm serve` on
    others."""
    vllm_server_base_url: str | None = None
    """Such as http://node7:8000, without /v1; instead of host and port."""
    vllm_server_host: str = "127.0.0.1"
    vllm_server_port: int = Field(default=8000, ge=1, le=65535)
    vllm_server_timeout: float = Field(default=240.0, ge=0)
    """Seconds that the server may take to be up."""
    vllm_server_model: str | None = None
    """What the server calls the model, where that is neither the recipe's model nor its folder. Not one of TRL's."""
    vllm_group_port: int = Field(default=51216, ge=1, le=65535)
    """Where the server's workers meet the main training process, on its node, for the weights (NCCL)."""

    vllm_gpu_memory_utilization: float = Field(default=0.3, gt=0, le=1)
    """colocate: share of each GPU's memory that is vLLM's, weights and KV cache."""
    vllm_tensor_parallel_size: int = Field(default=1, ge=1)
    """colocate: GPUs that share one copy of the model; divides the number of processes."""
    vllm_enable_sleep_mode: bool = False
    """colocate: whether vLLM gives its memory back during optimiser steps, for some time at each rollout."""
    vllm_max_model_length: int | None = Field(default=None, ge=1)
    """colocate: tokens of prompt, images and completion; the model's own context if null, for which vLLM reserves."""

    vllm_importance_sampling_correction: bool = True
    """Whether the loss is weighted by the trainer's probability of what was sampled over vLLM's, which differ a
    little. Not in the paper."""
    vllm_importance_sampling_mode: Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] = (
        "sequence_mask"
    )
    """Ratios of tokens or of whole completions: truncate brings them between the clips, mask leaves out the others."""
    vllm_importance_sampling_clip_max: float | None = Field(default=3.0, gt=0)
    """null: no upper bound."""
    vllm_importance_sampling_clip_min: float | None = Field(default=None, ge=0)
    """null: no lower bound."""

    @property
    def server_url(self) -> str:
        """The server's address without a path's end."""
        url = self.vllm_server_base_url or f"http://{self.vllm_server_host}:{self.vllm_server_port}"
        return url.rstrip("/")

    @field_validator("vllm", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: Any) -> Any:
        """YAML reads off as false."""
        return "off" if value is False else value

    @model_validator(mode="after")
    def _check_vllm(self) -> Self:
        url = urlsplit(self.server_url)
        if url.scheme not in {"http", "https"} or not url.hostname or url.query or url.fragment:
            raise ValueError(f"vllm_server_base_url is {self.server_url!r}, wanted such as http://node7:8000")
        if url.path.endswith("/v1"):
            raise ValueError(f"vllm_server_base_url is {self.server_url!r}, and TRL wants it without /v1")
        low, high = self.vllm_importance_sampling_clip_min, self.vllm_importance_sampling_clip_max
        if low is not None and high is not None and low >= high:
            raise ValueError(
                f"vllm_importance_sampling_clip_min {low} is not below vllm_importance_sampling_clip_max {high}"
            )
        if low is None and high is None and self.vllm_importance_sampling_mode.endswith("_truncate"):
            raise ValueError(
                f"vllm_importance_sampling_mode {self.vllm_importance_sampling_mode} has nothing to truncate at; give "
                "vllm_importance_sampling_clip_max or vllm_importance_sampling_clip_min"
            )
        return self


OURS = frozenset({"vllm", "vllm_server_model"})
"""Keys that TRL does not have under these names."""
MOVABLE = frozenset(
    {
        "vllm_server_base_url",
        "vllm_server_host",
        "vllm_server_port",
        "vllm_server_timeout",
        "vllm_server_model",
        "vllm_group_port",
        "vllm_gpu_memory_utilization",
        "vllm_enable_sleep_mode",
        "vllm_max_model_length",
    }
)
"""Keys that may differ when a run goes on elsewhere: they change no sample."""


def trl_rollouts(settings: VllmSettings, banned: list[int]) -> dict[str, Any]:
    """Return keyword arguments of `GRPOConfig` for who makes the rollouts, and what may not be generated.

    Args:
        settings: a recipe.
        banned: token ids that may not be generated.
    """
    if settings.vllm == "off":
        return {"use_vllm": False, "generation_kwargs": {"suppress_tokens": banned}}
    fields = VllmSettings.model_fields.keys() - OURS
    return {
        "use_vllm": True,
        "vllm_mode": settings.vllm,
        # vLLM has no list of tokens to suppress; it bounds a bias at -100, which no logit outweighs.
        "generation_kwargs": {"logit_bias": dict.fromkeys(banned, -100.0)},
    } | {name: getattr(settings, name) for name in fields}
