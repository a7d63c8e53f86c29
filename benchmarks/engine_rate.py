"""One engine on 64 questions with images, in its own process: prints {"wall_s", "cpu_s", "tokens", "items"} as JSON.

Called by test_engines.py: engine_rate.py ENGINE CHECKPOINT. The weights are loaded and two requests answered before the
clock starts; reading and resizing the images is timed. CPU time is that of this process and all that it started.
"""

import io
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

ITEMS, NEW_TOKENS, SIDE = 64, 64, 224
TOPICS = "rain bread trains maps glass honey paper stars rivers clocks bridges salt".split()
MEMORY = "0.2"


def requests() -> list[Any]:
    from PIL import Image

    from ahabench.harness.types import Prompt, Request

    class Picture:
        def __init__(self, seed: int) -> None:
            noise = random.Random(seed).randbytes(SIDE * SIDE * 3)
            buffer = io.BytesIO()
            Image.frombytes("RGB", (SIDE, SIDE), noise).save(buffer, "PNG")
            self.data = buffer.getvalue()

        def read(self) -> bytes:
            return self.data

    return [
        Request(
            item_id=str(number),
            sample_index=0,
            prompt=Prompt(text=f"Write a long story, number {number}, about {TOPICS[number % len(TOPICS)]}."),
            images=(Picture(number),),
        )
        for number in range(ITEMS + 2)
    ]


def ours(spec: str, checkpoint: str, options: dict[str, str], **flags: Any) -> Callable[[Sequence[Any]], int]:
    from ahabench.harness.engines import open_engine
    from ahabench.harness.sampling import Sampling

    engine = open_engine(spec, checkpoint, sampling=Sampling(max_new_tokens=NEW_TOKENS), options=options, **flags)

    def answer(asked: Sequence[Any]) -> int:
        responses = list(engine.generate(asked))
        failures = [response.error for response in responses if response.text is None]
        assert not failures, failures[0]
        # An adapter of lmms-eval does not count: the tokens of what it wrote are.
        return sum(response.completion_tokens or len(counted(checkpoint, response.text)) for response in responses)

    return answer


def counted(checkpoint: str, text: str) -> list[int]:
    from transformers import AutoTokenizer

    tokens: list[int] = AutoTokenizer.from_pretrained(checkpoint)(text)["input_ids"]
    return tokens


def bare(checkpoint: str) -> Callable[[Sequence[Any]], int]:
    """The shortest loop over vLLM that one would write by hand."""
    from PIL import Image
    from transformers import AutoProcessor
    from vllm import LLM, SamplingParams

    model = LLM(
        checkpoint,
        dtype="bfloat16",
        enforce_eager=True,
        gpu_memory_utilization=float(MEMORY),
        limit_mm_per_prompt={"video": 0},
        generation_config="vllm",
    )
    processor = AutoProcessor.from_pretrained(checkpoint)

    def answer(asked: Sequence[Any]) -> int:
        prompts = []
        for one in asked:
            content = [{"type": "image"}, {"type": "text", "text": one.prompt.text}]
            text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
            picture = Image.open(io.BytesIO(one.images[0].read())).convert("RGB")
            prompts.append({"prompt": text, "multi_modal_data": {"image": picture}})
        outputs = model.generate(prompts, SamplingParams(max_tokens=NEW_TOKENS, temperature=0.0), use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    return answer


def opened(engine: str, checkpoint: str) -> Callable[[Sequence[Any]], int]:
    if engine == "transformers":
        return ours("transformers", checkpoint, {}, dtype="bfloat16", batch_size=32)
    if engine == "vllm":
        return ours(
            "vllm", checkpoint, {"enforce_eager": "true", "gpu_memory_utilization": MEMORY, "dtype": "bfloat16"}
        )
    if engine == "bare":
        return bare(checkpoint)
    if engine == "lmms-eval:vllm":
        arguments = f"gpu_memory_utilization={MEMORY},enforce_eager=True,dtype=bfloat16"
    else:
        arguments = "attn_implementation=sdpa"
    # Its own default is one request at a time; in one batch vLLM has them all.
    batch = {"lmms-eval:qwen2_5_vl": 1, "lmms-eval:qwen2_5_vl*8": 8, "lmms-eval:vllm": ITEMS}[engine]
    options = {"model_args": arguments, "batch_size": str(batch), "chunk_size": str(ITEMS)}
    return ours(engine.partition("*")[0], checkpoint, options)


def cpu_s() -> float:
    import psutil

    own = psutil.Process()
    total = 0.0
    for process in [own, *own.children(recursive=True)]:
        times = process.cpu_times()
        total += times.user + times.system
    return total


def main() -> None:
    engine, checkpoint = sys.argv[1:]
    asked = requests()
    answer = opened(engine, checkpoint)
    answer(asked[:2])
    began, used = time.perf_counter(), cpu_s()
    tokens = answer(asked[2:])
    row = {"wall_s": time.perf_counter() - began, "cpu_s": cpu_s() - used, "tokens": tokens, "items": ITEMS}
    print("\n" + json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
