"""What the scores say in words: rows of the summary, intervals, and how they were measured. For
the page, the terminal and the model card alike."""

from __future__ import annotations

from dataclasses import dataclass

from exporters.evaluate.score_values import Estimate, LabelScore, Metrics
from pipeline.report.model import Report
from pipeline.report.text import summary as words
from pipeline.tasks import LabelledTask, training_task

_OF = {"balanced": "balanced accuracy", "accuracy": "accuracy"}


@dataclass(frozen=True)
class Row:
    """One line of the summary: a form, what it is compared with, or the difference."""

    name: str
    metrics: Metrics
    gain: bool = False  # percentage points over the line above


def rows(report: Report) -> list[Row]:
    """The default variant and PyTorch, then the baseline and the majority answer, each with what
    the default variant gains over it; empty without scores."""
    scores, own = report.scores, report.shown_score
    if scores is None or own is None:
        return []
    network = scores.forms[0]
    found = [Row(own.id, own.own)]
    if network is not own:
        found.append(Row(network.id, network.own))
    baseline = scores.baseline
    if baseline is not None and baseline.score is not None and own.over_baseline is not None:
        found.append(Row(baseline.recipe, baseline.score.own))
        found.append(Row(f"gained over it{_common(report)}", own.over_baseline, gain=True))
    found.append(Row("majority answer", Metrics(scores.majority, None, None)))
    found.append(Row("gained over it", Metrics(own.over_majority, None, None), gain=True))
    return found


def _common(report: Report) -> str:
    """That only some labels are compared."""
    baseline = report.scores.baseline if report.scores else None
    common = baseline.common_labels if baseline else None
    if common is None or common == len(report.model.labels):
        return ""
    return f", {common} label{'s' if common != 1 else ''}"


def columns(report: Report) -> list[str]:
    """Names of the figures that there are: fields of ``Metrics``."""
    return list(_task(report).evaluation.metrics)


def interval(estimate: Estimate | None, digits: int = 2) -> str:
    """ "[90.80, 91.20]"; nothing where there is none."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    low, high = (f"{end:.{digits}f}" for end in (estimate.low, estimate.high))
    return f"[{low}, {high}]".replace("-", "\N{MINUS SIGN}")


def figure(estimate: Estimate | None, gain: bool = False) -> str:
    """ "91.02", of a difference "+1.09"; nothing where it is undefined."""
    if estimate is None:
        return ""
    return words.points(estimate.value) if gain else f"{estimate.value:.2f}"


def verdict(gain: Estimate | None) -> str:
    """ "won" or "lost" where the interval of a difference leaves zero out; else nothing."""
    if gain is None or gain.low is None or gain.high is None:
        return ""
    return "won" if gain.low > 0 else "lost" if gain.high < 0 else ""


def labels(report: Report) -> list[LabelScore]:
    """Of the default variant, the largest gain over the majority answer first; classes, which have
    no such gain, by falling recall."""
    shown = report.shown_score

    def rank(row: LabelScore) -> float:
        best = row.over_majority or row.own.accuracy
        return -best.value if best else 1.0

    return sorted(shown.labels, key=rank) if shown else []


def missing(report: Report) -> str:
    """That a baseline was named, but there is nothing to compare with; else nothing."""
    baseline = report.scores.baseline if report.scores else None
    if baseline is None or baseline.missing is None:
        return ""
    return f"The recipe names {baseline.recipe} as its baseline: {baseline.missing}."


def brief(report: Report) -> str:
    """:func:`method` in one line."""
    note = _task(report).figures_note(_OF[_objective(report)])
    return f"In brackets 95 % intervals. {note}"


def method(report: Report) -> str:
    """How the figures came about, in a few sentences."""
    scores = report.scores
    if scores is None:
        return ""
    text = _task(report).method(_OF[_objective(report)], scores)
    return (
        f"{text} In brackets 95{words.SPACE}% intervals from {scores.samples:,} bootstrap samples "
        "of the test images (of single proportions: Wilson's); differences are paired. Several "
        "images of one person count as independent. The majority answer is the commonest of the "
        "train split."
    )


def _task(report: Report) -> LabelledTask:
    return training_task(report.model.task)


def _objective(report: Report) -> str:
    """What the thresholds that ship were chosen for."""
    return str(report.recipe.get("gate", {}).get("thresholds", "balanced"))


def shipped(report: Report, metric: str) -> str:
    """The text under a figure with the thresholds that ship: its interval, or where these were
    chosen for another metric, what the best for this one give."""
    own = None if report.shown_score is None else getattr(report.shown_score.own, metric)
    if own is None:
        return ""
    if _OF[_objective(report)].replace(" ", "_") == metric:
        return interval(own)
    return f"{own.value:.2f}{words.SPACE}% with thresholds chosen for it"


def accuracy_note(report: Report) -> str:
    """What accuracy means in the tables of variants, where the thresholds that ship are used."""
    if report.scores is None or not _task(report).evaluation.has_thresholds:
        return ""
    return f"With the thresholds that ship, chosen for {_OF[_objective(report)]}."
