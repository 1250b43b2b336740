"""A recipe from its TOML file: read, changed by ``key=value`` settings, checked."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline import user_code
from pipeline.errors import RecipeError
from pipeline.recipe.messages import MOST_SHOWN, explain
from pipeline.recipe.options import NetworkOptions, Recipe
from pipeline.recipe.renamed_keys import current_key, rename_keys
from pipeline.recipe.shipping import check_what_ships
from runtime.plain_text import hidden_character
from runtime.regular_file import read_regular

_MOST_BYTES = 1 << 20  # a recipe has some kilobytes
_MOST_DEPTH = 32  # of nested sections and lists; a recipe has four


def shipped_names() -> list[str]:
    """Names of the recipes that come with the package, sorted."""
    folder = resources.files("pipeline") / "recipes"
    return sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name[-5:] == ".toml")


def load(name_or_file: str, changes: Sequence[str] = ()) -> Recipe:
    """Read a shipped recipe by name or any recipe by its file, then apply ``key=value`` changes.

    Raises RecipeError when there is no such recipe, or a key or a value is refused.
    """
    origin, text = _read(name_or_file)
    try:
        data = _toml(text)
    except ValueError as exc:
        raise RecipeError(f"{origin} is not TOML: {exc}.") from exc
    rename_keys(data, origin)
    for change in changes:
        _apply(data, change)
    _check_values(data, origin)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as exc:
        text = explain(exc)
        raise RecipeError(f"{origin}: {text}{'' if text.endswith('?') else '.'}") from exc
    if recipe.network.callable is not None and _is_file(name_or_file):
        network = recipe.network.with_folder(Path(name_or_file).parent)
        recipe = recipe.model_copy(update={"network": network})
    _check_files(recipe.network)
    check_what_ships(recipe, origin)
    return recipe


def _check_files(network: NetworkOptions) -> None:
    """Refuse a network whose files are not there, before anything runs."""
    if network.weights is not None and not Path(network.weights).expanduser().is_file():
        raise RecipeError(
            f"network.weights = {network.weights!r} is not a file; expected one of weights, as "
            "torchvision.models publishes it."
        )
    if network.callable is None:
        return
    module, _, function = network.callable.partition(":")
    if not module or not function:
        raise RecipeError(f'network.callable = {network.callable!r}; expected "module:function".')
    files = user_code.source_files(network.callable, network.folder)
    if user_code.MISSING in map(str, files.values()):
        place = f"{network.folder} or " if network.folder is not None else ""
        raise RecipeError(
            f"network.callable = {network.callable!r}: there is no module {module!r}. Expected "
            f"{next(iter(files))} in {place}a folder of PYTHONPATH, or an installed package."
        )


def _is_file(name_or_file: str) -> bool:
    path = Path(name_or_file)
    return path.suffix == ".toml" or path.parent != Path()


def _read(name_or_file: str) -> tuple[str, str]:
    path = Path(name_or_file)
    if _is_file(name_or_file):
        try:
            return f"recipe {path}", read_regular(path, _MOST_BYTES).decode("utf-8")
        except (OSError, ValueError) as exc:  # ValueError: no UTF-8, or a path with a null
            raise RecipeError(f"recipe file {path} cannot be read: {exc}.") from exc
    known = shipped_names()
    if name_or_file not in known:
        near = difflib.get_close_matches(name_or_file, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise RecipeError(
            f"there is no recipe {name_or_file!r}; {hint}shipped are {', '.join(known)}, "
            "or give the path of a .toml file."
        )
    file = resources.files("pipeline") / "recipes" / f"{name_or_file}.toml"
    return f"recipe {name_or_file!r}", file.read_text(encoding="utf-8")


def _toml(text: str) -> dict[str, Any]:
    """A parsed document; raises ValueError, also for what would take the parser down."""
    try:
        return tomllib.loads(text)
    except RecursionError as exc:
        raise ValueError("lists or sections are nested too deeply") from exc


def _check_values(data: dict[str, Any], origin: str) -> None:
    """Refuse what no key of a recipe holds and what cannot even be printed: nesting without end,
    numbers beyond 64 bits, text with control or invisible characters. Raises RecipeError."""
    waiting: list[tuple[str, int, Any]] = [("", 0, data)]
    while waiting:
        where, depth, value = waiting.pop()
        if depth > _MOST_DEPTH:
            raise RecipeError(f"{origin}: {where[:MOST_SHOWN]!r} is nested too deeply.")
        if isinstance(value, dict):
            for key, inner in value.items():
                waiting.append((f"{where}.{key}" if where else key, depth + 1, inner))
                if hidden := hidden_character(key):
                    raise RecipeError(f"{origin}: the key {key[:MOST_SHOWN]!r} has {hidden}.")
        elif isinstance(value, list):
            waiting += [(f"{where}.{i}", depth + 1, inner) for i, inner in enumerate(value)]
        elif isinstance(value, str) and (hidden := hidden_character(value)):
            raise RecipeError(
                f"{origin}: {where} has {hidden}, a control or invisible character; expected one "
                "line of text that shows what it is."
            )
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise RecipeError(
                f"{origin}: {where} is a number of {value.bit_length()} bits; expected at most 64."
            )


def _apply(data: dict[str, Any], change: str) -> None:
    """Set ``a.b=value`` in the parsed TOML; the value is TOML, or else a plain string."""
    key, sep, text = change.partition("=")
    parts = key.strip().split(".")
    if not sep or not all(parts):
        raise RecipeError(f"--set {change!r}: expected key=value, for example train.epochs=3.")
    try:
        value = _toml(f"value = {text}")["value"]
    except ValueError:
        value = text.strip()
    parts = current_key(".".join(parts), f"--set {change}").split(".")
    section = data
    for part in parts[:-1]:
        section = section.setdefault(part, {})
        if not isinstance(section, dict):
            raise RecipeError(f"--set {change!r}: {part!r} is a value, not a section.")
    section[parts[-1]] = value
    rename_keys(data, f"--set {change}")  # the value may be a section
