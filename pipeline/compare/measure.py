"""Two forms on the same images: the difference, the first layer that differs, and causes that
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
from exporters.explain.first_divergence import LIMITS, Pair, Parting, first_parting
from exporters.options import TOLERANCES, Tolerance
from pipeline.compare import causes, damage, foreign, preprocessing, steadiness
from pipeline.compare.answers import answers, check_probabilities, not_numbers, told_not_numbers
from pipeline.compare.forms import Form, open_form
from pipeline.compare.generated import regression, searched
from pipeline.compare.result import Comparison, GeneratedRow, LayerRow
from pipeline.compare.sides import Sides
from pipeline.verify.images import REGRESSION_NAME, Images, nothing_to_see

Step = Callable[[str, int, int], None]
TRACED = 16  # images whose layers are compared: those that differ most, and the first ones


@dataclass(frozen=True)
class _Asked:
    """Both sides, and what they answered to the same images."""

    sides: Sides
    images: Images | None  # None: recorded outputs on both sides
    a: Floats  # [n, labels], NaN where a side gave none
    b: Floats
    known: NDArray[np.int64]  # images to which both gave numbers
    wrong: tuple[NDArray[np.int64], NDArray[np.int64]]  # the others, of A and of B


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
    """Compare two forms on whole streams of images, or two foreign files on inputs of their own;
    and how both prepare images, where that is known.

    ``limit`` replaces the tolerances of the coarser precision by one of the largest absolute
    difference. ``generated`` images, if any, are tried as well; the worst are kept in the folder
    of the run that A or B belongs to, and from then on take part in every comparison there.
    Raises PipelineError, ExportError, PredictorError.
    """
    with open_form(a) as first, open_form(b) as second:
        asked = _asked(Sides(first, second), data, split, step)
        sides, images = asked.sides, asked.images
        found = _difference(asked)
        hard = searched(sides, images, generated, partial(step, "compare: generated"))
        kept = regression(sides)
        tolerance = TOLERANCES[sides.precision]
        if limit is not None:
            tolerance = (Tolerance("max_abs", limit, "asked for"),)
        prepared = preprocessing.compared(sides)
        chosen = None if images is None else _chosen(images, found, asked.wrong)
        steady = _steady(asked, chosen)
        pairs, note = causes.traced(sides, None if chosen is None else images_of(images, chosen))
        parting = first_parting(pairs, LIMITS[sides.precision])
        costs = damage.costs(sides, pairs, images, asked.a, asked.b, asked.known)
        failures = (
            *_nothing(images),
            *_not_numbers(a, b, asked),
            *preprocessing.failures(prepared),
            *(text for row in steady for text in steadiness.failures(*row)),
            *(_failures(found, tolerance) if len(asked.known) else ()),
            *_other_answers(sides),
            *_beyond(hard, kept, tolerance),
            *(damage.failures(costs) if limit is None else ()),
        )
        why = [*prepared.causes, *causes.from_files(sides, pairs)]
        if failures or parting is not None:
            unsteady = any(steadiness.failed(form, changes) for _, form, changes in steady)
            evidence = causes.Evidence(
                sides, asked.a[asked.known], asked.b[asked.known], pairs, parting, unsteady
            )
            why += causes.of_answers(
                evidence, None if chosen is None else images_of(images, chosen)
            )
        remarks = (
            *([prepared.unknown] if prepared.unknown else ()),
            *(text for row in steady for text in steadiness.remarks(*row)),
            *damage.remarks(costs),
            *_same_everywhere(asked),
        )
    return Comparison(
        a=a,
        b=b,
        images="recorded outputs" if images is None else images.source,
        difference=found,
        accuracy_percent=_accuracy(asked),
        tolerance=tolerance,
        failures=failures,
        first_layer=None if parting is None else _both(parting.pair),
        suspects=() if parting is None else _suspects(parting),
        layers=tuple(_row(pair, parting) for pair in pairs),
        causes=tuple(dict.fromkeys(why)),
        note=note,
        generated=hard,
        regression=kept,
        preprocessing=prepared,
        damages=costs,
        remarks=tuple(remarks),
    )


def _asked(sides: Sides, data: Path | None, split: str, step: Step) -> _Asked:
    """The answers of both; outputs of foreign files become probabilities."""
    images = sides.images(data, split)
    a = answers(sides.a, images, partial(step, "compare: A"))
    b = answers(sides.b, images, partial(step, "compare: B"))
    wrong = not_numbers(a), not_numbers(b)
    known = np.setdiff1d(np.arange(max(len(a), len(b))), np.concatenate(wrong))
    if sides.takes is None or images is None:
        for form, values in ((sides.a, a), (sides.b, b)):
            if form.model is not None:
                check_probabilities(form.name, values)
    elif len(known):
        a, b, spec, images = foreign.as_probabilities(a, b, images, known)
        sides = Sides(replace(sides.a, spec=spec), replace(sides.b, spec=spec))
    return _Asked(sides, images, a, b, known, wrong)


def _difference(asked: _Asked) -> Difference:
    """Of the images to which both gave numbers; all NaN where there are none."""
    if not len(asked.known):
        nan = float("nan")
        return Difference(0, nan, nan, nan, nan, nan, nan, nan, nan, nan, ())
    before, after = asked.sides.thresholds
    same = asked.a.shape == asked.b.shape
    rows = asked.known if same else slice(None)  # other shapes are refused in there
    found = difference(asked.a[rows], asked.b[rows], thresholds_a=before, thresholds_b=after)
    return replace(found, worst=tuple((int(asked.known[i]), gap) for i, gap in found.worst))


def _steady(
    asked: _Asked, chosen: NDArray[np.int64] | None
) -> tuple[tuple[str, Form, steadiness.Steadiness], ...]:
    """Both sides asked again, as far as they can be."""
    if chosen is None or asked.images is None:
        return ()
    images = images_of(asked.images, chosen)
    return tuple(
        (name, form, steadiness.steadiness(form, images))
        for name, form in (("A", asked.sides.a), ("B", asked.sides.b))
        if form.model is not None
    )


def images_of(images: Images | None, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Some of them, in memory."""
    assert images is not None
    return np.ascontiguousarray(images.pixels[rows])


def _nothing(images: Images | None) -> Iterator[str]:
    if images is not None and (words := nothing_to_see(images)):
        yield words


def _not_numbers(a: str, b: str, asked: _Asked) -> Iterator[str]:
    for name, form, wrong in (("A", a, asked.wrong[0]), ("B", b, asked.wrong[1])):
        yield from told_not_numbers(name, form, wrong, len(asked.a))


def _failures(found: Difference, tolerance: tuple[Tolerance, ...]) -> Iterator[str]:
    for row in tolerance:
        value = getattr(found, row.metric)
        if not value <= row.limit:  # true of NaN too
            yield f"{row.metric} is {value:.3g}; expected at most {row.limit:g} ({row.reason})"


def _other_answers(sides: Sides) -> Iterator[str]:
    """What makes other answers of equal probabilities."""
    a, b = sides.a, sides.b
    if a.thresholds and b.thresholds and a.thresholds != b.thresholds:
        yield "the thresholds differ, so equal probabilities give other answers"
    if a.spec and b.spec and a.spec.labels != b.spec.labels:
        yield "the labels differ"
    if a.spec and b.spec and a.spec.task != b.spec.task:
        yield f"the task is {a.spec.task} in A and {b.spec.task} in B"


def _beyond(
    hard: GeneratedRow | None, kept: Difference | None, tolerance: tuple[Tolerance, ...]
) -> Iterator[str]:
    """Only a bound of every single image holds for images that nobody would send; quantiles and
    means are claims about a test set."""
    for row in tolerance:
        if row.metric != "max_abs":
            continue
        expected = f"expected at most {row.limit:g} ({row.reason})"
        if hard is not None and not hard.largest <= row.limit:
            family = hard.by_family[0][0]
            yield f"a generated image ({family}) differs by {hard.largest:.3g}; {expected}"
        if kept is not None and not kept.max_abs <= row.limit:
            yield f"an image of {REGRESSION_NAME} differs by {kept.max_abs:.3g}; {expected}"


def _chosen(
    images: Images, found: Difference, wrong: tuple[NDArray[np.int64], ...]
) -> NDArray[np.int64]:
    """The images without an answer, those that differ most, and the first ones."""
    worst = [index for index, _ in found.worst[: TRACED // 2]]
    lost = [int(rows[0]) for rows in wrong if len(rows)]
    first = range(min(TRACED, len(images.pixels)))
    return np.array(sorted(list(dict.fromkeys((*lost, *worst, *first)))[:TRACED]), np.int64)


def _same_everywhere(asked: _Asked) -> Iterator[str]:
    """A network that answers alike whatever it sees shows nothing of its layers."""
    for name, values in (("A", asked.a[asked.known]), ("B", asked.b[asked.known])):
        if len(values) > 1 and float(np.ptp(values, axis=0).max()) < 1e-6:
            yield f"{name} gives the same answer to all {len(values)} images"


def _accuracy(asked: _Asked) -> tuple[float, float] | None:
    images, rows = asked.images, asked.known
    if images is None or images.labels is None or not len(rows):
        return None
    before, after = asked.sides.thresholds
    labels = images.labels[rows]
    first = correct(asked.a[rows], labels, before).mean()
    second = correct(asked.b[rows], labels, after).mean()
    return 100 * float(first), 100 * float(second)


def _both(pair: Pair) -> str:
    return pair.a.layer if pair.a.layer == pair.b.layer else f"{pair.a.layer} / {pair.b.layer}"


def _suspects(parting: Parting) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*parting.suspects_a, *parting.suspects_b)))


def _row(pair: Pair, parting: Parting | None) -> LayerRow:
    parted = parting is not None and pair is parting.pair
    return LayerRow(pair.a.layer, pair.b.layer, pair.error, error_db(pair.error), parted)
