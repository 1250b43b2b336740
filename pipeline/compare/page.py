"""A comparison as tables and lines for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.markup import escape
from rich.table import Table

from pipeline.compare.result import Comparison


def tables(comparison: Comparison, *, all_layers: bool = False) -> Iterator[Table | str]:
    """Yield the figures; where the sides differ, the layers and the causes as well."""
    yield from _figures(comparison)
    if comparison.layers and (all_layers or not comparison.passed or comparison.first_layer):
        yield _layers(comparison)
    elif comparison.note and not comparison.passed:
        yield f"  [dim]no comparison by layers: {escape(comparison.note)}[/dim]"
    for failure in comparison.failures:
        yield f"[red]✗ {escape(failure)}[/red]"
    if comparison.first_layer:
        yield f"  first layer whose input differs: [bold]{escape(comparison.first_layer)}[/bold]"
        yield f"  nodes before it: {escape(', '.join(comparison.suspects))}"
    for cause in comparison.causes:
        yield f"  • {escape(cause)}"
    for remark in comparison.remarks:
        yield f"[yellow]! {escape(remark)}[/yellow]"
    if comparison.passed:
        limits = ", ".join(f"{row.metric} at most {row.limit:g}" for row in comparison.tolerance)
        yield f"[green]✓ within tolerance[/green]: {limits}"
        yield f"  measured: {_measured(comparison)}"


def _figures(comparison: Comparison) -> Iterator[Table | str]:
    """Yield both sides, their difference, and the images that differ most."""
    d = comparison.difference
    yield f"A  {escape(comparison.a)}"
    yield f"B  {escape(comparison.b)}"
    yield f"   {d.images:,} images: {escape(comparison.images)}"
    table = Table("difference of probabilities", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("max", "mean", "p99"):
        table.add_column(name, justify="right")
    table.add_row("absolute", *(f"{v:.3g}" for v in (d.max_abs, d.mean_abs, d.p99_abs)))
    table.add_row("relative to A", *(f"{v:.3g}" for v in (d.max_rel, d.mean_rel, d.p99_rel)))
    yield table
    yield f"  SNR {d.snr_db:.1f} dB, same answers {100 * d.agreement:.6g} %"
    if comparison.accuracy_percent is not None:
        a, b = comparison.accuracy_percent
        yield f"  accuracy of A {a:.2f} %, of B {b:.2f} %"
    needed = f"atol={d.max_abs:.3g} with rtol=0, or rtol={d.rtol:.3g} with atol=1e-6"
    yield f"  tolerance needed: {needed}"
    worst = ", ".join(f"{index} ({gap:.2g})" for index, gap in d.worst[:8] if gap)
    yield f"  worst images: {worst or 'none'}"
    yield from _preprocessing(comparison)
    if comparison.generated is not None:
        g = comparison.generated
        families = ", ".join(f"{name} {gap:.2g}" for name, gap in g.by_family)
        yield (
            f"  {g.tried:,} generated images: differ by up to {g.largest:.3g} "
            f"({g.before_climbing:.3g} before climbing); {families}"
        )
        if g.file is not None:
            yield f"  the {g.kept} worst are kept in {escape(g.file)}"
    if comparison.regression is not None:
        r = comparison.regression
        yield f"  {r.images} regression images: differ by up to {r.max_abs:.3g}"


def _measured(comparison: Comparison) -> str:
    """Return the measured cost of the difference, next to the tolerance."""
    d = comparison.difference
    parts = [f"same answers {100 * d.agreement:.6g} %", f"SNR {d.snr_db:.1f} dB"]
    if comparison.accuracy_percent is not None:
        before, after = comparison.accuracy_percent
        parts.append(f"accuracy {after - before:+.2f} points")
    noisy = [row for row in comparison.layers if row.error]
    if noisy:
        worst = min(noisy, key=lambda row: row.snr_db)
        parts.append(f"noisiest layer {worst.b} at {worst.snr_db:.1f} dB")
    return ", ".join(parts)


def _preprocessing(comparison: Comparison) -> Iterator[str]:
    row = comparison.preprocessing
    if row.same_file:
        yield "  preprocessing: the same file on both sides"
    elif row.pictures:
        same = "the same pixels" if not row.differing else f"{row.differing} differ"
        yield f"  preprocessing: {same} of {row.pictures} pictures"


def _layers(comparison: Comparison) -> Table:
    table = Table("input of A's", "input of B's", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("relative error", justify="right")
    table.add_column("SNR dB", justify="right")
    table.add_column("")
    for row in comparison.layers:
        mark = "[red]first difference[/red]" if row.parted else ""
        table.add_row(row.a, row.b, f"{row.error:.2g}", f"{row.snr_db:.1f}", mark)
    return table
