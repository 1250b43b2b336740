"""ONNX files that this project did not make, with inputs and outputs of their own. They get our
names for both, so that all the rest can look into them; what they put out becomes probabilities."""

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
    """Its interface is not ours: uint8 ``images`` to ``probabilities``."""
    inputs = [(v.name, v.type.tensor_type.elem_type) for v in _inputs(model)]
    outputs = [value.name for value in model.graph.output]
    return inputs != [(INPUT_NAME, TensorProto.UINT8)] or outputs != [OUTPUT_NAME]


def adapted(name: str, model: onnx.ModelProto) -> tuple[onnx.ModelProto, InputSpec | None]:
    """A copy under our names, and the input that it takes; None where that is pixels as ours,
    under whatever name. Raises DataError where it has several inputs or outputs, or an input of
    another type."""
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
    constants = {tensor.name for tensor in model.graph.initializer}  # old files list them as well
    return [value for value in model.graph.input if value.name not in constants]


def same_inputs(a: InputSpec, b: InputSpec) -> bool:
    """What one takes the other may take; a free size fits any."""
    return (
        a.dtype == b.dtype
        and len(a.shape) == len(b.shape)
        and all(
            None in pair or pair[0] == pair[1]
            for pair in zip(a.shape[1:], b.shape[1:], strict=True)
        )
    )


def read_inputs(data: Path, files: Sequence[InputSpec]) -> Images:
    """The ``inputs`` of an .npz with its ``labels`` if it has any, or those of an .npy; raises
    DataError when they are not what each of ``files`` takes."""
    wanted = files[0]
    expected = (
        f'Expected the inputs as the files take them, {wanted.text()}: a .npz with "{_INPUTS}" '
        f'[n, ...] and maybe "{_LABELS}" [n], or a .npy.'
    )
    try:
        found = np.load(data, allow_pickle=False)
        if isinstance(found, np.ndarray):
            inputs, labels = found, None
        else:
            with found as archive:
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
            f"{data}: inputs are {inputs.dtype} {list(inputs.shape)}; expected {file.text()}, "
            "what the file takes."
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
    """[n, labels] of whatever a file puts out; raises DataError for other shapes."""
    chunk, rows = takes.batch or _CHUNK, []
    for start in range(0, len(inputs), chunk):
        batch = np.ascontiguousarray(inputs[start : start + chunk])
        found = np.asarray(model(batch), np.float32)
        if found.ndim < 2 or len(found) != len(batch) or any(n != 1 for n in found.shape[2:]):
            raise DataError(
                f"{name} puts out {list(found.shape)} for {len(batch)} inputs; expected [n, "
                "labels]. Only answers are compared here; `pipeline quantize-onnx` judges other "
                "outputs."
            )
        rows.append(found.reshape(found.shape[:2]))
        step(start + len(batch), len(inputs))
    return np.concatenate(rows)


def as_probabilities(
    outputs_a: Floats, outputs_b: Floats, images: Images, known: NDArray[np.int64]
) -> tuple[Floats, Floats, ModelSpec, Images]:
    """Both outputs as probabilities, since tolerances are of those; what the answers are; and the
    images with words for what was done. Only the rows ``known`` of both are numbers. Raises
    DataError where they are not of the same kind."""
    if outputs_a.shape != outputs_b.shape or outputs_a.ndim != 2:
        raise DataError(
            f"A has outputs of shape {outputs_a.shape}, B of {outputs_b.shape}; expected the same "
            "(inputs, labels)."
        )
    a, b = outputs_a[known], outputs_b[known]
    kind_a, kind_b = are_probabilities(a), are_probabilities(b)
    if kind_a != kind_b:
        raise DataError(
            f"A puts out values from {a.min():.3g} to {a.max():.3g}, B from {b.min():.3g} to "
            f"{b.max():.3g}; expected probabilities on both sides, or logits on both. Compare "
            "files that both end in a softmax or sigmoid, or both do not."
        )
    task = task_of_answers((np.clip(a, 0, 1) if kind_a else a,))
    if not isinstance(task, LabelTask):
        raise DataError(
            f"A puts out {list(a.shape)}, from {a.min():.3g} to {a.max():.3g}; expected "
            "probabilities, or logits of at least two labels. `pipeline quantize-onnx` judges "
            "others."
        )
    source = images.source
    if not kind_a:
        source += f", {task.last_layer} of the outputs"
        if apart := float(np.abs(a - b).max(initial=0)):  # a softmax may hide it
            source += f", which themselves differ by up to {apart:.3g}"
        a, b = task.probabilities(a), task.probabilities(b)
    labels = images.labels
    if labels is not None and not _usable(labels, outputs_a.shape, task):
        labels, source = None, f"{source}, labels left out: they do not fit {a.shape[1]} answers"
    names = tuple(map(str, range(a.shape[1])))
    # Its size is nothing but a form: the images are of another kind.
    spec = ModelSpec("unknown", task.name, 1, 1, 1, names)
    return (
        _among(a, known, len(outputs_a)),
        _among(b, known, len(outputs_b)),
        spec,
        replace(images, source=source, labels=labels),
    )


def _among(values: Floats, known: NDArray[np.int64], count: int) -> Floats:
    """All rows, NaN where nothing is known."""
    result = np.full((count, values.shape[1]), np.nan, np.float32)
    result[known] = values
    return result


def _usable(labels: NDArray[Any], shape: tuple[int, ...], task: LabelTask) -> bool:
    if labels.dtype.kind not in "iu" or labels.shape != task.truth_shape(*shape):
        return False
    return 0 <= int(labels.min()) <= int(labels.max()) <= task.largest_truth(shape[1])
