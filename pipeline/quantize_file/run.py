"""``pipeline quantize-onnx MODEL.onnx --data FOLDER``: the quantize stage's search for a model that
someone else made. Independent of recipes and bundles."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate.generated_images import extreme_images
from exporters.foreign import equality, float_parts, foreign_model
from exporters.foreign.foreign_model import ForeignModel
from exporters.graph import onnx_file
from exporters.options import SearchOptions
from exporters.quantize.activation_ranges import ActivationStatistics
from exporters.search.search import search
from exporters.search.subject import Subject
from exporters.search.trial import Speed
from pipeline.engine.errors import as_store_error
from pipeline.engine.stage import Observer
from pipeline.errors import PipelineError, StoreError
from pipeline.hardware import detect
from pipeline.quantize_file import calibration_data
from pipeline.quantize_file.calibration_data import ForeignData
from pipeline.quantize_file.options import QuantizeFileOptions, check_counts, check_pixel_options
from pipeline.quantize_file.reference import figure, judged_by, reference_for
from pipeline.quantize_file.report import QuantizeFileReport, finished_report, write_report
from pipeline.quantize_file.resume import KEPT, OPTION, identity_of, log_of, results_folder
from pipeline.quantize_file.verdict import to_write, verdict, write_models
from pipeline.timing.measure import TimingOptions, time_model

_SAMPLES = 32  # inputs to look into layers with
_QUICK = 128  # validation images for layers one at a time
_SECONDS = 0.4  # each of two candidates is timed in a trial
_TOOLS = {"onnx", "onnx_ir", "onnxruntime", "google"}  # "google": protobuf


def quantize_file(
    options: QuantizeFileOptions, observer: Observer, stopped: Callable[[], bool] = lambda: False
) -> QuantizeFileReport:
    """Search, and leave the best INT8 file with ``quantize.json`` in ``options.out``.

    Trials are kept in a folder next to them, so that a second run with the same model, data and
    options continues the first one. Raises ExportError and PipelineError.
    """
    try:
        with _named_failures(f"reading {options.model}"):
            foreign = foreign_model.prepare(options.model)  # first: a wrong name needs no folder
        with results_folder(options.out), _named_failures(f"quantizing {options.model}"):
            return _run(options, foreign, observer, stopped)
    except BrokenPipeError:  # nobody reads what is printed: the command line ends quietly
        raise
    except OSError as exc:  # of temporary files and of data; results have messages of their own
        raise StoreError(
            f"{exc.filename or tempfile.gettempdir()} cannot be read or written: "
            f"{exc.strerror or exc}. Check free space and permissions there, or set TMPDIR to "
            "another folder for temporary files; finished trials are kept."
        ) from exc


@contextmanager
def _named_failures(step: str) -> Iterator[None]:
    """Turn what ONNX's own tools raise into one sentence. Errors of this product pass, and so does
    everything else, as a fault that its maker wants to see whole."""
    try:
        yield
    except (PipelineError, OSError):
        raise
    except Exception as exc:
        frames = traceback.walk_tb(exc.__traceback__)
        last = [frame.f_globals.get("__name__", "") for frame, _ in frames][-1]
        raisers = {name.partition(".")[0] for name in (last, type(exc).__module__)}
        if not raisers & _TOOLS:
            raise
        message = " ".join(str(exc).split())[:300] or type(exc).__name__
        raise PipelineError(
            f"{step} failed in {', '.join(sorted(raisers & _TOOLS))}: {message}. Does the file "
            "pass onnx.checker? Export it again, or please report it."
        ) from exc


def _run(
    options: QuantizeFileOptions,
    foreign: ForeignModel,
    observer: Observer,
    stopped: Callable[[], bool],
) -> QuantizeFileReport:
    with tempfile.TemporaryDirectory(prefix="edgeproof-inputs-") as work:
        data = calibration_data.load(
            options.data,
            calibration_data.DrawOptions(
                foreign.input, options.pixels, options.counts, options.seed
            ),
            Path(work),
            lambda done, total: observer.step("decode images", done, total),
        )
        check_counts(options, data)
        check_pixel_options(options, data)
        foreign = equality.one_at_a_time(foreign, data.validation[:2])
        data = data.for_input(foreign.input)
        identity = identity_of(options, foreign, data)
        if report := finished_report(options.out, identity):
            observer.note("model, data and options are those of the last run: nothing to do")
            return report
        return _Search(options, foreign, data, identity).run(observer, stopped)


class _Search:
    """One search: the model with its data, the reference, and the subject made of them."""

    def __init__(
        self, options: QuantizeFileOptions, foreign: ForeignModel, data: ForeignData, identity: str
    ) -> None:
        self.options, self.foreign, self.data = options, foreign, data
        self.identity = identity
        self.batch = foreign.input.batch or 1
        self.samples = data.validation[: self._about(_SAMPLES)]
        changed = equality.difference(foreign, self.samples)
        self.reference, remarks = reference_for(options, foreign, data)
        first = data.calibration.first(self._about(8)).reader()
        self.float_nodes = float_parts.kept_in_float(
            foreign, ActivationStatistics(foreign.model, first)
        )
        changes = "; ".join(foreign.changes) or "nothing to prepare"
        self.notes = (
            f"prepared: {changes}; outputs differ by at most {changed:.1e} of the largest value",
            *remarks,
            f"{len(data.calibration)} images calibrate, {len(self.reference.inputs)} others judge",
            *data.notes,
        )

    def run(self, observer: Observer, stopped: Callable[[], bool]) -> QuantizeFileReport:
        """Search, then write the chosen models and the report."""
        subject, log = self._subject(), log_of(self.options.out, self.identity)
        for note in self.notes:
            observer.note(note)
        result = search(
            subject,
            (),
            SearchOptions(minutes=self.options.minutes),
            log,
            on_step=lambda activity, done, total: observer.step("variants", done, total, activity),
            stopped=stopped,
        )
        out, foreign, reference = self.options.out, self.foreign, self.reference
        bounds = {
            trial.id: reference.loss_bound(log.path(trial.id).read_bytes())
            for trial in to_write(result)
        }
        with as_store_error(out, OPTION, KEPT):
            files = write_models(out, foreign.name, result, log.path, bounds, foreign.as_given)
            report = QuantizeFileReport(
                identity=self.identity,
                model=str(self.options.model),
                judged_by=judged_by(reference),
                judges=len(reference.inputs),
                figure=figure(reference),
                notes=self.notes,
                left_in_float=float_parts.left_in_float(foreign, self.float_nodes),
                trials=result.trials,
                files=files,
                verdict=tuple(verdict(result, files, reference, stopped())),
                seconds=result.seconds,
                incomplete=result.incomplete,
                hardware=self._caption(),
                explanation=result.explanation,
            )
            write_report(out, report)
        return report

    def _subject(self) -> Subject:
        foreign, name = self.foreign, self.foreign.input.name
        return Subject(
            model=foreign.model,
            statistics=ActivationStatistics(foreign.model, self.data.calibration.reader()),
            samples={name: self.samples},
            extremes={name: self._extremes()},
            finish=foreign.finish,
            assess=self.reference.assess,
            assess_quickly=self.reference.first(self._about(_QUICK)).assess_quickly,
            time=self._time,
            float_nodes=tuple(self.float_nodes),
        )

    def _about(self, count: int) -> int:
        """``count``, rounded up to whole batches."""
        return -(-count // self.batch) * self.batch

    def _extremes(self) -> NDArray[Any]:
        """Real inputs and, where inputs are made of pixels, extreme ones."""
        validation = self.data.validation
        if validation.form is None:
            return self.samples
        extremes = extreme_images(validation.rows.shape[1:], self._about(8))
        return np.concatenate([self.samples[: self._about(16)], validation.of_pixels(extremes)])

    def _time(self, model: bytes, variant: str, portable: bool) -> Speed:
        """Time a model in turns with the original file, by the model's own batch, else one image
        at a time."""
        threads = self.options.threads
        whole = self.samples[: self.batch] if self.batch > 1 else None
        fp32, candidate = (
            partial(_run_session, onnx_file.session(data, threads=threads), self.foreign, whole)
            for data in (self.foreign.original, model)
        )
        timing = TimingOptions(seconds=_SECONDS, batch=1, warmup=4, min_n=16)
        return time_model(fp32, candidate, self.samples, threads, timing)

    def _caption(self) -> str:
        threads = self.options.threads
        clock = "CPU time" if threads == 1 else "wall time"
        return f"{detect().caption()}; {threads} thread(s), batch {self.batch}, by {clock}"


def _run_session(
    session: Any, foreign: ForeignModel, whole: NDArray[Any] | None, images: NDArray[Any]
) -> None:
    session.run(None, {foreign.input.name: images if whole is None else whole})
