"""The part that tasks with labels share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    # (targets, logarithms of the probabilities, weights of the answers) of one kind of answer
    Term = tuple[Tensor, Tensor, Tensor | None]


class LabelledTask(ABC):
    """A task that is learned from labels."""

    name: ClassVar[str]
    label_axes: ClassVar[int]  # of labels as arrays: 1 for [N], 2 for [N, labels]
    label_noun: ClassVar[str]  # "class"
    label_nouns: ClassVar[str]
    answer_nouns: ClassVar[str]  # of what a model answers: "answers", "attribute answers"
    exclusive: ClassVar[bool]  # True: each image has exactly one label
    label_smoothing: ClassVar[float]  # of a new recipe

    # --- labels of a data set

    @abstractmethod
    def label_shape(self, images: int, count: int) -> tuple[int, ...]:
        """The shape of the labels of so many images, for ``count`` labels."""

    @abstractmethod
    def largest_label(self, count: int) -> int:
        """The largest number among labels; the smallest is 0."""

    @abstractmethod
    def label_counts(self, labels: NDArray[Any], count: int) -> NDArray[np.int64]:
        """Images of each label, [count]."""

    @abstractmethod
    def strata(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        """The strata that drawn splits share out evenly, one number for each image [N]."""

    @abstractmethod
    def unlearnable(self, labels: NDArray[Any], names: Sequence[str]) -> tuple[str, ...]:
        """The labels about which these images, the train split, teach nothing."""

    unlearnable_note: ClassVar[str]  # why

    @abstractmethod
    def cases(self, images: int, total: int) -> int:
        """The rarer cases of a label that ``images`` of ``total`` have: what judges it."""

    @abstractmethod
    def answers(self, images: int, labels: int) -> int:
        """The number of answers that so many images get."""

    def check_labels(self, labels: NDArray[Any], images: int, count: int) -> str | None:
        """Return how labels differ from those of ``images`` images and ``count`` labels; None where
        they fit."""
        import numpy as np

        shape, largest = self.label_shape(images, count), self.largest_label(count)
        if labels.shape != shape or not np.issubdtype(labels.dtype, np.integer):
            return (
                f"are {labels.dtype} {labels.shape}; expected integers {shape} for a {self.name} "
                f"model of {count} labels"
            )
        if labels.min() < 0 or labels.max() > largest:
            return f"go from {labels.min()} to {labels.max()}; expected 0 to {largest}"
        return None

    # --- training

    @abstractmethod
    def judge(
        self, probabilities: NDArray[np.float32], labels: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """(the probability of each true answer, whether it was given); for validation while
        training, with a threshold of 0.5 where there are thresholds."""

    @abstractmethod
    def probabilities(self, scores: Tensor) -> Tensor:
        """Probabilities [N, labels] of the network's scores."""

    @abstractmethod
    def targets(self, labels: Tensor, count: int, smoothing: float = 0.0) -> Tensor:
        """The probabilities to learn, float32 [N, count], drawn by ``smoothing`` towards all
        answers alike."""

    def answer_weights(self, labels: Tensor, count: int, rare: float) -> Tensor | None:
        """Weights of the answers by how rare each is among ``labels``, or None when ``rare`` is 0.
        A label that never occurs weighs as one that occurs once."""
        return self._weights(labels, count, rare) if rare else None

    @abstractmethod
    def _weights(self, labels: Tensor, count: int, rare: float) -> Tensor:
        """The weights, in the form that :meth:`loss_terms` takes."""

    @abstractmethod
    def loss_terms(self, scores: Tensor, targets: Tensor, weights: Tensor | None) -> list[Term]:
        """The terms of the cross-entropy, each [N, labels], of float32 scores [N, labels]."""

    @abstractmethod
    def losses(self, terms: Tensor) -> Tensor:
        """The losses whose mean is minimized, of the summed terms [N, labels]."""

    # --- reports

    def shown_label(self, before: NDArray[np.float32], after: NDArray[np.float32]) -> int | None:
        """The label by which a picture with these two rows of probabilities is described; None: by
        the answer as a whole."""
        return None

    @abstractmethod
    def moved(self, difference: NDArray[np.float32]) -> NDArray[np.float32]:
        """The movement of each answer, of differences of probabilities [N, labels]."""

    def confusion(
        self, probabilities: NDArray[np.float32], truth: NDArray[Any]
    ) -> tuple[tuple[int, ...], ...] | None:
        """Counts of each label (row) by answer (column); None where labels do not exclude
        each other."""
        return None

    @abstractmethod
    def figures_note(self, shipped: str) -> str:
        """A sentence on how the figures of a report were made; ``shipped`` is the metric that the
        thresholds that ship were chosen for."""

    def method(self, shipped: str, labels: int, undefined: Sequence[str]) -> str:
        """Return that note in full; ``undefined`` are the labels without an average precision."""
        return self.figures_note(shipped)
