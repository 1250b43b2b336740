"""Judge a comparison: may this variant ship? Takes measured values only; knows no models.

A variant passes when (1) it is not inferior in accuracy: the one-sided upper bound of its paired
loss stays below a margin; (2) no single class or attribute got significantly worse; (3) its
probabilities stay within a table of tolerances.

Sources: T. Tango, "Equivalence test and confidence interval for the difference in proportions
for the paired-sample design", Statistics in Medicine 17 (1998) 891-908; D. Bonett and R. Price,
"Adjusted Wald confidence interval for a difference of binomial proportions based on paired data",
Journal of Educational and Behavioral Statistics 37 (2012) 479-488; Q. McNemar, Psychometrika 12
(1947) 153-157, in its exact form; S. Holm, "A simple sequentially rejective multiple test
procedure", Scandinavian Journal of Statistics 6 (1979) 65-70."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist

from exporters.errors import ExportError
from exporters.evaluate.parity_values import Check, LabelParity, Parity, Verdict
from exporters.options import TOLERANCES, GateOptions, Tolerance


def judge(parity: Parity, options: GateOptions, tolerances: Sequence[Tolerance] = ()) -> Verdict:
    """Hold ``parity`` against the margin, the labels and the tolerances of its precision."""
    checks = [_accuracy(parity, options), _labels(parity, options)]
    checks += [_tolerance(parity, row) for row in tolerances]
    return Verdict(all(check.passed for check in checks), tuple(checks))


def screen(parity: Parity, options: GateOptions, tolerances: Sequence[Tolerance] = ()) -> Verdict:
    """The same questions on validation images, to choose what is worth the test split.

    Where the images are too few to bound the loss below the margin even if no answer changes, the
    loss that was found stands in for its bound.
    """
    verdict = judge(parity, options, tolerances)
    if verdict.passed or _images_needed(parity, options) <= parity.images:
        return verdict
    lost = 100 * (parity.reference_accuracy - parity.candidate_accuracy)
    checks = tuple(
        replace(check, passed=lost < options.margin_points) if check.name == "accuracy" else check
        for check in verdict.checks
    )
    return Verdict(all(check.passed for check in checks), checks)


def too_few_images(options: GateOptions, images: int, labels: int, task: str) -> str | None:
    """Why no variant could pass on so many images even if no answer changed; None where one could.

    A variant with the very bits of the reference passes in any case, but no other form has them.
    """
    if task == "multi-class":
        bound = tango_upper(0, 0, max(images, 1), options.alpha)
    else:
        bound = mean_loss_upper([(0, images)], labels, options.alpha)
    if 100 * bound < options.margin_points:
        return None
    return (
        f"{images:,} test images show at best that less than {100 * bound:.3g} points are lost, "
        f"and the margin is {options.margin_points:g}"
    )


def within_bounds(
    options: GateOptions, *, size_bytes: int, latency_ms: float, memory_mb: float | None
) -> tuple[Check, ...]:
    """Hold a variant's size and what was measured of it here against the recipe's bounds; no
    check where there is no bound. Memory that could not be measured does not pass one."""
    found = (
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
        for name, unit, value, limit in found
        if limit is not None
    )


def tolerances_for(variant_id: str) -> tuple[Tolerance, ...]:
    """The rows of the precision that a variant's id begins with; raises ExportError."""
    precision = variant_id.partition("-")[0]
    if precision not in TOLERANCES:
        raise ExportError(
            f"there are no tolerances for variant {variant_id!r}; expected an id that begins with "
            f"{', '.join(TOLERANCES)}."
        )
    return TOLERANCES[precision]


def loss_bound(parity: Parity, alpha: float) -> float:
    """Upper bound, at one-sided level ``alpha``, of the accuracy that the candidate loses.

    A share, not points; for multi-label of the mean over labels, with the image as the unit,
    since the answers to one image hang together.
    """
    if parity.max_abs == 0 and parity.pairs.only_reference == 0:
        return 0.0  # the same probabilities and no answer lost: it is the same model
    if parity.task == "multi-class":
        return tango_upper(
            parity.pairs.only_reference, parity.pairs.only_candidate, parity.images, alpha
        )
    return mean_loss_upper(parity.losses, len(parity.labels), alpha)


def tango_upper(lost: int, won: int, total: int, alpha: float) -> float:
    """Upper bound of (lost - won) / total by Tango's score interval.

    ``lost`` and ``won`` are the discordant pairs of ``total``. The bound is the difference d at
    which the score statistic (lost - won - total * d) / sqrt(total * (2 q + d (1 - d))) falls to
    minus the normal quantile; q is the maximum-likelihood share of ``won`` given d. Well-behaved
    when discordant pairs are few or none: without any it is z^2 / (total + z^2).
    """
    z = NormalDist().inv_cdf(1 - alpha)
    low, high = (lost - won) / total, 1.0  # the statistic is 0 at low and falls with d
    for _ in range(60):  # halving [low, 1] 60 times ends below the spacing of floats
        middle = (low + high) / 2
        if _tango_statistic(lost, won, total, middle) > -z:
            low = middle
        else:
            high = middle
    return high


def _tango_statistic(lost: int, won: int, total: int, d: float) -> float:
    a = 2 * total
    b = -lost - won + (2 * total - lost + won) * d
    c = -won * d * (1 - d)
    q = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = total * (2 * q + d * (1 - d))
    distance = lost - won - total * d
    if variance <= 0:  # d is 1, or 0 without discordant pairs
        return 0.0 if distance == 0 else math.copysign(math.inf, distance)
    return distance / math.sqrt(variance)


def mean_loss_upper(losses: Sequence[tuple[int, int]], labels: int, alpha: float) -> float:
    """Upper bound of the mean over images of (right answers lost) / labels.

    ``losses`` are (answers lost in an image, how many such images). Student's t on the paired
    values of the images, after adding one image that loses one answer and one that wins one:
    without these (Bonett and Price's adjustment, which this is for one label) the bound would be
    0 whenever no answer changed, however few the images.
    """
    count = 2 + sum(images for _, images in losses)
    mean = sum(lost * images for lost, images in losses) / count
    square = (2 + sum(lost * lost * images for lost, images in losses)) / count
    deviation = math.sqrt(max(square - mean * mean, 0.0) * count / (count - 1))
    return (mean + student_t(1 - alpha, count - 1) * deviation / math.sqrt(count)) / labels


def student_t(probability: float, degrees: int) -> float:
    """Quantile of Student's t from 3 degrees on, to 1 % there and 0.01 % from 10 on, by the
    expansion in Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5."""
    z = NormalDist().inv_cdf(probability)
    return (
        z
        + (z**3 + z) / (4 * degrees)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3)
    )


def mcnemar(lost: int, won: int) -> float:
    """Exact one-sided p: the chance of at least ``lost`` of the discordant pairs being losses if
    losses and wins were equally likely. 1 without discordant pairs."""
    total = lost + won
    if lost <= 0:
        return 1.0
    log_half = total * math.log(2)
    tail = math.fsum(math.exp(_log_choose(total, k) - log_half) for k in range(lost, total + 1))
    return min(1.0, tail)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by Holm's step-down procedure, in the given order."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _accuracy(parity: Parity, options: GateOptions) -> Check:
    bound = 100 * loss_bound(parity, options.alpha)
    passed = bound < options.margin_points
    found = 100 * (parity.reference_accuracy - parity.candidate_accuracy)
    pairs = parity.pairs
    unit = "images" if parity.task == "multi-class" else "answers"
    text = (
        f"accuracy {100 * parity.candidate_accuracy:.2f} % against "
        f"{100 * parity.reference_accuracy:.2f} % ({pairs.only_reference} {unit} lost, "
        f"{pairs.only_candidate} won of {pairs.total}): it loses {found:.3f} points, and at most "
        f"{bound:.3f} with {100 * (1 - options.alpha):g} % confidence; the margin is "
        f"{options.margin_points:g}"
    )
    if not passed and (needed := _images_needed(parity, options)) > parity.images:
        text += f". So few images cannot show it: {needed} are needed even if no answer changes"
    return Check("accuracy", passed, bound, options.margin_points, text)


def _images_needed(parity: Parity, options: GateOptions) -> int:
    """How many test images would pass without one changed answer."""
    z = NormalDist().inv_cdf(1 - options.alpha)
    margin = options.margin_points / 100
    if margin <= 0:
        return 0
    if parity.task == "multi-class":
        return math.floor(z * z * (1 - margin) / margin) + 1  # z^2 / (n + z^2) < margin
    return math.ceil(z * math.sqrt(2) / (margin * len(parity.labels)))


def _labels(parity: Parity, options: GateOptions) -> Check:
    counts = [label.pairs for label in parity.labels]
    adjusted = holm([mcnemar(pairs.only_reference, pairs.only_candidate) for pairs in counts])
    worse = [
        (label, p) for label, p in zip(parity.labels, adjusted, strict=True) if p <= options.alpha
    ]
    smallest = min(adjusted, default=1.0)
    what = "class" if parity.task == "multi-class" else "attribute"
    if worse:
        text = f"significantly worse: {', '.join(_worse(label, p) for label, p in worse)}"
    else:
        text = (
            f"no {what} is significantly worse (smallest p {smallest:.3g} after Holm's "
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
    found = float(getattr(parity, row.metric))
    passed = found <= row.limit
    name = {"max_abs": "largest", "mean_abs": "mean", "p99_abs": "99th percentile"}[row.metric]
    text = f"{name} difference of probabilities {found:.3g}, allowed {row.limit:g} ({row.reason})"
    return Check(row.metric, passed, found, row.limit, text)
