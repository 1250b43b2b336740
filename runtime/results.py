"""What a predictor answers, as small frozen values; ``to_dict()`` gives plain JSON values.

Knows nothing of images or sessions.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from .errors import InputError


@dataclass(frozen=True)
class Candidate:
    """One label with its probability."""

    label: str
    index: int  # place in the spec's labels
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The answer of a multi-class model for one image."""

    label: str
    index: int
    probability: float
    probabilities: tuple[float, ...] = field(repr=False)  # one for each label; they sum to 1
    labels: tuple[str, ...] = field(repr=False)

    @classmethod
    def from_probabilities(
        cls, probabilities: tuple[float, ...], labels: tuple[str, ...]
    ) -> Prediction:
        """The most probable label; of equals the first."""
        index = max(range(len(labels)), key=probabilities.__getitem__)
        return cls(labels[index], index, probabilities[index], probabilities, labels)

    def top(self, k: int = 5) -> tuple[Candidate, ...]:
        """The ``k`` most probable labels (all of them if there are fewer), best first."""
        if k < 1:
            raise InputError(f"top({k}) asks for no label; expected at least 1.")
        order = sorted(range(len(self.labels)), key=lambda i: (-self.probabilities[i], i))
        return tuple(Candidate(self.labels[i], i, self.probabilities[i]) for i in order[:k])

    def to_dict(self, top: int = 5) -> dict[str, Any]:
        """The answer and its ``top`` candidates."""
        return {
            "label": self.label,
            "index": self.index,
            "probability": self.probability,
            "top": [asdict(candidate) for candidate in self.top(top)],
        }


@dataclass(frozen=True)
class Attribute:
    """One label of a multi-label model."""

    name: str
    probability: float
    threshold: float
    present: bool  # probability >= threshold


@dataclass(frozen=True)
class AttributePrediction:
    """The answer of a multi-label model for one image: every attribute, in the spec's order."""

    attributes: tuple[Attribute, ...]

    @classmethod
    def from_probabilities(
        cls,
        probabilities: tuple[float, ...],
        labels: tuple[str, ...],
        thresholds: tuple[float, ...],
    ) -> AttributePrediction:
        """An attribute is present from its threshold upwards."""
        rows = zip(labels, probabilities, thresholds, strict=True)
        return cls(tuple(Attribute(name, p, limit, p >= limit) for name, p, limit in rows))

    @property
    def present(self) -> tuple[str, ...]:
        """The names of the attributes that are present."""
        return tuple(attribute.name for attribute in self.attributes if attribute.present)

    def __getitem__(self, name: str) -> Attribute:
        for attribute in self.attributes:
            if attribute.name == name:
                return attribute
        known = ", ".join(attribute.name for attribute in self.attributes)
        raise InputError(f"the model has no attribute {name!r}; it has: {known}.")

    def to_dict(self) -> dict[str, Any]:
        """The names that are present, and every attribute with its numbers."""
        return {
            "present": list(self.present),
            "attributes": [asdict(attribute) for attribute in self.attributes],
        }


@dataclass(frozen=True)
class PredictorInfo:
    """What was opened, where it runs, and why there."""

    device: str  # "cpu" or "cuda": what was taken, never "auto"
    provider: str  # onnxruntime's name of it, as the session reports it
    variant: str
    target: str  # the kind of device that the default variant was looked up for
    threads: int  # of one call on the CPU, as the session reports it
    reason: str  # why this device and this variant, and why no earlier device
    model_version: str | None  # None: made from parts that are not packed yet
    bundle_id: str | None  # sha256 of the manifest; None: made from parts
    synthetic: bool  # trained on generated images

    def to_dict(self) -> dict[str, Any]:
        """Every field."""
        return asdict(self)


@dataclass(frozen=True)
class SelftestReport:
    """What the golden samples gave; there is a report only if all came out as recorded."""

    variant: str
    provider: str
    images: int  # raw images whose preprocessed bytes were equal
    samples: int  # model inputs whose probabilities were compared
    max_difference: float  # largest |probability - recorded probability|
    tolerance: float  # what the manifest allows for this variant

    def to_dict(self) -> dict[str, Any]:
        """Every field."""
        return asdict(self)
