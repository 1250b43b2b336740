"""Figures of the variants: difference to PyTorch, latency, size, accuracy against latency."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipeline.report.charts.drawing import (
    INK,
    Chart,
    look,
    name_points,
    new_figure,
    plain_log,
    powers,
    styled,
    to_chart,
)
from pipeline.report.model import Report
from pipeline.report.text.summary import milliseconds, power, size
from pipeline.reports import Difference
from pipeline.timing.values import Speed

_FLOOR = 1e-9  # smaller differences, such as zero, are drawn here


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
        quantiles = _quantiles(variant.difference)
        axes.plot(
            [min(quantiles.values()), max(quantiles.values())], [y, y], color=color, lw=2, alpha=0.5
        )
        for name, value in quantiles.items():
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


CHARTS = (parity, latency, sizes, accuracy_latency)
