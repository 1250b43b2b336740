"""The reference that candidates are judged by: FP32's own outputs, as the task that was stated or
guessed, with labels where FP32 knows them; and remarks on what was assumed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate.tasks import (
    TASKS,
    Bounds,
    Guess,
    LabelTask,
    guess,
    task_named,
    task_of_answers,
)
from exporters.foreign.agreement import Reference
from exporters.foreign.foreign_model import ForeignModel
from exporters.options import GateOptions
from pipeline.errors import DataError
from pipeline.quantize_file.calibration_data import ForeignData
from pipeline.quantize_file.options import QuantizeFileOptions

_OUTPUT_BYTES = 256_000_000  # of FP32 outputs that are kept to compare with
# Labels that FP32 itself does not know judge nothing, since a broken INT8 would be no worse: it has
# to be right in so many of the cases in which always giving the most frequent label is wrong.
_KNOWN = 0.2
# Without labels every changed answer counts as lost, right or wrong, so more may change.
MARGIN_LABELED, MARGIN_UNLABELED = 0.5, 1.0  # percentage points

Remarks = tuple[str, ...]


def reference_for(
    options: QuantizeFileOptions, foreign: ForeignModel, data: ForeignData
) -> tuple[Reference, Remarks]:
    """Compute the reference, and remarks on it."""
    outputs = _fp32_outputs(options, foreign, data)
    task, stated = _task(options, data, outputs)
    bounds = _bounds(options, MARGIN_UNLABELED)
    unlabeled = outputs.judged_as(task.task, bounds, None, None if stated else task.min_sqnr_db)
    remarks = () if stated else (_guess_remark(task),)
    labels, label_remarks = _usable_labels(data, unlabeled)
    if labels is None:
        return unlabeled, (*remarks, *label_remarks)
    labels = labels[: len(outputs.inputs)]
    # FP32 knows them: the task is not a guess any more
    labeled = outputs.judged_as(task.task, _bounds(options, MARGIN_LABELED), labels)
    right, most = labeled.accuracy(), float(np.bincount(labels).max() / len(labels))
    if right < most + _KNOWN * (1 - most):
        return unlabeled, (
            *remarks,
            f"the labels are NOT used: FP32 has {100 * right:.1f} % of them right, and answering "
            f"the most frequent one always, {100 * most:.1f} %. Are classes in the model's order?",
        )
    return labeled, (*label_remarks, f"FP32 has {100 * right:.2f} % of the labels right")


def _bounds(options: QuantizeFileOptions, usual_margin: float) -> Bounds:
    margin = usual_margin if options.margin is None else options.margin
    return Bounds(GateOptions(margin_points=margin), options.min_sqnr_db)


def _fp32_outputs(
    options: QuantizeFileOptions, foreign: ForeignModel, data: ForeignData
) -> Reference:
    """FP32's outputs for as many validation inputs as memory allows, in whole batches."""
    bounds, validation = _bounds(options, MARGIN_UNLABELED), data.validation

    def outputs_of(count: int) -> Reference:
        inputs = validation.first(count)
        return Reference.of_fp32(foreign.original, foreign.outputs, inputs, bounds)

    batch = foreign.input.batch or 1
    probe = outputs_of(min(-(-16 // batch) * batch, len(validation)))
    size = sum(value.nbytes for value in probe.values) // len(probe.inputs)
    if not size:
        raise DataError(
            f"the outputs {', '.join(probe.outputs)} are empty for the inputs in {options.data}; "
            "expected values to judge by. Is it the right data?"
        )
    count = min(len(validation), max(_OUTPUT_BYTES // size, len(probe.inputs)))
    return outputs_of(count // batch * batch)


def _task(
    options: QuantizeFileOptions, data: ForeignData, outputs: Reference
) -> tuple[Guess, bool]:
    """What the outputs are, and whether the user stated it: with --task, or with a --margin, which
    is for answers alone. Raises DataError where the statement does not fit them."""
    rows, shape = len(outputs.inputs), outputs.values[0].shape
    if options.task is None and options.margin is None:
        return guess(outputs.values, rows, _class_count(data, outputs)), False
    task = task_named(options.task) if options.task else task_of_answers(outputs.values)
    if not isinstance(task, LabelTask) and options.margin is not None:
        raise DataError(
            f"--margin is for answers, and these outputs are judged as {task.name}, by "
            "signal-to-noise. Leave it out and set --min-sqnr, or state what they are with --task."
        )
    if not task.fits(shape, rows):
        raise DataError(
            f"--task {task.name} does not fit output {outputs.outputs[0]!r} {list(shape)} of "
            f"{rows} inputs; expected one row of answers for each input, [n, k]. Leave --task out, "
            "or state another task."
        )
    return Guess(task.name, "as stated"), True


def _class_count(data: ForeignData, outputs: Reference) -> int | None:
    """The number of classes that the data has. Labels in an array may lack some, so there it is
    the model's, if they fit."""
    if data.labels is None:
        return None
    if data.folders:
        return len(data.folders)
    shape = outputs.values[0].shape
    fits = len(shape) > 1 and 0 <= int(data.labels.min()) <= int(data.labels.max()) < shape[1]
    return int(shape[1]) if fits else None


def _guess_remark(task: Guess) -> str:
    others = " or ".join(f"--task {name}" for name in TASKS if name != task.task)
    if not isinstance(TASKS[task.task], LabelTask):
        return (
            f"the outputs are judged as {task.task}: {task.reason}. If they are answers, state "
            f"{others}"
        )
    return (
        f"that the outputs are {task.task} IS A GUESS: {task.reason}. If they are points, "
        f"embeddings or other numbers, THE VERDICT IS WRONG: state {others}; if it is right, "
        f"--task {task.task}"
    )


def _usable_labels(
    data: ForeignData, unlabeled: Reference
) -> tuple[NDArray[np.int64] | None, Remarks]:
    """The labels where they can be the model's classes, and remarks on them."""
    labels, shape, task = data.labels, unlabeled.values[0].shape, unlabeled.task
    classes = shape[1] if len(shape) > 1 else 0
    if labels is None:
        return None, ()
    if data.folders and len(data.folders) != classes:
        return None, (
            f"labels are not used: {len(data.folders)} sub-folders, and the model has {classes} "
            "classes",
        )
    if not isinstance(task, LabelTask) or task.truth_shape(1, classes) != (1,):
        return None, (f"labels are not used: the outputs are {task.name}",)
    if data.folders:
        shown = ", ".join(f"{i} = {name}" for i, name in enumerate(data.folders[:10]))
        more = ", ..." if len(data.folders) > 10 else ""
        return labels, (f"sub-folders are the classes in sorted order: {shown}{more}",)
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(
            f"labels are {labels.min()} to {labels.max()}; expected 0 to {classes - 1} for "
            f"the model's {classes} classes."
        )
    return labels, ()


def judged_by(reference: Reference) -> str:
    """The criterion that candidates are judged by, with its bound."""
    labeled, guessed = reference.labels is not None, reference.guessed_db is not None
    return reference.task.criterion(reference.bounds, labeled, guessed)


def figure(reference: Reference) -> str:
    """Heading of the column with ``accuracy_percent``."""
    return reference.task.figure(reference.labels is not None)
