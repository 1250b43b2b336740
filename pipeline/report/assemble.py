"""What the stages told -> one ``Report``. Adds what only the test split's probabilities show:
the confusion matrix, and the images that ``images.py`` picks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from exporters.evaluate.score_values import Scores
from pipeline.datasets.arrays import SPLITS, Dataset, open_dataset
from pipeline.hardware import Hardware
from pipeline.recipe import Recipe
from pipeline.report.images import Answers, flips, worst_images
from pipeline.report.model import (
    BundleReport,
    DataReport,
    DefaultReport,
    Difference,
    Epoch,
    LabelRow,
    ModelReport,
    ReferenceReport,
    Report,
    Speed,
    Speedup,
    StageRow,
    TrainingReport,
    VariantReport,
)
from pipeline.report.places import without_places
from pipeline.report.search_data import SearchReport
from runtime.spec import ModelSpec

Reports = Mapping[str, Mapping[str, Any]]


def assemble(recipe: Recipe, reports: Reports, folders: Mapping[str, Path]) -> Report:
    """The report of a run whose stages returned ``reports`` and left ``folders``, by name."""
    dataset = open_dataset(folders["data"])
    spec = ModelSpec.from_dict(reports["validate"]["spec"])
    with np.load(folders["validate"] / reports["validate"]["probabilities"]) as arrays:
        probabilities = {name: arrays[name] for name in arrays.files}
    scores = TypeAdapter(Scores).validate_python(reports["validate"]["scores"])
    answers = Answers(spec, dataset, probabilities, _thresholds(reports))
    benchmark = reports["benchmark"]
    defaults = tuple(DefaultReport(**row) for row in benchmark["defaults"])
    shown = next(row.variant for row in defaults if row.target == benchmark["target"])
    report = Report(
        recipe=recipe.model_dump(mode="json"),
        model=_model(recipe, spec, reports["validate"]["network"], dataset),
        data=_data(dataset, scores),
        hardware=Hardware.from_dict(benchmark["hardware"]),
        training=_training(reports["train"]),
        reference=_reference(reports),
        variants=tuple(_variant(row, reports, scores, dataset, folders) for row in _rows(reports)),
        defaults=defaults,
        target=benchmark["target"],
        confusion=_confusion(probabilities[shown], dataset, spec),
        worst=worst_images(answers, _rows(reports)),
        scores=scores,
        search=SearchReport.from_result(reports["quantize"]["search"]),
        stages=tuple(
            StageRow(name, told["seconds"], told["finished"]) for name, told in reports.items()
        ),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    int8 = report.int8
    if int8 is not None:
        report = replace(report, flips=flips(answers, int8.id))
    return without_places(report, recipe)


def with_bundle(report: Report, bundle_id: str, size_bytes: int, file: str) -> Report:
    """The same report, which now knows the bundle that was made from it."""
    return replace(report, bundle=BundleReport(bundle_id, size_bytes, file))


def _rows(reports: Reports) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = reports["validate"]["variants"]
    return rows


def _thresholds(reports: Reports) -> dict[str, list[float] | None]:
    """Of the reference and of every variant; None for multi-class."""
    found = {row["id"]: row["thresholds"] for row in _rows(reports)}
    return {"reference": reports["validate"]["reference"]["thresholds"], **found}


def _model(
    recipe: Recipe, spec: ModelSpec, network: Mapping[str, Any], dataset: Dataset
) -> ModelReport:
    # a model made from images that may not be passed on carries their terms
    own = "Apache-2.0" if dataset.info.redistributable else dataset.info.license
    return ModelReport(
        name=recipe.name,
        version=recipe.package.model_version,
        task=spec.task,
        labels=spec.labels,
        input_shape=spec.shape,
        parameters=network["parameters"],
        multiply_adds=network["multiply_adds"],
        licence=recipe.package.license or own,
    )


def _data(dataset: Dataset, scores: Scores) -> DataReport:
    info = dataset.info
    return DataReport(
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


def _training(told: Mapping[str, Any]) -> TrainingReport:
    result = told["result"]
    return TrainingReport(
        epochs=tuple(
            Epoch(
                epoch=line["epoch"],
                train_loss=line["train_loss"],
                val_loss=line["val_loss"],
                val_accuracy_percent=line["val_accuracy_percent"],
                lr=line["lr"],
                cpu_seconds=line["cpu_seconds"],
                seconds=line["wall_seconds"],
            )
            for line in told["epochs"]
        ),
        best_epoch=result["best_epoch"],
        cpu_seconds=result["cpu_seconds"],
        device=result["device"],
        incomplete=not result["complete"],
        notes=tuple(result["notes"]),
        result={
            "threads": result["threads"],
            "wall_seconds": round(result["wall_seconds"], 1),
            "resumed": "yes" if result["resumed"] else "no",
        },
    )


def _reference(reports: Reports) -> ReferenceReport:
    told = reports["validate"]["reference"]
    return ReferenceReport(
        accuracy_percent=told["accuracy_percent"],
        balanced_accuracy_percent=_mean(told["balanced_percent"]),
        speed=_speed(reports, reports["benchmark"]["reference"]),
    )


def _variant(
    row: Mapping[str, Any],
    reports: Reports,
    scores: Scores,
    dataset: Dataset,
    folders: Mapping[str, Path],
) -> VariantReport:
    parity, benchmark = row["parity"], reports["benchmark"]
    speedup = benchmark["speedups"].get(row["id"])
    return VariantReport(
        id=row["id"],
        precision=row["precision"],
        size_bytes=(folders["quantize"] / f"{row['id']}.onnx").stat().st_size,
        portable=row["portable"],
        portable_reason=row["reason"],
        passed=row["id"] in benchmark["ships"],
        verdict_reasons=(
            *row["verdict"],
            *(check["text"] for check in benchmark["bounds"].get(row["id"], ())),
        ),
        accuracy_percent=row["accuracy_percent"],
        top1_agreement_percent=100 * parity["agreement"],
        difference=Difference(
            max=parity["max_abs"],
            mean=parity["mean_abs"],
            p99=parity["p99_abs"],
            p50=row["quantiles"]["p50"],
            p90=row["quantiles"]["p90"],
        ),
        balanced_accuracy_percent=_mean(row["balanced_percent"]),
        per_label=_labels(row, reports["validate"]["reference"]["thresholds"], scores, dataset),
        speed=_speed(reports, row["id"]),
        speedup=None if speedup is None else Speedup(**speedup),
    )


def _labels(
    row: Mapping[str, Any],
    reference_thresholds: list[float] | None,
    scores: Scores,
    dataset: Dataset,
) -> tuple[LabelRow, ...]:
    thresholds = row["thresholds"]
    multi_label = reference_thresholds is not None
    truth = dataset.test.labels
    rows = []
    for index, told in enumerate(row["parity"]["labels"]):
        pairs = told["pairs"]
        total = sum(pairs.values())
        if not total:
            continue  # a class without a test image has no accuracy
        rows.append(
            LabelRow(
                label=told["label"],
                reference_percent=100 * (pairs["both_right"] + pairs["only_reference"]) / total,
                variant_percent=100 * (pairs["both_right"] + pairs["only_candidate"]) / total,
                balanced_percent=row["balanced_percent"][index] if multi_label else None,
                balanced_before_percent=(
                    row["balanced_before_percent"][index] if multi_label else None
                ),
                threshold=thresholds[index] if multi_label else None,
                reference_threshold=(
                    reference_thresholds[index] if reference_thresholds is not None else None
                ),
                majority_percent=scores.forms[0].labels[index].majority,
                images=int(truth[:, index].sum()) if multi_label else total,
                lost=pairs["only_reference"],
                won=pairs["only_candidate"],
            )
        )
    return tuple(rows)


def _speed(reports: Reports, name: str) -> Speed | None:
    row = reports["benchmark"]["rows"].get(name)
    return None if row is None else Speed(**row)


def _mean(values: list[float] | None) -> float | None:
    return None if values is None else float(np.mean(values))


def _confusion(
    found: NDArray[np.float32], dataset: Dataset, spec: ModelSpec
) -> tuple[tuple[int, ...], ...] | None:
    """How often each class (row) got each answer (column)."""
    if spec.task == "multi-label":
        return None
    classes = len(spec.labels)
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (dataset.test.labels, found.argmax(axis=1)), 1)
    return tuple(tuple(int(cell) for cell in row) for row in matrix)
