"""The recipes that a command line selects, its changes of them, and the commands that repeat it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from pipeline.cli.options import ARTIFACTS, CHANGES
from pipeline.cli.terminal import program
from pipeline.engine.runner import Runner
from pipeline.engine.store import Store
from pipeline.errors import RecipeError
from pipeline.processes import launched_process
from pipeline.recipe import Recipe, load
from pipeline.stages import STAGES

DEFAULT_RECIPES = ("mnist", "celeba")
STAGE_NAMES = tuple(stage.name for stage in STAGES)


@dataclass(frozen=True)
class Selection:
    """Recipes, the changes to each of them, and the folder of their results."""

    names: tuple[str, ...]
    changes: tuple[str, ...]
    artifacts: Path
    nproc: int | None = None

    def recipes(self) -> list[tuple[str, Recipe]]:
        """(name as given, recipe) of every one; all are read before anything runs."""
        pairs = [(name, load(name, self.changes)) for name in self.names]
        origins: dict[str, str] = {}
        for name, recipe in pairs:
            if recipe.name in origins:
                raise RecipeError(
                    f"{origins[recipe.name]} and {name} are both called {recipe.name!r} and would "
                    "share a folder. Rename one."
                )
            origins[recipe.name] = name
        return pairs

    def runner(self, recipe: Recipe) -> Runner:
        """The runner of one of the recipes."""
        return Runner(STAGES, recipe, Store(self.artifacts, recipe.name, STAGE_NAMES))

    def words(self, goal: str, names: Sequence[str], options: Sequence[str] = ()) -> list[str]:
        """The command line that runs these recipes, without the name of the program."""
        words = ["run", goal]
        for name in names:
            words += ["--recipe", name]
        for change in self.changes:
            words += ["--set", change]
        if self.artifacts != Path("artifacts"):
            words += ["--artifacts", str(self.artifacts)]
        if self.nproc:
            words += ["--nproc", str(self.nproc)]
        return [*words, *options]

    def command(self, goal: str, names: Sequence[str], options: Sequence[str] = ()) -> str:
        """The command line that runs these recipes, for a shell."""
        launched = launched_process().size > 1 and not self.nproc
        start = ["torchrun", "...", "-m", "pipeline"] if launched else [program()]
        return shlex.join([*start, *self.words(goal, names, options)])


@dataclass(frozen=True)
class RunOptions:
    """The request of `run` or `plan`: the stages up to ``goal``, again from stage ``start`` on
    even if their results are fresh."""

    selection: Selection
    goal: str  # a stage, or "all"
    start: str | None = None
    force: bool = False
    explain: bool = False

    def check(self) -> None:
        """Raise UsageError where the first stage comes after the last one, so nothing would run."""
        start, goal = self.start, self.goal
        if start and goal != "all" and STAGE_NAMES.index(start) > STAGE_NAMES.index(goal):
            raise click.UsageError(
                f"--from {start}: {start} comes after {goal}, the last stage of this run, so "
                f"nothing would run. Run {start} or all instead of {goal}."
            )

    def to_words(self) -> list[str]:
        """The command line without the name of the program."""
        options = [*self._forcing(), *(["--explain"] if self.explain else [])]
        return self.selection.words(self.goal, self.selection.names, options)

    def commands_after(self, failed: str, name: str) -> list[str]:
        """The commands that continue after stage ``failed`` of the recipe given as ``name``, with
        that stage and with the recipes that have not had their turn. What was forced stays so,
        except for stages that are done."""
        command, names = self.selection.command, self.selection.names
        rest = names[names.index(name) :]
        forcing = self._forcing()
        if not forcing:
            return [command(self.goal, rest)]
        onward = forcing
        if self.force and self.goal == "all":
            onward = ["--from", failed]
        elif self.start and not self.force:
            onward = ["--from", max(self.start, failed, key=STAGE_NAMES.index)]
        later = [command(self.goal, rest[1:], forcing)] if rest[1:] else []
        return [command(self.goal, rest[:1], onward), *later]

    def _forcing(self) -> list[str]:
        start = ["--from", self.start] if self.start else []
        return [*start, *(["--force"] if self.force else [])]


def selecting(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a Selection, and those that force stages to run, to a command."""
    options = [
        click.option(
            "--recipe",
            "names",
            multiple=True,
            metavar="NAME|FILE.toml",
            help="Recipe to build, by its name or file; may be repeated.  "
            f"[default: {' and '.join(DEFAULT_RECIPES)}]",
        ),
        CHANGES,
        click.option(
            "--device",
            type=click.Choice(["auto", "cpu", "cuda"]),
            help="Device that trains the network.  [default: train.device of the recipe]",
        ),
        click.option(
            "--seed",
            type=int,
            help="Seed of every random choice.  [default: seed of the recipe]",
        ),
        click.option(
            "--max-minutes",
            type=float,
            metavar="MINUTES",
            help="Stop training after this many minutes, a teacher's not counted; a shortened run "
            "is marked INCOMPLETE.  [default: train.max_minutes of the recipe, or no limit]",
        ),
        ARTIFACTS,
        click.option(
            "--from",
            "start",
            type=click.Choice(STAGE_NAMES),
            help="Run every stage from this one on, also when it is fresh.  [default: stages that "
            "are not fresh run]",
        ),
        click.option(
            "--force", is_flag=True, help="Run the named stage (or all of them) even when fresh."
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def run_options(
    goal: str,
    *,
    names: tuple[str, ...],
    changes: tuple[str, ...],
    device: str | None,
    seed: int | None,
    max_minutes: float | None,
    artifacts: Path,
    nproc: int | None = None,
    **forcing: Any,
) -> RunOptions:
    """Gather the options that ``selecting`` adds. Raises UsageError where nothing would run."""
    changed = {"train.device": device, "seed": seed, "train.max_minutes": max_minutes}
    changes += tuple(f"{key}={value}" for key, value in changed.items() if value is not None)
    options = RunOptions(
        Selection(names or DEFAULT_RECIPES, changes, artifacts, nproc), goal, **forcing
    )
    options.check()
    return options
