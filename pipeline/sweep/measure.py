"""Results of a trial's stages, and the speed of its files next to those of all others. Accuracy is
measured on validation images: a test split that decides a choice no longer gives an unbiased
estimate."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from exporters.evaluate.parity_values import Assessment
from pipeline.engine.store import Store
from pipeline.reports import JudgedVariant, QuantizeReport, ValidateReport
from pipeline.sweep.result import Form

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipeline.timing.measure import Run

_SECONDS = 0.3  # for each file: six turns of 50 ms
_IMAGES = 64


@dataclass(frozen=True)
class DataFacts:
    """The data that accuracies were measured on."""

    task: str = ""  # as in ModelSpec; empty: no trial has data yet
    validation_images: int = 0
    synthetic: bool = False


def data_of(stores: Sequence[Store]) -> DataFacts:
    """Facts of the first finished data stage."""
    from pipeline.datasets.arrays import open_dataset

    for store in stores:
        if store.record("data") is not None:
            info = open_dataset(store.folder("data")).info
            return DataFacts(info.task, info.counts["val"], info.synthetic)
    return DataFacts()


def forms_of(trial: str, store: Store, balanced: bool) -> tuple[Form, ...]:
    """The files that a finished quantize stage chose, with their balanced accuracy or their plain
    one; empty without one."""
    quantize = store.report("quantize", QuantizeReport)
    validate = store.report("validate", ValidateReport)
    if quantize is None:
        return ()
    variants = validate.variants if validate else ()
    tested = {variant.id: _tested(variant, balanced) for variant in variants}
    return tuple(
        Form(
            trial=trial,
            id=row.id,
            precision=row.precision,
            portable=row.portable,
            accuracy_percent=_accuracy(row.assessment, balanced),
            size_bytes=row.size_bytes,
            test_accuracy_percent=tested.get(row.id),
        )
        for row in quantize.search.trials
        if row.id in quantize.search.chosen and row.assessment is not None and row.passed
    )


def _accuracy(assessment: Assessment, balanced: bool) -> float:
    if balanced and assessment.balanced_percent is not None:
        return assessment.balanced_percent
    return assessment.accuracy_percent


def _tested(variant: JudgedVariant, balanced: bool) -> float:
    if balanced and variant.balanced_percent is not None:
        return statistics.fmean(variant.balanced_percent)
    return variant.accuracy_percent


def time_forms(
    stores: Mapping[str, Store],
    forms: tuple[Form, ...],
    on_step: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> dict[str, Form]:
    """The forms with their latencies, by name: all of them in turns, at batch 1 and one thread, by
    the predictor that ships, on validation images of their own size. ``stores`` are by trial."""
    import numpy as np

    from pipeline.timing.measure import TimingOptions, measure_all

    with ExitStack() as stack:
        runs = {form.name: _run(stores[form.trial], form, stack) for form in forms}
        if not runs:
            return {}
        timings = measure_all(
            runs,
            np.arange(_IMAGES, dtype=np.uint8),
            TimingOptions(seconds=_SECONDS, batch=1),
            on_step=on_step,
        )
    return {
        form.name: replace(
            form,
            latency_ms=timings[form.name].cpu_ms,
            wall_p50_ms=timings[form.name].latency.p50_ms,
        )
        for form in forms
    }


def _run(store: Store, form: Form, stack: ExitStack) -> Run:
    """A callable from the number of an image to its probabilities: trials differ in the size of
    their images, so that a measurement passes them the number of an image."""
    from exporters.evaluate.tasks import label_task
    from pipeline.datasets.arrays import open_dataset
    from runtime import Predictor

    report = store.report("quantize", QuantizeReport)
    assert report is not None  # the form was read from it
    spec = report.spec
    thresholds = label_task(spec.task).default_thresholds(len(spec.labels))
    predictor = stack.enter_context(
        Predictor.from_parts(
            spec,
            None,
            store.folder("quantize") / f"{form.id}.onnx",
            thresholds=thresholds,
            variant=form.id,
            portable=form.portable,
            device="cpu",
            threads=1,
        )
    )
    images = open_dataset(store.folder("data")).val.images
    batches = [images[i % len(images)][None].copy() for i in range(_IMAGES)]

    def run(number: NDArray[np.uint8]) -> Any:
        return predictor(batches[number[0]])

    return run
