"""ONNX files made elsewhere, with inputs and outputs of their own. A copy gets this project's names
for both, so that its layers can be traced, and its outputs become probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from exporters.errors import GraphError
from exporters.evaluate.parity import Model
from exporters.evaluate.probabilities import Floats, are_probabilities
from exporters.evaluate.tasks import LabelTask, task_of_answers
from exporters.foreign.model_inputs import InputSpec, input_of
from pipeline.datasets.arrays import UNREADABLE
from pipeline.errors import DataError
from pipeline.verify.images import Images
from runtime import ModelSpec
from runtime.spec import INPUT_NAME, OUTPUT_NAME

_CHUNK = 64  # inputs at a time, where the file leaves that free
_INPUTS, _LABELS = "inputs", "labels"  # names of arrays, as ``pipeline quantize-onnx`` reads them


def is_foreign(model: onnx.ModelProto) -> bool:
    """Return True unless the file maps uint8 ``images`` to ``probabilities``, as ours do."""
    inputs = [(v.name, v.type.tensor_type.elem_type) for v in _inputs(model)]
    outputs = [value.name for value in model.graph.output]
    return inputs != [(INPUT_NAME, TensorProto.UINT8)] or outputs != [OUTPUT_NAME]


def adapted(name: str, model: onnx.ModelProto) -> tuple[onnx.ModelProto, InputSpec | None]:
    """Return a copy under our names and its input; None instead where that input is pixels like
    ours. Raises DataError for several inputs or outputs, and for an input of another type."""
    for what, values in (("inputs", _inputs(model)), ("outputs", list(model.graph.output))):
        if len(values) != 1:
            raise DataError(
                f"{name} has {len(values)} {what} ({', '.join(v.name for v in values)}); expected "
                "one input, and one output [n, labels]. Cut the file with "
                "onnx.utils.extract_model, or compare recorded outputs (.npz) instead."
            )
    try:
        takes = input_of(model.graph)
    except GraphError as exc:
        raise DataError(f"{name} cannot be compared: {exc}") from exc
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph, (last,) = result.graph, result.graph.output
    if takes.name != INPUT_NAME:
        _inputs(result)[0].name = INPUT_NAME
        first = onnx.helper.make_node(
            "Identity", [INPUT_NAME], [takes.name], name=f"input {takes.name}"
        )
        graph.node.insert(0, first)
    if last.name != OUTPUT_NAME:
        graph.node.append(
            onnx.helper.make_node(
                "Identity", [last.name], [OUTPUT_NAME], name=f"output {last.name}"
            )
        )
        last.name = OUTPUT_NAME
    pixels = takes.dtype == "uint8" and takes.layouts() == ("nhwc",)
    return result, None if pixels else takes


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    constants = {tensor.name for tensor in model.graph.initializer}  # old files list them as inputs
    return [value for value in model.graph.input if value.name not in constants]


def same_inputs(a: InputSpec, b: InputSpec) -> bool:
    """Return True where both may take the same array; a free size fits any."""
    return (
        a.dtype == b.dtype
        and len(a.shape) == len(b.shape)
        and all(
            None in pair or pair[0] == pair[1]
            for pair in zip(a.shape[1:], b.shape[1:], strict=True)
        )
    )


def read_inputs(data: Path, files: Sequence[InputSpec]) -> Images:
    """Read the array ``inputs`` of a .npz, with ``labels`` if it has them, or that of a .npy;
    raises DataError unless each of ``files`` takes them."""
    expected = (
        f'Expected the inputs as the files take them, {files[0].text()}: a .npz with "{_INPUTS}" '
        f'[n, ...] and optional "{_LABELS}" [n], or a .npy.'
    )
    try:
        loaded = np.load(data, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            inputs, labels = loaded, None
        else:
            with loaded as archive:
                names = [n for n in (_INPUTS, *(f.name for f in files)) if n in archive.files]
                if not names:
                    raise DataError(f"{data} has the arrays {', '.join(archive.files)}. {expected}")
                inputs = archive[names[0]]
                labels = archive[_LABELS] if _LABELS in archive.files else None
    except UNREADABLE as exc:
        raise DataError(f"{data} cannot be read as arrays: {exc}. {expected}") from exc
    for file in files:
        _check(data, inputs, file)
    return Images(inputs, f"inputs of {data}", labels)


def _check(data: Path, inputs: NDArray[Any], file: InputSpec) -> None:
    given = InputSpec(_INPUTS, inputs.dtype.name, inputs.shape)
    if not inputs.shape or not same_inputs(given, file):
        raise DataError(
            f"{data}: inputs are {inputs.dtype} {list(inputs.shape)}; expected {file.text()}, the "
            "input of the file."
        )
    batch = file.batch or 1
    if not len(inputs) or len(inputs) % batch:
        raise DataError(
            f"{data} has {len(inputs)} inputs; expected at least one, and a multiple of {batch}: "
            f"the file takes {file.text()}."
        )


def outputs(
    name: str,
    model: Model,
    takes: InputSpec,
    inputs: NDArray[Any],
    step: Callable[[int, int], None],
) -> Floats:
    """Run a file on all inputs and return [n, labels]; raises DataError for other shapes."""
    chunk, rows = takes.batch or _CHUNK, []
    for start in range(0, len(inputs), chunk):
        batch = np.ascontiguousarray(inputs[start : start + chunk])
        values = np.asarray(model(batch), np.float32)
        if values.ndim < 2 or len(values) != len(batch) or any(n != 1 for n in values.shape[2:]):
            raise DataError(
                f"{name} returns {list(values.shape)} for {len(batch)} inputs; expected [n, "
                "labels]. Only answers are compared here; `pipeline quantize-onnx` judges other "
                "outputs."
            )
        rows.append(values.reshape(values.shape[:2]))
        step(start + len(batch), len(inputs))
    return np.concatenate(rows)


def as_probabilities(
    outputs_a: Floats, outputs_b: Floats, images: Images, numeric: NDArray[np.int64]
) -> tuple[Floats, Floats, ModelSpec, Images]:
    """Turn both outputs into probabilities, which tolerances are made for.

    Only the rows ``numeric`` of both are numbers. Returns the probabilities, a spec, and the images
    with a note of what was done. Raises DataError where the sides are of different kinds.
    """
    if outputs_a.shape != outputs_b.shape or outputs_a.ndim != 2:
        raise DataError(
            f"A has outputs of shape {outputs_a.shape}, B of {outputs_b.shape}; expected the same "
            "(inputs, labels)."
        )
    a, b = outputs_a[numeric], outputs_b[numeric]
    kind_a, kind_b = are_probabilities(a), are_probabilities(b)
    if kind_a != kind_b:
        raise DataError(
            f"A returns values from {a.min():.3g} to {a.max():.3g}, B from {b.min():.3g} to "
            f"{b.max():.3g}; expected probabilities on both sides, or logits on both. Let both "
            "files end in a softmax or sigmoid, or neither."
        )
    task = task_of_answers((np.clip(a, 0, 1) if kind_a else a,))
    if not isinstance(task, LabelTask):
        raise DataError(
            f"A returns {list(a.shape)}, from {a.min():.3g} to {a.max():.3g}; expected "
            "probabilities, or logits of at least two labels. `pipeline quantize-onnx` judges "
            "others."
        )
    source = images.source
    if not kind_a:
        source += f", {task.last_layer} of the outputs"
        if gap := float(np.abs(a - b).max(initial=0)):  # a softmax may hide it
            source += f", which themselves differ by up to {gap:.3g}"
        a, b = task.probabilities(a), task.probabilities(b)
    labels = images.labels
    if labels is not None and not _usable(labels, outputs_a.shape, task):
        labels, source = None, f"{source}, labels ignored: they do not fit {a.shape[1]} answers"
    names = tuple(map(str, range(a.shape[1])))
    # the size is a placeholder: the inputs need not be images
    spec = ModelSpec("unknown", task.name, 1, 1, 1, names)
    return (
        _among(a, numeric, len(outputs_a)),
        _among(b, numeric, len(outputs_b)),
        spec,
        replace(images, source=source, labels=labels),
    )


def _among(values: Floats, rows: NDArray[np.int64], count: int) -> Floats:
    """Place ``values`` at ``rows`` of ``count`` rows that are NaN otherwise."""
    result = np.full((count, values.shape[1]), np.nan, np.float32)
    result[rows] = values
    return result


def _usable(labels: NDArray[Any], shape: tuple[int, ...], task: LabelTask) -> bool:
    if labels.dtype.kind not in "iu" or labels.shape != task.truth_shape(*shape):
        return False
    return 0 <= int(labels.min()) <= int(labels.max()) <= task.largest_truth(shape[1])
