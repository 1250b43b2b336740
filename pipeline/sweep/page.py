"""A sweep for people: a table for a terminal and one HTML page; and ``sweep.json`` for machines.
Judges nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from pipeline.errors import StoreError
from pipeline.sweep.result import LONG, Form, SweepResult, TrialResult
from pipeline.tasks import TASKS, LabelledTask

JSON_NAME, PAGE_NAME = "sweep.json", "sweep.html"


def standard_error(result: SweepResult) -> float | None:
    """Points of accuracy that as many other validation images would move the best form by, one
    standard deviation; None where an image has several answers, which are not independent."""
    best = best_accuracy(result)
    task = TASKS.get(result.task)
    exclusive = isinstance(task, LabelledTask) and task.exclusive
    if not exclusive or best is None or not result.validation_images:
        return None
    share = min(best / 100, 1 - 1 / result.validation_images)
    return 100 * math.sqrt(share * (1 - share) / result.validation_images)


def best_accuracy(result: SweepResult) -> float | None:
    """Percent; of the most accurate form, or without files of the most accurate network."""
    found = [form.accuracy_percent for form in result.forms]
    found = found or [t.accuracy_percent for t in result.trials if t.accuracy_percent is not None]
    return max(found, default=None)


def notes(result: SweepResult) -> Iterator[str]:
    """What a reader has to know before choosing."""
    count = f"{result.validation_images:,}"
    yield (
        f"{result.metric.capitalize()} is on validation images ({count}); the test split was not "
        "read for it."
    )
    if (error := standard_error(result)) is not None:
        yield (
            f"Differences of about {error:.2f} points and less are within one standard error, and "
            "the best of many trials is a little flattered."
        )
    if stopped := [trial.name for trial in result.trials if trial.incomplete]:
        yield (
            f"INCOMPLETE: train.max_minutes ended the training of {', '.join(stopped)}; longer, "
            "these may do better."
        )
    yield "The accuracy to report is that of the chosen one alone, on the test split."
    if result.until in ("validate", "benchmark"):
        yield (
            "Stages up to " + result.until + " did read the test split, for every trial: choose by "
            "it, and it measures nothing any more."
        )


def tables(result: SweepResult) -> Iterator[Table | str]:
    """Every form of every trial, the front in bold; failures; what to do next."""
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
    tested = any(form.test_accuracy_percent is not None for form in result.forms)
    table.add_column("form", no_wrap=True)
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
    settings = [escape(result.told(word, trial)) for word in result.grid]
    known = [f"{trial.parameters or 0:,}", f"{trial.cpu_seconds or 0:.0f}"]
    if not trial.forms:
        accuracy = f"{trial.accuracy_percent or 0:.2f}"
        yield [*settings, "PyTorch", accuracy, "", "", *known, *([""] if tested else []), ""]
    for number, form in enumerate(trial.forms):
        cells = [*_form_cells(form), *(known if number == 0 else ["", ""])]
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
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    import pipeline.report
    from pipeline.report.text import summary as words
    from pipeline.sweep import charts

    environment = Environment(
        loader=FileSystemLoader(
            [Path(__file__).parent, Path(pipeline.report.__file__).with_name("templates")]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("milliseconds", "percent", "count"):
        environment.filters[name] = getattr(words, name)
    environment.filters["bytes"] = words.size
    drawn = {
        "Accuracy against latency": charts.latency(result),
        "Accuracy against size": charts.size(result),
    }
    if not result.forms:
        drawn = {"Accuracy against parameters": charts.parameters(result)}
    figures = {
        title: Markup('<div class="chart" role="img" aria-label="{}">{}</div>').format(
            chart.alt, Markup(chart.svg)
        )
        for title, chart in drawn.items()
        if chart is not None
    }
    return environment.get_template("sweep.html.j2").render(
        found=result,
        figures=figures,
        notes=list(notes(result)),
        long=LONG,
        tested=any(form.test_accuracy_percent is not None for form in result.forms),
        commands={
            trial.name: trial.command
            for trial in result.trials
            if any(form.on_front for form in trial.forms)
        },
    )


def _write(folder: Path, name: str, text: str) -> None:
    aside = folder / f"{name}.partial"
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(folder / name)
    except OSError as exc:
        raise StoreError(
            f"{folder / name} cannot be written: {exc.strerror}. Free some space or give another "
            "folder with --artifacts DIR; finished trials are kept."
        ) from exc
