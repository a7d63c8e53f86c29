"""The design's rules about who may import what, and what stands where."""

import ast
import importlib.util
import os
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("harness", "leaderboards", "tasks", "trainer")
MAY_IMPORT = {
    "harness": {"harness"},
    "tasks": {"harness", "tasks"},
    "leaderboards": {"harness", "leaderboards"},
    "trainer": {"harness", "leaderboards", "tasks", "trainer"},
}
HEAVY = {"datasets", "openai", "pandas", "scipy", "torch", "torchvision", "transformers", "trl", "vllm"}
RUNS_TEXT = {"eval", "exec", "compile", "__import__"}
# Of other libraries: sympy's parsers hand their text to eval.
DANGEROUS_FUNCTIONS = {"parse_expr", "read_pickle", "sympify"}
UNPICKLES = {"cPickle", "cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
EVERYTHING = sorted([*SOURCES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])

Import = tuple[int, str]
"""The line, and the dotted name that is imported; relative ones keep their dots."""


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports_of(node: ast.AST) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from ((node.lineno, alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = "." * node.level + (node.module or "")
        # "from ahabench import tasks" is an import of ahabench.tasks.
        yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def all_imports(tree: ast.Module) -> list[Import]:
    return [found for node in ast.walk(tree) for found in imports_of(node)]


def imports_at_load(node: ast.AST) -> Iterator[Import]:
    """Imports that run when the module is imported: not those in functions, nor under TYPE_CHECKING."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and is_type_checking(child.test):
            yield from (found for other in child.orelse for found in imports_at_load(ast.Module([other], [])))
            continue
        yield from imports_of(child)
        yield from imports_at_load(child)


def is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def forbidden_arrows(folder: str, imports: list[Import]) -> list[Import]:
    allowed = {f"ahabench.{other}" for other in MAY_IMPORT[folder]}
    ours = {"ahabench", *FOLDERS, "tests", "benchmarks", ""}
    return [
        (line, name)
        for line, name in imports
        if name.split(".")[0] in ours and ".".join(name.split(".")[:2]) not in allowed
    ]


def dangers(tree: ast.Module) -> list[Import]:
    """Uses of what runs or rebuilds objects from text or bytes."""
    found = [
        (line, name)
        for line, name in all_imports(tree)
        if name.split(".")[0] in {"builtins", *UNPICKLES} or name.split(".")[-1] in DANGEROUS_FUNCTIONS
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in {"__builtins__", *RUNS_TEXT}:
            found.append((node.lineno, node.id))
        elif isinstance(node, ast.Attribute) and node.attr in DANGEROUS_FUNCTIONS:
            found.append((node.lineno, ast.unparse(node)))
        elif isinstance(node, ast.Call):
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            if ast.unparse(node.func) == "torch.load" and not is_constant(given.get("weights_only"), True):
                found.append((node.lineno, "torch.load without weights_only=True"))
            if "allow_pickle" in given and not is_constant(given["allow_pickle"], False):
                found.append((node.lineno, "allow_pickle"))
    return found


def is_constant(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def subpackages() -> set[str]:
    return {
        "ahabench." + ".".join(path.parent.relative_to(ROOT).parts)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("__init__.py")
    }


def setuptools_settings() -> dict[str, object]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        settings: dict[str, object] = tomllib.load(file)["tool"]["setuptools"]
    return settings


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_arrows_point_down_only(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    assert forbidden_arrows(folder, all_imports(parse(path))) == []


@pytest.mark.parametrize("path", [path for path in SOURCES if not name_of(path).startswith("trainer/")], ids=name_of)
def test_importing_a_module_does_not_import_a_heavy_library(path: Path) -> None:
    found = [(line, name) for line, name in imports_at_load(parse(path)) if name.split(".")[0] in HEAVY]
    assert found == []


@pytest.mark.parametrize("path", EVERYTHING, ids=name_of)
def test_nothing_evaluates_or_unpickles(path: Path) -> None:
    assert dangers(parse(path)) == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_module_can_be_read_in_one_sitting(path: Path) -> None:
    n_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert n_lines <= 450


@pytest.mark.parametrize(
    ("folder", "code"),
    [
        ("harness", "import ahabench.tasks.wemath"),
        ("harness", "from ahabench import leaderboards"),
        ("harness", "import ahabench"),
        ("tasks", "def f():\n    from ahabench.trainer.rewards import accuracy"),
        ("leaderboards", "from ahabench.tasks.wemath import TASK"),
        ("tasks", "from .mathvista import TASK"),
        ("tasks", "from . import mathvista"),
        ("trainer", "from harness.types import Item"),
        ("trainer", "import tasks"),
        ("harness", "from tests.conftest import shared"),
    ],
)
def test_a_forbidden_arrow_is_seen(folder: str, code: str) -> None:
    assert len(forbidden_arrows(folder, all_imports(ast.parse(code)))) == 1


def test_the_roof_may_import_everything() -> None:
    code = "\n".join(f"from ahabench.{folder} import x" for folder in FOLDERS)
    assert forbidden_arrows("trainer", all_imports(ast.parse(code))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import torch",
        "from torch.nn import Module",
        "import os, pandas as pd",
        "try:\n    import vllm\nexcept ImportError:\n    pass",
        "class Engine:\n    import transformers",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import scipy",
    ],
)
def test_a_heavy_import_at_load_is_seen(code: str) -> None:
    assert [name.split(".")[0] in HEAVY for _, name in imports_at_load(ast.parse(code))].count(True) == 1


@pytest.mark.parametrize(
    "code",
    ["def f():\n    import torch", "if TYPE_CHECKING:\n    import torch", "if typing.TYPE_CHECKING:\n    import torch"],
)
def test_a_heavy_import_that_does_not_run_at_load_is_fine(code: str) -> None:
    assert list(imports_at_load(ast.parse(code))) == []


@pytest.mark.parametrize(
    "code",
    [
        "eval('1')",
        "run = exec",
        "import pickle",
        "from dill import loads",
        "import builtins",
        "from builtins import eval",
        "__builtins__['eval']('1')",
        "from sympy import sympify",
        "from sympy.parsing.sympy_parser import parse_expr",
        "sympy.sympify(text)",
        "pd.read_pickle(file)",
        "np.load(file, allow_pickle=True)",
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
    ],
)
def test_a_way_to_run_text_is_seen(code: str) -> None:
    assert len(dangers(ast.parse(code))) == 1


@pytest.mark.parametrize("code", ["model.eval()", "re.compile('a')", "torch.load(file, weights_only=True)"])
def test_a_namesake_of_a_way_to_run_text_is_fine(code: str) -> None:
    assert dangers(ast.parse(code)) == []


def test_the_root_is_no_package() -> None:
    assert not (ROOT / "__init__.py").exists()
    assert not (ROOT / "ahabench").exists()


def test_the_list_of_packages_matches_the_tree() -> None:
    assert setuptools_settings()["packages"] == sorted(subpackages())


def test_every_folder_is_mapped_into_the_namespace() -> None:
    assert setuptools_settings()["package-dir"] == {f"ahabench.{folder}": folder for folder in FOLDERS}


def test_every_module_stands_in_a_package() -> None:
    assert [name_of(path) for path in SOURCES if not (path.parent / "__init__.py").exists()] == []


def test_no_folder_of_the_tests_is_a_package() -> None:
    assert [name_of(path) for path in EVERYTHING if path.name == "__init__.py" and path not in SOURCES] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_folder_says_that_it_is_typed(folder: str) -> None:
    assert (ROOT / folder / "py.typed").is_file()


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_module_has_a_vague_name(folder: str) -> None:
    vague = {"base", "common", "helpers", "misc", "util", "utils"}
    assert [name_of(path) for path in (ROOT / folder).rglob("*") if path.stem in vague] == []


@pytest.mark.skipif(not sys.flags.safe_path, reason="python was started without -P or PYTHONSAFEPATH=1")
def test_the_tests_do_not_import_from_the_checkout() -> None:
    assert ROOT not in [Path(entry).resolve() for entry in sys.path]
    assert [folder for folder in FOLDERS if importlib.util.find_spec(folder) is not None] == []


def test_importing_the_command_line_leaves_heavy_libraries_alone(tmp_path: Path) -> None:
    code = f"import sys; import ahabench.harness.cli; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_asking_for_help_leaves_heavy_libraries_alone(tmp_path: Path) -> None:
    script = Path(sysconfig.get_path("scripts")) / "ahabench"
    environment = os.environ | {"PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(
        [script, "--help"], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    loaded = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "ahabench.harness.cli" in loaded
    assert sorted(loaded & HEAVY) == []
