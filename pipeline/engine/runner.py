"""In what order, and what may be skipped: plans, runs and records stages. Knows what a stage is,
but none in particular, and nothing of torch or onnx."""

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

from pipeline.engine.stage import Context, Observer, Stage
from pipeline.engine.store import Record, Store, source_files
from pipeline.errors import Interrupted, StageError, StoreError
from pipeline.recipe import Recipe


@dataclass(frozen=True)
class Step:
    """One stage of a plan. No ``reasons`` means that it is fresh and will be skipped."""

    stage: Stage
    reasons: tuple[str, ...]

    @property
    def fresh(self) -> bool:
        """True when there is nothing to do."""
        return not self.reasons


@dataclass(frozen=True)
class Outcome:
    """What became of one stage in a run."""

    stage: Stage
    skipped: bool
    record: Record


def fingerprint(
    stage: Stage,
    recipe: Recipe,
    digests: Mapping[str, str],
    report: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Everything that decides a stage's result, by "kind: name"; see ``store.Record``.

    ``digests`` holds the output digests of the earlier stages and of borrowed ones, as far as
    these are there. ``report`` is that of the finished stage to compare with: it knows of files
    that only running the stage has shown.
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
    for file, digest in stage.modules(recipe, report or {}).items():
        parts[f"module: {file}"] = digest
    return parts


def _as_run(parts: Mapping[str, str], report: Mapping[str, Any]) -> dict[str, str]:
    """A fingerprint, taken before a stage ran, with the user's files that it found besides."""
    found = {f"module: {name}": row["sha256"] for name, row in report.get("modules", {}).items()}
    return {**found, **parts}


def _decisive(stage: Stage, parts: Mapping[str, str]) -> dict[str, str]:
    """A fingerprint without what decides only how fast."""
    return {k: v for k, v in parts.items() if k.removeprefix("recipe: ") not in stage.how_fast}


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """In words what changed between two fingerprints, one line each."""
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

    def __init__(self, stages: tuple[Stage, ...], recipe: Recipe, store: Store) -> None:
        self.stages = stages
        self.recipe = recipe
        self.store = store

    def plan(self, goal: str, start: str | None = None, force: bool = False) -> tuple[Step, ...]:
        """What would run, and why, to bring the stages up to ``goal`` ("all" for the last one) up
        to date. From ``start`` on every stage runs; ``force`` runs the goal itself, or all.

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
        with self.store.lock():
            self._recover()
            for stage in self._upto(goal):
                with _failures(stage):
                    records |= self._all_borrowed(stage)
                    digests = {
                        name: records[name].digest() for name in self._inputs(stage, records)
                    }
                    reasons = self._forced(stage, goal, start, force) or self._stale(stage, digests)
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
                    break  # altered between two looks; a run would say so
                digests[stage.name] = record.digest()
        return tuple(taken)

    def _recover(self) -> None:
        """Finish, and clear away, what a killed run left behind."""
        self.store.recover(tuple(stage.name for stage in self.stages))
        for stage in self.stages:
            self.store.sweep(stage.name, stage.scratch)

    def _run_stage(
        self,
        stage: Stage,
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
                name: self.store.beside(place.recipe).folder(place.stage)
                for name, place in stage.borrows(self.recipe).items()
                if name in records
            },
            reports={name: _told(records[name]) for name in self._inputs(stage, records)},
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

    def _begin(self, stage: Stage, parts: Mapping[str, str], observer: Observer) -> Path:
        """The folder to work in, with what a killed run left if this one can go on from it."""
        before = self.store.begun(stage.name) if stage.resumable else None
        if before is None:
            return self.store.begin(stage.name, parts, resume=False)
        lines = differences(_decisive(stage, before), _decisive(stage, parts))
        if lines:
            more = f"; and {len(lines) - 3} more" if len(lines) > 3 else ""
            observer.note(
                f"{self.recipe.name} {stage.name} begins anew, what an interrupted run left is "
                f"removed: {'; '.join(lines[:3])}{more}"
            )
        return self.store.begin(stage.name, parts, resume=not lines)

    def _inputs(self, stage: Stage, records: Mapping[str, Record]) -> list[str]:
        """Its inputs, and what it borrows as far as that is there."""
        borrowed = [name for name in stage.borrows(self.recipe) if name in records]
        return [*stage.inputs, *borrowed]

    def _borrowed(self, stage: Stage) -> tuple[dict[str, Record], list[str]]:
        """What a stage borrows, and the names of what it needs but cannot."""
        found, missing = {}, []
        for name, place in stage.borrows(self.recipe).items():
            store = self.store.beside(place.recipe)
            record = store.record(place.stage)
            if record and place.optional and store.damage(place.stage, record):
                record = None
            if record is not None:
                found[name] = record
            elif not place.optional:
                missing.append(name)
        return found, missing

    def _all_borrowed(self, stage: Stage) -> dict[str, Record]:
        found, missing = self._borrowed(stage)
        for name in missing:
            place = stage.borrows(self.recipe)[name]
            raise StoreError(
                f"{self.recipe.name} needs the {place.stage} stage of recipe {place.recipe}, "
                f"which has not run in {self.store.root.parent}. Run: pipeline run "
                f"{place.stage} --recipe {place.recipe}"
            )
        return found

    def _stale(self, stage: Stage, digests: Mapping[str, str]) -> tuple[str, ...]:
        record = self.store.record(stage.name)
        if record is None:
            return (self.store.absence(stage.name),)
        now = fingerprint(stage, self.recipe, digests, record.report)
        if changed := differences(record.fingerprint, now):
            return changed
        damage = self.store.damage(stage.name, record)
        return (damage,) if damage else ()

    def _has(self, donor: Store, stage: Stage, digests: Mapping[str, str]) -> bool:
        """Whether a folder has an undamaged stage as it would be here."""
        record = donor.record(stage.name)
        if record is None:
            return False
        wanted = fingerprint(stage, self.recipe, digests, record.report)
        return record.fingerprint == wanted and donor.damage(stage.name, record) is None

    def _forced(self, stage: Stage, goal: str, start: str | None, force: bool) -> tuple[str, ...]:
        names = [s.name for s in self.stages]
        if start is not None and names.index(stage.name) >= names.index(start):
            return (f"--from {start}",)
        if force and goal in ("all", stage.name):
            return ("--force",)
        return ()

    def _upto(self, goal: str) -> Sequence[Stage]:
        if goal == "all":
            return self.stages
        last = [stage.name for stage in self.stages].index(goal)
        return self.stages[: last + 1]


@contextmanager
def _failures(stage: Stage) -> Iterator[None]:
    """Whatever goes wrong in this block is told with the stage's name."""
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


def _told(record: Record) -> dict[str, Any]:
    return {**record.report, "seconds": record.seconds, "finished": record.finished}


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "not installed"


def _short(text: str | None) -> str:
    if text is None:
        return "(none)"
    return text if len(text) <= 60 else text[:57] + "..."
