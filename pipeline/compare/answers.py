"""The answers of one side to a stream of images, with checks of their number, shape and range."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from exporters.errors import ExportError
from exporters.evaluate.probabilities import Floats, are_probabilities
from pipeline.compare import foreign
from pipeline.compare.model_forms import ModelForm
from pipeline.errors import DataError, PipelineError
from pipeline.verify.images import Images
from runtime import PredictorError

_BATCH = 256


def answers(form: ModelForm, images: Images | None, step: Callable[[int, int], None]) -> Floats:
    """Return [n, labels]; NaN and infinity stay in. Raises DataError or PipelineError when the
    number of answers is not that of the images, and when the model fails."""
    if form.outputs is not None:
        if images is not None and len(form.outputs) != len(images.pixels):
            raise DataError(
                f"{form.name} has outputs for {len(form.outputs)} images, but {images.source} has "
                f"{len(images.pixels)}; expected outputs for the same images."
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
            f"{list(images.pixels.shape)}: {type(exc).__name__}: {exc}. Give images that it takes "
            "with --data."
        ) from exc


def _stream(form: ModelForm, images: NDArray[np.uint8], step: Callable[[int, int], None]) -> Floats:
    assert form.model is not None
    rows: list[Floats] = []
    for start in range(0, len(images), _BATCH):
        batch = np.ascontiguousarray(images[start : start + _BATCH])
        values = np.asarray(form.model(batch), np.float32)
        labels = rows[0].shape[1] if rows else values.shape[-1] if values.ndim else 0
        if values.shape != (len(batch), labels):
            raise PipelineError(
                f"{form.name} gave answers of shape {list(values.shape)} to {len(batch)} images; "
                f"expected {[len(batch), labels]}, a row of probabilities for each image."
            )
        rows.append(values)
        step(min(start + _BATCH, len(images)), len(images))
    return np.concatenate(rows)


def check_probabilities(name: str, values: Floats) -> None:
    """Raise PipelineError for finite values outside 0..1, for example logits."""
    finite = values[np.isfinite(values)]
    if finite.size and not are_probabilities(finite):
        raise PipelineError(
            f"{name} gave values from {finite.min():g} to {finite.max():g}; expected probabilities "
            "from 0 to 1. Let the network end in a softmax or sigmoid."
        )


def not_numbers(values: Floats) -> NDArray[np.int64]:
    """Return the images whose answer has NaN or infinity; minus infinity is a valid logit."""
    wrong = np.isnan(values) | np.isposinf(values)
    return np.asarray(np.flatnonzero(wrong.any(axis=1)), np.int64)


def not_number_failures(
    name: str, form: str, wrong: NDArray[np.int64], total: int
) -> Iterator[str]:
    """Name the side and its images."""
    if len(wrong):
        shown = ", ".join(map(str, wrong[:8])) + (", ..." if len(wrong) > 8 else "")
        yield (
            f"{name} ({form}) answers NaN or infinity to {len(wrong)} of {total} images: {shown}"
        )
