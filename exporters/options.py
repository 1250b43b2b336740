"""The options of the exporters, as values. Standard library only, so that a recipe can be read and
checked without onnx or torch."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

_INT8_ID = re.compile(r"int8(-[a-z0-9.]+)*", re.ASCII)
_LONGEST_ID = 100  # characters: a file is named after it

Calibration = Literal["minmax", "entropy", "percentile", "mse"]  # how ranges are chosen
Scheme = Literal["u8s8-rr", "u8s8", "u8u8", "s8s8"]  # types of activations and weights

MOST_IMAGES = 4096  # in one batch of a proof: more say nothing new and may not fit into memory
OPSET = 18  # the newest that onnxruntime 1.15 reads, and the first with an antialiased Resize
IR_VERSION = 8  # likewise


class Strict:
    """Values whose reader, pydantic, refuses unknown keys and numbers that are not finite."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}


def _expect(name: str, value: object, fits: bool, expected: str) -> None:
    if not fits:
        raise ValueError(f"{name} = {value!r}; expected {expected}")


@dataclass(frozen=True)
class Tolerance:
    """A limit of the distance of probabilities from their reference, with its reason. Loosening one
    is a change of one line here."""

    metric: Literal["max_abs", "mean_abs", "p99_abs"]  # fields of ``Parity``
    limit: float  # of |difference of probabilities|, inclusive
    reason: str


TOLERANCES: dict[str, tuple[Tolerance, ...]] = {  # by precision; ``gates.py`` holds them
    "fp32": (
        Tolerance("max_abs", 1e-4, "float32 sums in another order; 2e-5 was measured"),
        Tolerance("mean_abs", 1e-5, "float32 sums in another order"),
    ),
    "fp16": (
        Tolerance("max_abs", 0.05, "11 bits of precision; 0.0015 was measured on digits"),
        Tolerance("mean_abs", 5e-4, "11 bits of precision; 4e-6 was measured on digits"),
    ),
    "int8": (
        Tolerance("p99_abs", 0.1, "8-bit tensors; 0.005 was measured on digits"),
        Tolerance("mean_abs", 0.02, "8-bit tensors; 2e-4 was measured on digits"),
        # no limit of max_abs: one image on the border may flip, and accuracy judges that
    ),
}


# Of outputs that are not labels: noise of a hundredth of the signal's power, a tenth of its
# amplitude. 8 bits leave most networks more, and an output that lost a channel or its scale is far
# below.
MIN_SQNR_DB = 20.0


@dataclass(frozen=True)
class ExportOptions(Strict):
    """The export of the trained network to ``fp32.onnx``."""

    batch_sizes: tuple[int, ...] = (1, 2, 7, 64)  # each is run to prove that the batch is dynamic

    def __post_init__(self) -> None:
        sizes = self.batch_sizes
        fits = bool(sizes) and all(1 <= size <= MOST_IMAGES for size in sizes)
        _expect("batch_sizes", sizes, fits, f"at least one, each from 1 to {MOST_IMAGES}")


@dataclass(frozen=True)
class Int8Options(Strict):
    """One static INT8 QDQ variant.

    ``reduce_range`` makes 7-bit weights: U8S8 with 8-bit ones saturates in the 16-bit pair sums
    of x86 kernels without VNNI (measured: output SNR fell from 35 to 17 dB).
    """

    id: str = "int8-u8s8-rr"
    activations: Literal["uint8", "int8"] = "uint8"
    weights: Literal["uint8", "int8"] = "int8"
    per_channel: bool = True
    reduce_range: bool = True
    calibration: Calibration = "minmax"
    percentile: float = 99.99  # calibration = "percentile": this share of the values is not clipped
    exclude_nodes: tuple[str, ...] = ()
    bias_correction: bool = False  # shift biases by the mean error of each channel

    @property
    def impossible(self) -> str | None:
        """The reason why no kernel multiplies these 8-bit types; None where one does."""
        if self.weights == "uint8" and self.activations == "int8":
            return (
                f"variant {self.id!r}: uint8 weights with int8 activations have no kernel in "
                "onnxruntime; choose weights = 'int8' or activations = 'uint8'"
            )
        return None

    def __post_init__(self) -> None:
        fits = 50 < self.percentile <= 100
        _expect("percentile", self.percentile, fits, "more than 50 and at most 100")


@dataclass(frozen=True)
class DynamicOptions(Strict):
    """One dynamic INT8 variant: the weights of fully connected layers in 8 bits, the range of
    their inputs computed at every call, everything else in float."""

    id: str = "int8-dynamic"
    weights: Literal["uint8", "int8"] = "int8"
    per_channel: bool = True
    reduce_range: bool = True


@dataclass(frozen=True)
class FineTuneOptions(Strict):
    """Quantization-aware fine-tuning of the trained network; all else is as in training."""

    epochs: int = 3  # 0: none; digits gained nearly all in the first one
    lr_factor: float = 0.05  # of train.lr; 0.02 and 0.1 did as well on digits
    calibration_images: int = 512  # of the train split, from which ranges are taken

    def __post_init__(self) -> None:
        _expect("epochs", self.epochs, self.epochs >= 0, "0 or more")
        _expect("lr_factor", self.lr_factor, self.lr_factor > 0, "more than 0")
        images = self.calibration_images
        _expect("calibration_images", images, images >= 1, "1 or more")


@dataclass(frozen=True)
class SearchOptions(Strict):
    """The INT8 variants that are tried, in a coarse-to-fine order; see ``search.py``.

    When the ``minutes`` are over, the variants so far are the result, marked incomplete.
    """

    minutes: float = 3.0  # wall time; 0: no search, only the variants that are listed
    threads: int = 1  # with which variants are timed
    # Activations and weights in letters: u8s8 has uint8 activations and int8 weights; -rr are
    # 7-bit weights. The first one is where finer steps begin.
    schemes: tuple[Scheme, ...] = ("u8s8-rr", "u8s8", "u8u8", "s8s8")
    per_tensor: bool = True  # also one scale for all channels of a layer
    calibrations: tuple[Calibration, ...] = ("percentile", "mse", "entropy")  # after "minmax"
    validation_images: int = 5_000  # at most so many of the validation split decide
    sensitivity_images: int = 256  # of these, for layers one at a time
    dynamic: bool = True  # where fully connected layers hold most weights
    float_depthwise: bool = True  # depthwise convolutions in float, where there are any
    bias_correction: bool = True
    mixed: bool = True  # when nothing passes: the fewest layers in float that make it pass
    fine_tune: FineTuneOptions = FineTuneOptions()  # when nothing post-training passes

    def __post_init__(self) -> None:
        _expect("minutes", self.minutes, self.minutes >= 0, "0 or more")
        _expect("schemes", self.schemes, bool(self.schemes), "at least one")
        for name in ("threads", "validation_images", "sensitivity_images"):
            count = getattr(self, name)
            _expect(name, count, count >= 1, "1 or more")


@dataclass(frozen=True)
class QuantizeOptions(Strict):
    """The variants to make besides ``fp32``: those listed, and those that a search finds."""

    fp16: bool = True
    calibration_images: int = 512  # drawn from the train split, for every variant
    int8: tuple[Int8Options, ...] = ()  # made, and judged on the test split, whatever is found
    search: SearchOptions = SearchOptions()

    def __post_init__(self) -> None:
        images = self.calibration_images
        _expect("calibration_images", images, images >= 1, "1 or more")
        if impossible := next(filter(None, (options.impossible for options in self.int8)), None):
            raise ValueError(impossible)
        ids = [options.id for options in self.int8]
        wrong = [
            name
            for name in ids
            if not _INT8_ID.fullmatch(name) or ids.count(name) > 1 or len(name) > _LONGEST_ID
        ]
        if wrong:
            raise ValueError(
                f"quantize.int8 has the ids {sorted(set(wrong))}; expected different ones that "
                "begin with int8, such as 'int8-mine'"
            )


@dataclass(frozen=True)
class GateOptions(Strict):
    """The conditions under which a variant is not inferior to PyTorch; see ``gates.py``."""

    margin_points: float = 0.15  # percentage points of accuracy (mean over labels) it may lose
    alpha: float = 0.05  # one-sided level of the bound, and family level of the per-label tests
    # what the threshold of a label is best at, on the validation split; for tasks with thresholds
    thresholds: Literal["balanced", "accuracy"] = "balanced"
    # Bounds of what may ship at all, measured on this machine; None: no bound.
    max_latency_ms: float | None = None  # p50 at batch 1
    max_size_bytes: int | None = None  # of the variant's file
    max_memory_mb: float | None = None  # resident with the variant open, interpreter included

    def __post_init__(self) -> None:
        margin = self.margin_points
        # the bound of a loss is above 0 even where no answer changes
        _expect("margin_points", margin, 0 < margin <= 100, "more than 0 and at most 100")
        _expect("alpha", self.alpha, 0 < self.alpha < 0.5, "more than 0 and less than 0.5")
        for name in ("max_latency_ms", "max_size_bytes", "max_memory_mb"):
            bound = getattr(self, name)
            _expect(name, bound, bound is None or bound > 0, "more than 0, or none")


@dataclass(frozen=True)
class PackageOptions(Strict):
    """The bundle's description of itself, and the choice of a device."""

    model_version: str = "1.0.0"
    license: str | None = None  # of the weights; None: Apache-2.0, or that of data that stays home
    # the order of device="auto"
    devices: tuple[Literal["cuda", "openvino", "cpu"], ...] = ("cuda", "cpu")
    # "one" holds all variants; "per-target" writes a bundle for each kind of device with its
    # default variant alone
    bundles: Literal["one", "per-target"] = "one"
    golden_raw: int = 3  # images before preprocessing; each is 50 to 120 KB of the bundle
    golden_images: int = 8  # test images in the model's own pixels
    notes: tuple[str, ...] = field(default=())  # lines for the model card

    def __post_init__(self) -> None:
        distinct = "cpu" in self.devices and len(set(self.devices)) == len(self.devices)
        _expect("devices", self.devices, distinct, "different ones, the cpu among them")
        for name in ("golden_raw", "golden_images"):
            count = getattr(self, name)
            _expect(name, count, 0 <= count <= MOST_IMAGES, f"0 to {MOST_IMAGES}")
        if self.golden_raw + self.golden_images == 0:
            raise ValueError("golden_raw and golden_images are both 0; expected one image at least")
