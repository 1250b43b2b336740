"""values: any named float32 outputs, without labels; the answer is the arrays themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..output_spec import OutputSpec, TaskSpec

_SHOWN = 8  # values of an array in a line of text; of a larger one only the range


@dataclass(frozen=True, eq=False)  # arrays have no truth value
class Values:
    """The answer for one image: a float32 array for each output, in the spec's order."""

    arrays: Mapping[str, NDArray[np.float32]]

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        if name not in self.arrays:
            raise InputError(f"the model has no output {name!r}; it has: {', '.join(self.arrays)}.")
        return self.arrays[name]

    def to_dict(self, top: int | None = None) -> dict[str, Any]:
        """Every array as nested lists, whatever ``top``."""
        return {"outputs": {name: array.tolist() for name, array in self.arrays.items()}}

    def to_text(self, top: int | None = None) -> str:
        """One line: the values of small arrays, shape and range of others, whatever ``top``."""
        return "; ".join(f"{name} {_as_text(array)}" for name, array in self.arrays.items())


class ValuesTask:
    """The outputs are those that the spec states."""

    name = "values"
    spec_version = 2
    has_labels = False
    has_thresholds = False

    def outputs(self, spec: TaskSpec) -> tuple[OutputSpec, ...]:
        """As the spec states them."""
        return spec.outputs

    def fault(self, arrays: Sequence[NDArray[np.float32]]) -> tuple[int, str] | None:
        """The first image with NaN or infinity, which FP16 makes of what is too large for it."""
        import numpy as np

        faulty = [
            int(np.isfinite(array).reshape(len(array), -1).all(1).argmin())
            for array in arrays
            if not np.isfinite(array).all()
        ]
        return (min(faulty), "holds NaN or infinity; expected finite values") if faulty else None

    def answers(
        self,
        arrays: Sequence[NDArray[np.float32]],
        spec: TaskSpec,
        thresholds: tuple[float, ...] | None,
        min_probability: float = 0.0,
    ) -> Sequence[Values]:
        """One Values for each image, of copies, so that none keeps the whole batch in memory."""
        names = [output.name for output in spec.outputs]
        return [
            Values({name: array[i].copy() for name, array in zip(names, arrays, strict=True)})
            for i in range(len(arrays[0]))
        ]

    def compare_golden(
        self,
        arrays: Sequence[NDArray[np.float32]],
        record: Sequence[NDArray[np.float32]],
        first: int = 0,
    ) -> float:
        """The largest difference of an output as a share of the largest magnitude that was recorded
        of it, since outputs have units of their own."""
        differences = [0.0]
        for values, recorded in zip(arrays, record, strict=True):
            expected = recorded[first : first + len(values)]
            if values.shape != expected.shape:
                return float("inf")
            if values.size:
                scale = float(abs(recorded).max()) or 1.0
                differences.append(float(abs(values - expected).max()) / scale)
        return float("nan") if any(d != d for d in differences) else max(differences)


def _as_text(array: NDArray[np.float32]) -> str:
    if array.size <= _SHOWN:
        return str(array.tolist())
    return f"{array.shape} from {array.min():.4g} to {array.max():.4g}"


VALUES = ValuesTask()
