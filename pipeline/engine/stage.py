"""What a stage is: a name, what decides its result, and a plain function. Knows no stage in
particular, no folder layout and no library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pipeline.recipe import Recipe


class Observer(Protocol):
    """Whoever watches a run: the terminal, a log file, a test."""

    def note(self, text: str) -> None:
        """One line that the user should read."""

    def step(self, task: str, done: int, total: int, detail: str = "") -> None:
        """``done`` of ``total`` units of ``task`` are finished; ``detail`` is shown beside it."""


@dataclass(frozen=True)
class Context:
    """What a stage's function is handed."""

    recipe: Recipe
    out: Path  # an empty folder, or what a killed run left that a resumable stage can go on from
    inputs: Mapping[str, Path]  # the finished folders of the stages named in Stage.inputs
    reports: Mapping[str, dict[str, Any]]  # what those returned, with "seconds" and "finished"
    observer: Observer
    ahead: tuple[str, ...] = ()  # names of the stages that this run goes on with


@dataclass(frozen=True)
class Elsewhere:
    """A finished stage of another recipe, in the same artifact folder."""

    recipe: str  # its name, which is that of its folder
    stage: str
    optional: bool = False  # where it is not finished, or damaged, it is left out; else an error


def _nothing(_: Recipe) -> dict[str, str]:
    return {}


def _no_modules(_: Recipe, __: Mapping[str, Any]) -> dict[str, str]:
    return {}


def _nobody(_: Recipe) -> dict[str, Elsewhere]:
    return {}


def _fine(_: Context) -> None:
    pass


@dataclass(frozen=True)
class Stage:
    """One step from images to bundle.

    A finished stage is fresh as long as everything that decides its result is unchanged: the
    outputs of its ``inputs`` and of what it ``borrows`` (by the names that it has in
    ``Context.inputs`` and ``Context.reports``), its ``sections`` of the recipe, the ``sources`` and
    the installed ``libraries``, and whatever ``outside`` says of files and machines beyond the
    artifact folder, and the user's ``modules``.
    """

    name: str
    summary: str  # one line for --help and the README
    run: Callable[[Context], dict[str, Any]]  # returns a report of JSON values
    # Refuses, before the stage runs, what would fail later; decides nothing of its result.
    check: Callable[[Context], None] = field(default=_fine)
    inputs: tuple[str, ...] = ()  # names of earlier stages
    sections: tuple[str, ...] = ()  # top-level keys of the recipe
    sources: tuple[str, ...] = ()  # folders and files below the package roots, "exporters"
    libraries: tuple[str, ...] = ()  # distributions whose version matters
    outside: Callable[[Recipe], dict[str, str]] = field(default=_nothing)
    # Hashes of the user's own source files, as they are now; the report of a finished stage (else
    # an empty one) may have found more of them: under "modules", {name: {"file", "sha256"}}.
    modules: Callable[[Recipe, Mapping[str, Any]], dict[str, str]] = field(default=_no_modules)
    borrows: Callable[[Recipe], Mapping[str, Elsewhere]] = field(default=_nobody)
    resumable: bool = False  # goes on from what a killed run left in ``out``
    # Keys of the recipe, "train.device", that decide how fast and not what: a killed run goes on
    # with others. A finished stage is as fresh as its sections are, these keys included.
    how_fast: tuple[str, ...] = ()
    scratch: tuple[str, ...] = ()  # files in ``out`` that only an unfinished run needs
    publish: tuple[str, ...] = ()  # outputs (files or folders) copied beside the stage folders


def check_order(stages: tuple[Stage, ...]) -> None:
    """Raise ValueError unless names are distinct and every input comes earlier."""
    seen: set[str] = set()
    for stage in stages:
        if stage.name in seen:
            raise ValueError(f"two stages are called {stage.name!r}")
        if missing := set(stage.inputs) - seen:
            raise ValueError(f"stage {stage.name!r} reads {sorted(missing)}, which come later")
        seen.add(stage.name)
