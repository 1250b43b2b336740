"""The result of a comparison, as values that become JSON."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from exporters.evaluate.error_metrics import Difference
from exporters.options import Tolerance


@dataclass(frozen=True)
class LayerRow:
    """One layer of both sides."""

    a: str
    b: str
    error: float  # of its input: relative, root mean square
    snr_db: float
    parted: bool  # the first layer that differs


@dataclass(frozen=True)
class GeneratedRow:
    """The result of differential testing."""

    tried: int
    largest: float  # difference of probabilities
    before_climbing: float  # the same before hill climbing
    by_family: tuple[tuple[str, float], ...]  # worst first
    kept: int
    file: str | None  # that they were kept in


@dataclass(frozen=True)
class PreprocessRow:
    """The preprocessing of both sides, compared on pictures."""

    a: str | None  # the file of A's preprocess.onnx; None: it has none
    b: str | None
    same_file: bool = False  # byte for byte, so that no pictures were tried
    pictures: int = 0  # tried
    differing: int = 0  # of these, with any pixel that differs
    largest: int = 0  # difference in levels
    worst: str = ""  # the picture with it
    causes: tuple[str, ...] = ()
    unknown: str = ""  # the reason why nothing was compared


@dataclass(frozen=True)
class DamageRow:
    """One scale or range of an INT8 file that is not rounding, or costs more than rounding."""

    side: str  # the INT8 side: "A" or "B"
    layer: str
    words: str  # the fault, as measured
    costly: bool  # costs more than rounding to 8 bits: a failure
    snr_db: float  # of the log-odds of the answers
    without_db: float  # the same with only this back in float


@dataclass(frozen=True)
class Comparison:
    """The comparison of two sides, A and B."""

    a: str  # as given on the command line
    b: str
    images: str  # their source
    difference: Difference
    accuracy_percent: tuple[float, float] | None  # of A and B, where the images have labels
    tolerance: tuple[Tolerance, ...]  # that judged it
    failures: tuple[str, ...]  # empty where the comparison passed
    first_layer: str | None  # "conv2d_2 / Conv_2", in the names of both sides
    suspects: tuple[str, ...]  # nodes of A and B between the last equal layer and that one
    layers: tuple[LayerRow, ...]
    causes: tuple[str, ...]
    note: str = ""  # the reason why there are no layers
    generated: GeneratedRow | None = None  # differential testing, if requested
    regression: Difference | None = None  # on images kept by earlier differential testing
    preprocessing: PreprocessRow = PreprocessRow(None, None)
    damages: tuple[DamageRow, ...] = ()
    remarks: tuple[str, ...] = ()  # worth attention, but not failures

    @property
    def passed(self) -> bool:
        """True where nothing is out of tolerance."""
        return not self.failures

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; null where a number is not finite."""
        values: dict[str, Any] = _finite({**asdict(self), "passed": self.passed})
        return values


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, (list, tuple)) else value
