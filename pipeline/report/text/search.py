"""What the search found, in words: for the report's page, the terminal and the model card. Facts
about what was measured and chosen; decides nothing. Standard library only."""

from __future__ import annotations

from exporters.search.result import SearchResult
from exporters.search.trial import Trial
from pipeline.report.model import Report
from pipeline.report.text.summary import count, percent, points, seconds, share, standing

STANDS_OUT_DB = 1.0  # what a layer must give back to be called the one that costs most


def overview(report: Report) -> str:
    """How much was tried, and on what it was decided."""
    search = report.search
    if search is None:
        return ""
    passed, images = sum(trial.passed for trial in search.trials), _images(report)
    on = "validation images" if images is None else f"{count(images)} validation images"
    return (
        f"{len(search.trials)} forms were tried in {seconds(search.seconds)} and held against FP32 "
        f"on {on}; {passed} passed, and {len(search.chosen)} went on to the test split."
    )


def confirmed(report: Report) -> str:
    """What running the files on this CPU could show of saturation; "" before that was kept."""
    trials = report.search.trials if report.search else ()
    seen = [(trial, trial.confirmation) for trial in trials if trial.confirmation is not None]
    if not seen:
        return ""
    if not seen[0][1].visible:
        return (
            f"Sums that stop at 16 bits are simulated: this CPU ({seen[0][1].target}) adds up "
            "exactly, so running the files here cannot show them."
        )
    safe = max((row.exact_difference for trial, row in seen if trial.portable), default=0.0)
    risky = max((row.exact_difference for trial, row in seen if not trial.portable), default=0.0)
    return (
        "Default kernels of this CPU against exact ones, on real and extreme images: portable "
        f"files differ by {safe:.2g} at most, the others by {risky:.2g}."
    )


def _images(report: Report) -> int | None:
    """Validation images that decided; None when the recipe does not tell."""
    there = report.data.counts.get("val")
    asked = report.recipe.get("quantize", {}).get("search", {}).get("validation_images")
    return min(there, asked) if there is not None and isinstance(asked, int) else there


def left_out(report: Report) -> str | None:
    """That the search ended early, and what it did not come to; None when it was done."""
    search = report.search
    if search is None or not search.incomplete:
        return None
    minutes = report.recipe.get("quantize", {}).get("search", {}).get("minutes")
    over = isinstance(minutes, int | float) and search.seconds >= 60 * minutes
    why = f"its limit is {minutes:g} minutes" if over else "it was stopped"
    return (
        f"The search ended after {seconds(search.seconds)}, {why}. Not tried or not finished: "
        f"{', '.join(search.untried)}. What was found until then is below; something better may "
        "have been missed."
    )


def saturation(trial: Trial) -> str:
    """Which layers saturate, and in what share of their outputs; "" when that cannot happen."""
    if not trial.saturation:
        return ""
    if not trial.saturating:
        return "sums could saturate; none did"
    told = [f"{row.node} {share(row.saturated)}" for row in trial.saturating[:3]]
    more = len(trial.saturating) - len(told)
    return "saturates: " + ", ".join(told) + (f" and {more} more" if more else "")


def fate(search: SearchResult, trial: Trial) -> str:
    """What became of a trial: chosen, refused and why, or in what the chosen one is better."""
    if trial.error is not None:
        return trial.error
    if trial.id in search.chosen:
        return "went on to the test split"
    if trial.assessment is None:
        return "not assessed"
    if not trial.passed:
        return "; ".join(trial.assessment.failures)
    best = search.best_int8
    return _behind(trial, best) if best else "not chosen"


def _behind(trial: Trial, best: Trial) -> str:
    """In what a trial that passed stands behind the chosen one."""
    told = []
    mine, its = trial.speed, best.speed
    if mine and its and round(mine.speedup, 2) < round(its.speedup, 2):
        told.append("slower")
    if trial.assessment and best.assessment:
        noise = best.assessment.sqnr_db - trial.assessment.sqnr_db
        if noise >= 0.05:
            told.append(f"{noise:.1f} dB noisier")
    than = f"{' and '.join(told)} than {best.id}" if told else ""
    unsafe = "not portable" if best.portable and not trial.portable else ""
    return "; ".join(filter(None, (unsafe, than))) or f"{best.id} was chosen instead"


# --- where INT8 hurts -----------------------------------------------------------------------


def dropped(report: Report) -> bool:
    """Whether the INT8 variant to explain was refused for its answers, on the test split or
    before it."""
    if report.int8 is not None:
        return not report.int8.passed and report.int8.speed is None
    explained = _explained(report)
    return explained is not None and not explained.passed


def title(report: Report) -> str:
    """Of the page that explains the INT8 variant; claims a drop only where one was found."""
    return "Why did accuracy drop?" if dropped(report) else "Where INT8 hurts"


def _explained(report: Report) -> Trial | None:
    search = report.search
    if search is None or search.explanation is None:
        return None
    return search.by_id.get(search.explanation.variant)


def loss(report: Report) -> str | None:
    """What the variant loses in answers, and how many changed; None without an INT8 variant."""
    variant, found = report.int8, report.flips
    if variant is None:
        return None
    change = variant.accuracy_percent - report.reference.accuracy_percent
    images = count(report.data.counts.get("test"))
    text = (
        f"{variant.id} {standing(variant)}. On {images} test "
        f"images it answers {percent(variant.accuracy_percent)} right, {points(change)} "
        "points against PyTorch"
    )
    if found is None or found.variant != variant.id:
        return text + "."
    return (
        f"{text}: of {count(found.answers)} answers {_number(found.lost)} were lost and "
        f"{_number(found.won)} won."
    )


def _number(value: int) -> str:
    return count(value) if value else "none"


def layer_finding(report: Report) -> str | None:
    """Which layer costs most, or that none stands out; None when layers were not looked into."""
    explanation = report.search.explanation if report.search else None
    if explanation is None or not explanation.damage:
        return None
    worst = max(explanation.damage, key=lambda row: row.sqnr_gained_db)
    trial = _explained(report)
    refused = trial is not None and not trial.passed
    name = explanation.variant + (" (refused on validation data)" if refused else "")
    if worst.sqnr_gained_db < STANDS_OUT_DB:
        return (
            f"No single layer stands out in {name}: none gives back {STANDS_OUT_DB:g} dB when it "
            "alone stays float."
        )
    return (
        f"{worst.node} costs most in {name}: alone in float it gives back "
        f"{worst.sqnr_gained_db:.1f} dB of the probabilities' signal to noise."
    )
