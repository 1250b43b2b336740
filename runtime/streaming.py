"""Answers for many images, one batch at a time: constant memory, in order, and an image that cannot
be taken is named. Independent of predictors but for their two steps."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .errors import AnswerError, InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_Answer = TypeVar("_Answer")
_SINGLE = (str, bytes, bytearray, memoryview, os.PathLike)  # one image, not many
_Entry = tuple[str, Any]  # the item's name; NDArray[np.uint8] [h, w, c], or why it has none


def items_of(images: Any, batch_size: object) -> Iterator[Any]:
    """The images of a stream, one after the other; raises InputError for a single image, and for a
    batch size that is not a whole number from 1 up."""
    if type(batch_size) is not int or batch_size < 1:
        raise InputError(f"batch_size={batch_size!r}; expected a whole number of at least 1.")
    if not isinstance(images, _SINGLE):
        with contextlib.suppress(TypeError):
            return iter(images)
    raise InputError(
        f"images is a {type(images).__name__}; expected something that gives one image after the "
        "other. Give a single image to predict()."
    )


def answers_of(
    items: Iterable[Any],
    *,
    batch_size: int,
    where: str,
    prepare: Callable[[Any], NDArray[np.uint8]],
    answer: Callable[[NDArray[np.uint8]], Sequence[_Answer]],
    return_errors: bool,
) -> Iterator[_Answer | InputError | AnswerError]:
    """The answers in the items' order; ``where`` names an item by its number and name.

    ``batch_size`` small images are held at a time and no item once it is prepared. An item that
    cannot be prepared (InputError) or that has no answer (AnswerError) ends the stream with that
    error after the answers before it; with ``return_errors`` the error takes its answer's place.
    """
    batch: list[_Entry] = []
    for index, item in enumerate(items):
        entry = _prepared(item, where.format(index, _name(item)), prepare)
        del item
        batch.append(entry)
        is_last = isinstance(entry[1], InputError) and not return_errors
        if is_last or len(batch) == batch_size:
            yield from _delivered(batch, answer, return_errors)
            batch = []
        del entry
    yield from _delivered(batch, answer, return_errors)


def _prepared(item: object, name: str, prepare: Callable[[Any], NDArray[np.uint8]]) -> _Entry:
    try:
        return name, prepare(item)
    except InputError as exc:
        return name, _named(name, exc)


def _delivered(
    batch: list[_Entry],
    answer: Callable[[NDArray[np.uint8]], Sequence[_Answer]],
    return_errors: bool,
) -> Iterator[_Answer | InputError | AnswerError]:
    """The answer or error of each entry; without ``return_errors`` the first error is raised."""
    entries = [entry for entry in batch if not isinstance(entry[1], InputError)]
    answers = _answered(entries, answer)
    for _, content in batch:
        one = content if isinstance(content, InputError) else next(answers)
        if isinstance(one, (InputError, AnswerError)) and not return_errors:
            raise one
        yield one


def _answered(
    entries: list[_Entry], answer: Callable[[NDArray[np.uint8]], Sequence[_Answer]]
) -> Iterator[_Answer | AnswerError]:
    """An answer or an error for each entry; where the model has none for one of them, the others
    are asked again without it."""
    if not entries:
        return
    try:
        answers = answer(np.stack([pixels for _, pixels in entries]))
    except AnswerError as exc:
        if exc.image is None:
            raise
        yield from _answered(entries[: exc.image], answer)
        yield _named(entries[exc.image][0], exc)
        yield from _answered(entries[exc.image + 1 :], answer)
        return
    yield from answers


_Error = TypeVar("_Error", InputError, AnswerError)


def _named(name: str, exc: _Error) -> _Error:
    named = type(exc)(f"{name}: {exc}")
    named.__cause__ = exc
    return named


def _name(item: object) -> str:
    return f" ({item})" if isinstance(item, (str, PurePath)) else ""
