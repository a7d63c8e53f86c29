"""Recipes as files: shipped ones and the user's, one resting on another, with overrides from the command line.

The schemas are `recipe.Recipe` and `sft_recipe.SftRecipe`; other settings that a user writes as YAML are read the same
way.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from reprlib import Repr
from typing import Any, ClassVar, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from ahabench.harness.errors import UsageError, unknown_name
from ahabench.harness.yaml_files import read_yaml

RECIPES = Path(__file__).parent / "recipes"
SFT_PREFIX = "sft-"
"""What the names of SFT recipes begin with, or those of what they rest on; the others are GRPO's."""
MAX_BASES = 8
"""Files that a recipe may rest on, one on the other."""

Method = Literal["grpo", "sft"]


class Part(BaseModel):
    """A block of a recipe: unknown keys are refused, and so is what is no finite number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    method: ClassVar[Method | None] = None
    """What a whole recipe of this kind is for; `None` has no shipped ones."""


Schema = TypeVar("Schema", bound=Part)


def method_of(name: str | Path, depth: int = 0) -> Method:
    """Return what a recipe is for: by its name, or by the name of what it rests on.

    Raises:
        UsageError: it is a file that cannot be read.
    """
    path = Path(name)
    if (named := _method_by_name(path.name)) == "sft":
        return named
    base = _mapping(path).get("base") if path.is_file() and depth < MAX_BASES else None
    return method_of(path.parent / base, depth + 1) if isinstance(base, str) else named


def shipped(schema: type[Part]) -> list[str]:
    """Return the names of the recipes of one kind that come with ahabench."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml") if _method_by_name(path.name) == schema.method)


def _method_by_name(name: str) -> Method:
    return "sft" if name.startswith(SFT_PREFIX) else "grpo"


def load_as(schema: type[Schema], name: str | Path, overrides: Sequence[str] = ()) -> Schema:
    """Return a recipe by its shipped name or from a YAML file, with overrides such as "kl.init=1e-2".

    A file with the key "base" names another recipe, shipped or beside it, and holds only what differs from that.
    Relative paths in it are relative to the working directory.

    Raises:
        UsageError: there is no such recipe, or a key or a value is not what it should be.
    """
    values = _layered(schema, _find(schema, name, Path()))
    for override in overrides:
        _override(values, override, schema)
    return parse_as(schema, values, name=str(name))


def parse_as(schema: type[Schema], values: Mapping[str, Any], *, name: str) -> Schema:
    """Return the recipe with these values.

    Raises:
        UsageError: one line about the first key or value that is wrong.
    """
    _check_keys(values, schema)
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        why = first["msg"].removeprefix("Value error, ")
        found = "" if first["type"] in {"missing", "value_error"} else f", found {_shown(first['input'])}"
        raise UsageError(f"recipe {name}: {where + ': ' if where else ''}{why}{found}") from error


def _shown(value: object) -> str:
    # Not repr alone: a few lines of YAML can name a list of lists with more elements than memory holds.
    short = Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 200, 200
    return short.repr(value)


def dump_recipe(recipe: Part) -> str:
    """Return a recipe as YAML that `load_as` reads back to the same."""
    return str(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120))


def _find(schema: type[Part], name: str | Path, folder: Path) -> Path:
    path = RECIPES / f"{name}.yaml" if str(name) in shipped(schema) else folder / name
    if not path.is_file():
        raise unknown_name("recipe", str(name), shipped(schema))
    return path


def _layered(schema: type[Part], path: Path, depth: int = 0) -> dict[str, Any]:
    """Return the values of a recipe file over those of its base."""
    values = _mapping(path)
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str) or depth == MAX_BASES:
        raise UsageError(f"recipe {path}: its base {base!r} is no recipe's name, or goes round in a circle")
    return _merged(_layered(schema, _find(schema, base, path.parent), depth + 1), values)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `over`, block by block."""
    blocks = {
        key: _merged(base[key], value)
        for key, value in over.items()
        if isinstance(value, dict) and isinstance(base.get(key), dict)
    }
    return {**base, **over, **blocks}


def _mapping(path: Path) -> dict[str, Any]:
    values = read_yaml(path, name=f"recipe {path}")
    if not isinstance(values, dict):
        raise UsageError(f"recipe {path} holds no keys and values")
    return values


def _override(values: dict[str, Any], override: str, schema: type[Part]) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(f"wanted key=value, found {override!r}")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"the value of {key} cannot be read: {text!r}") from error
    *blocks, last = key.split(".")
    target = values
    for depth, block in enumerate(blocks):
        _check_keys({block: None}, _block(blocks[:depth], schema))
        if not isinstance(target.get(block), dict):
            target[block] = {}
        target = target[block]
    _check_keys({last: None}, _block(blocks, schema))
    target[last] = value


def _check_keys(values: Mapping[str, Any], block: type[Part]) -> None:
    for key in values:
        if key not in block.model_fields:
            raise unknown_name("recipe key", str(key), list(block.model_fields))
        if isinstance(values[key], dict):
            _check_keys(values[key], _block([key], block))


def _block(path: Sequence[str], schema: type[Part]) -> type[Part]:
    """Return the model behind a dotted key."""
    found = schema
    for key in path:
        kinds = found.model_fields[key].annotation if key in found.model_fields else None
        parts = [kind for kind in (kinds, *get_args(kinds)) if isinstance(kind, type) and issubclass(kind, Part)]
        if not parts:
            raise UsageError(f"the recipe key {'.'.join(path)!r} has no parts")
        found = parts[0]
    return found
