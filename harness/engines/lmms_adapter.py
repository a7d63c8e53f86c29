"""The model adapters of lmms-eval: find one by name, learn what it takes, open it. Written for lmms-eval 0.7.3."""

import ast
import inspect
import os
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from importlib.util import find_spec
from typing import Any

from ahabench.harness.errors import EngineError, UsageError

MODEL_PARAMETERS = ("pretrained", "model_version", "model", "model_path", "model_id_name")
"""What adapters call the checkpoint or the served model; the first that an adapter has is taken."""

_GENERATORS = {"generate", "chat", "create"}


class SystemPlace(StrEnum):
    """Where a system prompt goes."""

    MESSAGE = "system message"
    SETTING = "system_prompt of the adapter"
    HEAD = "head of the user's message"


@dataclass(frozen=True, slots=True)
class _Code:
    """What the source of an adapter's classes says."""

    words: frozenset[str]
    """Its string constants: the names by which it reads generation settings are among them."""
    reads_system_prompt: bool
    passes_everything: bool
    """Whether all generation settings go on to the model's own `generate`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A model class of lmms-eval."""

    name: str
    kind: Any
    """The class, a subclass of `lmms_eval.api.model.lmms`."""
    chat: bool
    """Whether it takes messages; a "simple" one takes a text and a list of pictures."""
    parameters: Mapping[str, inspect.Parameter]
    """What its constructor takes by name, those that it hands to its parents included."""
    system: SystemPlace
    family: Sequence[Any]
    """The class and its parents, lmms-eval's own base left out."""
    _code: _Code

    @property
    def model_parameter(self) -> str | None:
        """The constructor's name for the checkpoint; `None` where it takes none."""
        return next((name for name in MODEL_PARAMETERS if name in self.parameters), None)

    @property
    def takes_pixels(self) -> bool:
        """Whether it limits the area of images on both sides, as Qwen's do."""
        return {"min_pixels", "max_pixels"} <= self.parameters.keys()

    def reads(self, setting: str) -> bool:
        """Return whether a generation setting can reach the model: adapters ignore those that they do not know.

        An adapter whose source cannot be read is given the benefit of the doubt.
        """
        return not self._code.words or self._code.passes_everything or setting in self._code.words

    def default_of(self, parameter: str) -> int | None:
        """Return the whole number that the constructor takes for a parameter when it is not told."""
        found = self.parameters.get(parameter)
        return found.default if found is not None and isinstance(found.default, int) else None


def find_adapter(name: str) -> Adapter:
    """Return an adapter by the name that lmms-eval's `--model` takes; the chat class where it has one, as there.

    Raises:
        UsageError: there is none of that name.
        EngineError: lmms-eval is not installed, or the adapter wants a package that is not.
    """
    if find_spec("lmms_eval") is None:
        raise EngineError("the engine 'lmms-eval' wants a package that is not installed: pip install 'ahabench[lmms]'")
    # lmms_eval binds a log handler to stdout at its import, and stdout is for our answer.
    with redirect_stdout(sys.stderr), _pillow_as_it_was():
        try:
            from lmms_eval.models import MODEL_REGISTRY_V2 as registry

            known = registry.list_model_names()
            kind = registry.get_model_class(name) if name in known else None
        except (Exception, SystemExit) as error:
            raise EngineError(f"the adapter {name!r} of lmms-eval cannot be imported: {one_line(error)}") from error
    if kind is None:
        near = get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise UsageError(f"lmms-eval has no model adapter {name!r}.{hint} It has {len(known)}.")
    chat = not getattr(kind, "is_simple", True)
    family = [one for one in kind.__mro__ if one.__module__ != "lmms_eval.api.model" and one is not object]
    return Adapter(
        name=name,
        kind=kind,
        chat=chat,
        parameters=_parameters(kind),
        system=_system_place(family, chat),
        family=family,
        _code=_read(family),
    )


def open_adapter(adapter: Adapter, arguments: Mapping[str, Any], *, model: str) -> Any:
    """Return the adapter's object, which loads the model.

    Raises:
        EngineError: it cannot be made; whatever adapters raise, or their calls of `exit`, becomes one line.
    """
    _take_bars_away(adapter)
    try:
        with stdout_kept_free():
            return adapter.kind(**arguments)
    except (Exception, SystemExit) as error:
        raise EngineError(
            f"the adapter {adapter.name!r} of lmms-eval cannot open {model}: {one_line(error)}"
        ) from error


@contextmanager
def stdout_kept_free() -> Iterator[None]:
    """Send what is written to stdout within the block to stderr: by this process, and by those that it starts there."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def parse_model_args(text: str) -> dict[str, Any]:
    """Return "name=value,name=value" as lmms-eval reads it: numbers, booleans and JSON become such.

    Raises:
        UsageError: a part has no "=".
    """
    from lmms_eval.utils import simple_parse_args_string

    try:
        parsed: dict[str, Any] = simple_parse_args_string(text)
    except ValueError as error:
        raise UsageError(f"model_args is {text!r}, wanted name=value,name=value") from error
    return parsed


def one_line(error: BaseException) -> str:
    """Return an exception's kind and the first line of what it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def _take_bars_away(adapter: Adapter) -> None:
    """Silence the bar that an adapter would draw for each chunk, across the one that shows the run."""
    from tqdm import tqdm

    def silent(*args: Any, **options: Any) -> Any:
        return tqdm(*args, **(options | {"disable": True}))

    for owner in adapter.family:
        module = sys.modules[owner.__module__]
        if getattr(module, "tqdm", None) is tqdm:
            module.tqdm = silent  # type: ignore[attr-defined]


def _parameters(kind: Any) -> dict[str, inspect.Parameter]:
    found: dict[str, inspect.Parameter] = {}
    for owner in kind.__mro__:
        if "__init__" not in vars(owner):
            continue
        own = inspect.signature(owner.__init__).parameters
        for name, parameter in own.items():
            if parameter.kind in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY} and name != "self":
                found.setdefault(name, parameter)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in own.values()):
            break
    return found


def _system_place(family: Sequence[Any], chat: bool) -> SystemPlace:
    """Return where the classes that generate take a system prompt from.

    Some chat adapters put their own `system_prompt` before any message, also before a system message; others never
    look at it. Only the classes up to the one that defines `generate_until` count: what it overrides is not run.
    """
    generating = []
    for owner in family:
        generating.append(owner)
        if "generate_until" in vars(owner):
            break
    if _read(generating).reads_system_prompt:
        return SystemPlace.SETTING
    return SystemPlace.MESSAGE if chat else SystemPlace.HEAD


def _read(classes: Sequence[Any]) -> _Code:
    words: set[str] = set()
    reads_system_prompt = passes_everything = False
    for owner in classes:
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
        except (OSError, TypeError, SyntaxError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                words.add(node.value)
            elif isinstance(node, ast.Attribute) and node.attr == "system_prompt":
                reads_system_prompt = reads_system_prompt or isinstance(node.ctx, ast.Load)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _GENERATORS:
                passes_everything = passes_everything or any(_is_settings(keyword) for keyword in node.keywords)
    return _Code(frozenset(words), reads_system_prompt, passes_everything)


def _is_settings(keyword: ast.keyword) -> bool:
    return keyword.arg is None and isinstance(keyword.value, ast.Name) and keyword.value.id.endswith("gen_kwargs")


@contextmanager
def _pillow_as_it_was() -> Iterator[None]:
    """Undo that lmms_eval, at its import, makes Pillow fill up torn images for the whole process."""
    from PIL import ImageFile

    before = ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
