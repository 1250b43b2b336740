"""Errors of pydantic in the words of a recipe's file, with the nearest known key."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from pipeline.recipe.options import Recipe

MOST_SHOWN = 200  # characters of a value in a message


def explain(exc: ValidationError) -> str:
    """Return what is wrong with each key, as one sentence without a period."""
    return "; ".join(map(_explain_one, exc.errors()))


def _explain_one(error: Any) -> str:
    # the tags of a discriminated union stand in the path, but not in the file
    path = [str(part) for part in error["loc"] if part not in ("conv", "pool", "linear", "dropout")]
    where = ".".join(path) or "the recipe"
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _known_keys(error["loc"])
        near = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(known)}"
        return f"unknown key {where!r}; {hint}"
    if error["type"] == "missing":
        return f"{where!r} is missing"
    shown = repr(error["input"])
    if len(shown) > MOST_SHOWN:
        shown = f"{shown[:MOST_SHOWN]}..."
    return f"{where} = {shown}: {error['msg'].removeprefix('Value error, ')}"


def _known_keys(loc: Sequence[int | str]) -> list[str]:
    """The field names that would be valid where an unknown key was found."""
    schema = Recipe.model_json_schema()
    definitions = schema["$defs"]
    node: Any = schema
    for part in loc[:-1]:
        node = _step(node, part, definitions)
    return sorted(node.get("properties", {}))


def _step(node: Any, part: int | str, definitions: Mapping[str, Any]) -> Any:
    if isinstance(part, int):
        node = node.get("items", {})
    elif "discriminator" in node:
        node = {"$ref": node["discriminator"]["mapping"][part]}
    else:
        node = node.get("properties", {}).get(part, {})
    for one in node.get("anyOf", ()):  # of "a section or none": the section
        node = one if "$ref" in one else node
    while "$ref" in node or "allOf" in node:
        reference = node.get("$ref") or node["allOf"][0]["$ref"]
        node = definitions[reference.rpartition("/")[2]]
    return node
