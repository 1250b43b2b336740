"""The INT8 models that a search leaves, and the verdict on them as sentences."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from exporters.files import atomic_file
from exporters.foreign.agreement import Reference
from exporters.search.result import SearchResult
from exporters.search.trial import Trial
from pipeline.quantize_file.report import REPORT_NAME, ModelFile
from runtime.manifest import WORTH

_MORE_TIME = "give the search more --minutes"


def to_write(result: SearchResult) -> list[Trial]:
    """The INT8 trials that were chosen, the best first. Where none passed, the one that came
    nearest, so that users can judge themselves what it costs."""
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
) -> tuple[ModelFile, ...]:
    """Write the chosen INT8 models, all of them or none, and remove those of the last result.

    ``bounds``: by trial, the points that it loses at most; ``as_given`` makes the file of a trial
    the one that replaces the original."""
    files = []
    with ExitStack() as replaced:
        for number, trial in enumerate(to_write(result)):
            # the plain name is for a file that may run anywhere
            plain = number == 0 and not trial.can_saturate
            target = out / (f"{name}.int8.onnx" if plain else f"{name}.{trial.id}.onnx")
            if not trial.passed:
                target = out / f"{name}.{trial.id}.unproven.onnx"
            model = as_given(path(trial.id).read_bytes())
            replaced.enter_context(atomic_file(target)).write_bytes(model)
            digest, bound = hashlib.sha256(model).hexdigest(), bounds[trial.id]
            files.append(ModelFile(target.name, trial.id, digest, len(model), bound, trial.passed))
    for old in _last_files(out) - {file.name for file in files}:
        (out / old).unlink(missing_ok=True)
    return tuple(files)


def _last_files(out: Path) -> set[str]:
    """The names of the models that the last ``quantize.json`` lists."""
    try:
        content = json.loads((out / REPORT_NAME).read_text(encoding="utf-8"))
        return {file["name"] for file in content["files"]}
    except (OSError, ValueError, TypeError, KeyError):
        return set()


def verdict(
    result: SearchResult, files: tuple[ModelFile, ...], reference: Reference, stopped: bool
) -> Iterator[str]:
    """One sentence or more about each file, and about what is missing."""
    trials = result.by_id
    int8 = [trial for trial in result.trials if trial.precision == "int8" and trial.error is None]
    if not int8:
        failed = [trial.error for trial in result.trials if trial.error]
        ended = "the search was stopped before the first one" if stopped else _MORE_TIME
        yield f"no INT8 candidate was finished: {failed[0] if failed else ended}"
    for file in files:
        trial = trials[file.trial]
        if not file.proven:
            assert trial.assessment is not None  # it was judged
            yield (
                f"no INT8 candidate is shown to be equal to FP32. The nearest, {trial.id}, is NOT "
                f"SHOWN TO BE EQUAL: {'; '.join(trial.assessment.failures)}"
            )
        yield f"{_worth(trial, trials['fp32'], file)}. {_judgment(trial, file, reference)}"
    if result.incomplete:
        untried = ", ".join(result.untried)
        reason = "" if stopped else f"; its time was over: {_MORE_TIME}"
        yield f"the search is incomplete: {untried}. The same command continues it{reason}"


def _worth(trial: Trial, fp32: Trial, file: ModelFile) -> str:
    """State whether INT8 pays on this CPU, and which CPUs its file is for."""
    smaller = f"{fp32.size_bytes / trial.size_bytes:.1f} times smaller"
    safe = "the same bits on every CPU" if trial.portable else f"not portable: {trial.portability}"
    speed = f"{trial.speedup:.2f}x the speed of the given model"
    pays = "pays" if trial.speedup >= WORTH else "does not pay"
    text = f"INT8 {pays} on this CPU: {speed}, {smaller} ({trial.id} -> {file.name}; {safe})"
    if trial.can_saturate:
        text += ". ONLY for CPUs with VNNI or dot products: on others its sums may saturate"
    return text


def _judgment(trial: Trial, file: ModelFile, reference: Reference) -> str:
    """State how many images judged a candidate, and how much they leave open."""
    assert trial.assessment is not None  # it passed
    images = f"Judged by {len(reference.inputs)} images"
    if file.bound_points is None:
        worst = trial.assessment.worst_part or "the outputs"
        return (
            f"{images}: {trial.assessment.sqnr_db:.1f} dB, where at least "
            f"{reference.bounds.min_sqnr_db:g} are required; the worst is {worst}"
        )
    gate = reference.bounds.gate
    what = "of the answers equal to FP32's" if reference.labels is None else "of the labels"
    text = (
        f"{images}: it loses {trial.assessment.lost_points:.3f} points {what}, and at most "
        f"{file.bound_points:.3f} with {100 * (1 - gate.alpha):g} % confidence; the margin is "
        f"{gate.margin_points:g}"
    )
    if file.bound_points >= gate.margin_points:
        text += ". SO FEW IMAGES CANNOT SHOW that it stays below the margin: give more to be sure"
    return text
