"""The reports of the stages -> one ``Report``, with the confusion matrix and the images that
``images.py`` picks from the probabilities of the test split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from statistics import fmean

from exporters.evaluate.probabilities import Floats
from exporters.evaluate.score_values import Scores
from pipeline.datasets.arrays import SPLITS, Dataset
from pipeline.recipe import Recipe
from pipeline.report.images import Answers, flips, worst_images
from pipeline.report.model import (
    BundleReport,
    DataSummary,
    LabelRow,
    ModelReport,
    ReferenceReport,
    Report,
    StageRow,
    TrainingReport,
    VariantReport,
)
from pipeline.report.places import without_places
from pipeline.reports import (
    BenchmarkReport,
    JudgedVariant,
    QuantizeReport,
    Reference,
    TrainReport,
    ValidateReport,
)
from pipeline.tasks import training_task
from runtime.spec import ModelSpec


@dataclass(frozen=True)
class Run:
    """A run up to the benchmark: everything that a report is made of."""

    recipe: Recipe
    dataset: Dataset
    probabilities: Mapping[str, Floats]  # of the test split: "reference" and each variant
    train: TrainReport
    quantize: QuantizeReport
    validate: ValidateReport
    benchmark: BenchmarkReport
    stages: tuple[StageRow, ...]


def assemble(run: Run) -> Report:
    """The report of a run, before its bundle exists."""
    validated, benchmark, spec = run.validate, run.benchmark, run.validate.spec
    thresholds = {"reference": validated.reference.thresholds}
    thresholds |= {variant.id: variant.thresholds for variant in validated.variants}
    answers = Answers(spec, run.dataset, run.probabilities, thresholds)
    shown = next(row.variant for row in benchmark.defaults if row.target == benchmark.target)
    report = Report(
        recipe=run.recipe.model_dump(mode="json"),
        model=_model(run, spec),
        data=_data(run.dataset, validated.scores),
        hardware=benchmark.hardware,
        training=_training(run.train),
        reference=ReferenceReport(
            accuracy_percent=validated.reference.accuracy_percent,
            balanced_accuracy_percent=_mean(validated.reference.balanced_percent),
            speed=benchmark.reference,
        ),
        variants=tuple(_variant(variant, run) for variant in validated.variants),
        defaults=benchmark.defaults,
        target=benchmark.target,
        confusion=training_task(spec.task).confusion(
            run.probabilities[shown], run.dataset.test.labels
        ),
        worst=worst_images(answers, validated.variants),
        scores=validated.scores,
        search=run.quantize.search,
        stages=run.stages,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    if report.int8 is not None:
        report = replace(report, flips=flips(answers, report.int8.id))
    return without_places(report, run.recipe)


def with_bundle(report: Report, bundle_id: str, size_bytes: int, file: str) -> Report:
    """The same report with the bundle that was made from it."""
    return replace(report, bundle=BundleReport(bundle_id, size_bytes, file))


def _model(run: Run, spec: ModelSpec) -> ModelReport:
    recipe, info, network = run.recipe, run.dataset.info, run.validate.network
    # a model made from images that may not be passed on carries their terms
    own = "Apache-2.0" if info.redistributable else info.license
    return ModelReport(
        name=recipe.name,
        version=recipe.package.model_version,
        task=spec.task,
        labels=spec.labels,
        input_shape=spec.shape,
        parameters=network.parameters,
        multiply_adds=network.multiply_adds,
        licence=recipe.package.license or own,
    )


def _data(dataset: Dataset, scores: Scores) -> DataSummary:
    info = dataset.info
    return DataSummary(
        name=info.name,
        counts={split: info.counts[split] for split in SPLITS},
        sha256=info.sha256,
        synthetic=info.synthetic,
        redistributable=info.redistributable,
        licence=info.license,
        notes=info.notes,
        majority_percent=scores.majority.value,
        grouped_by=info.grouped_by,
        groups=info.groups,
    )


def _training(report: TrainReport) -> TrainingReport:
    result = report.result
    return TrainingReport(
        epochs=report.epochs,
        best_epoch=result.best_epoch,
        cpu_seconds=result.cpu_seconds,
        device=result.device,
        incomplete=not result.complete,
        notes=result.notes,
        result={
            "threads": result.threads,
            "wall_seconds": round(result.wall_seconds, 1),
            "resumed": "yes" if result.resumed else "no",
        },
    )


def _variant(judged: JudgedVariant, run: Run) -> VariantReport:
    trial = judged.trial
    timed = next((row for row in run.benchmark.variants if row.judged.id == judged.id), None)
    bounds = tuple(check.text for check in timed.bounds) if timed else ()
    return VariantReport(
        id=trial.id,
        precision=trial.precision,
        size_bytes=trial.size_bytes,
        portable=trial.portable,
        portable_reason=trial.portability,
        passed=timed is not None and timed.ships,
        verdict_reasons=(*judged.verdict.reasons, *bounds),
        accuracy_percent=judged.accuracy_percent,
        top1_agreement_percent=100 * judged.parity.agreement,
        difference=judged.difference,
        balanced_accuracy_percent=_mean(judged.balanced_percent),
        per_label=label_rows(judged, run.validate.reference, run.validate.scores, run.dataset),
        speed=timed.speed if timed else None,
        speedup=timed.speedup if timed else None,
    )


def label_rows(
    judged: JudgedVariant, reference: Reference, scores: Scores, dataset: Dataset
) -> tuple[LabelRow, ...]:
    """One row for each class that has a test image, or for each attribute."""
    rows = []
    for index, label in enumerate(judged.parity.labels):
        pairs = label.pairs
        if not pairs.total:
            continue  # a class without a test image has no accuracy
        row = LabelRow(
            label=label.label,
            reference_percent=100 * pairs.reference_accuracy,
            variant_percent=100 * pairs.candidate_accuracy,
            majority_percent=scores.forms[0].labels[index].majority,
            images=pairs.total,
            lost=pairs.only_reference,
            won=pairs.only_candidate,
        )
        rows.append(_with_thresholds(row, index, judged, reference, dataset))
    return tuple(rows)


def _with_thresholds(
    row: LabelRow, index: int, judged: JudgedVariant, reference: Reference, dataset: Dataset
) -> LabelRow:
    """The row of an attribute; that of a class as it is."""
    own, before = judged.balanced_percent, judged.balanced_before_percent
    if judged.thresholds is None or reference.thresholds is None or own is None or before is None:
        return row
    return replace(
        row,
        balanced_percent=own[index],
        balanced_before_percent=before[index],
        threshold=judged.thresholds[index],
        reference_threshold=reference.thresholds[index],
        images=int(dataset.test.labels[:, index].sum()),
    )


def _mean(values: tuple[float, ...] | None) -> float | None:
    return None if values is None else fmean(values)
