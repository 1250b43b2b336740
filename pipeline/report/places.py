"""Reports leave this machine, in a bundle, a wheel and a page; where its folders are does not. Of a
path its last part is kept, which is what people call it."""

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

    The paths that ``recipe`` names are known; others are found by their form.
    """
    known = {place: shown for place, shown in _places(recipe) if len(place) > 1}
    by_length = dict(sorted(known.items(), key=lambda row: -len(row[0])))
    return cast("T", _cleaned(report, by_length))


def _places(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Paths, and how they are called."""
    yield str(Path.cwd()), "."
    yield str(Path.home()), "~"
    teacher = recipe.distill.teacher if recipe.distill else None
    for text in (recipe.data.root, recipe.data.label_file, recipe.network.weights, teacher):
        if text and Path(text).name != text:
            place = Path(text).expanduser()
            for form in (text, str(place), str(place.absolute()), str(place.resolve())):
                yield form, _last(str(place.absolute()))


def _cleaned(value: Any, known: dict[str, str]) -> Any:
    if isinstance(value, str):
        return escaped(_shortened(value, known))
    if isinstance(value, dict):
        return {_cleaned(key, known): _cleaned(inner, known) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_cleaned(inner, known) for inner in value)
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value) if field.init and field.name not in _BASE64]
        return replace(value, **{name: _cleaned(getattr(value, name), known) for name in names})
    return value


def _shortened(text: str, known: dict[str, str]) -> str:
    for place, shown in known.items():
        if place in text:
            whole = rf"(?<![\w/.-]){re.escape(place)}(?![\w-])"
            text = re.sub(whole, shown.replace("\\", r"\\"), text)
    return _PATH.sub(lambda found: _last(found[0]), text)


def _last(path: str) -> str:
    """What a path is called; the home of a user is not called after its owner."""
    parts: PurePath = PureWindowsPath(path) if "\\" in path else PurePosixPath(path)
    return "~" if parts.parent.name in _HOMES else parts.name or "."
