"""What a form answers to a stream of images: how many, of which shape, and whether they are
numbers at all; and whether the images can show anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from exporters.errors import ExportError
from exporters.evaluate.probabilities import Floats, are_probabilities
from pipeline.compare import foreign
from pipeline.compare.forms import Form
from pipeline.errors import DataError, PipelineError
from pipeline.verify.images import Images
from runtime import PredictorError

_BATCH = 256


def answers(form: Form, images: Images | None, step: Callable[[int, int], None]) -> Floats:
    """[n, labels]; values that are not numbers stay in. Raises DataError or PipelineError for
    another number of answers than of images, and for a form that cannot answer."""
    if form.outputs is not None:
        if images is not None and len(form.outputs) != len(images.pixels):
            raise DataError(
                f"{form.name} has outputs of {len(form.outputs)} images, but {images.source} has "
                f"{len(images.pixels)}; expected those of the same images."
            )
        return form.outputs
    assert form.model is not None and images is not None
    try:
        if form.takes is not None:
            return foreign.outputs(form.name, form.model, form.takes, images.pixels, step)
        return _stream(form, images.pixels, step)
    except (PipelineError, ExportError, PredictorError):
        raise
    except Exception as exc:  # of onnxruntime, of PyTorch, or of the user's own function
        raise PipelineError(
            f"{form.name} cannot answer {images.source}, {images.pixels.dtype} "
            f"{list(images.pixels.shape)}: {type(exc).__name__}: {exc}. Give it with --data what "
            "it takes."
        ) from exc


def _stream(form: Form, images: NDArray[np.uint8], step: Callable[[int, int], None]) -> Floats:
    assert form.model is not None
    rows: list[Floats] = []
    for start in range(0, len(images), _BATCH):
        batch = np.ascontiguousarray(images[start : start + _BATCH])
        found = np.asarray(form.model(batch), np.float32)
        wanted = (len(batch), rows[0].shape[1] if rows else found.shape[-1] if found.ndim else 0)
        if found.shape != wanted:
            raise PipelineError(
                f"{form.name} gave answers of shape {list(found.shape)} to {len(batch)} images; "
                f"expected {list(wanted)}, a row of probabilities for each image."
            )
        rows.append(found)
        step(min(start + _BATCH, len(images)), len(images))
    return np.concatenate(rows)


def check_probabilities(name: str, values: Floats) -> None:
    """Raise PipelineError for finite values outside 0..1: logits, say."""
    known = values[np.isfinite(values)]
    if known.size and not are_probabilities(known):
        raise PipelineError(
            f"{name} gave values from {known.min():g} to {known.max():g}; expected probabilities "
            "from 0 to 1. Does the network end in a softmax or sigmoid?"
        )


def not_numbers(values: Floats) -> NDArray[np.int64]:
    """The images whose answer holds NaN or infinity; minus infinity is a logit like others."""
    wrong = np.isnan(values) | np.isposinf(values)
    return np.asarray(np.flatnonzero(wrong.any(axis=1)), np.int64)


def told_not_numbers(name: str, form: str, wrong: NDArray[np.int64], total: int) -> Iterator[str]:
    """Which side, and which images."""
    if len(wrong):
        shown = ", ".join(map(str, wrong[:8])) + (", ..." if len(wrong) > 8 else "")
        yield (
            f"{name} ({form}) answers NaN or infinity to {len(wrong)} of {total} images: {shown}"
        )
