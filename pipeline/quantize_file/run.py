"""``pipeline quantize-onnx MODEL.onnx --data FOLDER``: the quantize stage's search for a model that
someone else made. One folder, one result; knows neither recipes nor bundles."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.files import write_text
from exporters.options import SearchOptions
from pipeline.engine.digests import file_sha256
from pipeline.engine.errors import as_store_error
from pipeline.engine.lock import LOCK_NAME, locked
from pipeline.engine.stage import Observer
from pipeline.errors import DataError, PipelineError, StoreError
from pipeline.hardware import detect
from pipeline.quantize_file.reference import Asked, figure, judged_by, reference_for
from runtime.manifest import WORTH

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from exporters.foreign.agreement import Reference
    from exporters.foreign.float_parts import LeftInFloat
    from exporters.foreign.foreign_model import ForeignModel
    from exporters.search.result import SearchResult
    from exporters.search.trial import Speed, Trial
    from pipeline.quantize_file.calibration_data import ForeignData, PixelOptions

REPORT_NAME = "quantize.json"
_TRIALS = "trials"  # folder of the search's log
_IDENTITY = "identity.json"  # in it: whose trials these are
_SAMPLES = 32  # inputs to look into layers with
_QUICK = 128  # validation images for layers one at a time
_SECONDS = 0.4  # each of two candidates is timed in a trial
_OPTION, _KEPT = "--out DIR", "trials"  # for the store's messages
_CALIBRATION, _VALIDATION = 256, 500  # images, where the user names no number
_LIBRARIES = ("numpy", "onnx", "onnxruntime")
_TOOLS = {"onnx", "onnx_ir", "onnxruntime", "google"}  # "google": protobuf
_MORE_TIME = "give the search more --minutes"
_PIXEL_WORDS = ("size", "layout", "mean", "std", "color")


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    model: Path
    data: Path
    out: Path
    minutes: float
    threads: int
    margin: float | None  # percentage points; None: one of the two above
    min_sqnr_db: float
    task: str | None  # None: guessed from the outputs
    pixels: PixelOptions
    # Numbers that the user names are kept or refused; None: fewer where fewer are there
    calibration_images: int | None
    validation_images: int | None
    seed: int = 0

    @property
    def counts(self) -> tuple[int, int]:
        """Images to calibrate with, and to judge by."""
        return self.calibration_images or _CALIBRATION, self.validation_images or _VALIDATION

    @classmethod
    def of(cls, model: Path, data: Path, out: Path, **words: Any) -> Request:
        """From the command line's words."""
        from pipeline.quantize_file.calibration_data import PixelOptions

        pixels = PixelOptions(**{key: words.pop(key) for key in _PIXEL_WORDS})
        return cls(model, data, out, min_sqnr_db=words.pop("min_sqnr"), pixels=pixels, **words)


@dataclass(frozen=True)
class Written:
    """One model file beside ``quantize.json``."""

    name: str
    trial: str
    sha256: str
    size_bytes: int
    bound_points: float | None  # that it loses at most, with 95 % confidence; None: of values
    proven: bool = True  # False: not shown to be equal to FP32


@dataclass(frozen=True)
class Report:
    """What ``quantize.json`` holds, but for the explanation."""

    identity: str  # of model, data, options and libraries
    model: str
    judged_by: str  # in words
    judges: int  # images
    figure: str  # what accuracy_percent of the trials holds: "right %", "as fp32 %", "signal %"
    notes: tuple[str, ...]
    left_in_float: tuple[LeftInFloat, ...]
    trials: tuple[Trial, ...]
    files: tuple[Written, ...]  # the best first
    verdict: tuple[str, ...]  # in plain words
    seconds: float
    incomplete: bool
    hardware: str  # what the speeds were measured on

    @property
    def passed(self) -> bool:
        """True when an INT8 file was written that is shown to be equal."""
        return any(file.proven for file in self.files)


def quantize_file(
    request: Request, observer: Observer, stopped: Callable[[], bool] = lambda: False
) -> Report:
    """Search, and leave the best INT8 file with ``quantize.json`` in ``request.out``.

    Trials are kept in a folder beside them, so that a second run with the same model, data and
    options goes on where the first one ended. Raises ExportError and PipelineError.
    """
    from exporters.foreign import foreign_model

    try:
        with _in_words(f"reading {request.model}"):
            foreign = foreign_model.prepare(request.model)  # first: a wrong name needs no folder
        with _folder(request.out), _in_words(f"quantizing {request.model}"):
            return _run(request, foreign, observer, stopped)
    except BrokenPipeError:  # nobody reads what is printed: the command line ends quietly
        raise
    except OSError as exc:  # of temporary files and of data; results have words of their own
        raise StoreError(
            f"{exc.filename or tempfile.gettempdir()} cannot be read or written: "
            f"{exc.strerror or exc}. Check free space and permissions there, or set TMPDIR to "
            "another folder for temporary files; finished trials are kept."
        ) from exc


@contextmanager
def _in_words(step: str) -> Iterator[None]:
    """The last net: what ONNX's own tools raise becomes one sentence. Errors of this product have
    words already, and everything else is a fault that its maker wants to see whole."""
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
        said = " ".join(str(exc).split())[:300] or type(exc).__name__
        raise PipelineError(
            f"{step} failed in {', '.join(sorted(raisers & _TOOLS))}: {said}. Does the file pass "
            "onnx.checker? Export it again, or please report it."
        ) from exc


@contextmanager
def _folder(out: Path) -> Iterator[None]:
    """The folder of results, for this run alone. One that fails leaves there what it has tried;
    where that is nothing, only what was there before."""
    with as_store_error(out, _OPTION, _KEPT):
        new = [place for place in (out, *out.parents) if not place.exists()]
        before = {file.name for file in out.iterdir()} if out.is_dir() else set()
    with ExitStack() as held:
        try:
            held.enter_context(locked(out, _OPTION, _KEPT))
        except StoreError:
            _remove_empty(new)
            raise
        try:
            yield
        except BaseException:
            _leave_nothing(out, before)
            _remove_empty(new)
            raise


def _leave_nothing(out: Path, before: set[str]) -> None:
    """Take away a log without a single trial, and a lock that is new."""
    from exporters.search.search_log import TRIALS_NAME

    trials = out / _TRIALS
    ours = _TRIALS not in before or (trials / _IDENTITY).exists()
    if ours and not (trials / TRIALS_NAME).exists():
        shutil.rmtree(trials, ignore_errors=True)
    if {file.name for file in out.iterdir()} - before == {LOCK_NAME}:
        (out / LOCK_NAME).unlink()


def _remove_empty(folders: list[Path]) -> None:
    """Innermost first."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:  # not empty, or never made
            return


def _run(
    request: Request, foreign: ForeignModel, observer: Observer, stopped: Callable[[], bool]
) -> Report:
    from exporters.foreign import equality
    from pipeline.quantize_file import calibration_data

    with tempfile.TemporaryDirectory(prefix="edgeproof-inputs-") as work:
        data = calibration_data.load(
            request.data,
            calibration_data.Wanted(
                foreign.input,
                request.pixels,
                request.counts,
                request.seed,
            ),
            Path(work),
            lambda done, total: observer.step("decode images", done, total),
        )
        _check_counts(request, data)
        _check_pixel_words(request, data)
        foreign = equality.one_at_a_time(foreign, data.validation[:2])
        data = data.taken_by(foreign.input)
        identity = _identity(request, foreign, data)
        known = _finished(request.out, identity)
        if known is not None:
            observer.note("model, data and options are those of the last run: nothing to do")
            return known
        return _search(request, foreign, data, identity, observer, stopped)


def _check_counts(request: Request, data: ForeignData) -> None:
    """Numbers of images that were asked for are met, but for what a fixed batch leaves over and
    for copies, which the notes tell."""
    # of pictures there is a digest for each that was drawn; of arrays one or two
    drawn = max(len(data.digests) - len(data.calibration), len(data.validation))
    rows = (
        ("--calibration-images", request.calibration_images, len(data.calibration)),
        ("--validation-images", request.validation_images, drawn),
    )
    batch = data.validation.spec.batch or 1
    for option, asked, found in rows:
        if asked is not None and found < max(asked // batch, 1) * batch:
            raise DataError(
                f"{option} {asked} cannot be met: {request.data} would leave "
                f"{len(data.calibration)} images to calibrate with and {len(data.validation)} to "
                f"judge by, and {request.counts[0]} and {request.counts[1]} are asked for. Ask for "
                "fewer, or leave the option out: both parts are then as large as they can be."
            )


def _check_pixel_words(request: Request, data: ForeignData) -> None:
    """Options that say how pixels become inputs go with pixels."""
    if data.validation.form is not None:
        return
    usual = type(request.pixels)()
    given = [
        f"--{name}"
        for name in _PIXEL_WORDS
        if getattr(request.pixels, name) != getattr(usual, name)
    ]
    if given:
        raise DataError(
            f"{', '.join(given)} cannot be used: the inputs in {request.data} are taken as they "
            f"are, and pixels are not among them. Leave {'it' if len(given) == 1 else 'them'} out, "
            "or give images, or uint8 pixels [n, height, width, channels]."
        )


def _search(
    request: Request,
    foreign: ForeignModel,
    data: ForeignData,
    identity: str,
    observer: Observer,
    stopped: Callable[[], bool],
) -> Report:
    from exporters.foreign import equality, float_parts
    from exporters.quantize.activation_ranges import ActivationStatistics
    from exporters.search.search import search
    from exporters.search.subject import Subject

    changed = equality.difference(foreign, data.validation[: _few(foreign, _SAMPLES)])
    reference, remarks = reference_for(
        Asked(request.task, request.margin, request.min_sqnr_db, request.data), foreign, data
    )
    statistics = ActivationStatistics(foreign.model, data.calibration.reader())
    few = ActivationStatistics(foreign.model, data.calibration.first(_few(foreign, 8)).reader())
    kept = float_parts.kept_in_float(foreign, few)
    samples = data.validation[: _few(foreign, _SAMPLES)]
    subject = Subject(
        model=foreign.model,
        statistics=statistics,
        samples={foreign.input.name: samples},
        extremes={foreign.input.name: _with_extremes(foreign, data, samples)},
        finish=foreign.finish,
        assess=reference.assess,
        assess_quickly=reference.first(_few(foreign, _QUICK)).assess_quickly,
        time=partial(_time, foreign, samples, request.threads),
        float_nodes=tuple(kept),
    )
    log = _log(request.out, identity)
    notes = (
        *_prepared(foreign, changed),
        *remarks,
        f"{len(data.calibration)} images calibrate, {len(reference.inputs)} others judge",
        *data.notes,
    )
    for note in notes:
        observer.note(note)
    result = search(
        subject,
        (),
        SearchOptions(minutes=request.minutes),
        log,
        on_step=lambda activity, done, total: observer.step("variants", done, total, activity),
        stopped=stopped,
    )
    left = float_parts.left_in_float(foreign, kept)
    bounds = {
        trial.id: reference.loss_bound(log.path(trial.id).read_bytes())
        for trial in _to_write(result)
    }
    with as_store_error(request.out, _OPTION, _KEPT):
        files = write_models(request.out, foreign.name, result, log.path, bounds, foreign.as_given)
        report = Report(
            identity=identity,
            model=str(request.model),
            judged_by=judged_by(reference),
            judges=len(reference.inputs),
            figure=figure(reference),
            notes=notes,
            left_in_float=left,
            trials=result.trials,
            files=files,
            verdict=_verdict(result, files, reference, stopped()),
            seconds=result.seconds,
            incomplete=result.incomplete,
            hardware=f"{detect().caption()}; {request.threads} thread(s), batch "
            f"{foreign.input.batch or 1}, by "
            + ("CPU time" if request.threads == 1 else "wall time"),
        )
        explanation = None if result.explanation is None else asdict(result.explanation)
        _write_report(request.out, report, explanation)
    return report


def _few(foreign: ForeignModel, count: int) -> int:
    """About so many images, as the model's batch wants it."""
    batch = foreign.input.batch or 1
    return -(-count // batch) * batch


def _with_extremes(foreign: ForeignModel, data: ForeignData, samples: NDArray[Any]) -> NDArray[Any]:
    """Real inputs and, where inputs are made of pixels, extreme ones."""
    import numpy as np

    from exporters.evaluate.generated_images import extreme_images

    if data.validation.form is None:
        return samples
    extremes = extreme_images(data.validation.rows.shape[1:], _few(foreign, 8))
    return np.concatenate([samples[: _few(foreign, 16)], data.validation.of_pixels(extremes)])


def _time(
    foreign: ForeignModel,
    samples: NDArray[Any],
    threads: int,
    model: bytes,
    variant: str,
    portable: bool,
) -> Speed:
    """Beside the original file in turns, with the model's own batch, else one image at a time."""
    from exporters.graph import onnx_file
    from pipeline.timing.measure import TimingOptions, time_model

    name, batch = foreign.input.name, foreign.input.batch or 1
    whole = samples[:batch] if batch > 1 else None
    fp32, candidate = (
        partial(_run_session, onnx_file.session(data, threads=threads), name, whole)
        for data in (foreign.original, model)
    )
    options = TimingOptions(seconds=_SECONDS, batch=1, warmup=4, min_n=16)
    return time_model(fp32, candidate, samples, threads, options)


def _run_session(session: Any, name: str, whole: NDArray[Any] | None, images: NDArray[Any]) -> None:
    session.run(None, {name: images if whole is None else whole})


# --- results --------------------------------------------------------------------------------


def _prepared(foreign: ForeignModel, changed: float) -> tuple[str, ...]:
    told = "; ".join(foreign.changes) or "nothing to prepare"
    return (f"prepared: {told}; outputs differ by at most {changed:.1e} of the largest value",)


def _verdict(
    result: SearchResult, files: tuple[Written, ...], reference: Reference, stopped: bool
) -> tuple[str, ...]:
    trials = {trial.id: trial for trial in result.trials}
    int8 = [trial for trial in result.trials if trial.precision == "int8" and trial.error is None]
    lines: list[str] = []
    if not int8:
        failed = [trial.error for trial in result.trials if trial.error]
        ended = "the search was stopped before the first one" if stopped else _MORE_TIME
        lines.append(f"no INT8 form was finished: {failed[0] if failed else ended}")
    for file in files:
        trial = trials[file.trial]
        if not file.proven:
            assert trial.assessment is not None  # it was judged
            lines.append(
                f"no INT8 form is shown to be equal to FP32. The nearest, {trial.id}, is NOT SHOWN "
                f"TO BE EQUAL: {'; '.join(trial.assessment.failures)}"
            )
        lines.append(
            f"{_worth(trial, trials['fp32'], file)}. " + _judgement(trial, file, reference)
        )
    if result.incomplete:
        lines.append(
            "the search is incomplete, not finished: "
            + ", ".join(result.untried)
            + ". The same command goes on from there"
            + ("" if stopped else f"; its time was over: {_MORE_TIME}")
        )
    return tuple(lines)


def _judgement(trial: Trial, file: Written, reference: Reference) -> str:
    """By how many images a form was judged, and how much they leave open."""
    assert trial.assessment is not None  # it passed
    images = f"Judged by {len(reference.inputs)} images"
    if file.bound_points is None:
        least = reference.bounds.min_sqnr_db
        worst = trial.assessment.worst_part or "the outputs"
        return (
            f"{images}: {trial.assessment.sqnr_db:.1f} dB, at least {least:g} are asked for; the "
            f"worst is {worst}"
        )
    gate, what = reference.bounds.gate, "of the labels"
    if reference.labels is None:
        what = "of the answers equal to FP32's"
    text = (
        f"{images}: it loses {trial.assessment.lost_points:.3f} points {what}, and at most "
        f"{file.bound_points:.3f} with {100 * (1 - gate.alpha):g} % confidence; the margin is "
        f"{gate.margin_points:g}"
    )
    if file.bound_points >= gate.margin_points:
        text += ". SO FEW IMAGES CANNOT SHOW that it stays below the margin: give more to be sure"
    return text


def _worth(trial: Trial, fp32: Trial, file: Written) -> str:
    smaller = f"{fp32.size_bytes / trial.size_bytes:.1f} times smaller than it"
    safe = "the same bits on every CPU" if trial.portable else f"not portable: {trial.portability}"
    speed = f"{trial.speedup:.2f}x the speed of the model that was given"
    if trial.speedup >= WORTH:
        pays = f"INT8 pays on this CPU: {speed}, and"
    else:
        pays = f"INT8 does not pay on this CPU: {speed}; it is"
    text = f"{pays} {smaller} ({trial.id} -> {file.name}; {safe})"
    if trial.can_saturate:
        text += ". ONLY for CPUs with VNNI or dot products: on others its sums may saturate"
    return text


def _to_write(result: SearchResult) -> list[Trial]:
    """The INT8 trials that were chosen, the best first. Where none passed, the one that came
    nearest: what it may cost is for its user to judge, who cannot look at a file that is not
    there."""
    made = [t for t in result.trials if t.precision == "int8" and t.assessment is not None]
    chosen = [trial for trial in made if trial.id in result.chosen]
    if chosen or not made:
        return sorted(chosen, key=lambda trial: result.chosen.index(trial.id))
    return [max(made, key=lambda t: t.assessment.sqnr_db if t.assessment else 0.0)]


def write_models(
    out: Path,
    name: str,
    result: SearchResult,
    path: Callable[[str], Path],
    bounds: Mapping[str, float | None],
    as_given: Callable[[bytes], bytes] = lambda data: data,
) -> tuple[Written, ...]:
    """Write the chosen INT8 models, all of them whole or none at all; those of the last result go.
    ``bounds``: by trial, the points that it loses at most; ``as_given`` makes the file of a trial
    the one that replaces the original."""
    files, asides = [], []
    try:
        for number, trial in enumerate(_to_write(result)):
            # the plain name is for a file that may go anywhere
            plain = number == 0 and not trial.can_saturate
            target = out / (f"{name}.int8.onnx" if plain else f"{name}.{trial.id}.onnx")
            if not trial.passed:
                target = out / f"{name}.{trial.id}.unproven.onnx"
            aside = target.with_name(f"{target.name}.partial")
            asides.append(aside)
            aside.write_bytes(as_given(path(trial.id).read_bytes()))
            size, bound = aside.stat().st_size, bounds[trial.id]
            digest = file_sha256(aside)
            files.append(Written(target.name, trial.id, digest, size, bound, trial.passed))
        for file, aside in zip(files, asides, strict=True):
            aside.replace(out / file.name)
    finally:
        for aside in asides:
            aside.unlink(missing_ok=True)
    before = _read(out / REPORT_NAME)
    for old in before.get("files", ()):
        if old["name"] not in {file.name for file in files}:
            (out / old["name"]).unlink(missing_ok=True)
    return tuple(files)


def _write_report(out: Path, report: Report, explanation: dict[str, Any] | None) -> None:
    text = json.dumps(asdict(report) | {"explanation": explanation}, indent=1, allow_nan=False)
    write_text(out / REPORT_NAME, text + "\n")


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


# --- a second run ---------------------------------------------------------------------------


def _identity(request: Request, foreign: ForeignModel, data: ForeignData) -> str:
    """Everything that decides the result, but for the time that it may take."""
    calibration, validation = request.counts
    asked = replace(
        request,
        model=Path(),
        data=Path(),
        out=Path(),
        minutes=0,
        calibration_images=calibration,
        validation_images=validation,
    )
    parts = {
        "report": "3",  # its form, so that an older one does not count as damaged
        "model": hashlib.sha256(foreign.original).hexdigest(),
        "data": hashlib.sha256("".join(data.digests).encode()).hexdigest(),
        "options": repr(asked),
        "cpu": detect().cpu,
        **{name: metadata.version(name) for name in _LIBRARIES},
        "edgeproof": metadata.version("edgeproof"),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _log(out: Path, identity: str) -> Any:
    """The log of this very search; trials of another one are thrown away."""
    from exporters.search.search_log import SearchLog

    folder = out / _TRIALS
    mark = folder / _IDENTITY
    if _read(mark) != {"identity": identity}:
        if folder.is_dir() and any(folder.iterdir()) and not mark.exists():
            raise StoreError(
                f"{folder} is there and holds no trials of this command, which would replace it. "
                "Give another folder with --out DIR."
            )
        shutil.rmtree(folder, ignore_errors=True)
        with as_store_error(out, _OPTION, _KEPT):
            folder.mkdir(parents=True)
            write_text(mark, json.dumps({"identity": identity}))
    return SearchLog(folder)


def _finished(out: Path, identity: str) -> Report | None:
    """The report of a finished run of the same request whose files are all there."""
    found = _read(out / REPORT_NAME)
    if found.get("identity") != identity or found.get("incomplete", True):
        return None
    try:
        report = _from_dict(found)
    except (KeyError, TypeError) as exc:
        raise PipelineError(
            f"{out / REPORT_NAME} is damaged ({exc}); delete it and run again."
        ) from exc
    whole = all(
        (out / file.name).is_file() and file_sha256(out / file.name) == file.sha256
        for file in report.files
    )
    return report if whole else None


def _from_dict(data: Mapping[str, Any]) -> Report:
    from exporters.foreign.float_parts import LeftInFloat
    from exporters.search.trial import Trial

    values = {key: value for key, value in data.items() if key != "explanation"}
    values["notes"], values["verdict"] = tuple(data["notes"]), tuple(data["verdict"])
    values["left_in_float"] = tuple(LeftInFloat(**row) for row in data["left_in_float"])
    values["trials"] = tuple(Trial.from_dict(row) for row in data["trials"])
    values["files"] = tuple(Written(**row) for row in data["files"])
    return Report(**values)
