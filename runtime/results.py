"""What a predictor answers, as small frozen values; ``to_dict()`` gives plain JSON values.

Knows nothing of images or sessions.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

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
    accepted: bool = True  # False: less probable than was asked for; better ask a person

    @classmethod
    def from_probabilities(
        cls,
        probabilities: tuple[float, ...],
        labels: tuple[str, ...],
        min_probability: float = 0.0,
    ) -> Prediction:
        """The most probable label; of equals the first. It is accepted from ``min_probability``
        upwards."""
        index = max(range(len(labels)), key=probabilities.__getitem__)
        best = probabilities[index]
        return cls(labels[index], index, best, probabilities, labels, best >= min_probability)

    def top(self, k: int = 5) -> tuple[Candidate, ...]:
        """The ``k`` most probable labels (all of them if there are fewer), best first."""
        if type(k) is not int or k < 1:
            raise InputError(f"top({k!r}) asks for no label; expected a whole number from 1 up.")
        order = sorted(range(len(self.labels)), key=lambda i: (-self.probabilities[i], i))
        return tuple(Candidate(self.labels[i], i, self.probabilities[i]) for i in order[:k])

    def to_dict(self, top: int = 5) -> dict[str, Any]:
        """The answer and its ``top`` candidates."""
        return {
            "label": self.label,
            "index": self.index,
            "probability": self.probability,
            "accepted": self.accepted,
            "top": [asdict(candidate) for candidate in self.top(top)],
        }


class Attribute(NamedTuple):
    """One label of a multi-label model. Each answer makes one for every label: forty of these take
    9 us, of frozen dataclasses 19."""

    name: str
    probability: float
    threshold: float
    present: bool  # probability >= threshold
    accepted: bool = True  # False: what was answered, present or absent, is not probable enough


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
        min_probability: float = 0.0,
    ) -> AttributePrediction:
        """An attribute is present from its threshold upwards. "Present" is accepted if the
        probability, "absent" if its complement, is at least ``min_probability``."""
        attributes = []
        for name, probability, threshold in zip(labels, probabilities, thresholds, strict=True):
            present = probability >= threshold
            accepted = (probability if present else 1 - probability) >= min_probability
            attributes.append(Attribute(name, probability, threshold, present, accepted))
        return cls(tuple(attributes))

    @property
    def accepted(self) -> bool:
        """True when every attribute is."""
        return all(attribute.accepted for attribute in self.attributes)

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
            "accepted": self.accepted,
            "attributes": [attribute._asdict() for attribute in self.attributes],
        }


@dataclass(frozen=True)
class PredictorInfo:
    """What was opened, where it runs, and why there."""

    device: str  # "cpu", "cuda", ...: what was taken, never "auto"
    provider: str  # onnxruntime's name of it, as the session reports it
    variant: str
    target: str  # the kind of device that the default variant was looked up for
    threads: int  # of one call on the CPU, as the session reports it
    reason: str  # why this device and this variant, and why no earlier device
    model_version: str | None  # None: made from parts that are not packed yet
    bundle_id: str | None  # sha256 of the manifest; None: made from parts
    signed_by: str | None  # the trusted key that signed it; None: no keys were given
    synthetic: bool  # trained on generated images
    nodes: dict[str, int] | None = None  # of the graph, by provider; None: onnxruntime cannot tell

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


@dataclass(frozen=True)
class AutotuneRow:
    """One variant as it was timed on this device."""

    variant: str
    latency_us: float  # median over rounds, batch 1
    speedup: float  # against fp32 in the same rounds; 1.0 for fp32 itself
    rounds: int


@dataclass(frozen=True)
class AutotuneReport:
    """What autotune found. The winner is what ``variant="auto"`` opens from now on."""

    variant: str  # the winner
    reason: str  # as ``PredictorInfo.reason`` will say it
    device: str
    threads: int
    rows: tuple[AutotuneRow, ...]  # the variants that passed their golden samples
    failed: dict[str, str]  # the others, and why
    remembered_in: str | None  # path of the record; None: the cache folder cannot be written

    def to_dict(self) -> dict[str, Any]:
        """Every field."""
        return asdict(self)
