"""Removal of this machine's paths from reports, which travel in a bundle, a wheel and a page. Only
the last part of a path stays."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar, cast

from pipeline.recipe import Recipe
from runtime.plain_text import escaped

T = TypeVar("T")

# An absolute path in a sentence, POSIX or Windows; not a part of an address such as https://a/b/c
_PATH = re.compile(r"(?<![\w:/.~+])(?:~(?:/[\w.+@-]+)+|(?:/[\w.+@-]+){2,}|[A-Za-z]:\\[^\s\"'<>|]+)")
_HOMES = ("home", "Users")  # folders of which each sub-folder is named after its user
_BASE64 = ("picture",)  # fields that hold no text


def without_places(report: T, recipe: Recipe) -> T:
    """A copy of a report, or of any value of dataclasses, dicts and sequences, in which no text has
    the path of a folder of this machine, or a character that does not show.

    The paths that ``recipe`` names are replaced by name; others are recognized by their syntax.
    """
    names = {path: name for path, name in _paths(recipe) if len(path) > 1}
    by_length = dict(sorted(names.items(), key=lambda row: -len(row[0])))
    return cast("T", _cleaned(report, by_length))


def _paths(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Paths and their names in a report."""
    yield str(Path.cwd()), "."
    yield str(Path.home()), "~"
    teacher = recipe.distill.teacher if recipe.distill else None
    for text in (recipe.data.root, recipe.data.label_file, recipe.network.weights, teacher):
        if text and Path(text).name != text:
            path = Path(text).expanduser()
            for spelling in (text, str(path), str(path.absolute()), str(path.resolve())):
                yield spelling, _last(str(path.absolute()))


def _cleaned(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, str):
        return escaped(_shortened(value, names))
    if isinstance(value, dict):
        return {_cleaned(key, names): _cleaned(inner, names) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_cleaned(inner, names) for inner in value)
    if is_dataclass(value) and not isinstance(value, type):
        texts = [field.name for field in fields(value) if field.init and field.name not in _BASE64]
        return replace(value, **{name: _cleaned(getattr(value, name), names) for name in texts})
    return value


def _shortened(text: str, names: dict[str, str]) -> str:
    for path, name in names.items():
        if path in text:
            whole = rf"(?<![\w/.-]){re.escape(path)}(?![\w-])"
            text = re.sub(whole, name.replace("\\", r"\\"), text)
    return _PATH.sub(lambda match: _last(match[0]), text)


def _last(path: str) -> str:
    """The last part of a path; "~" for the home of a user, which has the user's name."""
    parts: PurePath = PureWindowsPath(path) if "\\" in path else PurePosixPath(path)
    return "~" if parts.parent.name in _HOMES else parts.name or "."
