"""multi-class: each image has exactly one of the labels. Labels are int64 [N], the number of the
class; the network learns a softmax by cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.tasks.labels import LabelledTask

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from pipeline.tasks.labels import Term


class MultiClass(LabelledTask):
    """One class for each image."""

    name = "multi-class"
    label_axes = 1
    label_noun, label_nouns = "class", "classes"
    answer_nouns = "answers"
    exclusive = True
    label_smoothing = 0.05
    unlearnable_note = "The train images have none of the class, so it can't be learned"

    def label_shape(self, images: int, count: int) -> tuple[int, ...]:
        return (images,)

    def largest_label(self, count: int) -> int:
        return count - 1

    def label_counts(self, labels: NDArray[Any], count: int) -> NDArray[np.int64]:
        import numpy as np

        return np.bincount(labels, minlength=count).astype(np.int64)

    def strata(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        return labels

    def unlearnable(self, labels: NDArray[Any], names: Sequence[str]) -> tuple[str, ...]:
        present = set(labels.tolist())
        return tuple(name for i, name in enumerate(names) if i not in present)

    def cases(self, images: int, total: int) -> int:
        return images

    def answers(self, images: int, labels: int) -> int:
        return images

    def judge(
        self, probabilities: NDArray[np.float32], labels: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        from exporters.evaluate.metrics import class_probabilities, correct

        return class_probabilities(probabilities, labels), correct(probabilities, labels, None)

    def probabilities(self, scores: Tensor) -> Tensor:
        return scores.softmax(1)

    def targets(self, labels: Tensor, count: int, smoothing: float = 0.0) -> Tensor:
        from torch.nn.functional import one_hot

        return one_hot(labels, count).float() * (1 - smoothing) + smoothing / count

    def _weights(self, labels: Tensor, count: int, rare: float) -> Tensor:
        """One weight for each class, [1, count]."""
        import torch

        shares = torch.bincount(labels, minlength=count).double().clamp(min=1) / len(labels)
        return ((1 / (count * shares)) ** rare).float().view(1, count)

    def loss_terms(self, scores: Tensor, targets: Tensor, weights: Tensor | None) -> list[Term]:
        """One term: only the true class counts."""
        return [(targets, scores.log_softmax(dim=1), weights)]

    def losses(self, terms: Tensor) -> Tensor:
        return terms.sum(1)

    def moved(self, difference: NDArray[np.float32]) -> NDArray[np.float32]:
        moved: NDArray[np.float32] = difference.max(axis=1)
        return moved

    def confusion(
        self, probabilities: NDArray[np.float32], truth: NDArray[Any]
    ) -> tuple[tuple[int, ...], ...] | None:
        import numpy as np

        classes = probabilities.shape[1]
        matrix = np.zeros((classes, classes), np.int64)
        np.add.at(matrix, (truth, probabilities.argmax(axis=1)), 1)
        return tuple(map(tuple, matrix.tolist()))

    def figures_note(self, shipped: str) -> str:
        return "Balanced accuracy is the mean of the classes' recalls."


MULTI_CLASS = MultiClass()
