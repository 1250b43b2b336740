"""The folder of results: locked for one run, and reused when the command is repeated."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from exporters.files import write_text
from exporters.foreign.foreign_model import ForeignModel
from exporters.search.search_log import TRIALS_NAME, SearchLog
from pipeline.engine.errors import as_store_error
from pipeline.engine.lock import LOCK_NAME, locked
from pipeline.errors import StoreError
from pipeline.hardware import detect
from pipeline.quantize_file.calibration_data import ForeignData
from pipeline.quantize_file.options import QuantizeFileOptions
from pipeline.quantize_file.report import REPORT_VERSION

OPTION, KEPT = "--out DIR", "trials"  # for the messages of StoreError
_TRIALS = "trials"  # folder of the search's log
_IDENTITY = "identity.json"  # in it: whose trials these are
_LIBRARIES = ("numpy", "onnx", "onnxruntime", "edgeproof")


@contextmanager
def results_folder(out: Path) -> Iterator[None]:
    """Make the folder and lock it. A run that fails leaves its trials; where it has none, only what
    the folder held before."""
    with as_store_error(out, OPTION, KEPT):
        new = [folder for folder in (out, *out.parents) if not folder.exists()]
        before = {file.name for file in out.iterdir()} if out.is_dir() else set()
    with ExitStack() as held:
        try:
            held.enter_context(locked(out, OPTION, KEPT))
        except StoreError:
            _remove_empty(new)
            raise
        try:
            yield
        except BaseException:
            _remove_traces(out, before)
            _remove_empty(new)
            raise


def _remove_traces(out: Path, before: set[str]) -> None:
    """Remove a log without a single trial, and a lock that is new."""
    trials = out / _TRIALS
    ours = _TRIALS not in before or (trials / _IDENTITY).exists()
    if ours and not (trials / TRIALS_NAME).exists():
        shutil.rmtree(trials, ignore_errors=True)
    if {file.name for file in out.iterdir()} - before == {LOCK_NAME}:
        (out / LOCK_NAME).unlink()


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders, innermost first, up to one that is not empty or was never made."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def identity_of(options: QuantizeFileOptions, foreign: ForeignModel, data: ForeignData) -> str:
    """Hash of everything that decides the result; the time limit does not."""
    named = asdict(options) | {"counts": options.counts}
    for key in ("model", "data", "out", "minutes", "calibration_images", "validation_images"):
        del named[key]
    parts = {
        "report": REPORT_VERSION,
        "model": hashlib.sha256(foreign.original).hexdigest(),
        "data": hashlib.sha256("".join(data.digests).encode()).hexdigest(),
        "options": named,
        "cpu": detect().cpu,
        **{name: metadata.version(name) for name in _LIBRARIES},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def log_of(out: Path, identity: str) -> SearchLog:
    """The log of the search with this identity; that of another one is removed. Raises StoreError
    for a folder of its name that is not a log."""
    folder = out / _TRIALS
    mark = folder / _IDENTITY
    text = json.dumps({"identity": identity})
    if not mark.is_file() or mark.read_bytes() != text.encode():
        if folder.is_dir() and any(folder.iterdir()) and not mark.exists():
            raise StoreError(
                f"{folder} exists and holds no trials of this command, which would replace it. "
                "Give another folder with --out DIR."
            )
        shutil.rmtree(folder, ignore_errors=True)
        with as_store_error(out, OPTION, KEPT):
            folder.mkdir(parents=True)
            write_text(mark, text)
    return SearchLog(folder)
