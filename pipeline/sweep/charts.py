"""Charts to choose from: accuracy against latency, file size or parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline.report.charts.drawing import (
    PAPER,
    Chart,
    best_steps,
    look,
    name_points,
    new_figure,
    plain_log,
    staircase,
    styled,
    to_chart,
)
from pipeline.report.text.summary import percent
from pipeline.sweep.result import Form, SweepResult

_AREA = 60.0  # square points of a mark on the front
_SMALLER = 34.0  # of others
_WIDE = 2.5  # times as much from the least to the most: beyond, the axis is logarithmic
_NAMED = 12  # names that fit next to their points


@styled
def latency(result: SweepResult) -> Chart | None:
    """Accuracy against latency at batch 1."""
    rows = [form for form in result.forms if form.latency_ms is not None]
    label = "latency of one image, ms of CPU time at one thread"
    return _forms(result, rows, lambda form: form.latency_ms or 0.0, label, "latency")


@styled
def size(result: SweepResult) -> Chart | None:
    """Accuracy against the size of the file."""
    label = "size of the file, kB"
    return _forms(result, result.forms, lambda form: form.size_bytes / 1000, label, "size")


@styled
def parameters(result: SweepResult) -> Chart | None:
    """Accuracy against parameters, where trials end with training and there are no files."""
    rows = [trial for trial in result.trials if trial.accuracy_percent is not None]
    if len(rows) < 2:
        return None
    figure, axes = new_figure(3.9)
    points = [((row.parameters or 0) / 1000, row.accuracy_percent or 0.0) for row in rows]
    _limits(axes, points)
    color, marker = look("fp32")
    for point in points:
        axes.scatter(*point, s=_AREA, color=color, marker=marker, ec=PAPER, lw=0.8, zorder=4)
    axes.set_xlabel("parameters, thousands")
    axes.set_ylabel("validation accuracy, %")
    named = [(*point, result.labels[row.name]) for point, row in zip(points, rows, strict=True)]
    name_points(axes, named[:_NAMED], points[_NAMED:])
    listed = "; ".join(f"{row.name}: {percent(row.accuracy_percent)}" for row in rows)
    return to_chart(figure, "parameters", f"Accuracy against parameters. {listed}.")


def _forms(
    result: SweepResult,
    rows: Sequence[Form],
    across: Callable[[Form], float],
    label: str,
    name: str,
) -> Chart | None:
    if len(rows) < 2:
        return None
    figure, axes = new_figure(3.9)
    points = [(across(form), form.accuracy_percent) for form in rows]
    best = best_steps(points)
    _limits(axes, points)
    staircase(axes, best)
    for form, point in zip(rows, points, strict=True):
        color, marker = look(form.precision)
        inside, edge = (color, PAPER) if form.on_front else (PAPER, color)
        area, order = (_AREA, 4) if form.on_front else (_SMALLER, 3)
        axes.scatter(*point, s=area, color=inside, marker=marker, ec=edge, lw=1.0, zorder=order)
    axes.set_xlabel(label)
    axes.set_ylabel(f"validation {result.metric}, %")
    pairs = list(zip(rows, points, strict=True))
    # only those on the line: the other files of a trial would repeat its name
    named = [pair for pair in pairs if pair[1] in best and pair[0].on_front][:_NAMED]
    name_points(
        axes,
        [(*point, result.labels[form.trial]) for form, point in named],
        [pair[1] for pair in pairs if pair not in named],
    )
    front = [pair for pair in pairs if pair[0].on_front]
    listed = "; ".join(f"{form.name}: {percent(y)} at {x:.3g}" for form, (x, y) in front)
    return to_chart(figure, name, f"{len(rows)} files, accuracy against {label}. Front: {listed}.")


def _limits(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    """Leave room for names on all sides. Up and to the left is better."""
    across, up = zip(*points, strict=True)
    if max(across) > _WIDE * min(across) > 0:
        axes.set_xscale("log")
        reach = (max(across) / min(across)) ** 0.1
        axes.set_xlim(min(across) / reach, max(across) * reach)
        plain_log(axes, "x")
    else:
        reach = 0.1 * (max(across) - min(across)) or 0.1 * max(across)
        axes.set_xlim(min(across) - reach, max(across) + reach)
    reach = 0.1 * max(max(up) - min(up), 0.1)
    axes.set_ylim(min(up) - reach, max(up) + 1.5 * reach)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
