"""``pipeline sweep RECIPE --grid ...``: many trials, and the plot that people choose from."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.markup import escape

from pipeline.cli.terminal import console
from pipeline.errors import Interrupted, PipelineError, RecipeError
from pipeline.sweep.executor import LocalProcesses
from pipeline.sweep.grid import MOST_TRIALS, SHORT, parse, trials
from pipeline.sweep.page import tables
from pipeline.sweep.run import GOALS, Progress, SweepOptions
from pipeline.sweep.run import sweep as run_sweep


@click.command()
@click.argument("recipe", metavar="RECIPE|FILE.toml")
@click.option(
    "--grid",
    "grids",
    multiple=True,
    required=True,
    metavar="KEY=A,B[,KEY=C,D]",
    help="What to vary; may be repeated, all combinations are tried. KEY is "
    f"{', '.join(SHORT)}, or any key of the recipe, such as quantize.calibration_images. "
    "A value with a comma or an equals sign of its own goes into quotes or brackets.",
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a key of the recipe for all trials; may be repeated.",
)
@click.option(
    "--until",
    type=click.Choice(GOALS),
    default="quantize",
    show_default=True,
    help="The last stage of a trial. From validate on the test split is read.",
)
@click.option(
    "--parallel",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Trials at a time; the cores are dealt out among them.",
)
@click.option(
    "--artifacts",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("artifacts"),
    show_default=True,
    help="Where results go: DIR/sweeps/RECIPE/.",
)
@click.option("--yes", is_flag=True, help="Run however many trials there are.")
def sweep(
    recipe: str,
    grids: tuple[str, ...],
    changes: tuple[str, ...],
    until: str,
    parallel: int,
    artifacts: Path,
    yes: bool,
) -> None:
    """Train or quantize a family of models and draw accuracy against latency and size.

    Each trial runs in a process and a folder of its own, and what trials have in common runs once:
    where only keys of quantization vary, one training serves all. Accuracy is that on validation
    images. The same command again goes on where the last one ended and tries anew what failed.
    """
    axes = parse(grids)
    found = trials(recipe, axes, changes)
    if len(found) > MOST_TRIALS and not yes:
        raise RecipeError(
            f"the grid has {len(found)} trials, more than {MOST_TRIALS}. Vary less at a time, or "
            "say --yes."
        )
    request = SweepOptions(recipe, axes, changes, found, until, artifacts)
    screen = console()
    count = f"{len(found)} trial{'s' * (len(found) > 1)}"
    screen.print(f"{count} up to {until}, {parallel} at a time", soft_wrap=True)

    def tell(progress: Progress) -> None:
        screen.print(_line(progress), soft_wrap=True)

    try:
        with _ended_like_ctrl_c(), LocalProcesses(parallel) as executor:
            result = run_sweep(request, executor, tell)
    except KeyboardInterrupt:
        screen.print("  Finished trials are kept; the same command goes on from here.")
        raise Interrupted("sweep") from None
    for part in tables(result):
        screen.print(part, soft_wrap=isinstance(part, str))
    screen.print(f"  → {escape(str(request.root))}/sweep.html, sweep.json", soft_wrap=True)
    if result.failed:
        raise PipelineError(
            f"{len(result.failed)} of {count} failed; the others are in the table. The same "
            "command tries them again."
        )


def _line(progress: Progress) -> str:
    trial = progress.trial
    head = f"[dim]{progress.done}/{progress.total}[/dim] {escape(trial.name)}"
    if trial.error is not None:
        return f"[red]✗[/red] {head}  {escape(trial.error)}"
    shared = f"  [dim]({', '.join(trial.shared)} taken over)[/dim]" if trial.shared else ""
    return (
        f"[green]✓[/green] {head}  validation accuracy {trial.accuracy_percent:.2f} %, "
        f"{trial.parameters:,} parameters{shared}"
    )


@contextmanager
def _ended_like_ctrl_c() -> Iterator[None]:
    """What ends this process politely also ends its trials politely, as Ctrl-C does."""
    polite = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in polite}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
