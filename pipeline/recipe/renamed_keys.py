"""Keys of recipes that have a new name: the former one is accepted with a warning for now."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Final

from pipeline.errors import RecipeError

RENAMED: Final[Mapping[str, str]] = {
    "data.licence": "data.license",
    "package.licence": "package.license",
    "data.people_across_splits": "data.groups_across_splits",
}


class RenamedKeyWarning(FutureWarning):
    """A recipe, ``--set`` or ``--grid`` uses the former name of a key."""


def current_key(key: str, origin: str = "") -> str:
    """Return the present name of ``key`` ("data.licence"), which may be its name already.

    With an ``origin``, such as "recipe tiny.toml", a former name is warned about.
    """
    new = RENAMED.get(key, key)
    if new != key and origin:
        warnings.warn(
            f"{origin}: the key {key} is now called {new}. The former name still works in this "
            "version; rename the key.",
            RenamedKeyWarning,
            stacklevel=2,
        )
    return new


def rename_keys(data: dict[str, Any], origin: str) -> None:
    """Give the keys of a parsed recipe, in place, their present names.

    Raises RecipeError when former and present name have different values.
    """
    for old in RENAMED:
        section, _, key = old.rpartition(".")
        table = data.get(section)
        if not isinstance(table, dict) or key not in table:
            continue
        new = current_key(old, origin).rpartition(".")[2]
        value = table.pop(key)
        if table.setdefault(new, value) != value:
            raise RecipeError(
                f"{origin}: {old} is the former name of {section}.{new}, and they have different "
                f"values, {value!r} and {table[new]!r}. Keep {section}.{new} alone."
            )
