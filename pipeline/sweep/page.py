"""A sweep as a table for the terminal, as one HTML page, and as ``sweep.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from exporters.files import write_text
from pipeline.engine.errors import as_store_error
from pipeline.sweep.result import LONG, Form, SweepResult, TrialResult
from pipeline.tasks import TASKS, LabelledTask

JSON_NAME, PAGE_NAME = "sweep.json", "sweep.html"


def standard_error(result: SweepResult) -> float | None:
    """Standard error of the best accuracy over validation images, in points; None where an image
    has several answers, which are not independent."""
    best = best_accuracy(result)
    task = TASKS.get(result.task)
    exclusive = isinstance(task, LabelledTask) and task.exclusive
    if not exclusive or best is None or not result.validation_images:
        return None
    share = min(best / 100, 1 - 1 / result.validation_images)
    return 100 * math.sqrt(share * (1 - share) / result.validation_images)


def best_accuracy(result: SweepResult) -> float | None:
    """Percent of the most accurate candidate, or without files of the most accurate network."""
    accuracies = [form.accuracy_percent for form in result.forms]
    networks = (trial.accuracy_percent for trial in result.trials)
    return max(accuracies or [value for value in networks if value is not None], default=None)


def notes(result: SweepResult) -> Iterator[str]:
    """Notes for a reader who is about to choose."""
    count = f"{result.validation_images:,}"
    yield (
        f"{result.metric.capitalize()} is on validation images ({count}); the test split was not "
        "read for it."
    )
    if (error := standard_error(result)) is not None:
        yield (
            f"Differences of about {error:.2f} points and less are within one standard error, and "
            "the best of many trials looks a little better than it is."
        )
    if stopped := [trial.name for trial in result.trials if trial.incomplete]:
        yield (
            f"INCOMPLETE: train.max_minutes ended the training of {', '.join(stopped)}; longer, "
            "these may do better."
        )
    yield "Report the accuracy of the chosen one on the test split."
    if result.until in ("validate", "benchmark"):
        yield (
            f"Stages up to {result.until} did read the test split, for every trial. Do not choose "
            "by it: its figures would no longer be unbiased."
        )


def tables(result: SweepResult) -> Iterator[Table | str]:
    """Yield the candidates of every trial, the front in bold; failures; the next commands."""
    yield f"[bold]{escape(result.recipe)}[/bold]  {escape(result.description)}"
    if result.synthetic:
        yield "[bold yellow]trained on SYNTHETIC images[/bold yellow]"
    yield _table(result)
    for trial in result.failed:
        log = f" (log: {trial.log})" if trial.log else ""
        why = f"{trial.error}{log}" if trial.error else "not run"
        yield f"[red]✗ {escape(trial.name)}[/red]: {escape(why)}"
    for word, values in result.grid.items():
        for number, value in enumerate(values, start=1):
            if len(value) > LONG:
                yield f"  [dim]{escape(word)} #{number}: {escape(value)}[/dim]"
    for note in notes(result):
        yield f"  [dim]{escape(note)}[/dim]"
    yield f"  [dim]{escape(result.hardware)}[/dim]"
    by_name = {trial.name: trial for trial in result.trials}
    chosen = dict.fromkeys(form.trial for form in result.front)
    if chosen:
        yield "  On the front; to take one to a bundle:"
        for name in chosen:
            yield f"    {escape(by_name[name].command)}"


def _table(result: SweepResult) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for word in result.grid:
        table.add_column(escape(word.rpartition(".")[2]), no_wrap=True)
    tested = result.tested
    table.add_column("file", no_wrap=True)
    metric = "validation %" if result.metric == "accuracy" else "balanced val. %"
    headings = [metric, "ms", "kB", "parameters", "CPU-s", *(["test %"] if tested else [])]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("front")
    for trial in result.trials:
        if trial.status == "finished":
            for cells in _rows(result, trial, tested):
                table.add_row(*cells)
    return table


def _rows(result: SweepResult, trial: TrialResult, tested: bool) -> Iterator[list[str]]:
    settings = [escape(result.setting(word, trial)) for word in result.grid]
    costs = [f"{trial.parameters or 0:,}", f"{trial.cpu_seconds or 0:.0f}"]
    if not trial.forms:
        accuracy = f"{trial.accuracy_percent or 0:.2f}"
        yield [*settings, "PyTorch", accuracy, "", "", *costs, *([""] if tested else []), ""]
    for number, form in enumerate(trial.forms):
        cells = [*_form_cells(form), *(costs if number == 0 else ["", ""])]
        if tested:
            test = form.test_accuracy_percent
            cells.append("" if test is None else f"{test:.2f}")
        mark = "[green]✓[/green]" if form.on_front else ""
        yield [*(settings if number == 0 else [""] * len(settings)), *cells, mark]


def _form_cells(form: Form) -> list[str]:
    name = f"[bold]{escape(form.id)}[/bold]" if form.on_front else escape(form.id)
    latency = "" if form.latency_ms is None else f"{form.latency_ms:.3f}"
    return [name, f"{form.accuracy_percent:.2f}", latency, f"{form.size_bytes / 1000:,.0f}"]


def write_json(result: SweepResult, folder: Path) -> None:
    """Write ``sweep.json``. Raises StoreError."""
    _write(folder, JSON_NAME, json.dumps(result.to_dict(), indent=1) + "\n")


def write(result: SweepResult, folder: Path) -> None:
    """Write ``sweep.json`` and ``sweep.html``. Raises StoreError."""
    write_json(result, folder)
    _write(folder, PAGE_NAME, render(result))


def render(result: SweepResult) -> str:
    """The whole page, nothing outside it."""
    from pipeline.report.page import chart_markup, environment
    from pipeline.sweep import charts

    drawn = {
        "Accuracy against latency": charts.latency(result),
        "Accuracy against size": charts.size(result),
    }
    if not result.forms:
        drawn = {"Accuracy against parameters": charts.parameters(result)}
    template = environment(Path(__file__).parent).get_template("sweep.html.j2")
    return template.render(
        sweep=result,
        figures={title: chart_markup(chart) for title, chart in drawn.items() if chart},
        notes=list(notes(result)),
        long=LONG,
        tested=result.tested,
        commands={
            trial.name: trial.command
            for trial in result.trials
            if any(form.on_front for form in trial.forms)
        },
    )


def _write(folder: Path, name: str, text: str) -> None:
    with as_store_error(folder / name, kept="trials"):
        write_text(folder / name, text)
