"""multi-class: exactly one of the labels is right; the probabilities are a softmax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .probabilities import ProbabilityTask

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..output_spec import TaskSpec


@dataclass(frozen=True)
class Candidate:
    """One label with its probability."""

    label: str
    index: int  # position in the spec's labels
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The answer for one image: the most probable label."""

    label: str
    index: int
    probability: float
    probabilities: tuple[float, ...] = field(repr=False)  # one for each label; they sum to 1
    labels: tuple[str, ...] = field(repr=False)
    accepted: bool = True  # False: less probable than requested; better ask a person

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

    def to_text(self, top: int = 3) -> str:
        """One line with the ``top`` candidates."""
        text = ", ".join(f"{row.label} {row.probability:.1%}" for row in self.top(top))
        return text if self.accepted else f"unsure: {text}"


class MultiClass(ProbabilityTask):
    """Exactly one of the labels is right."""

    name = "multi-class"
    has_thresholds = False
    sums_to_one = True

    def answers(
        self,
        arrays: Sequence[NDArray[np.float32]],
        spec: TaskSpec,
        thresholds: tuple[float, ...] | None,
        min_probability: float = 0.0,
    ) -> Sequence[Prediction]:
        """One Prediction for each image."""
        return [
            Prediction.from_probabilities(tuple(row), spec.labels, min_probability)
            for row in arrays[0].tolist()
        ]


MULTI_CLASS = MultiClass()
