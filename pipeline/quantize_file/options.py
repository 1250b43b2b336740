"""The options of `quantize-onnx`, and the check that the data can meet them. Values only."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.errors import DataError

if TYPE_CHECKING:
    from pipeline.quantize_file.calibration_data import ForeignData

_CALIBRATION, _VALIDATION = 256, 500  # images, unless the user gives a number


@dataclass(frozen=True)
class PixelOptions:
    """The conversion of images to the model's input; None: inferred from the input's shape."""

    size: tuple[int, int] | None = None  # (height, width)
    layout: Literal["nchw", "nhwc"] | None = None
    mean: tuple[float, ...] | None = None  # of [0, 1]
    std: tuple[float, ...] | None = None
    color: Literal["rgb", "bgr"] = "rgb"


_PIXEL_KEYS = tuple(field.name for field in fields(PixelOptions))


@dataclass(frozen=True)
class QuantizeFileOptions:
    """The options of the command line."""

    model: Path
    data: Path
    out: Path
    minutes: float
    threads: int
    margin: float | None  # percentage points; None: the usual one, with or without labels
    min_sqnr_db: float
    task: str | None  # None: guessed from the outputs
    pixels: PixelOptions
    # The user's numbers are met or refused; None: fewer if the data has fewer
    calibration_images: int | None
    validation_images: int | None
    seed: int = 0

    @property
    def counts(self) -> tuple[int, int]:
        """Images to calibrate with, and to judge by."""
        return self.calibration_images or _CALIBRATION, self.validation_images or _VALIDATION

    @classmethod
    def of(cls, model: Path, data: Path, out: Path, **words: Any) -> QuantizeFileOptions:
        """Gather the options that the command line parsed."""
        pixels = PixelOptions(**{key: words.pop(key) for key in _PIXEL_KEYS})
        return cls(model, data, out, min_sqnr_db=words.pop("min_sqnr"), pixels=pixels, **words)


def check_counts(options: QuantizeFileOptions, data: ForeignData) -> None:
    """Raise DataError unless the requested numbers of images are met. What a fixed batch leaves
    over does not count, nor do copies, which the notes report."""
    # a folder has a digest for each image that was drawn, arrays have one or two
    drawn = max(len(data.digests) - len(data.calibration), len(data.validation))
    batch = data.validation.spec.batch or 1
    for option, requested, available in (
        ("--calibration-images", options.calibration_images, len(data.calibration)),
        ("--validation-images", options.validation_images, drawn),
    ):
        if requested is not None and available < max(requested // batch, 1) * batch:
            raise DataError(
                f"{option} {requested} cannot be met: {options.data} would leave "
                f"{len(data.calibration)} images to calibrate with and {len(data.validation)} to "
                f"judge by, and {options.counts[0]} and {options.counts[1]} are requested. Request "
                "fewer, or leave the option out: both parts are then as large as they can be."
            )


def check_pixel_options(options: QuantizeFileOptions, data: ForeignData) -> None:
    """Raise DataError for options about pixels where the inputs are not made of pixels."""
    if data.validation.form is not None:
        return
    usual = PixelOptions()
    given = [
        f"--{key}" for key in _PIXEL_KEYS if getattr(options.pixels, key) != getattr(usual, key)
    ]
    if given:
        raise DataError(
            f"{', '.join(given)} cannot be used: the inputs in {options.data} go into the model as "
            f"they are, without pixels in between. Leave {'it' if len(given) == 1 else 'them'} "
            "out, or give images, or uint8 pixels [n, height, width, channels]."
        )
