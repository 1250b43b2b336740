"""Results as tables for a terminal. Takes values, prints nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from runtime import Manifest

    from .report.data import Report, VariantReport


def result_table(report: Report) -> Iterator[Table | str]:
    """The headline, one row for each form of the model, and what it was timed on."""
    model, data = report.model, report.data
    headline = f"{escape(model.version)}, {model.parameters:,} parameters"
    yield f"[bold]{escape(model.name)}[/bold] {headline}"
    if data.synthetic:
        yield "[bold yellow]SYNTHETIC images: says nothing about real photographs[/bold yellow]"
    # narrow: nine columns have to fit into a terminal of 80
    table = Table("form", "gate", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("acc. %", "bal. %", "KiB", "p50 ms", "p99 ms", "images/s", "vs fp32"):
        table.add_column(heading, justify="right")
    for column in table.columns:
        column.no_wrap = True
    reference = report.reference
    speed = reference.speed
    table.add_row(
        "PyTorch eager",
        "",
        _percent(reference.accuracy_percent),
        _percent(reference.balanced_accuracy_percent),
        "",
        f"{speed.p50_ms:.3f}" if speed else "",
        f"{speed.p99_ms:.3f}" if speed and speed.p99_ms else "",
        f"{speed.images_per_second:,.0f}" if speed and speed.images_per_second else "",
        "",
    )
    default = report.default
    for variant in report.variants:
        table.add_row(*_variant_cells(variant, variant is default))
    yield table
    for row in report.defaults:
        yield f"  default for {row.target}: {escape(row.variant)} ({escape(row.reason)})"
    yield f"  [dim]{escape(report.hardware.caption())}[/dim]"


def _variant_cells(variant: VariantReport, is_default: bool) -> list[str]:
    speed, speedup = variant.speed, variant.speedup
    return [
        f"[bold]{escape(variant.id)}[/bold]" if is_default else escape(variant.id),
        "[green]passed[/green]" if variant.passed else "[red]failed[/red]",
        _percent(variant.accuracy_percent),
        _percent(variant.balanced_accuracy_percent),
        f"{variant.size_bytes / 1024:,.0f}",
        f"{speed.p50_ms:.3f}" if speed else "",
        f"{speed.p99_ms:.3f}" if speed and speed.p99_ms else "",
        f"{speed.images_per_second:,.0f}" if speed and speed.images_per_second else "",
        f"{speedup.value:.2f}x" if speedup else "",
    ]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def bundle_tables(manifest: Manifest, bundle_id: str) -> Iterator[Table | str]:
    """What a bundle says of itself."""
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
    data = manifest.provenance.get("data")
    if isinstance(data, dict):
        yield f"  data: {escape(str(data.get('name')))}, licence {escape(str(data.get('licence')))}"
