"""A verification as tables for the terminal, as one HTML page and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from exporters.files import write_text
from pipeline.errors import StoreError
from pipeline.report.page import environment
from pipeline.verify.result import TargetCheck, VariantCheck, Verification

JSON_NAME, PAGE_NAME = "verify.json", "verify.html"


def bits(check: VariantCheck) -> str:
    """Return the result of comparing quantized tensors."""
    if check.identical is None:
        return "float"
    if check.identical:
        return f"{check.tensors} identical"
    return f"differ from {check.parts_at} on"


def difference(check: VariantCheck) -> str:
    """Return the largest difference of probabilities."""
    return "0" if not check.max_difference else f"{check.max_difference:.1e}"


def same(check: VariantCheck) -> str:
    """Return the share of equal answers and the number of images."""
    return f"{100 * check.agreement:.6g} % of {check.images:,}"


def tables(verification: Verification) -> Iterator[Table | str]:
    """Yield the rows of every target, the reason for each that was not run, and the commands."""
    bundle_id, date = verification.bundle_id[:12], verification.date
    yield f"[bold]{escape(verification.model)}[/bold]  {bundle_id}  {date}"
    if verification.synthetic:
        yield "[bold yellow]trained on SYNTHETIC images[/bold yellow]"
    yield f"  {escape(verification.images)}"
    yield f"  golden samples here: {escape(verification.golden)}"
    if verification.preprocessing:
        color = "red" if verification.preprocessing.startswith("failed") else "default"
        yield f"[{color}]  preprocessing: {escape(verification.preprocessing)}[/{color}]"
    yield _table(verification.targets)
    if verification.whole_set:
        yield "  whole set:"
        yield _table(verification.whole_set)
    rows = (*verification.targets, *verification.whole_set)
    for row in rows:
        for check in row.variants:
            for failure in check.failures:
                yield f"[red]✗ {row.target}, {check.variant}: {escape(failure)}[/red]"
        if row.status == "ran" and row.note:
            yield f"  [yellow]{row.target}: {escape(row.note)}[/yellow]"
        elif row.status != "ran":
            mark = "[red]✗[/red]" if row.status == "failed" else " "
            yield f"{mark} {row.target}: {row.status}: {escape(row.note)}"
    yield "  commands:"
    for row in rows:
        if row.command:
            yield f"  [dim]{row.target}: {escape(row.command)}[/dim]"
    yield f"  [dim]{escape(verification.machine)}[/dim]"


def _table(rows: tuple[TargetCheck, ...]) -> Table:
    """Make a table that fits into a terminal of 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("target", "pixels", "variant", "8-bit tensors", "max |Δp|", "same answers", ""):
        table.add_column(name, no_wrap=True)
    for row in rows:
        if row.status != "ran":
            color = "yellow" if row.status == "not run" else "red"
            table.add_row(row.target, "", f"[{color}]{row.status}[/{color}]")
            continue
        pixels = {True: "identical", False: "[red]differ[/red]", None: ""}[row.pixels_identical]
        for index, check in enumerate(row.variants):
            head = (row.target, pixels) if not index else ("", "")
            mark = "[green]✓[/green]" if check.passed else "[red]✗[/red]"
            cells = (check.variant, bits(check), difference(check), same(check), mark)
            table.add_row(*head, *cells)
    return table


def write(verification: Verification, folder: Path) -> str:
    """Write verify.json and verify.html into ``folder``; returns the JSON. Raises StoreError."""
    text = json.dumps(verification.to_dict(), indent=1) + "\n"
    templates = environment(Path(__file__).parent)
    templates.filters |= {"bits": bits, "difference": difference, "same": same}
    page = templates.get_template("verify.html.j2").render(verification=verification)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / JSON_NAME, text)
        write_text(folder / PAGE_NAME, page)
    except OSError as exc:
        raise StoreError(
            f"{folder} cannot be written: {exc}. Give another one with --out."
        ) from exc
    return text
