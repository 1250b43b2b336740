"""The whole of a validation: the network's answers, each candidate's verdict, and the scores.
Independent of artifact folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from exporters.evaluate.score_values import Scores
from exporters.evaluate.scoring import ModelOutputs
from exporters.evaluate.tasks import label_task
from exporters.search.trial import Trial
from pipeline.datasets.arrays import Dataset
from pipeline.engine.stage import Observer
from pipeline.learning.networks.pixel_network import PixelNetwork
from pipeline.recipe import Recipe
from pipeline.reports import JudgedVariant, NetworkFacts, Reference, ValidateReport
from pipeline.validation.baseline import Validated, read_baseline
from pipeline.validation.candidates import (
    Opened,
    judge_candidates,
    network_answers,
    reference_facts,
)
from pipeline.validation.scores import headline, notes, score_forms


@dataclass(frozen=True)
class Validation:
    """Results on the test split."""

    reference: ModelOutputs
    forms: tuple[ModelOutputs, ...]  # of the candidates
    facts: Reference
    variants: tuple[JudgedVariant, ...]
    scores: Scores


def validate(
    network: PixelNetwork,
    dataset: Dataset,
    trials: Sequence[Trial],
    opened: Opened,
    recipe: Recipe,
    other: Validated | None,
    observer: Observer,
) -> Validation:
    """Compare every candidate with ``network``, judge it, and score all of them, next to the
    ``other`` recipe that is the baseline. Raises GateError when fp32 itself does not pass."""
    gate, step = recipe.gate, observer.step
    reference = network_answers(network, dataset, step)
    forms, variants = judge_candidates(trials, opened, reference, dataset, network.spec, gate, step)
    baseline = None
    if recipe.baseline is not None:
        baseline = read_baseline(recipe.baseline, other, network.spec, dataset)
    scores = score_forms(
        [reference, *forms],
        dataset,
        network.spec,
        recipe.baseline,
        baseline,
        partial(step, "validate: intervals"),
    )
    for note in notes(variants, scores):
        observer.note(note)
    facts = reference_facts(label_task(network.spec.task), reference, dataset.test, gate)
    return Validation(reference, tuple(forms), facts, tuple(variants), scores)


def report_of(
    validation: Validation,
    network: PixelNetwork,
    dataset: Dataset,
    recipe: Recipe,
    parameters: int,
    multiply_adds: int | None,
) -> ValidateReport:
    """The report of the validate stage."""
    labels = network.spec.labels
    return ValidateReport(
        headline=headline(validation.variants, validation.scores, recipe.gate.thresholds),
        spec=network.spec,
        reference=validation.facts,
        variants=validation.variants,
        network=NetworkFacts(dataset.info.name, labels, parameters, multiply_adds),
        scores=validation.scores,
    )
