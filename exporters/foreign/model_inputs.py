"""The input of a foreign model, and images in the form that it takes. Sizes and layout are read off
the input's shape; scale and order of the colors cannot be, and have to be given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from exporters.errors import GraphError
from exporters.quantize.calibration import BATCH, ImageReader

Layout = Literal["nchw", "nhwc"]
DTYPES = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.UINT8: "uint8"}
_COLORS = (1, 3)


@dataclass(frozen=True)
class InputSpec:
    """The one input of a model."""

    name: str
    dtype: str  # "float32" or "uint8"
    shape: tuple[int | None, ...]  # None: free

    @property
    def batch(self) -> int | None:
        """Number of images that a call takes; None when it is free."""
        return self.shape[0] if self.shape else None

    def layouts(self) -> tuple[Layout, ...]:
        """Return the layouts in which the shape has 1 or 3 channels; () where there are none."""
        if len(self.shape) != 4:
            return ()
        axes: tuple[tuple[Layout, int], ...] = (("nchw", 1), ("nhwc", 3))
        return tuple(layout for layout, axis in axes if self.shape[axis] in _COLORS)

    def image_shape(self, layout: Layout) -> tuple[int | None, int | None, int]:
        """Return (height, width, channels)."""
        _, *rest = self.shape
        channels, height, width = rest if layout == "nchw" else (rest[2], rest[0], rest[1])
        assert channels is not None  # checked by layouts()
        return height, width, channels

    def text(self) -> str:
        """Return a text for messages: "'x' float32 [N, 3, 224, 224]"."""
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name!r} {self.dtype} [{sizes}]"


def input_of(graph: onnx.GraphProto) -> InputSpec:
    """Return the one input that is not a constant; raises GraphError when there are several, or of
    another type than float32 and uint8."""
    constants = {tensor.name for tensor in graph.initializer}
    values = [value for value in graph.input if value.name not in constants]
    if len(values) != 1:
        raise GraphError(
            f"the model has {len(values)} inputs ({', '.join(v.name for v in values)}); expected "
            "one. Make constants of the others before quantizing."
        )
    tensor = values[0].type.tensor_type
    if tensor.elem_type not in DTYPES:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        raise GraphError(
            f"the model's input {values[0].name!r} is {kind}; expected float32 or uint8."
        )
    if not tensor.HasField("shape"):
        raise GraphError(
            f"the model's input {values[0].name!r} has no shape; expected one such as "
            "[N, 3, 224, 224]. Declare it with onnx.tools.update_model_dims."
        )
    if any(dim.HasField("dim_value") and dim.dim_value == 0 for dim in tensor.shape.dim):
        raise GraphError(
            f"the model's input {values[0].name!r} has a size of 0, into which nothing fits. If "
            "that size is meant to be free, give it a name with onnx.tools.update_model_dims."
        )
    sizes = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim)
    return InputSpec(values[0].name, DTYPES[tensor.elem_type], sizes)


@dataclass(frozen=True)
class PixelForm:
    """The conversion of pixels, uint8 [h, w, c] in RGB, to a model's input."""

    layout: Layout
    dtype: str  # "float32": (pixel / 255 - mean) / std; "uint8": the pixel itself
    mean: tuple[float, ...] = (0.0,)  # one, or one for each channel
    std: tuple[float, ...] = (1.0,)
    color: Literal["rgb", "bgr"] = "rgb"

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """Convert [n, h, w, c] to the model's type, layout and order of colors."""
        values: NDArray[Any] = pixels[..., ::-1] if self.color == "bgr" else pixels
        if self.dtype == "float32":
            mean, std = (np.array(v, np.float32) for v in (self.mean, self.std))
            values = (values.astype(np.float32) / np.float32(255) - mean) / std
        if self.layout == "nchw":
            values = values.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(values)


@dataclass(frozen=True)
class ModelInputs:
    """Images as they are stored, returned in the model's form; a slice is converted on demand, so
    memory stays that of the pixels."""

    spec: InputSpec
    rows: NDArray[Any]  # pixels [n, h, w, c], or inputs [n, ...] as they are
    form: PixelForm | None = None  # None: rows are inputs already

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: slice | NDArray[np.int64]) -> NDArray[Any]:
        """Return the chosen ones as inputs [n, ...]."""
        rows = np.asarray(self.rows[chosen])
        return np.ascontiguousarray(rows) if self.form is None else self.form.apply(rows)

    def first(self, count: int) -> ModelInputs:
        """Return the first ``count`` of them."""
        return ModelInputs(self.spec, self.rows[:count], self.form)

    def of_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """Convert other pixels [n, h, w, c], such as extreme ones, in the same way."""
        return self.form.apply(pixels) if self.form else pixels

    def reader(self) -> ImageReader:
        """Return a reader of all of them for calibration, in batches that the model takes."""
        batch = self.spec.batch
        return ImageReader(
            self,
            np.arange(len(self)),
            name=self.spec.name,
            batch=batch or BATCH,
            multiple=batch or 1,
        )
