"""Figures of the report: training, accuracy, parity, latency and size. Takes the values of
``data.py`` and returns pictures with a text alternative; knows neither HTML around them nor what
is good or bad."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipeline.report.charts import scores as score_charts
from pipeline.report.charts import search as search_charts
from pipeline.report.charts.drawing import (
    BLUE,
    GRAY,
    GRID,
    INK,
    ORANGE,
    RED,
    WIDTH,
    Chart,
    look,
    name_points,
    new_figure,
    plain_log,
    powers,
    short,
    styled,
    to_chart,
)
from pipeline.report.model import Report
from pipeline.report.text.summary import milliseconds, power, size
from pipeline.reports import Difference
from pipeline.timing.values import Speed

_COUNTS_UP_TO = 20  # labels: larger confusion matrices are colours only
LABELS_SHOWN = 40  # the lowest ones; a table holds the rest
_FLOOR = 1e-9  # differences below it, zero among them, are drawn there


# --- training -------------------------------------------------------------------------------


@styled
def losses(report: Report) -> Chart | None:
    """Training and validation loss by epoch."""
    epochs = report.training.epochs
    if not epochs:
        return None
    figure, axes = new_figure(3.4)
    x = [epoch.epoch for epoch in epochs]
    axes.plot(x, [e.train_loss for e in epochs], color=BLUE, marker="o", ms=4, label="train")
    alt = f"Training loss falls from {epochs[0].train_loss:.3g} to {epochs[-1].train_loss:.3g}"
    known = [(e.epoch, e.val_loss) for e in epochs if e.val_loss is not None]
    if known:
        axes.plot(*zip(*known, strict=True), color=ORANGE, marker="D", ms=4, label="validation")
        alt += f", validation loss from {known[0][1]:.3g} to {known[-1][1]:.3g}"
    _epoch_axis(axes)
    if min(e.train_loss for e in epochs) > 0:
        axes.set_yscale("log")
        plain_log(axes, "y")
    axes.set_ylabel("loss")
    axes.legend(loc="upper right")
    return to_chart(figure, "losses", f"{alt}, in {len(epochs)} epochs.")


@styled
def validation_accuracy(report: Report) -> Chart | None:
    """Validation accuracy by epoch, the chosen epoch marked."""
    known = [
        (e.epoch, e.val_accuracy_percent)
        for e in report.training.epochs
        if e.val_accuracy_percent is not None
    ]
    if not known:
        return None
    figure, axes = new_figure(3.4)
    axes.plot(*zip(*known, strict=True), color=ORANGE, marker="D", ms=4)
    best = dict(known).get(report.training.best_epoch or -1)
    alt = f"Validation accuracy by epoch, {known[-1][1]:.2f} % after the last"
    if best is not None:
        epoch = report.training.best_epoch or 0
        axes.plot([epoch], [best], "o", ms=13, mfc="none", mec=INK, mew=1.4)
        late = epoch > known[len(known) // 2][0]
        axes.annotate(
            f"best {best:.2f} %",
            (epoch, best),
            (0, -13),
            textcoords="offset points",
            ha="center" if late else "left",
            va="top",
        )
        alt += f"; the checkpoint of epoch {epoch} with {best:.2f} % was kept"
    _epoch_axis(axes)
    axes.margins(y=0.15)
    axes.set_ylabel("validation accuracy, %")
    return to_chart(figure, "valacc", alt + ".")


def _epoch_axis(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
    axes.grid(axis="x", visible=False)


# --- accuracy -------------------------------------------------------------------------------


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
    # with scores the majority stands beside accuracy at the thresholds chosen for accuracy
    base = [(i, None if report.scores else row.majority_percent) for i, row in enumerate(rows)]
    known = [(percent, i) for i, percent in base if percent is not None]
    if known:
        for percent, i in known:
            axes.plot([percent, rows[i].variant_percent], [i, i], color=GRID, lw=3, zorder=1)
        axes.plot(*zip(*known, strict=True), "|", ms=11, mew=2, color=GRAY, label="majority")
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


# --- parity ---------------------------------------------------------------------------------


@styled
def parity(report: Report) -> Chart | None:
    """Absolute probability differences to PyTorch for each variant, on a log scale."""
    rows = list(reversed(report.variants))
    if not rows:
        return None
    figure, axes = new_figure(1.2 + 0.5 * len(rows))
    marks = {"p50": "|", "p90": "|", "p99": "d", "max": "o"}
    for y, variant in enumerate(rows):
        color = look(variant.precision)[0]
        found = _quantiles(variant.difference)
        axes.plot([min(found.values()), max(found.values())], [y, y], color=color, lw=2, alpha=0.5)
        for name, value in found.items():
            axes.plot([value], [y], marks[name], color=color, ms=8, mew=2 if name[1] in "59" else 1)
    axes.set_xscale("log")
    low = min(min(_quantiles(variant.difference).values()) for variant in rows)
    axes.set_xlim(low / 3, 2)
    powers(axes)
    axes.set_yticks(range(len(rows)), [variant.id for variant in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel("absolute difference of probabilities")
    axes.grid(axis="y", visible=False)
    worst = max(rows, key=lambda variant: variant.difference.max)
    alt = (
        "Absolute differences of probabilities to PyTorch on a log scale; the largest is "
        f"{power(worst.difference.max)} with {worst.id}."
    )
    return to_chart(figure, "parity", alt)


def _quantiles(difference: Difference) -> dict[str, float]:
    values = {name: getattr(difference, name) for name in ("p50", "p90", "p99", "max")}
    return {name: max(value, _FLOOR) for name, value in values.items() if value is not None}


# --- latency and size -----------------------------------------------------------------------


def _timed(report: Report) -> list[tuple[str, str, Speed]]:
    """(name, precision, speed) of all that was timed, PyTorch first."""
    rows = [("PyTorch eager", "torch", report.reference.speed)]
    rows += [(variant.id, variant.precision, variant.speed) for variant in report.variants]
    return [(name, precision, speed) for name, precision, speed in rows if speed is not None]


@styled
def latency(report: Report) -> Chart | None:
    """Median latency at batch 1, with a whisker to p90 and a mark at p99."""
    rows = list(reversed(_timed(report)))
    if not rows:
        return None
    figure, axes = new_figure(1.0 + 0.5 * len(rows))
    # a rare p99 far out must not squeeze the bars: it becomes an arrow at the edge
    edge = 1.45 * max(speed.p90_ms or speed.p50_ms for _, _, speed in rows)
    for y, (_, precision, speed) in enumerate(rows):
        axes.barh(y, speed.p50_ms, height=0.55, color=look(precision)[0], alpha=0.85)
        _whisker(axes, y, speed, edge)
    axes.set_xlim(0, edge)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.set_xlabel("milliseconds per image, batch 1")
    axes.grid(axis="y", visible=False)
    words = [f"{name} {milliseconds(speed.p50_ms)}" for name, _, speed in reversed(rows)]
    return to_chart(figure, "latency", "Median latency: " + ", ".join(words) + ".")


def _whisker(axes: Axes, y: float, speed: Speed, edge: float) -> None:
    end = speed.p50_ms
    if speed.p90_ms is not None:
        end = speed.p90_ms
        axes.plot([speed.p50_ms, end], [y, y], color=INK, lw=1.3)
        axes.plot([end], [y], "|", color=INK, ms=9, mew=1.3)
    if speed.p99_ms is not None:
        inside = speed.p99_ms <= 0.97 * edge
        x = speed.p99_ms if inside else 0.985 * edge
        axes.plot([end, x], [y, y], color=INK, lw=0.8, ls=":")
        axes.plot([x], [y], "d" if inside else ">", color=INK, ms=5)


@styled
def sizes(report: Report) -> Chart | None:
    """Size of each variant's file."""
    rows = list(reversed(report.variants))
    if not rows:
        return None
    figure, axes = new_figure(1.0 + 0.5 * len(rows))
    largest = max(variant.size_bytes for variant in rows)
    for y, variant in enumerate(rows):
        color = look(variant.precision)[0]
        axes.barh(y, variant.size_bytes, height=0.55, color=color, alpha=0.85)
        axes.text(variant.size_bytes + 0.015 * largest, y, size(variant.size_bytes), va="center")
    axes.set_xlim(0, 1.22 * largest)
    axes.set_yticks(range(len(rows)), [variant.id for variant in rows])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: size(int(x))))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.grid(axis="y", visible=False)
    words = [f"{variant.id} {size(variant.size_bytes)}" for variant in reversed(rows)]
    return to_chart(figure, "sizes", "File sizes: " + ", ".join(words) + ".")


@styled
def accuracy_latency(report: Report) -> Chart | None:
    """Accuracy against median latency: up and to the left is better."""
    accuracies = {variant.id: variant.accuracy_percent for variant in report.variants}
    accuracies["PyTorch eager"] = report.reference.accuracy_percent
    rows = _timed(report)
    if len(rows) < 2:
        return None
    figure, axes = new_figure(3.4)
    times = [speed.p50_ms for _, _, speed in rows]
    for name, precision, speed in rows:
        color, marker = look(precision)
        axes.plot([speed.p50_ms], [accuracies[name]], marker, color=color, ms=9)
    axes.set_xscale("log")
    axes.set_xlim(min(times) / 1.5, max(times) * 1.5)
    plain_log(axes, "x")
    # at least 0.4 points high, or else differences of a single image would look like cliffs
    low, high = min(accuracies.values()), max(accuracies.values())
    pad = max(0.25 * (high - low), 0.2 - 0.5 * (high - low), 0.05)
    axes.set_ylim(low - pad, high + pad)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.set_xlabel("milliseconds per image, median at batch 1")
    axes.set_ylabel("accuracy, %")
    name_points(axes, [(speed.p50_ms, accuracies[name], name) for name, _, speed in rows])
    points = [f"{n} {accuracies[n]:.2f} % at {milliseconds(s.p50_ms)}" for n, _, s in rows]
    return to_chart(figure, "tradeoff", "Accuracy against latency: " + ", ".join(points) + ".")


CHARTS: tuple[Callable[[Report], Chart | None], ...] = (
    losses,
    validation_accuracy,
    confusion,
    per_label,
    parity,
    latency,
    sizes,
    accuracy_latency,
    *score_charts.CHARTS,
    *search_charts.CHARTS,
)


def draw_all(report: Report) -> dict[str, Chart]:
    """Every chart that the report has data for, by the name of its function."""
    drawn = {draw.__name__: draw(report) for draw in CHARTS}
    return {name: chart for name, chart in drawn.items() if chart is not None}
