"""Compare each candidate with the PyTorch network on the test split, then judge it. Independent of
stages and of files.

Each candidate of a model with thresholds has its own, as it ships: those of the PyTorch network,
moved where its probabilities of the validation split require it by more than chance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate.gates import judge, tolerances_for
from exporters.evaluate.metrics import Objective, correct
from exporters.evaluate.parity import compare, stream
from exporters.evaluate.parity_values import Parity
from exporters.evaluate.probabilities import Floats
from exporters.evaluate.scoring import OBJECTIVES, ModelOutputs
from exporters.evaluate.tasks import LabelTask, label_task
from exporters.options import GateOptions
from exporters.search.trial import Trial
from pipeline.datasets.arrays import Dataset, Split
from pipeline.errors import GateError
from pipeline.learning.networks.pixel_network import PixelNetwork
from pipeline.learning.training.evaluate import probabilities
from pipeline.reports import Difference, JudgedVariant, Reference
from runtime import Predictor
from runtime.spec import ModelSpec

NETWORK = "PyTorch"  # id of the reference among the scores
Opened = Callable[[Trial], AbstractContextManager[Predictor]]  # a candidate as it ships
OnStep = Callable[[str, int, int], None]  # (task, images done, images in all)
Thresholds = Mapping[Objective, NDArray[np.float64]]  # [labels] by what they are best at


def network_answers(network: PixelNetwork, dataset: Dataset, on_step: OnStep) -> ModelOutputs:
    """Answers of the PyTorch network to the test split, with the thresholds that are best on the
    validation split."""

    def answer(task: str, split: Split) -> Floats:
        return probabilities(network, split.images, on_step=partial(on_step, f"validate: {task}"))

    task, thresholds = label_task(network.spec.task), {}
    if task.has_thresholds:
        seen = answer("thresholds", dataset.val)
        thresholds = _by_objective(
            lambda name: task.best_thresholds(seen, dataset.val.labels, name)
        )
    return ModelOutputs(NETWORK, answer(NETWORK, dataset.test), thresholds)


def candidate_answers(
    predictor: Predictor,
    name: str,
    task: LabelTask,
    dataset: Dataset,
    reference: ModelOutputs,
    on_step: OnStep,
) -> ModelOutputs:
    """Answers of a candidate to the test split, with the reference's thresholds moved where that
    pays on the validation split."""

    def answer(task: str, split: Split) -> Floats:
        return stream(predictor, split.images, progress=partial(on_step, f"validate: {task}"))

    thresholds: Thresholds = {}
    if reference.thresholds:
        seen = answer(f"thresholds of {name}", dataset.val)
        thresholds = _by_objective(
            lambda name: task.adjusted_thresholds(
                seen, dataset.val.labels, reference.thresholds[name], name
            )
        )
    return ModelOutputs(name, answer(name, dataset.test), thresholds)


def _by_objective(
    thresholds_for: Callable[[Objective], NDArray[np.float64] | None],
) -> dict[Objective, NDArray[np.float64]]:
    thresholds = {name: thresholds_for(name) for name in OBJECTIVES}
    return {name: values for name, values in thresholds.items() if values is not None}


def judge_candidates(
    trials: Sequence[Trial],
    opened: Opened,
    reference: ModelOutputs,
    dataset: Dataset,
    spec: ModelSpec,
    gate: GateOptions,
    on_step: OnStep,
) -> tuple[list[ModelOutputs], list[JudgedVariant]]:
    """Answers and verdict of each candidate, which ``opened`` opens as it ships.

    Raises GateError when fp32 itself does not pass.
    """
    forms, variants = [], []
    for trial in trials:
        with opened(trial) as predictor:
            answers = candidate_answers(
                predictor, trial.id, label_task(spec.task), dataset, reference, on_step
            )
        forms.append(answers)
        variants.append(judge_candidate(trial, answers, reference, dataset.test, spec, gate))
    for variant in variants:
        if variant.trial.precision == "fp32":
            require_fp32(variant)
    return forms, variants


def judge_candidate(
    trial: Trial,
    answers: ModelOutputs,
    reference: ModelOutputs,
    test: Split,
    spec: ModelSpec,
    gate: GateOptions,
) -> JudgedVariant:
    """Hold a candidate's answers to the test split against those of the reference."""
    task = label_task(spec.task)
    own, before = (form.thresholds.get(gate.thresholds) for form in (answers, reference))
    parity = compare(
        task,
        reference.probabilities,
        answers.probabilities,
        test.labels,
        spec.labels,
        reference_thresholds=before,
        candidate_thresholds=own,
    )
    return JudgedVariant(
        trial=trial,
        parity=parity,
        verdict=judge(task, parity, gate, tolerances_for(trial.id)),
        difference=_difference(parity, reference.probabilities, answers.probabilities),
        thresholds=_plain(own),
        balanced_percent=_balanced_percent(task, answers.probabilities, test, own),
        balanced_before_percent=_balanced_percent(task, answers.probabilities, test, before),
    )


def reference_facts(
    task: LabelTask, reference: ModelOutputs, test: Split, gate: GateOptions
) -> Reference:
    """Accuracy and thresholds of the PyTorch network."""
    thresholds = reference.thresholds.get(gate.thresholds)
    right = correct(reference.probabilities, test.labels, thresholds)
    return Reference(
        accuracy_percent=100 * float(right.mean()),
        balanced_percent=_balanced_percent(task, reference.probabilities, test, thresholds),
        thresholds=_plain(thresholds),
        thresholds_for={
            name: tuple(values.tolist()) for name, values in reference.thresholds.items()
        },
    )


def require_fp32(variant: JudgedVariant) -> None:
    """Raise GateError when the plain export already differs from the network, or when the test
    split is so small that no variant could pass."""
    verdict, pairs = variant.verdict, variant.parity.pairs
    if verdict.passed:
        return
    why = "; ".join(verdict.failures)
    changed = pairs.only_reference + pairs.only_candidate
    if not changed and [check.name for check in verdict.checks if not check.passed] == ["accuracy"]:
        raise GateError(
            f"the test split is too small for the gate: {why}. That is the fp32 export, which "
            "gives every answer of the PyTorch network. Nothing is packaged. Give more test "
            "images, or set gate.margin_points to a margin that so few can show."
        )
    raise GateError(
        f"the fp32 export does not answer as the PyTorch network does: {why}. Nothing is packaged. "
        "Check the network for operators that behave differently in ONNX."
    )


def _difference(parity: Parity, reference: Floats, candidate: Floats) -> Difference:
    absolute = np.abs(reference - candidate)
    p50, p90 = (float(np.quantile(absolute, share)) for share in (0.5, 0.9))
    return Difference(parity.max_abs, parity.mean_abs, parity.p99_abs, p50, p90)


def _plain(thresholds: NDArray[np.float64] | None) -> tuple[float, ...] | None:
    return None if thresholds is None else tuple(thresholds.tolist())


def _balanced_percent(
    task: LabelTask, answers: Floats, split: Split, thresholds: NDArray[np.float64] | None
) -> tuple[float, ...] | None:
    """Balanced accuracy of each label in percent; None where labels have none."""
    return _plain(task.balanced_percent(answers, split.labels, thresholds))
