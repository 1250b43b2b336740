"""The model card of a bundle, in Markdown: the model, its data, its figures and its limits."""

from __future__ import annotations

from exporters.package.markdown import as_text
from pipeline.report.model import Report, VariantReport
from pipeline.report.text import scores as score_words
from pipeline.report.text import summary as words


def model_card(report: Report) -> str:
    """Return the Markdown."""
    model, data = report.model, report.data
    height, width, channels = model.input_shape
    lines = [
        f"# {model.name} {model.version}",
        "",
        *_warning(report),
        f"A {model.task} model of {model.parameters:,} parameters{_cost(report)}. Pixels in: uint8 "
        f"[N, {height}, {width}, {channels}]. Probabilities out: float32 [N, {len(model.labels)}].",
        "",
        f"Labels: {', '.join(map(as_text, model.labels))}.",
        "",
        "## Data",
        "",
        f"{as_text(data.name)}: "
        + ", ".join(f"{n:,} {split}" for split, n in data.counts.items())
        + ". "
        f"License of the data: {as_text(data.licence)}. License of the weights: "
        f"{as_text(str(model.licence))}.",
        "",
        *[f"- {as_text(note)}" for note in data.notes],
        "",
        "## Measured on the test split",
        "",
        *_scores(report),
        f"PyTorch: {report.reference.accuracy_percent:.2f} %. {score_words.accuracy_note(report)}",
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


def _cost(report: Report) -> str:
    cost = report.model.multiply_adds
    return "" if cost is None else f" and {cost:,} multiply-adds for an image"


def _scores(report: Report) -> list[str]:
    """Accuracy and its relatives next to the majority answer and the baseline."""
    rows, columns = score_words.rows(report), score_words.columns(report)
    if not rows:
        return []
    heads = " | ".join(name.replace("_", " ") for name in columns)
    return [
        f"| {report.scores.images if report.scores else 0:,} images, % | {heads} |",
        "|---" * (len(columns) + 1) + "|",
        *[f"| {as_text(row.name)} | " + " | ".join(_figures(row, columns)) + " |" for row in rows],
        "",
        score_words.method(report),
        *([score_words.missing(report)] if score_words.missing(report) else []),
        "",
    ]


def _figures(row: score_words.Row, columns: list[str]) -> list[str]:
    estimates = [getattr(row.metrics, name) for name in columns]
    return [
        f"{score_words.figure(e, row.gain)} {score_words.interval(e)}".strip() for e in estimates
    ]


def _warning(report: Report) -> list[str]:
    lines = []
    if report.data.synthetic:
        lines += [
            "**SYNTHETIC: trained and tested on generated images. The figures say nothing about "
            "real photographs.**",
            "",
        ]
    for doubt in words.doubts(report):
        lines += [f"**{doubt.name}: {doubt.text}**", ""]
    return lines


def _int8(report: Report) -> list[str]:
    """The gains of INT8 on the machine that was measured."""
    rows = [row for row in report.variants if row.precision == "int8" and row.passed]
    gains = [f"- {text}" for row in rows if (text := words.payoff(report, row))]
    if not gains:
        return []
    elsewhere = "Measured on that machine only; `autotune` times the variants on the device itself."
    return ["## What INT8 gains", "", *gains, "", elsewhere, ""]


def _row(variant: VariantReport) -> str:
    speed = f"{variant.speed.p50_ms:.3f}" if variant.speed else "not measured"
    return (
        f"| {variant.id} | {variant.accuracy_percent:.2f} % | {variant.difference.max:.2g} "
        f"| {variant.size_bytes / 1024:.0f} | {speed} |"
    )
