"""Runs the trials of a grid through an executor, each in its own folder, and collects their
results. Finished trials are never repeated; a failed one is reported, and the others continue.

    artifacts/sweeps/<recipe>/sweep.json, sweep.html       written again after each trial
    artifacts/sweeps/<recipe>/<trial>/<recipe>/1_data/...  stages, as ``pipeline run`` makes them
    artifacts/sweeps/<recipe>/<trial>/<stage>.log          output of the last command
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pipeline.engine.failure import FAILURE_NAME, read_failure
from pipeline.engine.lock import locked
from pipeline.engine.runner import Runner
from pipeline.engine.store import Store
from pipeline.errors import StoreError
from pipeline.recipe import SWEEPS, Recipe
from pipeline.reports import TrainReport
from pipeline.stages import STAGES
from pipeline.sweep import measure, page
from pipeline.sweep.executor import Executor, Finished, TrialProcess
from pipeline.sweep.grid import Axis, Trial
from pipeline.sweep.result import Form, SweepResult, TrialResult, mark_front
from pipeline.sweep.schedule import Step, steps
from pipeline.teacher import teachers_of
from runtime.tasks import TASKS

GOALS = ("train", "quantize", "validate", "benchmark")
_STAGE_NAMES = tuple(stage.name for stage in STAGES)
_LAST_LINES = 3  # of a log that are shown where a process failed before its run began


@dataclass(frozen=True)
class SweepOptions:
    """The sweep that is asked for."""

    recipe: str  # name or file, as given
    axes: tuple[Axis, ...]
    changes: tuple[str, ...]
    trials: tuple[Trial, ...]
    until: str
    artifacts: Path

    @property
    def root(self) -> Path:
        """The sweep's own folder."""
        return self.artifacts / SWEEPS / self.trials[0].recipe.name

    def folder(self, trial: Trial) -> Path:
        """The artifact folder of the trial's commands."""
        return self.root / trial.name

    def store(self, trial: Trial) -> Store:
        """The stages of the trial."""
        return Store(self.folder(trial), trial.recipe.name, _STAGE_NAMES)


@dataclass(frozen=True)
class Progress:
    """One trial has come to its end."""

    trial: TrialResult
    done: int
    total: int


def sweep(
    options: SweepOptions,
    executor: Executor,
    on_trial: Callable[[Progress], None] = lambda progress: None,
    on_step: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> SweepResult:
    """Bring every trial up to ``options.until``, time all files side by side, and write
    ``sweep.json`` and ``sweep.html``.

    ``on_step`` is called while files are timed. Raises StoreError when another sweep works in the
    same folder, or nothing can be written; a trial that fails is part of the result.
    """
    with locked(options.root):
        return _Sweep(options, executor, on_trial).run(on_step)


class _Sweep:
    def __init__(
        self, options: SweepOptions, executor: Executor, on_trial: Callable[[Progress], None]
    ) -> None:
        self.options, self.executor, self.on_trial = options, executor, on_trial
        self.waiting: dict[str, Step] = {}  # by the name of their process
        self.errors: dict[str, tuple[str, Path | None]] = {}  # by trial: the message, and the log
        self.ended: set[str] = set()  # trials
        self.shared: dict[str, list[str]] = {trial.name: [] for trial in options.trials}

    def run(self, on_step: Callable[[str, int, int], None]) -> SweepResult:
        stages = STAGES[: _STAGE_NAMES.index(self.options.until) + 1]
        for step in steps(self.options.trials, stages):
            self._begin(step)
        for finished in self.executor.results():
            step = self.waiting.pop(finished.process.name)
            if finished.exit_code == 0:
                self._done(step)
            else:
                self._failed(step, _error(finished), finished.process.log)
            page.write_json(self._result(), self.options.root)
        result = self._result()
        stores = {trial.name: self.options.store(trial) for trial in self.options.trials}
        result = mark_front(result.with_forms(measure.time_forms(stores, result.forms, on_step)))
        page.write(result, self.options.root)
        return result

    def _begin(self, step: Step) -> None:
        """Submit the step, unless it is already done or its folder is in use."""
        try:
            self._submit(step)
        except StoreError as exc:
            self._failed(step, str(exc), None)

    def _submit(self, step: Step) -> None:
        trial, options = step.trial, self.options
        for teacher in teachers_of(trial.recipe):
            self._runner(trial, teacher).adopt("train", list(self._donors(trial, teacher.name)))
        runner = self._runner(trial, trial.recipe)
        donors = list(self._donors(trial, trial.recipe.name))
        self.shared[trial.name] += runner.adopt(step.goal, donors)
        if all(planned.fresh for planned in runner.plan(step.goal)):
            self._done(step)
            return
        self.waiting[step.name] = step
        words = _words(options, trial, step.goal, options.folder(trial))
        folder = options.folder(trial)
        for old in folder.glob(f"*/{FAILURE_NAME}"):
            old.unlink(missing_ok=True)
        log = folder / f"{step.goal}.log"
        self.executor.submit(TrialProcess(step.name, words, log))

    def _runner(self, trial: Trial, recipe: Recipe) -> Runner:
        """A runner of the trial's recipe, or of its teacher's, in the trial's folder."""
        return Runner(STAGES, recipe, Store(self.options.folder(trial), recipe.name, _STAGE_NAMES))

    def _donors(self, trial: Trial, name: str) -> Iterator[Store]:
        """Folders that may have finished stages of the recipe of this name: its own, and those of
        the other trials, of this sweep and of earlier ones."""
        yield Store(self.options.artifacts, name, _STAGE_NAMES)
        for folder in sorted(self.options.root.glob(f"*/{name}")):
            if folder.parent.name != trial.name:
                yield Store(folder.parent, name, _STAGE_NAMES)

    def _done(self, step: Step) -> None:
        if step.final:
            self._report(step.trial)
        for follower in step.followers:
            self._begin(follower)

    def _failed(self, step: Step, error: str, log: Path | None) -> None:
        """Record the failure of the trial and of those that wait for this step."""
        if step.for_teacher and self._has_teachers(step.trial):
            self._done(step)  # its own training failed; a follower reports the reason
            return
        for trial in step.finals():
            self.errors[trial.name] = error, log
            self._report(trial)

    def _has_teachers(self, trial: Trial) -> bool:
        stores = [self._runner(trial, teacher).store for teacher in teachers_of(trial.recipe)]
        return all(store.record("train") is not None for store in stores)

    def _report(self, trial: Trial) -> None:
        self.ended.add(trial.name)
        self.on_trial(Progress(self._trial(trial), len(self.ended), len(self.options.trials)))

    # --- results so far ---------------------------------------------------------------

    def _result(self) -> SweepResult:
        from pipeline.hardware import detect

        options = self.options
        data = measure.data_of([options.store(trial) for trial in options.trials])
        return SweepResult(
            recipe=options.trials[0].recipe.name,
            description=options.trials[0].recipe.description,
            grid={axis.word: axis.values for axis in options.axes},
            changes=options.changes,
            until=options.until,
            hardware=detect().caption(),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            trials=tuple(self._trial(trial) for trial in options.trials),
            task=data.task,
            validation_images=self._images(data.validation_images),
            metric="balanced accuracy" if self._balanced(data.task) else "accuracy",
            synthetic=data.synthetic,
        )

    def _forms(self, trial: Trial, store: Store) -> tuple[Form, ...]:
        if self.options.until == "train":
            return ()
        task = measure.data_of([store]).task
        return measure.forms_of(trial.name, store, self._balanced(task))

    def _images(self, available: int) -> int:
        """The number of ``available`` validation images that a search uses."""
        if self.options.until == "train":
            return available
        limits = [trial.recipe.quantize.search.validation_images for trial in self.options.trials]
        return min(available, *limits)

    def _balanced(self, task: str) -> bool:
        """True when thresholds are chosen for balanced accuracy. Plain accuracy then says little: a
        rare label is answered more often than it occurs."""
        objectives = {trial.recipe.gate.thresholds for trial in self.options.trials}
        thresholds = task in TASKS and TASKS[task].has_thresholds
        return self.options.until != "train" and thresholds and objectives == {"balanced"}

    def _trial(self, trial: Trial) -> TrialResult:
        result = TrialResult(
            name=trial.name,
            settings=dict(trial.settings),
            status="not run",
            command=_whole(self.options, trial),
        )
        if trial.name in self.errors:
            error, log = self.errors[trial.name]
            return replace(result, status="failed", error=error, log=str(log) if log else None)
        if trial.name not in self.ended:
            return result
        store = self.options.store(trial)
        train = store.report("train", TrainReport)
        assert train is not None  # the trial has ended well
        return replace(
            result,
            status="finished",
            accuracy_percent=train.result.val_accuracy_percent,
            parameters=train.result.parameters,
            cpu_seconds=train.result.cpu_seconds,
            incomplete=not train.result.complete,
            shared=tuple(self.shared[trial.name]),
            forms=self._forms(trial, store),
        )


def _words(options: SweepOptions, trial: Trial, goal: str, artifacts: Path) -> tuple[str, ...]:
    changes = [word for change in trial.changes for word in ("--set", change)]
    return ("run", goal, "--recipe", options.recipe, *changes, "--artifacts", str(artifacts))


def _whole(options: SweepOptions, trial: Trial) -> str:
    """The command that brings a trial from where it is to a bundle."""
    return shlex.join(("pipeline", *_words(options, trial, "all", options.folder(trial))))


def _error(finished: Finished) -> str:
    """Why a trial's process failed, from the ``failure.json`` that its run left."""
    if finished.exit_code < 0:
        return f"its process was ended by signal {-finished.exit_code}"
    for file in finished.process.log.parent.glob(f"*/{FAILURE_NAME}"):  # its own or a teacher's
        if failure := read_failure(file.parent):
            return f"stage {failure.stage!r}: {failure.message}"
    try:
        text = finished.process.log.read_text(encoding="utf-8", errors="replace")
    except OSError as exc:
        return f"exit code {finished.exit_code}, and its log cannot be read: {exc.strerror}"
    last = " ".join(" ".join(text.splitlines()[-_LAST_LINES:]).split())
    return f"exit code {finished.exit_code}: {last}" if last else f"exit code {finished.exit_code}"
