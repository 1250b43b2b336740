"""The comparison of two forms of a model, and its verdict, as values. Standard library only;
``parity.py`` measures and ``gates.py`` judges."""

from __future__ import annotations

from dataclasses import dataclass


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

    @property
    def lost_points(self) -> float:
        """Percentage points of accuracy that the candidate has fewer."""
        return 100 * (self.reference_accuracy - self.candidate_accuracy)


@dataclass(frozen=True)
class LabelParity:
    """One class (the images that truly are of it) or one attribute (all images)."""

    label: str
    pairs: Pairs


@dataclass(frozen=True)
class Parity:
    """The change from a reference to a candidate. All differences are of probabilities."""

    task: str  # as in ModelSpec
    images: int
    max_abs: float
    mean_abs: float
    p99_abs: float
    agreement: float  # share of equal answers; of attributes, over images and labels
    pairs: Pairs  # over all images; of attributes, over all images and labels
    labels: tuple[LabelParity, ...]
    # (right answers that the candidate has fewer in one image, how many such images), ascending:
    # of classes -1, 0, 1; of attributes -labels..labels. The gate's bound is computed from them.
    losses: tuple[tuple[int, int], ...]
    worst: tuple[tuple[int, float], ...]  # (image, its largest difference), worst first


@dataclass(frozen=True)
class Check:
    """One question of the gate, answered."""

    name: str  # "accuracy", "labels", or a metric of the tolerance table
    passed: bool
    value: float  # upper bound in points, smallest adjusted p, a difference, or decibels
    limit: float  # for ``value``
    text: str  # a clause with the numbers


@dataclass(frozen=True)
class Verdict:
    """The decision whether a variant may ship, with its reasons."""

    passed: bool
    checks: tuple[Check, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """The texts of all checks, the failed ones first."""
        return tuple(c.text for c in sorted(self.checks, key=lambda check: check.passed))

    @property
    def failures(self) -> tuple[str, ...]:
        """The texts of the failed checks."""
        return tuple(check.text for check in self.checks if not check.passed)


@dataclass(frozen=True)
class Assessment:
    """The figures of a model on validation data, against its FP32 form."""

    passed: bool  # the gate, as far as so many images can show it
    failures: tuple[str, ...]  # texts of the failed checks
    accuracy_percent: float  # of right answers; without labels, of answers equal to FP32's
    lost_points: float  # percentage points of it that FP32 has more
    loss: float  # mean cross entropy in nats, finer than accuracy
    sqnr_db: float  # of what outputs differ by from input to input; 200 when equal
    balanced_percent: float | None = None  # mean balanced accuracy of attributes
    worst_part: str | None = None  # of several channels or outputs: the one that ``sqnr_db`` is of


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
