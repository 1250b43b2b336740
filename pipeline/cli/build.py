"""Verbs that build: run, plan, sweep, recipes and init."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from pipeline.cli.console import ConsoleObserver
from pipeline.cli.interrupts import endings_as_ctrl_c
from pipeline.cli.options import ARTIFACTS, CHANGES
from pipeline.cli.run_recipes import check_process_count, run_recipes
from pipeline.cli.selection import STAGE_NAMES, run_options, selecting
from pipeline.cli.terminal import console, program
from pipeline.engine.runner import Step
from pipeline.errors import Interrupted, PipelineError, RecipeError
from pipeline.processes import launched_process
from pipeline.recipe import Recipe, load, shipped_names
from pipeline.stages import STAGES
from pipeline.sweep.executor import LocalProcesses
from pipeline.sweep.grid import MOST_TRIALS, SHORT, parse, trials
from pipeline.sweep.page import tables
from pipeline.sweep.run import GOALS, Progress, Request
from pipeline.sweep.run import sweep as run_sweep
from pipeline.teacher import teachers_of


@click.command(
    help="Bring a stage, or all of them, up to date.\n\nA stage that is fresh is skipped.\n\n\b\n"
    + "\n".join(f"{stage.name:<10} {stage.summary}" for stage in STAGES)
    + "\nall        every one of them, in this order"
)
@click.argument("stage", type=click.Choice(["all", *STAGE_NAMES]), metavar="STAGE")
@selecting
@click.option("--explain", is_flag=True, help="Print why each stage runs or does not.")
@click.option(
    "--nproc",
    type=click.IntRange(1),
    metavar="N",
    help="Train in N processes on this machine, each with its share of every batch, of the threads "
    "and of the GPUs; the other stages run in one. Under torchrun leave it out: torchrun sets the "
    "number.  [default: 1]",
)
def run(stage: str, **words: Any) -> None:
    """Run stages."""
    options = run_options(stage, **words)
    check_process_count(options.selection)
    nproc = options.selection.nproc
    if nproc is not None and nproc > launched_process().size:
        from pipeline.learning.distributed.launch import launch

        raise click.exceptions.Exit(launch(options.to_words(), nproc))
    run_recipes(options)


@click.command()
@click.argument("stage", type=click.Choice(["all", *STAGE_NAMES]), default="all", metavar="[STAGE]")
@selecting
def plan(stage: str, **words: Any) -> None:
    """Show what `run` would do, and why.

    Nothing runs."""
    options = run_options(stage, **words)
    selection = options.selection
    steps: list[tuple[Recipe, tuple[Step, ...]]] = []
    for _, recipe in selection.recipes():
        if stage != STAGE_NAMES[0]:
            steps += [(one, selection.runner(one).plan("train")) for one in teachers_of(recipe)]
        steps.append((recipe, selection.runner(recipe).plan(stage, options.start, options.force)))
    for recipe, planned in steps:
        table = Table("stage", "would", "why", title=recipe.name, title_justify="left")
        for step in planned:
            verb = "[dim]skip[/dim]" if step.fresh else "[yellow]run[/yellow]"
            table.add_row(step.stage.name, verb, escape("\n".join(step.reasons) or "fresh"))
        console().print(table)


@click.command()
def recipes() -> None:
    """List the recipes that come with the package."""
    table = Table("recipe", "builds")
    for name in shipped_names():
        table.add_row(name, escape(load(name).description))
    console().print(table)


@click.command()
@click.argument("recipe", metavar="RECIPE|FILE.toml")
@click.option(
    "--grid",
    "grids",
    multiple=True,
    required=True,
    metavar="KEY=A,B[,KEY=C,D]",
    help="Vary a key; may be repeated, every combination is one trial. KEY is "
    f"{', '.join(SHORT)}, or any key of the recipe, such as quantize.calibration_images. "
    "Put a value that holds a comma or an equals sign into quotes or brackets.",
)
@CHANGES
@click.option(
    "--until",
    type=click.Choice(GOALS),
    default="quantize",
    show_default=True,
    help="Last stage of each trial. From validate on, trials read the test split.",
)
@click.option(
    "--parallel",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Number of trials that run at a time; they share the cores equally.",
)
@ARTIFACTS
@click.option("--yes", is_flag=True, help=f"Run the grid even if it has over {MOST_TRIALS} trials.")
def sweep(
    recipe: str,
    grids: tuple[str, ...],
    changes: tuple[str, ...],
    until: str,
    parallel: int,
    artifacts: Path,
    yes: bool,
) -> None:
    """Train or quantize a family of models to choose from.

    Plots validation accuracy against latency and size. Each trial runs in a process and a folder of
    its own, sweeps/RECIPE/TRIAL in the folder of artifacts. What trials have in common runs once:
    where only keys of quantization vary, one training serves all. The same command again continues
    an interrupted sweep and retries failed trials.
    """
    axes = parse(grids)
    selected = trials(recipe, axes, changes)
    if len(selected) > MOST_TRIALS and not yes:
        raise RecipeError(
            f"the grid has {len(selected)} trials, more than {MOST_TRIALS}. Vary less at a time, "
            "or add --yes."
        )
    request = Request(recipe, axes, changes, selected, until, artifacts)
    out = console()
    count = f"{len(selected)} trial{'s' * (len(selected) > 1)}"
    out.print(f"{count} up to {until}, {parallel} at a time", soft_wrap=True)
    try:
        with endings_as_ctrl_c(), LocalProcesses(parallel) as executor:
            result = run_sweep(
                request,
                executor,
                lambda progress: out.print(_progress_line(progress), soft_wrap=True),
            )
    except KeyboardInterrupt:
        out.print("  Finished trials are kept; the same command continues from here.")
        raise Interrupted("sweep") from None
    for part in tables(result):
        out.print(part, soft_wrap=isinstance(part, str))
    out.print(f"  → {escape(str(request.root))}/sweep.html, sweep.json", soft_wrap=True)
    if result.failed:
        raise PipelineError(
            f"{len(result.failed)} of {count} failed; the others are in the table. The same "
            "command tries them again."
        )


def _progress_line(progress: Progress) -> str:
    trial = progress.trial
    head = f"[dim]{progress.done}/{progress.total}[/dim] {escape(trial.name)}"
    if trial.error is not None:
        return f"[red]✗[/red] {head}  {escape(trial.error)}"
    shared = f"  [dim]({', '.join(trial.shared)} reused)[/dim]" if trial.shared else ""
    return (
        f"[green]✓[/green] {head}  validation accuracy {trial.accuracy_percent:.2f} %, "
        f"{trial.parameters:,} parameters{shared}"
    )


@click.command()
@click.argument("name")
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Folder of images, with one sub-folder for each class (also below train/, val/ and "
    "test/), or in any order if there are --labels.",
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    metavar="FILE.csv",
    help="CSV file with a header: the path of an image in FOLDER, then its class or columns of 0 "
    "and 1. A column 'split' is kept.  [default: classes are sub-folders]",
)
@click.option(
    "--column",
    "columns",
    multiple=True,
    help="Column of --labels to use: one column of classes, or, repeated, columns of 0 and 1.  "
    "[default: all columns]",
)
@click.option(
    "--tags",
    "tags_separator",
    metavar="SEPARATOR",
    help="Text that separates several tags in one cell of --column; each tag becomes an attribute."
    "  [default: a cell is one class]",
)
def init(
    name: str,
    data: Path,
    labels: Path | None,
    columns: tuple[str, ...],
    tags_separator: str | None,
) -> None:
    """Write a recipe for your own images.

    Looks at every image in FOLDER and writes NAME.toml, with a comment for each choice."""
    from pipeline.new_recipe.options import NewRecipeOptions
    from pipeline.new_recipe.write import splits_found, write_recipe

    out = console()
    with ConsoleObserver(out).watching() as observer:
        written = write_recipe(
            NewRecipeOptions(name, data, labels, columns, tags_separator=tags_separator or None),
            lambda done, total: observer.step("look at images", done, total),
        )
    survey, proposal = written.survey, written.proposal
    table = Table("label", "images", title=f"{len(survey.good):,} images", title_justify="left")
    for label, count in zip(survey.listed.names, survey.counts, strict=True):
        table.add_row(escape(label), f"{count:,}")
    out.print(table)
    out.print(escape(splits_found(written)))
    for remark in proposal.remarks:
        out.print(f"- {escape(remark)}", soft_wrap=True)
    out.print(
        f"{proposal.height}x{proposal.width} {proposal.color}, {proposal.epochs} epochs of about "
        f"{proposal.train_images:,} images. The file gives the reasons; change what you know "
        "better."
    )
    file = escape(str(written.file))
    command = escape(shlex.join([program(), "run", "all", "--recipe", str(written.file)]))
    out.print(f"  → {file}\n  {command}")
