"""One answer for one image, at every call and in every batch. Where a model does not give it, no
other difference means anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate.probabilities import Floats
from pipeline.compare.model_forms import ModelForm

_CALLS = 3  # of the same batch
_REPEATED = 1e-6  # change from call to call that is reported
# Change of a probability with the rest of the batch: float sums have another order, and a sum on
# the border between two 8-bit levels may round to the other one.
_ALLOWED = {"fp32": 1e-4, "fp16": 1e-2, "int8": 1e-2}


@dataclass(frozen=True)
class Change:
    """An image whose answer changed."""

    largest: float  # change of a probability, or of an output relative to the largest
    image: int  # its index
    how: str  # in which batch


@dataclass(frozen=True)
class Steadiness:
    """The changes of one model's answers to the same images."""

    calls: Change | None  # the same batch again
    batch: Change | None  # other images in the batch, or another number of them
    refused: str  # a batch that it cannot answer, with the reason; "" where there is none


def steadiness(form: ModelForm, images: NDArray[Any]) -> Steadiness:
    """Give the same ``images`` again, one by one, in pairs and in another order; errors of the
    model are part of the result, never raised."""
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
    for how, answer in _batches(fixed, len(images)):
        try:
            change = _change(first, answer(ask, images), scale, how)
        except Exception as exc:
            refused = _refusal(how, exc)
        else:
            batch = max(batch, change, key=lambda change: change.largest)
    return Steadiness(
        calls if calls.largest > _REPEATED else None,
        # an answer that changes by itself shows nothing about its neighbors
        batch if batch.largest > max(_REPEATED, 3 * calls.largest) else None,
        refused,
    )


def _refusal(how: str, exc: Exception) -> str:
    text = (str(exc).strip().splitlines() or [""])[0][:200]
    return f"{how}: {type(exc).__name__}: {text}"


def failures(name: str, form: ModelForm, result: Steadiness) -> Iterator[str]:
    """Yield a sentence where an answer changes by more than rounding explains."""
    allowed = _ALLOWED[form.precision]
    if result.calls is not None and result.calls.largest > allowed:
        yield f"{name}'s answers {_from_call_to_call(result.calls)}"
    dynamic = form.graph is not None and _is_dynamic(form)
    if result.batch is not None and result.batch.largest > allowed and not dynamic:
        yield f"{name}'s answers {_on_the_batch(result.batch)}"
    if result.refused:
        yield f"{name} cannot answer images {result.refused}"


def failed(form: ModelForm, result: Steadiness) -> bool:
    """Return True where the model has no answer to an image that could be compared."""
    return any(failures("", form, result))


def remarks(name: str, form: ModelForm, result: Steadiness) -> Iterator[str]:
    """Yield a sentence where the change is within rounding, or expected of dynamic INT8."""
    allowed = _ALLOWED[form.precision]
    if result.calls is not None and result.calls.largest <= allowed:
        yield f"{name}'s answers {_from_call_to_call(result.calls)}"
    if result.batch is not None and form.graph is not None and _is_dynamic(form):
        why = "DynamicQuantizeLinear takes its range from all images of a batch"
        yield f"{name}'s answers {_on_the_batch(result.batch)}: {why}"


def _from_call_to_call(change: Change) -> str:
    return f"change from run to run, by up to {change.largest:.3g} for the same batch"


def _on_the_batch(change: Change) -> str:
    return (
        f"depend on the rest of the batch: one changes by {change.largest:.3g} when its image is "
        f"given {change.how}"
    )


def _is_dynamic(form: ModelForm) -> bool:
    assert form.graph is not None
    return any(node.op_type == "DynamicQuantizeLinear" for node in form.graph.graph.node)


Ask = Callable[[NDArray[Any]], Floats]


def _asker(form: ModelForm, fixed: int) -> Ask:
    """Return a function to answers [n, labels], in batches of ``fixed`` where that is not 0."""
    model = form.model
    assert model is not None

    def ask(images: NDArray[Any]) -> Floats:
        size = fixed or len(images)
        pieces = [images[at : at + size] for at in range(0, len(images), size)]
        answers = [np.asarray(model(np.ascontiguousarray(piece)), np.float32) for piece in pieces]
        for rows, piece in zip(answers, pieces, strict=True):
            if rows.ndim < 2 or len(rows) != len(piece):
                raise ValueError(f"answers of shape {list(rows.shape)} to {len(piece)} images")
        return np.concatenate([rows.reshape(len(rows), -1) for rows in answers])

    return ask


def _batches(fixed: int, count: int) -> Iterator[tuple[str, Callable[[Ask, NDArray[Any]], Floats]]]:
    """Yield ways to give the same images in other batches."""
    order = np.random.default_rng(0).permutation(count)
    back = np.argsort(order)
    yield "in another order", lambda ask, images: ask(images[order])[back]
    if not fixed:
        yield "alone", lambda ask, images: _in_pieces(ask, images, 1)
        yield "in pairs", lambda ask, images: _in_pieces(ask, images[order], 2)[back]


def _in_pieces(ask: Ask, images: NDArray[Any], size: int) -> Floats:
    pieces = [ask(images[at : at + size]) for at in range(0, len(images), size)]
    return np.concatenate(pieces)


def _change(expected: Floats, again: Floats, scale: float, how: str) -> Change:
    """Measure a change; NaN or infinity on one side only counts as 1, on both sides as none."""
    if again.shape != expected.shape:
        raise ValueError(f"answers of shape {list(again.shape)}, not {list(expected.shape)}")
    same = (expected == again) | (np.isnan(expected) & np.isnan(again))
    gap = np.zeros(expected.shape)
    gap[~same] = np.abs(expected[~same].astype(np.float64) - again[~same]) / scale
    per_image = np.nan_to_num(gap, nan=1.0, posinf=1.0).max(axis=1)
    return Change(float(per_image.max()), int(per_image.argmax()), how)
