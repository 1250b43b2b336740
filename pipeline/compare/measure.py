"""Two sides on the same images: the difference, the first layer that differs, and causes that
explain it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exporters.evaluate.error_metrics import Difference, difference, error_db
from exporters.evaluate.metrics import correct
from exporters.evaluate.probabilities import Floats
from exporters.explain.first_divergence import LIMITS, Divergence, PointPair, first_divergence
from exporters.options import TOLERANCES, Tolerance
from pipeline.compare import causes, damage, foreign, preprocessing, steadiness
from pipeline.compare.answers import answers, check_probabilities, not_number_failures, not_numbers
from pipeline.compare.generated import regression_difference, try_generated
from pipeline.compare.model_forms import ModelForm
from pipeline.compare.opening import open_form
from pipeline.compare.pair import ModelPair
from pipeline.compare.result import Comparison, DamageRow, GeneratedRow, LayerRow, PreprocessRow
from pipeline.verify.images import REGRESSION_NAME, Images, nothing_to_see

Step = Callable[[str, int, int], None]
TRACED = 16  # images whose layers are compared: those that differ most, and the first ones


@dataclass(frozen=True)
class _Answered:
    """Both sides and their answers to the same images."""

    pair: ModelPair
    images: Images | None  # None: recorded outputs on both sides
    a: Floats  # [n, labels], NaN where a side gave none
    b: Floats
    numeric: NDArray[np.int64]  # images to which both gave numbers
    wrong: tuple[NDArray[np.int64], NDArray[np.int64]]  # the others, of A and of B


@dataclass(frozen=True)
class _Measured:
    """Everything that was measured, before it is judged."""

    difference: Difference
    generated: GeneratedRow | None
    regression: Difference | None
    preprocessing: PreprocessRow
    traced: NDArray[np.uint8] | None  # the images whose layers were compared
    steadiness: tuple[tuple[str, ModelForm, steadiness.Steadiness], ...]
    layers: tuple[PointPair, ...]
    note: str  # why there are no layers
    divergence: Divergence | None
    damages: tuple[DamageRow, ...]


def compare(
    a: str,
    b: str,
    data: Path | None,
    *,
    split: str = "test",
    limit: float | None = None,
    generated: int = 0,
    step: Step = lambda task, done, total: None,
) -> Comparison:
    """Compare two models on whole streams of images, or two foreign files on inputs of their own.

    Their preprocessing is compared as well where it is available. ``limit`` replaces the
    tolerances of the coarser precision by one of the largest absolute difference. ``generated``
    images are tried in addition. The worst of them are kept in the folder of the run that A or B
    belongs to, and take part in every later comparison there.
    Raises PipelineError, ExportError, PredictorError.
    """
    with open_form(a) as first, open_form(b) as second:
        answered = _answer(ModelPair(first, second), data, split, step)
        measured = _measure(answered, generated, step)
        tolerance = TOLERANCES[answered.pair.precision]
        if limit is not None:
            tolerance = (Tolerance("max_abs", limit, "asked for"),)
        failures = tuple(_failures(answered, measured, tolerance, judge_damage=limit is None))
        why = tuple(dict.fromkeys(_causes(answered, measured, failed=bool(failures))))
        remarks = tuple(_remarks(answered, measured))
    divergence = measured.divergence
    return Comparison(
        a=a,
        b=b,
        images="recorded outputs" if answered.images is None else answered.images.source,
        difference=measured.difference,
        accuracy_percent=_accuracy(answered),
        tolerance=tolerance,
        failures=failures,
        first_layer=None if divergence is None else _both(divergence.pair),
        suspects=() if divergence is None else _suspects(divergence),
        layers=tuple(_row(pair, divergence) for pair in measured.layers),
        causes=why,
        note=measured.note,
        generated=measured.generated,
        regression=measured.regression,
        preprocessing=measured.preprocessing,
        damages=measured.damages,
        remarks=remarks,
    )


def _answer(pair: ModelPair, data: Path | None, split: str, step: Step) -> _Answered:
    """Ask both sides; outputs of foreign files become probabilities."""
    images = pair.images(data, split)
    a = answers(pair.a, images, partial(step, "compare: A"))
    b = answers(pair.b, images, partial(step, "compare: B"))
    wrong = not_numbers(a), not_numbers(b)
    numeric = np.setdiff1d(np.arange(max(len(a), len(b))), np.concatenate(wrong))
    if pair.takes is None or images is None:
        for form, values in ((pair.a, a), (pair.b, b)):
            if form.model is not None:
                check_probabilities(form.name, values)
    elif len(numeric):
        a, b, spec, images = foreign.as_probabilities(a, b, images, numeric)
        pair = ModelPair(replace(pair.a, spec=spec), replace(pair.b, spec=spec))
    return _Answered(pair, images, a, b, numeric, wrong)


def _measure(answered: _Answered, generated: int, step: Step) -> _Measured:
    pair, images = answered.pair, answered.images
    gap = _difference(answered)
    traced = None
    if images is not None:
        traced = np.ascontiguousarray(images.pixels[_chosen(images, gap, answered.wrong)])
    layers, note = causes.traced_layers(pair, traced)
    return _Measured(
        difference=gap,
        generated=try_generated(pair, images, generated, partial(step, "compare: generated")),
        regression=regression_difference(pair),
        preprocessing=preprocessing.compare_preprocessing(pair),
        traced=traced,
        steadiness=_steadiness(pair, traced),
        layers=layers,
        note=note,
        divergence=first_divergence(layers, LIMITS[pair.precision]),
        damages=damage.damage_rows(pair, layers, images, answered.a, answered.b, answered.numeric),
    )


def _difference(answered: _Answered) -> Difference:
    """Compare the images to which both gave numbers; all figures are NaN where there are none."""
    if not len(answered.numeric):
        nan = float("nan")
        return Difference(0, nan, nan, nan, nan, nan, nan, nan, nan, nan, ())
    before, after = answered.pair.thresholds
    same = answered.a.shape == answered.b.shape
    rows = answered.numeric if same else slice(None)  # ``difference`` refuses other shapes
    gap = difference(answered.a[rows], answered.b[rows], thresholds_a=before, thresholds_b=after)
    return replace(gap, worst=tuple((int(answered.numeric[i]), far) for i, far in gap.worst))


def _steadiness(
    pair: ModelPair, images: NDArray[np.uint8] | None
) -> tuple[tuple[str, ModelForm, steadiness.Steadiness], ...]:
    """Ask each side that is a model again."""
    if images is None:
        return ()
    return tuple(
        (name, form, steadiness.steadiness(form, images))
        for name, form in (("A", pair.a), ("B", pair.b))
        if form.model is not None
    )


def _failures(
    answered: _Answered,
    measured: _Measured,
    tolerance: tuple[Tolerance, ...],
    *,
    judge_damage: bool,
) -> Iterator[str]:
    pair, images = answered.pair, answered.images
    if images is not None and (text := nothing_to_see(images)):
        yield text
    for name, form, wrong in zip("AB", (pair.a, pair.b), answered.wrong, strict=True):
        yield from not_number_failures(name, form.name, wrong, len(answered.a))
    yield from preprocessing.failures(measured.preprocessing)
    for row in measured.steadiness:
        yield from steadiness.failures(*row)
    if len(answered.numeric):
        yield from _out_of_tolerance(measured.difference, tolerance)
    yield from _other_decisions(pair)
    yield from _beyond(measured.generated, measured.regression, tolerance)
    if judge_damage:
        yield from damage.failures(measured.damages)


def _causes(answered: _Answered, measured: _Measured, *, failed: bool) -> Iterator[str]:
    yield from measured.preprocessing.causes
    yield from causes.file_causes(answered.pair, measured.layers)
    if failed or measured.divergence is not None:
        yield from causes.answer_causes(
            causes.Evidence(
                answered.pair,
                answered.a[answered.numeric],
                answered.b[answered.numeric],
                measured.layers,
                measured.divergence,
                any(steadiness.failed(form, change) for _, form, change in measured.steadiness),
            ),
            measured.traced,
        )


def _remarks(answered: _Answered, measured: _Measured) -> Iterator[str]:
    if measured.preprocessing.unknown:
        yield measured.preprocessing.unknown
    for row in measured.steadiness:
        yield from steadiness.remarks(*row)
    yield from damage.remarks(measured.damages)
    for name, values in (("A", answered.a), ("B", answered.b)):
        rows = values[answered.numeric]  # of such a network the layers show nothing
        if len(rows) > 1 and float(np.ptp(rows, axis=0).max()) < 1e-6:
            yield f"{name} gives the same answer to all {len(rows)} images"


def _out_of_tolerance(gap: Difference, tolerance: tuple[Tolerance, ...]) -> Iterator[str]:
    for row in tolerance:
        value = getattr(gap, row.metric)
        if not value <= row.limit:  # true of NaN as well
            yield f"{row.metric} is {value:.3g}; expected at most {row.limit:g} ({row.reason})"


def _other_decisions(pair: ModelPair) -> Iterator[str]:
    """Report what makes different answers of equal probabilities."""
    a, b = pair.a, pair.b
    if a.thresholds and b.thresholds and a.thresholds != b.thresholds:
        yield "the thresholds differ, so equal probabilities give different answers"
    if a.spec and b.spec and a.spec.labels != b.spec.labels:
        yield "the labels differ"
    if a.spec and b.spec and a.spec.task != b.spec.task:
        yield f"the task is {a.spec.task} in A and {b.spec.task} in B"


def _beyond(
    generated: GeneratedRow | None, kept: Difference | None, tolerance: tuple[Tolerance, ...]
) -> Iterator[str]:
    """Judge generated images by ``max_abs`` alone: quantiles and means are claims about a test set,
    not about images that nobody would send."""
    for row in tolerance:
        if row.metric != "max_abs":
            continue
        expected = f"expected at most {row.limit:g} ({row.reason})"
        if generated is not None and not generated.largest <= row.limit:
            family = generated.by_family[0][0]
            yield f"a generated image ({family}) differs by {generated.largest:.3g}; {expected}"
        if kept is not None and not kept.max_abs <= row.limit:
            yield f"an image of {REGRESSION_NAME} differs by {kept.max_abs:.3g}; {expected}"


def _chosen(
    images: Images, gap: Difference, wrong: tuple[NDArray[np.int64], ...]
) -> NDArray[np.int64]:
    """Choose images without an answer, those that differ most, and the first ones."""
    worst = [index for index, _ in gap.worst[: TRACED // 2]]
    lost = [int(rows[0]) for rows in wrong if len(rows)]
    first = range(min(TRACED, len(images.pixels)))
    return np.array(sorted(list(dict.fromkeys((*lost, *worst, *first)))[:TRACED]), np.int64)


def _accuracy(answered: _Answered) -> tuple[float, float] | None:
    images, rows = answered.images, answered.numeric
    if images is None or images.labels is None or not len(rows):
        return None
    before, after = answered.pair.thresholds
    labels = images.labels[rows]
    first = correct(answered.a[rows], labels, before).mean()
    second = correct(answered.b[rows], labels, after).mean()
    return 100 * float(first), 100 * float(second)


def _both(pair: PointPair) -> str:
    return pair.a.layer if pair.a.layer == pair.b.layer else f"{pair.a.layer} / {pair.b.layer}"


def _suspects(divergence: Divergence) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*divergence.suspects_a, *divergence.suspects_b)))


def _row(pair: PointPair, divergence: Divergence | None) -> LayerRow:
    parted = divergence is not None and pair is divergence.pair
    return LayerRow(pair.a.layer, pair.b.layer, pair.error, error_db(pair.error), parted)
