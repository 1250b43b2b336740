"""Figures of the answers by label: confusion of classes, accuracy of each label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle

from pipeline.report.charts.drawing import (
    BLUE,
    GRAY,
    GRID,
    INK,
    RED,
    WIDTH,
    Chart,
    look,
    new_figure,
    short,
    styled,
    to_chart,
)
from pipeline.report.model import Report

_COUNTS_UP_TO = 20  # labels: larger confusion matrices are colors only
LABELS_SHOWN = 40  # the lowest ones; a table holds the rest


@styled
def confusion(report: Report) -> Chart | None:
    """Truth by answer; right answers blue, mistakes red, both by their share of the row."""
    if report.confusion is None:
        return None
    counts = np.asarray(report.confusion)  # [truth, answer]
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    labels, number = report.model.labels, len(counts)
    figure, axes = new_figure(WIDTH * 0.92)
    axes.grid(visible=False)
    patches = []
    for row, column in np.argwhere(counts):
        right = row == column
        # mistakes are few in 1000: the square root lets even one in a thousand be seen
        alpha = 0.55 * share[row, column] if right else 0.15 + 0.85 * share[row, column] ** 0.5
        color = BLUE if right else RED
        corner = (column - 0.48, row - 0.48)
        patches.append(Rectangle(corner, 0.96, 0.96, color=color, alpha=round(alpha, 2), lw=0))
        if number <= _COUNTS_UP_TO:
            text = f"{counts[row, column]:,}"
            axes.text(column, row, text, ha="center", va="center", fontsize=10)
    axes.add_collection(PatchCollection(patches, match_original=True))
    axes.set(xlim=(-0.5, number - 0.5), ylim=(number - 0.5, -0.5), aspect="equal")
    axes.set(xlabel="answer", ylabel="truth")
    _label_axis(axes, labels)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return to_chart(figure, "confusion", _confusion_words(counts, labels))


def _label_axis(axes: Axes, labels: Sequence[str]) -> None:
    step = max(math.ceil(len(labels) / 30), 1)
    ticks = range(0, len(labels), step)
    names = [short(labels[tick], 16) for tick in ticks]
    axes.set_yticks(ticks, names)
    axes.set_xticks(ticks, names, rotation=90 if max(map(len, names)) > 3 else 0)


def _confusion_words(counts: np.ndarray[Any, Any], labels: Sequence[str]) -> str:
    right, total = int(np.trace(counts)), int(counts.sum())
    mistakes = counts - np.diag(np.diag(counts))
    row, column = np.unravel_index(mistakes.argmax(), mistakes.shape)
    words = f"Confusion matrix of {total:,} test images, {right:,} on the diagonal."
    if mistakes[row, column]:
        words += (
            f" The commonest mistake: {labels[row]} taken for {labels[column]}, "
            f"{mistakes[row, column]} times."
        )
    return words


@styled
def per_label(report: Report) -> Chart | None:
    """Accuracy of each label: PyTorch, the default variant, and the majority baseline."""
    variant = report.default
    if variant is None or not variant.per_label:
        return None
    rows = sorted(variant.per_label, key=lambda row: row.variant_percent)[:LABELS_SHOWN]
    figure, axes = new_figure(1.1 + 0.27 * len(rows))
    y = range(len(rows))
    color, marker = look(variant.precision)
    # with scores the majority is next to accuracy at the thresholds chosen for accuracy
    base = [(i, None if report.scores else row.majority_percent) for i, row in enumerate(rows)]
    majority = [(percent, i) for i, percent in base if percent is not None]
    if majority:
        for percent, i in majority:
            axes.plot([percent, rows[i].variant_percent], [i, i], color=GRID, lw=3, zorder=1)
        axes.plot(*zip(*majority, strict=True), "|", ms=11, mew=2, color=GRAY, label="majority")
    axes.plot(
        [row.reference_percent for row in rows],
        y,
        "o",
        ms=9,
        mfc="none",
        mec=INK,
        mew=1.3,
        label="PyTorch",
    )
    axes.plot([row.variant_percent for row in rows], y, marker, ms=5, color=color, label=variant.id)
    axes.set_yticks(y, [short(row.label.replace("_", " "), 24) for row in rows])
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlabel("accuracy on the test split, %")
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside upper right", ncols=3)
    worst = rows[0]
    return to_chart(
        figure,
        "perlabel",
        f"Accuracy of {len(rows)} of {len(variant.per_label)} labels; the lowest is "
        f"{worst.label} with {worst.variant_percent:.2f} % "
        f"(PyTorch {worst.reference_percent:.2f} %).",
    )


CHARTS = (confusion, per_label)
