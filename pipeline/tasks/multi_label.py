"""multi-label: each label is an attribute that an image has or not. Labels are uint8 [N, labels] of
0 and 1; the network learns a sigmoid for each by binary cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.tasks.labels import LabelledTask

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from pipeline.tasks.labels import Term


class MultiLabel(LabelledTask):
    """A yes or no for each image and label."""

    name = "multi-label"
    label_axes = 2
    label_noun, label_nouns = "attribute", "attributes"
    answer_nouns = "attribute answers"
    exclusive = False
    label_smoothing = 0.0
    unlearnable_note = "Never or always true in the train split, so nothing can be learned"

    def label_shape(self, images: int, count: int) -> tuple[int, ...]:
        return (images, count)

    def largest_label(self, count: int) -> int:
        return 1

    def label_counts(self, labels: NDArray[Any], count: int) -> NDArray[np.int64]:
        import numpy as np

        return np.asarray(labels.sum(axis=0), np.int64)

    def strata(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        """The rarest label of each image, or the number of labels for an image without any.

        What is rare decides whether a split can be judged at all, so that is what is spread evenly
        (the idea of Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-label Data",
        2011, in one pass).
        """
        import numpy as np

        counts = np.append(labels.sum(axis=0, dtype=np.int64), len(labels) + 1)
        present = np.concatenate([labels, np.ones((len(labels), 1), np.uint8)], axis=1)
        rarity: NDArray[np.int64] = np.where(present == 1, counts, len(labels) + 2)
        return np.asarray(rarity.argmin(axis=1), np.int64)

    def unlearnable(self, labels: NDArray[Any], names: Sequence[str]) -> tuple[str, ...]:
        constant = labels.min(axis=0) == labels.max(axis=0)
        return tuple(name for name, same in zip(names, constant, strict=True) if same)

    def cases(self, images: int, total: int) -> int:
        return min(images, total - images)

    def answers(self, images: int, labels: int) -> int:
        return images * labels

    def judge(
        self, probabilities: NDArray[np.float32], labels: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        import numpy as np

        from exporters.evaluate.metrics import attribute_probabilities, correct

        right = correct(probabilities, labels, np.full(1, 0.5))
        return attribute_probabilities(probabilities, labels), right

    def probabilities(self, scores: Tensor) -> Tensor:
        return scores.sigmoid()

    def targets(self, labels: Tensor, count: int, smoothing: float = 0.0) -> Tensor:
        return labels.float() * (1 - smoothing) + smoothing / 2

    def _weights(self, labels: Tensor, count: int, rare: float) -> Tensor:
        """Weights of 0 and of 1 for each label, [2, count]."""
        import torch

        ones = labels.sum(0, dtype=torch.float64)
        shares = torch.stack([len(labels) - ones, ones]).clamp(min=1) / len(labels)  # (2, count)
        return ((1 / (2 * shares)) ** rare).float()

    def loss_terms(self, scores: Tensor, targets: Tensor, weights: Tensor | None) -> list[Term]:
        from torch.nn.functional import logsigmoid

        zero, one = (None, None) if weights is None else (weights[0], weights[1])
        return [(targets, logsigmoid(scores), one), (1 - targets, logsigmoid(-scores), zero)]

    def losses(self, terms: Tensor) -> Tensor:
        return terms.flatten()

    def shown_label(self, before: NDArray[np.float32], after: NDArray[np.float32]) -> int | None:
        return int(abs(before - after).argmax())

    def moved(self, difference: NDArray[np.float32]) -> NDArray[np.float32]:
        return difference

    def figures_note(self, shipped: str) -> str:
        return (
            "Thresholds: in each column those chosen for it on validation; above, and in what "
            f"ships, those chosen for {shipped}."
        )

    def method(self, shipped: str, labels: int, undefined: Sequence[str]) -> str:
        return (
            "Thresholds were chosen on the validation split: for accuracy those that are best at "
            "accuracy, for balanced accuracy those that are best at that; "
            f"what ships has those for {shipped}. Average precision needs no threshold. "
            f"Means are over {_defined(labels, undefined)}."
        )


def _defined(labels: int, undefined: Sequence[str]) -> str:
    if not undefined:
        return f"{labels} label{'s' if labels != 1 else ''}"
    return (
        f"{labels} labels, of average precision over {labels - len(undefined)} "
        f"(no test image has {', '.join(undefined)})"
    )


MULTI_LABEL = MultiLabel()
