"""The grid of a sweep: axes such as ``width=16,32`` become trials, each with its own recipe. All
mistakes are reported here, before anything runs. Independent of folders and processes."""

from __future__ import annotations

import difflib
import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.errors import RecipeError
from pipeline.recipe import Recipe, current_key, load

# Short words for what is varied most; any other key is written as in --set.
SHORT: Final[Mapping[str, tuple[str, ...]]] = {
    "width": ("network.edge.width",),
    "input": ("preprocess.height", "preprocess.width"),  # a square, in pixels
    "epochs": ("train.epochs",),
    "lr": ("train.lr",),
    "batch": ("train.batch_size",),
    "images": ("data.train_images",),
    "teacher": ("distill.teacher",),
}
MOST_TRIALS = 50  # without --yes: more are a slip of the keyboard as often as a wish
_LONGEST_NAME = 100  # characters of a folder's name
_NEW_KEY = re.compile(r"\s*[A-Za-z_][\w.-]*\s*=")
_OPENING, _CLOSING = "[{", "]}"


@dataclass(frozen=True)
class Axis:
    """One thing that is varied."""

    word: str  # as the user wrote it: "width" or "train.lr"
    values: tuple[str, ...]  # in TOML, or plain strings

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the recipe that it sets."""
        return SHORT.get(self.word) or (current_key(self.word, f"--grid {self.word}"),)


@dataclass(frozen=True)
class Trial:
    """One point of the grid."""

    name: str  # of its folder: "width=16,input=48"
    settings: tuple[tuple[str, str], ...]  # (word, value) of every axis
    changes: tuple[str, ...]  # "key=value" for the recipe, what all trials share in front
    recipe: Recipe


def parse(grids: Sequence[str]) -> tuple[Axis, ...]:
    """The axes of ``--grid`` options: "width=16,32", or several at once, "width=16,32,input=48,64".

    A comma between brackets or quotes belongs to a value; after any other one either a further
    value follows or, if it reads ``word=``, the next axis. (A value with an equals sign of its own
    is therefore quoted.) Raises RecipeError for anything else, and for what is varied twice.
    """
    parsed: list[tuple[str, list[str]]] = []
    for text in grids:
        begins = True
        for piece in _pieces(text):
            if _NEW_KEY.match(piece):
                word, _, value = piece.partition("=")
                parsed.append((word.strip(), [value.strip()]))
            elif begins:
                raise RecipeError(
                    f"--grid {text!r}: expected KEY=VALUE,VALUE, for example width=16,32."
                )
            else:
                parsed[-1][1].append(piece.strip())
            begins = False
    axes = tuple(Axis(word, tuple(values)) for word, values in parsed)
    _check(axes)
    return axes


def _pieces(text: str) -> Iterator[str]:
    """Cut the text at commas outside brackets and quotes."""
    depth, quote, start = 0, "", 0
    for index, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in _OPENING:
            depth += 1
        elif letter in _CLOSING:
            depth -= 1
        elif letter == "," and depth == 0:
            yield text[start:index]
            start = index + 1
    yield text[start:]


def _check(axes: Sequence[Axis]) -> None:
    if not axes:
        raise RecipeError("nothing to vary: give --grid KEY=VALUE,VALUE at least once.")
    owners: dict[str, str] = {}
    for axis in axes:
        if "" in axis.values:
            raise RecipeError(
                f"--grid {axis.word}: a value is empty in {','.join(axis.values)!r}; expected "
                f"values with single commas between them, {axis.word}=A,B."
            )
        twice = sorted({value for value in axis.values if axis.values.count(value) > 1})
        if twice:
            raise RecipeError(f"--grid {axis.word}: {', '.join(twice)} occurs twice; give it once.")
        for key in axis.keys:
            if key in owners:
                raise RecipeError(
                    f"--grid: {owners[key]} and {axis.word} both set {key}. Give all values of "
                    "a key to one of them."
                )
            owners[key] = axis.word


def trials(recipe: str, axes: Sequence[Axis], changes: Sequence[str] = ()) -> tuple[Trial, ...]:
    """Every combination of the axes' values, the last axis changing fastest; each recipe is read
    and checked. ``changes`` are those of ``--set``, for all trials alike.

    Raises RecipeError for a key that no recipe has, for a value that the recipe refuses, and for a
    key that is both fixed and varied.
    """
    fixed = {current_key(change.partition("=")[0].strip()) for change in changes}
    for axis in axes:
        _check_word(axis)
        if both := fixed.intersection(axis.keys):
            raise RecipeError(
                f"{sorted(both)[0]} is fixed by --set and varied by --grid {axis.word}; leave one."
            )
    base = load(recipe, changes)
    _check_family(recipe, base, axes)
    result = []
    for values in itertools.product(*(axis.values for axis in axes)):
        settings = tuple((axis.word, value) for axis, value in zip(axes, values, strict=True))
        varied = [f"{key}={v}" for axis, v in zip(axes, values, strict=True) for key in axis.keys]
        result.append(_trial(recipe, settings, (*changes, *varied)))
    if any(trial.recipe.name != base.name for trial in result):
        raise RecipeError("--grid name: a trial keeps its recipe's name; vary something else.")
    return tuple(result)


def _check_word(axis: Axis) -> None:
    """Refuse a single word that is neither short for a key nor a key; the recipe itself checks a
    word with dots."""
    words = [*SHORT, *Recipe.model_fields]
    if "." in axis.word or axis.word in words:
        return
    near = difflib.get_close_matches(axis.word, words, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"short words are {', '.join(SHORT)};"
    raise RecipeError(
        f"--grid {axis.word}: unknown; {hint} Any key of a recipe can be varied, such as train.lr."
    )


def _check_family(recipe: str, base: Recipe, axes: Sequence[Axis]) -> None:
    """Refuse to vary the edge family in a recipe with another network, unless the grid replaces
    that network as well."""
    varied = [axis for axis in axes if any(key.startswith("network.") for key in axis.keys)]
    edge = [axis for axis in varied if any(key.startswith("network.edge.") for key in axis.keys)]
    if base.network.edge is None and edge and edge == varied:
        raise RecipeError(
            f"--grid {edge[0].word}: needs a recipe with [network.edge], such as mnist-best; "
            f"{recipe} has another network. Take such a recipe, or vary something else."
        )


def _trial(recipe: str, settings: tuple[tuple[str, str], ...], changes: tuple[str, ...]) -> Trial:
    joined = ", ".join(f"{word}={value}" for word, value in settings)
    try:
        loaded = load(recipe, changes)
    except RecipeError as exc:
        raise RecipeError(f"--grid {joined}: {exc}") from exc
    return Trial(_folder(settings), settings, changes, loaded)


def _folder(settings: Sequence[tuple[str, str]]) -> str:
    """A folder's name, distinct for distinct settings: characters that a file system may refuse are
    replaced, and a hash then distinguishes values that would look the same."""
    text = ",".join(f"{word}={value}" for word, value in settings)
    plain = re.sub(r"[^\w.,=+-]+", "_", text, flags=re.ASCII).strip(".")
    if plain == text and len(text) <= _LONGEST_NAME:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{plain[: _LONGEST_NAME - 9]}-{digest}"
