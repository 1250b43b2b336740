"""Answers of many images, one batch at a time: constant memory, in order, and an image that cannot
be taken is named. Knows of a predictor only its two steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_Answer = TypeVar("_Answer")
_Pixels = Any  # NDArray[np.uint8] [h, w, c], or the InputError of an image that has none


def answers_of(
    items: Iterable[Any],
    *,
    batch_size: int,
    where: str,
    prepare: Callable[[Any], NDArray[np.uint8]],
    answer: Callable[[NDArray[np.uint8]], list[_Answer]],
    return_errors: bool,
) -> Iterator[_Answer | InputError]:
    """The answers in the items' order; ``where`` names an item by its number and name.

    ``batch_size`` small images are held at a time and no item once it is prepared. An item that
    cannot be prepared ends the stream with an InputError after the answers before it, or, with
    ``return_errors``, stands among the answers as its InputError.
    """
    batch: list[_Pixels] = []
    for index, item in enumerate(items):
        try:
            batch.append(prepare(item))
        except InputError as exc:
            named = InputError(f"{where.format(index, _name(item))}: {exc}")
            if not return_errors:
                yield from _answered(batch, answer)
                raise named from exc
            batch.append(named)
        del item
        if len(batch) == batch_size:
            yield from _answered(batch, answer)
            batch = []
    yield from _answered(batch, answer)


def _answered(
    batch: list[_Pixels], answer: Callable[[NDArray[np.uint8]], list[_Answer]]
) -> Iterator[_Answer | InputError]:
    pixels = [entry for entry in batch if not isinstance(entry, InputError)]
    answers = iter(answer(np.stack(pixels)) if pixels else ())
    for entry in batch:
        yield entry if isinstance(entry, InputError) else next(answers)


def _name(item: object) -> str:
    return f" ({item})" if isinstance(item, (str, PurePath)) else ""
