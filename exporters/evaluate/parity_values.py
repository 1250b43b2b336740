"""How two forms of a model compare, as values: ``parity.py`` measures them. Loads no numpy."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.spec import Task


@dataclass(frozen=True)
class Pairs:
    """Answers of two models to the same questions, counted four ways."""

    both_right: int
    only_reference: int  # right before, wrong now
    only_candidate: int  # wrong before, right now
    both_wrong: int

    @property
    def total(self) -> int:
        """All answers."""
        return self.both_right + self.only_reference + self.only_candidate + self.both_wrong

    @property
    def reference_accuracy(self) -> float:
        """Share of right answers of the reference; nan without answers."""
        return _share(self.both_right + self.only_reference, self.total)

    @property
    def candidate_accuracy(self) -> float:
        """Share of right answers of the candidate; nan without answers."""
        return _share(self.both_right + self.only_candidate, self.total)


@dataclass(frozen=True)
class LabelParity:
    """One class (the images that truly are of it) or one attribute (all images)."""

    label: str
    pairs: Pairs


@dataclass(frozen=True)
class Parity:
    """What changed from a reference to a candidate. All differences are of probabilities."""

    task: Task
    images: int
    max_abs: float
    mean_abs: float
    p99_abs: float
    agreement: float  # share of equal answers (multi-label: over images and labels)
    pairs: Pairs  # over all images (multi-label: over all images and labels)
    labels: tuple[LabelParity, ...]
    # (right answers that the candidate has fewer in one image, how many such images), ascending:
    # for multi-class -1, 0, 1; for multi-label -labels..labels. What the gate's bound is made of.
    losses: tuple[tuple[int, int], ...]
    worst: tuple[tuple[int, float], ...]  # (image, its largest difference), worst first

    @property
    def reference_accuracy(self) -> float:
        """Share of right answers; multi-label: the mean over labels."""
        return self.pairs.reference_accuracy

    @property
    def candidate_accuracy(self) -> float:
        """Share of right answers; multi-label: the mean over labels."""
        return self.pairs.candidate_accuracy


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
