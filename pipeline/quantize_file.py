"""``pipeline quantize MODEL.onnx --data FOLDER``: the search of the quantize stage for a model that
someone else made. One folder, one result; knows neither recipes nor bundles."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from exporters.options import GateOptions, QuantizeOptions, SearchOptions
from pipeline.errors import DataError, PipelineError
from pipeline.hardware import detect
from pipeline.stage import Observer
from pipeline.store import Store, file_sha256
from runtime.manifest import WORTH

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from exporters.agreement import Reference
    from exporters.foreign_model import ForeignModel, LeftInFloat
    from exporters.search import SearchResult
    from exporters.trial import Speed, Trial
    from pipeline.datasets.foreign_data import ForeignData, PixelOptions

REPORT_NAME = "quantize.json"
_TRIALS = "trials"  # folder of the search's log
_IDENTITY = "identity.json"  # in it: whose trials these are
_SAMPLES = 32  # inputs to look into layers with
_QUICK = 128  # validation images for layers one at a time
_SECONDS = 0.4  # each of two candidates is timed in a trial
_OUTPUT_BYTES = 256_000_000  # of FP32 outputs that are kept to compare with
_LIBRARIES = ("numpy", "onnx", "onnxruntime")
# Labels that FP32 itself does not know judge nothing, since a broken INT8 would be no worse: it has
# to be right in so many of the cases in which always giving the most frequent label is wrong.
_KNOWN = 0.2

_PIXEL_WORDS = ("size", "layout", "mean", "std", "color")

# Without labels every changed answer counts as lost, right or wrong, so more may change.
MARGIN_LABELLED, MARGIN_UNLABELLED = 0.5, 1.0  # percentage points


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
    task: Literal["multi-class", "multi-label", "values"] | None  # None: found from the outputs
    pixels: PixelOptions
    calibration_images: int
    validation_images: int
    seed: int = 0

    @classmethod
    def of(cls, model: Path, data: Path, out: Path, **words: Any) -> Request:
        """From the command line's words."""
        from pipeline.datasets.foreign_data import PixelOptions

        pixels = PixelOptions(**{key: words.pop(key) for key in _PIXEL_WORDS})
        return cls(model, data, out, min_sqnr_db=words.pop("min_sqnr"), pixels=pixels, **words)


@dataclass(frozen=True)
class Written:
    """One model file beside ``quantize.json``."""

    name: str
    trial: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Report:
    """What ``quantize.json`` holds, but for the explanation."""

    identity: str  # of model, data, options and libraries
    model: str
    judged_by: str  # in words
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
        """True when an INT8 file was written."""
        return bool(self.files)


def quantize_file(
    request: Request, observer: Observer, stopped: Callable[[], bool] = lambda: False
) -> Report:
    """Search, and leave the best INT8 file with ``quantize.json`` in ``request.out``.

    Trials are kept in a folder beside them, so that a second run with the same model, data and
    options goes on where the first one ended. Raises ExportError and PipelineError.
    """
    from exporters import foreign_model

    foreign = foreign_model.prepare(request.model)  # first: a wrong name leaves no folder behind
    with Store(request.out.parent, request.out.name, ()).lock():
        return _run(request, foreign, observer, stopped)


def _run(
    request: Request, foreign: ForeignModel, observer: Observer, stopped: Callable[[], bool]
) -> Report:
    from pipeline.datasets import foreign_data

    with tempfile.TemporaryDirectory(prefix="edgeproof-inputs-") as work:
        data = foreign_data.load(
            request.data,
            foreign_data.Wanted(
                foreign.input,
                request.pixels,
                (request.calibration_images, request.validation_images),
                request.seed,
            ),
            Path(work),
            lambda done, total: observer.step("decode images", done, total),
        )
        identity = _identity(request, foreign, data)
        known = _finished(request.out, identity)
        if known is not None:
            observer.note("model, data and options are those of the last run: nothing to do")
            return known
        return _search(request, foreign, data, identity, observer, stopped)


def _search(
    request: Request,
    foreign: ForeignModel,
    data: ForeignData,
    identity: str,
    observer: Observer,
    stopped: Callable[[], bool],
) -> Report:
    from exporters import foreign_model
    from exporters.activation_ranges import ActivationStatistics
    from exporters.search import Subject, search

    changed = foreign_model.difference(foreign, data.validation[: _few(foreign, _SAMPLES)])
    reference, told = _reference(request, foreign, data)
    statistics = ActivationStatistics(foreign.model, data.calibration.reader())
    few = ActivationStatistics(foreign.model, data.calibration.first(_few(foreign, 8)).reader())
    kept = foreign_model.kept_in_float(foreign, few)
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
    options = QuantizeOptions(
        fp16=False,
        calibration_images=len(data.calibration),
        search=SearchOptions(minutes=request.minutes),
    )
    notes = (
        *_prepared(foreign, changed),
        *told,
        f"{len(data.calibration)} images calibrate, {len(data.validation)} others judge",
        *data.notes,
    )
    for note in notes:
        observer.note(note)
    result = search(
        subject,
        options,
        log,
        on_step=lambda what, done, total: observer.step("variants", done, total, what),
        stopped=stopped,
    )
    left = foreign_model.left_in_float(foreign, kept)
    files = write_models(request.out, foreign.name, result, log.path)
    report = Report(
        identity=identity,
        model=str(request.model),
        judged_by=_judged_by(reference),
        notes=notes,
        left_in_float=left,
        trials=result.trials,
        files=files,
        verdict=_verdict(result, files),
        seconds=result.seconds,
        incomplete=result.incomplete,
        hardware=f"{detect().caption()}; {request.threads} thread(s), batch "
        f"{foreign.input.batch or 1}, by " + ("CPU time" if request.threads == 1 else "wall time"),
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

    from exporters.saturation import extreme_images

    if data.validation.form is None:
        return samples
    extremes = extreme_images(data.validation.rows.shape[1:], _few(foreign, 8))
    return np.concatenate([samples[: _few(foreign, 16)], data.validation.of_pixels(extremes)])


def _reference(
    request: Request, foreign: ForeignModel, data: ForeignData
) -> tuple[Reference, tuple[str, ...]]:
    """What other forms are judged by, and what has to be said about it."""
    from exporters.agreement import Bounds, Reference

    def make(labels: NDArray[np.int64] | None, count: int) -> Reference:
        margin = request.margin
        if margin is None:
            margin = MARGIN_UNLABELLED if labels is None else MARGIN_LABELLED
        return Reference.of_fp32(
            foreign.original,
            foreign.outputs,
            data.validation.first(count),
            Bounds(GateOptions(margin_points=margin), request.min_sqnr_db),
            task=request.task,
            labels=None if labels is None else labels[:count],
        )

    probe = make(None, _few(foreign, 16))
    size = sum(value.nbytes for value in probe.values) // len(probe.inputs)
    count = min(len(data.validation), max(_OUTPUT_BYTES // max(size, 1), len(probe.inputs)))
    count = count // (foreign.input.batch or 1) * (foreign.input.batch or 1)
    labels, told = _usable(data, probe, count)
    reference = make(labels, count)
    if labels is None or reference.labels is None:
        return reference, told
    right = reference.accuracy()
    most = _most_frequent(labels[:count])
    if right < most + _KNOWN * (1 - most):
        return make(None, count), (
            f"the labels are NOT used: FP32 has {100 * right:.1f} % of them right, and answering "
            f"the most frequent one always, {100 * most:.1f} %. Are classes in the model's order?",
        )
    return reference, (*told, f"FP32 has {100 * right:.2f} % of the labels right")


def _most_frequent(labels: NDArray[np.int64]) -> float:
    """The share of the most frequent label."""
    import numpy as np

    return float(np.bincount(labels).max() / len(labels))


def _usable(
    data: ForeignData, probe: Reference, count: int
) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """The labels where they can be the model's classes, and what to say of them."""
    labels, classes = data.labels, probe.values[0].shape[1] if probe.values[0].ndim > 1 else 0
    if labels is None:
        return None, ()
    if probe.task != "multi-class":
        return None, (f"labels are not used: the outputs are {probe.task}",)
    if data.folders and len(data.folders) != classes:
        return None, (
            f"labels are not used: {len(data.folders)} sub-folders, and the model has {classes} "
            "classes",
        )
    if not data.folders and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(
            f"labels go from {labels.min()} to {labels.max()}; expected 0 to {classes - 1} for "
            f"the model's {classes} classes."
        )
    if data.folders:
        shown = ", ".join(f"{i} = {name}" for i, name in enumerate(data.folders[:10]))
        more = ", ..." if len(data.folders) > 10 else ""
        return labels, (f"sub-folders are the classes in sorted order: {shown}{more}",)
    return labels, ()


def _judged_by(reference: Reference) -> str:
    bounds = reference.bounds
    if reference.task == "values":
        return f"signal-to-noise against FP32, at least {bounds.min_sqnr_db:g} dB"
    margin = f"margin {bounds.gate.margin_points:g} points"
    if reference.labels is not None:
        return f"accuracy by the labels, {margin}"
    return f"answers equal to FP32's ({reference.task}; no labels), {margin}"


def _time(
    foreign: ForeignModel,
    samples: NDArray[Any],
    threads: int,
    model: bytes,
    variant: str,
    portable: bool,
) -> Speed:
    """Beside the original file in turns, with the model's own batch, else one image at a time."""
    from exporters import onnx_file
    from exporters.trial import Speed
    from pipeline.timing import TimingOptions, decisive_speedup, measure_all, speed_ratio

    name, batch = foreign.input.name, foreign.input.batch or 1
    runs = {}
    for key, data in (("base", foreign.original), ("candidate", model)):
        session = onnx_file.session(data, threads=threads)
        runs[key] = partial(_run_session, session, name, samples[:batch] if batch > 1 else None)
    options = TimingOptions(seconds=_SECONDS, batch=1, warmup=4, min_n=16)
    found = measure_all(runs, samples, options)
    base, candidate = found["base"], found["candidate"]
    return Speed(
        candidate.latency.p50_ms,
        decisive_speedup(base, candidate, threads),
        speed_ratio(base, candidate, of="cpu").value,
    )


def _run_session(session: Any, name: str, whole: NDArray[Any] | None, images: NDArray[Any]) -> None:
    session.run(None, {name: images if whole is None else whole})


# --- results --------------------------------------------------------------------------------


def _prepared(foreign: ForeignModel, changed: float) -> tuple[str, ...]:
    told = "; ".join(foreign.changes) or "nothing to prepare"
    return (f"prepared: {told}; outputs differ by at most {changed:.1e} of the largest value",)


def _verdict(result: SearchResult, files: tuple[Written, ...]) -> tuple[str, ...]:
    trials = {trial.id: trial for trial in result.trials}
    int8 = [trial for trial in result.trials if trial.precision == "int8" and trial.error is None]
    lines: list[str] = []
    if not int8:
        failed = [trial.error for trial in result.trials if trial.error]
        why = failed[0] if failed else "give the search more --minutes"
        lines.append(f"no INT8 form was finished: {why}")
    elif not files:
        nearest = max(int8, key=lambda t: t.assessment.sqnr_db if t.assessment else -999)
        lines.append(
            f"no INT8 form passes; keep FP32. The nearest is {nearest.id}: "
            + "; ".join(nearest.assessment.failures if nearest.assessment else ())
        )
    else:
        lines += [_worth(trials[file.trial], trials["fp32"], file) for file in files]
    if result.incomplete:
        lines.append(
            "the search is incomplete, not finished: "
            + ", ".join(result.untried)
            + ". The same command goes on from there (give it more --minutes if its time was over)"
        )
    return tuple(lines)


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


def write_models(
    out: Path, name: str, result: SearchResult, path: Callable[[str], Path]
) -> tuple[Written, ...]:
    """Copy the chosen INT8 models, whole or not at all; those of the last result go."""
    chosen = [t for t in result.trials if t.id in result.chosen and t.precision == "int8"]
    chosen.sort(key=lambda trial: result.chosen.index(trial.id))
    files = []
    for number, trial in enumerate(chosen):
        # the plain name is for a file that may go anywhere
        plain = number == 0 and not trial.can_saturate
        target = out / (f"{name}.int8.onnx" if plain else f"{name}.{trial.id}.onnx")
        aside = target.with_suffix(".partial")
        shutil.copyfile(path(trial.id), aside)
        aside.replace(target)
        files.append(Written(target.name, trial.id, file_sha256(target), target.stat().st_size))
    before = _read(out / REPORT_NAME)
    for old in before.get("files", ()):
        if old["name"] not in {file.name for file in files}:
            (out / old["name"]).unlink(missing_ok=True)
    return tuple(files)


def _write_report(out: Path, report: Report, explanation: dict[str, Any] | None) -> None:
    aside = out / f"{REPORT_NAME}.partial"
    text = json.dumps(asdict(report) | {"explanation": explanation}, indent=1, allow_nan=False)
    aside.write_text(text + "\n", encoding="utf-8")
    aside.replace(out / REPORT_NAME)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


# --- a second run ---------------------------------------------------------------------------


def _identity(request: Request, foreign: ForeignModel, data: ForeignData) -> str:
    """Everything that decides the result, but for the time that it may take."""
    asked = replace(request, model=Path(), data=Path(), out=Path(), minutes=0)
    parts = {
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
    from exporters.search_log import SearchLog

    folder = out / _TRIALS
    mark = folder / _IDENTITY
    if _read(mark) != {"identity": identity}:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        mark.write_text(json.dumps({"identity": identity}), encoding="utf-8")
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
    from exporters.foreign_model import LeftInFloat
    from exporters.trial import Trial

    values = {key: value for key, value in data.items() if key != "explanation"}
    values["notes"], values["verdict"] = tuple(data["notes"]), tuple(data["verdict"])
    values["left_in_float"] = tuple(LeftInFloat(**row) for row in data["left_in_float"])
    values["trials"] = tuple(Trial.from_dict(row) for row in data["trials"])
    values["files"] = tuple(Written(**row) for row in data["files"])
    return Report(**values)
