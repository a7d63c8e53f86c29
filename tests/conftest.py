"""Where the tests find real data, and what they may not reach."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# Before anything imports huggingface_hub, which reads it once.
os.environ["HF_HUB_OFFLINE"] = "1"

# A shell's background jobs ignore interrupts, and so would every command that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with benchmark data, published outputs and expected values; the test skips where there is none."""
    folder = os.environ.get("AHABENCH_DATA")
    if not folder:
        pytest.skip(
            "set AHABENCH_DATA to the folder with data/, outputs/ and metric_examples/ to run tests on real data"
        )
    path = Path(folder)
    if not path.is_dir():
        # Not a skip: whoever sets the variable wants these tests to run.
        pytest.fail(f"AHABENCH_DATA={folder} is not a folder", pytrace=False)
    return path


@pytest.fixture(scope="session")
def data(shared: Path) -> Path:
    """The benchmarks in their official layouts, one folder per task."""
    return shared / "data"


@pytest.fixture(scope="session")
def outputs(shared: Path) -> Path:
    """Published outputs of real models with official verdicts, one folder per task."""
    return shared / "outputs"


@pytest.fixture(scope="session")
def metric_examples(shared: Path) -> Path:
    """Inputs and values that the authors' own code gave for them."""
    return shared / "metric_examples"
