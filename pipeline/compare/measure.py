"""Two forms on the same images: the difference, the first layer that differs, and causes that
explain it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters import diagnose, onnx_file
from exporters.difference import Difference, decibels, difference
from exporters.differential import Found, search
from exporters.errors import ExportError
from exporters.first_difference import LIMITS, Pair, first_parting, pair_up
from exporters.graph_difference import graph_differences
from exporters.metrics import Floats, correct
from exporters.options import TOLERANCES, Tolerance
from exporters.parity import stream
from exporters.portability import portability
from exporters.trace import Point, trace_onnx
from pipeline.errors import DataError, StoreError
from pipeline.verify.images import DATA_FOLDER, REGRESSION_NAME, Images, find_images, spread
from runtime import ModelSpec

from .forms import Form, open_form

Step = Callable[[str, int, int], None]
SEEDS = 256  # real images that generated ones are made from
KEPT = 32  # regression inputs of one recipe, for each precision
TRACED = 16  # images whose layers are compared: those that differ most, and the first ones
_SIZES = ("fp32", "fp16", "int8")  # from fine to coarse


@dataclass(frozen=True)
class LayerRow:
    """One layer of both forms."""

    a: str
    b: str
    error: float  # of its input: relative, root mean square
    snr_db: float
    parted: bool


@dataclass(frozen=True)
class GeneratedRow:
    """What differential testing found."""

    tried: int
    largest: float  # difference of probabilities
    before_climbing: float  # the same, of the generated images that were not climbed from
    by_family: tuple[tuple[str, float], ...]
    kept: int
    file: str | None  # where they were kept


@dataclass(frozen=True)
class Comparison:
    """What was found."""

    a: str
    b: str
    images: str
    difference: Difference
    accuracy_percent: tuple[float, float] | None  # of A and B, where the images have labels
    tolerance: tuple[Tolerance, ...]  # what was held against it
    failures: tuple[str, ...]  # empty: they do not part
    first_layer: str | None  # "Conv_2 / conv2d_2", in both forms' words
    suspects: tuple[str, ...]  # nodes of A and B between the last equal layer and that one
    layers: tuple[LayerRow, ...]
    causes: tuple[str, ...]
    note: str = ""  # why there are no layers
    generated: GeneratedRow | None = None  # differential testing, where it was asked for
    regression: Difference | None = None  # what earlier differential testing kept in this run

    @property
    def passed(self) -> bool:
        """Nothing is out of tolerance."""
        return not self.failures

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "passed": self.passed}


def compare(
    a_name: str,
    b_name: str,
    data: Path | None,
    *,
    split: str = "test",
    limit: float | None = None,
    generated: int = 0,
    step: Step = lambda task, done, total: None,
) -> Comparison:
    """Compare two forms on whole streams of images.

    ``limit`` replaces the tolerances of the coarser precision by one of the largest absolute
    difference. ``generated`` images, if any, are tried as well; the worst are kept in the folder
    of the run that A or B belongs to, and from then on take part in every comparison there.
    Raises PipelineError, ExportError, PredictorError.
    """
    a, b = open_form(a_name), open_form(b_name)
    images = _images(a, b, data, split)
    found_a = _answers(a, images, partial(step, "compare: A"))
    found_b = _answers(b, images, partial(step, "compare: B"))
    result = difference(
        found_a, found_b, thresholds_a=_thresholds(a, b), thresholds_b=_thresholds(b, a)
    )
    tolerance = _tolerance(a, b, limit)
    found = _searched(a, b, images, generated, partial(step, "compare: generated images"))
    regression = _regression(a, b)
    failures = (
        *_failures(result, tolerance, a, b),
        *_generated_failures(found, regression, tolerance),
    )
    traced, note = _traced(a, b, images, result)
    parting = None
    if traced:
        layer_limit = LIMITS[_coarser(a, b)]
        parting = first_parting(traced, layer_limit)
    suspects: tuple[str, ...] = ()
    if parting is not None:
        suspects = tuple(dict.fromkeys((*parting.suspects_a, *parting.suspects_b)))
    causes = list(_static_causes(a, b, traced))
    if failures or parting is not None:
        causes += diagnose.of_outputs(found_a, found_b, _labels(a, b, found_a))
        causes += _dynamic_causes(a, b, images, result)
        if parting is not None:
            causes += diagnose.of_parting(parting)
    return Comparison(
        a=a.name,
        b=b.name,
        images="recorded outputs" if images is None else images.source,
        difference=result,
        accuracy_percent=_accuracy(a, b, images, found_a, found_b),
        tolerance=tolerance,
        failures=failures,
        first_layer=None if parting is None else _both(parting.pair),
        suspects=suspects,
        layers=tuple(
            LayerRow(
                p.a.layer,
                p.b.layer,
                p.error,
                decibels(p.error),
                parting is not None and p is parting.pair,
            )
            for p in traced
        ),
        causes=tuple(dict.fromkeys(causes)),
        note=note,
        generated=found,
        regression=regression,
    )


def _both(pair: Pair) -> str:
    return pair.a.layer if pair.a.layer == pair.b.layer else f"{pair.a.layer} / {pair.b.layer}"


def _images(a: Form, b: Form, data: Path | None, split: str) -> Images | None:
    if a.model is None and b.model is None:
        return None
    spec = a.spec or b.spec
    beside = _run_folder(a) or _run_folder(b)
    if data is None and beside is None:
        raise DataError(
            "there are no images to compare on. Give them with --data: the folder 1_data of a run, "
            'a .npy of uint8 [n, h, w, c], or a .npz with "images".'
        )
    if spec is None:
        assert data is not None or beside is not None
        place = data or (beside or Path()) / DATA_FOLDER
        pixels = _first_shape(place, split)
        spec = ModelSpec("unknown", "multi-class", *pixels, ("0", "1"))
    return find_images(data, beside or Path(), spec, split)


def _first_shape(place: Path, split: str) -> tuple[int, int, int]:
    """Of images whose models have no spec."""
    from pipeline.verify.images import read

    shape = read(place, split).pixels.shape[1:]
    if len(shape) != 3:
        raise DataError(f"{place}: images have the shape {shape}; expected (h, w, c).")
    return shape


def _run_folder(form: Form) -> Path | None:
    """The folder of the run that a file belongs to: the one that has a data stage in it."""
    path = Path(form.name.partition(":")[0])
    for folder in path.resolve().parents[:2] if path.is_file() else ():
        if (folder / DATA_FOLDER).is_dir():
            return folder
    return None


def _answers(form: Form, images: Images | None, step: Callable[[int, int], None]) -> Floats:
    if form.outputs is not None:
        if images is not None and len(form.outputs) != len(images.pixels):
            raise DataError(
                f"{form.name} has outputs of {len(form.outputs)} images, but {images.source} has "
                f"{len(images.pixels)}; expected those of the same images."
            )
        return form.outputs
    assert form.model is not None and images is not None
    return stream(form.model, images.pixels, batch_size=256, progress=step)


def _thresholds(form: Form, other: Form) -> NDArray[np.float64] | None:
    """A multi-label model's own, else the other side's, else 0.5; None for multi-class."""
    spec = form.spec or other.spec
    if spec is None or spec.task == "multi-class":
        return None
    given = form.thresholds or other.thresholds
    return np.full(len(spec.labels), 0.5) if given is None else np.asarray(given)


def _coarser(a: Form, b: Form) -> str:
    return max(a.precision, b.precision, key=_SIZES.index)


def _tolerance(a: Form, b: Form, limit: float | None) -> tuple[Tolerance, ...]:
    if limit is not None:
        return (Tolerance("max_abs", limit, "asked for"),)
    return TOLERANCES[_coarser(a, b)]


def _failures(
    found: Difference, tolerance: tuple[Tolerance, ...], a: Form, b: Form
) -> Iterator[str]:
    for row in tolerance:
        value = getattr(found, row.metric)
        if not value <= row.limit:
            yield f"{row.metric} is {value:.3g}; expected at most {row.limit:g} ({row.reason})"
    if a.thresholds and b.thresholds and a.thresholds != b.thresholds:
        yield "the thresholds differ, so equal probabilities give other answers"
    if a.spec and b.spec and a.spec.labels != b.spec.labels:
        yield "the labels differ"


def _accuracy(
    a: Form, b: Form, images: Images | None, found_a: Floats, found_b: Floats
) -> tuple[float, float] | None:
    if images is None or images.labels is None:
        return None
    first = correct(found_a, images.labels, _thresholds(a, b)).mean()
    second = correct(found_b, images.labels, _thresholds(b, a)).mean()
    return 100 * float(first), 100 * float(second)


def _labels(a: Form, b: Form, found: Floats) -> tuple[str, ...]:
    spec = a.spec or b.spec
    if spec is not None and len(spec.labels) == found.shape[1]:
        return spec.labels
    return tuple(map(str, range(found.shape[1])))


def _chosen(images: Images, found: Difference) -> NDArray[np.uint8]:
    """The images that differ most, and the first ones."""
    rows = [index for index, _ in found.worst[: TRACED // 2]]
    rows += [index for index in range(len(images.pixels)) if index not in rows]
    return np.ascontiguousarray(images.pixels[sorted(rows[:TRACED])])


def _searched(
    a: Form, b: Form, images: Images | None, budget: int, step: Callable[[int, int], None]
) -> GeneratedRow | None:
    """Differential testing within ``budget`` images; keeps the worst where there is a run."""
    if not budget:
        return None
    if images is None or a.model is None or b.model is None:
        raise DataError(
            "recorded outputs cannot answer generated images. Give a model on both sides, or leave "
            "--generated out."
        )
    seeds = np.ascontiguousarray(spread(images, SEEDS).pixels)
    found = search(a.model, b.model, seeds, budget=budget, progress=step)
    folder, file = _run_folder(a) or _run_folder(b), None
    if folder is not None:
        file = folder / REGRESSION_NAME
        _keep(file, found, _coarser(a, b))
    return GeneratedRow(
        found.tried,
        found.differences[0],
        found.before_climbing,
        found.by_family,
        len(found.images),
        None if file is None else str(file),
    )


def _keep(file: Path, found: Found, precision: str) -> None:
    """Add to what earlier searches kept; of each precision the worst stay, each image once."""
    rows: dict[str, NDArray[Any]] = {
        "images": found.images,
        "differences": np.array(found.differences, np.float32),
        "precisions": np.array([precision] * len(found.images)),
    }
    if file.exists():
        with np.load(file) as before:
            if before["images"].shape[1:] == found.images.shape[1:]:
                rows = {name: np.concatenate([rows[name], before[name]]) for name in rows}
    _, first = np.unique(rows["images"].reshape(len(rows["images"]), -1), axis=0, return_index=True)
    order = first[np.argsort(-rows["differences"][first], kind="stable")]
    of_each = [order[rows["precisions"][order] == name][:KEPT] for name in LIMITS]
    chosen = np.concatenate(of_each)
    aside = file.with_name(f"{file.name}.partial.npz")
    arrays: dict[str, Any] = {name: values[chosen] for name, values in rows.items()}
    try:
        np.savez_compressed(aside, **arrays)
        aside.replace(file)
    except OSError as exc:
        aside.unlink(missing_ok=True)
        raise StoreError(f"{file} cannot be written: {exc}. Free some space.") from exc


def _regression(a: Form, b: Form) -> Difference | None:
    """The difference on what was kept, where both sides can answer."""
    folder = _run_folder(a) or _run_folder(b)
    spec = a.spec or b.spec
    if folder is None or spec is None or a.model is None or b.model is None:
        return None
    if not (folder / REGRESSION_NAME).exists():
        return None
    images = find_images(folder / REGRESSION_NAME, folder, spec).pixels
    found_a, found_b = stream(a.model, images), stream(b.model, images)
    return difference(
        found_a, found_b, thresholds_a=_thresholds(a, b), thresholds_b=_thresholds(b, a)
    )


def _generated_failures(
    found: GeneratedRow | None, regression: Difference | None, tolerance: tuple[Tolerance, ...]
) -> Iterator[str]:
    """Only a bound of every single image holds for images that nobody would send; quantiles and
    means are claims about a test set."""
    for row in tolerance:
        if row.metric != "max_abs":
            continue
        if found is not None and not found.largest <= row.limit:
            family = found.by_family[0][0]
            yield (
                f"a generated image ({family}) differs by {found.largest:.3g}; expected at most "
                f"{row.limit:g} ({row.reason})"
            )
        if regression is not None and not regression.max_abs <= row.limit:
            yield (
                f"an image of {REGRESSION_NAME} differs by {regression.max_abs:.3g}; expected at "
                f"most {row.limit:g} ({row.reason})"
            )


def _traced(
    a: Form, b: Form, images: Images | None, found: Difference
) -> tuple[tuple[Pair, ...], str]:
    """Both forms layer by layer; nothing, and why, where a form cannot be looked into."""
    closed = [f.name for f in (a, b) if f.graph is None and f.network is None]
    if closed or images is None:
        return (), f"{' and '.join(closed)}: no layers to look into"
    chosen = _chosen(images, found)
    try:
        return pair_up(_trace(a, chosen), _trace(b, chosen)), ""
    except ExportError as exc:
        return (), str(exc)


def _trace(form: Form, images: NDArray[np.uint8]) -> tuple[Point, ...]:
    if form.network is not None:
        from exporters.trace_torch import trace_torch

        return trace_torch(form.network, images)
    assert form.graph is not None
    return trace_onnx(form.graph, images)


def _static_causes(a: Form, b: Form, pairs: tuple[Pair, ...]) -> Iterator[str]:
    """What the files themselves show, whatever the images are."""
    yield from diagnose.of_parameters(pairs)
    if a.graph is not None and b.graph is not None:
        yield from graph_differences(a.graph, b.graph)
    if a.spec is not None and b.spec is not None and a.spec.labels != b.spec.labels:
        yield f"the labels are {', '.join(a.spec.labels)} in A and {', '.join(b.spec.labels)} in B"
    if a.thresholds and b.thresholds:
        labels = a.spec.labels if a.spec else ()
        for label, x, y in zip(labels, a.thresholds, b.thresholds, strict=False):
            if x != y:
                yield f"the threshold of {label} is {x:g} in A and {y:g} in B"
    yield from _preprocessing(a, b)
    for side, form in (("A", a), ("B", b)):
        if form.precision == "int8" and form.graph is not None:
            verdict = portability(form.graph)
            if not verdict.portable:
                yield f"{side} is not portable: {verdict.reason}"


def _preprocessing(a: Form, b: Form) -> Iterator[str]:
    """Two bundles prepare images for themselves."""
    if a.preprocess is None or b.preprocess is None:
        return
    yield from (
        f"preprocess.onnx: {text}" for text in graph_differences(a.preprocess, b.preprocess)
    )
    first, second = onnx_file.session(a.preprocess), onnx_file.session(b.preprocess)
    for index, image in enumerate((*a.golden, *b.golden)):
        x, y = (s.run(["pixels"], {"image": image})[0] for s in (first, second))
        if x.shape != y.shape or not np.array_equal(x, y):
            far = (
                "" if x.shape != y.shape else f" by up to {np.abs(x.astype(int) - y).max()} levels"
            )
            yield f"preprocess.onnx makes other pixels of golden image {index}{far}"
            return


def _dynamic_causes(a: Form, b: Form, images: Images | None, found: Difference) -> Iterator[str]:
    if images is None or a.model is None or b.model is None:
        return
    yield from diagnose.of_images(a.model, b.model, _chosen(images, found))
