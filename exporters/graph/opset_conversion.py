"""An ONNX file as somebody once wrote it -> the same model as files are written now: one opset, no
functions of its own, weights that are no inputs. Each step says in ``changes`` what it did.

``foreign_model.py`` proves that answers stay the same."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.inliner
from onnx import numpy_helper, version_converter

from exporters.errors import GraphError
from exporters.graph import foreign_file, onnx_file
from exporters.graph.walk import Graph

MIN_OPSET = 13  # the first with a QuantizeLinear that has an axis
_RESIZE_SAYS = 11  # the first in which a Resize says where pixels are


def without_functions(model: onnx.ModelProto, changes: list[str]) -> onnx.ModelProto:
    """The model with its local functions written out."""
    if not model.functions:
        return model
    changes.append(f"{len(model.functions)} local functions written out")
    return onnx.inliner.inline_local_functions(model)


def raised(model: onnx.ModelProto, path: Path, changes: list[str]) -> onnx.ModelProto:
    """A copy with an opset of at least ``MIN_OPSET``; raises GraphError where it cannot be."""
    opset = onnx_file.opsets(model).get("", 0)
    if opset >= MIN_OPSET:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return copy
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
    """Before opset 11 a Resize (or Upsample) had no word for where pixels are, and meant their
    corners; ONNX's converter leaves it the later default, their centers. In place.

    Which neighbor is the nearest is onnxruntime's rule of these versions: the one before when a
    picture grows, the one behind when it shrinks.
    """
    constants = Graph(model)
    for node in foreign_file.all_nodes(model.graph):
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
        kept = [entry for entry in node.attribute if entry.name not in values]
        del node.attribute[:]
        node.attribute.extend(kept)
        node.attribute.extend(onnx.helper.make_attribute(*row) for row in values.items())


def without_constant_inputs(model: onnx.ModelProto, changes: list[str]) -> None:
    """Old files list their weights among the inputs, as values that a caller may replace; then
    nothing can be folded."""
    constants = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in constants]
    gone = len(model.graph.input) - len(kept)
    if gone:
        del model.graph.input[:]
        model.graph.input.extend(kept)
        changes.append(f"{gone} weights are no longer listed as inputs")
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)
