"""Plans, runs and records stages, and skips those that are fresh. Independent of particular stages,
of torch and of onnx."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline.engine.digests import source_files
from pipeline.engine.failure import Failure, write_failure
from pipeline.engine.stage import (
    Context,
    Finished,
    Observer,
    Stage,
    StageReport,
    UserModule,
)
from pipeline.engine.store import Record, Store
from pipeline.errors import Interrupted, StageError, StoreError
from pipeline.recipe import Recipe


@dataclass(frozen=True)
class Step:
    """One stage of a plan. No ``reasons`` means that it is fresh and will be skipped."""

    stage: Stage[Any]
    reasons: tuple[str, ...]

    @property
    def fresh(self) -> bool:
        """True when there is nothing to do."""
        return not self.reasons


@dataclass(frozen=True)
class Outcome:
    """The outcome of one stage in a run."""

    stage: Stage[Any]
    skipped: bool
    record: Record


def fingerprint(
    stage: Stage[Any],
    recipe: Recipe,
    digests: Mapping[str, str],
    seen: Mapping[str, UserModule] | None = None,
) -> dict[str, str]:
    """Everything that decides a stage's result, by "kind: name"; see ``store.Record``.

    ``digests`` holds the output digests of the earlier stages and of the borrowed ones that exist.
    ``seen`` are the user's files that only running the stage has shown, as its report has them.
    """
    parts = {f"input: {name}": digests[name] for name in stage.inputs}
    parts |= {f"input: {name}": digests.get(name, "not there") for name in stage.borrows(recipe)}
    for key, value in _flatten(recipe.slice(stage.sections)):
        parts[f"recipe: {key}"] = value
    for file, digest in source_files(stage.sources).items():
        parts[f"source: {file}"] = digest
    for library in stage.libraries:
        parts[f"library: {library}"] = _version(library)
    for key, value in stage.outside(recipe).items():
        parts[f"outside: {key}"] = value
    for file, digest in stage.modules(recipe, seen or {}).items():
        parts[f"module: {file}"] = digest
    return parts


def _as_run(parts: Mapping[str, str], report: StageReport) -> dict[str, str]:
    """A fingerprint, taken before a stage ran, with the user's files that running it showed."""
    seen = {f"module: {name}": module.sha256 for name, module in report.user_modules().items()}
    return {**seen, **parts}


def _decisive(stage: Stage[Any], parts: Mapping[str, str]) -> dict[str, str]:
    """A fingerprint without what decides only how fast."""
    return {k: v for k, v in parts.items() if k.removeprefix("recipe: ") not in stage.how_fast}


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """Describe what changed between two fingerprints, one line each."""
    lines = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if old == new:
            continue
        if key.startswith(("recipe:", "library:", "outside:")):
            lines.append(f"{key} changed: {_short(old)} -> {_short(new)}")
        elif old is None:
            lines.append(f"{key} is new")
        elif new is None:
            lines.append(f"{key} is gone")
        else:
            lines.append(f"{key} changed")
    return tuple(lines)


class Runner:
    """Plans and runs the stages of one recipe in one store."""

    def __init__(self, stages: tuple[Stage[Any], ...], recipe: Recipe, store: Store) -> None:
        self.stages = stages
        self.recipe = recipe
        self.store = store

    def plan(self, goal: str, start: str | None = None, force: bool = False) -> tuple[Step, ...]:
        """Plan what would run, and why, to bring the stages up to ``goal`` ("all" for the last
        one) up to date. From ``start`` on every stage runs; ``force`` runs the goal itself, or all.

        A stage behind one that will run is judged as if that one's result changed; the run looks
        again and skips it when the result turns out the same.
        """
        steps: list[Step] = []
        digests: dict[str, str] = {}
        pending: set[str] = set()
        for stage in self._upto(goal):
            waits = [name for name in stage.inputs if name in pending]
            forced = self._forced(stage, goal, start, force)
            borrowed, missing = self._borrowed(stage)
            waits += missing
            digests |= {name: record.digest() for name, record in borrowed.items()}
            if waits and not forced:
                reasons: tuple[str, ...] = (f"depends on {', '.join(waits)}, which will run",)
            else:
                reasons = forced or self._stale(stage, digests)
            if reasons:
                pending.add(stage.name)
            elif record := self.store.record(stage.name):
                digests[stage.name] = record.digest()
            steps.append(Step(stage, reasons))
        return tuple(steps)

    def run(
        self,
        goal: str,
        observer: Observer,
        start: str | None = None,
        force: bool = False,
        explain: bool = False,
        on_outcome: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        """Bring the stages up to ``goal`` up to date and publish what they publish.

        ``on_outcome`` is called after each stage. Raises StageError for the first stage that fails
        and Interrupted for Ctrl-C; finished stages and the last good published files stay as they
        are.
        """
        records: dict[str, Record] = {}
        with self.store.lock(), self._failure_written():
            self._recover()
            for stage in self._upto(goal):
                with _failures(stage):
                    records |= self._all_borrowed(stage)
                    digests = {
                        name: records[name].digest() for name in self._inputs(stage, records)
                    }
                    reasons = self._forced(stage, goal, start, force) or self._stale(stage, digests)
                    if self.store.is_outdated(stage.name, stage.report):
                        observer.note(
                            f"{self.recipe.name} {stage.name}: {self.store.absence(stage.name)}; "
                            "it runs again"
                        )
                    if explain:
                        why = "; ".join(reasons) if reasons else "fresh, nothing changed"
                        observer.note(f"{self.recipe.name} {stage.name}: {why}")
                    record = self.store.record(stage.name)
                    if reasons or record is None:
                        names = [later.name for later in self._upto(goal)]
                        ahead = tuple(names[names.index(stage.name) + 1 :])
                        record = self._run_stage(stage, records, digests, observer, ahead)
                    self.store.publish(stage.name, stage.publish)
                records[stage.name] = record
                on_outcome(Outcome(stage, not reasons, record))

    def adopt(self, goal: str, donors: Sequence[Store]) -> tuple[str, ...]:
        """Take over finished stages up to ``goal`` that another folder has with the very
        fingerprint that they would have here; the names of those that were.

        Ends at the first stage that is neither fresh nor to be had.
        """
        taken = []
        digests: dict[str, str] = {}
        with self.store.lock():
            self._recover()
            for stage in self._upto(goal):
                borrowed, missing = self._borrowed(stage)
                digests |= {name: record.digest() for name, record in borrowed.items()}
                if missing:
                    break
                if self._stale(stage, digests):
                    donor = next((d for d in donors if self._has(d, stage, digests)), None)
                    if donor is None:
                        break
                    self.store.adopt(stage.name, donor)
                    taken.append(stage.name)
                record = self.store.record(stage.name)
                if record is None:
                    break  # altered in the meantime; a run reports that
                digests[stage.name] = record.digest()
        return tuple(taken)

    @contextmanager
    def _failure_written(self) -> Iterator[None]:
        """Leave the failure of this block as ``failure.json``, in place of an older one."""
        write_failure(self.store.root, None)
        try:
            yield
        except (StageError, Interrupted) as exc:
            write_failure(self.store.root, Failure(exc.stage, str(exc), exc.exit_code))
            raise

    def _recover(self) -> None:
        """Finish, and clear away, what a killed run left behind."""
        self.store.recover(tuple(stage.name for stage in self.stages))
        for stage in self.stages:
            self.store.sweep(stage.name, stage.scratch)

    def _run_stage(
        self,
        stage: Stage[Any],
        records: Mapping[str, Record],
        digests: Mapping[str, str],
        observer: Observer,
        ahead: tuple[str, ...],
    ) -> Record:
        parts = fingerprint(stage, self.recipe, digests)
        out = self._begin(stage, parts, observer)
        context = Context(
            recipe=self.recipe,
            out=out,
            inputs={name: self.store.folder(name) for name in stage.inputs}
            | {
                name: self.store.of_recipe(source.recipe).folder(source.stage)
                for name, source in stage.borrows(self.recipe).items()
                if name in records
            },
            finished={
                name: self._finished(stage, name, records[name])
                for name in self._inputs(stage, records)
            },
            observer=observer,
            ahead=ahead,
        )
        stage.check(context)
        began = time.perf_counter()
        report = stage.run(context)
        seconds = time.perf_counter() - began
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        parts = _as_run(parts, report)
        return self.store.commit(
            stage.name, parts, report, round(seconds, 3), finished, stage.scratch
        )

    def _begin(self, stage: Stage[Any], parts: Mapping[str, str], observer: Observer) -> Path:
        """The folder to work in; files of a killed run stay if this one can continue from them."""
        before = self.store.begun(stage.name) if stage.resumable else None
        if before is None:
            return self.store.begin(stage.name, parts, resume=False)
        lines = differences(_decisive(stage, before), _decisive(stage, parts))
        if lines:
            more = f"; and {len(lines) - 3} more" if len(lines) > 3 else ""
            observer.note(
                f"{self.recipe.name} {stage.name} starts over; the rest of an interrupted run is "
                f"removed: {'; '.join(lines[:3])}{more}"
            )
        return self.store.begin(stage.name, parts, resume=not lines)

    def _inputs(self, stage: Stage[Any], records: Mapping[str, Record]) -> list[str]:
        """Names of its inputs, and of the borrowed stages that exist."""
        borrowed = [name for name in stage.borrows(self.recipe) if name in records]
        return [*stage.inputs, *borrowed]

    def _borrowed(self, stage: Stage[Any]) -> tuple[dict[str, Record], list[str]]:
        """The stages that a stage borrows, and the names of those that it needs and that are
        missing."""
        borrowed, missing = {}, []
        for name, source in stage.borrows(self.recipe).items():
            store = self.store.of_recipe(source.recipe)
            record = store.record(source.stage)
            if record and source.optional and not self._usable(store, source.stage, record):
                record = None
            if record is not None:
                borrowed[name] = record
            elif not source.optional:
                missing.append(name)
        return borrowed, missing

    def _usable(self, store: Store, stage: str, record: Record) -> bool:
        """True where the stage is undamaged and its report of this version."""
        return (
            record.report(self._stage(stage).report) is not None
            and store.damage(stage, record) is None
        )

    def _stage(self, name: str) -> Stage[Any]:
        return next(stage for stage in self.stages if stage.name == name)

    def _all_borrowed(self, stage: Stage[Any]) -> dict[str, Record]:
        borrowed, missing = self._borrowed(stage)
        for name in missing:
            source = stage.borrows(self.recipe)[name]
            raise StoreError(
                f"{self.recipe.name} needs the {source.stage} stage of recipe {source.recipe}, "
                f"which has not run in {self.store.root.parent}. Run: pipeline run "
                f"{source.stage} --recipe {source.recipe}"
            )
        return borrowed

    def _finished(self, stage: Stage[Any], name: str, record: Record) -> Finished[Any]:
        """An input of ``stage`` with its report; raises StoreError where that is of another
        format, which is so only for a stage of another recipe."""
        borrowed = stage.borrows(self.recipe).get(name)
        source = borrowed.stage if borrowed else name
        report = record.report(self._stage(source).report)
        if report is None:
            raise StoreError(
                f"the report of the {source} stage was written by another version. Run: pipeline "
                f"run {source} --recipe {borrowed.recipe if borrowed else self.recipe.name}"
            )
        return Finished(report, record.seconds, record.finished)

    def _stale(self, stage: Stage[Any], digests: Mapping[str, str]) -> tuple[str, ...]:
        record = self.store.record(stage.name)
        report = None if record is None else record.report(stage.report)
        if record is None or report is None:
            return (self.store.absence(stage.name),)
        now = fingerprint(stage, self.recipe, digests, report.user_modules())
        if changed := differences(record.fingerprint, now):
            return changed
        damage = self.store.damage(stage.name, record)
        return (damage,) if damage else ()

    def _has(self, donor: Store, stage: Stage[Any], digests: Mapping[str, str]) -> bool:
        """True where a folder has an undamaged stage as it would be here."""
        record = donor.record(stage.name)
        report = None if record is None else record.report(stage.report)
        if record is None or report is None:
            return False
        requested = fingerprint(stage, self.recipe, digests, report.user_modules())
        return record.fingerprint == requested and donor.damage(stage.name, record) is None

    def _forced(
        self, stage: Stage[Any], goal: str, start: str | None, force: bool
    ) -> tuple[str, ...]:
        names = [s.name for s in self.stages]
        if start is not None and names.index(stage.name) >= names.index(start):
            return (f"--from {start}",)
        if force and goal in ("all", stage.name):
            return ("--force",)
        return ()

    def _upto(self, goal: str) -> Sequence[Stage[Any]]:
        if goal == "all":
            return self.stages
        last = [stage.name for stage in self.stages].index(goal)
        return self.stages[: last + 1]


@contextmanager
def _failures(stage: Stage[Any]) -> Iterator[None]:
    """Wrap any exception of this block in an error that has the stage's name."""
    try:
        yield
    except KeyboardInterrupt as exc:
        raise Interrupted(stage.name) from exc
    except Exception as exc:
        raise StageError(stage.name, exc) from exc


def _flatten(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict) and value:
        return [
            pair
            for key, inner in value.items()
            for pair in _flatten(inner, f"{prefix}.{key}" if prefix else key)
        ]
    return [(prefix, json.dumps(value, sort_keys=True))]


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "not installed"


def _short(text: str | None) -> str:
    if text is None:
        return "(none)"
    return text if len(text) <= 60 else text[:57] + "..."
