"""The trials of a search on disk, from which a killed search continues: one line of JSON and one
model file for each trial, the line last."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import onnx

from exporters.errors import ExportError, QuantizeError
from exporters.files import atomic_file, write_text
from exporters.graph import onnx_file
from exporters.search.trial import Trial

TRIALS_NAME = "trials.jsonl"


class SearchLog:
    """The trials of one search in a folder of its own. Raises ExportError where that folder cannot
    be written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._models, self._old = folder / "models", folder / "models.old"
        self._trials: dict[str, Trial] = {}
        shutil.rmtree(self._old, ignore_errors=True)
        with _as_export_error(folder):
            self._models.mkdir(parents=True, exist_ok=True)
        file = folder / TRIALS_NAME
        if file.exists():
            for line in file.read_text(encoding="utf-8").splitlines():
                try:
                    trial = Trial.from_dict(json.loads(line))
                except (ValueError, TypeError, KeyError):
                    break  # a kill cut this line short; what follows is tried again
                self._trials[trial.id] = trial

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials, in the order in which they were tried."""
        return tuple(self._trials.values())

    def find(self, trial_id: str) -> Trial | None:
        """Return the trial of that id, when it is finished and its model exists."""
        trial = self._trials.get(trial_id)
        if trial is None or (trial.error is None and not self.path(trial_id).exists()):
            return None
        return trial

    def add(self, trial: Trial, model: onnx.ModelProto | None) -> None:
        """Keep a finished trial; ``model`` is None when it could not be made. One that cannot be
        written leaves nothing behind, and earlier ones stay."""
        trials = {**self._trials, trial.id: trial}
        lines = (json.dumps(asdict(row), allow_nan=False) for row in trials.values())
        with _as_export_error(self.folder):
            if model is not None:
                with atomic_file(self.path(trial.id)) as partial:
                    onnx_file.save(model, partial)
            try:
                write_text(self.folder / TRIALS_NAME, "".join(f"{line}\n" for line in lines))
            except BaseException:
                # without its line the model is of no use, and would keep a full disk full
                self.path(trial.id).unlink(missing_ok=True)
                raise
        self._trials = trials

    def path(self, trial_id: str) -> Path:
        """Return the model file of a trial."""
        return self._models / f"{trial_id}.onnx"

    def discard_models(self) -> None:
        """Delete the models and keep the figures, in one step: after a kill the search is either
        finished or starts again."""
        with _as_export_error(self.folder):
            self._models.rename(self._old)
            shutil.rmtree(self._old)

    def model(self, trial_id: str) -> onnx.ModelProto:
        """Return the model of a trial; raises QuantizeError when it could not be made."""
        if not self.path(trial_id).exists():
            raise QuantizeError(f"trial {trial_id!r} has no model in {self.folder}.")
        return onnx_file.load(self.path(trial_id))


@contextmanager
def _as_export_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise ExportError(
            f"the trials in {folder} cannot be written: {exc.strerror or exc}. Free some space or "
            "choose another folder; finished trials are kept, and the same command continues "
            "after them."
        ) from exc
