"""One output of a model's graph: its name, shape and type. Independent of tasks and files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .errors import BundleFormatError

FLOAT32 = "float32"
MAX_OUTPUTS = 64
_MAX_AXES = 7  # without the batch
_MAX_VALUES = (
    1 << 26
)  # of all outputs for one image, 256 MiB: no bundle asks for memory without end
# Names become members of golden.npz, next to its own arrays, which are in the second pattern.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}", re.ASCII)
_RESERVED = re.compile(r"raw|pixels|con|prn|aux|nul|com\d|lpt\d", re.IGNORECASE)


@dataclass(frozen=True)
class OutputSpec:
    """One output, [N, *shape]; None in ``shape`` is an axis whose length is known at run time."""

    name: str
    shape: tuple[int | None, ...]  # of one image: without the batch
    dtype: str = FLOAT32

    @classmethod
    def from_dict(cls, data: object) -> OutputSpec:
        """Read one entry of a spec's ``outputs``; raises BundleFormatError for anything else."""
        if not isinstance(data, dict) or set(data) != {"name", "shape", "dtype"}:
            raise BundleFormatError(
                f"model spec has the output {data!r}; expected an object with name, shape and "
                "dtype."
            )
        name, shape, dtype = data["name"], data["shape"], data["dtype"]
        if not isinstance(name, str) or not isinstance(shape, list) or not isinstance(dtype, str):
            raise BundleFormatError(
                f"model spec has the output {data!r}; expected a text as name, a list as shape and "
                "a text as dtype."
            )
        return cls(name, tuple(shape), dtype)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"name": self.name, "shape": list(self.shape), "dtype": self.dtype}

    def fits(self, shape: Sequence[int]) -> bool:
        """True if the values of one image may have this shape."""
        return len(shape) == len(self.shape) and all(
            expected in (size, None) for size, expected in zip(shape, self.shape, strict=True)
        )


class TaskSpec(Protocol):
    """The part of a model's spec that depends on its task."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Distinct names; none for a task without labels."""

    @property
    def outputs(self) -> tuple[OutputSpec, ...]:
        """The outputs that the model returns."""


def check_outputs(outputs: Sequence[OutputSpec]) -> None:
    """Raise BundleFormatError unless these can be the outputs of one model."""
    if not 1 <= len(outputs) <= MAX_OUTPUTS:
        raise BundleFormatError(
            f"model spec has {len(outputs)} outputs; expected 1 to {MAX_OUTPUTS}."
        )
    names = [output.name.lower() for output in outputs]
    if len(set(names)) != len(names):
        raise BundleFormatError(
            f"model spec has the outputs {[output.name for output in outputs]}; expected names "
            "that differ in more than case."
        )
    values = 0
    for output in outputs:
        if not _NAME.fullmatch(output.name) or _RESERVED.fullmatch(output.name):
            raise BundleFormatError(
                f"model spec has the output name {output.name!r}; expected at most 100 letters, "
                "digits and _ of ASCII, no digit first, and neither 'raw', 'pixels' nor a device "
                "of Windows. Rename the output where the model is exported."
            )
        if output.dtype != FLOAT32:
            raise BundleFormatError(
                f"model spec has output {output.name!r} of dtype {output.dtype!r}; expected "
                f"{FLOAT32!r}."
            )
        values += _values(output)
    if values > _MAX_VALUES:
        raise BundleFormatError(
            f"model spec has outputs of {values} values for one image; expected at most "
            f"{_MAX_VALUES}."
        )


def _values(output: OutputSpec) -> int:
    """The number of values for one image, an axis of unknown length counted as 1."""
    product = 1
    for size in output.shape:
        if size is not None and (type(size) is not int or not 1 <= size <= _MAX_VALUES):
            raise BundleFormatError(
                f"model spec has output {output.name!r} of shape {list(output.shape)}; expected "
                f"whole numbers from 1 to {_MAX_VALUES}, or null for an axis of unknown length."
            )
        product *= size or 1
    if len(output.shape) > _MAX_AXES:
        raise BundleFormatError(
            f"model spec has output {output.name!r} of {len(output.shape)} axes; expected at most "
            f"{_MAX_AXES}."
        )
    return product
