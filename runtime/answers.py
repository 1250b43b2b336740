"""The check of what a model returned, at every call: float32 arrays of the stated shapes, a row for
each image, whose values can be an answer.

A model that lost its batch returns one row for many images, which NumPy would spread over all of
them; logits and NaN would become answers. Independent of sessions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import AnswerError, InputError
from .tasks import task_named

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .output_spec import OutputSpec
    from .spec import ModelSpec

    Arrays = Sequence[NDArray[np.float32]]

_FLOAT32 = np.dtype(np.float32)
_ADVICE = "Run the selftest; if it fails here alone, try another device or variant."


class AnswerCheck:
    """The check of the outputs of models with one spec."""

    def __init__(self, spec: ModelSpec) -> None:
        self._outputs = spec.outputs
        self.names = [output.name for output in spec.outputs]
        self._fault = task_named(spec.task).fault

    def __call__(self, arrays: Sequence[Any], images: int) -> Arrays:
        """Return ``arrays``, one for each output, if they are answers for so many images; raises
        AnswerError, which names the first image whose values are not."""
        for output, array in zip(self._outputs, arrays, strict=True):
            shape = getattr(array, "shape", None)
            if shape != (images, *output.shape) and not _fits(shape, images, output):
                _refuse_shape(output, array, images)
            if array.dtype != _FLOAT32:
                _refuse_shape(output, array, images)
        if fault := self._fault(arrays):
            image, reason = fault
            raise AnswerError(
                f"the model's answer {reason} (image {image} of {images} in its batch). {_ADVICE}",
                image,
            )
        return arrays

    def require_room(self, out: object, images: int) -> None:
        """Raise InputError unless the one output for so many images can be written into ``out``."""
        (output,) = self._outputs
        if not (
            isinstance(out, np.ndarray)
            and out.dtype == _FLOAT32
            and _fits(out.shape, images, output)
            and out.flags.writeable
        ):
            given = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out)
            shape = (images, *output.shape)
            raise InputError(f"out is {given}; expected a writable float32 array of {shape}.")


def _fits(shape: Any, images: int, output: OutputSpec) -> bool:
    """True for a shape that fits the output, axes of unknown length included."""
    return shape is not None and shape[:1] == (images,) and output.fits(shape[1:])


def _refuse_shape(output: OutputSpec, array: Any, images: int) -> None:
    described = f"a {type(array).__name__}"
    if isinstance(array, np.ndarray):
        described = f"{array.dtype} {array.shape}"
    shape = ", ".join(str(size or "any") for size in (images, *output.shape))
    raise AnswerError(
        f"the model returned {described} as {output.name!r} for {images} "
        f"image{'s' * (images != 1)}; expected float32 ({shape}), a row for each image. Which row "
        "belongs to which image cannot be seen. Export the model again, with its batch dimension "
        "free."
    )
