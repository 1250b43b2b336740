"""Two forms on the same images: the difference, the first layer that differs, and causes that
explain it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exporters import diagnose
from exporters.difference import Difference, decibels, difference
from exporters.errors import ExportError
from exporters.first_difference import LIMITS, Pair, Parting, first_parting
from exporters.metrics import Floats, correct
from exporters.options import TOLERANCES, Tolerance
from exporters.parity import stream
from pipeline.errors import DataError, PipelineError
from pipeline.verify.images import REGRESSION_NAME, Images
from runtime import PredictorError

from . import causes, foreign
from .forms import Form, open_form
from .generated import regression, searched
from .result import Comparison, GeneratedRow, LayerRow
from .sides import Sides

Step = Callable[[str, int, int], None]
TRACED = 16  # images whose layers are compared: those that differ most, and the first ones


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
    """Compare two forms on whole streams of images, or two foreign files on inputs of their own.

    ``limit`` replaces the tolerances of the coarser precision by one of the largest absolute
    difference. ``generated`` images, if any, are tried as well; the worst are kept in the folder
    of the run that A or B belongs to, and from then on take part in every comparison there.
    Raises PipelineError, ExportError, PredictorError.
    """
    with open_form(a) as first, open_form(b) as second:
        sides = Sides(first, second)
        images = sides.images(data, split)
        found_a = _answers(first, images, partial(step, "compare: A"))
        found_b = _answers(second, images, partial(step, "compare: B"))
        if sides.takes is not None and images is not None:
            found_a, found_b, spec, images = foreign.as_probabilities(found_a, found_b, images)
            sides = Sides(replace(first, spec=spec), replace(second, spec=spec))
        before, after = sides.thresholds
        found = difference(found_a, found_b, thresholds_a=before, thresholds_b=after)
        hard = searched(sides, images, generated, partial(step, "compare: generated"))
        kept = regression(sides)
        tolerance = TOLERANCES[sides.precision]
        if limit is not None:
            tolerance = (Tolerance("max_abs", limit, "asked for"),)
        failures = (*_failures(found, tolerance, sides), *_beyond(hard, kept, tolerance))
        chosen = None if images is None else _chosen(images, found)
        pairs, note = causes.traced(sides, chosen)
        parting = first_parting(pairs, LIMITS[sides.precision])
        why = list(causes.from_files(sides, pairs))
        if failures or parting is not None:
            why += _causes(sides, chosen, found_a, found_b, parting)
    return Comparison(
        a=a,
        b=b,
        images="recorded outputs" if images is None else images.source,
        difference=found,
        accuracy_percent=_accuracy(sides, images, found_a, found_b),
        tolerance=tolerance,
        failures=failures,
        first_layer=None if parting is None else _both(parting.pair),
        suspects=() if parting is None else _suspects(parting),
        layers=tuple(_row(pair, parting) for pair in pairs),
        causes=tuple(dict.fromkeys(why)),
        note=note,
        generated=hard,
        regression=kept,
    )


def _answers(form: Form, images: Images | None, step: Callable[[int, int], None]) -> Floats:
    if form.outputs is not None:
        if images is not None and len(form.outputs) != len(images.pixels):
            raise DataError(
                f"{form.name} has outputs of {len(form.outputs)} images, but {images.source} has "
                f"{len(images.pixels)}; expected those of the same images."
            )
        return form.outputs
    assert form.model is not None and images is not None
    try:
        if form.takes is not None:
            return foreign.outputs(form.name, form.model, form.takes, images.pixels, step)
        return stream(form.model, images.pixels, batch_size=256, progress=step)
    except (PipelineError, ExportError, PredictorError):
        raise
    except Exception as exc:  # of onnxruntime, of PyTorch, or of the user's own function
        raise PipelineError(
            f"{form.name} cannot answer {images.source}, {images.pixels.dtype} "
            f"{list(images.pixels.shape)}: {type(exc).__name__}: {exc}. Give it with --data what "
            "it takes."
        ) from exc


def _failures(found: Difference, tolerance: tuple[Tolerance, ...], sides: Sides) -> Iterator[str]:
    a, b = sides.a, sides.b
    for row in tolerance:
        value = getattr(found, row.metric)
        if not value <= row.limit:  # true of NaN too
            yield f"{row.metric} is {value:.3g}; expected at most {row.limit:g} ({row.reason})"
    if a.thresholds and b.thresholds and a.thresholds != b.thresholds:
        yield "the thresholds differ, so equal probabilities give other answers"
    if a.spec and b.spec and a.spec.labels != b.spec.labels:
        yield "the labels differ"


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


def _chosen(images: Images, found: Difference) -> NDArray[np.uint8]:
    """The images that differ most, and the first ones."""
    worst = [index for index, _ in found.worst[: TRACED // 2]]
    first = [index for index in range(min(TRACED, len(images.pixels))) if index not in worst]
    return np.ascontiguousarray(images.pixels[sorted((worst + first)[:TRACED])])


def _causes(
    sides: Sides,
    images: NDArray[np.uint8] | None,
    found_a: Floats,
    found_b: Floats,
    parting: Parting | None,
) -> Iterator[str]:
    yield from diagnose.of_outputs(found_a, found_b, sides.labels(found_a.shape[1]))
    # Foreign inputs need not be images: there is nothing to mirror or to exchange.
    a, b = sides.a.model, sides.b.model
    if images is not None and a is not None and b is not None and sides.takes is None:
        yield from diagnose.of_images(a, b, images)
    if parting is not None:
        yield from diagnose.of_parting(parting)


def _accuracy(
    sides: Sides, images: Images | None, found_a: Floats, found_b: Floats
) -> tuple[float, float] | None:
    if images is None or images.labels is None:
        return None
    before, after = sides.thresholds
    first = correct(found_a, images.labels, before).mean()
    second = correct(found_b, images.labels, after).mean()
    return 100 * float(first), 100 * float(second)


def _both(pair: Pair) -> str:
    return pair.a.layer if pair.a.layer == pair.b.layer else f"{pair.a.layer} / {pair.b.layer}"


def _suspects(parting: Parting) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*parting.suspects_a, *parting.suspects_b)))


def _row(pair: Pair, parting: Parting | None) -> LayerRow:
    parted = parting is not None and pair is parting.pair
    return LayerRow(pair.a.layer, pair.b.layer, pair.error, decibels(pair.error), parted)
