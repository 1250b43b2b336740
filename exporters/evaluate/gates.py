"""Judge a comparison: may this variant ship? Takes measured values only.

A variant passes when (1) it is not inferior in accuracy: the one-sided upper bound of its paired
loss stays below a margin; (2) no single class or attribute got significantly worse; (3) its
probabilities stay within a table of tolerances. ``paired_tests.py`` has the statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from exporters.errors import ExportError
from exporters.evaluate.paired_tests import holm, mcnemar
from exporters.evaluate.parity_values import Check, LabelParity, Parity, Verdict
from exporters.options import TOLERANCES, GateOptions, Tolerance

if TYPE_CHECKING:
    from exporters.evaluate.tasks import LabelTask


def judge(
    task: LabelTask, parity: Parity, options: GateOptions, tolerances: Sequence[Tolerance] = ()
) -> Verdict:
    """Compare ``parity`` with the margin, the labels and the tolerances of its precision."""
    checks = [_accuracy(task, parity, options), _labels(task, parity, options)]
    checks += [_tolerance(parity, row) for row in tolerances]
    return Verdict(all(check.passed for check in checks), tuple(checks))


def screen(
    task: LabelTask, parity: Parity, options: GateOptions, tolerances: Sequence[Tolerance] = ()
) -> Verdict:
    """Ask the same questions on validation images, to choose what is worth the test split.

    Where the images are too few to bound the loss below the margin even if no answer changes, the
    measured loss replaces its bound.
    """
    verdict = judge(task, parity, options, tolerances)
    if verdict.passed or task.images_needed(len(parity.labels), options) <= parity.images:
        return verdict
    lost = parity.pairs.lost_points
    checks = tuple(
        replace(check, passed=lost < options.margin_points) if check.name == "accuracy" else check
        for check in verdict.checks
    )
    return Verdict(all(check.passed for check in checks), checks)


def too_few_images(task: LabelTask, options: GateOptions, images: int, labels: int) -> str | None:
    """The reason why no variant could pass on so many images even if no answer changed; None where
    one could.

    A variant with the very bits of the reference passes in any case, but no other form has them.
    """
    bound = task.loss_upper([(0, images)], labels, options.alpha)
    if 100 * bound < options.margin_points:
        return None
    return (
        f"{images:,} test images show at best that less than {100 * bound:.3g} points are lost, "
        f"and the margin is {options.margin_points:g}"
    )


def within_bounds(
    options: GateOptions, *, size_bytes: int, latency_ms: float, memory_mb: float | None
) -> tuple[Check, ...]:
    """Compare a variant's size and measured figures with the recipe's bounds; no check where there
    is no bound. Memory that could not be measured does not pass one."""
    measured = (
        ("size", "bytes", float(size_bytes), options.max_size_bytes),
        ("latency", "ms at batch 1", latency_ms, options.max_latency_ms),
        (
            "memory",
            "MB resident",
            math.inf if memory_mb is None else memory_mb,
            options.max_memory_mb,
        ),
    )
    return tuple(
        Check(
            name,
            value <= limit,
            value,
            limit,
            f"{name} {value:,.6g} {unit}, the recipe allows {limit:,.6g}",
        )
        for name, unit, value, limit in measured
        if limit is not None
    )


def tolerances_for(variant_id: str) -> tuple[Tolerance, ...]:
    """Return the rows of the precision that a variant's id begins with; raises ExportError."""
    precision = variant_id.partition("-")[0]
    if precision not in TOLERANCES:
        raise ExportError(
            f"there are no tolerances for variant {variant_id!r}; expected an id that begins with "
            f"{', '.join(TOLERANCES)}."
        )
    return TOLERANCES[precision]


def loss_bound(task: LabelTask, parity: Parity, alpha: float) -> float:
    """Return the upper bound, at one-sided level ``alpha``, of the accuracy that the candidate
    loses. A share, not points."""
    if parity.max_abs == 0 and parity.pairs.only_reference == 0:
        return 0.0  # the same probabilities and no answer lost: it is the same model
    return task.loss_upper(parity.losses, len(parity.labels), alpha)


def _accuracy(task: LabelTask, parity: Parity, options: GateOptions) -> Check:
    bound = 100 * loss_bound(task, parity, options.alpha)
    passed = bound < options.margin_points
    pairs = parity.pairs
    text = (
        f"accuracy {100 * pairs.candidate_accuracy:.2f} % against "
        f"{100 * pairs.reference_accuracy:.2f} % ({pairs.only_reference} {task.unit} lost, "
        f"{pairs.only_candidate} won of {pairs.total}): it loses {pairs.lost_points:.3f} points, "
        f"and at most {bound:.3f} with {100 * (1 - options.alpha):g} % confidence; the margin is "
        f"{options.margin_points:g}"
    )
    needed = task.images_needed(len(parity.labels), options)
    if not passed and needed > parity.images:
        text += f". So few images cannot show it: {needed} are needed even if no answer changes"
    return Check("accuracy", passed, bound, options.margin_points, text)


def _labels(task: LabelTask, parity: Parity, options: GateOptions) -> Check:
    counts = [label.pairs for label in parity.labels]
    adjusted = holm([mcnemar(pairs.only_reference, pairs.only_candidate) for pairs in counts])
    worse = [
        (label, p) for label, p in zip(parity.labels, adjusted, strict=True) if p <= options.alpha
    ]
    smallest = min(adjusted, default=1.0)
    if worse:
        text = f"significantly worse: {', '.join(_worse(label, p) for label, p in worse)}"
    else:
        text = (
            f"no {task.label_noun} is significantly worse (smallest p {smallest:.3g} after Holm's "
            f"correction for {len(parity.labels)})"
        )
    return Check("labels", not worse, smallest, options.alpha, text)


def _worse(label: LabelParity, p: float) -> str:
    pairs = label.pairs
    return (
        f"{label.label} ({pairs.only_reference} lost, {pairs.only_candidate} won of {pairs.total}, "
        f"p {p:.3g} after Holm's correction)"
    )


def _tolerance(parity: Parity, row: Tolerance) -> Check:
    value = float(getattr(parity, row.metric))
    passed = value <= row.limit
    name = {"max_abs": "largest", "mean_abs": "mean", "p99_abs": "99th percentile"}[row.metric]
    text = f"{name} difference of probabilities {value:.3g}, allowed {row.limit:g} ({row.reason})"
    return Check(row.metric, passed, value, row.limit, text)
