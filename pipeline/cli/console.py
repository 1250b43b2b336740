"""What a person sees while stages run: progress with rate and time left on a terminal, one line
for each stage elsewhere. Independent of what stages do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from pipeline.engine.runner import Outcome
from runtime.plain_text import escaped


class Screen(Console):
    """A console on which no text moves the cursor, colors what follows or turns letters around:
    of what strings of bundles, paths and errors hold, only line feeds pass."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Every string of every print, table and title comes by here."""
        return super().render_str(escaped(text, keep_lines=True), **options)


class _Rate(ProgressColumn):
    """Units finished per second, as rich measures them over its last seconds."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s", style="cyan")


class ConsoleObserver:
    """Shows notes and steps; bars only on a terminal, so that logs stay readable."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    @contextmanager
    def watching(self) -> Iterator[ConsoleObserver]:
        """Show progress bars inside this block."""
        if not self._console.is_terminal:
            yield self
            return
        self._progress = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}", style="dim"),
            console=self._console,
            transient=True,
        )
        with self._progress:
            yield self
        self._progress, self._tasks = None, {}

    def note(self, text: str) -> None:
        """Print one line above the bars."""
        self._console.print(f"  {escape(text)}", highlight=False, soft_wrap=True)

    def step(self, task: str, done: int, total: int, detail: str = "") -> None:
        """Move the bar of ``task``; a finished one disappears."""
        if self._progress is None:
            return
        if task not in self._tasks:
            shown = escape(escaped(task))
            self._tasks[task] = self._progress.add_task(shown, total=total, detail="")
        shown = escape(escaped(detail))
        fields: dict[str, Any] = {"completed": done, "total": total, "detail": shown}
        self._progress.update(self._tasks[task], **fields)
        if done >= total:
            self._progress.remove_task(self._tasks.pop(task))


def outcome_line(outcome: Outcome) -> str:
    """One stage of a finished run in one line of rich markup."""
    name = f"{outcome.stage.name:<10}"
    if outcome.skipped:
        return f"[dim]- {name} fresh[/dim]"
    report = outcome.record.report(outcome.stage.report)
    headline = escape(report.headline if report else "")
    return f"[green]✓[/green] {name} [dim]{outcome.record.seconds:6.1f} s[/dim]  {headline}"
