"""vLLM rollouts without a GPU: TRL's settings, images, what is said. A real vLLM: tests/vllm/test_rollouts.py."""

import json
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ahabench.harness.errors import AhabenchError, EngineError, UsageError
from ahabench.trainer.plan import Machine, plan
from ahabench.trainer.recipe import Recipe, load_recipe, parse_recipe
from ahabench.trainer.recipe_files import dump_recipe, shipped
from ahabench.trainer.vllm_checks import (
    check_colocated,
    check_installed,
    check_machine,
    check_server,
    serve_command,
)
from ahabench.trainer.vllm_rollouts import fitted, fitting, image_tokens, unexpanded
from ahabench.trainer.vllm_settings import OURS, VllmSettings

HERE = "0.31.0"
EVERY_KEY = {
    "vllm_server_base_url": "http://node7:8001",
    "vllm_server_host": "node8",
    "vllm_server_port": 8002,
    "vllm_server_timeout": 17.0,
    "vllm_group_port": 51217,
    "vllm_gpu_memory_utilization": 0.45,
    "vllm_tensor_parallel_size": 2,
    "vllm_enable_sleep_mode": True,
    "vllm_max_model_length": 4096,
    "vllm_importance_sampling_correction": False,
    "vllm_importance_sampling_mode": "token_truncate",
    "vllm_importance_sampling_clip_max": 2.0,
    "vllm_importance_sampling_clip_min": 0.5,
}


def grpo_config(recipe: Recipe, out: Path, banned: tuple[int, ...] = ()) -> Any:
    from ahabench.trainer import grpo

    return grpo.arguments(recipe, out, banned=banned)


class TestSettings:
    @pytest.mark.parametrize("name", shipped(Recipe))
    @pytest.mark.parametrize("mode", ["colocate", "server"])
    def test_every_shipped_recipe_becomes_trls_settings(self, name: str, mode: str, tmp_path: Path) -> None:
        config = grpo_config(load_recipe(name, [f"vllm={mode}", "bf16=false"]), tmp_path)
        assert (config.use_vllm, config.vllm_mode) == (True, mode)

    def test_every_key_reaches_trl_under_its_name(self, settings: dict[str, Any], tmp_path: Path) -> None:
        assert EVERY_KEY.keys() == VllmSettings.model_fields.keys() - OURS
        config = grpo_config(parse_recipe(settings | EVERY_KEY | {"vllm": "server"}, name="test"), tmp_path)
        assert {name: getattr(config, name) for name in EVERY_KEY} == EVERY_KEY

    def test_defaults_are_trls_but_for_the_address(self, settings: dict[str, Any], tmp_path: Path) -> None:
        from trl.trainer.grpo_config import GRPOConfig

        ours = grpo_config(parse_recipe(settings | {"vllm": "colocate"}, name="test"), tmp_path)
        theirs = GRPOConfig(output_dir=str(tmp_path), bf16=False)
        differing = {name for name in EVERY_KEY if getattr(ours, name) != getattr(theirs, name)}
        assert differing == {"vllm_server_host"}  # 0.0.0.0 is no address to connect to

    def test_banned_tokens_are_a_bias_for_vllm_and_suppressed_by_transformers(
        self, settings: dict[str, Any], tmp_path: Path
    ) -> None:
        with_vllm = grpo_config(parse_recipe(settings | {"vllm": "server"}, name="test"), tmp_path, (3, 5))
        without = grpo_config(parse_recipe(settings, name="test"), tmp_path, (3, 5))
        assert with_vllm.generation_kwargs == {"logit_bias": {3: -100.0, 5: -100.0}}
        assert without.generation_kwargs == {"suppress_tokens": [3, 5]}

    def test_the_plan_counts_the_share_of_the_memory(self) -> None:
        asked = ["vllm_gpu_memory_utilization=0.5"]
        found = plan("vlaa-qwen2.5-vl-3b", asked, Machine(gpus=8, gpu_gb=80.0))
        assert found.memory_gb is not None
        assert found.memory_gb["vLLM"] == 40.0

    def test_off_may_be_said_without_quotes(self) -> None:
        assert load_recipe("vlaa-qwen2.5-vl-3b", ["vllm=off"]).vllm == "off"  # YAML reads a boolean

    @pytest.mark.parametrize(
        ("values", "told"),
        [
            ({"vllm": "yes"}, "vllm: "),
            ({"vllm_server_base_url": "node7:8000"}, "wanted such as http://node7:8000"),
            ({"vllm_server_base_url": "http://node7:8000/v1/"}, "without /v1"),
            (
                {"vllm_importance_sampling_clip_min": 3.0},
                "clip_min 3.0 is not below vllm_importance_sampling_clip_max 3.0",
            ),
            (
                {"vllm_importance_sampling_mode": "token_truncate", "vllm_importance_sampling_clip_max": None},
                "has nothing to truncate at",
            ),
            ({"vllm_gpu_memory_utilization": 1.5}, "vllm_gpu_memory_utilization: "),
        ],
    )
    def test_a_wrong_value_is_told_in_one_line(
        self, settings: dict[str, Any], values: dict[str, Any], told: str
    ) -> None:
        with pytest.raises(UsageError) as caught:
            parse_recipe(settings | values, name="test")
        assert told in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_run_goes_on_with_another_server_but_not_in_another_mode(
        self, settings: dict[str, Any], tmp_path: Path
    ) -> None:
        from ahabench.trainer.run_folder import check_recipe

        begun = tmp_path / "recipe.yaml"
        begun.write_text(dump_recipe(parse_recipe(settings | {"vllm": "server"}, name="test")))
        moved = settings | {"vllm": "server", "vllm_server_base_url": "http://node9:8000"}
        check_recipe(parse_recipe(moved, name="test"), begun)
        with pytest.raises(UsageError, match="begun with vllm = 'server', found 'colocate'"):
            check_recipe(parse_recipe(settings | {"vllm": "colocate"}, name="test"), begun)


class TestMachine:
    @pytest.mark.parametrize("mode", ["server", "colocate"])
    def test_without_a_gpu_nothing_is_loaded(self, settings: dict[str, Any], mode: str, tmp_path: Path) -> None:
        from ahabench.trainer.grpo_run import train

        out = tmp_path / "out"
        recipe = parse_recipe(settings | {"vllm": mode, "model": "no/such-model"}, name="test")
        with pytest.raises(UsageError, match=f"vllm={mode} wants a .*computes on cpu; give vllm=off"):
            train(recipe, out)
        assert list(out.iterdir()) == []

    def test_a_missing_vllm_is_named_with_the_version_that_trl_wants(self) -> None:
        if any(found.name == "vllm" for found in metadata.distributions()):
            pytest.skip("vLLM is installed here")
        with pytest.raises(UsageError, match=r'vLLM is not installed here.*pip install "vllm<=\d.*>=0\.\d') as caught:
            check_installed()
        assert caught.value.exit_code == 2

    @pytest.mark.parametrize("version", ["0.21.0", "0.99.0", "0.99.0+cu129", "dev"])
    def test_a_vllm_that_trl_does_not_know_is_refused(
        self, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        install(version, tmp_path, monkeypatch)
        with pytest.raises(UsageError, match=rf"vLLM {version.replace('+', '.')} is installed, and TRL .* works with"):
            check_installed()

    @pytest.mark.parametrize("version", ["0.22.0", "0.31.0+cu129"])
    def test_a_vllm_that_trl_knows_is_taken(
        self, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        install(version, tmp_path, monkeypatch)
        check_installed()


def install(version: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the metadata of a vLLM where Python looks for them."""
    made = folder / "vllm-0.dist-info"
    made.mkdir()
    (made / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    monkeypatch.syspath_prepend(str(folder))


@pytest.fixture
def opened(settings: dict[str, Any], tmp_path: Path) -> Callable[..., tuple[Recipe, Any]]:
    """Return a recipe and its model without weights."""

    def open_(**overrides: Any) -> tuple[Recipe, Any]:
        from ahabench.trainer.base_model import open_model

        recipe = parse_recipe(settings | overrides, name="test")
        return recipe, open_model(recipe, tmp_path)

    return open_


class TestColocated:
    def test_copies_must_divide_among_the_processes(self, opened: Any) -> None:
        recipe, front = opened(vllm="colocate", vllm_tensor_parallel_size=3)
        with pytest.raises(UsageError, match="wanted a divisor of the 8 processes"):
            check_colocated(recipe, front, 8)
        check_colocated(recipe, front, 6)

    def test_a_prompt_must_have_room(self, opened: Any) -> None:
        recipe, front = opened(vllm="colocate", vllm_max_model_length=8)
        with pytest.raises(UsageError, match="8 tokens, which leaves a prompt no room beside max_new_tokens = 8"):
            check_colocated(recipe, front, 1)

    def test_limits_beyond_the_checkpoints_own_are_refused(self, opened: Any) -> None:
        # The untrained model's own: 56 x 56 = 3,136 to four times that.
        recipe, front = opened(vllm="colocate", max_pixels=20_000)
        with pytest.raises(UsageError, match=r"3,136 to 20,000 pixels.*3,136 to 12,544"):
            check_colocated(recipe, front, 1)
        recipe, front = opened(vllm="colocate", max_pixels=6_272)
        check_colocated(recipe, front, 1)


class TestImages:
    @pytest.mark.parametrize("size", [(10, 10), (56, 56), (90, 40), (640, 480), (30, 300), (28, 900)])
    def test_a_fitted_image_has_the_same_tokens_under_wider_limits(self, opened: Any, size: tuple[int, int]) -> None:
        recipe, front = opened(vllm="colocate", max_pixels=6_272)
        _, wide = opened()
        fit = fitting(recipe, front)
        assert fit is not None
        picture = fit(Image.new("RGB", size, "red"))
        assert image_tokens(front.processor, picture) == image_tokens(wide.processor, picture)

    def test_a_fitted_image_has_the_tokens_that_the_trainer_would_give_the_whole_one(self, opened: Any) -> None:
        recipe, front = opened(vllm="colocate", max_pixels=6_272)
        picture = Image.new("RGB", (640, 480))
        # 640 x 480 shrinks by sqrt(307,200 / 6,272) = 7.0 to 91.4 x 68.6, in whole patches 84 x 56: 3 x 2 tokens.
        assert fitting(recipe, front)(picture).size == (84, 56)
        assert image_tokens(front.processor, picture) == 6

    def test_the_training_data_are_fitted(self, opened: Any, tmp_path: Path) -> None:
        from ahabench.trainer.grpo import prompt_dataset
        from ahabench.trainer.grpo_run import load_items

        recipe, front = opened(vllm="colocate", min_pixels=12_000)
        rows = prompt_dataset(load_items(recipe).items, None, fit=fitting(recipe, front))
        assert rows[0]["images"][0].size == (112, 112)  # of 56 x 56

    def test_nothing_is_fitted_without_vllm_or_without_limits(self, opened: Any) -> None:
        assert fitting(*opened(max_pixels=6_272)) is None
        assert fitting(*opened(vllm="server")) is None

    def test_an_image_too_thin_for_the_processor_is_left_to_it(self) -> None:
        picture = Image.new("RGB", (1, 201))
        assert fitted(picture, (3_136, 12_544), 28) is picture

    def test_each_image_keeps_one_token(self) -> None:
        assert unexpanded([9, 9, 1, 9, 2], 9) == [9, 1, 9, 2]
        assert unexpanded([1, 1, 2], 9) == [1, 1, 2]
        assert unexpanded([], 9) == []


Reply = tuple[int, Any]


@contextmanager
def replying(replies: dict[str, Reply], *, after_s: float = 0.0) -> Iterator[str]:
    """A server with what `vllm serve` 0.31 answers, down to the keys that are read; it is up after some time."""
    up = time.monotonic() + after_s

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer()

        def _answer(self) -> None:
            status, body = replies.get(self.path.partition("?")[0], (404, {"detail": "Not Found"}))
            if time.monotonic() < up:
                status = 503
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def config(**changes: Any) -> Reply:
    model = {"logprobs_mode": "processed_logprobs", "max_model_len": 4096}
    transfer = changes.pop("weight_transfer_config", {"backend": "nccl"})
    return 200, {"vllm_config": {"model_config": model | changes, "weight_transfer_config": transfer}}


def features(length: int) -> Reply:
    return 200, {"features": {"mm_placeholders": {"image": [{"offset": 7, "length": length}]}}}


@pytest.fixture
def good(untrained: Path) -> dict[str, Reply]:
    """What the right server answers; every image has 4 tokens there, as the smallest has here."""
    return {
        "/health": (200, None),
        "/version": (200, {"version": HERE}),
        "/v1/models": (200, {"data": [{"id": "actor", "root": str(untrained)}]}),
        "/server_info": config(),
        "/v1/chat/completions/render": features(4),
    }


class TestServer:
    @pytest.fixture
    def told(self, opened: Any, good: dict[str, Reply]) -> Callable[..., str]:
        """Return what a user is told whose server differs from the right one."""

        def ask(path: str = "/health", reply: Reply = (200, None), **overrides: Any) -> str:
            with replying(good | {path: reply}) as url:
                values = {"vllm": "server", "vllm_server_base_url": url, "vllm_server_timeout": 0, "max_pixels": 3_136}
                recipe, front = opened(**(values | overrides))
                try:
                    check_server(recipe, front, HERE)
                except AhabenchError as error:
                    return f"exit {error.exit_code}: {error}"
            return "ready"

        return ask

    def test_the_right_one_is_taken(self, told: Any) -> None:
        assert told() == "ready"

    def test_one_that_is_not_up_is_named_with_the_command_that_starts_it(self, opened: Any, untrained: Path) -> None:
        with replying({}) as url:
            pass  # closed again: nobody listens there
        recipe, front = opened(vllm="server", vllm_server_base_url=url, vllm_server_timeout=0)
        with pytest.raises(EngineError) as caught:
            check_server(recipe, front, HERE)
        assert f"there is no vLLM server at {url}" in str(caught.value)
        assert f"VLLM_SERVER_DEV_MODE=1 vllm serve {untrained} --port {url.rpartition(':')[2]}" in str(caught.value)

    def test_one_that_is_still_loading_is_waited_for(self, opened: Any, good: dict[str, Reply]) -> None:
        with replying(good, after_s=1.0) as url:
            recipe, front = opened(vllm="server", vllm_server_base_url=url, vllm_server_timeout=30, max_pixels=3_136)
            check_server(recipe, front, HERE)

    def test_one_of_another_model_is_refused(self, told: Any, untrained: Path) -> None:
        line = told("/v1/models", (200, {"data": [{"id": "other/model", "root": "other/model"}]}))
        assert f"serves other/model, wanted {untrained}" in line
        assert "vllm_server_model" in line

    def test_a_name_that_the_recipe_gives_is_enough(self, told: Any) -> None:
        served = (200, {"data": [{"id": "elsewhere", "root": "/models/elsewhere"}]})
        assert told("/v1/models", served, vllm_server_model="elsewhere") == "ready"

    def test_one_of_another_version_is_refused_with_both(self, told: Any) -> None:
        line = told("/version", (200, {"version": "0.27.1+cu129"}))
        assert "runs vLLM 0.27.1+cu129, this environment has 0.31.0" in line
        assert 'pip install "vllm==0.31.0" on the server, or "vllm==0.27.1" here' in line

    def test_a_fix_release_is_the_same_version(self, told: Any) -> None:
        assert told("/version", (200, {"version": "0.31.2"})) == "ready"

    @pytest.mark.parametrize(
        ("path", "reply", "line"),
        [
            ("/version", (404, {}), "is no vLLM server: it does not say its version"),
            ("/version", (200, []), "is no vLLM server: it does not say its version"),
            ("/v1/models", (200, {"data": []}), "serves nothing, wanted"),
            ("/server_info", (404, {}), "was started without VLLM_SERVER_DEV_MODE=1"),
            ("/server_info", (200, {"vllm_config": "text"}), "does not say how it is configured (HTTP 200)"),
            ("/server_info", config(weight_transfer_config=None), "cannot take weights by NCCL"),
            ("/server_info", config(weight_transfer_config={"backend": "ipc"}), "cannot take weights by NCCL"),
            ("/server_info", config(logprobs_mode="raw_logprobs"), "has the logprobs mode raw_logprobs"),
            ("/server_info", config(max_model_len=8), "is 8 tokens, which leaves a prompt no room"),
            ("/v1/chat/completions/render", (404, {}), "without --enable-scale-out"),
            ("/v1/chat/completions/render", (400, {"error": "0 images"}), 'does not take images (HTTP 400) {"error"'),
            ("/v1/chat/completions/render", (200, {"features": None}), "does not take images (HTTP 200)"),
            ("/v1/chat/completions/render", features(5), "56 x 56 has 4 tokens here and 5 on the server"),
        ],
    )
    def test_one_that_cannot_do_it_is_refused(self, told: Any, path: str, reply: Reply, line: str) -> None:
        found = told(path, reply)
        assert line in found
        assert found.startswith("exit 2: ")
        assert "\n" not in found

    def test_without_the_correction_the_logprobs_mode_is_free(self, told: Any) -> None:
        raw = config(logprobs_mode="raw_logprobs")
        assert told("/server_info", raw, vllm_importance_sampling_correction=False) == "ready"

    def test_the_command_has_what_trl_imposes(self) -> None:
        """TRL says in `build_command` which options its client cannot do without."""
        from trl.scripts.vllm_serve import ScriptArguments, build_command

        theirs = build_command(ScriptArguments(model="m", port=8123))
        imposed = theirs[theirs.index("--weight-transfer-config") :]
        recipe = load_recipe("tiny-cpu", ["vllm=server", "vllm_server_port=8123"])
        ours = shlex.split(serve_command(recipe, "m", scale_out=False))
        assert ours[:6] == ["VLLM_SERVER_DEV_MODE=1", "vllm", "serve", "m", "--port", "8123"]
        assert ours[6:] == imposed


def test_the_machine_is_looked_at_first() -> None:
    """Nobody should install vLLM to learn that it would be of no use."""
    with pytest.raises(UsageError, match="wants a CUDA device, for TRL sends the weights by NCCL"):
        check_machine("server")
