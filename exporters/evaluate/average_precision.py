"""Average precision: how well probabilities rank the images that have a label before those that do
not, at every threshold at once.

AP = sum over thresholds, from the highest down, of (R_n - R_n-1) * P_n, where P_n and R_n are
precision and recall when all images at or above the n-th distinct probability are taken; nothing
is interpolated. Images of equal probability are taken together, so their order does not matter.
Source: C. Manning, P. Raghavan, H. Schütze, "Introduction to Information Retrieval", 2008, ch. 8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate.probabilities import Floats


def average_precision(probabilities: Floats, labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the figure of each label, [labels], from probabilities and 0/1 labels [N, labels]; nan
    where no image has the label, since there is nothing to find then."""
    once = np.ones((len(labels), 1), np.uint8)
    rankings = [Ranking.of(*pair) for pair in zip(probabilities.T, labels.T, strict=True)]
    return np.array([ranking.average_precision(once)[0] for ranking in rankings])


@dataclass(frozen=True)
class Ranking:
    """The images by falling probability of one label: sorted once, then weighted many times."""

    order: NDArray[np.int32]  # [N], images, the most probable first
    positives: NDArray[np.int32]  # [P], places in ``order`` of images that have the label
    ends: NDArray[np.int32]  # [G], last places of groups of equal probability with such images
    hits: NDArray[np.int32]  # [G], how many of ``positives`` come up to that place

    @classmethod
    def of(cls, probabilities: Floats, truth: NDArray[np.integer]) -> Ranking:
        """Rank by probabilities and 0/1 labels [N]."""
        order = np.argsort(-probabilities, kind="stable")
        falling = probabilities[order]
        last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))  # of each group
        positives = np.flatnonzero(truth[order] == 1)
        ends = np.unique(last[np.searchsorted(last, positives)])
        hits = np.searchsorted(positives, ends, side="right")
        return cls(*(part.astype(np.int32) for part in (order, positives, ends, hits)))

    def average_precision(self, weights: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the figure for each column of ``weights`` [N, samples], how often an image counts
        in that sample; [samples], nan where the images with the label count zero times."""
        if not len(self.positives):
            return np.full(weights.shape[1], np.nan)
        ranked = weights[self.order]  # (N, samples)
        taken = np.cumsum(ranked, axis=0, dtype=np.int32)[self.ends]  # (G, samples)
        right = np.cumsum(ranked[self.positives], axis=0, dtype=np.int32)[self.hits - 1]
        gained = np.diff(right, axis=0, prepend=0)
        # where nothing is taken yet, nothing is gained either
        area = (gained * (right / np.maximum(taken, 1))).sum(axis=0)
        total = right[-1]
        return np.where(total > 0, area / np.maximum(total, 1), np.nan)
