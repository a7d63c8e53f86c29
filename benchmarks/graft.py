"""A real language model in the shell of a Qwen2.5-VL: SmolLM2-135M-Instruct, with a small random vision tower.

The language part computes what the original does: Qwen2.5 has biases that Llama has not, which become zero, and for
text the three rotary sections count the same positions. What it sees is noise: it is for measuring speed.
"""

from pathlib import Path
from typing import Any

VISION = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] in ('image', 'image_url') %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def graft(gguf: Path, folder: Path) -> Path:
    """Write the checkpoint in bfloat16, about 270 MB, and return its folder."""
    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    options: dict[str, Any] = {"gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), **options)
    language = AutoModelForCausalLM.from_pretrained(str(gguf.parent), dtype=torch.float32, **options)
    tokenizer.add_special_tokens({"additional_special_tokens": VISION})
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(_config(language.config, tokenizer)).to(torch.bfloat16)
    shell, weights = model.state_dict(), language.state_dict()
    for name in shell:
        if name.endswith(("q_proj.bias", "k_proj.bias", "v_proj.bias")) and "language_model" in name:
            shell[name].zero_()
        original = name.replace("model.language_model.", "model.")
        if "language_model" in name and original in weights:
            rows = weights[original].shape[0]
            shell[name][:rows].copy_(weights[original])
    model.tie_weights()
    model.save_pretrained(folder)
    images = Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=256 * 28 * 28)
    Qwen2_5_VLProcessor(images, tokenizer, Qwen2VLVideoProcessor(), chat_template=TEMPLATE).save_pretrained(folder)
    return folder


def _config(llama: Any, tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLConfig

    ids = dict(zip(VISION, tokenizer.convert_tokens_to_ids(VISION), strict=True))
    half = llama.hidden_size // llama.num_attention_heads // 2
    theta = (getattr(llama, "rope_parameters", None) or {}).get("rope_theta") or llama.rope_theta
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": llama.hidden_size,
        "intermediate_size": llama.intermediate_size,
        "num_hidden_layers": llama.num_hidden_layers,
        "num_attention_heads": llama.num_attention_heads,
        "num_key_value_heads": llama.num_key_value_heads,
        "max_position_embeddings": llama.max_position_embeddings,
        "rms_norm_eps": llama.rms_norm_eps,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": theta,
            "mrope_section": [half - 2 * (half * 3 // 8), half * 3 // 8, half * 3 // 8],
        },
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
    }
    vision = {
        "depth": 2,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_heads": 4,
        "out_hidden_size": llama.hidden_size,
        "fullatt_block_indexes": [1],
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
