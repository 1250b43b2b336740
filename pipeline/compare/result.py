"""What a comparison found, as values that become JSON."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from exporters.evaluate.error_metrics import Difference
from exporters.options import Tolerance


@dataclass(frozen=True)
class LayerRow:
    """One layer of both forms."""

    a: str
    b: str
    error: float  # of its input: relative, root mean square
    snr_db: float
    parted: bool  # the first one that differs


@dataclass(frozen=True)
class GeneratedRow:
    """What differential testing found."""

    tried: int
    largest: float  # difference of probabilities
    before_climbing: float  # the same, of the generated images that were not climbed from
    by_family: tuple[tuple[str, float], ...]  # worst first
    kept: int
    file: str | None  # where they were kept


@dataclass(frozen=True)
class PreprocessRow:
    """How both sides prepare images, and on how many pictures that was tried."""

    a: str | None  # where A's preprocess.onnx is; None: it has none
    b: str | None
    same_file: bool = False  # byte for byte, so that no picture need be tried
    pictures: int = 0  # that were tried
    differing: int = 0  # of these, with any other pixel
    largest: int = 0  # difference in levels
    worst: str = ""  # the picture with it, in words
    causes: tuple[str, ...] = ()
    unknown: str = ""  # why nothing was compared


@dataclass(frozen=True)
class DamageRow:
    """One place of an INT8 file that is not rounding, or costs more than rounding does."""

    side: str  # "A" or "B": the INT8 one
    layer: str
    words: str  # what is wrong there, as measured
    costly: bool  # more than rounding to 8 bits: a failure
    snr_db: float  # of the log-odds of the answers
    without_db: float  # the same with this one place in float


@dataclass(frozen=True)
class Comparison:
    """Two forms of a model, A and B, as they were written."""

    a: str
    b: str
    images: str  # which ones, in words
    difference: Difference
    accuracy_percent: tuple[float, float] | None  # of A and B, where the images have labels
    tolerance: tuple[Tolerance, ...]  # what was held against it
    failures: tuple[str, ...]  # empty: they do not part
    first_layer: str | None  # "conv2d_2 / Conv_2", in both forms' words
    suspects: tuple[str, ...]  # nodes of A and B between the last equal layer and that one
    layers: tuple[LayerRow, ...]
    causes: tuple[str, ...]
    note: str = ""  # why there are no layers
    generated: GeneratedRow | None = None  # differential testing, where it was asked for
    regression: Difference | None = None  # what earlier differential testing kept in this run
    preprocessing: PreprocessRow = PreprocessRow(None, None)
    damages: tuple[DamageRow, ...] = ()
    remarks: tuple[str, ...] = ()  # what nobody should overlook, though nothing failed by it

    @property
    def passed(self) -> bool:
        """Nothing is out of tolerance."""
        return not self.failures

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; null where a number is not finite."""
        values: dict[str, Any] = _finite({**asdict(self), "passed": self.passed})
        return values


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, (list, tuple)) else value
