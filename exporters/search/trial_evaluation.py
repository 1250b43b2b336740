"""The quality of a candidate of our own models on validation data: the gate's verdict and two finer
figures, from the probabilities of the shipped predictor."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate.gates import screen, tolerances_for
from exporters.evaluate.metrics import Thresholds
from exporters.evaluate.parity import compare, stream
from exporters.evaluate.parity_values import Assessment
from exporters.evaluate.probabilities import Floats
from exporters.evaluate.signal_to_noise import sqnr_db
from exporters.evaluate.tasks import LabelTask, label_task
from exporters.options import GateOptions
from exporters.quantize.calibration import spread
from runtime import Predictor
from runtime.spec import ModelSpec

_HALVES = (slice(0, None, 2), slice(1, None, 2))  # of the images: every other one


@dataclass(frozen=True)
class ValidationData:
    """The data that a search decides on; candidates are compared with FP32."""

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
        """Return data whose reference are the probabilities of this FP32 file."""
        data = cls(spec, images, labels, gate, np.zeros((0, len(spec.labels)), np.float32))
        return replace(data, reference=data.probabilities(fp32, "fp32", portable=False))

    def first(self, count: int) -> ValidationData:
        """Return the same of ``count`` images, evenly spread."""
        return replace(
            self,
            images=spread(self.images, count),
            labels=spread(self.labels, count),
            reference=spread(self.reference, count),
        )

    @cached_property
    def task(self) -> LabelTask:
        """The task, by which answers are judged."""
        return label_task(self.spec.task)

    @cached_property
    def thresholds(self) -> Thresholds:
        """The thresholds of FP32, one row for each image; None for a task without them."""
        return self._crosswise(self._chosen)

    def thresholds_of(self, probabilities: Floats) -> Thresholds:
        """Return those that a candidate with these probabilities would ship with, likewise."""
        return self._crosswise(
            [
                self.task.adjusted_thresholds(
                    probabilities[half], self.labels[half], chosen, self.gate.thresholds
                )
                for half, chosen in zip(_HALVES, self._chosen, strict=True)
            ]
        )

    @cached_property
    def _chosen(self) -> list[Thresholds]:
        """FP32's best thresholds [labels] on each half of the images."""
        return [
            self.task.best_thresholds(self.reference[half], self.labels[half], self.gate.thresholds)
            for half in _HALVES
        ]

    def _crosswise(self, chosen: list[Thresholds]) -> Thresholds:
        """Return thresholds [n, labels] that are chosen on every other image, for those between.

        Chosen on the images that they are judged on, FP32's thresholds would fit its own chance
        hits, and every candidate with other chance hits would seem to lose answers.
        """
        rows = np.empty((len(self.images), len(self.spec.labels)))
        for half, other in zip(_HALVES, reversed(chosen), strict=True):
            if other is None:
                return None
            rows[half] = other
        return rows

    def predictor(
        self, model: bytes, variant: str, *, portable: bool, threads: int | None = None
    ) -> Predictor:
        """Open the file as it would run on this CPU; its thresholds are not used here."""
        return Predictor.from_parts(
            self.spec,
            None,
            model,
            thresholds=self.task.default_thresholds(len(self.spec.labels)),
            variant=variant,
            portable=portable,
            device="cpu",
            threads=threads,
        )

    def probabilities(self, model: bytes, variant: str, portable: bool) -> Floats:
        """Return the predictor's probabilities of all images."""
        with self.predictor(model, variant, portable=portable) as predictor:
            return stream(predictor, self.images)

    def assess(self, model: bytes, variant: str, portable: bool) -> Assessment:
        """Judge a model file against FP32."""
        probabilities = self.probabilities(model, variant, portable)
        thresholds = self.thresholds_of(probabilities)
        parity = compare(
            self.task,
            self.reference,
            probabilities,
            self.labels,
            self.spec.labels,
            reference_thresholds=self.thresholds,
            candidate_thresholds=thresholds,
        )
        balanced = self.task.balanced_percent(probabilities, self.labels, thresholds)
        return self.task.assess_parity(
            parity,
            probabilities,
            self.labels,
            failures=screen(self.task, parity, self.gate, tolerances_for(variant)).failures,
            sqnr_db=sqnr_db(self.reference, probabilities),
            balanced_percent=None if balanced is None else float(balanced.mean()),
        )

    def assess_quickly(self, model: bytes) -> tuple[float, float]:
        """Return (cross entropy in nats, SQNR in dB)."""
        probabilities = self.probabilities(model, "int8", portable=False)
        loss = self.task.cross_entropy(probabilities, self.labels)
        return loss, sqnr_db(self.reference, probabilities)
