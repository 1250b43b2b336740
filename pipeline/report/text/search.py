"""Sentences about the search, for the report's page, the terminal and the model card. Standard
library only."""

from __future__ import annotations

from exporters.search.result import SearchResult
from exporters.search.trial import Trial
from pipeline.report.model import Report
from pipeline.report.text.summary import count, percent, points, seconds, share, standing

COSTLY_DB = 1.0  # regained by a layer that is called the costliest, at least


def overview(report: Report) -> str:
    """The number of candidates, the time, and the images that decided."""
    search = report.search
    if search is None:
        return ""
    passed, images = sum(trial.passed for trial in search.trials), _images(report)
    on = "validation images" if images is None else f"{count(images)} validation images"
    return (
        f"{len(search.trials)} candidates were tried in {seconds(search.seconds)} and compared "
        f"with FP32 on {on}; {passed} passed, and {len(search.chosen)} continued to the test split."
    )


def confirmed(report: Report) -> str:
    """Saturation that was measured on this CPU; "" in reports of older searches."""
    trials = report.search.trials if report.search else ()
    seen = [(trial, trial.confirmation) for trial in trials if trial.confirmation is not None]
    if not seen:
        return ""
    if not seen[0][1].visible:
        return (
            f"Sums that stop at 16 bits are simulated: this CPU ({seen[0][1].target}) adds up "
            "exactly, so running the files here cannot show saturation."
        )
    safe = max((row.exact_difference for trial, row in seen if trial.portable), default=0.0)
    risky = max((row.exact_difference for trial, row in seen if not trial.portable), default=0.0)
    return (
        "Default kernels of this CPU against exact ones, on real and extreme images: portable "
        f"files differ by {safe:.2g} at most, the others by {risky:.2g}."
    )


def _images(report: Report) -> int | None:
    """Number of validation images that decided; None when it is unknown."""
    available = report.data.counts.get("val")
    requested = report.recipe.get("quantize", {}).get("search", {}).get("validation_images")
    if available is None or not isinstance(requested, int):
        return available
    return min(available, requested)


def left_out(report: Report) -> str | None:
    """The steps that a search which ended early left out; None for a complete one."""
    search = report.search
    if search is None or not search.incomplete:
        return None
    minutes = report.recipe.get("quantize", {}).get("search", {}).get("minutes")
    over = isinstance(minutes, int | float) and search.seconds >= 60 * minutes
    why = f"its limit is {minutes:g} minutes" if over else "it was stopped"
    return (
        f"The search ended after {seconds(search.seconds)}, {why}. Not tried or not finished: "
        f"{', '.join(search.untried)}. The results until then are below; better candidates may be "
        "missing."
    )


def saturation(trial: Trial) -> str:
    """The layers that saturate and the share of their outputs; "" when none can."""
    if not trial.saturation:
        return ""
    if not trial.saturating:
        return "sums could saturate; none did"
    layers = [f"{row.node} {share(row.saturated)}" for row in trial.saturating[:3]]
    more = len(trial.saturating) - len(layers)
    return "saturates: " + ", ".join(layers) + (f" and {more} more" if more else "")


def outcome(search: SearchResult, trial: Trial) -> str:
    """The outcome of a trial: chosen, refused and the reason, or worse than the chosen one."""
    if trial.error is not None:
        return trial.error
    if trial.id in search.chosen:
        return "continued to the test split"
    if trial.assessment is None:
        return "not assessed"
    if not trial.passed:
        return "; ".join(trial.assessment.failures)
    best = search.best_int8
    return _worse(trial, best) if best else "not chosen"


def _worse(trial: Trial, best: Trial) -> str:
    """The respects in which a trial that passed is worse than the chosen one."""
    worse = []
    mine, its = trial.speed, best.speed
    if mine and its and round(mine.speedup, 2) < round(its.speedup, 2):
        worse.append("slower")
    if trial.assessment and best.assessment:
        noise = best.assessment.sqnr_db - trial.assessment.sqnr_db
        if noise >= 0.05:
            worse.append(f"{noise:.1f} dB noisier")
    than = f"{' and '.join(worse)} than {best.id}" if worse else ""
    unsafe = "not portable" if best.portable and not trial.portable else ""
    return "; ".join(filter(None, (unsafe, than))) or f"{best.id} was chosen instead"


# --- where INT8 hurts -----------------------------------------------------------------------


def dropped(report: Report) -> bool:
    """True when the INT8 variant to explain was refused for its answers, on the test split or
    before it."""
    if report.int8 is not None:
        return not report.int8.passed and report.int8.speed is None
    explained = _explained(report)
    return explained is not None and not explained.passed


def title(report: Report) -> str:
    """Title of the section on the INT8 variant, which claims a drop only where there is one."""
    return "Why did accuracy drop?" if dropped(report) else "Where INT8 hurts"


def _explained(report: Report) -> Trial | None:
    search = report.search
    if search is None or search.explanation is None:
        return None
    return search.by_id.get(search.explanation.variant)


def loss(report: Report) -> str | None:
    """Accuracy lost and answers changed by INT8; None without an INT8 variant."""
    variant, changes = report.int8, report.flips
    if variant is None:
        return None
    change = variant.accuracy_percent - report.reference.accuracy_percent
    images = count(report.data.counts.get("test"))
    text = (
        f"{variant.id} {standing(variant)}. On {images} test "
        f"images it answers {percent(variant.accuracy_percent)} right, {points(change)} "
        "points against PyTorch"
    )
    if changes is None or changes.variant != variant.id:
        return text + "."
    return (
        f"{text}: of {count(changes.answers)} answers {_number(changes.lost)} were lost and "
        f"{_number(changes.won)} won."
    )


def _number(value: int) -> str:
    return count(value) if value else "none"


def layer_finding(report: Report) -> str | None:
    """The layer that costs most, or that none does; None when layers were not measured."""
    explanation = report.search.explanation if report.search else None
    if explanation is None or not explanation.damage:
        return None
    worst = max(explanation.damage, key=lambda row: row.sqnr_gained_db)
    trial = _explained(report)
    refused = trial is not None and not trial.passed
    name = explanation.variant + (" (refused on validation data)" if refused else "")
    if worst.sqnr_gained_db < COSTLY_DB:
        return (
            f"No single layer dominates the loss of {name}: none gives back {COSTLY_DB:g} dB when "
            "it alone stays float."
        )
    return (
        f"{worst.node} costs most in {name}: alone in float it gives back "
        f"{worst.sqnr_gained_db:.1f} dB of the probabilities' signal to noise."
    )
