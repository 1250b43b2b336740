"""The reference that the candidates of someone else's model are judged by: the task of its outputs,
stated or guessed, and the labels, if FP32 knows them. With remarks for the user."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.options import GateOptions
from pipeline.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from exporters.evaluate.tasks import Guess
    from exporters.foreign.agreement import Reference
    from exporters.foreign.foreign_model import ForeignModel
    from pipeline.quantize_file.calibration_data import ForeignData

_OUTPUT_BYTES = 256_000_000  # of FP32 outputs that are kept to compare with
# Labels that FP32 itself does not know judge nothing, since a broken INT8 would be no worse: it has
# to be right in so many of the cases in which always giving the most frequent label is wrong.
_KNOWN = 0.2
# Without labels every changed answer counts as lost, right or wrong, so more may change.
MARGIN_LABELLED, MARGIN_UNLABELLED = 0.5, 1.0  # percentage points


@dataclass(frozen=True)
class StatedOutputs:
    """The user's statements about the outputs."""

    task: str | None  # None: not stated
    margin: float | None  # percentage points; None: one of the two above
    min_sqnr_db: float
    data: Path  # for messages


def reference_for(
    statement: StatedOutputs, foreign: ForeignModel, data: ForeignData
) -> tuple[Reference, tuple[str, ...]]:
    """Return the reference that candidates are judged by, and remarks about it for the user."""
    from exporters.evaluate.tasks import Bounds
    from exporters.foreign.agreement import Reference

    def bounds(labelled: bool) -> Bounds:
        margin = statement.margin
        if margin is None:
            margin = MARGIN_LABELLED if labelled else MARGIN_UNLABELLED
        return Bounds(GateOptions(margin_points=margin), statement.min_sqnr_db)

    def make(count: int) -> Reference:
        inputs = data.validation.first(count)
        outputs = foreign.outputs
        return Reference.of_fp32(foreign.original, outputs, inputs, bounds(False))

    batch = foreign.input.batch or 1
    probe = make(min(-(-16 // batch) * batch, len(data.validation)))
    size = sum(value.nbytes for value in probe.values) // len(probe.inputs)
    if not size:
        raise DataError(
            f"the outputs {', '.join(probe.outputs)} are empty for the inputs in {statement.data}; "
            "expected values to judge by. Is it the right data?"
        )
    count = min(len(data.validation), max(_OUTPUT_BYTES // max(size, 1), len(probe.inputs)))
    count = count // batch * batch
    values = make(count)
    outputs_task, stated = _task(statement, data, values)
    least = None if stated else outputs_task.min_sqnr_db
    unlabelled = values.judged_as(outputs_task.task, bounds(False), None, least)
    remarks = _stated_task(outputs_task, stated)
    labels, why = _usable(data, unlabelled)
    if labels is None:
        return unlabelled, (*remarks, *why)
    labels = labels[:count]
    labelled = values.judged_as(
        outputs_task.task, bounds(True), labels
    )  # FP32 knows them: no guess
    right, most = labelled.accuracy(), _most_frequent(labels)
    if right < most + _KNOWN * (1 - most):
        return unlabelled, (
            *remarks,
            f"the labels are NOT used: FP32 has {100 * right:.1f} % of them right, and answering "
            f"the most frequent one always, {100 * most:.1f} %. Are classes in the model's order?",
        )
    return labelled, (*why, f"FP32 has {100 * right:.2f} % of the labels right")


def _task(statement: StatedOutputs, data: ForeignData, values: Reference) -> tuple[Guess, bool]:
    """The task of the outputs, and whether the user stated it: with --task, or with a --margin,
    which only answers have. Raises DataError if the statement does not fit the outputs."""
    from exporters.evaluate.tasks import Guess, LabelTask, guess, task_named, task_of_answers

    rows, shape = len(values.inputs), values.values[0].shape
    if statement.task is None and statement.margin is None:
        return guess(values.values, rows, _classes(data, values)), False
    task = task_of_answers(values.values) if statement.task is None else task_named(statement.task)
    if not isinstance(task, LabelTask) and statement.margin is not None:
        raise DataError(
            f"--margin is for answers, and these outputs are judged as {task.name}, by "
            "signal-to-noise. Leave it out and set --min-sqnr, or state what they are with --task."
        )
    if not task.fits(shape, rows):
        raise DataError(
            f"--task {task.name} does not fit output {values.outputs[0]!r} {list(shape)} of {rows} "
            "inputs; expected one row of answers for each input, [n, k]. Leave --task out, or "
            "state another task."
        )
    return Guess(task.name, "as stated"), True


def _classes(data: ForeignData, values: Reference) -> int | None:
    """The number of classes: that of the data's folders or, for labels in an array, which may lack
    some classes, that of the model."""
    if data.labels is None:
        return None
    if data.folders:
        return len(data.folders)
    shape = values.values[0].shape
    fits = len(shape) > 1 and 0 <= int(data.labels.min()) <= int(data.labels.max()) < shape[1]
    return int(shape[1]) if fits else None


def _stated_task(guessed: Guess, stated: bool) -> tuple[str, ...]:
    if stated:
        return ()
    from exporters.evaluate.tasks import TASKS, LabelTask

    others = " or ".join(f"--task {name}" for name in TASKS if name != guessed.task)
    if not isinstance(TASKS[guessed.task], LabelTask):
        return (
            f"the outputs are judged as {guessed.task}: {guessed.reason}. If they are answers, "
            f"state {others}",
        )
    return (
        f"that the outputs are {guessed.task} IS A GUESS: {guessed.reason}. If they are points, "
        f"embeddings or other numbers, THE VERDICT IS WRONG: state {others}; if it is right, "
        f"--task {guessed.task}",
    )


def _most_frequent(labels: NDArray[np.int64]) -> float:
    """The share of the most frequent label."""
    import numpy as np

    return float(np.bincount(labels).max() / len(labels))


def _usable(
    data: ForeignData, probe: Reference
) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """The labels where they can be the model's classes, and what to say of them."""
    from exporters.evaluate.tasks import LabelTask

    labels, classes = data.labels, probe.values[0].shape[1] if probe.values[0].ndim > 1 else 0
    if labels is None:
        return None, ()
    if data.folders and len(data.folders) != classes:
        return None, (
            f"labels are not used: {len(data.folders)} sub-folders, and the model has {classes} "
            "classes",
        )
    if not isinstance(probe.task, LabelTask) or probe.task.truth_shape(1, classes) != (1,):
        return None, (f"labels are not used: the outputs are {probe.task.name}",)
    if not data.folders and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(
            f"labels go from {labels.min()} to {labels.max()}; expected 0 to {classes - 1} for "
            f"the model's {classes} classes."
        )
    if data.folders:
        shown = ", ".join(f"{i} = {name}" for i, name in enumerate(data.folders[:10]))
        more = ", ..." if len(data.folders) > 10 else ""
        return labels, (f"sub-folders are the classes in sorted order: {shown}{more}",)
    return labels, ()


def judged_by(reference: Reference) -> str:
    """Return the criterion that candidates are judged by, with its bound."""
    labelled, guessed = reference.labels is not None, reference.guessed_db is not None
    return reference.task.criterion(reference.bounds, labelled, guessed)


def figure(reference: Reference) -> str:
    """Heading of the column with ``accuracy_percent``."""
    return reference.task.figure(reference.labels is not None)
