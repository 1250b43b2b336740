"""Statistics of paired answers: bounds of the accuracy that is lost, and tests per label.

Sources: T. Tango, "Equivalence test and confidence interval for the difference in proportions
for the paired-sample design", Statistics in Medicine 17 (1998) 891-908; D. Bonett and R. Price,
"Adjusted Wald confidence interval for a difference of binomial proportions based on paired data",
Journal of Educational and Behavioral Statistics 37 (2012) 479-488; Q. McNemar, Psychometrika 12
(1947) 153-157, in its exact form; S. Holm, "A simple sequentially rejective multiple test
procedure", Scandinavian Journal of Statistics 6 (1979) 65-70."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

Losses = Sequence[tuple[int, int]]  # (right answers lost in an image, how many such images)


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
        if tango_statistic(lost, won, total, middle) > -z:
            low = middle
        else:
            high = middle
    return high


def tango_statistic(lost: int, won: int, total: int, d: float) -> float:
    """The score statistic of the hypothesis that the true difference is ``d``."""
    a = 2 * total
    b = -lost - won + (2 * total - lost + won) * d
    c = -won * d * (1 - d)
    q = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = total * (2 * q + d * (1 - d))
    distance = lost - won - total * d
    if variance <= 0:  # d is 1, or 0 without discordant pairs
        return 0.0 if distance == 0 else math.copysign(math.inf, distance)
    return distance / math.sqrt(variance)


def mean_loss_upper(losses: Losses, labels: int, alpha: float) -> float:
    """Upper bound of the mean over images of (right answers lost) / labels.

    Student's t on the paired values of the images, after adding one image that loses one answer
    and one that wins one: without these (Bonett and Price's adjustment, which this is for one
    label) the bound would be 0 whenever no answer changed, however few the images.
    """
    from scipy.stats import t as student_t  # here: a second of imports

    count = 2 + sum(images for _, images in losses)
    mean = sum(lost * images for lost, images in losses) / count
    square = (2 + sum(lost * lost * images for lost, images in losses)) / count
    deviation = math.sqrt(max(square - mean * mean, 0.0) * count / (count - 1))
    quantile = float(student_t.ppf(1 - alpha, count - 1))
    return (mean + quantile * deviation / math.sqrt(count)) / labels


def mcnemar(lost: int, won: int) -> float:
    """Exact one-sided p: the chance of at least ``lost`` of the discordant pairs being losses if
    losses and wins were equally likely. 1 without losses."""
    if lost <= 0:
        return 1.0
    from scipy.stats import binomtest  # here: a second of imports

    return float(binomtest(lost, lost + won, alternative="greater").pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by Holm's step-down procedure, in the given order."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
