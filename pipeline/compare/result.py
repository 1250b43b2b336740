"""What a comparison found, as values that become JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from exporters.difference import Difference
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

    @property
    def passed(self) -> bool:
        """Nothing is out of tolerance."""
        return not self.failures

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "passed": self.passed}
