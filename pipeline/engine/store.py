"""The artifact folder: its layout, and the check that it is unchanged. Every folder
appears whole or not at all, whenever the process is killed. Reports of stages are written
and read here.

    artifacts/<recipe>/1_data/ ... 7_package/   one finished folder for each stage
    artifacts/<recipe>/<n>_<stage>.partial/     a stage at work, or killed
    artifacts/<recipe>/bundle.zip ...           copies of what the last stage publishes
    artifacts/sweeps/<recipe>/                  see sweep/run.py
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from exporters.files import atomic_file, write_text
from pipeline.engine.digests import file_sha256
from pipeline.engine.errors import as_store_error
from pipeline.engine.lock import locked
from pipeline.engine.stage import R, StageReport
from pipeline.recipe import SWEEPS as SWEEPS  # the folder that sweeps have next to those of recipes

RECORD_NAME = "stage.json"  # written last: without it a folder is not finished
_INTENT_NAME = "intent.json"  # the fingerprint that a partial folder works for
_PLUMBING = {RECORD_NAME, f"{RECORD_NAME}.partial", _INTENT_NAME}  # not made by the stage
_RECORD_VERSION = 3
_ADAPTERS: dict[type[StageReport], TypeAdapter[Any]] = {}


@dataclass(frozen=True)
class Output:
    """One file of a finished stage."""

    sha256: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Record:
    """The record of a finished stage, ``stage.json``.

    ``fingerprint`` has a flat "kind: name" key for everything that decided the result, so that a
    difference can be named: "recipe: train.epochs", "source: exporters/evaluate/parity.py",
    "library: torch", "input: data", "outside: cpu".
    """

    fingerprint: dict[str, str]
    outputs: dict[str, Output]
    report_format: int  # ``StageReport.format`` of its class when it was written
    report_json: str  # :meth:`report` reads it
    seconds: float
    finished: str  # ISO 8601, UTC

    def report(self, kind: type[R]) -> R | None:
        """The stage's report; None when it was written in another format."""
        if self.report_format != kind.format:
            return None
        try:
            report: R = _adapter(kind).validate_json(self.report_json, strict=True)
        except ValidationError:
            return None
        return report

    def digest(self) -> str:
        """Hash over the content of all outputs and over the report: the inputs of later
        stages."""
        lines = [f"{name} {output.sha256}" for name, output in sorted(self.outputs.items())]
        return _json_sha256([lines, json.loads(self.report_json)])


class Store:
    """The artifact folder of one recipe."""

    def __init__(self, artifacts: Path, recipe: str, stage_names: tuple[str, ...]) -> None:
        self.root = artifacts / recipe
        self._folders = {name: f"{i}_{name}" for i, name in enumerate(stage_names, start=1)}

    def of_recipe(self, recipe: str) -> Store:
        """The artifact folder of another recipe, next to this one."""
        return Store(self.root.parent, recipe, tuple(self._folders))

    def folder(self, stage: str) -> Path:
        """The finished folder of a stage, whether it exists or not."""
        return self.root / self._folders[stage]

    def record(self, stage: str) -> Record | None:
        """The record of a finished stage; None when there is none or it cannot be read."""
        try:
            data = json.loads((self.folder(stage) / RECORD_NAME).read_text(encoding="utf-8"))
            if data.pop("sha256") != _json_sha256(data) or data.pop("version") != _RECORD_VERSION:
                return None  # altered, or of another version
            outputs = {name: Output(**output) for name, output in data.pop("outputs").items()}
            return Record(outputs=outputs, report_json=json.dumps(data.pop("report")), **data)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def report(self, stage: str, kind: type[R]) -> R | None:
        """The report of a finished stage; None when there is none or it cannot be read."""
        record = self.record(stage)
        return None if record is None else record.report(kind)

    def is_outdated(self, stage: str, kind: type[R]) -> bool:
        """True for a stage that ran and whose record or report this version cannot read."""
        return (self.folder(stage) / RECORD_NAME).exists() and self.report(stage, kind) is None

    def absence(self, stage: str) -> str:
        """Explain why there is no record, or no report."""
        if (self.folder(stage) / RECORD_NAME).exists():
            return f"its {RECORD_NAME} was altered or is of another version"
        return "it has not run yet"

    def damage(self, stage: str, record: Record) -> str | None:
        """Describe what is wrong with a finished folder; None when it is intact.

        A file whose size and time stamp are those of the record is taken as unchanged, as git
        does; with another time stamp it is hashed.
        """
        folder = self.folder(stage)
        for name, output in record.outputs.items():
            try:
                stat = (folder / name).stat()
                touched = stat.st_mtime_ns != output.mtime_ns
                if stat.st_size != output.size_bytes or (
                    touched and file_sha256(folder / name) != output.sha256
                ):
                    return f"output {name} was altered"
            except FileNotFoundError:
                return f"output {name} is missing"
            except OSError as exc:
                return f"output {name} cannot be read: {exc.strerror}"
        return None

    def lock(self) -> AbstractContextManager[None]:
        """Keep other runs out of this recipe's folder; see :func:`pipeline.engine.lock.locked`."""
        return locked(self.root)

    def begun(self, stage: str) -> dict[str, str] | None:
        """The fingerprint that a killed run of a stage worked for; None where it left nothing."""
        partial = self._partial(stage)
        try:
            intent = json.loads((partial / _INTENT_NAME).read_text(encoding="utf-8"))
            made = any(file.name not in _PLUMBING for file in partial.iterdir())
        except (OSError, ValueError):
            return None
        return intent if made and isinstance(intent, dict) else None

    def begin(self, stage: str, fingerprint: Mapping[str, str], resume: bool) -> Path:
        """The folder for a stage to work in: empty, or to ``resume`` what a killed run left there;
        see :meth:`begun`."""
        partial = self._partial(stage)
        with as_store_error(partial):
            if not resume:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
                intent = json.dumps(dict(fingerprint), sort_keys=True)
                (partial / _INTENT_NAME).write_text(intent, encoding="utf-8")
        return partial

    def commit(
        self,
        stage: str,
        fingerprint: dict[str, str],
        report: StageReport,
        seconds: float,
        finished: str,
        scratch: tuple[str, ...] = (),
    ) -> Record:
        """Turn the partial folder into the finished one, replacing an older one, without the files
        in ``scratch``."""
        partial = self._partial(stage)
        values = _adapter(type(report)).dump_python(report, mode="json", warnings="error")
        with as_store_error(partial):
            outputs = _outputs(partial, _PLUMBING | set(scratch))
            record = Record(
                fingerprint, outputs, report.format, json.dumps(values), seconds, finished
            )
            data = {"version": _RECORD_VERSION, **asdict(record), "report": values}
            del data["report_json"]
            record_text = json.dumps({**data, "sha256": _json_sha256(data)}, indent=1)
            write_text(partial / RECORD_NAME, record_text)
            for name in scratch:  # not before the stage counts as finished
                (partial / name).unlink(missing_ok=True)
            self._swap(stage)
        return record

    def adopt(self, stage: str, other: Store) -> None:
        """Take over a finished stage from another folder, in place of one that is here. The files
        are hard links where the file system allows it, since finished ones never change; raises
        StoreError when neither that nor a copy is possible."""
        partial, source = self._partial(stage), other.folder(stage)
        with as_store_error(partial):
            shutil.rmtree(partial, ignore_errors=True)
            # the record last: without it a kill leaves an unfinished folder, not a damaged one
            ignore = shutil.ignore_patterns(RECORD_NAME)
            shutil.copytree(source, partial, ignore=ignore, copy_function=_link)
            _link(source / RECORD_NAME, partial / RECORD_NAME)
            self._swap(stage)

    def recover(self, stages: tuple[str, ...]) -> None:
        """Finish what a kill between two renames interrupted: a partial folder with a record is
        finished, and an old folder without its successor comes back."""
        with as_store_error(self.root):
            for stage in stages:
                folder, partial, old = self.folder(stage), self._partial(stage), self._old(stage)
                if (partial / RECORD_NAME).exists():
                    self._swap(stage)
                elif old.exists() and not folder.exists():
                    old.rename(folder)
                shutil.rmtree(old, ignore_errors=True)

    def sweep(self, stage: str, scratch: tuple[str, ...]) -> None:
        """Delete what a kill between a stage's record and its end left of its ``scratch``."""
        record = self.record(stage)
        if record is None:
            return  # not finished: a resumed run may need it
        with as_store_error(self.root):
            for name in (*scratch, f"{RECORD_NAME}.partial", _INTENT_NAME):
                if name not in record.outputs:
                    (self.folder(stage) / name).unlink(missing_ok=True)

    def publish(self, stage: str, names: tuple[str, ...]) -> None:
        """Copy outputs of a finished stage next to the stage folders, each one atomically. Copies
        with the same content stay; copies of outputs that do not exist now are removed."""
        record = self.record(stage)
        if record is None:
            return
        with as_store_error(self.root):
            for name in names:
                (self.root / f"{name}.partial").unlink(missing_ok=True)  # of a kill in a copy
                source = self.folder(stage) / name
                if source.is_dir():
                    _mirror(source, self.root / name)
                elif source.exists():
                    _copy(source, self.root / name)
                else:
                    _remove(self.root / name)

    def _swap(self, stage: str) -> None:
        folder, partial, old = self.folder(stage), self._partial(stage), self._old(stage)
        (partial / _INTENT_NAME).unlink(missing_ok=True)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old, ignore_errors=True)

    def _partial(self, stage: str) -> Path:
        return self.root / f"{self._folders[stage]}.partial"

    def _old(self, stage: str) -> Path:
        return self.root / f"{self._folders[stage]}.old"


def _adapter(kind: type[StageReport]) -> TypeAdapter[Any]:
    """The reader and writer of one kind of report, made once."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def _outputs(folder: Path, without: set[str]) -> dict[str, Output]:
    result = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.is_file() and name not in without:
            stat = file.stat()
            result[name] = Output(file_sha256(file), stat.st_size, stat.st_mtime_ns)
    return result


def _json_sha256(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)  # with its time stamp, which is in the record


def _mirror(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    names = {file.name for file in source.iterdir()}
    for name in sorted(names):
        _copy(source / name, target / name)
    for file in target.iterdir():
        if file.name not in names:
            file.unlink()


def _remove(target: Path) -> None:
    """Remove a file or folder of an earlier run, which would be taken for one of this run."""
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    same_size = target.exists() and target.stat().st_size == source.stat().st_size
    if same_size and file_sha256(target) == file_sha256(source):
        return
    with atomic_file(target) as partial:
        shutil.copyfile(source, partial)
