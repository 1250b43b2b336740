"""A stage: its name, everything that decides its result, and a plain function. Independent of
particular stages, of folder layouts and of libraries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from pipeline.recipe import Recipe


@dataclass(frozen=True)
class UserModule:
    """A source file of the user's that only running a stage has shown."""

    file: str  # relative to the recipe's folder where it is inside
    sha256: str


@dataclass(frozen=True)
class StageReport:
    """Base of the reports of stages: values only, which JSON can hold.

    A report of another ``format`` than its class has is not read; its stage runs again.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    format: ClassVar[int] = 1  # raised with each change that makes older reports unreadable
    headline: str  # one line for the terminal

    def user_modules(self) -> Mapping[str, UserModule]:
        """The user's files that belong to the fingerprint, by name."""
        return {}


R = TypeVar("R", bound=StageReport)


class Observer(Protocol):
    """Watches a run: the terminal, a log file, a test."""

    def note(self, text: str) -> None:
        """Show one line that the user should read."""

    def step(self, task: str, done: int, total: int, detail: str = "") -> None:
        """Show that ``done`` of ``total`` units of ``task`` are finished, with a ``detail``."""


@dataclass(frozen=True)
class Finished(Generic[R]):
    """A stage that ran."""

    report: R
    seconds: float
    finished: str  # ISO 8601, UTC


@dataclass(frozen=True)
class Context:
    """The arguments of a stage's function."""

    recipe: Recipe
    out: Path  # an empty folder, or what a killed run of a resumable stage left
    inputs: Mapping[str, Path]  # the finished folders of the stages named in Stage.inputs
    finished: Mapping[str, Finished[Any]]  # the same stages, own ones first, then borrowed ones
    observer: Observer
    ahead: tuple[str, ...] = ()  # names of the later stages of this run

    def report(self, kind: type[R], name: str | None = None) -> R:
        """The report of this kind among those of the inputs; of several, that of stage ``name``."""
        for key, stage in self.finished.items():
            if isinstance(stage.report, kind) and name in (None, key):
                return stage.report
        raise KeyError(f"no input of this stage has a {kind.__name__}")


@dataclass(frozen=True)
class Elsewhere:
    """A finished stage of another recipe, in the same artifact folder."""

    recipe: str  # its name, which is that of its folder
    stage: str
    optional: bool = False  # one that is not finished, or damaged, is left out; else an error


def _nothing(_: Recipe) -> dict[str, str]:
    return {}


def _no_modules(_: Recipe, __: Mapping[str, UserModule]) -> dict[str, str]:
    return {}


def _no_stages(_: Recipe) -> dict[str, Elsewhere]:
    return {}


def _accept(_: Context) -> None:
    pass


@dataclass(frozen=True)
class Stage(Generic[R]):
    """One step from images to bundle.

    A finished stage is fresh as long as everything that decides its result is unchanged: the
    outputs of its ``inputs`` and of what it ``borrows`` (by the names that it has in
    ``Context.inputs`` and ``Context.finished``), its ``sections`` of the recipe, the ``sources``
    and the installed ``libraries``, the files and machines beyond the artifact folder that
    ``outside`` describes, and the user's ``modules``.
    """

    name: str
    summary: str  # one line for --help and the README
    report: type[R]
    run: Callable[[Context], R]
    # Refuses, before the stage runs, what would fail later; decides nothing of its result.
    check: Callable[[Context], None] = field(default=_accept)
    inputs: tuple[str, ...] = ()  # names of earlier stages
    sections: tuple[str, ...] = ()  # top-level keys of the recipe
    sources: tuple[str, ...] = ()  # folders and files below the package roots, "exporters/graph"
    libraries: tuple[str, ...] = ()  # distributions whose version matters
    outside: Callable[[Recipe], dict[str, str]] = field(default=_nothing)
    # Hashes of the user's own source files, as they are now; those that only running the stage has
    # shown are given, by name, where it is finished.
    modules: Callable[[Recipe, Mapping[str, UserModule]], dict[str, str]] = field(
        default=_no_modules
    )
    borrows: Callable[[Recipe], Mapping[str, Elsewhere]] = field(default=_no_stages)
    resumable: bool = False  # continues from what a killed run left in ``out``
    # Keys of the recipe, "train.device", that decide the speed and not the result: a killed run
    # continues with others. A finished stage is as fresh as its sections are, these included.
    how_fast: tuple[str, ...] = ()
    scratch: tuple[str, ...] = ()  # files in ``out`` that only an unfinished run needs
    publish: tuple[str, ...] = ()  # outputs (files or folders) copied next to the stage folders


def check_order(stages: tuple[Stage[Any], ...]) -> None:
    """Raise ValueError unless names are distinct and every input comes earlier."""
    seen: set[str] = set()
    for stage in stages:
        if stage.name in seen:
            raise ValueError(f"two stages are called {stage.name!r}")
        if missing := set(stage.inputs) - seen:
            raise ValueError(f"stage {stage.name!r} reads {sorted(missing)}, which come later")
        seen.add(stage.name)
