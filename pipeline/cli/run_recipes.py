"""Run the stages of the selected recipes, their teachers first, and print each outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

import click
from rich.markup import escape

from pipeline.cli.console import ConsoleObserver, outcome_line
from pipeline.cli.interrupts import imports_undisturbed
from pipeline.cli.selection import STAGE_NAMES, RunOptions, Selection
from pipeline.cli.terminal import console
from pipeline.engine.runner import Runner
from pipeline.errors import Interrupted, LostError, StageError
from pipeline.processes import check_batch, check_processes, launched_process
from pipeline.recipe import Recipe
from pipeline.teacher import teachers_of

Resuming = Callable[[str], Sequence[str]]  # stage that failed -> the commands that continue


def check_process_count(selection: Selection) -> None:
    """Refuse a number of processes that cannot train together."""
    launched = launched_process().size
    if selection.nproc is not None and launched not in (1, selection.nproc):
        raise click.UsageError(
            f"--nproc {selection.nproc}: torchrun has started {launched} processes already. "
            "Leave it out."
        )
    if launched == 1:
        check_processes(selection.nproc or 1)
    for _, recipe in selection.recipes():
        for trained in (recipe, *teachers_of(recipe)):
            check_batch(trained.train.batch_size, selection.nproc or launched)


def run_recipes(options: RunOptions) -> None:
    """Bring every selected recipe up to the goal. Under torchrun the first process does that, and
    the others only join each training."""
    with _first_of_processes() as first:
        for name, recipe in options.selection.recipes() if first else ():
            if options.goal != STAGE_NAMES[0]:
                _train_teachers(options, name, recipe)
            runner = _bring_up_to_date(options, recipe, partial(options.commands_after, name=name))
            last = runner.stages[-1]
            if options.goal in ("all", last.name):
                root = runner.store.root
                published = [file for file in last.publish if (root / file).exists()]
                console().print(f"  → {escape(str(root))}/{', '.join(published)}\n")


@contextmanager
def _first_of_processes() -> Iterator[bool]:
    """Yield True in the only process or the first one of torchrun; in another one join every
    training first, then yield False."""
    process = launched_process()
    if process.size == 1:
        yield True
        return
    from pipeline.learning.distributed.launch import follow, leading

    if process.first:
        with leading(process):
            yield True
        return
    try:
        follow(process)
    except LostError as exc:  # printed by the first process, or by torchrun
        raise click.exceptions.Exit(exc.exit_code) from exc
    yield False


def _train_teachers(options: RunOptions, name: str, recipe: Recipe) -> None:
    """Train the teachers of a recipe; first check that all have the same images."""
    teachers = teachers_of(recipe)
    selection = options.selection

    def resuming(_: str) -> Sequence[str]:
        # whichever stage of the teacher fails, nothing of the recipe but its data has run
        return options.commands_after(STAGE_NAMES[0], name)

    def bring(one: Recipe, goal: str) -> Runner:
        return _bring_up_to_date(
            RunOptions(selection, goal, explain=options.explain), one, resuming
        )

    if not all(_is_trained(selection.runner(teacher)) for teacher in teachers):
        runners = [bring(one, "data") for one in (*teachers, recipe)]
        _check_same_images([runner.store.folder("data") for runner in runners])
    for teacher in teachers:
        bring(teacher, "train")


def _is_trained(runner: Runner) -> bool:
    return all(step.fresh for step in runner.plan("train"))


def _check_same_images(folders: Sequence[Path]) -> None:
    """Before a teacher is trained for hours: each has the images of the one that learns from it."""
    from pipeline.datasets.arrays import open_dataset
    from pipeline.learning.training.distillation import check_same_images

    for teacher, learner in pairwise(open_dataset(folder) for folder in folders):
        check_same_images(teacher, learner)


def _bring_up_to_date(options: RunOptions, recipe: Recipe, resuming: Resuming) -> Runner:
    """Run one recipe up to the goal; when a stage fails, print the commands that continue."""
    out = console()
    out.print(f"[bold]{escape(recipe.name)}[/bold]  {escape(recipe.description)}")
    runner = options.selection.runner(recipe)
    try:
        with imports_undisturbed(), ConsoleObserver(out).watching() as observer:
            runner.run(
                options.goal,
                observer,
                start=options.start,
                force=options.force,
                explain=options.explain,
                on_outcome=lambda outcome: out.print(outcome_line(outcome), soft_wrap=True),
            )
    except (StageError, Interrupted) as exc:
        _exit_after_failure(exc, recipe.name, resuming(exc.stage))
    return runner


def _exit_after_failure(
    exc: StageError | Interrupted, recipe: str, commands: Sequence[str]
) -> NoReturn:
    """Print what failed and how to continue, then leave with the error's exit code."""
    err = console(stderr=True)
    what = "interrupted" if isinstance(exc, Interrupted) else "failed"
    err.print(f"[red]✗ {escape(recipe)}: stage '{exc.stage}' {what}[/red]", soft_wrap=True)
    if isinstance(exc, StageError):
        err.print(f"  {escape(str(exc))}", soft_wrap=True)
    err.print("  Finished stages are kept. To continue from here:")
    for command in commands:
        err.print(f"    {escape(command)}", soft_wrap=True)
    raise click.exceptions.Exit(exc.exit_code)
