"""A comparison for people. Judges nothing."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.markup import escape
from rich.table import Table

from .result import Comparison


def tables(found: Comparison, *, all_layers: bool = False) -> Iterator[Table | str]:
    """The figures; where the forms part, the layers and the causes as well."""
    d = found.difference
    yield f"A  {escape(found.a)}"
    yield f"B  {escape(found.b)}"
    yield f"   {d.images:,} images: {escape(found.images)}"
    table = Table("difference of probabilities", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("max", "mean", "p99"):
        table.add_column(name, justify="right")
    table.add_row("absolute", *(f"{v:.3g}" for v in (d.max_abs, d.mean_abs, d.p99_abs)))
    table.add_row("relative to A", *(f"{v:.3g}" for v in (d.max_rel, d.mean_rel, d.p99_rel)))
    yield table
    yield f"  SNR {d.snr_db:.1f} dB, same answers {100 * d.agreement:.6g} %"
    if found.accuracy_percent is not None:
        a, b = found.accuracy_percent
        yield f"  accuracy of A {a:.2f} %, of B {b:.2f} %"
    needed = f"atol={d.max_abs:.3g} with rtol=0, or rtol={d.rtol:.3g} with atol=1e-6"
    yield f"  tolerance needed: {needed}"
    worst = ", ".join(f"{index} ({gap:.2g})" for index, gap in d.worst[:8] if gap)
    yield f"  worst images: {worst or 'none differs'}"
    if found.generated is not None:
        g = found.generated
        families = ", ".join(f"{name} {gap:.2g}" for name, gap in g.by_family)
        yield (
            f"  {g.tried:,} generated images: differ by up to {g.largest:.3g} "
            f"({g.before_climbing:.3g} before climbing); {families}"
        )
        if g.file is not None:
            yield f"  the {g.kept} worst are kept in {escape(g.file)}"
    if found.regression is not None:
        r = found.regression
        yield f"  {r.images} regression images: differ by up to {r.max_abs:.3g}"
    if found.layers and (all_layers or not found.passed or found.first_layer):
        yield _layers(found)
    elif found.note and not found.passed:
        yield f"  [dim]no comparison by layers: {escape(found.note)}[/dim]"
    for failure in found.failures:
        yield f"[red]✗ {escape(failure)}[/red]"
    if found.first_layer:
        yield f"  first layer whose input differs: [bold]{escape(found.first_layer)}[/bold]"
        yield f"  what lies before it: {escape(', '.join(found.suspects))}"
    for cause in found.causes:
        yield f"  • {escape(cause)}"
    if found.passed:
        limits = ", ".join(f"{row.metric} at most {row.limit:g}" for row in found.tolerance)
        yield f"[green]✓ within tolerance[/green]: {limits}"


def _layers(found: Comparison) -> Table:
    table = Table("input of A's", "input of B's", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("relative error", justify="right")
    table.add_column("SNR dB", justify="right")
    table.add_column("")
    for row in found.layers:
        mark = "[red]parts here[/red]" if row.parted else ""
        table.add_row(row.a, row.b, f"{row.error:.2g}", f"{row.snr_db:.1f}", mark)
    return table
