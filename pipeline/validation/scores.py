"""Scores of the reference and of every candidate on the test split, against the majority answer
and the baseline, and their headline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from exporters.evaluate.parity import Progress
from exporters.evaluate.score_values import Baseline, Scores, doubt
from exporters.evaluate.scoring import SAMPLES, ModelOutputs, score
from exporters.evaluate.tasks import label_task
from pipeline.datasets.arrays import Dataset
from pipeline.reports import JudgedVariant
from pipeline.validation.baseline import Compared
from pipeline.validation.candidates import NETWORK
from runtime.spec import ModelSpec


def score_forms(
    forms: Sequence[ModelOutputs],
    dataset: Dataset,
    spec: ModelSpec,
    recipe: str | None,
    baseline: Compared | str | None,
    progress: Progress,
) -> Scores:
    """Score every model, the PyTorch network first, and the ``baseline`` of the named recipe, which
    is a text with the reason where there is none."""
    compared = baseline if isinstance(baseline, Compared) else None
    task = label_task(spec.task)
    scored = score(
        task,
        forms,
        dataset.test.labels,
        spec.labels,
        task.majority_answer(dataset.train.labels, len(spec.labels)),
        compared.answers if compared else None,
        progress=progress,
    )
    facts = None
    if compared is not None and recipe is not None:
        facts = Baseline(
            recipe=recipe,
            score=scored.baseline,
            common_labels=compared.common_labels,
            parameters=compared.parameters,
            multiply_adds=compared.multiply_adds,
        )
    elif recipe is not None:
        facts = Baseline(recipe, missing=str(baseline))
    return Scores(len(dataset.test), SAMPLES, scored.majority, scored.forms, facts)


def notes(variants: Sequence[JudgedVariant], scores: Scores) -> Iterator[str]:
    """Everything that the user should read: refusals, a missing baseline, a doubtful network."""
    for variant in variants:
        if not variant.verdict.passed:
            why = "; ".join(variant.verdict.failures)
            yield f"{variant.id} does not pass the gate and is not packaged: {why}"
    if scores.baseline is not None and scores.baseline.missing is not None:
        yield f"baseline {scores.baseline.recipe}: {scores.baseline.missing}"
    doubtful = doubt(scores.images, scores.forms[0])
    if doubtful is not None:
        yield f"NOT BETTER THAN CHANCE: {doubtful}. Train longer, or give more images."


def headline(variants: Sequence[JudgedVariant], scores: Scores, objective: str) -> str:
    """The figure that thresholds are chosen for, and plain accuracy with thresholds of its own next
    to the majority answer: with those for balanced accuracy a rare label loses against it."""
    own = {form.id: form.own for form in scores.forms}
    accuracy = own[NETWORK].accuracy
    refused = {variant.id for variant in variants if not variant.verdict.passed}
    majority = f"majority answer {scores.majority.value:.2f} %"
    by_balance = objective == "balanced" and any(variant.thresholds for variant in variants)
    figures = {
        name: metrics.balanced_accuracy if by_balance else metrics.accuracy
        for name, metrics in own.items()
    }
    marks = [
        f"{name} {figure.value:.2f} %{' ✗' if name in refused else ''}"
        for name, figure in figures.items()
        if figure is not None
    ]
    network, candidates = marks[0], ", ".join(marks[1:])
    if not by_balance or accuracy is None:
        return f"{network}; {candidates}; {majority}"
    return (
        f"balanced accuracy: {network}; {candidates}; accuracy: {NETWORK} {accuracy.value:.2f} %, "
        f"{majority}"
    )
