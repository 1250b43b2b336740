"""The model card that travels in the bundle: what the model is, what it was measured at, and
what it must not be used for, in Markdown."""

from __future__ import annotations

from . import words
from .data import Report, VariantReport


def model_card(report: Report) -> str:
    """Markdown for people who find the bundle without its makers."""
    model, data = report.model, report.data
    height, width, channels = model.input_shape
    lines = [
        f"# {model.name} {model.version}",
        "",
        *_warning(report),
        f"A {model.task} model of {model.parameters:,} parameters. Pixels in: uint8 "
        f"[N, {height}, {width}, {channels}]. Probabilities out: float32 [N, {len(model.labels)}].",
        "",
        f"Labels: {', '.join(model.labels)}.",
        "",
        "## Data",
        "",
        f"{data.name}: " + ", ".join(f"{n:,} {split}" for split, n in data.counts.items()) + ". "
        f"Licence of the data: {data.licence}. Licence of the weights: {model.licence}.",
        "",
        *[f"- {note}" for note in data.notes],
        "",
        "## Measured on the test split",
        "",
        f"PyTorch: {report.reference.accuracy_percent:.2f} %.",
        "",
        "| variant | accuracy | largest difference to PyTorch | KiB | ms at batch 1 |",
        "|---|---|---|---|---|",
        *[_row(variant) for variant in report.variants if variant.passed],
        "",
        f"Timed on: {report.hardware.caption()}.",
        "",
        *_int8(report),
        "## Limits",
        "",
        "The figures hold for images like those it was tested on. Hashes in the bundle detect "
        "damage, not forgery.",
    ]
    return "\n".join(lines) + "\n"


def _warning(report: Report) -> list[str]:
    if not report.data.synthetic:
        return []
    return [
        "**SYNTHETIC: trained and tested on generated images. The figures say nothing about "
        "real photographs.**",
        "",
    ]


def _int8(report: Report) -> list[str]:
    """What INT8 gains where it was measured, and that it was measured there alone."""
    rows = [row for row in report.variants if row.precision == "int8" and row.passed]
    gains = [f"- {text}" for row in rows if (text := words.payoff(report, row))]
    if not gains:
        return []
    elsewhere = "Measured on that machine alone; `autotune` times the variants where they run."
    return ["## What INT8 gains", "", *gains, "", elsewhere, ""]


def _row(variant: VariantReport) -> str:
    speed = f"{variant.speed.p50_ms:.3f}" if variant.speed else "not measured"
    return (
        f"| {variant.id} | {variant.accuracy_percent:.2f} % | {variant.difference.max:.2g} "
        f"| {variant.size_bytes / 1024:.0f} | {speed} |"
    )
