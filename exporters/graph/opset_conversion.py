"""An old ONNX file -> the same model as files are written now: a recent opset, no local functions,
weights that are not inputs. Each step adds what it did to ``changes``.

``foreign/equality.py`` proves that answers stay the same."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.inliner
from onnx import numpy_helper, version_converter

from exporters.errors import GraphError
from exporters.graph import onnx_file
from exporters.graph.walk import Graph, all_nodes, drop_attributes

MIN_OPSET = 13  # the first with a QuantizeLinear that has an axis
_RESIZE_SAYS = 11  # the first in which a Resize says where pixels are


def without_functions(model: onnx.ModelProto, changes: list[str]) -> onnx.ModelProto:
    """Return the model with its local functions written out."""
    if not model.functions:
        return model
    changes.append(f"{len(model.functions)} local functions written out")
    return onnx.inliner.inline_local_functions(model)


def raised(model: onnx.ModelProto, path: Path, changes: list[str]) -> onnx.ModelProto:
    """Return a copy with an opset of at least ``MIN_OPSET``; raises GraphError where ONNX's
    converter fails."""
    opset = onnx_file.opsets(model).get("", 0)
    if opset >= MIN_OPSET:
        return onnx_file.copied(model)
    try:
        result: onnx.ModelProto = version_converter.convert_version(model, MIN_OPSET)
    except Exception as exc:  # the converter raises RuntimeError and more
        raise GraphError(
            f"{path} has opset {opset}, and INT8 needs {MIN_OPSET}; ONNX's own converter fails: "
            f"{exc}. Export the network again with opset {MIN_OPSET} or later."
        ) from exc
    if opset < _RESIZE_SAYS:
        _resize_as_before(result)
    changes.append(f"opset raised from {opset} to {MIN_OPSET}")
    return result


def _resize_as_before(model: onnx.ModelProto) -> None:
    """Make a Resize (or Upsample) of before opset 11 count from the corners of pixels, in place: it
    could not say so, and ONNX's converter leaves it the later default, their centers.

    The nearest neighbor follows onnxruntime's rule of these versions: the one before when a
    picture grows, the one after when it shrinks.
    """
    constants = Graph(model)
    for node in all_nodes(model.graph.node):
        if node.op_type != "Resize" or node.domain:
            continue
        scales = constants.array(node.input[2]) if len(node.input) > 2 else None
        if scales is None and len(node.input) > 2:
            maker = constants.producer(node.input[2])
            if maker is not None and maker.op_type == "Constant":
                scales = numpy_helper.to_array(maker.attribute[0].t)
        shrinks = scales is not None and scales.size and float(scales.min()) < 1
        values = {
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "ceil" if shrinks else "floor",
        }
        drop_attributes(node, *values)
        node.attribute.extend(onnx.helper.make_attribute(*row) for row in values.items())


def without_constant_inputs(model: onnx.ModelProto, changes: list[str]) -> None:
    """Take the weights off the list of inputs, in place: old files have them there, as values that
    a caller may replace, and then nothing can be folded."""
    constants = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in constants]
    gone = len(model.graph.input) - len(kept)
    if gone:
        del model.graph.input[:]
        model.graph.input.extend(kept)
        changes.append(f"{gone} weights are no longer listed as inputs")
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)
