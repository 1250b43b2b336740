"""How good is a form of our own models on validation data? The gate's questions and two finer
numbers, from probabilities that the shipped predictor gives."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate.gates import screen, tolerances_for
from exporters.evaluate.metrics import (
    Floats,
    adjusted_thresholds,
    balanced_accuracy,
    best_thresholds,
    decide,
)
from exporters.evaluate.parity import Thresholds, compare, stream
from exporters.evaluate.parity_values import Assessment
from exporters.evaluate.signal_to_noise import sqnr_db
from exporters.options import GateOptions
from exporters.quantize.calibration import spread
from runtime import Predictor
from runtime.spec import ModelSpec

_HALVES = (slice(0, None, 2), slice(1, None, 2))  # of the images: every other one
_SMALLEST = 1e-7  # probability: a float softmax may give 0, whose logarithm is infinite


@dataclass(frozen=True)
class ValidationData:
    """What a search decides on; the reference is FP32."""

    spec: ModelSpec
    images: NDArray[np.uint8]  # [n, h, w, c]
    labels: NDArray[np.integer]  # [n], or 0/1 [n, labels]
    gate: GateOptions
    reference: Floats = field(repr=False)  # FP32's probabilities [n, labels]

    @classmethod
    def of_fp32(
        cls,
        fp32: bytes,
        spec: ModelSpec,
        images: NDArray[np.uint8],
        labels: NDArray[np.integer],
        gate: GateOptions,
    ) -> ValidationData:
        """With the probabilities of this FP32 file as reference."""
        data = cls(spec, images, labels, gate, np.zeros((0, len(spec.labels)), np.float32))
        return replace(data, reference=data.probabilities(fp32, "fp32", portable=False))

    def first(self, count: int) -> ValidationData:
        """The same of ``count`` images, evenly spread."""
        return replace(
            self,
            images=spread(self.images, count),
            labels=spread(self.labels, count),
            reference=spread(self.reference, count),
        )

    @cached_property
    def thresholds(self) -> Thresholds:
        """Those of FP32, one row for each image; None for multi-class."""
        if self.spec.task == "multi-class":
            return None
        return self._crosswise(self._chosen)

    def thresholds_of(self, probabilities: Floats) -> Thresholds:
        """Those that a form with these probabilities would ship with, likewise."""
        if self.thresholds is None:
            return None
        return self._crosswise(
            [
                adjusted_thresholds(
                    probabilities[half], self.labels[half], chosen, self.gate.thresholds
                )
                for half, chosen in zip(_HALVES, self._chosen, strict=True)
            ]
        )

    @cached_property
    def _chosen(self) -> list[NDArray[np.float64]]:
        """FP32's best thresholds [labels] on each half of the images."""
        return [
            best_thresholds(self.reference[half], self.labels[half], self.gate.thresholds)
            for half in _HALVES
        ]

    def _crosswise(self, chosen: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Thresholds [n, labels] that are chosen on every other image, for those between them.

        Chosen on the very images that they are judged on, FP32's thresholds would fit its own
        chance hits, and every other form would seem to lose answers by having hits of its own.
        """
        rows = np.empty((len(self.images), len(self.spec.labels)))
        for half, elsewhere in zip(_HALVES, reversed(chosen), strict=True):
            rows[half] = elsewhere
        return rows

    def predictor(
        self, model: bytes, variant: str, *, portable: bool, threads: int | None = None
    ) -> Predictor:
        """The file as it would run on this CPU; multi-label thresholds are not looked at here."""
        multi_label = self.spec.task == "multi-label"
        return Predictor.from_parts(
            self.spec,
            None,
            model,
            thresholds=(0.5,) * len(self.spec.labels) if multi_label else None,
            variant=variant,
            portable=portable,
            device="cpu",
            threads=threads,
        )

    def probabilities(self, model: bytes, variant: str, portable: bool) -> Floats:
        """What the predictor makes of all images."""
        with self.predictor(model, variant, portable=portable) as predictor:
            return stream(predictor, self.images)

    def assess(self, model: bytes, variant: str, portable: bool) -> Assessment:
        """Hold a model file against FP32."""
        found = self.probabilities(model, variant, portable)
        thresholds = self.thresholds_of(found)
        parity = compare(
            self.reference,
            found,
            self.labels,
            self.spec,
            reference_thresholds=self.thresholds,
            candidate_thresholds=thresholds,
        )
        verdict = screen(parity, self.gate, tolerances_for(variant))
        return Assessment(
            passed=verdict.passed,
            failures=verdict.failures,
            accuracy_percent=100 * parity.candidate_accuracy,
            lost_points=100 * (parity.reference_accuracy - parity.candidate_accuracy),
            loss=cross_entropy(found, self.labels),
            sqnr_db=sqnr_db(self.reference, found),
            balanced_percent=self._balanced(found, thresholds),
        )

    def _balanced(self, found: Floats, thresholds: Thresholds) -> float | None:
        if thresholds is None:
            return None
        return 100 * float(balanced_accuracy(decide(found, thresholds), self.labels).mean())

    def assess_quickly(self, model: bytes) -> tuple[float, float]:
        """(cross entropy in nats, SQNR in dB)."""
        found = self.probabilities(model, "int8", portable=False)
        return cross_entropy(found, self.labels), sqnr_db(self.reference, found)


def cross_entropy(probabilities: Floats, labels: NDArray[np.integer]) -> float:
    """Mean negative log-likelihood in nats, of classes [n] or of 0/1 labels [n, labels]."""
    if labels.ndim == 1:
        chosen = probabilities[np.arange(len(labels)), labels]
    else:
        chosen = np.where(labels == 1, probabilities, 1 - probabilities)
    return float(-np.log(np.maximum(chosen, _SMALLEST, dtype=np.float64)).mean())
