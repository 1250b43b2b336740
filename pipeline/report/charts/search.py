"""Figures of the search: all candidates, and the layers in which the chosen one loses accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from exporters.search.explanation import Clipping, Explanation
from exporters.search.result import SearchResult
from exporters.search.trial import Trial
from pipeline.report.charts.drawing import (
    BLUE,
    GRAY,
    GRID,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    RED,
    Chart,
    best_steps,
    blank_figure,
    look,
    name_points,
    new_figure,
    plain_log,
    short,
    short_path,
    staircase,
    styled,
    to_chart,
)
from pipeline.report.model import Report
from pipeline.report.text.summary import count, percent, points, share

LAYERS_SHOWN = 16
ACTIVATIONS_SHOWN = 6
CHANGES_SHOWN = 20
_AREA = 150.0  # square points of FP32's mark; others in proportion to their files
_SMALLEST = 14.0


# --- what was tried -------------------------------------------------------------------------


@styled
def tried(report: Report) -> Chart | None:
    """Accuracy lost against latency of every trial; area is file size, a line joins the front."""
    search = report.search
    rows = _timed(search)
    if search is None or len(rows) < 2:
        return None
    figure, axes = new_figure(3.9)
    front = [row for row in rows if row.id in search.front]
    edge = _limits(axes, rows, _margin(report))
    # as in the search, more right answers than FP32's are luck and count as none lost
    steps = best_steps([(_latency(row), max(_lost(row), 0.0)) for row in front], sign=-1)
    if steps:
        staircase(axes, steps)
    largest = max(row.size_bytes for row in rows)
    for row in sorted(rows, key=lambda row: row.id in search.front):
        _mark(axes, row, edge, on_front=row.id in search.front, largest=largest)
    axes.set_xlabel("latency at batch 1, FP32 = 1")
    axes.set_ylabel("accuracy lost, points")
    named = [row for row in rows if row.id in search.chosen and _lost(row) <= edge]
    name_points(
        axes,
        [(_latency(row), _lost(row), row.id) for row in named],
        [(_latency(row), min(_lost(row), edge)) for row in rows if row not in named],
    )
    losses = (
        f"{row.id} loses {points(_lost(row))} points at {_latency(row):.2f} of FP32's latency"
        for row in front
    )
    alt = f"{len(rows)} candidates; on the front: {', '.join(losses)}."
    return to_chart(figure, "tried", alt)


def _mark(axes: Axes, row: Trial, edge: float, *, on_front: bool, largest: int) -> None:
    color, marker = look(row.precision)
    point = ([_latency(row)], [min(_lost(row), edge)])
    size = max(_AREA * row.size_bytes / largest, _SMALLEST)
    if _lost(row) > edge:
        axes.scatter(*point, s=40, color=RED, marker="v", zorder=3)
    elif not row.passed:
        axes.scatter(*point, s=45, color=RED, marker="x", zorder=3)
    elif on_front:
        axes.scatter(*point, s=size, color=color, marker=marker, ec=PAPER, lw=0.8, zorder=4)
    else:
        axes.scatter(*point, s=size, color=PAPER, marker=marker, ec=color, lw=1.2, zorder=3)


def _timed(search: SearchResult | None) -> list[Trial]:
    return [row for row in (search.trials if search else ()) if row.assessment and row.speed]


def _latency(row: Trial) -> float:
    """Latency relative to FP32 in the same rounds, which decides the front; milliseconds of
    different rounds would be noisier."""
    assert row.speed is not None
    return 1 / row.speed.speedup


def _lost(row: Trial) -> float:
    assert row.assessment is not None
    return row.assessment.lost_points


def _margin(report: Report) -> float | None:
    gate = report.recipe.get("gate")
    margin = gate.get("margin_points") if isinstance(gate, dict) else None
    return float(margin) if isinstance(margin, int | float) else None


def _limits(axes: Axes, rows: Sequence[Trial], margin: float | None) -> float:
    """Up and to the left is better. Returns the most lost points that are drawn to scale: a
    candidate that lost far more would squeeze all others, and becomes an arrow at the edge."""
    passed = [_lost(row) for row in rows if row.passed]
    lowest = min(*passed, 0.0) if passed else 0.0
    edge = max(1.3 * max([*passed, 0.0]), 1.5 * (margin or 0.0), 0.1)
    inside = [_lost(row) for row in rows if _lost(row) <= edge]
    reach = max([*inside, margin or 0.0]) if len(inside) == len(rows) else edge
    pad = 0.09 * (reach - lowest) + 0.005
    axes.set_ylim(reach + pad, lowest - 2 * pad)  # room for names
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    times = [_latency(row) for row in rows]
    if max(times) / min(times) > 4:
        axes.set_xscale("log")
        axes.set_xlim(min(times) / 1.3, max(times) * 1.3)
        plain_log(axes, "x")
    else:
        spread = max(max(times) - min(times), 0.2)
        axes.set_xlim(min(times) - 0.12 * spread, max(times) + 0.12 * spread)
    if margin:
        axes.axhline(margin, color=RED, lw=0.9, ls=(0, (4, 3)), zorder=1)
        axes.annotate(
            f"the gate's margin, {margin:g}",
            (0.995, margin),
            (0, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="bottom",
            color=MUTED,
            fontsize=9.5,
        )
    return edge


# --- losses by layer ------------------------------------------------------------------------


@styled
def layers(report: Report) -> Chart | None:
    """Signal to noise of layers, and the decibels regained when one alone stays float."""
    explanation = _explanation(report)
    if explanation is None or not explanation.damage:
        return None
    rows = explanation.damage[:LAYERS_SHOWN]
    noise = {row.node: row for row in explanation.noise}
    figure = blank_figure(1.35 + 0.29 * len(rows))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.15, 1))
    y = np.arange(len(rows))
    weights = [noise[row.node].weight_sqnr_db if row.node in noise else np.nan for row in rows]
    output = [noise[row.node].sqnr_db if row.node in noise else np.nan for row in rows]
    left.plot(_finite(weights), y, "o", color=MUTED, mfc="none", ms=8, label="weights")
    left.plot(_finite(output), y, "D", color=ORANGE, ms=6, label="output")
    left.set_yticks(y, [short_path(row.node, 22) for row in rows])
    left.set_ylim(len(rows) - 0.4, -0.6)
    left.set_xlabel("signal to noise, dB")
    gained = [row.sqnr_gained_db for row in rows]
    right.barh(y, gained, 0.5, color=[ORANGE if gain > 0 else GRAY for gain in gained], alpha=0.85)
    right.axvline(0, color=GRAY, lw=0.9)
    right.set_xlabel("regained in float, dB")
    for axes in (left, right):
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    figure.legend(loc="outside upper left", ncols=2, handletextpad=0.3, columnspacing=1.4)
    worst = rows[0]
    alt = (
        f"{len(rows)} layers by the signal to noise regained when each alone stays float; "
        f"{worst.node} gives back {worst.sqnr_gained_db:.1f} dB."
    )
    return to_chart(figure, "layers", alt)


def _finite(values: Sequence[float]) -> NDArray[np.float64]:
    """Decibels, with NaN for the 200 of layers in float, which have no noise to draw."""
    decibels = np.asarray(values, np.float64)
    return np.where(decibels < 199, decibels, np.nan)


@styled
def activations(report: Report) -> Chart | None:
    """Histograms of the activations that use their 8 bits worst, and the range of these."""
    explanation = _explanation(report)
    rows = _distinct(explanation.clippings)[:ACTIVATIONS_SHOWN] if explanation else []
    if not rows:
        return None
    height = (len(rows) + 1) // 2
    figure = blank_figure(0.2 + 1.9 * height)
    grid = figure.subplots(height, 2, squeeze=False)
    for axes, row in zip(grid.flat, rows, strict=False):
        _histogram(axes, row)
    for axes in grid.flat[len(rows) :]:
        axes.set_visible(False)
    clips = (f"{row.tensor} clips {share(row.clipped)} of its values" for row in rows)
    return to_chart(figure, "activations", "Histograms of activations: " + ", ".join(clips) + ".")


def _distinct(rows: Sequence[Clipping]) -> list[Clipping]:
    """Drop tensors that are a reshaped copy of another one."""
    kept: dict[Clipping, Clipping] = {}
    for row in rows:
        kept.setdefault(replace(row, tensor=""), row)
    return list(kept.values())


def _histogram(axes: Axes, row: Clipping) -> None:
    heights = np.log10(1 + np.asarray(row.counts, np.float64))  # long tails are what matters
    edges = np.linspace(row.lowest, max(row.highest, row.lowest + 1e-9), len(heights) + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    inside = (middles >= row.low) & (middles <= row.high)
    axes.axvspan(row.low, row.high, color=GRID, alpha=0.55, lw=0)
    for chosen, color in ((inside, ORANGE), (~inside, RED)):
        if heights[chosen].any():
            axes.stairs(
                np.where(chosen, heights, 0), edges, fill=True, color=color, alpha=0.85, lw=0
            )
    low, high = min(row.low, row.lowest), max(row.high, row.highest)
    pad = 0.03 * (high - low)
    axes.set_xlim(low - pad, high + pad)
    axes.set_ylim(0, 1.08 * max(heights.max(), 1e-9))
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.set_title(
        f"{short_path(row.tensor, 30)}\n",
        loc="left",
        fontsize=10.5,
        pad=3,
        color=INK,
        linespacing=1.25,
    )
    used = f"uses {percent(100 * row.used_levels, 0)}, clips {share(row.clipped)}"
    axes.text(0, 1.03, used, transform=axes.transAxes, fontsize=9.5, color=MUTED, va="bottom")


@styled
def label_changes(report: Report) -> Chart | None:
    """Answers that each label lost and won against PyTorch on the test split."""
    variant = report.int8
    changed = [
        (row.label, row.lost, row.won)
        for row in (variant.per_label if variant else ())
        if row.lost is not None and row.won is not None and row.lost + row.won > 0
    ]
    if variant is None or not changed:
        return None
    rows = sorted(changed, key=lambda row: (row[2] - row[1], -row[1]))
    if len(rows) > CHANGES_SHOWN:  # those with the most changes
        most = sorted(rows, key=lambda row: -(row[1] + row[2]))[:CHANGES_SHOWN]
        rows = [row for row in rows if row in most]
    figure, axes = new_figure(1.0 + 0.27 * len(rows))
    y = np.arange(len(rows))
    lost, won = (np.array([row[column] for row in rows]) for column in (1, 2))
    axes.barh(y, -lost, 0.55, color=RED, alpha=0.85)
    axes.barh(y, won, 0.55, color=BLUE, alpha=0.85)
    reach = max(lost.max(), won.max(), 5)  # a single answer has a short bar
    for values, side in ((lost, -1), (won, 1)):
        for height, value in zip(y.tolist(), values.tolist(), strict=True):
            if value:
                axes.text(
                    side * (value + 0.025 * reach),
                    height,
                    count(value),
                    ha="left" if side > 0 else "right",
                    va="center",
                    fontsize=9.5,
                    color=MUTED,
                )
    axes.axvline(0, color=GRAY, lw=0.9)
    axes.set_yticks(y, [short(row[0].replace("_", " "), 22) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(-1.15 * reach, 1.15 * reach)
    axes.set_xticks([])
    axes.set_xlabel("answers lost   |   answers won")
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.spines["left"].set_visible(False)
    changes = (f"{name} {was} lost and {now} won" for name, was, now in rows[:3])
    alt = f"Changed answers of {variant.id}: {', '.join(changes)}."
    return to_chart(figure, "changes", alt)


def _explanation(report: Report) -> Explanation | None:
    return report.search.explanation if report.search else None


CHARTS: tuple[Callable[[Report], Chart | None], ...] = (tried, layers, activations, label_changes)
