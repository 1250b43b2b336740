"""The checkpoint against every variant on the test split, through the predictor that ships; then
the gate. Thresholds come from the validation split, the test split is read here alone."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.errors import GateError
from pipeline.stage import Context, Stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from exporters.metrics import Floats
    from exporters.parity import Parity
    from pipeline.datasets.arrays import Split
    from pipeline.recipe import Recipe

PROBABILITIES_NAME = "probabilities.npz"  # of the test split: "reference" and every variant


def run(context: Context) -> dict[str, Any]:
    """Compare, then judge; raises GateError when fp32 itself does not pass.

    Each form of a multi-label model has thresholds of its own, as it ships: those of the PyTorch
    network, moved where its own probabilities of the validation split ask for it by more than
    chance. What that changes is told beside it.
    """
    import numpy as np

    from exporters.gates import judge, tolerances_for
    from exporters.parity import compare, stream
    from pipeline.datasets.arrays import open_dataset
    from pipeline.learning.checkpoint import load_checkpoint
    from pipeline.learning.evaluate import probabilities
    from runtime import Predictor

    recipe, step = context.recipe, context.observer.step
    dataset = open_dataset(context.inputs["data"])
    network = load_checkpoint(context.inputs["train"] / "checkpoint.pt")
    spec = network.spec
    preprocess = (context.inputs["data"] / "preprocess.onnx").read_bytes()

    seen = None
    if spec.task == "multi-label":
        seen = probabilities(
            network, dataset.val.images, on_step=partial(step, "validate: thresholds")
        )
    thresholds = _thresholds(seen, dataset.val, recipe)
    reference = probabilities(
        network, dataset.test.images, on_step=partial(step, "validate: PyTorch")
    )

    found: dict[str, Floats] = {}
    rows = []
    for variant in context.reports["quantize"]["variants"]:
        name = variant["id"]
        model = context.inputs["quantize"] / f"{name}.onnx"
        with Predictor.from_parts(
            spec, preprocess, model, variant=name, portable=variant["portable"]
        ) as predictor:
            if seen is not None:
                seen = stream(
                    predictor,
                    dataset.val.images,
                    progress=partial(step, f"validate: thresholds of {name}"),
                )
            found[name] = stream(
                predictor,
                dataset.test.images,
                progress=partial(step, f"validate: {name}"),
            )
        own = _thresholds(seen, dataset.val, recipe, thresholds)
        parity = compare(
            reference,
            found[name],
            dataset.test.labels,
            spec,
            reference_thresholds=thresholds,
            candidate_thresholds=own,
        )
        verdict = judge(parity, recipe.gate, tolerances_for(name))
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
                "balanced_percent": _balanced(found[name], dataset.test, own),
                # with the thresholds of the PyTorch network instead
                "balanced_before_percent": _balanced(found[name], dataset.test, thresholds),
                "thresholds": None if own is None else own.tolist(),
                "quantiles": _quantiles(reference, found[name]),
            }
        )
    arrays: dict[str, Any] = {"reference": reference, **found}
    np.savez(context.out / PROBABILITIES_NAME, **arrays)
    return {
        "headline": _headline(rows, parity),
        "probabilities": PROBABILITIES_NAME,
        "spec": spec.to_dict(),
        "reference": {
            "accuracy_percent": 100 * parity.reference_accuracy,
            "balanced_percent": _balanced(reference, dataset.test, thresholds),
            "thresholds": None if thresholds is None else thresholds.tolist(),
        },
        "variants": _require_fp32(rows),
    }


def _thresholds(
    seen: Floats | None,
    split: Split,
    recipe: Recipe,
    reference: NDArray[np.float64] | None = None,
) -> NDArray[np.float64] | None:
    """Thresholds for these probabilities of the validation split, moved away from ``reference``
    only where that pays; None for multi-class."""
    from exporters.metrics import adjusted_thresholds, best_thresholds

    if seen is None:
        return None
    if reference is None:
        return best_thresholds(seen, split.labels, recipe.gate.thresholds)
    return adjusted_thresholds(seen, split.labels, reference, recipe.gate.thresholds)


def _balanced(
    found: Floats, split: Split, thresholds: NDArray[np.float64] | None
) -> list[float] | None:
    """Balanced accuracy of each label in percent; None for multi-class."""
    from exporters.metrics import balanced_accuracy, decide

    if thresholds is None:
        return None
    values = balanced_accuracy(decide(found, thresholds), split.labels)
    return [float(value) for value in 100 * values]


def _quantiles(reference: Floats, found: Floats) -> dict[str, float]:
    import numpy as np

    difference = np.abs(reference - found)
    return {f"p{q}": float(np.quantile(difference, q / 100)) for q in (50, 90)}


def _headline(rows: list[dict[str, Any]], parity: Parity) -> str:
    marks = [f"{r['id']} {r['accuracy_percent']:.2f} %{'' if r['passed'] else ' ✗'}" for r in rows]
    return f"PyTorch {100 * parity.reference_accuracy:.2f} %; " + ", ".join(marks)


def _require_fp32(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, unless the plain export already differs from the network."""
    for row in rows:
        if row["precision"] == "fp32" and not row["passed"]:
            raise GateError(
                "the fp32 export does not answer as the PyTorch network does: "
                + "; ".join(row["verdict"])
                + ". Nothing is packaged. Check the network for operators that behave otherwise "
                "in ONNX."
            )
    return rows


STAGE = Stage(
    "validate",
    "compare PyTorch with every variant on the test split, then judge",
    run,
    inputs=("data", "train", "quantize"),
    sections=("gate",),
    sources=(
        "pipeline/stages/validate.py",
        "pipeline/learning",
        "pipeline/datasets/arrays.py",
        "exporters",
        "runtime",
    ),
    libraries=("numpy", "torch", "onnxruntime"),
)
