"""Each attribute's accuracy with its interval, next to the majority answer and a baseline."""

from __future__ import annotations

from collections.abc import Sequence

from exporters.evaluate.score_values import LabelScore
from pipeline.report.charts.drawing import (
    BLUE,
    GRAY,
    GRID,
    INK,
    ORANGE,
    Chart,
    new_figure,
    short,
    styled,
    to_chart,
)
from pipeline.report.model import Report
from pipeline.report.text import scores as score_words
from pipeline.tasks import training_task

LABELS_SHOWN = 60  # those with the largest gains; the table holds all


@styled
def label_scores(report: Report) -> Chart | None:
    """Accuracy by attribute: a line from the majority answer to the model, whose interval is drawn
    across it; the baseline is a diamond."""
    if training_task(report.model.task).exclusive or report.shown_score is None:
        return None
    rows = score_words.labels(report)[:LABELS_SHOWN][::-1]  # the first one on top
    figure, axes = new_figure(1.1 + 0.27 * len(rows))
    baseline = _baseline(report, rows)
    for y, row in enumerate(rows):
        own, least = row.own.accuracy, row.majority
        if own is None or least is None:
            continue
        axes.plot([least, own.value], [y, y], color=GRID, lw=3, zorder=1)
        if own.low is not None and own.high is not None:
            axes.plot([own.low, own.high], [y, y], color=BLUE, lw=2, zorder=2)
            axes.plot([own.low, own.high], [y, y], "|", color=BLUE, ms=7, mew=1.2, zorder=2)
    axes.plot(
        *zip(*[(row.majority, y) for y, row in enumerate(rows)], strict=True),
        "|",
        ms=11,
        mew=2,
        color=GRAY,
        label="majority answer",
    )
    if baseline:
        name = report.scores.baseline.recipe if report.scores and report.scores.baseline else ""
        xs, ys = zip(*baseline, strict=True)
        axes.plot(xs, ys, "D", ms=6, mfc="none", mec=ORANGE, mew=1.3, label=name)
    points = [(row.own.accuracy.value, y) for y, row in enumerate(rows) if row.own.accuracy]
    axes.plot(*zip(*points, strict=True), "o", ms=5, color=BLUE, label=report.shown_score.id)
    axes.set_yticks(range(len(rows)), [short(row.label.replace("_", " "), 24) for row in rows])
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlabel("accuracy on the test split, %")
    axes.tick_params(axis="y", colors=INK)
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside upper right", ncols=3)
    return to_chart(figure, "labelscores", _alt(rows))


def _baseline(report: Report, rows: Sequence[LabelScore]) -> list[tuple[float, int]]:
    """(accuracy in percent, row) of the baseline, where it has the label."""
    other = report.scores.baseline if report.scores else None
    if other is None or other.score is None:
        return []
    accuracies = {row.label: row.own.accuracy for row in other.score.labels}
    return [
        (accuracy.value, y) for y, row in enumerate(rows) if (accuracy := accuracies.get(row.label))
    ]


def _alt(rows: Sequence[LabelScore]) -> str:
    gains = [(row.over_majority.value, row.label) for row in rows if row.over_majority]
    (most, first), (least, last) = max(gains), min(gains)
    return (
        f"Accuracy of {len(rows)} attributes with intervals. {first} gains most over the majority "
        f"answer, {most:.2f} points; {last} least, {least:.2f}."
    )


CHARTS = (label_scores,)
