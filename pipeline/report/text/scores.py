"""Rows, intervals and notes on the scores, for the page, the terminal and the model card."""

from __future__ import annotations

from dataclasses import dataclass

from exporters.evaluate.score_values import Estimate, LabelScore, Metrics
from exporters.evaluate.tasks import label_task
from pipeline.report.model import Report
from pipeline.report.text import summary as words
from pipeline.tasks import LabelledTask, training_task

_OF = {"balanced": "balanced accuracy", "accuracy": "accuracy"}


@dataclass(frozen=True)
class Row:
    """One line of the summary: a model, the one that it is compared with, or the difference."""

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
    result = [Row(own.id, own.own)]
    if network is not own:
        result.append(Row(network.id, network.own))
    baseline = scores.baseline
    if baseline is not None and baseline.score is not None and own.over_baseline is not None:
        result.append(Row(baseline.recipe, baseline.score.own))
        result.append(Row(f"gained over it{_common(report)}", own.over_baseline, gain=True))
    result.append(Row("majority answer", Metrics(scores.majority, None, None)))
    result.append(Row("gained over it", Metrics(own.over_majority, None, None), gain=True))
    return result


def _common(report: Report) -> str:
    """The number of labels that are compared; "" for all."""
    baseline = report.scores.baseline if report.scores else None
    common = baseline.common_labels if baseline else None
    if common is None or common == len(report.model.labels):
        return ""
    return f", {common} label{'s' if common != 1 else ''}"


def columns(report: Report) -> list[str]:
    """Names of the figures of the task: fields of ``Metrics``."""
    return list(label_task(report.model.task).metrics)


def interval(estimate: Estimate | None, digits: int = 2) -> str:
    """ "[90.80, 91.20]"; "" without an interval."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    low, high = (f"{end:.{digits}f}" for end in (estimate.low, estimate.high))
    return f"[{low}, {high}]".replace("-", "\N{MINUS SIGN}")


def figure(estimate: Estimate | None, gain: bool = False) -> str:
    """ "91.02", of a difference "+1.09"; "" where it is undefined."""
    if estimate is None:
        return ""
    return words.points(estimate.value) if gain else f"{estimate.value:.2f}"


def verdict(gain: Estimate | None) -> str:
    """ "won" or "lost" where the interval of a difference excludes zero; else ""."""
    if gain is None or gain.low is None or gain.high is None:
        return ""
    return "won" if gain.low > 0 else "lost" if gain.high < 0 else ""


def labels(report: Report) -> list[LabelScore]:
    """Labels of the default variant by their gain over the majority answer, the largest first;
    classes, which have no such gain, by recall."""
    shown = report.shown_score

    def rank(row: LabelScore) -> float:
        best = row.over_majority or row.own.accuracy
        return -best.value if best else 1.0

    return sorted(shown.labels, key=rank) if shown else []


def missing(report: Report) -> str:
    """The reason why the baseline that the recipe names is missing; else ""."""
    baseline = report.scores.baseline if report.scores else None
    if baseline is None or baseline.missing is None:
        return ""
    return f"The recipe names {baseline.recipe} as its baseline: {baseline.missing}."


def brief(report: Report) -> str:
    """:func:`method` in one line."""
    note = _task(report).figures_note(_OF[_objective(report)])
    return f"In brackets 95 % intervals. {note}"


def method(report: Report) -> str:
    """The method behind the figures, in a few sentences."""
    scores = report.scores
    if scores is None:
        return ""
    rows = scores.forms[0].labels
    undefined = [row.label for row in rows if row.own.average_precision is None]
    text = _task(report).method(_OF[_objective(report)], len(rows), undefined)
    return (
        f"{text} In brackets 95{words.SPACE}% intervals from {scores.samples:,} bootstrap samples "
        "of the test images (of single proportions: Wilson's); differences are paired. Several "
        "images of one person count as independent. The majority answer is the commonest of the "
        "train split."
    )


def _task(report: Report) -> LabelledTask:
    return training_task(report.model.task)


def _objective(report: Report) -> str:
    """The metric that the thresholds that ship maximize."""
    return str(report.recipe.get("gate", {}).get("thresholds", "balanced"))


def shipped(report: Report, metric: str) -> str:
    """The text under a figure with the thresholds that ship: its interval, or the figure with the
    thresholds for this metric where those that ship were chosen for another one."""
    own = None if report.shown_score is None else getattr(report.shown_score.own, metric)
    if own is None:
        return ""
    if _OF[_objective(report)].replace(" ", "_") == metric:
        return interval(own)
    return f"{own.value:.2f}{words.SPACE}% with thresholds chosen for it"


def accuracy_note(report: Report) -> str:
    """The thresholds that accuracy has in the tables of variants; "" without thresholds."""
    if report.scores is None or not label_task(report.model.task).has_thresholds:
        return ""
    return f"With the thresholds that ship, chosen for {_OF[_objective(report)]}."
