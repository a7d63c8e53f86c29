"""Rollouts for TRL by a real vLLM: the server that the documentation starts, and colocate mode, both on a CPU.

What wants a GPU, and where that begins, is asserted too: TRL's ways for the weights.
"""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from ahabench.harness.errors import EngineError, UsageError
from ahabench.trainer.base_model import Front, open_model
from ahabench.trainer.recipe import Recipe, parse_recipe
from ahabench.trainer.vllm_checks import check_installed, check_server, serve_command
from ahabench.trainer.vllm_rollouts import fitting
from ahabench.trainer.vllm_settings import VllmSettings, trl_rollouts

pytestmark = pytest.mark.engines

pytest.importorskip("trl", reason="TRL is not installed; `tox -e engines` makes an environment that has it")


def opened(model: Path, url: str, tmp_path: Path, **overrides: Any) -> tuple[Recipe, Front]:
    values = {"model": str(model), "data": "mini", "vllm": "server", "vllm_server_base_url": url, "max_new_tokens": 32}
    recipe = parse_recipe(values | overrides, name="test")
    return recipe, open_model(recipe, tmp_path)


@pytest.fixture(scope="module")
def server(tiny_vlm: Path, free_port: int, serving: Any) -> Iterator[str]:
    """The address of `vllm serve`, started by the command that ahabench gives."""
    recipe = VllmSettings(vllm="server", vllm_server_port=free_port)
    variable, program, *words = shlex.split(serve_command(recipe, str(tiny_vlm)))
    assert program == "vllm"
    name, _, value = variable.partition("=")
    on_a_cpu = ["--host", "127.0.0.1", "--dtype", "float32", "--enforce-eager", "--gpu-memory-utilization", "0.15"]
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", *words, *on_a_cpu, "--max-num-seqs", "16"]
    with serving(command, f"{recipe.server_url}/health", os.environ | {name: value}):
        yield recipe.server_url


@pytest.fixture
def client(server: str) -> Any:
    from trl.generation.vllm_client import VLLMClient

    return VLLMClient(base_url=server)


def picture(width: int, height: int) -> Image.Image:
    image = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(image).rectangle((9, 9, 40, 30), fill="red")
    return image


class TestServer:
    def test_it_passes_every_check(self, server: str, tiny_vlm: Path, tmp_path: Path) -> None:
        recipe, front = opened(tiny_vlm, server, tmp_path)
        check_server(recipe, front, metadata.version("vllm"))

    def test_a_recipes_pixel_limits_need_nothing_of_it(self, server: str, tiny_vlm: Path, tmp_path: Path) -> None:
        recipe, front = opened(tiny_vlm, server, tmp_path, max_pixels=12_544)
        check_server(recipe, front, metadata.version("vllm"))

    def test_a_processor_with_other_limits_is_found(self, server: str, tiny_vlm: Path, tmp_path: Path) -> None:
        recipe, front = opened(tiny_vlm, server, tmp_path)
        front.processor.image_processor.size = {"shortest_edge": 784, "longest_edge": 12_544}
        # 250 x 250 here becomes 112 x 112: 16 tokens; there, up to 50,176 pixels, 224 x 224: 64.
        with pytest.raises(EngineError, match="250 x 250 has 16 tokens here and 64 on the server"):
            check_server(recipe, front, metadata.version("vllm"))

    def test_another_model_is_found(self, server: str, tiny_vlm: Path, tmp_path: Path) -> None:
        recipe, front = opened(tiny_vlm, server, tmp_path, vllm_server_model="Qwen/Qwen2.5-VL-3B-Instruct")
        with pytest.raises(EngineError, match=f"serves {tiny_vlm}, wanted Qwen/Qwen2.5-VL-3B-Instruct"):
            check_server(recipe, front, metadata.version("vllm"))

    def test_one_that_only_evaluates_is_refused(self, vllm_server: str, tiny_vlm: Path, tmp_path: Path) -> None:
        url = vllm_server.removesuffix("/v1")
        recipe, front = opened(tiny_vlm, url, tmp_path)
        with pytest.raises(
            EngineError, match=r"was started without VLLM_SERVER_DEV_MODE=1\. Start it with: VLLM_SERVER"
        ):
            check_server(recipe, front, metadata.version("vllm"))

    def test_banned_tokens_are_never_generated(self, client: Any) -> None:
        # All but one of the 264: hot as it is, nothing else can come.
        ban = trl_rollouts(VllmSettings(vllm="server"), [token for token in range(264) if token != 77])
        found = client.generate(
            [[1, 2, 3], [4, 5]], n=2, temperature=2.0, max_tokens=4, generation_kwargs=ban["generation_kwargs"]
        )
        assert found["completion_ids"] == [[77] * 4] * 4

    def test_completions_of_an_image_are_those_of_transformers(
        self, server: str, client: Any, tiny_vlm: Path, tmp_path: Path
    ) -> None:
        """The prompt and the image as TRL sends them: the trainer's token ids, and features placed on its images."""
        import torch
        from transformers import AutoModelForImageTextToText
        from trl.generation.vllm_generation import VLLMGeneration

        recipe, front = opened(tiny_vlm, server, tmp_path, max_pixels=12_544)
        fit = fitting(recipe, front)
        assert fit is not None
        image = fit(picture(300, 200))
        content = [{"type": "image", "image": image}, {"type": "text", "text": "How many?"}]
        inputs = front.processor.apply_chat_template(
            [[{"role": "user", "content": content}]],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        model = AutoModelForImageTextToText.from_pretrained(tiny_vlm, dtype=torch.float32)
        ids = inputs["input_ids"][0].tolist()
        expected = model.generate(**inputs, do_sample=False, max_new_tokens=6, suppress_tokens=[260])
        # TRL's own placing needs of its object only the processor.
        placing = object.__new__(VLLMGeneration)
        placing.processing_class = front.processor
        features = placing._place_features(client.image_features([[image]])[0], ids)
        # Without log-probabilities, whose form TRL 1.16 does not know of vLLM 0.32.
        found = client.generate(
            [ids],
            features=[features],
            temperature=0,
            max_tokens=6,
            logprobs=None,
            generation_kwargs=trl_rollouts(recipe, [260])["generation_kwargs"],
        )
        assert found["prompt_ids"] == [ids]
        assert found["completion_ids"][0] == expected[0, len(ids) :].tolist()

    def test_the_weights_want_cuda(self, client: Any) -> None:
        """The boundary: everything before the weights runs here, and they do not."""
        with pytest.raises(NotImplementedError, match="needs a CUDA device, got 'cpu'"):
            client.init_communicator(device="cpu")

    def test_this_vllm_is_refused_unless_trl_declares_it(self) -> None:
        from packaging.version import Version

        if Version(metadata.version("vllm")).release <= (0, 31):
            check_installed()
        else:
            with pytest.raises(UsageError, match="works with"):
                check_installed()


@pytest.fixture(scope="module")
def colocated(tiny_vlm: Path) -> dict[str, Any]:
    """What colocate mode makes of three prompts, by TRL alone and in our hands."""
    command = [sys.executable, "-P", str(Path(__file__).with_name("colocated.py")), str(tiny_vlm)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def largest_difference(found: dict[str, Any]) -> float:
    return max(
        abs(ours - theirs)
        for row, expected in zip(found["logprobs"], found["expected"], strict=True)
        for ours, theirs in zip(row, expected, strict=True)
    )


class TestColocated:
    def test_vllm_reads_the_prompts_that_are_trained_on(self, colocated: dict[str, Any]) -> None:
        assert colocated["ours"]["read"] == colocated["given"]

    def test_its_log_probabilities_are_those_of_transformers(self, colocated: dict[str, Any]) -> None:
        assert [len(row) for row in colocated["ours"]["logprobs"]] == [8, 8, 8]
        assert largest_difference(colocated["ours"]) < 0.02

    def test_banned_tokens_are_never_generated(self, colocated: dict[str, Any]) -> None:
        assert all(token < 100 for row in colocated["ours"]["completions"] for token in row)

    def test_an_image_that_vllm_resizes_otherwise_stops_the_run(self, colocated: dict[str, Any]) -> None:
        # 120 x 90 is 112 x 84 there, 12 tokens, and here, with at most 3,136 pixels, 56 x 28: 2.
        wanted = (
            "vLLM has read another prompt than the one that is trained on: 42 tokens, 12 of images; wanted 32 and 2"
        )
        assert colocated["other_limits"] == wanted

    def test_the_weights_want_a_gpu(self, colocated: dict[str, Any]) -> None:
        """The boundary: vLLM repacks the weights for a CPU, and TRL's way of loading does not know of it."""
        assert colocated["sync"] == "AttributeError: 'Parameter' object has no attribute 'weight_loader'"

    def test_trl_alone_still_expands_an_image_twice(self, colocated: dict[str, Any]) -> None:
        """huggingface/trl#6294. Once this fails, `SamePrompts` is to be looked at again."""
        read = colocated["trl"]["read"]
        extra = [len(ids) - len(given) for ids, given in zip(read, colocated["given"], strict=True)]
        # The first image of each prompt has n tokens, of which the first becomes n: 12 - 1, 10 - 1, and no image.
        assert extra == [11, 9, 0]
        assert largest_difference(colocated["trl"]) > 0.1


@pytest.fixture(scope="module")
def run_log(tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    """What a GRPO run logs whose rollouts a colocated vLLM makes: six steps of three rollouts."""
    folder = tmp_path_factory.mktemp("colocated-run")
    script = Path(__file__).with_name("colocated_run.py")
    command = [sys.executable, "-P", str(script), str(tiny_vlm), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return found


class TestRun:
    def test_vllm_samples_from_the_weights_that_are_trained(self, run_log: list[dict[str, float]]) -> None:
        name = "sampling/sampling_logp_difference/max"
        differences = {int(row["step"]): row[name] for row in run_log if name in row}
        assert list(differences) == [1, 3, 5]  # a rollout of 16 completions feeds two steps of 8
        assert max(differences.values()) < 0.02
        # And they have moved: weights that were left behind would differ by as much.
        moved = {int(row["step"]): row["kl"] for row in run_log if "kl" in row}
        assert moved[1] == pytest.approx(0.0, abs=1e-6)
        assert moved[5] > 0.2

    def test_the_correction_leaves_equal_samples_alone(self, run_log: list[dict[str, float]]) -> None:
        ratios = [row[name] for row in run_log for name in row if name.startswith("sampling/importance_sampling_ratio")]
        assert len(ratios) == 9
        assert all(0.9 < ratio < 1.1 for ratio in ratios)
