"""The verb quantize-onnx: an INT8 file for someone else's model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from exporters.options import MIN_SQNR_DB
from pipeline.cli.console import ConsoleObserver
from pipeline.cli.interrupts import imports_undisturbed, stop_requested
from pipeline.cli.tables import quantize_table
from pipeline.cli.terminal import as_pipeline_errors, console
from pipeline.errors import GateError, UnprovenError
from runtime.tasks import TASKS


def _numbers(_: click.Context, __: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    """Parse "0.485,0.456,0.406"."""
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = (math.nan,)
    if not all(map(math.isfinite, numbers)):
        raise click.BadParameter(f"{text!r}; expected numbers, separated by commas.")
    return numbers


def _size(_: click.Context, __: click.Parameter, text: str | None) -> tuple[int, int] | None:
    """Parse "224x224"."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.strip().isdecimal() and int(side) > 0 for side in sides):
        raise click.BadParameter(f"{text!r}; expected HEIGHTxWIDTH.")
    return int(sides[0]), int(sides[1])


def _no_nan(_: click.Context, __: click.Parameter, number: float | None) -> float | None:
    """Refuse what compares with nothing, which a range lets through."""
    if number is not None and math.isnan(number):
        raise click.BadParameter("nan; expected a number.")
    return number


@click.command("quantize-onnx")
@click.argument("model", metavar="MODEL.onnx", type=click.Path(path_type=Path))
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of images, whose sub-folders are classes, or an .npz or .npy of the model's own "
    "inputs.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the results.  [default: NAME-int8 in the current folder]",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    callback=_no_nan,
    default=10.0,
    show_default=True,
    help="Time limit of the search, in minutes.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Number of threads that models are timed with.",
)
@click.option(
    "--margin",
    type=click.FloatRange(0, 100, min_open=True),  # a bound of 0 is not below a margin of 0
    callback=_no_nan,
    help="Percentage points that may be lost: of accuracy, or without labels of answers equal to "
    "FP32's.  [default: 0.5 with labels, 1 without]",
)
@click.option(
    "--min-sqnr",
    type=click.FloatRange(0, 200),  # equal outputs have 200
    callback=_no_nan,
    default=MIN_SQNR_DB,
    show_default=True,
    help="Smallest signal-to-noise ratio of outputs that are values, in decibels. Signal is how an "
    "output differs from input to input.",
)
@click.option(
    "--task",
    type=click.Choice(list(TASKS)),
    help="What the outputs are.  [default: guessed from them]",
)
@click.option(
    "--size",
    metavar="HxW",
    callback=_size,
    help="Input size in pixels, for models with dynamic height and width.  [default: that of the "
    "model]",
)
@click.option(
    "--layout",
    type=click.Choice(["nchw", "nhwc"]),
    help="Order of the input's dimensions.  [default: from its shape]",
)
@click.option(
    "--mean",
    metavar="M[,M,M]",
    callback=_numbers,
    help="Mean that is subtracted from pixels scaled to [0, 1], for all channels or for each.  "
    "[default: 0]",
)
@click.option(
    "--std",
    metavar="S[,S,S]",
    callback=_numbers,
    help="Standard deviation that pixels are then divided by, for all channels or for each.  "
    "[default: 1]",
)
@click.option(
    "--color",
    type=click.Choice(["rgb", "bgr"]),
    default="rgb",
    show_default=True,
    help="Order of the input's color channels.",
)
@click.option(
    "--calibration-images",
    type=click.IntRange(16),
    help="Number of images used to calibrate activation ranges.  [default: 256, or fewer where "
    "--data has fewer]",
)
@click.option(
    "--validation-images",
    type=click.IntRange(16),
    help="Number of other images used to compare INT8 with FP32.  [default: 500, or fewer where "
    "--data has fewer]",
)
def quantize_onnx(model: Path, data: Path, out: Path | None, **options: Any) -> None:
    """Quantize someone else's ONNX file to INT8.

    Searches the fastest INT8 candidate and proves it against FP32. Ctrl-C stops the search with the
    best so far; the same command continues it.

    The exit code is 0 when a file was written that passes on the given images; the verdict says
    if they are too few to bound its loss below the margin. It is 3 when no candidate passes and
    the nearest was written as NAME.CANDIDATE.unproven.onnx, 1 when no file could be written, and
    2 when an option is wrong.
    """
    from pipeline.quantize_file.options import QuantizeFileOptions

    requested = QuantizeFileOptions.of(model, data, out or Path(f"{model.stem}-int8"), **options)
    screen = console()
    with (
        as_pipeline_errors(),
        imports_undisturbed(),
        ConsoleObserver(screen).watching() as observer,
        stop_requested() as stopped,
    ):
        from pipeline.quantize_file.run import quantize_file

        report = quantize_file(requested, observer, stopped)
    for part in quantize_table(report):
        screen.print(part, soft_wrap=isinstance(part, str))
    screen.print(f"  → {escape(str(requested.out))}/")
    if not report.files:
        raise GateError("no INT8 file was written; the verdict above says why.")
    if not report.passed:
        raise UnprovenError(
            f"{report.files[0].name} is not shown to be equal to FP32; the verdict above says why."
        )
