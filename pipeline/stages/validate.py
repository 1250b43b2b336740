"""The checkpoint against every variant on the test split, through the predictor that ships; then
the gate. Thresholds come from the validation split, the test split is read here alone."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.engine.stage import Context, Elsewhere, Stage
from pipeline.errors import GateError
from pipeline.stages.baseline import (
    NETWORK,
    PROBABILITIES_NAME,
    TRUTH_NAME,
    Finished,
    read_baseline,
    told_network,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from exporters.evaluate.metrics import Objective, Thresholds
    from exporters.evaluate.parity_values import Parity, Verdict
    from exporters.evaluate.probabilities import Floats
    from exporters.evaluate.score_values import Scores
    from exporters.evaluate.scoring import ModelOutputs
    from exporters.evaluate.tasks import LabelTask
    from exporters.options import GateOptions
    from pipeline.datasets.arrays import Dataset, Split
    from pipeline.recipe import Recipe
    from pipeline.stages.baseline import Compared
    from runtime.spec import ModelSpec

    Chosen = Mapping[Objective, NDArray[np.float64]]  # thresholds [labels] by what they are best at


def run(context: Context) -> dict[str, Any]:
    """Compare, then judge; raises GateError when fp32 itself does not pass.

    Each form of a model with thresholds has its own, as it ships: those of the PyTorch
    network, moved where its own probabilities of the validation split ask for it by more than
    chance. What that changes is told beside it.
    """
    import numpy as np

    from exporters.evaluate.gates import judge, tolerances_for
    from exporters.evaluate.metrics import correct
    from exporters.evaluate.parity import compare, stream
    from exporters.evaluate.scoring import ModelOutputs
    from exporters.evaluate.tasks import label_task
    from pipeline.datasets.arrays import open_dataset
    from pipeline.learning.training.checkpoint import load_checkpoint
    from pipeline.learning.training.evaluate import probabilities
    from runtime import Predictor

    recipe, step = context.recipe, context.observer.step
    dataset = open_dataset(context.inputs["data"])
    network = load_checkpoint(context.inputs["train"] / "checkpoint.pt")
    spec, task = network.spec, label_task(network.spec.task)
    preprocess = (context.inputs["data"] / "preprocess.onnx").read_bytes()

    seen = None
    if task.has_thresholds:
        seen = probabilities(
            network, dataset.val.images, on_step=partial(step, "validate: thresholds")
        )
    chosen = _thresholds(task, seen, dataset.val)
    thresholds = chosen.get(recipe.gate.thresholds)
    reference = probabilities(
        network, dataset.test.images, on_step=partial(step, "validate: PyTorch")
    )

    found: dict[str, Floats] = {}
    forms = [ModelOutputs(NETWORK, reference, chosen)]
    rows, fp32 = [], []
    right = correct(reference, dataset.test.labels, thresholds)
    for variant in context.reports["quantize"]["variants"]:
        name = variant["id"]
        model = context.inputs["quantize"] / f"{name}.onnx"
        with Predictor.from_parts(
            spec, preprocess, model, variant=name, portable=variant["portable"]
        ) as predictor:
            own_seen = None
            if seen is not None:
                own_seen = stream(
                    predictor,
                    dataset.val.images,
                    progress=partial(step, f"validate: thresholds of {name}"),
                )
            found[name] = stream(
                predictor,
                dataset.test.images,
                progress=partial(step, f"validate: {name}"),
            )
        own_chosen = _thresholds(task, own_seen, dataset.val, chosen)
        forms.append(ModelOutputs(name, found[name], own_chosen))
        own = forms[-1].thresholds.get(recipe.gate.thresholds)
        parity = compare(
            task,
            reference,
            found[name],
            dataset.test.labels,
            spec.labels,
            reference_thresholds=thresholds,
            candidate_thresholds=own,
        )
        verdict = judge(task, parity, recipe.gate, tolerances_for(name))
        if variant["precision"] == "fp32":
            fp32.append((parity, verdict))
        if not verdict.passed:
            why = "; ".join(verdict.failures)
            context.observer.note(f"{name} does not pass the gate and is not packaged: {why}")
        rows.append(
            {
                **variant,
                "passed": verdict.passed,
                "verdict": list(verdict.reasons),
                "parity": asdict(parity),
                "accuracy_percent": 100 * parity.candidate_accuracy,
                "balanced_percent": _balanced(task, found[name], dataset.test, own),
                # with the thresholds of the PyTorch network instead
                "balanced_before_percent": _balanced(task, found[name], dataset.test, thresholds),
                "thresholds": None if own is None else own.tolist(),
                "quantiles": _quantiles(reference, found[name]),
            }
        )
    for plain in fp32:
        _require_fp32(*plain)
    scores = _scores(context, dataset, spec, forms)
    arrays: dict[str, Any] = {"reference": reference, **found}
    np.savez(context.out / PROBABILITIES_NAME, **arrays)
    np.savez(context.out / TRUTH_NAME, ids=dataset.test.ids, labels=dataset.test.labels)
    return {
        "headline": _headline(rows, scores, recipe.gate),
        "probabilities": PROBABILITIES_NAME,
        "spec": spec.to_dict(),
        "reference": {
            "accuracy_percent": 100 * float(right.mean()),
            "balanced_percent": _balanced(task, reference, dataset.test, thresholds),
            "thresholds": None if thresholds is None else thresholds.tolist(),
            "thresholds_for": {name: values.tolist() for name, values in chosen.items()},
        },
        "variants": rows,
        "network": told_network(
            dataset,
            spec,
            context.reports["train"]["result"]["parameters"],
            context.reports["export"]["multiply_adds"],
        ),
        "scores": asdict(scores),
    }


def _thresholds(
    task: LabelTask, seen: Floats | None, split: Split, reference: Chosen | None = None
) -> dict[Objective, NDArray[np.float64]]:
    """Thresholds for these probabilities of the validation split by what they are best at, moved
    away from ``reference`` only where that pays; none for a task without them."""
    from exporters.evaluate.scoring import OBJECTIVES

    if seen is None:
        return {}
    chosen: dict[Objective, Thresholds] = {
        name: task.best_thresholds(seen, split.labels, name)
        if reference is None
        else task.adjusted_thresholds(seen, split.labels, reference[name], name)
        for name in OBJECTIVES
    }
    return {name: values for name, values in chosen.items() if values is not None}


def _scores(
    context: Context, dataset: Dataset, spec: ModelSpec, forms: list[ModelOutputs]
) -> Scores:
    """Every form on the test split, against the majority answer and the recipe's baseline."""
    from exporters.evaluate.score_values import Baseline, Scores, doubt
    from exporters.evaluate.scoring import SAMPLES, score
    from exporters.evaluate.tasks import label_task

    name = context.recipe.baseline
    other: Compared | str | None = None
    if name is not None:
        finished = None
        if "baseline" in context.inputs:
            finished = Finished(context.inputs["baseline"], context.reports["baseline"])
        other = read_baseline(name, finished, spec, dataset)
        if isinstance(other, str):
            context.observer.note(f"baseline {name}: {other}")
    compared = None if isinstance(other, str) else other
    task = label_task(spec.task)
    found = score(
        task,
        forms,
        dataset.test.labels,
        spec.labels,
        task.majority_answer(dataset.train.labels, len(spec.labels)),
        compared.answers if compared else None,
        progress=partial(context.observer.step, "validate: intervals"),
    )
    baseline = None
    if compared is not None:
        baseline = Baseline(
            recipe=str(name),
            score=found.baseline,
            common_labels=compared.common_labels,
            parameters=compared.parameters,
            multiply_adds=compared.multiply_adds,
        )
    elif name is not None:
        baseline = Baseline(name, missing=str(other))
    scores = Scores(len(dataset.test), SAMPLES, found.majority, found.forms, baseline)
    if why := doubt(scores.images, scores.forms[0]):
        context.observer.note(f"NOT BETTER THAN CHANCE: {why}. Train longer, or give more images.")
    return scores


def _balanced(
    task: LabelTask, found: Floats, split: Split, thresholds: Thresholds
) -> list[float] | None:
    """Balanced accuracy of each label in percent; None where labels have none."""
    values = task.balanced_percent(found, split.labels, thresholds)
    return None if values is None else values.tolist()


def _quantiles(reference: Floats, found: Floats) -> dict[str, float]:
    import numpy as np

    difference = np.abs(reference - found)
    return {f"p{q}": float(np.quantile(difference, q / 100)) for q in (50, 90)}


def _headline(rows: list[dict[str, Any]], scores: Scores, gate: GateOptions) -> str:
    """What thresholds are chosen for, and plain accuracy with thresholds of its own beside the
    majority answer: with those for balanced accuracy a rare label loses against it."""
    own = {form.id: form.own for form in scores.forms}
    accuracy = own[NETWORK].accuracy
    refused = {row["id"] for row in rows if not row["passed"]}
    majority = f"majority answer {scores.majority.value:.2f} %"
    by_balance = gate.thresholds == "balanced" and any(row["thresholds"] for row in rows)
    told = {
        name: found.balanced_accuracy if by_balance else found.accuracy
        for name, found in own.items()
    }
    marks = [
        f"{name} {value.value:.2f} %{' ✗' if name in refused else ''}"
        for name, value in told.items()
        if value is not None
    ]
    network, variants = marks[0], ", ".join(marks[1:])
    if not by_balance or accuracy is None:
        return f"{network}; {variants}; {majority}"
    return (
        f"balanced accuracy: {network}; {variants}; accuracy: {NETWORK} {accuracy.value:.2f} %, "
        f"{majority}"
    )


def _require_fp32(parity: Parity, verdict: Verdict) -> None:
    """Stop when the plain export already differs from the network, or when the test split is so
    small that no variant could pass."""
    if verdict.passed:
        return
    why = "; ".join(verdict.failures)
    changed = parity.pairs.only_reference + parity.pairs.only_candidate
    if not changed and [check.name for check in verdict.checks if not check.passed] == ["accuracy"]:
        raise GateError(
            f"the test split is too small for the gate: {why}. That is the fp32 export, which "
            "gives every answer of the PyTorch network. Nothing is packaged. Give more test "
            "images, or set gate.margin_points to what so few can show."
        )
    raise GateError(
        f"the fp32 export does not answer as the PyTorch network does: {why}. Nothing is packaged. "
        "Check the network for operators that behave otherwise in ONNX."
    )


def _borrows(recipe: Recipe) -> dict[str, Elsewhere]:
    if recipe.baseline is None:
        return {}
    return {"baseline": Elsewhere(recipe.baseline, "validate", optional=True)}


STAGE = Stage(
    "validate",
    "compare PyTorch with every variant on the test split, then judge",
    run,
    inputs=("data", "train", "export", "quantize"),
    sections=("gate", "baseline"),
    sources=(
        "pipeline/stages/validate.py",
        "pipeline/stages/baseline.py",
        "pipeline/learning",
        "pipeline/user_code.py",
        "pipeline/datasets/arrays.py",
        "pipeline/datasets/info.py",
        "exporters",
        "runtime",
    ),
    libraries=("numpy", "torch", "onnxruntime"),
    borrows=_borrows,
)
