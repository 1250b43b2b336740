"""multi-label: each label is an attribute that an image has or has not; the probabilities are one
sigmoid for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import InputError
from .probabilities import ProbabilityTask

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..output_spec import TaskSpec


class Attribute(NamedTuple):
    """One label. Each answer makes one for every label: forty of these take 9 us, of frozen
    dataclasses 19."""

    name: str
    probability: float
    threshold: float
    present: bool  # probability >= threshold
    accepted: bool = True  # False: the answer, present or absent, is not probable enough


@dataclass(frozen=True)
class AttributePrediction:
    """The answer for one image: every attribute, in the spec's order."""

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
        names = ", ".join(attribute.name for attribute in self.attributes)
        raise InputError(f"the model has no attribute {name!r}; it has: {names}.")

    def to_dict(self, top: int | None = None) -> dict[str, Any]:
        """The names that are present, and every attribute with its numbers, whatever ``top``."""
        return {
            "present": list(self.present),
            "accepted": self.accepted,
            "attributes": [attribute._asdict() for attribute in self.attributes],
        }

    def to_text(self, top: int | None = None) -> str:
        """One line with every attribute that is present, whatever ``top``."""
        present = [f"{row.name} {row.probability:.1%}" for row in self.attributes if row.present]
        text = ", ".join(present) or "no attribute"
        unsure = [row.name for row in self.attributes if not row.accepted]
        return f"{text}; unsure: {', '.join(unsure)}" if unsure else text


class MultiLabel(ProbabilityTask):
    """Each label is an attribute of its own."""

    name = "multi-label"
    has_thresholds = True
    sums_to_one = False

    def answers(
        self,
        arrays: Sequence[NDArray[np.float32]],
        spec: TaskSpec,
        thresholds: tuple[float, ...] | None,
        min_probability: float = 0.0,
    ) -> Sequence[AttributePrediction]:
        """One AttributePrediction for each image; the variant has thresholds."""
        assert thresholds is not None  # Manifest.check and Parts made sure
        return [
            AttributePrediction.from_probabilities(
                tuple(row), spec.labels, thresholds, min_probability
            )
            for row in arrays[0].tolist()
        ]


MULTI_LABEL = MultiLabel()
