"""Formatted numbers and the main sentences of a report, for its page and its charts. Standard
library only. None is always written as "not measured"; a thin no-break space precedes units."""

from __future__ import annotations

import math
from dataclasses import dataclass

from exporters.evaluate.score_values import doubt
from pipeline.report.model import Report, VariantReport
from pipeline.tasks import training_task
from runtime.manifest import WORTH

MISSING = "not measured"
INCOMPLETE = "INCOMPLETE: "  # how the note of an incomplete training begins; see learning/fit.py
SPACE = "\N{NARROW NO-BREAK SPACE}"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def significant(value: float, digits: int = 3) -> str:
    """``digits`` significant digits, never in exponent form: 0.0843, 12.3, 1,234."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    places = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    return f"{value:,.{places}f}"


def milliseconds(value: float | None) -> str:
    """ "0.0843 ms"."""
    return MISSING if value is None else significant(value) + SPACE + "ms"


def percent(value: float | None, digits: int = 2) -> str:
    """ "99.52 %"."""
    return MISSING if value is None else f"{value:.{digits}f}{SPACE}%"


def share(value: float) -> str:
    """A share of one as a percentage with two or three significant digits: "32 %", "0.018 %"."""
    if value <= 0:
        return f"0{SPACE}%"
    if 100 * value < 0.001:
        return f"under 0.001{SPACE}%"
    return significant(100 * value, 3 if value >= 0.995 else 2) + SPACE + "%"


def decibels(value: float) -> str:
    """ "38.2 dB"; "equal" where there is no noise at all."""
    return "equal" if value >= 199.5 else f"{value:.1f}{SPACE}dB".replace("-", "\N{MINUS SIGN}")


def points(value: float) -> str:
    """A difference of percentages with its sign: "+0.02", "-0.10", "0.00"."""
    text = f"{value:+.2f}"
    return text[1:] if text[1:] == "0.00" else text.replace("-", "\N{MINUS SIGN}")


def size(value: int | None) -> str:
    """Bytes in decimal units: "44.6 kB", "3.4 MB"."""
    if value is None:
        return MISSING
    amount, unit = float(value), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5 or unit == "GB":
            break
        amount /= 1000
    text = f"{value}" if unit == "B" else significant(float(f"{amount:.3g}"))
    return text + SPACE + unit


def megabytes(value: float | None) -> str:
    """ "58.2 MB"."""
    return MISSING if value is None else significant(value) + SPACE + "MB"


def times(value: float | None) -> str:
    """ "1.95×"."""
    return MISSING if value is None else f"{value:.2f}×"


def count(value: float | None) -> str:
    """Whole numbers with thousands separated: "10,000"."""
    return MISSING if value is None else f"{value:,.0f}"


def seconds(value: float | None) -> str:
    """ "0.4 s", "41 s", "4 min 31 s"."""
    if value is None:
        return MISSING
    if value < 10:
        return f"{value:.1f}{SPACE}s"
    minutes, rest = divmod(round(value), 60)
    parts = (f"{minutes}{SPACE}min" if minutes else "", f"{rest}{SPACE}s" if rest else "")
    return " ".join(filter(None, parts))


def power(value: float | None, digits: int = 1) -> str:
    """A small number as a power of ten: "3.1×10⁻⁷"; from 0.001 upwards plainly: "0.0124"."""
    if value is None:
        return MISSING
    if value == 0:
        return "0"
    if value >= 1e-3:
        return f"{value:.{digits + 1}g}"
    mantissa, _, exponent = f"{value:.{digits}e}".partition("e")
    raised = "10" + str(int(exponent)).translate(_SUPERSCRIPTS)
    return raised if digits == 0 and mantissa == "1" else f"{mantissa}×{raised}"


def lost(value: float) -> str:
    """Points that were lost: "0.02"; won ones are "−0.17"."""
    return points(value).removeprefix("+")


def signed_power(value: float) -> str:
    """A change as :func:`power` formats it, with its sign: "+3.7×10⁻⁴", "−0.012"."""
    sign = "\N{MINUS SIGN}" if value < 0 else "+" if value > 0 else ""
    return sign + power(abs(value))


def span(ends: tuple[float, float]) -> str:
    """Two ends of a range with three significant digits: "−1.25 to 4.96"."""
    return " to ".join(significant(end) for end in ends).replace("-", "\N{MINUS SIGN}")


# --- findings -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Doubt:
    """A reason against shipping a model although a variant passed the gate, which only compares
    variants with the trained network."""

    name: str  # in capitals, for terminals
    but: str  # the end of the headline
    text: str  # with the numbers


def doubts(report: Report) -> tuple[Doubt, ...]:
    """All doubts, the worst first, for the page, the model card, the bundle and the terminal."""
    result = []
    if report.scores is not None and report.shown_score is not None:
        # the variant that ships, and the network that it was made from
        rows = (report.shown_score, report.scores.forms[0])
        why = next(filter(None, (doubt(report.scores.images, row) for row in rows)), None)
        if why is not None:
            text = f"{why}. Train longer, or give more images."
            but = "the network is not shown to be better than the majority answer"
            result.append(Doubt("NOT BETTER THAN CHANCE", but, text))
    if report.training.incomplete:
        marked = (note for note in report.training.notes if note.startswith(INCOMPLETE))
        text = next(marked, "").removeprefix(INCOMPLETE) or "training was stopped by its time limit"
        text = f"{text}. A longer training may do better."
        result.append(Doubt("INCOMPLETE TRAINING", "its training is incomplete", text))
    return tuple(result)


def verdict(report: Report) -> str:
    """The headline: the variant that ships, or that none does."""
    default = report.default
    if default is not None and (reasons := doubts(report)):
        return f"{default.id} passed the gate, but {reasons[0].but}"
    if default is not None and report.data.synthetic:
        return f"{default.id} passed the gate, on synthetic data"
    if default is not None:
        return f"{default.id} is ready to ship"
    if any(variant.passed for variant in report.variants):
        return "No default was chosen"
    return "Nothing may ship: no variant passed the gate"


def summary(report: Report) -> str:
    """One sentence under the headline: accuracy, size, speed, of the default variant."""
    default, images = report.default, report.data.counts.get("test")
    if default is None:
        return (
            f"PyTorch reaches {percent(report.reference.accuracy_percent)} on "
            f"{count(images)} test images; the reason for refusing each variant is below."
        )
    task = training_task(report.model.task)
    if report.scores and not task.exclusive:
        text = (
            f"Of its attribute answers on {count(images)} test images "
            f"{percent(default.accuracy_percent)} are right with the thresholds that ship. Always "
            f"giving the commoner answer reaches {percent(report.scores.majority.value)}. "
        )
    else:
        text = (
            f"{percent(default.accuracy_percent)} of its {task.answer_nouns} on {count(images)} "
            f"test images are right; PyTorch reaches {percent(report.reference.accuracy_percent)}. "
        )
    text += f"It takes {size(default.size_bytes)}"
    if default.speed is None:
        return text + "; its speed was not measured."
    threads = default.speed.threads
    on = f" on {threads} thread{'s' if threads != 1 else ''}" if threads else ""
    return f"{text} and {milliseconds(default.speed.p50_ms)} per image{on} ({report.hardware.cpu})."


def standing(variant: VariantReport) -> str:
    """The gate's verdict on a variant. Only a variant that keeps its accuracy is timed and then
    checked against the recipe's bounds of latency, size and memory."""
    if variant.passed:
        return "passed the gate"
    return "breaks a bound of the recipe" if variant.speed else "was refused by the gate"


def smaller(report: Report, variant: VariantReport) -> float | None:
    """Size of FP32 over the size of the variant."""
    fp32 = report.fp32
    return fp32.size_bytes / variant.size_bytes if fp32 and variant.size_bytes else None


def payoff(report: Report, variant: VariantReport) -> str | None:
    """The gain of a compressed variant over FP32, as a sentence; None for FP32 itself."""
    if variant.precision == "fp32" or report.fp32 is None:
        return None
    less = smaller(report, variant)
    smaller_by = f"{less:.1f} times smaller" if less and less >= 1.05 else None
    file = f"its file is {smaller_by or 'not smaller'}"
    if not variant.passed:
        speed = variant.speedup
        text = f"{times(speed.value)} the speed of FP32" if speed else "its speed was not measured"
        return f"{variant.id} {standing(variant)}; {text}."
    if variant.speedup is None:
        return f"{variant.id}: {file}; its speed was not measured here."
    gain, interval = variant.speedup, ""
    if gain.low is not None and gain.high is not None:
        interval = f" (95{SPACE}% interval {gain.low:.2f} to {gain.high:.2f})"
    if gain.value >= WORTH:
        return f"{variant.id}: {times(gain.value)} the speed of FP32{interval}, and {file}."
    offered = f"offered for its size, {smaller_by}" if smaller_by else "not smaller either"
    return (
        f"{variant.precision.upper()} does not pay on this CPU: {times(gain.value)} the speed of "
        f"FP32{interval}. {variant.id} is {offered}."
    )
