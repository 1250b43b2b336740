"""Results as tables for a terminal, made from values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from exporters.evaluate.score_values import Estimate
    from exporters.search.result import SearchResult
    from exporters.search.trial import Trial
    from pipeline.quantize_file.report import QuantizeFileReport
    from pipeline.report.model import Report, VariantReport
    from pipeline.timing.values import Speed
    from runtime import Manifest


def result_table(report: Report) -> Iterator[Table | str]:
    """The headline, one row for each variant, and the machine that timed it."""
    from pipeline.report.text.summary import doubts

    model, data = report.model, report.data
    headline = f"{escape(model.version)}, {model.parameters:,} parameters"
    if model.multiply_adds is not None:
        headline += f", {model.multiply_adds / 1e6:,.2f} million multiply-adds an image"
    yield f"[bold]{escape(model.name)}[/bold] {headline}"
    if data.synthetic:
        yield "[bold yellow]SYNTHETIC images: says nothing about real photographs[/bold yellow]"
    for doubt in doubts(report):
        yield f"[bold yellow]{doubt.name}[/bold yellow]: {escape(doubt.text)}"
    table = _narrow_table("form", "gate")
    balanced = report.reference.balanced_accuracy_percent is not None
    for heading in ("acc. %", "bal. %", "KiB", "p50 ms", "p99 ms", "images/s", "vs fp32"):
        if balanced or heading != "bal. %":
            table.add_column(heading, justify="right", no_wrap=True)
    reference = report.reference
    accuracies = _accuracies(
        reference.accuracy_percent, reference.balanced_accuracy_percent, balanced
    )
    table.add_row("PyTorch eager", "", *accuracies, "", *_speeds(reference.speed), "")
    for variant in report.variants:
        table.add_row(*_variant_cells(variant, variant is report.default, balanced))
    yield table
    yield from _score_table(report)
    if report.search is not None:
        yield from _search_table(report.search)
    for row in report.defaults:
        yield f"  default for {row.target}: {escape(row.variant)} ({escape(row.reason)})"
    yield f"  [dim]{escape(report.hardware.caption())}[/dim]"


_HEADINGS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "average_precision": "average precision",
}


def _score_table(report: Report) -> Iterator[Table | str]:
    """The default variant against the majority answer and the baseline, in percent with 95 %
    intervals."""
    from pipeline.report.text import scores as score_words

    rows, columns = score_words.rows(report), score_words.columns(report)
    if not rows or report.scores is None:
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("same images, %", overflow="fold")
    for name in columns:
        table.add_column(_HEADINGS[name], justify="right", no_wrap=True)
    for number, row in enumerate(rows):
        name = f"  {row.name}" if row.gain else row.name
        wide = len(columns) < 3
        cells = [_figure(getattr(row.metrics, column), row.gain, wide) for column in columns]
        table.add_row(f"[bold]{escape(name)}[/bold]" if number == 0 else escape(name), *cells)
    yield table
    yield f"  [dim]{escape(score_words.brief(report))}[/dim]"
    if missing := score_words.missing(report):
        yield f"  {escape(missing)}"


def _figure(estimate: Estimate | None, gain: bool, wide: bool) -> str:
    """Three columns leave room for one digit of the interval's ends; small gains, for which it
    matters on which side of zero they end, have two."""
    from pipeline.report.text import scores as score_words

    small = gain and estimate is not None and abs(estimate.value) < 10
    digits = 2 if wide or small else 1
    ends = score_words.interval(estimate, digits)
    return escape(f"{score_words.figure(estimate, gain)} {ends}".strip())


def _narrow_table(name: str, verdict: str) -> Table:
    """Nine columns have to fit into a terminal of 80: only a long name may take a second line."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(name, overflow="fold")
    table.add_column(verdict, no_wrap=True)
    return table


def _variant_cells(variant: VariantReport, is_default: bool, balanced: bool) -> list[str]:
    return [
        f"[bold]{escape(variant.id)}[/bold]" if is_default else escape(variant.id),
        "[green]passed[/green]" if variant.passed else "[red]failed[/red]",
        *_accuracies(variant.accuracy_percent, variant.balanced_accuracy_percent, balanced),
        f"{variant.size_bytes / 1024:,.0f}",
        *_speeds(variant.speed),
        f"{variant.speedup.value:.2f}x" if variant.speedup else "",
    ]


def _accuracies(percent: float, balanced_percent: float | None, balanced: bool) -> list[str]:
    """One cell, or with balanced accuracies in the table two."""
    return [_percent(percent)] + ([_percent(balanced_percent)] if balanced else [])


def _speeds(speed: Speed | None) -> list[str]:
    if speed is None:
        return ["", "", ""]
    return [
        f"{speed.p50_ms:.3f}",
        f"{speed.p99_ms:.3f}" if speed.p99_ms else "",
        f"{speed.images_per_second:,.0f}" if speed.images_per_second else "",
    ]


def _search_table(search: SearchResult) -> Iterator[Table | str]:
    """The candidates of the search, on validation data; SQNR in decibels. Bold: judged on the test
    split."""
    table = _narrow_table("tried", "verdict")
    for heading in ("lost", "SQNR", "KiB", "vs fp32"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("portable", no_wrap=True)
    for trial in search.trials:
        table.add_row(*_trial_cells(trial, trial.id in search.chosen))
    yield table
    if search.incomplete:
        left_out = escape(", ".join(search.untried))
        yield f"  [bold yellow]The search is incomplete: no {left_out}[/bold yellow]"


def _trial_cells(trial: Trial, chosen: bool) -> list[str]:
    name = f"[bold]{escape(trial.id)}[/bold]" if chosen else escape(trial.id)
    assessment, speed = trial.assessment, trial.speed
    if assessment is None:
        return [name, "[dim]not made[/dim]"]
    return [
        name,
        "[green]passed[/green]" if assessment.passed else "[red]refused[/red]",
        f"{assessment.lost_points:.2f}",
        "" if assessment.sqnr_db >= 199.5 else f"{assessment.sqnr_db:.1f}",
        f"{trial.size_bytes / 1024:,.0f}",
        f"{speed.speedup:.2f}x" if speed else "",
        _portable(trial),
    ]


def _portable(trial: Trial) -> str:
    layers = len(trial.saturating)
    saturate = f"no: {layers} layer{'s' if layers > 1 else ''}" if layers else "no"
    return "yes" if trial.portable else saturate


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def bundle_tables(manifest: Manifest, bundle_id: str, signature: str) -> Iterator[Table | str]:
    """The manifest of a bundle; ``signature`` is who signed it, for people."""
    spec = manifest.spec
    yield f"[bold]{escape(spec.name)}[/bold] {escape(manifest.model_version)}  {bundle_id}"
    if manifest.synthetic:
        yield "[bold yellow]trained on SYNTHETIC images[/bold yellow]"
    yield (
        f"  {spec.task}: uint8 \\[N, {spec.height}, {spec.width}, {spec.channels}] -> "
        f"float32 \\[N, {len(spec.labels)}]"
    )
    yield f"  labels: {escape(', '.join(spec.labels))}"
    variants = Table("variant", "precision", "portable", "KiB", "sha256")
    for variant in manifest.variants:
        file = manifest.files[variant.file]
        size, portable = f"{file.size_bytes / 1024:,.0f}", "yes" if variant.portable else "no"
        variants.add_row(variant.id, variant.precision, portable, size, file.sha256[:16])
    yield variants
    defaults = Table("target", "default", "reason")
    for row in manifest.defaults:
        defaults.add_row(row.target, row.variant, escape(row.reason))
    yield defaults
    warnings = manifest.provenance.get("warnings")
    for warning in warnings if isinstance(warnings, list) else ():
        yield f"[bold yellow]{escape(str(warning))}[/bold yellow]"
    data = manifest.provenance.get("data")
    if isinstance(data, dict):
        license = data.get("license") or data.get("licence")  # bundles of earlier versions
        yield f"  data: {escape(str(data.get('name')))}, license {escape(str(license))}"
    yield f"  signature: {escape(signature)}"


def quantize_table(report: QuantizeFileReport) -> Iterator[Table | str]:
    """Every candidate of the search, what stayed float, and the verdict."""
    yield f"judged by {escape(report.judged_by)}"
    table = Table("form", "step", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("speed", "p50 ms", "KiB", "SQNR dB", report.figure):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("portable")
    table.add_column("gate")
    written = {file.trial for file in report.files}
    for trial in report.trials:
        table.add_row(*_form_cells(trial, trial.id in written))
    yield table
    for row in report.left_in_float:
        yield f"  stays float: {escape(row.what)} ({escape(row.reason)})"
    for trial in report.trials:
        for reason in trial.impossible:
            yield f"  stays float in {escape(trial.id)}: {escape(reason)}"
        if trial.error is not None:
            yield f"  [yellow]{escape(trial.id)} could not be made:[/yellow] {escape(trial.error)}"
        elif trial.saturation and (worst := max(t.saturated for t in trial.saturation)) > 0:
            layers = sum(layer.saturated > 0 for layer in trial.saturation)
            yield (
                f"  [yellow]{escape(trial.id)} saturates[/yellow] on x86 without VNNI: {layers} "
                f"layers, up to {worst:.1%} of the outputs of one"
            )
    yield f"  [dim]speed relative to the given model, {escape(report.hardware)}[/dim]"
    for line in report.verdict:
        yield f"[bold]{escape(line)}[/bold]"


def _form_cells(trial: Trial, is_written: bool) -> list[str]:
    name = f"[bold]{escape(trial.id)}[/bold]" if is_written else escape(trial.id)
    assessment, speed = trial.assessment, trial.speed
    if assessment is None or speed is None:
        return [name, trial.step, "", "", "", "", "", "", "[yellow]not made[/yellow]"]
    return [
        name,
        trial.step,
        f"{speed.speedup:.2f}x",
        f"{speed.p50_ms:.3f}",
        f"{trial.size_bytes / 1024:,.0f}",
        f"{assessment.sqnr_db:.1f}",
        f"{assessment.accuracy_percent:.2f}",
        "yes" if trial.portable else "no" if trial.precision == "int8" else "",
        "[green]passed[/green]" if assessment.passed else "[red]failed[/red]",
    ]
