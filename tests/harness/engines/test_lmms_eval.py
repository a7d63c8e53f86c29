"""The engine for lmms-eval's adapters where lmms-eval is not installed; tests/vllm/test_lmms_eval.py has the rest."""

import importlib.util
import subprocess
import sys

import pytest
from pydantic import ValidationError

from ahabench.harness.engines.lmms_eval import LmmsEvalEngine, LmmsEvalOptions
from ahabench.harness.errors import EngineError
from ahabench.harness.imports.logs import without_secrets
from ahabench.harness.sampling import Sampling


@pytest.mark.skipif(importlib.util.find_spec("lmms_eval") is not None, reason="lmms-eval is installed")
def test_without_lmms_eval_one_line_says_what_to_install() -> None:
    with pytest.raises(EngineError) as raised:
        LmmsEvalEngine("qwen2_5_vl", "m", sampling=Sampling())
    assert "pip install 'ahabench[lmms]'" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_options_come_from_strings() -> None:
    options = LmmsEvalOptions.model_validate({"batch_size": "4", "text_only": "true", "model_args": "a=b,c=d"})
    assert (options.batch_size, options.text_only, options.chunk_size) == (4, True, None)


@pytest.mark.parametrize("wrong", [{"batch_size": "0"}, {"chunk_size": "0"}, {"pretrained": "x"}])
def test_options_that_make_no_sense_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        LmmsEvalOptions.model_validate(wrong)


def test_importing_the_engine_imports_neither_torch_nor_lmms_eval() -> None:
    heavy = {"torch", "lmms_eval", "loguru"}
    code = f"import sys, ahabench.harness.engines.lmms_eval; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "set()\n"


def test_secrets_are_taken_out_of_model_args() -> None:
    given = "model=m,api_key=sk-1,hf_token=x,base_url=http://h/v1,AZURE_SECRET=y"
    assert (
        without_secrets(given)
        == "model=m,api_key=[redacted],hf_token=[redacted],base_url=http://h/v1,AZURE_SECRET=[redacted]"
    )
