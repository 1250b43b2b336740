"""Does a form give one image one answer, at every call and in every company? If it does not, no
other difference means anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate.probabilities import Floats
from pipeline.compare.forms import Form

_CALLS = 3  # of the same batch
_REPEATED = 1e-6  # change from call to call that is reported
# Change of a probability by the rest of the batch: float sums come in another order, and a sum on
# the border between two 8-bit levels takes the other one.
_ALLOWED = {"fp32": 1e-4, "fp16": 1e-2, "int8": 1e-2}


@dataclass(frozen=True)
class Change:
    """One image whose answer was not the same twice."""

    largest: float  # change of a probability, or of an output relative to the largest
    image: int  # its place among those asked
    how: str  # in which company


@dataclass(frozen=True)
class Steadiness:
    """What changed one form's answers to the same images."""

    calls: Change | None  # the same batch again
    batch: Change | None  # other neighbors, or another number of them
    refused: str  # a batch that it cannot answer, and why; "" where there is none


def steadiness(form: Form, images: NDArray[Any]) -> Steadiness:
    """Ask for the same ``images`` again, one by one, in pairs and in another order; never raises
    for what the form does wrong."""
    fixed = (form.takes.batch or 0) if form.takes is not None else 0
    ask = _asker(form, fixed)
    images = images[: len(images) // fixed * fixed] if fixed else images
    try:
        first = ask(images)
        numbers = np.abs(first[np.isfinite(first)])
        scale = 1.0 if form.takes is None else float(numbers.max(initial=0)) or 1.0
        again = [_change(first, ask(images), scale, "again") for _ in range(_CALLS - 1)]
    except Exception as exc:  # of onnxruntime, of PyTorch, or of the user's own function
        return Steadiness(None, None, _refusal(f"in a batch of {len(images)}", exc))
    calls = max(again, key=lambda change: change.largest)
    batch, refused = calls, ""
    for how, answer in _companies(fixed, len(images)):
        try:
            change = _change(first, answer(ask, images), scale, how)
        except Exception as exc:
            refused = _refusal(how, exc)
        else:
            batch = max(batch, change, key=lambda change: change.largest)
    return Steadiness(
        calls if calls.largest > _REPEATED else None,
        # what changes by itself shows nothing of its neighbors
        batch if batch.largest > max(_REPEATED, 3 * calls.largest) else None,
        refused,
    )


def _refusal(how: str, exc: Exception) -> str:
    text = (str(exc).strip().splitlines() or [""])[0][:200]
    return f"{how}: {type(exc).__name__}: {text}"


def failures(name: str, form: Form, found: Steadiness) -> Iterator[str]:
    """Sentences, where an answer changes by more than rounding explains."""
    allowed = _ALLOWED[form.precision]
    if found.calls is not None and found.calls.largest > allowed:
        yield f"{name}'s answers {_from_call_to_call(found.calls)}"
    dynamic = form.graph is not None and _is_dynamic(form)
    if found.batch is not None and found.batch.largest > allowed and not dynamic:
        yield f"{name}'s answers {_on_the_batch(found.batch)}"
    if found.refused:
        yield f"{name} cannot answer images {found.refused}"


def failed(form: Form, found: Steadiness) -> bool:
    """Whether the form has no answer to an image that could be compared."""
    return any(failures("", form, found))


def remarks(name: str, form: Form, found: Steadiness) -> Iterator[str]:
    """The same where it is within rounding, or what the form is made for."""
    allowed = _ALLOWED[form.precision]
    if found.calls is not None and found.calls.largest <= allowed:
        yield f"{name}'s answers {_from_call_to_call(found.calls)}"
    if found.batch is not None and form.graph is not None and _is_dynamic(form):
        why = "DynamicQuantizeLinear takes its range from all images of a batch"
        yield f"{name}'s answers {_on_the_batch(found.batch)}: {why}"


def _from_call_to_call(change: Change) -> str:
    return f"change from run to run, by up to {change.largest:.3g} for the same batch"


def _on_the_batch(change: Change) -> str:
    return (
        f"depend on the rest of the batch: one changes by {change.largest:.3g} when its image is "
        f"given {change.how}"
    )


def _is_dynamic(form: Form) -> bool:
    assert form.graph is not None
    return any(node.op_type == "DynamicQuantizeLinear" for node in form.graph.graph.node)


Ask = Callable[[NDArray[Any]], Floats]


def _asker(form: Form, fixed: int) -> Ask:
    """Answers [n, labels] to however many images, in batches of ``fixed`` where it is not 0."""
    model = form.model
    assert model is not None

    def ask(images: NDArray[Any]) -> Floats:
        size = fixed or len(images)
        pieces = [images[at : at + size] for at in range(0, len(images), size)]
        found = [np.asarray(model(np.ascontiguousarray(piece)), np.float32) for piece in pieces]
        for rows, piece in zip(found, pieces, strict=True):
            if rows.ndim < 2 or len(rows) != len(piece):
                raise ValueError(f"answers of shape {list(rows.shape)} to {len(piece)} images")
        return np.concatenate([rows.reshape(len(rows), -1) for rows in found])

    return ask


def _companies(
    fixed: int, count: int
) -> Iterator[tuple[str, Callable[[Ask, NDArray[Any]], Floats]]]:
    """The same images in other batches."""
    order = np.random.default_rng(0).permutation(count)
    back = np.argsort(order)
    yield "in another order", lambda ask, images: ask(images[order])[back]
    if not fixed:
        yield "alone", lambda ask, images: _in_pieces(ask, images, 1)
        yield "in pairs", lambda ask, images: _in_pieces(ask, images[order], 2)[back]


def _in_pieces(ask: Ask, images: NDArray[Any], size: int) -> Floats:
    pieces = [ask(images[at : at + size]) for at in range(0, len(images), size)]
    return np.concatenate(pieces)


def _change(expected: Floats, found: Floats, scale: float, how: str) -> Change:
    """NaN or infinity on one side alone is a change of 1; the same on both is none."""
    if found.shape != expected.shape:
        raise ValueError(f"answers of shape {list(found.shape)}, not {list(expected.shape)}")
    same = (expected == found) | (np.isnan(expected) & np.isnan(found))
    gap = np.zeros(expected.shape)
    gap[~same] = np.abs(expected[~same].astype(np.float64) - found[~same]) / scale
    per_image = np.nan_to_num(gap, nan=1.0, posinf=1.0).max(axis=1)
    return Change(float(per_image.max()), int(per_image.argmax()), how)
