"""Figures of training: loss and validation accuracy by epoch."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline.report.charts.drawing import (
    BLUE,
    INK,
    ORANGE,
    Chart,
    new_figure,
    plain_log,
    styled,
    to_chart,
)
from pipeline.report.model import Report


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
    measured = [(e.epoch, e.val_loss) for e in epochs if e.val_loss is not None]
    if measured:
        axes.plot(*zip(*measured, strict=True), color=ORANGE, marker="D", ms=4, label="validation")
        alt += f", validation loss from {measured[0][1]:.3g} to {measured[-1][1]:.3g}"
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
    measured = [
        (e.epoch, e.val_accuracy_percent)
        for e in report.training.epochs
        if e.val_accuracy_percent is not None
    ]
    if not measured:
        return None
    figure, axes = new_figure(3.4)
    axes.plot(*zip(*measured, strict=True), color=ORANGE, marker="D", ms=4)
    best = dict(measured).get(report.training.best_epoch or -1)
    alt = f"Validation accuracy by epoch, {measured[-1][1]:.2f} % after the last"
    if best is not None:
        epoch = report.training.best_epoch or 0
        axes.plot([epoch], [best], "o", ms=13, mfc="none", mec=INK, mew=1.4)
        late = epoch > measured[len(measured) // 2][0]
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


CHARTS = (losses, validation_accuracy)
