"""What may be asked of the exporters, as values. Standard library only, so that a recipe can be
read and checked without onnx or torch.

Every dataclass refuses unknown keys when a recipe is read (``__pydantic_config__``)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

_STRICT: dict[str, Any] = {"extra": "forbid"}

OPSET = 18  # the newest that onnxruntime 1.15 reads, and the first with an antialiased Resize
IR_VERSION = 8  # likewise


@dataclass(frozen=True)
class Tolerance:
    """How far probabilities may lie from their reference, and why so far. Loosening one is a
    change of one line here, with its reason."""

    metric: Literal["max_abs", "mean_abs", "p99_abs"]  # fields of ``parity.Parity``
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


@dataclass(frozen=True)
class ExportOptions:
    """How the trained network becomes ``fp32.onnx``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    batch_sizes: tuple[int, ...] = (1, 2, 7, 64)  # each is run to prove that the batch is dynamic


@dataclass(frozen=True)
class Int8Options:
    """One static INT8 QDQ variant.

    ``reduce_range`` makes 7-bit weights: U8S8 with 8-bit ones saturates in the 16-bit pair sums
    of x86 kernels without VNNI (measured: output SNR fell from 35 to 17 dB).
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    id: str = "int8-u8s8-rr"
    activations: Literal["uint8", "int8"] = "uint8"
    weights: Literal["uint8", "int8"] = "int8"
    per_channel: bool = True
    reduce_range: bool = True
    calibration: Literal["minmax", "entropy", "percentile"] = "minmax"
    calibration_images: int = 512  # drawn from the train split
    exclude_nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FineTuneOptions:
    """Quantization-aware fine-tuning of the trained network; all else is as in training."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    epochs: int = 3  # digits gained nearly all in the first one
    lr_factor: float = 0.05  # of train.lr; 0.02 and 0.1 did as well on digits
    calibration_images: int = 512  # of the train split, from which ranges are taken


@dataclass(frozen=True)
class QuantizeOptions:
    """The variants to make beside ``fp32``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    fp16: bool = True
    int8: tuple[Int8Options, ...] = (Int8Options(),)


@dataclass(frozen=True)
class GateOptions:
    """When a variant counts as not inferior to the PyTorch network; see ``gates.py``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    margin_points: float = 0.15  # percentage points of accuracy (mean over labels) it may lose
    alpha: float = 0.05  # one-sided level of the bound, and family level of the per-label tests
    # multi-label: what each label's threshold is best at, on the validation split
    thresholds: Literal["balanced", "accuracy"] = "balanced"


@dataclass(frozen=True)
class PackageOptions:
    """What the bundle says of itself and how a device chooses."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    model_version: str = "1.0.0"
    licence: str | None = None  # of the weights; None: Apache-2.0, or that of data that stays home
    # the order of device="auto"
    devices: tuple[Literal["cuda", "openvino", "cpu"], ...] = ("cuda", "cpu")
    golden_raw: int = 3  # images before preprocessing; each is 50 to 120 KB of the bundle
    golden_images: int = 8  # test images in the model's own pixels
    notes: tuple[str, ...] = field(default=())  # lines for the model card
